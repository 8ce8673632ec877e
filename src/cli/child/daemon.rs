//! A daemon that a command starts for itself: a child process that keeps everything in the
//! command's directory.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::interrupt::Interrupt;
use crate::api::read::Status;
use crate::cli::admin;
use crate::limits;

/// The address where a daemon serves readers if it can: the default of `leasehold serve`.
const LISTEN_USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9750);

/// The time within which the daemon must serve.
const START_WAIT_MAX: Duration = Duration::from_secs(20);

/// The time within which the daemon must end: the time that it gives itself, and a little.
const STOP_WAIT_MAX: Duration = limits::SHUTDOWN_WAIT_MAX.saturating_add(Duration::from_secs(2));

/// The time between two looks at a daemon that stays up.
pub(in crate::cli) const WATCH: Duration = Duration::from_millis(500);

/// A running daemon; it ends with this value.
#[derive(Debug)]
pub(in crate::cli) struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    listen: String,
    /// The arguments of `serve`.
    args: Vec<OsString>,
}

impl Daemon {
    /// Starts it and waits until it serves: at the usual address, or at any if that is taken.
    pub(in crate::cli) fn start(
        dir: &Path,
        args: &[&str],
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        if is_free(LISTEN_USUAL) {
            match Self::start_on(LISTEN_USUAL, dir, args, interrupt) {
                // Another process took the address first.
                Err(_) if !interrupt.has_come() && !is_free(LISTEN_USUAL) => {}
                ended => return ended,
            }
        }
        Self::start_with(dir, args, interrupt)
    }

    /// Starts it with more arguments of `serve`, at any address, and waits until it serves.
    pub(in crate::cli) fn start_with(
        dir: &Path,
        args: &[&str],
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        Self::start_on(SocketAddr::new(LISTEN_USUAL.ip(), 0), dir, args, interrupt)
    }

    fn start_on(
        listen: SocketAddr,
        dir: &Path,
        args: &[&str],
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let (socket, log) = (dir.join("run/leasehold.sock"), dir.join("daemon.log"));
        // The node's own file may name the cluster's etcd.
        let own = ["serve", "--config", "/dev/null", "--listen", &listen.to_string()];
        let own = own.iter().chain(args).map(OsString::from);
        let places = ["--state-dir".into(), dir.join("state").into()];
        let socket_args = ["--socket".into(), socket.clone().into()];
        let args: Vec<OsString> = own.chain(places).chain(socket_args).collect();
        let child = spawn(&args, &log)?;
        let mut daemon = Self { child, socket, log, listen: String::new(), args };
        daemon.wait_until_it_serves(interrupt)?;
        Ok(daemon)
    }

    /// Starts it again after its end, and waits until it serves.
    pub(in crate::cli) fn start_again(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        self.child = spawn(&self.args, &self.log)?;
        self.wait_until_it_serves(interrupt)
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
            anyhow::ensure!(!interrupt.wait(super::LOOK), "interrupted");
        }
    }

    /// The socket that it serves.
    pub(in crate::cli) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The TCP address that it serves.
    pub(in crate::cli) fn listen(&self) -> &str {
        &self.listen
    }

    /// Fails with the end of the daemon's log if the daemon has ended.
    pub(in crate::cli) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the daemon ended ({status}); {}", self.log_tail()),
        }
    }

    /// Stops the daemon in order. Returns a sentence if its end was not a good one.
    pub(in crate::cli) fn stop(&mut self) -> anyhow::Result<Option<String>> {
        let Some(status) = super::end(&mut self.child, STOP_WAIT_MAX)? else {
            return Ok(Some(format!("the daemon did not stop within {STOP_WAIT_MAX:?}")));
        };
        Ok((!status.success()).then(|| format!("the daemon ended with {status}")))
    }

    /// Kills it on the spot.
    pub(in crate::cli) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Returns a figure of its metrics, added up over the series that have all these labels.
    pub(in crate::cli) fn metric(&self, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let text = admin::get_text(&self.socket, "/metrics")?;
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (of, rest) = series.split_once('{').unwrap_or((series, ""));
            let wanted = of == name && labels.iter().all(|label| rest.contains(label));
            wanted.then(|| value.parse::<f64>().ok()).flatten()
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// Its process id.
    pub(in crate::cli) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log_tail(&self) -> String {
        super::log_tail(&self.log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // There is no caller to return an error to; after an orderly stop there is nothing to do.
        let _ = super::end(&mut self.child, STOP_WAIT_MAX);
    }
}

fn spawn(args: &[OsString], log: &Path) -> anyhow::Result<Child> {
    let mut command = super::this_program()?;
    command.args(args);
    super::spawn(command, log)
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}
