//! The CNI plugin `my-ipam`: exec, one request to the daemon, exit.
//!
//! It carries no logic. It sends its environment and its standard input as they are to
//! `POST /v1/cni` and prints what comes back. By itself it formats only what must work without a
//! daemon: VERSION, a broken environment, a configuration that is not JSON, "nobody answers". It
//! reads the file of `ipam.resolvConf`, whose path counts where it runs. An ADD waits some seconds
//! for a daemon that does not listen yet, or for the next one. Two things it does so that no
//! address leaks: a DEL that no daemon takes, or takes now, is left as a note (see [`note`]), and
//! an ADD whose result cannot be printed is undone.
//!
//! Absent on purpose: async, threads, clap, logging. The whole run costs about as much as the exec.
//! The daemon and its commands use the [`client`], and need to know where the notes are.

#![forbid(unsafe_code)]

mod about;
mod answer;
pub mod client;
mod command;
mod environment;
mod failure;
pub mod limits;
pub mod note;
mod peek;
mod process;
mod request;
mod resolv;
pub mod scan;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use about::VERSIONS_SUPPORTED;
pub use process::main;

use client::{ClientError, reason};
use command::Command;
use environment::Environment;
use failure::Failure;
use limits::{DEL_STDIN_BYTES_MAX, STDIN_BYTES_MAX};
use peek::Peek;
use request::Request;

/// The path at which the daemon takes CNI calls.
pub const CALL_PATH: &str = "/v1/cni";

/// The HTTP status of a call that the daemon cannot write to its journal.
const NOT_STORED: u16 = 507;

/// Room for a usual configuration, in bytes: its first `read` leaves room for the second, which
/// finds the end.
const STDIN_BYTES_USUAL: usize = 2 << 10;

/// Everything that a run of the plugin takes from its process.
pub struct ProcessIo<'a> {
    /// Start of this process, in nanoseconds on the boot clock (`CLOCK_BOOTTIME`); `None`: the
    /// system does not say, and no call can be made.
    pub started_at_ns: Option<u64>,
    /// The first command line argument.
    pub argument: Option<&'a OsStr>,
    /// One environment variable by name.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The network configuration.
    pub stdin: &'a mut dyn Read,
    /// Takes the result or the error object.
    pub stdout: &'a mut dyn Write,
    /// Takes what is not part of the protocol.
    pub stderr: &'a mut dyn Write,
    /// The time to wait for one answer: [`limits::ANSWER_WAIT_MAX`], less in tests.
    pub answer_wait: Duration,
}

/// The text for standard output, and the exit status that goes with it.
enum Outcome {
    /// Exit 0.
    Success(Vec<u8>),
    /// Exit 1; the CNI error object.
    Refusal(Vec<u8>),
}

/// Runs the plugin once. Returns the exit status: 0 or 1.
pub fn run(process: &mut ProcessIo<'_>) -> u8 {
    if let Some(text) = process.argument.and_then(about::argument) {
        return print(process, text.as_bytes());
    }
    let command = (process.environment)(environment::COMMAND);
    if command.is_none_or(|command| command.is_empty()) {
        // A person runs it, not a runtime; host-local answers so too.
        return u8::from(write!(process.stderr, "{}", about::TEXT).is_err());
    }
    let environment = Environment::read(process.environment);
    // Before any complaint about the environment: its error object names the cniVersion.
    let mut config = Vec::with_capacity(STDIN_BYTES_USUAL);
    let is_del = environment.as_ref().is_ok_and(|of| of.command == Command::Del);
    let read = read_config(process.stdin, &mut config, is_del);
    let mut peek = Peek::at(&config);
    if is_del {
        peek.look_behind_faults(&config);
    }
    let call = environment.and_then(|environment| match environment.command {
        Command::Version => Ok((environment, vec![])),
        _ => read.map(|()| (environment, config)),
    });
    let (environment, config) = match call {
        Ok(call) => call,
        Err(failure) => return refuse(process, &failure.to_json(&peek)),
    };
    if environment.command == Command::Version {
        return print(process, about::version(&peek).as_bytes());
    }
    let Some(started_at_ns) = process.started_at_ns else {
        return refuse(process, &Failure::no_clock().to_json(&peek));
    };
    let socket = socket_path(&peek, process.environment);
    let config = match needed(config) {
        Ok(config) => config,
        Err(failure) => return refuse(process, &failure.to_json(&peek)),
    };
    let needs_file = matches!(environment.command, Command::Add | Command::Status);
    let resolv_conf = peek.resolv_conf.as_deref().filter(|_| needs_file).map(resolv::read);
    let mut request = Request::new(environment, started_at_ns, config, resolv_conf);
    let answer = ask(&mut request, &socket, &peek, process);
    match judge(&request, &socket, answer, &peek) {
        Outcome::Refusal(error) => refuse(process, &error),
        Outcome::Success(result) => match process.stdout.write_all(&result) {
            Ok(()) => 0,
            Err(cause) => {
                if request.command() == Command::Add {
                    undo(process, request, &socket, &cause);
                }
                1
            }
        },
    }
}

