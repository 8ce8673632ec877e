//! The `CNI_*` variables, with a check that those that are required are there, as text. The daemon
//! judges what they say.

use std::ffi::OsString;

use super::command::Command;
use super::failure::{ENVIRONMENT, Failure};

/// The variable that makes a run a CNI call.
pub(super) const COMMAND: &str = "CNI_COMMAND";

/// The variables of one call; what is unset is empty.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) command: Command,
    pub(super) container_id: String,
    pub(super) netns: String,
    pub(super) ifname: String,
    pub(super) args: String,
    pub(super) path: String,
}

impl Environment {
    /// Takes the variables; the failure (code 4) names those that are missing or not text.
    ///
    /// `CNI_PATH` is required where the reference implementation (skel) requires it, not where the
    /// specification does: a runtime that leaves it out would get an error from host-local too.
    pub(super) fn read(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let text = |name: &str| match variable(name).unwrap_or_default().into_string() {
            Ok(value) => Ok(value),
            Err(_) => {
                let msg = format!("the value of the env variable {name} is not UTF-8");
                Err(Failure::new(ENVIRONMENT, msg, ""))
            }
        };
        let name = text(COMMAND)?;
        let Some(command) = Command::parse(&name) else {
            let msg = format!("unknown CNI_COMMAND: {name}");
            return Err(Failure::new(ENVIRONMENT, msg, ""));
        };
        // A DEL has no use for these, and its addresses must not be stranded for them.
        let unused = |name: &str| match variable(name).unwrap_or_default() {
            value if command == Command::Del => Ok(value.to_string_lossy().into_owned()),
            _ => text(name),
        };
        let environment = Self {
            command,
            container_id: text("CNI_CONTAINERID")?,
            netns: unused("CNI_NETNS")?,
            ifname: text("CNI_IFNAME")?,
            args: unused("CNI_ARGS")?,
            path: unused("CNI_PATH")?,
        };
        environment.require()?;
        Ok(environment)
    }

    fn require(&self) -> Result<(), Failure> {
        let (attachment, netns, path) = match self.command {
            Command::Add | Command::Check => (true, true, true),
            Command::Del => (true, false, true),
            Command::Gc | Command::Status => (false, false, true),
            Command::Version => (false, false, false),
        };
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", attachment, &self.container_id),
            ("CNI_NETNS", netns, &self.netns),
            ("CNI_IFNAME", attachment, &self.ifname),
            ("CNI_PATH", path, &self.path),
        ]
        .into_iter()
        .filter(|(_, required, value)| *required && value.is_empty())
        .map(|(name, ..)| name)
        .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let msg = format!("required env variables [{}] missing", missing.join(","));
        Err(Failure::new(ENVIRONMENT, msg, ""))
    }
}
