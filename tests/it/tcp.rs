//! Goal: over TCP everybody sees figures, nobody sees pods and containers unless the operator says
//! so, foreign names and pages are refused, idle clients keep nobody out, and readers disturb no
//! call.
//!
//! Method: a daemon with a container whose names are looked for in every answer; requests as
//! browsers, scrapers and crowds make them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Call, Daemon, Options, Reply, reply_of};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients that ask once and then stay, which is more than the daemon has places for.
const CROWD: usize = 1_100;
/// Readers at the same time, and the addresses that their lists have.
const READERS: usize = 16;
const LISTED: usize = 3_000;
/// Names that must not be shown: of a container, a pod, its namespace, a network namespace, and a
/// machine.
const SECRETS: [&str; 5] =
    ["secret-container", "secret-pod", "secret-namespace", "secret-netns", "5ec4e75ec4e75ec4e7"];
/// The resources that have such names in them.
const DETAILS: [&str; 3] = ["/v1/allocations", "/v1/records", "/v1/check"];

fn config() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods",
        "ipam": { "type": "my-ipam", "ranges": [[{ "subnet": "10.64.0.0/16" }]] },
    })
}

/// A daemon with these arguments that holds an address for a container with the names above.
fn daemon(arguments: &[&str]) -> (Daemon, TempDir) {
    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let machine = dir.path().join("machine-id");
    fs::write(&machine, SECRETS[4]).expect("a machine's id");
    let mut args = vec!["--machine-id-file".to_owned(), machine.to_string_lossy().into_owned()];
    args.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let daemon = Daemon::start(&Options { args, ..Options::default() });
    let add = Call {
        netns: "/run/netns/secret-netns".to_owned(),
        args: "K8S_POD_NAMESPACE=secret-namespace;K8S_POD_NAME=secret-pod".to_owned(),
        ..Call::new("ADD", SECRETS[0], &config())
    };
    daemon.client().call(&add).expect_result();
    (daemon, dir)
}

