//! The requests to the daemon of this node, by its socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use my_ipam::client::{self, ClientError};
use serde::{Deserialize, Serialize};

use super::ledger::{Due, Ended};
use super::times;

/// Ends nodes.
#[derive(Clone, Debug)]
pub(crate) struct Ender {
    /// The socket of the daemon.
    pub(crate) socket: PathBuf,
    /// The longest time for an answer.
    pub(crate) limit: Duration,
    /// True if nothing is done.
    pub(crate) dry_run: bool,
}

/// The request, as the daemon's API has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Remove<'a> {
    incarnation: &'a str,
    dry_run: bool,
}

/// The part of the answer that matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    outcome: Outcome,
    #[serde(default)]
    quarantine_s: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    Removed,
    AlreadyRemoved,
    Forgotten,
    Succeeded,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Ender {
    /// Tells the daemon that a node is gone for good. It may be repeated: with the machine's id it
    /// hits no other machine under the name.
    ///
    /// # Errors
    /// No daemon can be reached at the socket. Another instance may have one.
    pub(crate) async fn end(&self, due: &Due) -> anyhow::Result<Ended> {
        // A path of the API, and a name in keys.
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if due.name.is_empty() || !due.name.chars().all(good) || due.machine.is_empty() {
            return Ok(Ended::Later(format!("{:?} cannot be the name of a node", due.name)));
        }
        let path = format!("/v1/nodes/{}/remove", due.name);
        let remove = Remove { incarnation: &due.machine, dry_run: self.dry_run };
        let body = serde_json::to_vec(&remove)?;
        let (socket, limit) = (self.socket.clone(), self.limit);
        let asked = move || post(&socket, &path, &body, limit);
        Ok(match tokio::task::spawn_blocking(asked).await? {
            Ok(response) => self.read(response.status, &response.body),
            Err(error @ (ClientError::NotReachable(_) | ClientError::Denied(_))) => {
                return Err(error).with_context(|| format!("socket {}", self.socket.display()));
            }
            Err(error) => Ended::Later(format!("socket {}: {error}", self.socket.display())),
        })
    }

    fn read(&self, status: u16, body: &[u8]) -> Ended {
        if status != 200 {
            let refusal = serde_json::from_slice(body).map(|Refusal { error }| error);
            let why = refusal.unwrap_or_else(|_| "an answer that is none of the API".to_owned());
            return Ended::Later(format!("the daemon refuses ({status}): {why}"));
        }
        match serde_json::from_slice(body) {
            Err(error) => Ended::Later(format!("the answer of the daemon: {error}")),
            Ok(Removed { outcome: Outcome::Succeeded, .. }) => Ended::Gone,
            Ok(_) if self.dry_run => Ended::Later("a dry run: nothing was done".to_owned()),
            Ok(Removed { outcome: Outcome::Forgotten, .. }) => Ended::Gone,
            Ok(Removed { quarantine_s, .. }) => {
                Ended::Removed { quarantine: Duration::from_secs(quarantine_s) }
            }
        }
    }
}

fn post(
    socket: &Path,
    path: &str,
    body: &[u8],
    limit: Duration,
) -> Result<client::Response, ClientError> {
    client::request(socket, "POST", path, &[body], times::deadline(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_the_daemon_has_its_outcome() {
        let ender = |dry_run| Ender { socket: PathBuf::new(), limit: Duration::ZERO, dry_run };
        let read = |status, body: &str| ender(false).read(status, body.as_bytes());
        let removed = Ended::Removed { quarantine: Duration::from_secs(300) };
        for outcome in ["removed", "alreadyRemoved"] {
            let body = format!(r#"{{"node":"n","outcome":"{outcome}","quarantineS":300}}"#);
            assert_eq!(read(200, &body), removed);
            assert!(matches!(ender(true).read(200, body.as_bytes()), Ended::Later(_)));
        }
        for outcome in ["forgotten", "succeeded"] {
            assert_eq!(read(200, &format!(r#"{{"outcome":"{outcome}"}}"#)), Ended::Gone);
        }
        let Ended::Later(why) = read(409, r#"{"error":"node n is still running"}"#) else {
            panic!("it is refused");
        };
        assert_eq!(why, "the daemon refuses (409): node n is still running");
        for (status, body) in [(200, "{}"), (200, r#"{"outcome":"new"}"#), (503, ""), (404, "x")] {
            assert!(matches!(read(status, body), Ended::Later(_)), "{status} {body}");
        }
    }
}
