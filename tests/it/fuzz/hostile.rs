//! The plugin against a server on the socket that is not the daemon, or misbehaves.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use my_ipam::{ProcessIo, run};
use serde_json::Value;
use tempfile::TempDir;

use super::{mutate, no_error_object, seeds, shown};

/// The time that the plugin waits for an answer here, and the longest time of a run: a write of
/// the answer may end late, and the machine may be slow.
const WAIT: Duration = Duration::from_millis(300);
const TAKES_MAX: Duration = Duration::from_secs(5);
/// Answers in one batch, and batches of every run.
const ANSWERS: usize = 100;
const BATCHES: u64 = 6;
/// The time between two bytes of a slow answer.
const DRIP: Duration = Duration::from_millis(20);

const RESULT: &str = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}]}"#;
const ERROR: &str = r#"{"cniVersion":"1.1.0","code":100,"msg":"no address is free"}"#;

/// The behaviour of the other end of a connection.
#[derive(Debug)]
enum Deed {
    /// Sends these bytes and closes, without reading.
    Say(Vec<u8>),
    /// The same, once a request has begun to arrive.
    Answer(Vec<u8>),
    /// Sends these bytes one by one.
    Drip(Vec<u8>),
    /// Sends the first bytes, and then the second ones without end.
    Flood(Vec<u8>, Vec<u8>),
    /// Reads, and sends nothing.
    Listen,
    /// Neither reads nor sends anything.
    Ignore,
}

impl Deed {
    fn done(&self, mut stream: UnixStream) {
        let mut page = [0; 4096];
        if matches!(self, Self::Answer(_)) {
            let _ = stream.read(&mut page);
        }
        // The plugin may end at any time, so no step here needs to succeed.
        match self {
            Self::Say(text) | Self::Answer(text) => drop(stream.write_all(text)),
            Self::Drip(text) => {
                let mut bytes = text.iter();
                while bytes.next().is_some_and(|byte| stream.write_all(&[*byte]).is_ok()) {
                    thread::sleep(DRIP);
                }
            }
            Self::Flood(first, second) => {
                let _ = stream.write_all(first);
                while stream.write_all(second).is_ok() {}
            }
            Self::Listen => while stream.read(&mut page).is_ok_and(|count| count > 0) {},
            // Longer than the plugin waits.
            Self::Ignore => thread::sleep(2 * WAIT),
        }
    }
}

/// Runs the plugin against such an end. Returns its exit status and standard output.
fn against(deed: &Deed, command: &str, config: &[u8]) -> (u8, Vec<u8>) {
    let home = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let socket = home.path().join("s");
    let listener = UnixListener::bind(&socket).expect("a socket");
    thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().expect("a connection");
            deed.done(stream);
        });
        let environment = |name: &str| -> Option<OsString> {
            Some(match name {
                "CNI_COMMAND" => command.into(),
                "LEASEHOLD_SOCKET" => socket.clone().into(),
                "CNI_ARGS" => return None,
                _ => "value".into(),
            })
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let began = Instant::now();
        let status = run(&mut ProcessIo {
            started_at_ns: Some(1),
            argument: None,
            environment: &environment,
            stdin: &mut &*config,
            stdout: &mut stdout,
            stderr: &mut stderr,
            answer_wait: WAIT,
        });
        let took = began.elapsed();
        assert!(took < TAKES_MAX, "{took:?} with {deed:?}");
        assert!(stderr.is_empty(), "{}", shown(&stderr));
        (status, stdout)
    })
}

/// The fault of the plugin's end, if it has one.
fn wrong(command: &str, status: u8, stdout: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(stdout) else { return Some("not UTF-8".to_owned()) };
    let is_object = || serde_json::from_str::<Value>(text).is_ok_and(|json| json.is_object());
    match status {
        0 if text.is_empty() && command != "ADD" => None,
        0 => (!is_object()).then(|| format!("no result: {text:?}")),
        _ => no_error_object(text),
    }
}

