//! `leasehold serve`: the daemon.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::log::Limited;
use crate::config::{Config, ServeArgs};

/// The command `leasehold serve`.
#[derive(Args, Debug)]
pub(super) struct ServeCommand {
    #[command(flatten)]
    args: ServeArgs,
    /// Form of the log: text for people, or one JSON object a line for programs
    #[arg(long, value_name = "FORMAT", env = "LEASEHOLD_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// The form of the log.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum LogFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The end of the command's help.
pub(super) const EXAMPLES: &str = "\
Flags win over LEASEHOLD_* variables, variables over the file, the file over the defaults.
The log goes to stderr; LEASEHOLD_LOG sets its level (error, warn, info, debug): debug has a line
for each ADD and DEL. A directive such as info,h2=debug sets levels by module. A line that says the
same as one within the last minute is counted instead, but for debug. SIGTERM stops
the daemon in order. Containers keep their addresses, even if the daemon is killed (kill -9).

Examples:
  leasehold serve
  leasehold serve --state-dir /tmp/lh --socket /tmp/lh/leasehold.sock --listen 127.0.0.1:0";

/// Runs the daemon until it is told to stop.
pub(super) fn run(command: ServeCommand) -> anyhow::Result<ExitCode> {
    let asked = std::env::var("LEASEHOLD_LOG").unwrap_or_default();
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(&asked)))
        .with_writer(std::io::stderr);
    match command.log_format {
        LogFormat::Text => {
            let log = log.with_ansi(std::io::stderr().is_terminal());
            log.map_event_format(Limited::new).init();
        }
        LogFormat::Json => {
            log.json().flatten_event(true).map_event_format(Limited::new).init();
        }
    }
    let config = Config::new(command.args)?;
    actix_rt::System::new().block_on(crate::daemon::serve(config))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the directives that say what to log. A level alone is one of this program: of its
/// libraries, only warnings are logged.
fn directives(asked: &str) -> String {
    let is_level = |word: &&str| ["error", "warn", "info", "debug", "trace"].contains(word);
    match Some(asked.trim()).filter(|word| !word.is_empty()).unwrap_or("info") {
        "error" => "error".to_owned(),
        level if is_level(&level) => format!("warn,leasehold={level}"),
        directives => directives.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_level_is_one_of_this_program() {
        for (asked, directives) in [
            ("", "warn,leasehold=info"),
            ("debug", "warn,leasehold=debug"),
            ("error", "error"),
            ("info,h2=debug", "info,h2=debug"),
        ] {
            assert_eq!(super::directives(asked), directives, "{asked:?}");
        }
    }
}
