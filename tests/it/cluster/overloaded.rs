//! An etcd that answers writes with "not now": its members apply too slowly, or their disk is slow.
//! A proxy before a real one says it, in etcd's own words.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Error, Server};
use tonic::{Code, Status};

use super::{PATIENCE, add, await_status, metric, options_of, wide};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, poll};

/// The time after which the daemon has slowed down.
const SETTLED: Duration = Duration::from_secs(4);
/// The time over which requests and lines are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// The refusal of the moment, and the writes that it met.
type Refusal = Arc<Mutex<(Option<Status>, u64)>>;

/// Passes requests on to an etcd, but for writes that it is to refuse.
#[derive(Clone)]
struct Front {
    etcd: Channel,
    refusal: Refusal,
}

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Response<Body>, Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.etcd.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let writes = ["/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant"];
        let mut refusal = self.refusal.lock().expect("the refusal");
        if writes.contains(&request.uri().path())
            && let Some(status) = refusal.0.clone()
        {
            refusal.1 += 1;
            return Box::pin(async move { Ok(status.into_http()) });
        }
        Box::pin(self.etcd.call(request))
    }
}

/// Serves the proxy on a thread of its own, until the tests end. Returns its URL.
fn serve(etcd: &Cluster, refusal: Refusal) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    listener.set_nonblocking(true).expect("a listener");
    let etcd = Endpoint::from_shared(etcd.endpoint(0)).expect("a URL");
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let front = Front { etcd: etcd.connect_lazy(), refusal };
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let served = Server::builder().serve_with_incoming(front, TcpIncoming::from(listener));
            served.await.expect("the proxy");
        });
    });
    endpoint
}

/// With one record that waits, the daemon asks a few times a second at most, says little, and is
/// well again when etcd is.
fn is_asked_less_and_less(code: Code, words: &str) {
    let (etcd, refusal) = (Cluster::start(1), Refusal::default());
    let endpoint = serve(&etcd, refusal.clone());
    let daemon = Daemon::start(&options_of(&endpoint, "node-0", &[]));
    add(&daemon, "before", &wide()).expect_result();
    await_status(&daemon, "a member without waiting records", |status| {
        status["cluster"]["state"] == "member" && status["cluster"]["recordsWaiting"] == 0
    });
    let refuse = |status| refusal.lock().expect("the refusal").0 = status;
    let met = || refusal.lock().expect("the refusal").1;
    refuse(Some(Status::new(code, words)));
    add(&daemon, "without-a-record", &wide()).expect_result();
    assert!(poll(PATIENCE, || met() > 0), "no write came\n{}", daemon.log_tail());
    thread::sleep(SETTLED);
    let requests = || metric(&daemon, "leasehold_etcd_requests_total", &[]);
    let before = (met(), requests(), daemon.log().lines().count());
    thread::sleep(COUNTED);
    let (refused, asked) = (met() - before.0, requests() - before.1);
    let lines = daemon.log().lines().count() - before.2;
    println!("{words}: {refused} writes, {asked} requests and {lines} lines in {COUNTED:?}");
    assert!(refused > 0, "it gave up\n{}", daemon.log_tail());
    assert!(refused <= 10 && asked <= 60.0, "{refused} writes and {asked} requests");
    assert!(lines <= 5, "{lines} lines in {COUNTED:?}\n{}", daemon.log_tail());
    assert!(daemon.log().contains(words), "{}", daemon.log_tail());
    assert!(!daemon.log().contains("answers again"), "{}", daemon.log_tail());
    refuse(None);
    await_status(&daemon, "caught up", |status| status["cluster"]["recordsWaiting"] == 0);
    let said = poll(PATIENCE, || daemon.log().contains("answers again"));
    assert!(said, "{}", daemon.log_tail());
}

#[test]
fn an_etcd_with_too_many_requests_is_asked_less_and_less() {
    is_asked_less_and_less(Code::ResourceExhausted, "etcdserver: too many requests");
}

#[test]
fn an_etcd_with_a_slow_disk_is_asked_less_and_less() {
    is_asked_less_and_less(Code::Unavailable, "etcdserver: request timed out");
}
