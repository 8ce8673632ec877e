//! The usual call, before the C library is set up: a daemon that answers 200, texts that need no
//! escapes. Whatever else turns up, at whatever point, is handed on to the ordinary program with
//! what has been read by then ([`Begun`]); nothing is done twice.
//!
//! There is no C library here: no allocator, no thread-local variable, and so nothing of `std` that
//! is not in `core`.

use std::ffi::{CStr, c_char};
use std::os::fd::FromRawFd as _;

use leasehold::client::SOCKET_DEFAULT;
use leasehold::limits::ANSWER_WAIT_MAX;
use leasehold::plugin::{Begun, CALL_PATH, Sent};

use super::json;
use super::sys::{self, Address, Part, STDERR, STDIN, STDOUT};

/// Room for a configuration and for an answer, in bytes. Pages that are not used cost nothing.
const ROOM: usize = 64 << 10;

/// The pieces of a request.
const PARTS: usize = 24;

/// A daemon that has not accepted the connection by then is the ordinary program's to wait for,
/// which counts all its waits together.
const CONNECT_NS_MAX: u64 = 1_000_000_000;

/// Everything that the attempt writes to, for the ordinary program to read. All zero at first: that
/// takes no room in the file.
struct Attempt {
    started_at_ns: u64,
    variables: Variables,
    config: [u8; ROOM],
    config_bytes: usize,
    /// The socket, once the whole request is sent.
    sent: Option<usize>,
    answer: [u8; ROOM],
    answer_bytes: usize,
    /// When the waiting began, in nanoseconds on the boot clock.
    asked_at_ns: u64,
    address: Address,
    parts: [Part; PARTS],
    parts_used: usize,
    /// Bytes in the parts.
    bytes: usize,
    length: [u8; 20],
    start: [u8; 20],
}

#[allow(unsafe_code)]
static mut ATTEMPT: Attempt = Attempt {
    started_at_ns: 0,
    variables: Variables {
        command: None,
        container_id: None,
        netns: None,
        ifname: None,
        args: None,
        path: None,
        socket: None,
    },
    config: [0; ROOM],
    config_bytes: 0,
    sent: None,
    answer: [0; ROOM],
    answer_bytes: 0,
    asked_at_ns: 0,
    address: Address::NONE,
    parts: [Part::EMPTY; PARTS],
    parts_used: 0,
    bytes: 0,
    length: [0; 20],
    start: [0; 20],
};

/// What the call needs of its environment.
struct Variables {
    command: Option<&'static [u8]>,
    container_id: Option<&'static [u8]>,
    netns: Option<&'static [u8]>,
    ifname: Option<&'static [u8]>,
    args: Option<&'static [u8]>,
    path: Option<&'static [u8]>,
    socket: Option<&'static [u8]>,
}

/// What the attempt came to, for the ordinary program.
pub(crate) fn begun() -> Begun {
    // SAFETY: the attempt is over, and this is the only thread.
    #[allow(unsafe_code, clippy::deref_addrof)]
    let attempt: &'static Attempt = unsafe { &*(&raw const ATTEMPT) };
    let sent = attempt.sent.and_then(|fd| {
        let fd = i32::try_from(fd).ok()?;
        // SAFETY: it was opened by the attempt, which handed it over and is over.
        #[allow(unsafe_code)]
        let socket = unsafe { std::os::unix::net::UnixStream::from_raw_fd(fd) };
        Some(Sent { socket, answer: attempt.answer.get(..attempt.answer_bytes)?.to_vec() })
    });
    Begun {
        started_at_ns: attempt.started_at_ns,
        config: attempt.config.get(..attempt.config_bytes).unwrap_or_default(),
        sent,
        asked_at_ns: attempt.asked_at_ns,
    }
}

/// Carries the call out and ends the process; or returns, and then the ordinary program is to.
///
/// # Safety
/// To be called once, by the first instruction, with the stack as the kernel left it: a count, so
/// many arguments, a null, the environment, a null.
#[allow(unsafe_code)]
pub(crate) unsafe extern "C" fn attempt(stack: *const usize) {
    // SAFETY: nothing else runs yet.
    #[allow(clippy::deref_addrof)]
    let attempt = unsafe { &mut *(&raw mut ATTEMPT) };
    // First of all: the sooner, the closer to the start of the process.
    attempt.started_at_ns = sys::boot_clock_ns();
    // SAFETY: see above.
    let (arguments, environment) = unsafe { (*stack, stack.add(*stack + 2).cast()) };
    if arguments == 1
        // SAFETY: see above.
        && unsafe { attempt.variables.read(environment) }.is_some()
        && attempt.carry_out().is_some()
    {
        sys::exit(0);
    }
}

