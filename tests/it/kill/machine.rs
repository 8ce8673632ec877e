//! A machine that can be rebooted: to the daemon, a boot is the text of a file.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::common::{Daemon, Options};

/// A daemon on a machine that can be rebooted.
pub(super) struct Machine {
    boot: TempDir,
    boots: u32,
    pub(super) daemon: Daemon,
}

impl Machine {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let boot = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let file = boot.path().join("boot-id");
        let env = vec![("LEASEHOLD_BOOT_ID_FILE".to_owned(), file.display().to_string())];
        let args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let options = Options { cooldown: "1h", env, args };
        let mut machine = Self { boot, boots: 0, daemon: Daemon::prepare(&options) };
        machine.next_boot();
        machine.daemon.restart();
        machine
    }

    pub(super) fn next_boot(&mut self) {
        self.boots += 1;
        let id = format!("00000000-0000-4000-8000-{:012}\n", self.boots);
        fs::write(self.boot.path().join("boot-id"), id).expect("a boot id");
    }

    /// Kills the daemon and starts it again, in another boot.
    pub(super) fn reboot(&mut self) {
        self.daemon.kill9();
        self.next_boot();
        self.daemon.restart();
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.daemon.state_dir().join("journal.redb")
    }
}
