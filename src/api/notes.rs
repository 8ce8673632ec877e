//! DELs that plugins left as notes while nobody answered: acted on before anything is served, and
//! again now and then, since a note may also come from a connection that broke.

use std::fs;
use std::io;
use std::path::Path;

use super::AppState;
use crate::cni::error::{Code, Error};
use crate::cni::parse::parse;
use crate::cni::request::Body;
use crate::core::attachment::AttachmentId;
use crate::core::coordinator::{Call, Del, HoldingSelector, Outcome};
use crate::core::time::StartTime;
use crate::{clock, files, limits, metrics};

/// Acts on every note, oldest first. What cannot be acted on now stays for the next time; what
/// never can be is set aside.
pub async fn act_on(node: &AppState, dir: &Path) {
    let notes = match list(dir) {
        Ok(notes) => notes,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "notes cannot be read");
            return;
        }
    };
    for path in notes {
        let body = match files::read(&path, limits::BODY_BYTES_MAX as u64) {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(note = %path.display(), %error, "note cannot be read");
                // A link, a pipe, or far too long: no plugin left it.
                if error.kind() == io::ErrorKind::Other {
                    metrics::count_note("unreadable");
                    set_aside(&path);
                }
                continue;
            }
        };
        match act(node, &body).await {
            Ok(()) => {
                metrics::count_note("ok");
                remove(&path);
            }
            Err(error) if never(error.code) => {
                metrics::count_note("unreadable");
                tracing::error!(
                    note = %path.display(),
                    error = error.msg,
                    "note set aside: it names no attachment"
                );
                set_aside(&path);
            }
            Err(error) => {
                metrics::count_note("failed");
                tracing::warn!(note = %path.display(), error = error.msg, "note not acted on yet");
            }
        }
    }
}

/// Returns whether a note that fails so can never be acted on: it names no attachment.
fn never(code: Code) -> bool {
    matches!(code, Code::Decode | Code::Config | Code::Environment)
}

/// The notes in the order in which they were left: their names begin with a start time.
fn list(dir: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        if !name.starts_with('.') && name.ends_with(".json") {
            let started: u64 =
                name.split('-').next().and_then(|at| at.parse().ok()).unwrap_or_default();
            notes.push((started, path));
        }
    }
    notes.sort_unstable();
    Ok(notes.into_iter().map(|(_, path)| path).collect())
}

async fn act(node: &AppState, body: &[u8]) -> Result<(), Error> {
    let request = parse(body)?;
    let (Body::Del(del), Some(at)) = (request.body, request.started_at) else {
        return Err(Error::new(Code::Decode, "not a DEL of the plugin"));
    };
    let id = AttachmentId {
        network: request.network,
        container_id: del.id.container_id,
        ifname: del.id.ifname,
    };
    // A time that is yet to come was told by the clock of an earlier boot: such a DEL means what
    // was held before this boot, and nothing of it.
    let at = if at > clock::start() { StartTime::BOOT } else { at };
    let selector =
        if request.undo { HoldingSelector::MadeBy(at) } else { HoldingSelector::StartedBy(at) };
    match node.machines.execute(Call::Del(Del { id: id.clone(), selector })).await {
        Outcome::Failed(error) => Err(super::outcome::explain(error)),
        _ => {
            if !request.undo {
                node.foreign.end(&id, del.data_dir).await;
            }
            Ok(())
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(note = %path.display(), %error, "note cannot be removed");
    }
}

fn set_aside(path: &Path) {
    if let Err(error) = fs::rename(path, path.with_extension("unreadable")) {
        tracing::warn!(note = %path.display(), %error, "note cannot be set aside");
    }
}