impl Variables {
    /// Reads the variables; none: the call is not a usual one.
    ///
    /// # Safety
    /// `entry` is that of an environment, which ends with a null.
    #[allow(unsafe_code)]
    unsafe fn read(&mut self, mut entry: *const *const c_char) -> Option<()> {
        loop {
            // SAFETY: not beyond the null, and every entry is a text that ends with a zero byte.
            let variable = unsafe {
                if (*entry).is_null() {
                    break;
                }
                CStr::from_ptr(*entry).to_bytes()
            };
            take(variable, b"CNI_COMMAND=", &mut self.command)?;
            take(variable, b"CNI_CONTAINERID=", &mut self.container_id)?;
            take(variable, b"CNI_NETNS=", &mut self.netns)?;
            take(variable, b"CNI_IFNAME=", &mut self.ifname)?;
            take(variable, b"CNI_ARGS=", &mut self.args)?;
            take(variable, b"CNI_PATH=", &mut self.path)?;
            take(variable, b"LEASEHOLD_SOCKET=", &mut self.socket)?;
            // SAFETY: see above.
            entry = unsafe { entry.add(1) };
        }
        let there = |variable: Option<&[u8]>| variable.is_some_and(|text| !text.is_empty());
        // What `plugin::environment` requires.
        let (attachment, netns) = match self.command? {
            b"ADD" | b"CHECK" => (true, true),
            b"DEL" => (true, false),
            b"GC" | b"STATUS" => (false, false),
            _ => return None,
        };
        let usual = there(self.path)
            && (there(self.container_id) && there(self.ifname) || !attachment)
            && (there(self.netns) || !netns);
        usual.then_some(())
    }
}

/// Takes a variable's value if it has this name; none: it is not a usual one.
fn take(variable: &'static [u8], name: &[u8], value: &mut Option<&'static [u8]>) -> Option<()> {
    let Some(text) = variable.strip_prefix(name) else { return Some(()) };
    // The first of several is what the C library finds.
    if value.is_some() || !json::is_plain(text) {
        return None;
    }
    *value = Some(text);
    Some(())
}

/// The digits of a number.
fn digits(mut number: u64, into: &mut [u8; 20]) -> &[u8] {
    let mut first = into.len();
    loop {
        first -= 1;
        if let Some(digit) = into.get_mut(first) {
            *digit = b'0' + (number % 10) as u8;
        }
        number /= 10;
        if number == 0 || first == 0 {
            return into.get(first..).unwrap_or_default();
        }
    }
}

impl Attempt {
    /// None: it is the ordinary program's turn.
    fn carry_out(&mut self) -> Option<()> {
        sys::ignore_sigpipe();
        self.read_config()?;
        let socket = self.socket_path()?;
        self.address.set(socket).then_some(())?;
        self.lay_out();
        self.asked_at_ns = sys::boot_clock_ns();
        let fd = usize::try_from(sys::socket(ANSWER_WAIT_MAX.as_secs())).ok()?;
        let parts = self.parts.get(..self.parts_used)?;
        // In the place of a standard stream that the caller left closed, it would be printed to.
        if fd <= STDERR
            || sys::connect(fd, &self.address) != 0
            || sys::write_all_at_once(fd, parts) != isize::try_from(self.bytes).ok()?
        {
            // Not all of it was sent, so none of it is carried out.
            sys::close(fd);
            return None;
        }
        self.sent = Some(fd);
        if sys::boot_clock_ns() - self.asked_at_ns > CONNECT_NS_MAX {
            return None;
        }
        print(self.receive(fd)?)
    }

    /// All of standard input, unless it is long or typed.
    fn read_config(&mut self) -> Option<()> {
        if sys::is_terminal(STDIN) {
            return None;
        }
        loop {
            let room = self.config.get_mut(self.config_bytes..)?;
            if room.is_empty() {
                return None;
            }
            match sys::read(STDIN, room) {
                0 => return Some(()),
                read => self.config_bytes += usize::try_from(read).ok()?,
            }
        }
    }

