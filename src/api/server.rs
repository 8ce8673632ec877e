//! The two listeners: the unix socket for calls and writes, TCP for reads.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use actix_web::dev::{Server, ServerHandle};
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::oneshot;

use super::lists::Lists;
use super::{Node, check, cluster, cni, read, release};
use crate::limits;

/// The settings of both listeners. (A macro because the type of a server has too many parameters
/// to write down.)
macro_rules! configured {
    ($server:expr) => {
        $server
            .workers(1)
            .worker_max_blocking_threads(limits::BLOCKING_THREADS_MAX)
            .client_request_timeout(limits::REQUEST_WAIT_MAX)
            .keep_alive(limits::IDLE_CONNECTION_MAX)
            .shutdown_timeout(limits::SHUTDOWN_WAIT_MAX.as_secs())
            .disable_signals()
    };
}

/// How many clients are served at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// On the socket.
    socket: usize,
    /// Over TCP.
    tcp: usize,
}

impl Room {
    /// What fits into so many open files, beside everything else that the daemon has open.
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
    fn new(server: Server) -> Self {
        Self { handle: server.handle(), server: actix_rt::spawn(server) }
    }

    /// Stops accepting, finishes what runs, and waits for it.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        let _ = self.server.await;
    }
}

/// The unix socket, bound but not yet served. Removed when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Binds the socket, mode 0600; its directory is made, mode 0700, if it is not there. What a
    /// dead daemon left is replaced, a living one is not.
    ///
    /// # Errors
    /// The path cannot be had; the message says why.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let about = || format!("socket {}", path.display());
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.with_context(|| format!("directory {} of the socket", dir.display()))?;
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                anyhow::bail!("{}: there is something else than a socket", about());
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                anyhow::bail!(
                    "{}: another daemon serves it; choose another with --socket",
                    about()
                );
            }
            _ => {}
        }
        // Bound under another name first, so that nobody finds it before its mode is set.
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary).with_context(about)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).with_context(about)?;
        fs::rename(&temporary, path).with_context(about)?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Serves the socket on one thread of its own, where `start` starts the actors first.
    ///
    /// # Errors
    /// The listener cannot be taken over, or the thread ended before it served.
    pub async fn serve(
        &self,
        room: Room,
        start: impl FnOnce() -> io::Result<Node> + Send + 'static,
    ) -> anyhow::Result<(Running, Node)> {
        let (started, node) = oneshot::channel();
        let start = Arc::new(Mutex::new(Some((start, started))));
        let running = Arc::new(Mutex::new(None));
        let server = HttpServer::new(move || {
            // Runs on the thread that serves, once: there is one worker.
            let first = start.lock().ok().and_then(|mut start| start.take());
            if let Some((start, started)) = first {
                let node = start();
                if let (Ok(node), Ok(mut running)) = (&node, running.lock()) {
                    *running = Some(node.clone());
                }
                let _ = started.send(node);
            }
            let node: Option<Node> = running.lock().ok().and_then(|node| node.clone());
            match node {
                Some(node) => App::new().app_data(web::Data::new(node)).configure(socket_routes),
                None => App::new(), // the daemon is about to say why it does not start
            }
        });
        let server = configured!(server)
            .max_connections(room.socket)
            .listen_uds(self.listener.try_clone()?)?
            .run();
        let running = Running::new(server);
        let node =
            node.await.context("the socket's thread ended")?.context("start of the actors")?;
        Ok((running, node))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn socket_routes(config: &mut web::ServiceConfig) {
    config
        .route("/v1/cni", web::post().to(cni::handle))
        .route("/v1/release", web::post().to(release::handle))
        .configure(cluster::writes)
        .configure(check::writes)
        .configure(read::routes);
}

/// Binds the TCP listener.
///
/// # Errors
/// The address cannot be had.
pub fn bind_tcp(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen)
        .with_context(|| format!("cannot listen on {listen}; choose another address with --listen"))
}

/// Serves reads over TCP, on a thread of its own.
///
/// # Errors
/// The listener cannot be taken over.
pub fn serve_tcp(listener: TcpListener, room: Room, node: Node) -> io::Result<Running> {
    // Who reads lists slowly here keeps nobody from those on the socket.
    let node = Node { lists: Lists::default(), ..node };
    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(node.clone())).configure(read::routes)
    });
    let server = configured!(server).max_connections(room.tcp);
    Ok(Running::new(server.listen(listener)?.run()))
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
