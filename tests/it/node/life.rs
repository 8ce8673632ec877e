//! Start, permissions, reads over TCP, and the end by SIGTERM.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::config;
use crate::common::{Call, Daemon, Options, Outcome, go_on, poll, stop};

/// The time within which the daemon must stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// The time within which clients must have started.
const PATIENCE: Duration = Duration::from_secs(20);
/// Clients that call while the daemon stops.
const CLIENTS: usize = 24;

fn mode(path: &Path) -> u32 {
    let about = fs::symlink_metadata(path);
    about.unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn the_socket_is_roots_alone() {
    let daemon = Daemon::start(&Options::default());
    let socket = daemon.socket();
    assert!(fs::metadata(&socket).expect("the socket").file_type().is_socket());
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().expect("a directory")), 0o700);
    assert_eq!(mode(&daemon.notes_dir()), 0o700);
    assert_eq!(mode(&daemon.state_dir()), 0o700);
}

#[test]
fn sigterm_unlinks_the_socket_keeps_the_state_and_exits_with_0() {
    let mut daemon = Daemon::start(&Options::default());
    let config = config("net", &["10.60.0.0/24", "2001:db8:60::/64"]);
    let add = Call::new("ADD", "a", &config);
    let told = daemon.plugin(&add);
    told.expect_result();
    let (before, socket) = (daemon.allocations(), daemon.socket());
    let began = Instant::now();
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{status}\n{}", daemon.log_tail());
    assert!(began.elapsed() < STOP_LIMIT, "{:?}", began.elapsed());
    assert!(!socket.exists(), "the socket is still there");
    assert!(daemon.state_dir().join("journal.redb").exists(), "the journal is gone");
    daemon.restart();
    assert_eq!(daemon.allocations(), before);
    assert_eq!(daemon.plugin(&add), told, "the same ADD again");
}

#[test]
fn idle_clients_do_not_hold_a_stop_up() {
    let mut daemon = Daemon::start(&Options::default());
    let idle: Vec<_> = (0..10).map(|_| daemon.connect()).collect();
    let mut kept = daemon.client();
    kept.get("/v1/status");
    let began = Instant::now();
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{status}\n{}", daemon.log_tail());
    assert!(began.elapsed() < STOP_LIMIT, "{:?} with idle clients", began.elapsed());
    drop(idle);
}

#[test]
fn calls_in_flight_are_answered_when_the_daemon_stops() {
    let mut daemon = Daemon::start(&Options::default());
    let config = config("net", &["10.61.0.0/16"]);
    let (answered, stopping) = (AtomicU64::new(0), AtomicBool::new(false));
    let told: Vec<(String, Outcome)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (mut connection, config) = (daemon.client(), &config);
                let (answered, stopping) = (&answered, &stopping);
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for number in 0.. {
                        let container = format!("c-{client}-{number}");
                        match connection.try_call(&Call::new("ADD", &container, config)) {
                            Ok(outcome) => told.push((container, outcome)),
                            Err(_) => break,
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(stopping.load(Ordering::Relaxed), "a connection broke before the stop");
                    told
                })
            })
            .collect();
        let busy = poll(PATIENCE, || answered.load(Ordering::Relaxed) >= 200);
        assert!(busy, "200 answers did not come");
        stopping.store(true, Ordering::Relaxed);
        let status = daemon.terminate();
        assert_eq!(status.code(), Some(0), "{status}\n{}", daemon.log_tail());
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    daemon.restart();
    let rows = daemon.allocations();
    let holds = |container: &str| rows.iter().any(|row| row["containerId"] == container);
    for (container, outcome) in &told {
        match outcome {
            Outcome::Done(_) => assert!(holds(container), "{container} was answered and is lost"),
            Outcome::Refused(_) => {
                assert_eq!(outcome.code(), Some(11), "{outcome:?}");
                assert!(!holds(container), "{container} was refused and holds something");
            }
            Outcome::Broken(text) => panic!("{container}: {text}"),
        }
    }
    // There is no allocation without an answer to its client: a stop leaves no call half done.
    assert_eq!(rows.len(), told.iter().filter(|(_, outcome)| outcome.succeeded()).count());
}