    /// `ipam.socket` of the configuration, else the environment's, else the usual place.
    fn socket_path(&self) -> Option<&'static [u8]> {
        // SAFETY: nobody writes to the configuration any more.
        #[allow(unsafe_code)]
        let config: &'static [u8] = unsafe {
            core::slice::from_raw_parts(self.config.as_ptr(), self.config_bytes.min(ROOM))
        };
        let (mut ipam, mut socket, mut twice) = (None, None, false);
        json::members(config, &mut |key, value| {
            if key.eq_ignore_ascii_case(b"ipam") {
                twice |= ipam.is_some();
                ipam = Some(value);
            }
        })?;
        if let Some(ipam) = ipam.filter(|ipam| ipam.first() == Some(&b'{')) {
            json::members(ipam, &mut |key, value| {
                if key.eq_ignore_ascii_case(b"socket") {
                    twice |= socket.is_some();
                    socket = Some(value);
                }
            })?;
        }
        if twice {
            return None;
        }
        let configured = match socket {
            Some(value) => json::unquoted(value)?,
            None => b"",
        };
        let inherited = self.variables.socket.unwrap_or_default();
        Some(match (configured.is_empty(), inherited.is_empty()) {
            (false, _) => configured,
            (true, false) => inherited,
            (true, true) => SOCKET_DEFAULT.as_bytes(),
        })
    }

    /// Lines the pieces of the request up, as `plugin::request` has them.
    fn lay_out(&mut self) {
        // SAFETY: these are written here only, and sent before anything else is.
        #[allow(unsafe_code, clippy::deref_addrof)]
        let (config, length, start) = unsafe {
            let config = core::slice::from_raw_parts(self.config.as_ptr(), self.config_bytes);
            (config, &mut *(&raw mut self.length), &mut *(&raw mut self.start))
        };
        // The head comes first, and begins with the length of the rest.
        self.parts_used = 5;
        self.push(b"{\"command\":\"");
        self.push(self.variables.command.unwrap_or_default());
        self.push(b"\",\"containerId\":\"");
        self.push(self.variables.container_id.unwrap_or_default());
        self.push(b"\",\"netns\":\"");
        self.push(self.variables.netns.unwrap_or_default());
        self.push(b"\",\"ifname\":\"");
        self.push(self.variables.ifname.unwrap_or_default());
        self.push(b"\",\"args\":\"");
        self.push(self.variables.args.unwrap_or_default());
        self.push(b"\",\"path\":\"");
        self.push(self.variables.path.unwrap_or_default());
        self.push(b"\",\"startedAt\":");
        self.push(digits(self.started_at_ns, start));
        self.push(b",\"config\":\n");
        self.push(config);
        self.push(b"\n}");
        let used = core::mem::replace(&mut self.parts_used, 0);
        let length = digits(self.bytes as u64, length);
        self.push(b"POST ");
        self.push(CALL_PATH.as_bytes());
        self.push(
            b" HTTP/1.1\r\nHost: leasehold\r\nContent-Type: application/json\r\nContent-Length: ",
        );
        self.push(length);
        self.push(b"\r\nConnection: close\r\n\r\n");
        self.parts_used = used;
    }

    fn push(&mut self, text: &[u8]) {
        if let Some(part) = self.parts.get_mut(self.parts_used) {
            *part = Part::of(text);
            self.parts_used += 1;
            self.bytes += text.len();
        }
    }

    /// The body of an answer that is a result and comes at once.
    fn receive(&mut self, fd: usize) -> Option<&[u8]> {
        self.answer_bytes = usize::try_from(sys::read(fd, &mut self.answer)).ok()?;
        let answer = self.answer.get(..self.answer_bytes)?;
        let (head, body) = head(answer)?;
        let body = answer.get(head..head + body)?;
        let may_be_empty = self.variables.command != Some(b"ADD");
        let is_result = json::is_object(body) || body.is_empty() && may_be_empty;
        is_result.then_some(body)
    }
}

/// Of an answer with status 200: how long its head is, and its body.
fn head(answer: &[u8]) -> Option<(usize, usize)> {
    const LENGTH: &[u8] = b"content-length:";
    const ENCODING: &[u8] = b"transfer-encoding:";
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return None;
    }
    let begins = |line: &[u8], name: &[u8]| {
        line.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name))
    };
    let (mut at, mut body) = (0, None);
    for line in answer.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        if line == b"\r\n" {
            return body.map(|body| (at, body));
        }
        if begins(line, ENCODING) {
            return None;
        }
        if begins(line, LENGTH) {
            body = Some(length(line.get(LENGTH.len()..)?)?);
        }
    }
    None
}

fn length(digits: &[u8]) -> Option<usize> {
    let mut length = 0;
    for &byte in digits.trim_ascii() {
        match byte {
            b'0'..=b'9' if length < ROOM => length = length * 10 + usize::from(byte - b'0'),
            _ => return None,
        }
    }
    (!digits.trim_ascii().is_empty()).then_some(length)
}

/// Prints all of it; none: not all could be printed.
fn print(mut text: &[u8]) -> Option<()> {
    while !text.is_empty() {
        let written = usize::try_from(sys::write(STDOUT, text)).ok().filter(|&bytes| bytes > 0)?;
        text = text.get(written..)?;
    }
    Some(())
}