/// Reads all of standard input, never more than one byte past the limit. A DEL needs only the name:
/// a configuration that has grown too large must not strand what was assigned before.
fn read_config(stdin: &mut dyn Read, config: &mut Vec<u8>, is_del: bool) -> Result<(), Failure> {
    let max = if is_del { DEL_STDIN_BYTES_MAX } else { STDIN_BYTES_MAX };
    let read = stdin.take(max as u64 + 1).read_to_end(config);
    if let Err(cause) = read {
        let msg = format!("error reading from stdin: {}", reason(&cause));
        return Err(Failure::new(failure::IO, msg, ""));
    }
    if config.len() > max { Err(too_large(max, "")) } else { Ok(()) }
}

/// Returns what is sent of a configuration: of a DEL's that is too large, the name.
fn needed(config: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if config.len() <= STDIN_BYTES_MAX {
        return Ok(config);
    }
    let name = scan::name(&config)
        .ok_or_else(|| too_large(STDIN_BYTES_MAX, ", and it has no name that can be read"))?;
    Ok(serde_json::json!({ "name": name }).to_string().into_bytes())
}

fn too_large(max: usize, more: &str) -> Failure {
    let msg = format!("the network configuration on stdin is over {max} bytes{more}");
    let remedy = "make it smaller: fewer ranges, routes or attachments in one call";
    Failure::new(failure::DECODING, msg, remedy)
}

/// `ipam.socket` of the configuration, else the environment's, else the usual place.
fn socket_path(peek: &Peek, environment: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let configured = peek.socket.as_ref().map(PathBuf::from);
    let inherited = || environment("LEASEHOLD_SOCKET").filter(|path| !path.is_empty());
    configured
        .or_else(|| inherited().map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(client::SOCKET_DEFAULT))
}

/// Turns the daemon's answer into an outcome; where there is no answer, does what the command calls
/// for.
fn judge(
    request: &Request,
    socket: &Path,
    answer: Result<client::Response, ClientError>,
    peek: &Peek,
) -> Outcome {
    let command = request.command();
    let failure = match answer {
        Ok(response) if response.status == 200 && answer::is_result(command, &response.body) => {
            return Outcome::Success(response.body);
        }
        // The daemon's disk is full: a note is beside the socket, which is elsewhere, and the
        // daemon acts on it when it can.
        Ok(response)
            if response.status == NOT_STORED
                && command == Command::Del
                && note::leave(socket, &request.name_of_note(), &request.parts()).is_ok() =>
        {
            return Outcome::Success(vec![]);
        }
        // Only such an object is an answer to CNI; a bare HTTP error would be lost on the runtime.
        Ok(response) if response.status != 200 && answer::is_error(&response.body) => {
            // A daemon that stops takes no DEL: the next one finds it in its notes.
            let later = command == Command::Del && answer::is_try_again(&response.body);
            let left = || note::leave(socket, &request.name_of_note(), &request.parts());
            return if later && left().is_ok() {
                Outcome::Success(vec![])
            } else {
                Outcome::Refusal(response.body)
            };
        }
        Ok(response) => Failure::not_cni(socket, &response, command),
        Err(ClientError::Malformed(why)) => Failure::not_http(socket, &why),
        Err(error) if command == Command::Del => {
            match note::leave(socket, &request.name_of_note(), &request.parts()) {
                Ok(()) => return Outcome::Success(vec![]),
                Err(second) => Failure::unsent_note(socket, &error, &second),
            }
        }
        // Trying again would not help.
        Err(error) => failure::not_json(request.config())
            .unwrap_or_else(|| Failure::unanswered(socket, &error, command)),
    };
    Outcome::Refusal(failure.to_json(peek))
}

