//! The daemon as an operator sees it: its process, files and log, and its refusals to start.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::read_reply;
use super::{Call, Client, Daemon, Options, Outcome, PATIENCE, Reply, builds, poll};

/// Rows in one page of a list; fewer than the daemon would give.
const PAGE_ROWS: usize = 10_000;
/// The longest time for the answer to a raw request: longer than any limit of the daemon.
const RAW_ANSWER_LIMIT: Duration = Duration::from_secs(20);

impl Daemon {
    /// A daemon with its directory, not started yet: `restart` starts it.
    pub(crate) fn prepare(options: &Options) -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        Self { dir, options: options.clone(), child: None }
    }

    /// Starts the daemon and waits until its socket is there, but not until it is ready.
    pub(crate) fn start_unready(&mut self) {
        builds();
        self.child = Some(self.spawn());
        assert!(poll(PATIENCE, || self.socket().exists()), "{}", self.log_tail());
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running daemon").id()
    }

    /// The exit status of a daemon that has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("the state of the daemon")
    }

    /// The state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The directory where plugins leave notes.
    pub(crate) fn notes_dir(&self) -> PathBuf {
        self.dir.path().join("run").join("notes")
    }

    /// Everything that the daemon wrote on standard error so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The TCP address of its reads.
    pub(crate) fn listen(&self) -> SocketAddr {
        let status = self.client().get("/v1/status");
        let listen = status["about"]["listen"].as_str().expect("an address");
        listen.parse().expect("an address and a port")
    }

    /// A figure of `/proc/PID/status`, in KiB: `VmRSS` now, `VmHWM` at its highest.
    pub(crate) fn memory_kib(&self, figure: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        let words = line.unwrap_or_else(|| panic!("no {figure} in {path}"));
        words.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Every row of `GET /v1/allocations`, page by page.
    pub(crate) fn allocations(&self) -> Vec<Value> {
        let mut client = self.client();
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let after = rows.last().map_or(String::new(), |row| {
                let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                format!("&after={},{}", field("pool"), field("address"))
            });
            let path = format!("/v1/allocations?limit={PAGE_ROWS}{after}");
            let Value::Array(page) = client.get(&path) else { panic!("{path} is no array") };
            let last = page.len() < PAGE_ROWS;
            rows.extend(page);
            if last {
                return rows;
            }
        }
    }

    /// Starts the daemon, which must refuse. Returns its exit code and its output.
    pub(crate) fn refusal(&mut self) -> (i32, String) {
        match self.try_start() {
            Ok(()) => panic!("the daemon runs where it should refuse to start"),
            Err(refusal) => refusal,
        }
    }

    /// Starts the daemon and waits until it is ready. If it ends, returns its exit code and output.
    pub(crate) fn try_start(&mut self) -> Result<(), (i32, String)> {
        assert!(self.child.is_none(), "a daemon runs here already");
        let before = self.log().len();
        let (mut client, mut status) = (self.client(), None);
        let child = self.child.insert(self.spawn());
        // Another daemon may answer there, which does not count.
        let ready = format!("\"pid\":{},", child.id());
        let settled = poll(PATIENCE, || {
            status = child.try_wait().expect("the state of the daemon");
            let answer = client.try_request("GET", "/v1/status", "");
            let serves = |text: &str| text.contains(&ready) && super::has_begun(text);
            status.is_some() || answer.is_ok_and(|reply| serves(&reply.body))
        });
        assert!(settled, "neither ready nor ended in {PATIENCE:?}\n{}", self.log_tail());
        let Some(status) = status else { return Ok(()) };
        self.child = None;
        let code = status.code().unwrap_or_else(|| panic!("{status}\n{}", self.log_tail()));
        Err((code, self.log()[before..].to_owned()))
    }

    /// Starts the daemon and does not wait until it is ready.
    pub(crate) fn begin(&mut self) {
        assert!(self.child.is_none(), "a daemon runs here already");
        self.child = Some(self.spawn());
    }

    /// Starts the daemon and kills it after a time, ready or not.
    pub(crate) fn start_and_kill(&mut self, after: Duration) {
        assert!(self.child.is_none(), "a daemon runs here already");
        self.child = Some(self.spawn());
        poll(after, || false);
        self.kill9();
    }

    /// A new connection to the socket, for malformed bytes.
    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("a connection to the socket");
        stream.set_read_timeout(Some(RAW_ANSWER_LIMIT)).expect("a time limit");
        stream.set_write_timeout(Some(RAW_ANSWER_LIMIT)).expect("a time limit");
        stream
    }

    /// One request over TCP, which must be answered.
    pub(crate) fn over_tcp(&self, method: &str, path: &str, body: &str) -> Reply {
        tcp(self.listen(), method, path, body)
    }
}

/// A read over TCP from a daemon whose socket need not be there.
pub(crate) fn get_tcp(listen: SocketAddr, path: &str) -> Reply {
    tcp(listen, "GET", path, "")
}

fn tcp(listen: SocketAddr, method: &str, path: &str, body: &str) -> Reply {
    let mut stream = TcpStream::connect(listen).expect("a TCP connection");
    stream.set_read_timeout(Some(RAW_ANSWER_LIMIT)).expect("a time limit");
    stream.write_all(post(method, path, body).as_bytes()).expect("a request over TCP");
    reply_of(stream).unwrap_or_else(|error| panic!("{method} {path} over TCP: {error}"))
}

impl Client {
    /// Makes one CNI call; a broken connection is an error.
    pub(crate) fn try_call(&mut self, call: &Call) -> io::Result<Outcome> {
        let reply = self.try_request("POST", "/v1/cni", &call.body().to_string())?;
        Ok(match reply.status {
            200 => Outcome::success(&reply.body),
            status => Outcome::refusal(&reply.body, &format!("HTTP status {status}")),
        })
    }

    /// Makes an array of CNI calls in one request.
    pub(crate) fn try_calls(&mut self, calls: &[Call]) -> io::Result<Vec<Outcome>> {
        let body = json!(calls.iter().map(Call::body).collect::<Vec<_>>());
        let reply = self.try_request("POST", "/v1/cni", &body.to_string())?;
        assert_eq!(reply.status, 200, "an array of calls: {}", reply.body);
        let answers: Vec<Value> = serde_json::from_str(&reply.body).map_err(io::Error::other)?;
        assert_eq!(answers.len(), calls.len(), "one answer for each call");
        let outcome = |answer: &Value| match (&answer["status"], &answer["body"]) {
            (status, Value::Null) if status == 200 => Outcome::Done(None),
            (status, body) if status == 200 => Outcome::Done(Some(body.clone())),
            (status, body) => Outcome::refusal(&body.to_string(), &format!("status {status}")),
        };
        Ok(answers.iter().map(outcome).collect())
    }
}

/// The text of a request.
pub(crate) fn post(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Reads the reply on a connection.
pub(crate) fn reply_of(stream: impl Read) -> io::Result<Reply> {
    read_reply(&mut BufReader::new(stream)).map(|(reply, _)| reply)
}

/// Reads one reply of several that come one after the other.
pub(crate) fn next_reply(stream: &mut impl BufRead) -> io::Result<Reply> {
    read_reply(stream).map(|(reply, _)| reply)
}
