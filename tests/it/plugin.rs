//! Goal: the plugin's program, built for any target, behaves to the last byte like the library
//! (`my_ipam::run`, which has tests of its own): nothing is lost or added between the library and
//! the process's own environment, streams, signals and allocator.
//!
//! Each case runs every build, and the library in this process, with the same environment and the
//! same fake daemon, and compares everything that can be seen from outside.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use my_ipam::ProcessIo;
use my_ipam::limits::ANSWER_WAIT_MAX;
use tempfile::TempDir;

use crate::common::builds;

/// The time between two pieces of an answer, and between two looks.
const PAUSE: Duration = Duration::from_millis(1);

const CONFIG: &str = "{\n  \"cniVersion\": \"1.1.0\",\n  \"name\": \"n\"\n}";
const RESULT: &str = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}],"dns":{}}"#;
const ERROR: &str = r#"{"cniVersion":"1.1.0","code":100,"msg":"no address is free"}"#;

/// Variables of a usual ADD, without the socket's.
const USUAL: [(&str, &str); 6] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/a"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
    // How often a lost answer is asked for again would depend on the time.
    ("LEASEHOLD_WAIT_SECONDS", "0"),
];

/// The environment of one run.
#[derive(Clone, Debug)]
struct Case {
    /// Variables beside the usual ones, or in their place.
    variables: Vec<(&'static str, &'static [u8])>,
    config: String,
    /// The answer, in pieces; without any, no daemon listens.
    answer: Vec<Vec<u8>>,
    /// True if no process reads standard output.
    unread: bool,
}

/// Everything of a run that can be seen from outside.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    end: End,
    requests: Vec<String>,
    notes: Vec<String>,
}

/// The end of a run, and its output.
#[derive(PartialEq, Eq, Debug)]
struct End {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Case {
    fn new() -> Self {
        let answer = vec![http("200 OK", RESULT).into()];
        Self { variables: vec![], config: CONFIG.to_owned(), answer, unread: false }
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

    fn environment(&self, home: &Path) -> BTreeMap<&'static str, OsString> {
        let usual = USUAL.iter().map(|&(name, value)| (name, OsString::from(value)));
        let socket = [("LEASEHOLD_SOCKET", home.join("s").into_os_string())];
        let own = self.variables.iter();
        let own = own.map(|&(name, value)| (name, OsStr::from_bytes(value).to_owned()));
        usual.chain(socket).chain(own).collect()
    }

    /// Runs the plugin by `plugin`, in a directory of its own with its fake daemon.
    fn run(&self, plugin: &dyn Fn(&Self, &Path) -> End) -> Seen {
        let home = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let listens = !self.answer.is_empty();
        let listener =
            listens.then(|| UnixListener::bind(home.path().join("s")).expect("a socket"));
        let ended = AtomicBool::new(false);
        let (requests, end) = thread::scope(|scope| {
            let daemon = scope.spawn(|| self.serve(listener, &ended));
            let end = plugin(self, home.path());
            ended.store(true, Ordering::Relaxed);
            (daemon.join().expect("the daemon"), end)
        });
        let notes = fs::read_dir(home.path().join("s.notes")).into_iter().flatten().flatten();
        let notes = notes.map(|note| fs::read_to_string(note.path()).expect("a note"));
        let masked = |text: String| masked(&text, home.path());
        Seen {
            end: End { stdout: masked(end.stdout), stderr: masked(end.stderr), ..end },
            requests: requests.into_iter().map(masked).collect(),
            notes: notes.map(masked).collect(),
        }
    }

    fn config_in(&self, home: &Path) -> String {
        self.config.replace("HOME", &home.to_string_lossy())
    }

    /// Runs a program.
    fn of_program(&self, program: &Path, home: &Path) -> End {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment(home));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the plugin");
        if self.unread {
            drop(child.stdout.take());
        }
        let mut stdin = child.stdin.take().expect("a pipe");
        // A plugin to which its variables are enough does not read.
        let _ = stdin.write_all(self.config_in(home).as_bytes());
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("an end");
        End { status: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
    }

