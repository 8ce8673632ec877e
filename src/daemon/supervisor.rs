//! Tells the program that supervises the daemon (`sd_notify`, as systemd understands it) when the
//! daemon is ready, that it still works, and that it stops. Without a supervisor it tells nobody.
//!
//! The protocol is one datagram of text to the socket that `NOTIFY_SOCKET` names. That is less code
//! than a package for it would take to name.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use crate::api::{AppState, probe, read};
use crate::{clock, limits};

/// The supervisor of this process.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: UnixDatagram,
    /// The time within which it must hear of the daemon again, if it watches.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The supervisor that the environment names, if it does.
    pub(super) fn of_environment() -> Option<Self> {
        let name = std::env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty())?;
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // The variables may have been meant for a process that started this one.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| is_ours && micros > 0);
        let connected = address(&name).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => Some(Self { socket, watchdog: watchdog.map(Duration::from_micros) }),
            Err(error) => {
                tracing::warn!(socket = name, %error, "the supervisor cannot be told anything");
                None
            }
        }
    }

    fn tell(&self, text: &str) {
        if let Err(error) = self.socket.send(text.as_bytes()) {
            tracing::warn!(%error, text, "the supervisor cannot be told");
        }
    }

    /// The daemon stops.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing what runs");
    }

    /// Says when the daemon is ready, and goes on to say that it works: as long as a request on
    /// its own socket is answered. Ends with the task.
    pub(super) async fn keep_informed(&self, node: &AppState, socket: &Path) {
        self.wait_until_ready(node).await;
        // Twice in the time that the supervisor grants, and once more for a busy machine.
        let Some(every) = self.watchdog.map(|watchdog| watchdog / 3) else { return };
        loop {
            match probe::socket(socket).await {
                Ok(()) => self.tell("WATCHDOG=1"),
                Err(error) => tracing::warn!(error, "this daemon does not work as it should"),
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn wait_until_ready(&self, node: &AppState) {
        let began = clock::boot();
        let mut said = String::new();
        loop {
            match read::ready(node).await {
                Ok(()) => return self.tell("READY=1\nSTATUS=serving"),
                Err(cause) if clock::boot().since(began) > limits::READY_WAIT_MAX => {
                    tracing::warn!(cause, "not ready, but the supervisor must not wait for longer");
                    return self.tell(&format!("READY=1\nSTATUS=not ready: {}", line(&cause)));
                }
                Err(cause) if cause != said => {
                    self.tell(&format!("STATUS=not ready: {}", line(&cause)));
                    said = cause;
                }
                Err(_) => {}
            }
            tokio::time::sleep(limits::READY_LOOK).await;
        }
    }
}

/// A cause on one line.
fn line(cause: &str) -> String {
    cause.replace('\n', " ")
}

fn address(name: &str) -> std::io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
