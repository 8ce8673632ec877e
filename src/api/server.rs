//! The TCP listener, for reads; and the number of clients that are served at once, here and on the
//! socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::lists::Lists;
use super::{AppState, reads};
use crate::limits;

/// The number of clients that are served at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// On the socket.
    pub(super) socket: usize,
    /// Over TCP.
    tcp: usize,
}

impl Room {
    /// Returns the room that so many open files give, beside everything else that the daemon has
    /// open.
    fn within(files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let left = files.saturating_sub(limits::FILES_KEPT).max(limits::CONNECTIONS_MIN);
        let tcp = limits::TCP_CONNECTIONS_MAX.min(left / 4);
        Self { socket: limits::CONNECTIONS_MAX.min(left - tcp), tcp }
    }

    /// Takes as many open files as the system gives this process.
    pub fn make() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, all) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = Self::within(files);
        if room.socket < limits::CONNECTIONS_FEW {
            tracing::warn!(
                files,
                on_the_socket = room.socket,
                over_tcp = room.tcp,
                "few clients are served at once: raise the hard limit of open files (LimitNOFILE)"
            );
        }
        room
    }
}

/// A running listener.
pub struct Running {
    handle: ServerHandle,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

impl Running {
    /// Stops accepting, finishes what runs, and waits for it.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        let _ = self.server.await;
    }
}

/// Binds the TCP listener.
///
/// # Errors
/// The address cannot be bound.
pub fn bind_tcp(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen)
        .with_context(|| format!("cannot listen on {listen}; choose another address with --listen"))
}

/// Serves reads over TCP, on a thread of its own.
///
/// # Errors
/// The listener cannot be taken over.
pub fn serve_tcp(
    listener: TcpListener,
    room: Room,
    node: AppState,
    socket: &Path,
) -> io::Result<Running> {
    // A client that reads lists slowly here keeps nobody from those on the socket.
    let node = AppState { lists: Lists::default(), probed: Some(socket.into()), ..node };
    let server =
        HttpServer::new(move || App::new().app_data(web::Data::new(node.clone())).configure(reads));
    let server = server
        .workers(1)
        .worker_max_blocking_threads(limits::BLOCKING_THREADS_MAX)
        .max_connections(room.tcp)
        .client_request_timeout(limits::REQUEST_WAIT_MAX)
        .keep_alive(limits::IDLE_CONNECTION_MAX)
        .shutdown_timeout(limits::SHUTDOWN_WAIT_MAX.as_secs())
        .disable_signals()
        .listen(listener)?
        .run();
    Ok(Running { handle: server.handle(), server: actix_rt::spawn(server) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_files_for_everything_else() {
        let room = |files| {
            let Room { socket, tcp } = Room::within(files);
            (socket, tcp)
        };
        assert_eq!(room(u64::MAX), (limits::CONNECTIONS_MAX, limits::TCP_CONNECTIONS_MAX));
        assert_eq!(room(1_024), (384, 128));
        for files in [600, 1_024, 4_096, 20_000, 65_536] {
            let (socket, tcp) = room(files);
            assert!(socket + tcp + limits::FILES_KEPT <= files as usize, "{files}");
        }
        assert_eq!(room(0), (48, 16), "never none");
    }
}