/// A request over TCP with these headers.
fn ask(daemon: &Daemon, path: &str, headers: &str) -> Reply {
    let mut stream = TcpStream::connect(daemon.listen()).expect("a TCP connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    reply_of(stream).unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

const LOCAL: &str = "Host: localhost\r\n";

fn secrets_in(text: &str) -> Vec<&'static str> {
    SECRETS.into_iter().filter(|secret| text.contains(secret)).collect()
}

#[test]
fn everybody_sees_figures_and_no_names() {
    let (daemon, _dir) = daemon(&[]);
    for path in ["/metrics", "/healthz", "/readyz"] {
        let reply = ask(&daemon, path, LOCAL);
        assert_eq!((reply.status, secrets_in(&reply.body)), (200, vec![]), "{path}");
    }
    let figures = ["status", "blocks", "pools", "nodes", "networks", "map", "events", "trend"];
    for path in figures {
        let reply = ask(&daemon, &format!("/v1/{path}"), LOCAL);
        assert_eq!((reply.status, secrets_in(&reply.body)), (200, vec![]), "{path}");
    }
    let nodes: Value = serde_json::from_str(&ask(&daemon, "/v1/nodes", LOCAL).body).expect("JSON");
    assert_eq!(nodes[0]["machineId"].as_str().map(str::len), Some(32), "a digest: {nodes}");
    // On the socket everything is shown, but for the machine's id.
    let rows = daemon.client().request("GET", "/v1/allocations", "").body;
    assert_eq!(secrets_in(&rows), SECRETS[..3], "{rows}");
    let nodes = daemon.client().request("GET", "/v1/nodes", "").body;
    assert_eq!(secrets_in(&nodes), [] as [&str; 0], "{nodes}");
    for path in DETAILS.into_iter().chain([
        "/v1/%61llocations",
        "/v1/allocations?limit=1",
        "/v1/records?search=secret",
        "/v1/records?pool=pods&block=10.64.0.0%2F26",
    ]) {
        let reply = ask(&daemon, path, LOCAL);
        assert!(matches!(reply.status, 403 | 404), "{path}: {}", reply.status);
        assert_eq!(secrets_in(&reply.body), [] as [&str; 0], "{path}: {}", reply.body);
    }
    let reply = ask(&daemon, "/v1/allocations", LOCAL);
    for words in ["not shown to everybody over TCP", "unix socket", "listenDetails"] {
        assert!(reply.body.contains(words), "{}", reply.body);
    }
    assert_eq!(
        ask(&daemon, "/v1/check", &format!("{LOCAL}Authorization: Bearer \r\n")).status,
        401
    );
}

#[test]
fn the_operator_or_a_token_opens_the_names() {
    let (open, _dir) = daemon(&["--listen-details"]);
    for path in DETAILS {
        assert_eq!(ask(&open, path, LOCAL).status, 200, "{path}");
    }
    assert_eq!(secrets_in(&ask(&open, "/v1/allocations", LOCAL).body), SECRETS[..3]);

    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let file = dir.path().join("token");
    fs::write(&file, "0123456789abcdef\n").expect("a token");
    let path = file.to_string_lossy().into_owned();
    let (closed, _dir) = daemon(&["--listen-token-file", &path]);
    let with = |token: &str| format!("{LOCAL}Authorization: Bearer {token}\r\n");
    for path in DETAILS {
        assert_eq!(ask(&closed, path, &with("0123456789abcdef")).status, 200, "{path}");
        assert_eq!(ask(&closed, path, &with("0123456789abcdeF")).status, 401, "{path}");
        assert_eq!(ask(&closed, path, LOCAL).status, 403, "{path}");
    }
    // Others can read it.
    assert!(closed.log().contains("others than its owner can read the secret"), "{}", closed.log());
}

#[test]
fn allocations_are_found_by_block_and_by_a_part_of_a_name() {
    let (daemon, _dir) = daemon(&["--listen-details"]);
    for number in 0..70 {
        let call = Call::new("ADD", &format!("other-{number}"), &config());
        daemon.client().call(&call).expect_result();
    }
    let found = |query: &str| {
        let reply = ask(&daemon, &format!("/v1/records?{query}"), LOCAL);
        let rows: Value = serde_json::from_str(&reply.body).expect("JSON");
        (reply.status, rows.as_array().map_or(0, Vec::len))
    };
    assert_eq!(found("search=ret-cont"), (200, 1));
    assert_eq!(found("search=secret-namespace/secret-p"), (200, 1));
    let secret = daemon.client().get(&format!("/v1/allocations?containerId={}", SECRETS[0]));
    let address = secret[0]["address"].as_str().expect("an address");
    assert!(found(&format!("search={address}")).1 >= 1, "and those that begin like it");
    assert_eq!(found(&format!("pool=pods&address={address}")), (200, 1));
    assert_eq!(found(&format!("pool=none&address={address}")), (200, 0));
    assert_eq!(found("search=nobody"), (200, 0));
    let all = daemon.client().get("/v1/blocks?network=pods");
    let held: u64 =
        all.as_array().expect("blocks").iter().filter_map(|of| of["allocated"].as_u64()).sum();
    assert_eq!(held, 71);
    for block in all.as_array().expect("blocks") {
        let prefix = block["prefix"].as_str().expect("a prefix").replace('/', "%2F");
        let expected = block["allocated"].as_u64().and_then(|held| usize::try_from(held).ok());
        assert_eq!(Some(found(&format!("pool=pods&block={prefix}")).1), expected, "{block}");
    }
    for wrong in
        ["block=10.64.0.0/26", "block=odd&pool=pods", &format!("search={}", "x".repeat(600))]
    {
        let reply = ask(&daemon, &format!("/v1/records?{wrong}"), LOCAL);
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.body);
    }
}

#[test]
fn the_page_runs_nothing_but_its_own_scripts() {
    let (daemon, _dir) = daemon(&[]);
    let mut stream = TcpStream::connect(daemon.listen()).expect("a TCP connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let request = format!("GET / HTTP/1.1\r\n{LOCAL}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let head = head.to_ascii_lowercase();
    let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
    let policy: Vec<&str> = policy.expect("a policy").split("; ").collect();
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(&rule), "no {rule} in {policy:?}");
    }
    assert!(!head.contains("unsafe") && head.contains("nosniff"), "{head}");
    assert!(body.starts_with("<!doctype html>") && secrets_in(body).is_empty(), "{body}");
    assert_eq!(ask(&daemon, "/page/none.js", LOCAL).status, 404);
}