/// Runs the plugin and fails if it ends wrongly. Returns its exit status.
fn judge(deed: &Deed, command: &str, config: &[u8]) -> u8 {
    let (status, stdout) = against(deed, command, config);
    if let Some(wrong) = wrong(command, status, &stdout) {
        let deed: String = format!("{deed:?}").chars().take(2_000).collect();
        panic!("{wrong}\n{} with {deed}", shown(&stdout));
    }
    status
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Answers that are not valid.
fn garbage() -> Vec<Vec<u8>> {
    let head = |line: &str| format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n{RESULT}").into_bytes();
    let mut answers: Vec<Vec<u8>> = [
        "",
        "\0",
        "HTTP/1.",
        "HTTP/1.1",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 -1 x\r\n\r\n",
        "HTTP/1.1 99999999999999999999 x\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    for line in [
        "Content-Length: 18446744073709551615",
        "Content-Length: 99999999999999999999999",
        "Content-Length: -1",
        "Content-Length: 16777217",
        "Content-Length: 1000",
        "Content-Length: 1\r\nContent-Length: 5",
        "Transfer-Encoding: chunked",
    ] {
        answers.push(head(line));
    }
    for body in [
        b"".as_slice(),
        b"null",
        b"[1]",
        b"7",
        b"{",
        b"{\"a\":",
        b"{} {}",
        b"{\"a\":\"\xff\"}",
        b"{\"code\":7}",
        b"{\"code\":\"7\",\"msg\":\"m\"}",
        b"{\"code\":7,\"msg\":{}}",
        b"<html>not found</html>",
    ] {
        answers.push(http("200 OK", body));
        answers.push(http("500 Internal Server Error", body));
    }
    answers.push(http("200 OK", &b"{\"a\":".repeat(100_000)));
    answers.push(http("500 x", &b"{\"a\":".repeat(100_000)));
    answers
}

#[test]
fn garbage_for_an_answer_is_an_error_object() {
    for answer in garbage() {
        for deed in [Deed::Say(answer.clone()), Deed::Answer(answer)] {
            for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
                judge(&deed, command, b"{}");
            }
        }
    }
    // A valid answer comes through.
    assert_eq!(judge(&Deed::Answer(http("200 OK", RESULT.as_bytes())), "ADD", b"{}"), 0);
    assert_eq!(judge(&Deed::Answer(http("200 OK", b"")), "CHECK", b"{}"), 0);
    assert_eq!(judge(&Deed::Answer(http("503 x", ERROR.as_bytes())), "ADD", b"{}"), 1);
}

#[test]
fn who_is_slow_or_has_no_end_is_left_in_time() {
    let large = vec![b' '; 1 << 20];
    let deeds = || {
        let head = b"HTTP/1.1 200 OK\r\n".to_vec();
        let body = b"HTTP/1.1 200 OK\r\n\r\n{".to_vec();
        [
            Deed::Listen,
            Deed::Ignore,
            Deed::Drip(http("200 OK", RESULT.as_bytes())),
            Deed::Flood(Vec::new(), b"x".repeat(4096)),
            Deed::Flood(head, b"X: y\r\n".repeat(100)),
            Deed::Flood(b"HTTP/1.1 200 ".to_vec(), b"O".repeat(4096)),
            Deed::Flood(body, b" ".repeat(64 << 10)),
        ]
    };
    // In parallel, because each takes as long as the plugin waits.
    thread::scope(|scope| {
        for command in ["ADD", "STATUS"] {
            for config in [b"{}".as_slice(), &large] {
                for deed in deeds() {
                    scope.spawn(move || {
                        assert_eq!(judge(&deed, command, config), 1, "{command} with {deed:?}");
                    });
                }
            }
        }
    });
}

#[test]
fn spoiled_answers_are_results_or_error_objects() {
    let mut ends = [0; 2];
    seeds(BATCHES, |rng: &mut Rng| {
        for _ in 0..ANSWERS {
            let (status, body) = [("200 OK", RESULT), ("503 x", ERROR)][rng.usize(..2)];
            let mut answer = if rng.bool() {
                http(status, mutate::json_text(rng, &body.parse().expect("JSON")).as_bytes())
            } else {
                http(status, body.as_bytes())
            };
            if rng.bool() {
                mutate::bytes(rng, &mut answer);
            }
            let command = ["ADD", "DEL", "STATUS"][rng.usize(..3)];
            let end = judge(&Deed::Answer(answer), command, b"{\"cniVersion\":\"1.0.0\"}");
            ends[usize::from(end)] += 1;
        }
    });
    assert!(ends.iter().all(|count| *count > 0), "{ends:?}");
}