    /// Runs the library.
    fn of_library(&self, home: &Path) -> End {
        let environment = self.environment(home);
        let (mut stdout, mut stderr, mut unread) = (vec![], vec![], Unread);
        let status = my_ipam::run(&mut ProcessIo {
            started_at_ns: Some(1),
            argument: None,
            environment: &|name| environment.get(name).cloned(),
            stdin: &mut self.config_in(home).as_bytes(),
            stdout: if self.unread { &mut unread } else { &mut stdout },
            stderr: &mut stderr,
            answer_wait: ANSWER_WAIT_MAX,
        });
        End { status: Some(status.into()), stdout: text(&stdout), stderr: text(&stderr) }
    }

    /// Answers until the plugin has ended. Returns the requests of the plugin.
    fn serve(&self, listener: Option<UnixListener>, ended: &AtomicBool) -> Vec<String> {
        let mut requests = vec![];
        let Some(listener) = listener else { return requests };
        listener.set_nonblocking(true).expect("a listener");
        while !ended.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            requests.push(request(&stream));
            for piece in &self.answer {
                // The plugin closes the connection when it has read enough.
                let _ = stream.write_all(piece);
                thread::sleep(PAUSE);
            }
        }
        requests
    }
}

/// Standard output without a reader, as the library sees it.
struct Unread;

impl io::Write for Unread {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        // In the system's words.
        Err(rustix::io::Errno::PIPE.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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

/// A text without the parts that differ from run to run: the directory, the start time, and the
/// length of a request, which is checked instead.
fn masked(text: &str, home: &Path) -> String {
    let text = match text.split_once("Content-Length: ") {
        Some((before, rest)) => {
            let (length, after) = rest.split_once("\r\n").expect("a line's end");
            let (_, body) = rest.split_once("\r\n\r\n").expect("a head's end");
            assert_eq!(length, body.len().to_string(), "{text}");
            format!("{before}{after}")
        }
        None => text.to_owned(),
    };
    let text = text.replace(&*home.to_string_lossy(), "HOME");
    match text.split_once("\"startedAt\":") {
        None => text,
        Some((before, rest)) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}\"startedAt\":0{rest}")
        }
    }
}

/// Runs every case in every way; some must succeed, and some must not.
fn compare(cases: impl IntoIterator<Item = Case>) {
    let mut ends = [0; 2];
    for case in cases {
        let expected = case.run(&Case::of_library);
        ends[usize::from(expected.end.status != Some(0))] += 1;
        for build in builds() {
            let seen = case.run(&|case, home| case.of_program(&build.program, home));
            assert_eq!(seen, expected, "{}: {case:?}", build.target);
        }
    }
    assert!(ends.iter().all(|&count| count > 0), "{ends:?}");
}

#[test]
fn every_command_and_variable() {
    let values: [&[u8]; 7] =
        [b"", b"x y=z;~", b"a\"b", b"a\\b", "\u{e4}".as_bytes(), b"\xff", b"\n"];
    let names =
        ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_COMMAND"];
    let mut cases = vec![Case::new().with("LEASEHOLD_SOCKET", b"")];
    for command in [b"ADD".as_slice(), b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION", b"add"] {
        let case = Case::new().with("CNI_COMMAND", command);
        cases.push(case.clone());
        for name in names {
            cases.extend(values.map(|value| case.clone().with(name, value)));
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
        usual(""),
        usual("[]"),
        usual("{"),
        usual(r#"{"a":1}x"#),
        usual(r#"{"a":-1}"#),
        usual(r#"{"a":"\u0041"}"#),
        usual("{\"a\":\"\u{e4}\"}"),
        usual(&format!("{{\"a\":{}}}", "[".repeat(40))),
        // Around the size of one read: an end must be found there, too.
        usual(&long(2_000)),
        usual(&long(2_048 - 27)),
        usual(&long(2_049 - 27)),
        usual(&long(60_000)),
        usual(&long(100_000)),
        usual(&long(4 << 20)),
        elsewhere(socket(r#"{"ipam":{SOCKET}}"#)),
        elsewhere(socket(r#"{"IPAM":{"type":"my-ipam","SOCKET":1,SOCKET}}"#)),
        elsewhere(socket(r#"{"ipam":{SOCKET},"ipam":{}}"#)),
        elsewhere(socket(r#"{"ipam":{"a":"\u00e4",SOCKET}"#)),
        socket(r#"{SOCKET,"ipam":{"x":{"socket":"/no"}}}"#),
        usual(r#"{"ipam":{"socket":7}}"#),
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
        cases.push(Case { unread: true, ..case });
    }
    compare(cases);
}
