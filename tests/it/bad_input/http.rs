//! Bad clients of the socket: they send too much, too little, too slowly, or not HTTP at all.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Held, assert_refused, config};
use crate::common::{Call, Outcome, Reply, post, reply_of};

/// The size of a body that is far too large, in bytes.
const HUGE_BYTES: usize = 100 << 20;
/// The growth of the daemon's memory that is allowed while it refuses such a body, in KiB.
const GROWTH_KIB_MAX: u64 = 24 << 10;
/// The time that the daemon gives a client for head and body together, and some more.
const SLOW_CLIENT_LIMIT: Duration = Duration::from_secs(15);

/// The CNI error of a reply that is not a success.
fn error_of(reply: &Reply) -> Outcome {
    assert!(reply.status >= 400, "status {}: {}", reply.status, reply.body);
    Outcome::refusal(&reply.body, &format!("HTTP status {}", reply.status))
}

/// A head that announces a body of this length, in bytes.
fn head(length: usize) -> String {
    format!("POST /v1/cni HTTP/1.1\r\nHost: leasehold\r\nContent-Length: {length}\r\n\r\n")
}

/// Sends pieces until the daemon stops reading. Returns the number of bytes that it took.
fn pour(stream: &mut UnixStream, piece: &[u8], limit: usize, mut beside: impl FnMut()) -> usize {
    let mut sent = 0;
    while sent < limit {
        beside();
        match stream.write(piece) {
            Ok(count) => sent += count,
            Err(error) => {
                let closed = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
                assert!(closed.contains(&error.kind()), "after {sent} bytes: {error}");
                break;
            }
        }
    }
    sent
}

/// A body of 100 MB must be refused with an answer, in bounded memory, while others are served.
fn refuses_huge_body(head: &str, piece: &[u8]) {
    let mut held = Held::new();
    let before = held.daemon.memory_kib("VmHWM");
    let mut stream = held.daemon.connect();
    stream.write_all(head.as_bytes()).expect("a head");
    let mut rounds = 0;
    pour(&mut stream, piece, HUGE_BYTES, || {
        if rounds % 16 == 0 {
            held.assert_serves("a piece of a huge body");
        }
        rounds += 1;
    });
    let reply = reply_of(&stream).expect("an answer to a body that is too large");
    assert_refused(&error_of(&reply), 6, &["larger than", "bytes"]);
    held.assert_serves("a huge body");
    let grown = held.daemon.memory_kib("VmHWM") - before;
    assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB for a body that is refused");
}

#[test]
fn an_announced_body_of_100_mb_is_refused_in_bounded_memory() {
    refuses_huge_body(&head(HUGE_BYTES), &[b' '; 64 << 10]);
}

#[test]
fn a_chunked_body_of_100_mb_is_refused_in_bounded_memory() {
    let head = "POST /v1/cni HTTP/1.1\r\nHost: leasehold\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut piece = b"10000\r\n".to_vec();
    piece.extend([b' '; 0x10000]);
    piece.extend(b"\r\n");
    refuses_huge_body(head, &piece);
}

#[test]
fn a_client_that_sends_nothing_more_is_let_go() {
    let mut held = Held::new();
    let started = Instant::now();
    let mut no_head = held.daemon.connect();
    no_head.write_all(b"POST /v1/cni HT").expect("half a head");
    let mut no_body = held.daemon.connect();
    no_body.write_all(head(100).as_bytes()).expect("a head");
    let mut half = held.daemon.connect();
    half.write_all(head(100).as_bytes()).expect("a head");
    half.write_all(b"{\"command\":\"ADD\",").expect("half a body");
    held.assert_serves("three slow clients");
    for slow in [&no_body, &half] {
        let reply = reply_of(slow).expect("an answer to a body that does not come");
        assert_refused(&error_of(&reply), 6, &["body", "did not come"]);
    }
    let mut rest = Vec::new();
    no_head.read_to_end(&mut rest).expect("the end of the connection");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    assert!(started.elapsed() < SLOW_CLIENT_LIMIT, "{:?}", started.elapsed());
    held.assert_serves("clients that sent nothing more");
}

#[test]
fn a_connection_that_is_half_closed_is_answered() {
    let mut held = Held::new();
    let body = json!({
        "command": "CHECK", "containerId": "held", "netns": "/x", "ifname": "eth0",
        "config": config("held", "10.99.0.0/24"),
    });
    let mut whole = held.daemon.connect();
    whole.write_all(post("POST", "/v1/cni", &body.to_string()).as_bytes()).expect("a request");
    whole.shutdown(Shutdown::Write).expect("half a connection");
    let reply = reply_of(&whole).expect("an answer on the other half");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let mut half = held.daemon.connect();
    half.write_all(head(100).as_bytes()).expect("a head");
    half.write_all(b"{\"command\":\"ADD\",").expect("half a body");
    half.shutdown(Shutdown::Write).expect("half a connection");
    if let Ok(reply) = reply_of(&half) {
        assert_refused(&error_of(&reply), 6, &["body"]);
    }
    held.assert_serves("half-closed connections");
}

