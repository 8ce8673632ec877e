//! `leasehold serve`: the daemon.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use crate::config::{Config, ServeArgs};

/// The end of the command's help.
pub(super) const EXAMPLES: &str = "\
Flags win over LEASEHOLD_* variables, variables over the file, the file over the defaults.
The log goes to stderr; LEASEHOLD_LOG sets its level (error, warn, info, debug). SIGTERM stops
the daemon in order. Containers keep their addresses, even if the daemon is killed (kill -9).

Examples:
  leasehold serve
  leasehold serve --state-dir /tmp/lh --socket /tmp/lh/leasehold.sock --listen 127.0.0.1:0";

/// Runs the daemon until it is told to stop.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LEASEHOLD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,actix_server=warn"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    let config = Config::new(args)?;
    actix_rt::System::new().block_on(crate::daemon::serve(config))?;
    Ok(ExitCode::SUCCESS)
}
