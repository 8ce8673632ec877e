//! The options of the program.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::limits;

/// The end of the help.
const AFTER_HELP: &str = "\
It runs in a pod, with the rights of its service account, on a node whose daemon serves the socket.
Several instances may run: one is elected. docs/kube.md has the contract and the manifests.

Examples:
  leasehold-kube --namespace leasehold
  leasehold-kube --grace 1h --log-format json
  leasehold-kube --dry-run                      only say what would be ended
  leasehold-kube --api http://127.0.0.1:8001    through `kubectl proxy`";

/// Ends the nodes of Leasehold whose Node object in Kubernetes is deleted.
#[derive(Parser, Clone, Debug)]
#[command(name = "leasehold-kube", version, after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// Namespace of the Lease and of the ConfigMap
    #[arg(long, env = "LEASEHOLD_KUBE_NAMESPACE", default_value = "leasehold")]
    pub(crate) namespace: String,
    /// Lease by which one instance is elected
    #[arg(long, value_name = "NAME", default_value = "leasehold-kube")]
    pub(crate) lease_name: String,
    /// ConfigMap with the Node objects that were seen
    #[arg(long, value_name = "NAME", default_value = "leasehold-kube-nodes")]
    pub(crate) memory_name: String,
    /// Name of this instance, to which it adds a number of its own
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "leasehold-kube")]
    pub(crate) identity: String,
    /// Unix socket of the daemon of this node
    #[arg(
        long,
        value_name = "PATH",
        env = "LEASEHOLD_SOCKET",
        default_value = my_ipam::client::SOCKET_DEFAULT
    )]
    pub(crate) node_socket: PathBuf,
    /// Time for which a Node object must have been missing before its node is ended
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = grace)]
    pub(crate) grace: Duration,
    /// End nodes also if more than half of those remembered, and at least 3, are missing at once
    #[arg(long)]
    pub(crate) allow_many: bool,
    /// End no node; only say which would be ended
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write events on pods that got no address; needs a role for events
    #[arg(long)]
    pub(crate) pod_events: bool,
    /// Say on each Node object how many pods it has addresses for; needs a role for their status
    #[arg(long)]
    pub(crate) node_capacity: bool,
    /// URL of the API server, without authentication, instead of the one of the pod
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// Form of the log
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

fn grace(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let (min, max) = limits::GRACE;
    if (min..=max).contains(&time) {
        return Ok(time);
    }
    let show = humantime::format_duration;
    Err(format!("it must be from {} to {}", show(min), show(max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_defaults_and_bounds() {
        let given = |args: &[&str]| Options::try_parse_from([&["leasehold-kube"], args].concat());
        let options = given(&[]).expect("no option is required");
        assert_eq!(options.grace, Duration::from_secs(300));
        assert!(!options.allow_many && !options.dry_run && options.api.is_none());
        assert_eq!(options.node_socket, PathBuf::from("/run/leasehold/leasehold.sock"));
        for bad in [["--grace", "0s"], ["--grace", "8d"], ["--grace", "soon"], ["--nodes", "1"]] {
            assert!(given(&bad).is_err(), "{bad:?}");
        }
    }
}
