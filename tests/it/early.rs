//! Goal: what the plugin does before the C library is set up is what the ordinary program does.
//!
//! Each case runs it twice, with the same surroundings and the same fake daemon: as it is, and with
//! an argument, which it takes no notice of otherwise than by leaving all to the ordinary program.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Between two pieces of an answer, and between two looks.
const PAUSE: Duration = Duration::from_millis(1);

const CONFIG: &str = "{\n  \"cniVersion\": \"1.1.0\",\n  \"name\": \"n\"\n}";
const RESULT: &str = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}],"dns":{}}"#;
const ERROR: &str = r#"{"cniVersion":"1.1.0","code":100,"msg":"no address is free"}"#;

/// Variables of a usual ADD, without the socket's.
const USUAL: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/a"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
];

/// One run's surroundings.
#[derive(Clone, Debug)]
struct Case {
    /// Beside those that are usual, or in their place.
    variables: Vec<(&'static str, &'static [u8])>,
    config: String,
    /// The answer, in pieces; none: nobody listens.
    answer: Vec<Vec<u8>>,
    stdout: Stdout,
    /// Nothing about it is unusual.
    usual: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stdout {
    Read,
    /// Nobody reads it.
    Unread,
    /// There is none.
    Closed,
}

/// What can be seen of a run.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    requests: Vec<String>,
    notes: Vec<String>,
}

impl Case {
    fn new() -> Self {
        let answer = vec![http("200 OK", RESULT).into()];
        let config = CONFIG.to_owned();
        Self { variables: vec![], config, answer, stdout: Stdout::Read, usual: true }
    }

    fn with(mut self, name: &'static str, value: &'static [u8]) -> Self {
        self.variables.push((name, value));
        self
    }

    fn config(self, config: impl Into<String>) -> Self {
        Self { config: config.into(), ..self }
    }

    fn answer(self, answer: impl Into<Vec<u8>>) -> Self {
        Self { answer: vec![answer.into()], ..self }
    }

    fn unusual(self) -> Self {
        Self { usual: false, ..self }
    }

    fn start(&self, home: &Path, ordinary: bool) -> Child {
        let plugin = env!("CARGO_BIN_EXE_my-ipam");
        let mut command = Command::new(plugin);
        if self.stdout == Stdout::Closed {
            command = Command::new("/bin/sh");
            command.args(["-c", "exec \"$0\" \"$@\" >&-", plugin]);
        }
        command.args(ordinary.then_some("ordinary")).env_clear();
        command.envs(USUAL).env("LEASEHOLD_SOCKET", home.join("s"));
        for (name, value) in &self.variables {
            use std::os::unix::ffi::OsStrExt as _;
            command.env(name, std::ffi::OsStr::from_bytes(value));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the plugin")
    }

    /// Runs the plugin; whether it was early when its request had come, and what was seen.
    fn run(&self, ordinary: bool) -> (bool, Seen) {
        let home = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let config = self.config.replace("HOME", &home.path().to_string_lossy());
        let listens = !self.answer.is_empty();
        let listener =
            listens.then(|| UnixListener::bind(home.path().join("s")).expect("a socket"));
        let mut child = self.start(home.path(), ordinary);
        if self.stdout == Stdout::Unread {
            drop(child.stdout.take());
        }
        let mut stdin = child.stdin.take().expect("a pipe");
        // A plugin that is content with its variables does not read.
        let _ = stdin.write_all(config.as_bytes());
        drop(stdin);
        let (pid, ended) = (child.id(), AtomicBool::new(false));
        let ((early, requests), output) = thread::scope(|scope| {
            let daemon = scope.spawn(|| self.serve(listener, pid, &ended));
            let output = child.wait_with_output().expect("an end");
            ended.store(true, Ordering::Relaxed);
            (daemon.join().expect("the daemon"), output)
        });
        let Output { status, stdout, stderr } = output;
        let text = |bytes: Vec<u8>| masked(&String::from_utf8_lossy(&bytes), home.path());
        let notes = fs::read_dir(home.path().join("notes")).into_iter().flatten().flatten();
        let notes = notes.map(|note| text(fs::read(note.path()).expect("a note"))).collect();
        let requests = requests.iter().map(|request| masked(request, home.path())).collect();
        let (stdout, stderr) = (text(stdout), text(stderr));
        (early, Seen { status: status.code(), stdout, stderr, requests, notes })
    }

    /// Answers until the plugin has ended; whether it was early when its request had come, and what
    /// it sent.
    fn serve(
        &self,
        listener: Option<UnixListener>,
        pid: u32,
        ended: &AtomicBool,
    ) -> (bool, Vec<String>) {
        let (mut early, mut requests) = (false, vec![]);
        let Some(listener) = listener else { return (early, requests) };
        listener.set_nonblocking(true).expect("a listener");
        while !ended.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            let first = requests.is_empty();
            requests.push(request(&stream));
            // The C library has a heap.
            let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
            early |= first && !maps.expect("the child's memory").contains("[heap]");
            for piece in &self.answer {
                // The plugin hangs up when it has seen enough.
                let _ = stream.write_all(piece);
                thread::sleep(PAUSE);
            }
        }
        (early, requests)
    }
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nx: y\r\n\r\n{body}", body.len())
}

/// A whole request.
fn request(mut stream: &UnixStream) -> String {
    stream.set_nonblocking(false).expect("a stream");
    let (mut text, mut page) = (vec![], [0; 4096]);
    loop {
        let count = stream.read(&mut page).expect("a request");
        text.extend_from_slice(&page[..count]);
        if count == 0 || text.ends_with(b"\n}") {
            return String::from_utf8_lossy(&text).into_owned();
        }
    }
}

