//! A plugin that comes before its daemon; what the daemon tells its supervisor; what ready and
//! healthy mean.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Options, Outcome, get_tcp, my_ipam, poll, run};

/// The time within which another process must notice a change.
const PATIENCE: Duration = Duration::from_secs(30);

fn add(container: &str) -> Call {
    let ipam = json!({ "type": "my-ipam", "subnet": "10.9.0.0/24" });
    let config = json!({ "cniVersion": "1.0.0", "name": "pods", "ipam": ipam });
    Call::new("ADD", container, &config)
}

/// Runs the plugin on a socket, with that patience.
fn plugin(socket: &Path, call: &Call, seconds: &str) -> Outcome {
    let mut environment = call.environment().to_vec();
    environment.push(("LEASEHOLD_SOCKET", socket.to_str().expect("a path in UTF-8")));
    environment.push(("LEASEHOLD_WAIT_SECONDS", seconds));
    Outcome::of_process(&run(my_ipam(), &environment, &call.config.to_string()))
}

#[test]
fn an_add_before_the_daemon_waits_for_it() {
    let mut daemon = Daemon::prepare(&Options::default());
    let socket = daemon.socket();
    let impatient = plugin(&socket, &add("c1"), "0");
    assert_eq!(impatient.code(), Some(11), "{impatient:?}");
    let waiting = std::thread::spawn(move || plugin(&socket, &add("c1"), "30"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "it did not wait");
    daemon.restart();
    let outcome = waiting.join().expect("the plugin");
    assert!(outcome.succeeded(), "{outcome:?}");
}

#[test]
fn no_add_fails_while_the_daemon_is_restarted() {
    let mut daemon = Daemon::start(&Options::default());
    for round in 0..3 {
        let socket = daemon.socket();
        let load = std::thread::spawn(move || {
            let one = |number| plugin(&socket, &add(&format!("c{round}-{number}")), "30");
            (0..40).map(one).collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(100));
        daemon.restart();
        for outcome in load.join().expect("the load") {
            assert!(outcome.succeeded(), "{outcome:?}");
        }
    }
}

/// Collects the lines that the daemon has told so far.
fn told(supervisor: &UnixDatagram, so_far: &mut Vec<String>) {
    let mut datagram = [0; 4096];
    while let Ok(length) = supervisor.recv(&mut datagram) {
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        so_far.extend(text.lines().map(str::to_owned));
    }
}

/// A supervisor, and the options with which a daemon reports to it.
fn supervisor(args: &[&str]) -> (TempDir, UnixDatagram, Options) {
    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("a mode");
    let env = vec![
        ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
        ("WATCHDOG_USEC".to_owned(), "600000".to_owned()),
    ];
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    (dir, socket, Options { env, args, ..Options::default() })
}

#[test]
fn the_supervisor_hears_of_ready_alive_and_stopping() {
    let (_dir, socket, options) = supervisor(&[]);
    let mut daemon = Daemon::start(&options);
    let mut lines = Vec::new();
    let alive = poll(PATIENCE, || {
        told(&socket, &mut lines);
        lines.iter().filter(|line| *line == "WATCHDOG=1").count() >= 3
    });
    assert!(alive, "{lines:?}");
    let ready = lines.iter().position(|line| line == "READY=1").expect("READY=1");
    assert!(lines[..ready].iter().all(|line| line != "WATCHDOG=1"), "{lines:?}");
    daemon.terminate();
    told(&socket, &mut lines);
    assert!(lines.contains(&"STOPPING=1".to_owned()), "{lines:?}");
}

#[test]
fn a_daemon_that_nobody_reaches_is_not_called_alive() {
    let (_dir, socket, options) = supervisor(&[]);
    let daemon = Daemon::start(&options);
    let mut lines = Vec::new();
    // The daemon may bind the socket again before anybody looks: then once more.
    let silent = (0..5).any(|_| {
        assert!(poll(PATIENCE, || {
            told(&socket, &mut lines);
            lines.contains(&"WATCHDOG=1".to_owned()) && daemon.socket().exists()
        }));
        std::fs::remove_file(daemon.socket()).expect("the socket's file");
        std::thread::sleep(Duration::from_millis(300));
        told(&socket, &mut lines);
        lines.clear();
        std::thread::sleep(Duration::from_secs(1));
        let gone = !daemon.socket().exists();
        told(&socket, &mut lines);
        gone && !lines.contains(&"WATCHDOG=1".to_owned())
    });
    assert!(silent, "{lines:?}");
}

#[test]
fn a_node_that_cannot_serve_an_add_is_not_ready() {
    let mut etcd = Cluster::start_tls();
    etcd.authenticate(&[("leasehold", "/leasehold/v1")]);
    let wrong = etcd.password_file("not the password");
    let file = |name: &str| etcd.path(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let wrong = wrong.display().to_string();
    let endpoint = etcd.endpoint(0);
    let refused = [
        "--etcd",
        &endpoint,
        "--etcd-ca",
        &ca,
        "--etcd-cert",
        &cert,
        "--etcd-key",
        &key,
        "--etcd-user",
        "leasehold",
        "--etcd-password-file",
        &wrong,
        "--node",
        "a",
    ];
    let nobody = ["--etcd", "http://127.0.0.1:1", "--node", "a"];
    for args in [&refused[..], &nobody] {
        let (_dir, socket, options) = supervisor(args);
        let daemon = Daemon::start(&options);
        let reply = daemon.over_tcp("GET", "/readyz", "");
        assert_eq!(reply.status, 503, "{args:?}: {}", reply.body);
        let status = daemon.client().get("/v1/status");
        assert_ne!(status["state"], "serving", "{status}");
        assert!(status["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{status}");
        let metrics = daemon.client().request("GET", "/metrics", "").body;
        assert!(metrics.contains("\nleasehold_ready 0\n"), "{args:?}");
        assert_eq!(daemon.over_tcp("GET", "/healthz", "").status, 200, "it lives all the same");
        let mut lines = Vec::new();
        let said = poll(PATIENCE, || {
            told(&socket, &mut lines);
            lines.iter().any(|line| line.starts_with("STATUS=not ready: "))
        });
        assert!(said && !lines.contains(&"READY=1".to_owned()), "{lines:?}");
        assert!(!daemon.client().call(&add("c1")).succeeded());
    }
}

#[test]
fn a_node_is_ready_in_an_outage_while_it_has_addresses() {
    let mut etcd = Cluster::start(1);
    let args = ["--etcd", &etcd.endpoint(0), "--node", "a", "--lease-ttl", "5s"];
    let options = Options { args: args.map(str::to_owned).to_vec(), ..Options::default() };
    let daemon = Daemon::start(&options);
    let joined = poll(PATIENCE, || daemon.over_tcp("GET", "/readyz", "").status == 200);
    assert!(joined, "not ready");
    assert!(daemon.client().call(&add("c1")).succeeded());
    etcd.kill(0);
    let stalled =
        poll(PATIENCE, || daemon.client().get("/v1/status")["cluster"]["cause"].is_string());
    assert!(stalled, "the outage is not noticed");
    assert_eq!(daemon.over_tcp("GET", "/readyz", "").status, 200);
    assert!(daemon.client().call(&add("c2")).succeeded(), "ready means that an ADD works");
}

#[test]
fn a_socket_file_that_is_gone_is_bound_again() {
    let daemon = Daemon::start(&Options::default());
    let listen = daemon.listen();
    let tcp = |path: &str| get_tcp(listen, path);
    assert_eq!(tcp("/healthz").status, 200);
    std::fs::remove_file(daemon.socket()).expect("the socket's file");
    let reply = tcp("/healthz");
    // It may have been mended already.
    let began = Instant::now();
    if !daemon.socket().exists() {
        assert_eq!(reply.status, 503, "{}", reply.body);
        assert!(reply.body.contains("leasehold.sock is not served"), "{}", reply.body);
    }
    assert!(poll(PATIENCE, || daemon.socket().exists()), "{}", daemon.log());
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(poll(PATIENCE, || tcp("/healthz").status == 200));
    assert!(daemon.client().call(&add("c1")).succeeded());
    assert!(daemon.log().contains("bound again"), "{}", daemon.log());
}
