//! A daemon that gives the answers that a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

/// A socket that is served until the test process ends.
pub(super) struct Fake {
    socket: PathBuf,
    _dir: TempDir,
}

impl Fake {
    /// Serves the result of `answer` for a request's method and path: a status and a body.
    pub(super) fn serve(answer: impl Fn(&str, &str) -> (u16, Value) + Send + 'static) -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let socket = dir.path().join("fake.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away in the middle is a matter of its own test.
                let _ = stream.and_then(|stream| one(stream, &answer));
            }
        });
        Self { socket, _dir: dir }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

fn one(stream: UnixStream, answer: &dyn Fn(&str, &str) -> (u16, Value)) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        head.push(std::mem::take(&mut line).trim_end().to_ascii_lowercase());
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
    let mut words = head.first().map_or("", String::as_str).split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = answer(method, path);
    let body = body.to_string();
    write!(
        stream.get_mut(),
        "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
