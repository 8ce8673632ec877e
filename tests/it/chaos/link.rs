//! The ways between a daemon and the members of etcd: TCP relays that can be cut or held up.

use std::net::SocketAddr;
use std::thread;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// The fate of the bytes that are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Open,
    /// Connections end, and new ones do so at once.
    Cut,
    /// Requests pass, answers wait until it is open again. Then they come late, or never if it is
    /// cut first.
    Mute,
}

/// The ways of one daemon, one for each member of etcd. They end when this goes out of scope.
pub(super) struct Links {
    /// The URLs that the daemon knows for those of etcd.
    pub(super) endpoints: Vec<String>,
    way: watch::Sender<Way>,
    _end: oneshot::Sender<()>,
}

impl Links {
    pub(super) fn open(targets: &[String]) -> Self {
        let targets: Vec<SocketAddr> = targets
            .iter()
            .map(|url| url.trim_start_matches("http://").parse().expect("an address of etcd"))
            .collect();
        let (way, of) = watch::channel(Way::Open);
        let (end, ended) = oneshot::channel();
        let (bound, endpoints) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().expect("a runtime").block_on(async move {
                let mut names = Vec::new();
                for target in targets {
                    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                    let own = listener.local_addr().expect("its number");
                    names.push(format!("http://{own}"));
                    tokio::spawn(serve(listener, target, of.clone()));
                }
                bound.send(names).expect("the test waits");
                let _ = ended.await;
            });
        });
        let endpoints = endpoints.recv().expect("relays");
        Self { endpoints, way, _end: end }
    }

    pub(super) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, way: watch::Receiver<Way>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        if *way.borrow() != Way::Cut {
            tokio::spawn(carry(near, target, way.clone()));
        }
    }
}

/// Carries one connection.
async fn carry(mut near: TcpStream, target: SocketAddr, mut way: watch::Receiver<Way>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (mut answers, mut requests) = far.into_split();
    let (mut from_near, mut to_near) = near.split();
    let mut gate = way.clone();
    let back = async {
        let mut piece = [0; 16 * 1024];
        loop {
            let length = answers.read(&mut piece).await.unwrap_or(0);
            if length == 0 || gate.wait_for(|way| *way != Way::Mute).await.is_err() {
                return;
            }
            if to_near.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    let forth = async {
        let _ = tokio::io::copy(&mut from_near, &mut requests).await;
    };
    tokio::select! {
        () = back => {}
        () = forth => {}
        _ = way.wait_for(|way| *way == Way::Cut) => {}
    }
}
