//! An etcd that a command starts for itself: one member on the loopback interface.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::interrupt::Interrupt;

/// The time within which it must serve.
const START_WAIT_MAX: Duration = Duration::from_secs(20);

/// The time within which it must end.
const STOP_WAIT_MAX: Duration = Duration::from_secs(5);

/// A running etcd; it ends with this value.
#[derive(Debug)]
pub(in crate::cli) struct Etcd {
    child: Child,
    log: PathBuf,
    client: SocketAddr,
    program: OsString,
    args: Vec<OsString>,
}

impl Etcd {
    /// Starts `program` with its data below `dir` and waits until it takes connections.
    ///
    /// # Errors
    /// It cannot be run, or does not serve in time. The error has the end of its log.
    pub(in crate::cli) fn start(
        program: &OsStr,
        dir: &Path,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let (client, peer) = (free_address()?, free_address()?);
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let log = dir.join("etcd.log");
        let cluster = format!("one={peer_url}");
        let args = [
            ["--name", "one"],
            ["--initial-cluster", &cluster],
            ["--listen-client-urls", &client_url],
            ["--advertise-client-urls", &client_url],
            ["--listen-peer-urls", &peer_url],
            ["--initial-advertise-peer-urls", &peer_url],
        ];
        let mut args: Vec<OsString> = args.as_flattened().iter().map(OsString::from).collect();
        args.extend(["--data-dir".into(), dir.join("etcd").into()]);
        let child = spawn(program, &args, &log)?;
        let mut etcd = Self { child, log, client, program: program.to_owned(), args };
        etcd.wait_until_it_serves(interrupt)?;
        Ok(etcd)
    }

    /// Ends it, and keeps its data.
    ///
    /// # Errors
    /// It cannot be ended.
    pub(in crate::cli) fn stop(&mut self) -> anyhow::Result<()> {
        super::end(&mut self.child, STOP_WAIT_MAX)?;
        Ok(())
    }

    /// Starts it again on its data, and waits until it takes connections.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub(in crate::cli) fn start_again(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        self.child = spawn(&self.program, &self.args, &self.log)?;
        self.wait_until_it_serves(interrupt)
    }

    fn wait_until_it_serves(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_WAIT_MAX;
        // It listens for clients only once it has a leader.
        while TcpStream::connect(self.client).is_err() {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("etcd ended ({status}); {}", super::log_tail(&self.log));
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "etcd does not serve after {START_WAIT_MAX:?}; {}",
                super::log_tail(&self.log)
            );
            anyhow::ensure!(!interrupt.wait(super::LOOK), "interrupted");
        }
        Ok(())
    }

    /// The URL for clients.
    pub(in crate::cli) fn url(&self) -> String {
        format!("http://{}", self.client)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // There is no caller to return an error to, and its data goes with its directory.
        let _ = super::end(&mut self.child, STOP_WAIT_MAX);
    }
}

fn spawn(program: &OsStr, args: &[OsString], log: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args(args);
    super::spawn(command, log)
}

/// An address on which nothing listens now.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}
