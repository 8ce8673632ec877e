//! The demo's daemon: a child process with everything in the demo's directory.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

use super::interrupt::Interrupt;
use crate::api::read::Status;
use crate::cli::admin;
use crate::limits;

/// Where a daemon serves readers if it can: the default of `leasehold serve`.
const LISTEN_USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9750);

/// How long the daemon may take to serve.
const START_WAIT_MAX: Duration = Duration::from_secs(20);

/// How long the daemon may take to end: as long as it gives itself, and a little.
const STOP_WAIT_MAX: Duration = limits::SHUTDOWN_WAIT_MAX.saturating_add(Duration::from_secs(2));

/// How often a daemon that starts or stops is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How often a daemon that stays up is looked at.
pub(super) const WATCH: Duration = Duration::from_millis(500);

/// How much of its log is shown when it fails.
const TAIL_LINES: usize = 12;
/// How much of the log's end is read for that, in bytes.
const TAIL_BYTES: u64 = 16 << 10;

/// A running daemon; it ends with this value.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    listen: String,
}

impl Daemon {
    /// Starts it and waits until it serves: at the usual address, or at any if that is taken.
    pub(super) fn start(dir: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        if is_free(LISTEN_USUAL) {
            match Self::start_on(LISTEN_USUAL, dir, interrupt) {
                // Somebody else was faster.
                Err(_) if !interrupt.told() && !is_free(LISTEN_USUAL) => {}
                ended => return ended,
            }
        }
        Self::start_on(SocketAddr::new(LISTEN_USUAL.ip(), 0), dir, interrupt)
    }

    fn start_on(listen: SocketAddr, dir: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let (socket, log) = (dir.join("run/leasehold.sock"), dir.join("daemon.log"));
        let program = std::env::current_exe().context("cannot find out where this program is")?;
        let mut command = Command::new(&program);
        command.arg("serve").arg("--state-dir").arg(dir.join("state"));
        command.arg("--socket").arg(&socket).args(["--listen", &listen.to_string()]);
        // The demo shows the defaults, whatever this shell is set up for.
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.as_encoded_bytes().starts_with(b"LEASEHOLD_")) {
            command.env_remove(name);
        }
        let stderr = File::create(&log).context("cannot make the daemon's log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // A group of its own: Ctrl-C is for the demo, which then ends the daemon in order.
        command.process_group(0);
        let die_with_parent =
            || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?);
        // SAFETY: between fork and exec only one system call is made, and nothing is allocated.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(die_with_parent);
        }
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let mut daemon = Self { child, socket, log, listen: String::new() };
        daemon.wait_until_it_serves(interrupt)?;
        Ok(daemon)
    }

    fn wait_until_it_serves(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_WAIT_MAX;
        loop {
            self.must_run()?;
            let status = admin::get::<Status>(&self.socket, "/v1/status");
            let why = match status {
                Ok(status) if status.state == "serving" => {
                    self.listen = status.about.listen;
                    return Ok(());
                }
                Ok(status) => format!("it is {}", status.state),
                Err(error) => error.to_string(),
            };
            anyhow::ensure!(
                Instant::now() < deadline,
                "the daemon does not serve after {START_WAIT_MAX:?}: {why}; {}",
                self.log_tail()
            );
            anyhow::ensure!(!interrupt.wait(LOOK), "interrupted");
        }
    }

    /// The socket that it serves.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The TCP address that it serves.
    pub(super) fn listen(&self) -> &str {
        &self.listen
    }

    /// Fails, with the end of its log, if it has ended.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the daemon ended ({status}); {}", self.log_tail()),
        }
    }

    /// Ends it in order; says what was wrong with its end.
    pub(super) fn stop(&mut self) -> anyhow::Result<Option<String>> {
        let Some(status) = self.end()? else {
            return Ok(Some(format!("the daemon did not stop within {STOP_WAIT_MAX:?}")));
        };
        Ok((!status.success()).then(|| format!("the daemon ended with {status}")))
    }

    /// SIGTERM, and SIGKILL after the wait; `None`: it took the latter.
    fn end(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        // A child that was waited for may have left its id to another process.
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + STOP_WAIT_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            std::thread::sleep(LOOK);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(None)
    }

    fn log_tail(&self) -> String {
        let text = tail(&self.log).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = text.lines().collect();
        let lines = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("the end of its log:\n  {}", lines.join("\n  "))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nobody is left to be told; after an orderly stop there is nothing to do.
        let _ = self.end();
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = fs::metadata(path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}
