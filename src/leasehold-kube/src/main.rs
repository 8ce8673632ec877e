//! `leasehold-kube`: ends the nodes of Leasehold whose Node object in Kubernetes is deleted.
//!
//! One elected instance watches Node objects (`watcher.rs`), decides which nodes are gone for good
//! (`ledger.rs`), and tells the daemon of its own node (`ender.rs`). What it has seen outlives it
//! in a ConfigMap (`memory.rs`). On request it writes events on pods that got no address
//! (`reports.rs`), and says on each Node object how many pods it has addresses for (`capacity.rs`).
//! The decisions are pure: `ledger.rs` and `election.rs` have neither a clock nor
//! IO.

#![forbid(unsafe_code)]

mod capacity;
mod election;
mod ender;
mod kubernetes;
mod leader;
mod ledger;
mod limits;
mod memory;
mod options;
mod reports;
mod run;
mod times;
mod watcher;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use options::{LogFormat, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    let filter =
        EnvFilter::try_from_env("LEASEHOLD_LOG").unwrap_or_else(|_| "info,kube_client=off".into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "leasehold-kube ends");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime")?.block_on(async {
        let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("SIGINT")?;
        let end = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        run::run(options, limits::TIMING, end).await
    })
}
