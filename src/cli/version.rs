//! `leasehold version`: which program this is, and which one the daemon runs.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::admin::{self, AdminArgs};
use super::output;
use crate::api::COMMIT;
use crate::api::read::Status;

/// The options of `leasehold version`.
#[derive(Args, Debug)]
pub(super) struct VersionArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// A program's version.
#[derive(Serialize, Debug)]
struct Version {
    version: String,
    /// The commit of its source.
    commit: String,
}

/// This program, and the daemon's if one answers.
#[derive(Serialize, Debug)]
struct Versions {
    client: Version,
    daemon: Option<Version>,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The daemon's version is shown if one answers on the socket. Exit status 1: it differs\n\
         from this program's: restart the daemon after an update.\n\n\
         Examples:\n  leasehold version\n  leasehold version -o json\n\n{}",
        super::EXIT_CODES
    )
}

/// Shows the versions.
pub(super) fn run(args: &VersionArgs) -> anyhow::Result<ExitCode> {
    let client =
        Version { version: env!("CARGO_PKG_VERSION").to_owned(), commit: COMMIT.to_owned() };
    let status: Option<Status> = admin::get(&args.admin.socket, "/v1/status").ok();
    let daemon =
        status.map(|status| Version { version: status.about.version, commit: status.about.commit });
    let versions = Versions { client, daemon };
    output::show(args.admin.output.form, &versions, || {
        let shown = |of: &Version| format!("{} (commit {})", of.version, of.commit);
        let daemon = versions.daemon.as_ref().map_or("none answers".to_owned(), shown);
        format!("client  {}\ndaemon  {daemon}\n", shown(&versions.client))
    })?;
    let same = |daemon: &Version| {
        daemon.version == versions.client.version && daemon.commit == versions.client.commit
    };
    Ok(super::verdict(versions.daemon.as_ref().is_none_or(same)))
}
