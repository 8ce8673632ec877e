//! A CNI plugin run as a process, from exec to exit.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A plugin, the daemon that it asks, and its configuration.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// The daemon's socket, for a plugin that asks one.
    pub(super) socket: OsString,
    pub(super) config: String,
    /// The command that it gets instead of the one that is asked for.
    pub(super) instead: Option<&'static str>,
    /// True if an ADD must print addresses.
    pub(super) gives_addresses: bool,
}

impl Program {
    /// Runs the plugin to its end and returns the time that it took.
    ///
    /// # Errors
    /// It cannot be run, or did not succeed.
    pub(super) fn run(&self, command: &'static str, container: &str) -> anyhow::Result<Duration> {
        let mut process = Command::new(&self.path);
        process
            .env_clear()
            .env("CNI_COMMAND", self.instead.unwrap_or(command))
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", "/dev/null")
            .env("CNI_PATH", ".")
            .env("LEASEHOLD_SOCKET", &self.socket)
            // A group of its own: Ctrl-C is for the benchmark, and calls that run end in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let name = || format!("{} {command}", self.path.display());
        let mut printed = Vec::with_capacity(1024);
        let began = Instant::now();
        let mut child = process.spawn().with_context(name)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that ends without reading says more by its end than this error would.
            let _ = stdin.write_all(self.config.as_bytes());
        }
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_end(&mut printed).with_context(name)?;
        }
        let status = child.wait().with_context(name)?;
        let took = began.elapsed();
        let printed = String::from_utf8_lossy(&printed);
        let good = status.success()
            && (command != "ADD" || !self.gives_addresses || printed.contains("\"ips\""));
        anyhow::ensure!(good, "{}: {status}: {printed}", name());
        Ok(took)
    }
}