#[test]
fn reads_are_on_tcp_and_writes_are_not() {
    let daemon = Daemon::start(&Options::default());
    let add = Call::new("ADD", "held", &config("net", &["10.62.0.0/24"]));
    daemon.client().call(&add).expect_result();
    for (path, words) in [
        ("/healthz", "ok"),
        ("/readyz", "ok"),
        ("/metrics", "leasehold_requests_total"),
        ("/v1/status", "\"state\":\"serving\""),
        ("/v1/blocks", "\"prefix\":\"10.62.0.0/"),
    ] {
        let reply = daemon.over_tcp("GET", path, "");
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.body);
        assert!(reply.body.contains(words), "GET {path}: {}", reply.body);
    }
    let before = daemon.allocations();
    let sequence = &before[0]["sequence"];
    let del = json!({
        "command": "DEL", "containerId": "held", "netns": "", "ifname": "eth0",
        "config": config("net", &["10.62.0.0/24"]),
    });
    let release = json!({
        "network": "net", "containerId": "held", "ifname": "eth0", "sequence": sequence,
    });
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for (path, body) in [("/v1/cni", &del), ("/v1/release", &release)] {
            let reply = daemon.over_tcp(method, path, &body.to_string());
            let refused = matches!(reply.status, 404 | 405);
            assert!(refused, "{method} {path} over TCP: {} {}", reply.status, reply.body);
        }
    }
    assert_eq!(daemon.allocations(), before, "a write over TCP did something");
    // The same on the socket is carried out.
    let released = daemon.client().request("POST", "/v1/release", &release.to_string());
    assert_eq!((released.status, released.body.as_str()), (200, "{\"released\":true}"));
    let again = daemon.client().request("POST", "/v1/release", &release.to_string());
    assert_eq!((again.status, again.body.as_str()), (200, "{\"released\":false}"));
    assert_eq!(daemon.allocations(), [Value::Null; 0]);
}

#[test]
fn the_daemon_says_who_it_is() {
    let mut daemon = Daemon::start(&Options {
        args: vec!["--node".to_owned(), "node-7".to_owned()],
        ..Options::default()
    });
    let status = daemon.client().get("/v1/status");
    let about = &status["about"];
    assert_eq!(about["node"], "node-7");
    assert_eq!(about["pid"], daemon.pid());
    assert_eq!(about["stateDir"], daemon.state_dir().display().to_string());
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    let epoch = about["epoch"].as_u64().expect("an epoch");
    daemon.restart();
    let status = daemon.client().get("/v1/status");
    assert_eq!(status["about"]["epoch"].as_u64(), Some(epoch + 1), "each start raises it");
}

/// An ADD whose caller is gone before its answer is sent is undone. A repeated one only renewed
/// what its container holds, which stays.
#[test]
fn an_add_whose_caller_is_gone_is_undone() {
    let daemon = Daemon::start(&Options::default());
    let call = |container: &str| Call::new("ADD", container, &config("net", &["10.63.0.0/24"]));
    let held =
        |container: &str| daemon.allocations().iter().any(|row| row["containerId"] == container);
    daemon.client().call(&call("runs")).expect_result();
    stop(daemon.pid());
    for container in ["gone-1", "gone-2", "runs"] {
        let body = call(container).body().to_string();
        let length = body.len();
        let request =
            format!("POST /v1/cni HTTP/1.1\r\nHost: l\r\nContent-Length: {length}\r\n\r\n");
        let mut caller = daemon.connect();
        caller.write_all((request + &body).as_bytes()).expect("a request");
    }
    go_on(daemon.pid());
    // A caller that stays has its answer, and what it made stays.
    daemon.client().call(&call("stays")).expect_result();
    let undone = || !held("gone-1") && !held("gone-2");
    let logged = || daemon.log().matches("the ADD is undone").count() == 2;
    assert!(poll(PATIENCE, || logged() && undone()), "{:?}", daemon.allocations());
    assert!(held("runs") && held("stays"), "{:?}", daemon.allocations());
}

/// A daemon that waits for an etcd that does not answer ends in order, too.
#[test]
fn sigterm_while_starting_ends_the_daemon_in_order() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let etcd = format!("http://{}", silent.local_addr().expect("an address"));
    let args = vec!["--etcd".to_owned(), etcd, "--node".to_owned(), "n".to_owned()];
    let mut daemon = Daemon::prepare(&Options { args, ..Options::default() });
    daemon.start_unready();
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{status}\n{}", daemon.log_tail());
    assert!(!daemon.socket().exists(), "the socket is still there");
}
