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
same as one within the last minute is counted instead, but for debug. SIGHUP reads the level of
the log again from the file; SIGTERM stops the daemon in order. Containers keep their addresses,
even if the daemon is killed (kill -9).

Examples:
  leasehold serve
  leasehold serve --state-dir /tmp/lh --socket /tmp/lh/leasehold.sock --listen 127.0.0.1:0";

/// Runs the daemon until it is told to stop.
pub(super) fn run(command: ServeCommand) -> anyhow::Result<ExitCode> {
    let config = Config::new(command.args.clone())?;
    let (filter, wrong) = filter(&config.log);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let reload: Reload = match command.log_format {
        LogFormat::Text => {
            let log = log.with_ansi(std::io::stderr().is_terminal());
            let log = log.map_event_format(Limited::new).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| handle.reload(filter).is_ok())
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).map_event_format(Limited::new);
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| handle.reload(filter).is_ok())
        }
    };
    if let Some(wrong) = wrong {
        tracing::warn!("{wrong}");
    }
    #[cfg(all(debug_assertions, not(test)))]
    for_tests()?;
    let hung_up = move || read_again(&command.args, &reload);
    actix_rt::System::new().block_on(crate::daemon::serve(config, hung_up))?;
    Ok(ExitCode::SUCCESS)
}

/// Breaks the rule that `LEASEHOLD_MUTANT` names, so that tests see whether they notice, and has
/// the daemon end where `LEASEHOLD_ABORT_AT` says. A release build has none of this.
#[cfg(all(debug_assertions, not(test)))]
fn for_tests() -> anyhow::Result<()> {
    crate::points::arm()?;
    let Some(name) = std::env::var("LEASEHOLD_MUTANT").ok().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    anyhow::ensure!(
        crate::core::mutant::breaks(&name),
        "LEASEHOLD_MUTANT={name}: src/core/mutant.rs has no such switch"
    );
    tracing::warn!("this daemon breaks a rule on purpose ({name}): for tests only");
    Ok(())
}

/// Puts another filter into the place of the present one; false: there is no log any longer.
type Reload = Box<dyn Fn(EnvFilter) -> bool>;

/// Reads the configuration again, for what may change without a restart: the level of the log.
fn read_again(args: &ServeArgs, reload: &Reload) {
    let config = match Config::new(args.clone()) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("SIGHUP: everything stays as it was: {error:#}");
            return;
        }
    };
    let (filter, wrong) = filter(&config.log);
    if reload(filter) {
        tracing::info!(
            log = config.log,
            "SIGHUP: the level of the log was read again; certificates and passwords are read at \
             each new connection; everything else needs a restart"
        );
    }
    if let Some(wrong) = wrong {
        tracing::warn!("{wrong}");
    }
}

/// Returns the filter of a level or of directives; and, if they are wrong, what to say of that.
fn filter(asked: &str) -> (EnvFilter, Option<String>) {
    let wrong = wrong(asked);
    let used = if wrong.is_some() { "info" } else { asked };
    (EnvFilter::new(directives(used)), wrong)
}

/// The levels of a log.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Says what is wrong with the text that sets the log, if anything is.
pub(super) fn wrong(asked: &str) -> Option<String> {
    let is_wrong = |directive: &&str| {
        let level = directive.rsplit_once('=').map_or(*directive, |(_, level)| level);
        !LEVELS.contains(&level) || EnvFilter::try_new(directive).is_err()
    };
    let mut all = asked.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    all.find(is_wrong).map(|directive| {
        format!(
            "log: {directive:?} is neither a level ({}) nor MODULE=LEVEL; \"info\" is used (--log, \
             LEASEHOLD_LOG)",
            LEVELS.join(", ")
        )
    })
}

/// Returns the directives that say what to log. A level alone is one of this program: of its
/// libraries, only warnings are logged.
fn directives(asked: &str) -> String {
    match Some(asked.trim()).filter(|word| !word.is_empty()).unwrap_or("info") {
        "error" => "error".to_owned(),
        "off" => "off".to_owned(),
        level if LEVELS.contains(&level) => format!("warn,leasehold={level}"),
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
            assert_eq!(super::wrong(asked), None);
        }
    }

    #[test]
    fn what_is_no_level_is_told() {
        for asked in ["inof", "info,h2=loud", "leasehold=", "h2[=debug"] {
            let said = super::wrong(asked).unwrap_or_default();
            assert!(said.contains("LEASEHOLD_LOG"), "{asked:?}: {said}");
        }
    }
}
