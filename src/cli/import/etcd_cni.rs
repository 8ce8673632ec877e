//! `leasehold import etcd-cni`: the keys of a `my-ipam` that had no daemon and wrote each address
//! into etcd by itself: `PREFIX/endpoints/SERVICE/ADDRESS`, with the value `HOST:CONTAINER:POD`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::listed::{self, List, ListedArgs};
use crate::api::foreign::{Entry, Pod};
use crate::api::older::{self, Endpoint};

/// The options of `leasehold import etcd-cni`.
#[derive(Args, Debug)]
pub(in crate::cli) struct EtcdCniArgs {
    /// Output of `etcdctl get --prefix PREFIX/endpoints/`: a file, or - for standard input
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Host whose containers are taken over, as the values in etcd name it [default: this host's
    /// name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only the addresses of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    #[command(flatten)]
    pub(super) listed: ListedArgs,
}

pub(super) fn examples() -> String {
    format!(
        "The old keys are PREFIX/endpoints/SERVICE/ADDRESS: PREFIX is /ipam-etcd-cni or\n\
         /neutron. Put the configurations of Leasehold into place first, and import on every node\n\
         before the first ADD on any: a node does not know what another node's containers hold\n\
         before that node has imported it. Each running container then keeps its address, and\n\
         its DEL works. Nothing is changed in etcd. If another container holds one of the\n\
         addresses, nothing is changed here either.\n\n\
         Examples:\n  \
         etcdctl get --prefix /neutron/endpoints/ > endpoints\n  \
         leasehold import etcd-cni endpoints --network macvlannet --dry-run\n  \
         leasehold import etcd-cni endpoints --network macvlannet\n\n{}",
        crate::cli::EXIT_CODES
    )
}

/// Reads the keys and values.
pub(super) fn read(args: &EtcdCniArgs) -> anyhow::Result<List> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let text = listed::read(&args.from)?;
    let found = endpoints(&text).with_context(|| args.from.display().to_string())?;
    let wanted = |at: &Endpoint| args.service.as_ref().is_none_or(|wanted| *wanted == at.service);
    let entry = |at: Endpoint| {
        let entry = Entry {
            container_id: at.container,
            ifname: args.listed.ifname.clone(),
            address: at.address,
            of_this_boot: true,
            file: None,
            pod: Some(Pod { namespace: String::new(), name: at.pod }),
        };
        (entry, at.host == host)
    };
    let entries = found.into_iter().filter(wanted).map(entry).collect();
    Ok(List { from: args.from.clone(), entries })
}

/// Reads keys and values, each on a line of its own.
fn endpoints(text: &str) -> anyhow::Result<Vec<Endpoint>> {
    let mut lines = text.lines().enumerate();
    let mut found = Vec::new();
    while let Some((index, key)) = lines.next() {
        let at = index + 1;
        older::read_key(key).with_context(|| {
            format!("line {at}: {key:?} does not have the form PREFIX/endpoints/SERVICE/ADDRESS")
        })?;
        let value = lines.next().map(|(_, value)| value).unwrap_or_default();
        found
            .push(Endpoint::read(key, value).with_context(|| {
                format!("line {}: {value:?} is not HOST:CONTAINER:POD", at + 1)
            })?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_read_as_etcdctl_prints_them() {
        let text = "/neutron/endpoints/pay/10.21.28.4\nnode-1:c1:pay-10-online-84f8-8v4fw\n\
                    /ipam-etcd-cni/endpoints/web/fd00::2\nnode-2:c2:web-1-sandbox-5\n";
        let found = endpoints(text).unwrap();
        let of = |service: &str, address: &str, host: &str, container: &str, pod: &str| Endpoint {
            service: service.into(),
            address: address.parse().unwrap(),
            host: host.into(),
            container: container.into(),
            pod: pod.into(),
        };
        assert_eq!(
            found,
            [
                of("pay", "10.21.28.4", "node-1", "c1", "pay-10-online-84f8-8v4fw"),
                of("web", "fd00::2", "node-2", "c2", "web-1-sandbox-5")
            ]
        );
    }

    #[test]
    fn other_lines_are_refused_with_their_number() {
        for (text, said) in [
            ("/neutron/lock/pay\n123\n", "line 1"),
            ("/neutron/endpoints/pay/10.0.0.300\nh:c:p\n", "line 1"),
            ("/neutron/endpoints/pay/10.0.0.3\n", "line 2: \"\" is not HOST:CONTAINER:POD"),
            ("/neutron/endpoints/pay/10.0.0.3\nh::p\n", "line 2"),
        ] {
            let error = endpoints(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
