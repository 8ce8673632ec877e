//! The network configuration: a runtime calls a node ready as soon as it finds one, so it is
//! installed only when the daemon of the node can serve an ADD.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::file::{Done, Wanted};
use super::{FILE_MODE, InstallArgs, Interrupt};
use crate::api::ApiError;
use crate::cli::{input, output};
use crate::limits;
use my_ipam::client;

/// The time between two questions to a daemon that is not ready.
const ASK: Duration = Duration::from_millis(250);

/// The time within which the daemon must answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// The time between two looks at the network configuration.
const LOOK: Duration = Duration::from_secs(10);

/// Installs the network configuration when the daemon is ready, or takes it away at once.
///
/// # Errors
/// The configuration cannot be read or is not JSON, the daemon does not become ready in time, or
/// the file cannot be written.
pub(super) fn carry_out(
    args: &InstallArgs,
    conflist: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let content = input::read_file(conflist, limits::BODY_BYTES_MAX)
        .context("cannot read the network configuration")?;
    serde_json::from_slice::<serde_json::Value>(&content)
        .with_context(|| format!("the network configuration {} is not JSON", conflist.display()))?;
    let name = conflist.file_name().context("--conflist: a file has a name")?;
    let path = args.place(&args.net_dir).join(name);
    let wanted = Wanted { path: &path, content: &content, mode: FILE_MODE, is_peoples: false };
    if !args.uninstall && !args.dry_run {
        wait_until_ready(args, interrupt)?;
    }
    args.carry_out(&wanted)?;
    while args.stay && !interrupt.wait(LOOK) {
        if !args.uninstall {
            put_back(args, &wanted);
        }
    }
    Ok(())
}

/// Puts the network configuration back if it is lost, but only while the daemon is ready. A
/// failure is reported and tried again at the next look.
fn put_back(args: &InstallArgs, wanted: &Wanted<'_>) {
    let lost = !matches!(wanted.put(true), Ok(Done::Unchanged));
    if lost
        && ready(args).is_ok()
        && let Err(error) = args.carry_out(wanted)
    {
        eprintln!("leasehold: {error:#}");
    }
}

fn wait_until_ready(args: &InstallArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut told = false;
    while let Err(why) = ready(args) {
        anyhow::ensure!(
            args.stay || began.elapsed() < args.wait,
            "the daemon is not ready after {}: {why}; no network configuration was installed",
            humantime::format_duration(args.wait)
        );
        if !told {
            output::print(&format!("waiting    for the daemon: {why}\n"))?;
            told = true;
        }
        interrupt.wait(ASK);
        interrupt.check()?;
    }
    Ok(())
}

/// Asks the daemon if it can serve an ADD.
fn ready(args: &InstallArgs) -> Result<(), String> {
    let deadline = Instant::now() + ANSWER_WAIT_MAX;
    let answer = client::request(&args.socket, "GET", "/readyz", &[], deadline);
    match answer {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(match serde_json::from_slice(&answer.body) {
            Ok(ApiError { error }) => output::printable(&error),
            Err(_) => format!("it answers {}", answer.status),
        }),
        Err(error) => Err(format!("{}: {error}", args.socket.display())),
    }
}
