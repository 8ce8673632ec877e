//! Goal: slow, silent or too many clients cost a bounded share, and all other clients are served.
//!
//! Method: thousands of real connections to the socket and over TCP that say nothing, say it
//! slowly, or do not read; and ordinary calls beside them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Call, Client, Daemon, LEASEHOLD, Options, poll, post, reply_of};

/// Open connections that say nothing.
const CROWD: usize = 10_000;
/// The smallest number of open files with which a daemon runs.
const FEW_FILES: usize = 700;
/// The most memory that one of them may cost the daemon, in KiB.
const CONNECTION_KIB_MAX: u64 = 40;
/// The longest time for a call beside them.
const SERVED_WITHIN: Duration = Duration::from_secs(2);
/// The longest time that a client waits for silent clients to be ended: the daemon gives each 5 s,
/// and a crowd takes several turns.
const TURN_MAX: Duration = Duration::from_secs(40);
/// Clients that send a byte now and then.
const DRIPPING: usize = 200;
/// The time that the daemon gives a client for head and body together, and some more.
const DRIP_MAX: Duration = Duration::from_secs(20);
/// Clients that ask for a list and do not read it, and the addresses in that list.
const DEAF: usize = 120;
const LISTED: usize = 16_000;
/// The growth of the daemon's memory that is allowed, in KiB: a few lists, not one per client.
const DEAF_KIB_MAX: u64 = 320 << 10;

/// Lets this process have as many files as the system gives it.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more open files");
    let enough = limit.current.is_none_or(|files| files > CROWD as u64 + 1_000);
    assert!(enough, "{:?} open files are too few: raise the hard limit", limit.current);
}

fn config() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods",
        "ipam": { "type": "my-ipam", "ranges": [[{ "subnet": "10.64.0.0/16" }]] },
    })
}

/// Makes an ADD and a DEL on a new connection. Returns the time that they took.
fn serves(daemon: &Daemon, container: &str) -> Duration {
    let began = Instant::now();
    let mut client: Client = daemon.client();
    for command in ["ADD", "DEL"] {
        let outcome = client.call(&Call::new(command, container, &config()));
        assert!(outcome.succeeded(), "{outcome:?}");
    }
    began.elapsed()
}

fn open_files(daemon: &Daemon) -> usize {
    let path = format!("/proc/{}/fd", daemon.pid());
    fs::read_dir(path).expect("the daemon's files").count()
}

/// True if the daemon has ended a connection.
fn is_ended(stream: &mut UnixStream) -> bool {
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

#[test]
fn ten_thousand_silent_connections_on_the_socket_keep_nobody_out() {
    raise_limit();
    let daemon = Daemon::start(&Options::default());
    serves(&daemon, "before");
    let (memory, files) = (daemon.memory_kib("VmRSS"), open_files(&daemon));
    let began = Instant::now();
    let mut crowd: Vec<UnixStream> = (0..CROWD).map(|_| daemon.connect()).collect();
    println!("{CROWD} connections within {:?}", began.elapsed());
    let took = serves(&daemon, "beside");
    assert!(took < SERVED_WITHIN, "an ADD and a DEL took {took:?}");
    let each = daemon.memory_kib("VmHWM").saturating_sub(memory) / CROWD as u64;
    println!("an ADD and a DEL took {took:?}; {each} KiB for each connection");
    assert!(each < CONNECTION_KIB_MAX, "{each} KiB for each connection");
    // Silent connections are ended.
    let alone = poll(TURN_MAX, || open_files(&daemon) <= files + 10);
    assert!(alone, "{} open files\n{}", open_files(&daemon), daemon.log_tail());
    assert!(crowd.iter_mut().all(is_ended), "the daemon has ended all of them");
    serves(&daemon, "after");
}

/// A daemon with a low limit of open files.
struct Poor {
    dir: TempDir,
    child: Child,
}

impl Poor {
    fn start() -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {FEW_FILES} && exec \"$0\" \"$@\"");
        command.args([
            "-c",
            &script,
            LEASEHOLD,
            "serve",
            "--config",
            "/dev/null",
            "--listen",
            "127.0.0.1:0",
        ]);
        command.arg("--state-dir").arg(dir.path().join("state"));
        command.arg("--socket").arg(dir.path().join("socket"));
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let child = command.stderr(log).spawn().expect("a daemon");
        let poor = Self { dir, child };
        let serves = poll(TURN_MAX, || poor.log().contains(" serving "));
        assert!(serves, "{}", poor.log());
        poor
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("a log")
    }

    fn files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(path).expect("the daemon's files").count()
    }
}

impl Drop for Poor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn clients_never_take_the_files_that_the_daemon_needs() {
    let poor = Poor::start();
    assert!(poor.log().contains("few clients are served at once"), "{}", poor.log());
    let socket = poor.dir.path().join("socket");
    // Blocks while neither the daemon nor the queue before it has room, until others are ended.
    let crowd: Vec<UnixStream> = (0..FEW_FILES)
        .map(|_| {
            assert!(poor.files() < FEW_FILES - 100, "{} files are open", poor.files());
            UnixStream::connect(&socket).expect("a connection to the socket")
        })
        .collect();
    let mut stream = UnixStream::connect(&socket).expect("a connection to the socket");
    stream.set_read_timeout(Some(TURN_MAX)).expect("a time limit");
    stream.write_all(post("GET", "/v1/status", "").as_bytes()).expect("a request");
    assert_eq!(reply_of(stream).expect("an answer").status, 200);
    drop(crowd);
    assert!(!poor.log().contains("Too many open files"), "{}", poor.log());
}

