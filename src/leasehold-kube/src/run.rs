//! One instance: a candidate, and the work of the leader while it is one.

use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};

use super::capacity;
use super::ender::Ender;
use super::kubernetes::Kubernetes;
use super::leader::{Candidate, Leadership};
use super::ledger::Rules;
use super::limits::{self, Timing};
use super::options::Options;
use super::reports;
use super::times;
use super::watcher::{Failure, Watcher};

/// The API server of the cluster whose pod this is, or the one of the options.
///
/// # Errors
/// This is no pod, or the URL is none.
pub(crate) fn client(options: &Options) -> anyhow::Result<Client> {
    let config = match &options.api {
        Some(url) => Config::new(url.parse().with_context(|| format!("--api {url}"))?),
        None => Config::incluster()
            .context("this is no pod with a service account; outside of one, use --api")?,
    };
    Client::try_from(config).context("the client of the API server")
}

/// Runs until the end is told; then the Lease is given up.
///
/// # Errors
/// The options cannot be used, or the daemon that this instance needs cannot be reached.
pub(crate) async fn run(
    options: &Options,
    timing: Timing,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let client = client(options)?;
    let Options { namespace, lease_name, memory_name, grace, allow_many, .. } = options;
    let kubernetes = Kubernetes::new(client, namespace, lease_name, memory_name);
    // A container that starts again has the name of the one before.
    let identity = format!("{}_{:x}", options.identity, times::unix().as_nanos());
    let (mut candidate, leadership) = Candidate::new(kubernetes.clone(), identity.clone(), timing);
    let (mut reporter, mut over) = (leadership.clone(), leadership.clone());
    let reports = async {
        if !options.pod_events {
            std::future::pending::<()>().await;
        }
        loop {
            reporter.begins().await;
            tokio::select! {
                () = reports::run(&kubernetes, &identity, timing.pause) => {}
                () = over.ends() => {}
            }
        }
    };
    let (mut publisher, mut no_longer) = (leadership.clone(), leadership.clone());
    let capacity = async {
        if !options.node_capacity {
            std::future::pending::<()>().await;
        }
        loop {
            publisher.begins().await;
            tokio::select! {
                () = capacity::run(&kubernetes, &options.node_socket, timing) => {}
                () = no_longer.ends() => {}
            }
        }
    };
    let ender = Ender {
        socket: options.node_socket.clone(),
        limit: timing.request,
        dry_run: options.dry_run,
    };
    let rules = Rules { grace: *grace, confirm: timing.confirm, allow_many: *allow_many };
    let watcher = Watcher {
        kubernetes: kubernetes.clone(),
        ender,
        rules,
        timing,
        leadership: leadership.clone(),
    };
    let ended = tokio::select! {
        () = candidate.run() => Ok(()),
        error = work(&watcher, leadership, timing.pause) => Err(error),
        () = reports => Ok(()),
        () = capacity => Ok(()),
        () = end => Ok(()),
    };
    candidate.resign().await;
    ended.context("the daemon of this node cannot be reached; another instance takes over")
}

/// Works whenever this instance leads, until its daemon cannot be reached.
async fn work(watcher: &Watcher, mut leadership: Leadership, shortest: Duration) -> anyhow::Error {
    let mut pause = shortest;
    loop {
        leadership.begins().await;
        let began = times::up();
        tokio::select! {
            failure = watcher.lead() => match failure {
                Failure::Daemon(error) => return error,
                Failure::Round(error) | Failure::Term(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the work begins anew");
                }
            },
            () = leadership.ends() => {}
        }
        let lasted = times::up().saturating_sub(began);
        pause = if lasted > limits::PAUSE_MAX { shortest } else { pause * 2 };
        pause = pause.min(limits::PAUSE_MAX);
        tokio::time::sleep(pause).await;
    }
}