/// Sends a call. An ADD waits for a daemon that does not listen yet, and for the next one if the
/// one that took the call goes without carrying it out: runtimes start containers as soon as the
/// machine is up, and many do not try again. The daemon learns since when there was none: nobody
/// answered a DEL meanwhile.
fn ask(
    request: &mut Request,
    socket: &Path,
    peek: &Peek,
    process: &ProcessIo<'_>,
) -> Result<client::Response, ClientError> {
    let began = Instant::now();
    let wait = daemon_wait(peek, process.environment);
    let (mut waits_already, mut is_known) = (false, true);
    loop {
        let left = process.answer_wait.saturating_sub(began.elapsed());
        let answer = post(request, socket, left);
        // A daemon of the version before does not know that key: plugin and daemon may differ.
        if waits_already && is_known && is_unknown(&answer, request::WAITED_SINCE) {
            is_known = false;
            request.waiting(None);
            continue;
        }
        let waits = request.command() == Command::Add && began.elapsed() < wait;
        // A daemon would only refuse what is not JSON.
        if !waits || !goes(&answer, socket) || failure::not_json(request.config()).is_some() {
            return answer;
        }
        if !std::mem::replace(&mut waits_already, true)
            && let Some(now) = process::boot_clock_ns()
        {
            request.waiting(Some(now));
        }
        std::thread::sleep(limits::DAEMON_LOOK);
    }
}

/// Returns whether the daemon refused a request for this key.
fn is_unknown(answer: &Result<client::Response, ClientError>, key: &str) -> bool {
    answer.as_ref().is_ok_and(|response| {
        response.status != 200 && answer::names_unknown_key(&response.body, key)
    })
}

/// Returns whether there is no daemon now, or one that ends: the next one is to be asked. An ADD
/// may be repeated, also if the last daemon has carried it out: the same container has the same
/// addresses.
fn goes(answer: &Result<client::Response, ClientError>, socket: &Path) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    match answer {
        Err(ClientError::NotReachable(cause)) => {
            matches!(cause.kind(), NotFound | ConnectionRefused)
        }
        // It ended in the middle of the call, or before it took the connection.
        Err(ClientError::NoAnswer(cause)) => {
            matches!(cause.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        }
        // A daemon that stops removes its socket first.
        Ok(response) => {
            response.status != 200 && answer::is_try_again(&response.body) && !socket.exists()
        }
        Err(_) => false,
    }
}

/// Returns the time that an ADD waits for a daemon: `ipam.waitSeconds`, else the environment's
/// `LEASEHOLD_WAIT_SECONDS`, else [`limits::DAEMON_WAIT`]; at most [`limits::DAEMON_WAIT_MAX`].
fn daemon_wait(peek: &Peek, environment: &dyn Fn(&str) -> Option<OsString>) -> Duration {
    let inherited = || environment("LEASEHOLD_WAIT_SECONDS")?.to_str()?.parse().ok();
    let wait = peek.wait_s.or_else(inherited).map_or(limits::DAEMON_WAIT, Duration::from_secs);
    wait.min(limits::DAEMON_WAIT_MAX)
}

fn post(request: &Request, socket: &Path, wait: Duration) -> Result<client::Response, ClientError> {
    client::request(socket, "POST", CALL_PATH, &request.parts(), Instant::now() + wait)
}

/// Gives back what an ADD made whose result nobody will ever see (runtimes kill their direct
/// child; this process, the child's child, runs on and finds its standard output closed).
fn undo(process: &mut ProcessIo<'_>, add: Request, socket: &Path, cause: &io::Error) {
    let request = add.undone();
    let refusal = match post(&request, socket, process.answer_wait) {
        Ok(response) if response.status == 200 => None,
        Ok(response) => Some(format!("status {}", response.status)),
        Err(error) => Some(error.to_string()),
    };
    // The daemon may well be there and unable just now, so any answer but 200 leaves a note too.
    let left =
        refusal.as_ref().map(|_| note::leave(socket, &request.name_of_note(), &request.parts()));
    let end = match (refusal, left) {
        (Some(first), Some(Err(second))) => format!(
            "undoing the ADD failed ({first}), and so did leaving a note ({second}); \
             the address is held until the DEL"
        ),
        (Some(first), _) => format!("undoing the ADD failed ({first}); a note was left for it"),
        (None, _) => "the ADD was undone".to_owned(),
    };
    // Nobody may be left to read this either.
    let _ = writeln!(process.stderr, "my-ipam: cannot print the result: {cause}; {end}");
}

fn print(process: &mut ProcessIo<'_>, text: &[u8]) -> u8 {
    u8::from(process.stdout.write_all(text).is_err())
}

fn refuse(process: &mut ProcessIo<'_>, error: &[u8]) -> u8 {
    // If it cannot be printed, the exit status is all that is left to say.
    let _ = process.stdout.write_all(error);
    1
}