#[test]
fn ten_thousand_silent_connections_over_tcp_are_bounded_and_calls_go_on() {
    raise_limit();
    let daemon = Daemon::start(&Options::default());
    let listen = daemon.listen();
    let files = open_files(&daemon);
    let wait = Duration::from_millis(300);
    // Beyond the daemon's limit and the queue before it, the system refuses or does not answer.
    let mut refused = 0;
    let mut crowd = Vec::new();
    while crowd.len() < CROWD && refused < 20 {
        match TcpStream::connect_timeout(&listen, wait) {
            Ok(stream) => crowd.push(stream),
            Err(_) => refused += 1,
        }
    }
    let held = open_files(&daemon) - files;
    println!("{} connections, {refused} refused, {held} accepted by the daemon", crowd.len());
    assert!(held <= 1_010, "{held} TCP connections are open");
    let took = serves(&daemon, "beside");
    assert!(took < SERVED_WITHIN, "an ADD and a DEL took {took:?}");
    // Reads over TCP wait for their turn, and it comes.
    let began = Instant::now();
    let scraped = poll(TURN_MAX, || {
        let Ok(mut stream) = TcpStream::connect_timeout(&listen, wait) else { return false };
        stream.set_read_timeout(Some(TURN_MAX)).expect("a time limit");
        let sent = stream.write_all(post("GET", "/metrics", "").as_bytes());
        sent.is_ok() && reply_of(stream).is_ok_and(|reply| reply.status == 200)
    });
    println!("metrics after {:?}", began.elapsed());
    assert!(scraped && began.elapsed() < TURN_MAX, "no metrics within {:?}", began.elapsed());
    drop(crowd);
    let alone = poll(TURN_MAX, || open_files(&daemon) <= files + 10);
    assert!(alone, "{} open files", open_files(&daemon));
}

#[test]
fn clients_that_drip_or_close_one_half_are_let_go_while_others_are_served() {
    let daemon = Daemon::start(&Options::default());
    serves(&daemon, "before");
    let files = open_files(&daemon);
    let request = post("POST", "/v1/cni", &" ".repeat(4_096));
    let mut dripping: Vec<(UnixStream, bool)> =
        (0..DRIPPING).map(|_| (daemon.connect(), false)).collect();
    for _ in 0..DRIPPING {
        let mut half = daemon.connect();
        half.write_all(b"POST /v1/cni HTTP/1.1\r\nHost: x\r\n").expect("half a head");
        half.shutdown(Shutdown::Write).expect("half a connection");
    }
    let began = Instant::now();
    let mut bytes = request.bytes().cycle();
    while dripping.iter().any(|(_, ended)| !ended) {
        let byte = [bytes.next().expect("a byte")];
        for (stream, ended) in dripping.iter_mut().filter(|(_, ended)| !ended) {
            *ended = is_ended(stream) || stream.write_all(&byte).is_err();
        }
        assert!(began.elapsed() < DRIP_MAX, "dripping clients are still there");
        let took = serves(&daemon, "beside");
        assert!(took < SERVED_WITHIN, "an ADD and a DEL took {took:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("the last dripping client was let go after {:?}", began.elapsed());
    let alone = poll(TURN_MAX, || open_files(&daemon) <= files + 10);
    assert!(alone, "{} open files", open_files(&daemon));
}

#[test]
fn clients_that_do_not_read_share_a_bounded_memory() {
    let args = vec!["--listen-details".to_owned()];
    let daemon = Daemon::start(&Options { args, ..Options::default() });
    let mut client = daemon.client();
    for first in (0..LISTED).step_by(500) {
        // So long that no socket's buffer takes the whole list.
        let add = |number| Call::new("ADD", &format!("listed-{number:0>240}"), &config());
        let calls: Vec<Call> = (first..first + 500).map(add).collect();
        let outcomes = client.try_calls(&calls).expect("answers");
        assert!(outcomes.iter().all(crate::common::Outcome::succeeded));
    }
    let size = daemon.over_tcp("GET", "/v1/allocations", "").body.len();
    let (listen, before) = (daemon.listen(), daemon.memory_kib("VmHWM"));
    let ask = |_| {
        let mut stream = TcpStream::connect(listen).expect("a TCP connection");
        let request = post("GET", "/v1/allocations", "");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    };
    let deaf: Vec<TcpStream> = (0..DEAF).map(ask).collect();
    // Later clients get an error; all other requests are served, also the list on the socket.
    let reply = daemon.over_tcp("GET", "/v1/allocations", "");
    assert_eq!(reply.status, 503, "{} bytes", reply.body.len());
    assert!(reply.body.contains("clients read lists already"), "{}", reply.body);
    assert_eq!(daemon.over_tcp("GET", "/metrics", "").status, 200);
    assert_eq!(daemon.allocations().len(), LISTED);
    let grown = daemon.memory_kib("VmHWM") - before;
    println!("a list has {size} bytes; memory grew by {grown} KiB for {DEAF} of them");
    assert!(grown < DEAF_KIB_MAX, "memory grew by {grown} KiB");
    drop(deaf);
    let again = poll(TURN_MAX, || daemon.over_tcp("GET", "/v1/allocations", "").status == 200);
    assert!(again, "no list after they have gone");
}