#[test]
fn an_add_whose_client_has_gone_is_found_by_its_del() {
    let mut held = Held::new();
    let config = config("gone", "10.97.0.0/24");
    let body = json!({
        "command": "ADD", "containerId": "gone", "netns": "/x", "ifname": "eth0", "config": config,
    });
    let mut stream = held.daemon.connect();
    stream.write_all(post("POST", "/v1/cni", &body.to_string()).as_bytes()).expect("a request");
    drop(stream);
    let mut client = held.daemon.client();
    let deleted = client.call(&Call::new("DEL", "gone", &config));
    assert!(deleted.succeeded(), "{deleted:?}");
    held.assert_serves("a client that has gone");
}

#[test]
fn what_is_no_request_is_refused() {
    let mut held = Held::new();
    for bytes in [
        b"\0\x01\x02\x03\r\n\r\n".as_slice(),
        b"GET\r\n\r\n",
        b"POST /v1/cni HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/cni HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let mut stream = held.daemon.connect();
        stream.write_all(bytes).expect("bytes");
        stream.shutdown(Shutdown::Write).expect("half a connection");
        if let Ok(reply) = reply_of(&stream) {
            assert!(reply.status >= 400, "{}: {}", reply.status, reply.body);
        }
        held.assert_unchanged("bytes that are no request");
    }
    for (method, path, status) in [
        ("GET", "/v1/cni", [404, 405].as_slice()),
        ("PUT", "/v1/cni", &[404, 405]),
        ("POST", "/v1/allocations", &[404, 405]),
        ("POST", "/v2/cni", &[404]),
        ("GET", "/v1/allocations?limit=x", &[400]),
        ("GET", "/v1/allocations?colour=red", &[400]),
        ("POST", "/v1/release", &[400]),
    ] {
        let reply = held.client.request(method, path, "");
        assert!(status.contains(&reply.status), "{method} {path}: {}", reply.status);
    }
    held.assert_serves("requests for nothing");
}

#[test]
fn bad_calls_on_the_socket_are_told_what_is_wrong() {
    let mut held = Held::new();
    let config = config("bad", "10.1.2.0/24");
    for (body, code, words) in [
        (Value::Null, 6, ["object"].as_slice()),
        (json!({}), 4, &["command"]),
        (json!({ "command": "ADD", "colour": "red" }), 6, &["colour", "containerId"]),
        (json!({ "command": 5 }), 6, &["command", "string"]),
        (json!({ "command": "ADD", "startedAt": -1 }), 6, &["startedAt"]),
        (
            json!({ "command": "ADD", "containerId": "a", "netns": "/x", "ifname": "eth0" }),
            6,
            &["config"],
        ),
        (
            json!({ "command": "ADD", "containerId": "a/b", "netns": "/x", "ifname": "eth0",
                    "config": config }),
            4,
            &["containerID", "a/b"],
        ),
    ] {
        let reply = held.client.request("POST", "/v1/cni", &body.to_string());
        assert_refused(&error_of(&reply), code, words);
        held.assert_unchanged("a bad call");
    }
    held.assert_serves("bad calls on the socket");
}

#[test]
fn a_bad_call_in_an_array_spoils_no_other() {
    let mut held = Held::new();
    let good = config("array", "10.96.0.0/24");
    let calls = [
        Call::new("ADD", "one", &good),
        Call::new("ADD", "a/b", &good),
        Call::new("ADD", "two", &config("array", "10.96.0.0/99")),
        Call::new("ADD", "three", &good),
        Call::new("DEL", "one", &good),
        Call::new("DEL", "three", &good),
    ];
    let answers = held.client.try_calls(&calls).expect("an array of answers");
    let codes: Vec<Option<u64>> = answers.iter().map(Outcome::code).collect();
    assert_eq!(codes, [None, Some(4), Some(7), None, None, None], "{answers:?}");
    held.assert_unchanged("an array of calls with bad ones in it");
    let many = format!("[{}]", vec!["0"; 2000].join(","));
    let reply = held.client.request("POST", "/v1/cni", &many);
    assert_refused(&error_of(&reply), 6, &["2000 calls", "1024"]);
    held.assert_serves("too many calls in an array");
}
