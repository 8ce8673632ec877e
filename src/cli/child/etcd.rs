//! An etcd that a command starts for itself: one member on the loopback interface.

use std::ffi::OsStr;
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
        let mut command = Command::new(program);
        command.args(["--name", "one", "--initial-cluster", &format!("one={peer_url}")]);
        command.arg("--data-dir").arg(dir.join("etcd"));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        let child = super::spawn(command, &log)?;
        let mut etcd = Self { child, log, client };
        let deadline = Instant::now() + START_WAIT_MAX;
        // It listens for clients only once it has a leader.
        while TcpStream::connect(etcd.client).is_err() {
            if let Some(status) = etcd.child.try_wait()? {
                anyhow::bail!("etcd ended ({status}); {}", super::log_tail(&etcd.log));
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "etcd does not serve after {START_WAIT_MAX:?}; {}",
                super::log_tail(&etcd.log)
            );
            anyhow::ensure!(!interrupt.wait(super::LOOK), "interrupted");
        }
        Ok(etcd)
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

/// An address on which nothing listens now.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}
