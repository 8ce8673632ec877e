//! The memory that a burst needed comes back.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::config;
use crate::common::{Call, Client, Daemon, Options, Outcome, poll};

/// Containers of the burst, and calls in one array.
const BURST: usize = 60_000;
const PER_ARRAY: usize = 1_000;
/// Clients that send half a body, and the size of that half in bytes.
const HALVES: usize = 1_000;
const HALF_BYTES: usize = 60_000;
/// The time within which memory has come back: three looks of the daemon, of which the third is
/// after 45 s, are enough on a quiet machine; the last one is after 150 s.
const BACK_WITHIN: Duration = Duration::from_secs(170);

fn all(client: &mut Client, command: &'static str, config: &Value) {
    let containers: Vec<usize> = (0..BURST).collect();
    for part in containers.chunks(PER_ARRAY) {
        let call = |number: &usize| Call::new(command, &format!("{number:064x}"), config);
        let calls: Vec<Call> = part.iter().map(call).collect();
        let outcomes = client.try_calls(&calls).expect("answers");
        assert!(outcomes.iter().all(Outcome::succeeded), "{command}");
    }
}

/// The containers of a burst end, their addresses cool, and the daemon is as small as before.
#[test]
fn memory_comes_back_after_a_burst() {
    let daemon = Daemon::start(&Options { cooldown: "10s", ..Options::default() });
    let (mut client, config) = (daemon.client(), config("net", &["10.64.0.0/15"]));
    let once = Call::new("ADD", "once", &config);
    assert!(client.call(&once).succeeded());
    let before = daemon.memory_kib("VmRSS");
    all(&mut client, "ADD", &config);
    let held = daemon.memory_kib("VmRSS");
    assert!(held > 2 * before, "a burst that costs nothing says nothing: {before}, {held} KiB");
    all(&mut client, "DEL", &config);
    comes_back(&daemon, before);
}

/// Waits until the daemon is at most twice as large as it was.
fn comes_back(daemon: &Daemon, before: u64) {
    let (ended, began) = (daemon.memory_kib("VmRSS"), Instant::now());
    let back = poll(BACK_WITHIN, || daemon.memory_kib("VmRSS") <= 2 * before);
    let after = daemon.memory_kib("VmRSS");
    let took = began.elapsed();
    println!("{before} KiB before, {ended} at the end of the burst, {after} after {took:?}");
    assert!(back, "{before} KiB became {after} KiB, of {ended} KiB");
}

/// Clients send most of a body each, and go away.
#[test]
fn memory_comes_back_after_many_halves_of_bodies() {
    let daemon = Daemon::start(&Options::default());
    let before = daemon.memory_kib("VmRSS");
    let half = vec![b' '; HALF_BYTES];
    let head = format!(
        "POST /v1/cni HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        2 * HALF_BYTES
    );
    let send = |_| -> UnixStream {
        let mut stream = daemon.connect();
        stream.write_all(head.as_bytes()).expect("a head");
        stream.write_all(&half).expect("half a body");
        stream
    };
    let crowd: Vec<UnixStream> = (0..HALVES).map(send).collect();
    let large = poll(BACK_WITHIN, || daemon.memory_kib("VmRSS") > 2 * before);
    assert!(large, "a burst that costs nothing says nothing");
    drop(crowd);
    comes_back(&daemon, before);
}