#[test]
fn foreign_names_and_pages_are_refused() {
    let (daemon, _dir) = daemon(&["--node", "node-7", "--listen-hosts", "metrics.example"]);
    let listen = daemon.listen();
    for host in [&listen.to_string(), "127.0.0.1", "localhost:1", "node-7:9750", "metrics.example"]
    {
        assert_eq!(ask(&daemon, "/metrics", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for path in ["/metrics", "/healthz", "/v1/status", "/v1/allocations", "/nowhere"] {
        let reply = ask(&daemon, path, "Host: rebound.example:9750\r\n");
        assert_eq!(reply.status, 421, "{path}");
        assert!(reply.body.contains("rebound.example"), "{}", reply.body);
        assert!(reply.body.contains("listenHosts"), "{}", reply.body);
        let reply = ask(&daemon, path, &format!("{LOCAL}Origin: http://evil.example\r\n"));
        assert_eq!(reply.status, 403, "{path}");
        assert!(reply.body.contains("evil.example"), "{}", reply.body);
    }
    let own = ask(&daemon, "/v1/status", &format!("{LOCAL}Origin: http://localhost\r\n"));
    assert_eq!(own.status, 200, "{}", own.body);
}

/// True if the daemon has ended a connection.
fn is_ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a connection");
    let mut rest = [0; 512];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// The daemon would let idle clients stay for longer than this test waits.
#[test]
fn idle_clients_make_room_for_new_ones() {
    let (daemon, _dir) = daemon(&[]);
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut stream = TcpStream::connect(daemon.listen()).expect("a TCP connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let request = format!("GET /nowhere HTTP/1.1\r\n{LOCAL}\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let reply = reply_of(&stream).expect("an answer");
        assert_eq!(reply.status, 404, "{}", reply.body);
        crowd.push(stream);
    }
    let reply = ask(&daemon, "/healthz", LOCAL);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let (oldest, newest) = crowd.split_at_mut(CROWD - 900);
    assert!(oldest[..100].iter_mut().all(is_ended), "the oldest ones had to go");
    assert!(!newest.iter_mut().any(is_ended), "the others stay");
}

#[test]
fn readers_see_every_answered_call_and_hold_none_up() {
    let (daemon, _dir) = daemon(&["--listen-details"]);
    let mut client = daemon.client();
    for first in (0..LISTED).step_by(500) {
        let add = |number| Call::new("ADD", &format!("listed-{number}"), &config());
        let calls: Vec<Call> = (first..first + 500).map(add).collect();
        assert!(client.try_calls(&calls).expect("answers").iter().all(|of| of.succeeded()));
    }
    let done = AtomicBool::new(false);
    let listed = std::thread::scope(|scope| {
        let read = || {
            let mut lists = 0;
            while !done.load(Ordering::Relaxed) || lists == 0 {
                let reply = ask(&daemon, "/v1/allocations", LOCAL);
                let rows: Vec<Value> = serde_json::from_str(&reply.body).expect("rows");
                assert!(reply.status == 200 && rows.len() > LISTED, "{} rows", rows.len());
                lists += 1;
            }
            lists
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        for number in 0..100 {
            let name = format!("beside-{number}");
            let result = client.call(&Call::new("ADD", &name, &config()));
            let address = result.expect_result()["ips"][0]["address"].as_str().expect("one");
            let address = address.split('/').next().expect("an address").to_owned();
            let query = format!("/v1/allocations?address={address}");
            let rows: Value =
                serde_json::from_str(&ask(&daemon, &query, LOCAL).body).expect("rows");
            assert_eq!(rows[0]["containerId"], name, "{rows}");
            assert!(client.call(&Call::new("DEL", &name, &config())).succeeded());
            let rows = ask(&daemon, &query, LOCAL).body;
            assert_eq!(rows, "[]", "its DEL was answered");
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("a reader")).sum::<usize>()
    });
    assert!(listed >= READERS, "{listed} lists");
}
