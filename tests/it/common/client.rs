//! A client of the daemon's socket, small and blocking: a test asks and waits.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Call, Outcome};

/// The longest time for one answer on the socket.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A connection that was idle for longer is replaced: the server may be about to close it.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// A blocking client of the daemon's socket: HTTP/1.1, one connection, kept while it is in use.
pub(crate) struct Client {
    socket: PathBuf,
    answer_limit: Duration,
    connection: Option<(BufReader<UnixStream>, Instant)>,
}

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Client {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self::with_limit(socket, ANSWER_LIMIT)
    }

    /// A client that hangs up if an answer takes longer than this.
    pub(crate) const fn with_limit(socket: PathBuf, answer_limit: Duration) -> Self {
        Self { socket, answer_limit, connection: None }
    }

    /// Sends one request; a broken connection is an error and is not tried again.
    pub(crate) fn try_request(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Reply> {
        let mut stream = match self.connection.take() {
            Some((stream, used)) if used.elapsed() < IDLE_LIMIT => stream,
            _ => {
                let stream = UnixStream::connect(&self.socket)?;
                stream.set_read_timeout(Some(self.answer_limit))?;
                BufReader::new(stream)
            }
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: leasehold\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let (reply, keep) = read_reply(&mut stream)?;
        if keep {
            self.connection = Some((stream, Instant::now()));
        }
        Ok(reply)
    }

    /// Sends one request, which must get an answer of any kind.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: &str) -> Reply {
        self.try_request(method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path} on the socket: {error}"))
    }

    /// Reads a resource that must be there, as JSON.
    pub(crate) fn get(&mut self, path: &str) -> Value {
        let reply = self.request("GET", path, "");
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.body);
        serde_json::from_str(&reply.body)
            .unwrap_or_else(|error| panic!("GET {path}: {error} in {}", reply.body))
    }

    /// Makes one CNI call without a plugin process.
    pub(crate) fn call(&mut self, call: &Call) -> Outcome {
        let reply = self.request("POST", "/v1/cni", &call.body().to_string());
        match reply.status {
            200 => Outcome::success(&reply.body),
            status => Outcome::refusal(&reply.body, &format!("HTTP status {status}")),
        }
    }
}

/// Reads one reply. The flag is true if the connection can be used again.
pub(super) fn read_reply(stream: &mut impl BufRead) -> io::Result<(Reply, bool)> {
    let status_line = read_line(stream)?;
    let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {status_line:?}")))?;
    let (mut length, mut chunked, mut keep) = (0, false, true);
    loop {
        let line = read_line(stream)?.to_ascii_lowercase();
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
            Some(("connection", value)) => keep = value != "close",
            Some(_) => {}
            None => break,
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let line = read_line(stream)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            let at = body.len();
            body.resize(at + size, 0);
            stream.read_exact(&mut body[at..])?;
            read_line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else {
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    }
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok((Reply { status, body }, keep))
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
