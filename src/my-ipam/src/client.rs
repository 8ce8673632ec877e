//! A blocking HTTP/1.1 client: one request, one answer, one connection, over a unix socket.
//!
//! The plugin and the commands talk to the daemon through it. It makes few system calls and few
//! allocations, because the plugin must start fast, and everything in it ends by the deadline that
//! it is given.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::limits::{ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX};

/// The socket on which the daemon listens unless it is told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/leasehold/leasehold.sock";

/// The longest path of a socket, in bytes: the kernel keeps it with a zero byte in 108 bytes.
const PATH_BYTES_MAX: usize = 107;

/// The room for the first `read` of an answer, in bytes: more than any CNI result needs.
const READ_BYTES_MIN: usize = 2 << 10;

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status, 100 to 999.
    pub status: u16,
    /// The body as it came, at most [`ANSWER_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens, or nobody accepted the connection in time. The request was not delivered.
    NotReachable(io::Error),
    /// This user may not connect to the socket. The request was not delivered.
    Denied(io::Error),
    /// Connected, but no whole answer came in time. The request *may* have been acted on.
    NoAnswer(io::Error),
    /// The answer is not HTTP as the daemon speaks it. The request may have been acted on.
    Malformed(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReachable(cause) => write!(f, "cannot connect: {}", reason(cause)),
            Self::Denied(cause) => write!(f, "may not connect: {}", reason(cause)),
            Self::NoAnswer(cause) => write!(f, "no whole answer came: {}", reason(cause)),
            Self::Malformed(why) => write!(f, "the answer is not HTTP as expected: {why}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotReachable(cause) | Self::Denied(cause) | Self::NoAnswer(cause) => Some(cause),
            Self::Malformed(_) => None,
        }
    }
}

/// The words for an operating system's error. containerd's go-cni takes a failed DEL whose text
/// has "no such file or directory" in it for a success, so a missing path gets other words.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the path does not exist (ENOENT)".to_owned(),
        _ => error.to_string(),
    }
}

/// Sends one request and waits for its answer, until `deadline` at the latest.
///
/// `path` goes out as it is and must be percent-encoded already; `body` goes out in the order of
/// its slices, in one system call if the socket's buffer (about 200 KiB) has room for it.
///
/// # Errors
///
/// See [`ClientError`], which also says whether the request may have been delivered.
pub fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[&[u8]],
    deadline: Instant,
) -> Result<Response, ClientError> {
    let mut stream = connect(socket, deadline).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied(error),
        _ => ClientError::NotReachable(error),
    })?;
    let length: usize = body.iter().map(|part| part.len()).sum();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: leasehold\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let mut parts = Vec::with_capacity(body.len() + 1);
    parts.push(IoSlice::new(head.as_bytes()));
    parts.extend(body.iter().map(|part| IoSlice::new(part)));
    let sent = send(&mut stream, &mut parts, deadline);
    let received = receive(&stream, deadline);
    match (sent, received) {
        // A daemon that refuses a body answers and closes before it has read all of it, so an
        // answer counts also when sending failed; without one, the first failure is the cause.
        (Err(cause), Err(_)) => Err(ClientError::NoAnswer(cause)),
        (_, received) => received,
    }
}

/// Connects. A full backlog blocks `connect` on a unix socket without limit, unless the socket has
/// a send timeout *before* (Linux, `unix_stream_connect`): that is all that std's
/// `UnixStream::connect` lacks here.
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > PATH_BYTES_MAX || bytes.contains(&0) {
        let what = "the path of a socket has 1 to 107 bytes and no zero byte";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let address = SocketAddrUnix::new(bytes)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let stream = UnixStream::from(socket);
    loop {
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        match net::connect(&stream, &address) {
            Ok(()) => return Ok(stream),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(timed_out()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn send(
    stream: &mut UnixStream,
    mut parts: &mut [IoSlice<'_>],
    deadline: Instant,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0); // Drops leading empty slices.
    while !parts.is_empty() {
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        match stream.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut parts, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for the answer to a request that is sent.
fn receive(stream: &UnixStream, deadline: Instant) -> Result<Response, ClientError> {
    let mut answer = Vec::new();
    let mut head: Option<Head> = None;
    let mut ended = false;
    loop {
        if answer.len() > ANSWER_BYTES_MAX {
            let why = format!("it is larger than {ANSWER_BYTES_MAX} bytes");
            return Err(ClientError::Malformed(why));
        }
        if head.is_none() {
            head = Head::parse(&answer).map_err(ClientError::Malformed)?;
        }
        let end = match &head {
            Some(Head { bytes, body_bytes: Some(length), .. }) => Some(bytes + length),
            Some(_) if ended => Some(answer.len()),
            _ => None,
        };
        if let (Some(head), Some(end)) = (&head, end)
            && answer.len() >= end
        {
            answer.truncate(end);
            answer.drain(..head.bytes);
            return Ok(Response { status: head.status, body: answer });
        }
        if ended {
            let what = format!("connection closed after {} bytes of the answer", answer.len());
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, what);
            return Err(ClientError::NoAnswer(error));
        }
        let count = read_more(stream, &mut answer, deadline).map_err(ClientError::NoAnswer)?;
        ended = count == 0;
    }
}

/// Appends what one `read` gives; 0 is the end of the stream.
fn read_more(stream: &UnixStream, answer: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
    // Twice as much each time: few calls for a long listing, one page for a CNI result.
    answer.reserve(answer.len().max(READ_BYTES_MIN));
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match rustix::io::read(stream, spare_capacity(answer)) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(timed_out()),
            Err(error) => return Err(error.into()),
            Ok(count) => return Ok(count),
        }
    }
}

/// The time left, never zero (zero would mean "wait for ever" to the socket).
fn remaining(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(timed_out()),
        left => Ok(left),
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timed out")
}

/// The parts of an answer's head that count.
struct Head {
    status: u16,
    /// Length of the head with its empty line.
    bytes: usize,
    /// Length of the body; `None`: until the end of the stream.
    body_bytes: Option<usize>,
}

impl Head {
    /// `None`: not all of it is there yet. The error says what is wrong with it.
    fn parse(answer: &[u8]) -> Result<Option<Self>, String> {
        const START: &[u8] = b"HTTP/1.";
        // At once, so that nobody waits for more from something that is not HTTP.
        let start = &answer[..answer.len().min(START.len())];
        if !START.starts_with(start) {
            let start = String::from_utf8_lossy(start);
            return Err(format!("it starts with {start:?}"));
        }
        let searched = &answer[..answer.len().min(ANSWER_HEAD_BYTES_MAX)];
        let Some(end) = searched.windows(4).position(|window| window == b"\r\n\r\n") else {
            if answer.len() < ANSWER_HEAD_BYTES_MAX {
                return Ok(None);
            }
            let why = format!("its head is larger than {ANSWER_HEAD_BYTES_MAX} bytes");
            return Err(why);
        };
        let head = String::from_utf8_lossy(&answer[..end]);
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let Some(status) = status.filter(|status| (200..=999).contains(status)) else {
            return Err(format!("its status line is {status_line:?}"));
        };
        let mut body_bytes = matches!(status, 204 | 304).then_some(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(format!("its transfer encoding is {:?}", value.trim()));
            }
            if name.eq_ignore_ascii_case("content-length") {
                let length = value.trim().parse().ok();
                let Some(length) = length.filter(|length| *length <= ANSWER_BYTES_MAX) else {
                    return Err(format!("its length {:?} is not usable", value.trim()));
                };
                body_bytes = Some(length);
            }
        }
        Ok(Some(Self { status, bytes: end + 4, body_bytes }))
    }
}
