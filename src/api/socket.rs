//! The unix socket, for calls, writes and reads.
//!
//! It is accepted and served on one thread, that of the actors. actix-web's own server accepts on
//! a thread of its own, and every call of the plugin is a new connection: waking up one thread
//! more takes longer than everything that the daemon does for an ADD.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::HttpService;
use actix_rt::Arbiter;
use actix_service::map_config;
use actix_web::dev::{AppConfig, Service, ServiceFactory as _};
use actix_web::{App, web};
use anyhow::Context as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::delivery::Client;
use super::room::Room;
use super::{AppState, check, cni, import, networks, nodes, reads, release};
use crate::{files, limits};

/// The unix socket, bound but not yet served. Removed when dropped, unless the path has another
/// file by then.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Socket {
    /// Binds the socket, mode 0600; its directory is made, mode 0700, if it is not there. The
    /// socket of a dead daemon is replaced, that of a living one is not.
    ///
    /// # Errors
    /// The socket cannot be bound at the path; the message says why.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let about = || format!("socket {}", path.display());
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            files::make_directory(dir).with_context(|| {
                format!("directory {} of the socket (another one: --socket)", dir.display())
            })?;
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
        let bound = fs::symlink_metadata(&temporary).with_context(about)?;
        fs::rename(&temporary, path).with_context(about)?;
        let file = (bound.dev(), bound.ino());
        Ok(Self { path: path.to_owned(), listener, file })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file at the path is this socket. If it is not, no client finds it.
    pub fn is_there(&self) -> bool {
        let there = fs::symlink_metadata(&self.path);
        there.is_ok_and(|there| (there.dev(), there.ino()) == self.file)
    }

    /// Removes the file, so that clients wait for the next daemon. Those that are connected, or
    /// are about to be, are served.
    pub fn unlink(&self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Serves the socket on one thread of its own, where `start` starts the actors first.
    ///
    /// # Errors
    /// The listener cannot be taken over, the thread cannot be started, or `start` fails.
    pub async fn serve(
        &self,
        room: Room,
        start: impl FnOnce() -> io::Result<AppState> + Send + 'static,
    ) -> anyhow::Result<(Serving, AppState)> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let thread = Arbiter::try_with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().max_blocking_threads(limits::BLOCKING_THREADS_MAX).build()
        });
        let thread = thread.context("the socket's thread")?;
        let (started, node) = oneshot::channel();
        let (stop, stopping) = watch::channel(false);
        let (bound, listeners) = mpsc::unbounded_channel();
        thread.spawn_fn(move || {
            let node = start();
            let serves = node.as_ref().ok().cloned();
            let _ = started.send(node);
            if let Some(node) = serves {
                actix_rt::spawn(async move {
                    if let Err(error) = serve(listener, listeners, room, node, stopping).await {
                        tracing::error!(%error, "the socket is not served");
                    }
                });
            }
        });
        let node =
            node.await.context("the socket's thread ended")?.context("start of the actors")?;
        Ok((Serving { thread, stop, bound }, node))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// The thread of the socket and the actors.
pub struct Serving {
    thread: Arbiter,
    stop: watch::Sender<bool>,
    bound: mpsc::UnboundedSender<UnixListener>,
}

impl Serving {
    /// Serves a socket that was bound anew, in place of the one before.
    ///
    /// # Errors
    /// The listener cannot be taken over.
    pub fn take(&self, socket: &Socket) -> io::Result<()> {
        let listener = socket.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        self.bound.send(listener).map_err(|_| io::Error::other("the socket's thread ended"))
    }

    /// Stops accepting, finishes what runs, and ends the thread with its actors.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.stop.closed().await;
        self.thread.stop();
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// A connection, as actix-http takes it; clients of a unix socket have no address.
type Accepted = (Client, Option<SocketAddr>);

/// Accepts and serves until it is to stop and every client is gone.
async fn serve(
    listener: UnixListener,
    mut listeners: mpsc::UnboundedReceiver<UnixListener>,
    room: Room,
    node: AppState,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut listener = tokio::net::UnixListener::from_std(listener)?;
    let app = App::new().app_data(web::Data::new(node.clone())).configure(routes);
    let app = map_config(app, |()| AppConfig::default());
    let when_stopping = stopping.clone();
    let http = HttpService::build()
        .client_request_timeout(limits::REQUEST_WAIT_MAX)
        .client_disconnect_timeout(limits::DISCONNECT_WAIT_MAX)
        .keep_alive(limits::IDLE_CONNECTION_MAX)
        // A call is carried out to its end, even if nobody waits for it: then writing tells who is
        // gone.
        .h1_allow_half_closed(true)
        .on_connect_ext(|client: &Client, data| drop(data.insert(client.watch.clone())))
        .graceful_shutdown_signal(move || {
            let mut stopping = when_stopping.clone();
            async move { drop(stopping.wait_for(|stop| *stop).await) }
        })
        .h1(app);
    let http = http.new_service(()).await.map_err(|()| io::Error::other("its service"))?;
    let places = Arc::new(Semaphore::new(room.socket));
    loop {
        let next = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(bound) = listeners.recv() => {
                listener = tokio::net::UnixListener::from_std(bound)?;
                continue;
            }
            next = next(&listener, &places) => next,
        };
        let Some((stream, place)) = next else { break };
        if poll_fn(|context| Service::<Accepted>::poll_ready(&http, context)).await.is_ok() {
            let (client, node) = (Client::new(stream, Rc::default()), node.clone());
            let answers = client.watch.clone();
            let served = http.call((client, None));
            actix_rt::spawn(async move {
                // An error of a connection concerns only its client, which notices it by itself.
                let _ = served.await;
                answers.undo_lost(&node).await;
                drop(place);
            });
        }
    }
    let everybody = u32::try_from(room.socket).unwrap_or(u32::MAX);
    let _ = places.acquire_many(everybody).await;
    Ok(())
}

/// The next client, when there is a place for one.
async fn next(
    listener: &tokio::net::UnixListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::UnixStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, place)),
            Err(error) => {
                tracing::warn!(%error, "a client of the socket cannot be accepted");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/v1/cni", web::post().to(cni::handle))
        .route("/v1/import", web::post().to(import::handle))
        .route("/v1/release", web::post().to(release::handle))
        .configure(nodes::writes)
        .configure(networks::writes)
        .configure(check::writes)
        .configure(reads);
}
