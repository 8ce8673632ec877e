//! Requests to the daemon, which the admin commands share.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::output::{Form, OutputArgs, printable, show};
use crate::api::ApiError;
use my_ipam::client::{self, ClientError, SOCKET_DEFAULT};

/// The longest time that a command waits for one answer. The largest listing takes a tenth of a
/// second.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);

/// The most characters that are shown of an answer that was not understood.
const EXCERPT_CHARS_MAX: usize = 120;

/// The options of every admin command.
#[derive(Args, Clone, Debug)]
pub(super) struct AdminArgs {
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", env = "LEASEHOLD_SOCKET", default_value = SOCKET_DEFAULT)]
    pub(super) socket: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Reads a resource of the daemon. The path is percent-encoded already.
///
/// # Errors
/// One sentence that names the request, the cause of the failure, and the remedy.
pub(super) fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    ask(socket, "GET", path, &[])
}

/// Reads a resource that is plain text.
///
/// # Errors
/// As for [`get`].
pub(super) fn get_text(socket: &Path, path: &str) -> anyhow::Result<String> {
    let body = answer(socket, "GET", path, &[], ANSWER_WAIT_MAX)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Reads a resource on which the daemon may work for as long as `wait`.
///
/// # Errors
/// As for [`get`].
pub(super) fn get_within<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    wait: Duration,
) -> anyhow::Result<T> {
    ask_within(socket, "GET", path, &[], wait + ANSWER_WAIT_MAX)
}

/// Sends a document to the daemon.
///
/// # Errors
/// As for [`get`].
pub(super) fn post<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<T> {
    ask(socket, "POST", path, &serde_json::to_vec(body)?)
}

/// Sends a document for the daemon to keep.
///
/// # Errors
/// As for [`get`].
pub(super) fn put<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &[u8],
) -> anyhow::Result<T> {
    ask(socket, "PUT", path, body)
}

/// Deletes a resource of the daemon.
///
/// # Errors
/// As for [`get`].
pub(super) fn delete<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    ask(socket, "DELETE", path, &[])
}

/// The daemon understood the request and refused it.
#[derive(Debug, thiserror::Error)]
#[error("the daemon refused (status {status}): {error}")]
pub(super) struct Refused {
    /// The HTTP status.
    pub(super) status: u16,
    /// The daemon's explanation, one sentence.
    pub(super) error: String,
}

impl Refused {
    /// True if the request was well formed: the thing does not exist, or its present state forbids
    /// the change.
    fn is_news(&self) -> bool {
        matches!(self.status, 404 | 409)
    }
}

/// Separates a negative answer from a failed request: a negative answer becomes `Ok(Err(_))`, with
/// the daemon's sentence.
///
/// # Errors
/// The request failed for any other reason.
pub(super) fn news<T>(result: anyhow::Result<T>) -> anyhow::Result<Result<T, String>> {
    result.map(Ok).or_else(|error| match error.downcast::<Refused>() {
        Ok(refused) if refused.is_news() => Ok(Err(refused.error)),
        Ok(refused) => Err(refused.into()),
        Err(error) => Err(error),
    })
}

/// Prints a negative answer in the form that was asked for.
///
/// # Errors
/// It cannot be printed.
pub(super) fn bad_news(form: Form, error: String) -> anyhow::Result<std::process::ExitCode> {
    let text = format!("{}\n", printable(&error));
    show(form, &ApiError { error }, || text)?;
    Ok(super::verdict(false))
}

fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
) -> anyhow::Result<T> {
    ask_within(socket, method, path, body, ANSWER_WAIT_MAX)
}

fn ask_within<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    wait: Duration,
) -> anyhow::Result<T> {
    let body = answer(socket, method, path, body, wait)?;
    serde_json::from_slice(&body).with_context(|| {
        let answer = excerpt(&body);
        format!(
            "{method} {path}: cannot decode the answer; is the daemon of this version? {answer}"
        )
    })
}

/// The body of the daemon's answer.
fn answer(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    wait: Duration,
) -> anyhow::Result<Vec<u8>> {
    let deadline = Instant::now() + wait;
    let response = client::request(socket, method, path, &[body], deadline)
        .map_err(|error| unanswered(socket, &error))?;
    if response.status != 200 {
        let status = response.status;
        match serde_json::from_slice::<ApiError>(&response.body) {
            Ok(ApiError { error }) => return Err(Refused { status, error }.into()),
            Err(_) => {
                let answer = excerpt(&response.body);
                anyhow::bail!("the daemon refused {method} {path} (status {status}): {answer}");
            }
        }
    }
    Ok(response.body)
}

fn unanswered(socket: &Path, error: &ClientError) -> anyhow::Error {
    let socket = socket.display();
    match error {
        ClientError::NotReachable(_) => anyhow::anyhow!(
            "no daemon answers on {socket} ({error}): start it with `leasehold serve`, or name \
             its socket with --socket or LEASEHOLD_SOCKET"
        ),
        ClientError::Denied(_) => anyhow::anyhow!(
            "this user may not use {socket} ({error}): run the command as the user that runs the \
             daemon"
        ),
        ClientError::NoAnswer(_) => anyhow::anyhow!(
            "the daemon on {socket} does not answer ({error}): see its log, and try again"
        ),
        ClientError::Malformed(_) => anyhow::anyhow!(
            "the server on {socket} is not a leasehold daemon ({error}): name the socket of the \
             daemon with --socket or LEASEHOLD_SOCKET"
        ),
    }
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut excerpt: String = text.trim().chars().take(EXCERPT_CHARS_MAX).collect();
    if excerpt.len() < text.trim().len() {
        excerpt.push('…');
    }
    printable(&excerpt)
}

/// Adds `name=value` to a path, percent-encoded.
pub(super) fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let mut out = path.to_owned();
    let given = query.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    for (index, (name, value)) in given.enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.push_str(&encoded(value));
    }
    out
}

/// A text, percent-encoded for a path or a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded_and_absent_values_are_left_out() {
        let query =
            [("network", None), ("address", Some("::1".to_owned())), ("x", Some("a&b ä".into()))];
        assert_eq!(with_query("/v1/x", &query), "/v1/x?address=%3A%3A1&x=a%26b%20%C3%A4");
        assert_eq!(with_query("/v1/x", &[("network", None)]), "/v1/x");
    }
}
