//! The TCP listener, for reads.
//!
//! It has a thread of its own, which gives way to that of the calls. When every place is taken, it
//! closes the connection that has been idle for the longest time. So many silent clients cannot
//! keep others out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::HttpService;
use actix_rt::Arbiter;
use actix_service::map_config;
use actix_web::dev::{AppConfig, Service, ServiceFactory as _};
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};

use super::guard::{self, Guard, Listener};
use super::lists::{self, Lists};
use super::room::Room;
use super::watched::{Watch, Watched};
use super::{AppState, reads, trend};
use crate::limits;

/// The thread of the listener.
pub struct Running {
    thread: Arbiter,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Stops accepting, finishes what runs, and waits for it.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.stop.closed().await;
        self.thread.stop();
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// Binds the TCP listener.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen)
        .with_context(|| format!("cannot listen on {listen}; choose another address with --listen"))
}

/// Serves reads over TCP, on a thread of its own.
///
/// # Errors
/// The listener cannot be taken over, or a thread cannot be started.
pub fn serve(
    listener: TcpListener,
    room: Room,
    node: AppState,
    guard: Guard,
) -> anyhow::Result<Running> {
    listener.set_nonblocking(true)?;
    // A client that reads lists slowly here does not delay lists on the socket.
    let lists = Lists::start(limits::WHOLE_AGE_MAX).context("the thread of the lists")?;
    let node = AppState { lists, listener: Listener::Tcp(Arc::new(guard)), ..node };
    node.lists.keep_doing(trend::follow(node.clone()));
    let thread = Arbiter::try_with_tokio_rt(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().max_blocking_threads(limits::BLOCKING_THREADS_MAX).build()
    });
    let thread = thread.context("the TCP listener's thread")?;
    let (stop, stopping) = watch::channel(false);
    thread.spawn_fn(move || {
        lists::give_way();
        actix_rt::spawn(async move {
            if let Err(error) = accept_all(listener, room, node, stopping).await {
                tracing::error!(%error, "nothing is served over TCP");
            }
        });
    });
    Ok(Running { thread, stop })
}

/// Accepts and serves until it is to stop and every client is gone.
async fn accept_all(
    listener: TcpListener,
    room: Room,
    node: AppState,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app =
        App::new().app_data(web::Data::new(node)).wrap(from_fn(guard::check)).configure(reads);
    let app = map_config(app, |()| AppConfig::default());
    let when_stopping = stopping.clone();
    let http = HttpService::build()
        .client_request_timeout(limits::REQUEST_WAIT_MAX)
        .client_disconnect_timeout(limits::DISCONNECT_WAIT_MAX)
        .keep_alive(limits::IDLE_CONNECTION_MAX)
        // A reader that went away ends its work.
        .h1_allow_half_closed(false)
        .graceful_shutdown_signal(move || {
            let mut stopping = when_stopping.clone();
            async move { drop(stopping.wait_for(|stop| *stop).await) }
        })
        .h1(app);
    let http = http.new_service(()).await.map_err(|()| io::Error::other("its service"))?;
    let (places, crowd) = (Arc::new(Semaphore::new(room.tcp)), Rc::new(Crowd::default()));
    loop {
        let stream = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            stream = next(&listener) => stream,
        };
        if places.available_permits() == 0 {
            crowd.make_room();
        }
        let place = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        if poll_fn(|context| Service::<Accepted>::poll_ready(&http, context)).await.is_err() {
            continue;
        }
        let (client, number) = crowd.admit();
        let served = http.call((Watched::new(stream, client.clone()), None));
        let crowd = crowd.clone();
        actix_rt::spawn(async move {
            // An error of a connection concerns only its client, which notices it by itself.
            tokio::select! {
                _ = served => {}
                () = client.leave.notified() => {}
            }
            crowd.clients.borrow_mut().remove(&number);
            drop(place);
        });
    }
    let everybody = u32::try_from(room.tcp).unwrap_or(u32::MAX);
    let _ = places.acquire_many(everybody).await;
    Ok(())
}

async fn next(listener: &tokio::net::TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a client cannot be accepted over TCP");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection, as actix-http takes it.
type Accepted = (Watched<TcpStream, Rc<Client>>, Option<SocketAddr>);

/// The clients that are connected, by number, in the order in which they came.
#[derive(Default)]
struct Crowd {
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    /// Counts clients, and what they do.
    clock: Rc<Cell<u64>>,
}

/// The state of a client.
struct Client {
    /// The last time, on the crowd's clock, at which it sent or took something.
    last: Cell<u64>,
    /// True if it has said something that was not answered since.
    asks: Cell<bool>,
    /// Tells it to leave.
    leave: Notify,
    clock: Rc<Cell<u64>>,
}

impl Crowd {
    fn admit(&self) -> (Rc<Client>, u64) {
        let client = Client {
            last: Cell::new(0),
            asks: Cell::new(false),
            leave: Notify::new(),
            clock: self.clock.clone(),
        };
        client.touch(false);
        let (client, number) = (Rc::new(client), self.clock.get());
        self.clients.borrow_mut().insert(number, client.clone());
        (client, number)
    }

    /// Has the client leave that was idle for longest. If all of them ask for something, nobody
    /// leaves.
    fn make_room(&self) {
        let clients = self.clients.borrow();
        let idle = clients.values().filter(|client| !client.asks.get());
        if let Some(oldest) = idle.min_by_key(|client| client.last.get()) {
            oldest.leave.notify_one();
        }
    }
}

impl Client {
    fn touch(&self, asks: bool) {
        self.clock.set(self.clock.get() + 1);
        self.last.set(self.clock.get());
        self.asks.set(asks);
    }
}

impl Watch for Rc<Client> {
    fn has_read(&self) {
        self.touch(true);
    }

    fn has_written(&self, _: &io::Result<usize>) {
        self.touch(false);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    fn must_leave(client: &Client) -> bool {
        let mut leaves = std::pin::pin!(client.leave.notified());
        leaves.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn the_client_leaves_that_was_idle_for_longest() {
        let crowd = Crowd::default();
        let [asks, idle, newer, answered] = std::array::from_fn(|_| crowd.admit().0);
        asks.touch(true);
        answered.touch(true);
        answered.touch(false);
        crowd.make_room();
        assert_eq!(
            [&asks, &idle, &newer, &answered].map(|of| must_leave(of)),
            [false, true, false, false]
        );
        crowd.clients.borrow_mut().retain(|_, client| !Rc::ptr_eq(client, &idle));
        newer.touch(true);
        crowd.make_room();
        assert_eq!([&asks, &newer, &answered].map(|of| must_leave(of)), [false, false, true]);
        crowd.clients.borrow_mut().retain(|_, client| !Rc::ptr_eq(client, &answered));
        crowd.make_room();
        assert_eq!([&asks, &newer].map(|of| must_leave(of)), [false, false], "all of them ask");
    }
}