/// A text without what differs from run to run: the directory, and when the process started.
fn masked(text: &str, home: &Path) -> String {
    let text = text.replace(&*home.to_string_lossy(), "HOME");
    match text.split_once("\"startedAt\":") {
        None => text,
        Some((before, rest)) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}\"startedAt\":0{rest}")
        }
    }
}

/// Runs every case both ways.
fn compare(cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let (early, seen) = case.run(false);
        let (late, ordinary) = case.run(true);
        assert_eq!(seen, ordinary, "{case:?}");
        assert!(!late, "an argument is left to the ordinary program");
        let talks = !seen.requests.is_empty();
        assert_eq!(early, case.usual && talks && cfg!(early), "{case:?}");
    }
}

#[test]
fn every_command_and_variable() {
    let values: [&[u8]; 7] =
        [b"", b"x y=z;~", b"a\"b", b"a\\b", "\u{e4}".as_bytes(), b"\xff", b"\n"];
    let names =
        ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_COMMAND"];
    let plain = |value: &[u8]| {
        value.iter().all(|b| (b' '..=b'~').contains(b))
            && !value.iter().any(|b| matches!(b, b'"' | b'\\'))
    };
    let mut cases = vec![Case::new().with("LEASEHOLD_SOCKET", b"").unusual()];
    for command in [b"ADD".as_slice(), b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION", b"add"] {
        let case = Case::new().with("CNI_COMMAND", command);
        cases.push(case.clone());
        for name in names {
            for value in values {
                let case = case.clone().with(name, value);
                cases.push(if plain(value) { case } else { case.unusual() });
            }
        }
    }
    compare(cases);
}

#[test]
fn every_kind_of_configuration() {
    let usual = |config: &str| Case::new().config(config);
    let long = |bytes: usize| format!(r#"{{"cniVersion":"1.1.0","x":"{}"}}"#, "x".repeat(bytes));
    let socket = |text: &str| usual(&text.replace("SOCKET", r#""socket":"HOME/s""#));
    let elsewhere = |case: Case| case.with("LEASEHOLD_SOCKET", b"/nowhere");
    compare([
        usual("{}"),
        usual(" {\"a\" : [ 1 , true,false , null,{ } , [ ] ] }\r\n\t"),
        usual("").unusual(),
        usual("[]").unusual(),
        usual("{").unusual(),
        usual(r#"{"a":1}x"#).unusual(),
        usual(r#"{"a":-1}"#).unusual(),
        usual(r#"{"a":"\u0041"}"#).unusual(),
        usual("{\"a\":\"\u{e4}\"}").unusual(),
        usual(&format!("{{\"a\":{}}}", "[".repeat(40))).unusual(),
        usual(&long(60_000)),
        usual(&long(100_000)).unusual(),
        usual(&long(4 << 20)).unusual(),
        elsewhere(socket(r#"{"ipam":{SOCKET}}"#)),
        elsewhere(socket(r#"{"IPAM":{"type":"my-ipam","SOCKET":1,SOCKET}}"#)).unusual(),
        elsewhere(socket(r#"{"ipam":{SOCKET},"ipam":{}}"#)).unusual(),
        socket(r#"{SOCKET,"ipam":{"x":{"socket":"/no"}}}"#),
        usual(r#"{"ipam":{"socket":7}}"#).unusual(),
        usual(r#"{"ipam":{"socket":""}}"#),
        usual(r#"{"ipam":"socket"}"#),
    ]);
}

#[test]
fn every_kind_of_answer() {
    let bodies = ["", "{}", " {} \n", RESULT, ERROR, "[]", "null", "{", "{\"a\":1", "not found"];
    let odd = ["{\"a\":\"\u{e4}\"}", r#"{"a":"\n"}"#, r#"{"a":-1.5e3,"b":01}"#, r#"{"a":1,}"#];
    let mut cases = vec![];
    for command in [b"ADD".as_slice(), b"DEL", b"CHECK"] {
        let case = Case::new().with("CNI_COMMAND", command);
        for status in ["200 OK", "204 No Content", "400 Bad Request", "503 Service Unavailable"] {
            for body in bodies.iter().chain(&odd) {
                cases.push(case.clone().answer(http(status, body)));
            }
        }
        for answer in [
            "SSH-2.0-x\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\n\r\n{}".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
            http("200 OK", "{}").replace("x: y", "Transfer-Encoding: identity"),
            http("200 OK", "{}").replace("x: y", "Content-Length:"),
            http("200 OK", "{}").replace("x: y", "Content-Length: 1"),
            format!("{}more", http("200 OK", "{}")),
            http("200 OK", "{}").replace("Content-Length: 2", "content-length:2"),
            http("200 OK", RESULT).replace("\"dns\":{}}", ""),
            http("200 OK", &format!("{{\"a\":\"{}\"}}", "x".repeat(100_000))),
        ] {
            cases.push(case.clone().answer(answer));
        }
        for text in [http("200 OK", RESULT), http("503 x", ERROR)] {
            for size in [1, 20, 60] {
                let pieces = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
                cases.push(Case { answer: pieces, ..case.clone() });
            }
        }
        cases.push(Case { answer: vec![], ..case.clone() });
        cases.push(Case { answer: vec![vec![]], ..case.clone() });
        cases.push(Case { stdout: Stdout::Unread, ..case.clone() });
        cases.push(Case { stdout: Stdout::Closed, ..case }.unusual());
    }
    compare(cases);
}
