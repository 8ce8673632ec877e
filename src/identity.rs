//! The identity of a state directory and the name of its node.
//!
//! Blocks belong to the identity, not to the name. It is kept in two places: in the state
//! directory, and beside the socket, in a file that the daemon keeps locked for its whole life. So
//! a state directory that was lost while the machine ran gets its identity back: a daemon that has
//! the lock on the file that names an identity knows that no other daemon of it lives. A new
//! directory without such a file, on another machine or beside another socket, is another identity,
//! also if it has the same name.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::files;

/// The identity of the daemon.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The node's name.
    pub(crate) node: String,
    /// The identity of the state directory.
    pub(crate) id: String,
    /// Locked for as long as the daemon runs.
    _beside_socket: File,
}

/// The content of both files.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
struct Written {
    node: String,
    id: String,
    /// Beside the socket: the boot in which it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot_id: Option<String>,
}

/// The longest file that is read, in bytes: nobody writes these files by hand, so they are short.
const BYTES_MAX: u64 = 4096;

impl Identity {
    /// Finds out who this daemon is, and writes it down. The state directory must be locked.
    ///
    /// # Errors
    /// The state directory is another node's; another daemon has the socket; a file cannot be read
    /// or written.
    pub(crate) fn claim(config: &Config) -> anyhow::Result<Self> {
        let in_state = config.state_dir.join("identity.json");
        let mut beside = lock(&beside_socket(&config.socket))?;
        let (node, id) = match read(&in_state)? {
            Some(Written { node, id, .. }) => {
                check_name(config, &node)?;
                (node, id)
            }
            None => {
                let lost = read_marker(&mut beside)?.filter(|marker| {
                    marker.boot_id.as_deref() == Some(&config.boot_id)
                        && (!config.node_is_given || marker.node == config.node)
                });
                let id = || new_id().context("a new identity");
                let (node, id) = match lost {
                    Some(Written { node, id, .. }) => (node, id),
                    None => (config.node.clone(), id()?),
                };
                let written = Written { node: node.clone(), id: id.clone(), boot_id: None };
                write(&in_state, &written)
                    .with_context(|| format!("file {}", in_state.display()))?;
                (node, id)
            }
        };
        let boot_id = Some(config.boot_id.clone());
        let marker = Written { node: node.clone(), id: id.clone(), boot_id };
        write_marker(&mut beside, &marker).context("the file of the identity beside the socket")?;
        Ok(Self { node, id, _beside_socket: beside })
    }
}

/// The name of a state directory stays what it is.
fn check_name(config: &Config, node: &str) -> anyhow::Result<()> {
    let (dir, wanted) = (config.state_dir.display(), &config.node);
    if config.node_is_given {
        anyhow::ensure!(
            node == wanted,
            "state directory {dir} is of node {node}, and the options say node {wanted}: leave \
             --node out, or say --node {node}. To make this machine a new node, drain and remove \
             {node} (leasehold drain {node}, leasehold node remove {node}) and start with an empty \
             state directory"
        );
    } else if node != wanted {
        tracing::warn!(
            node,
            host = wanted.as_str(),
            "the host has another name now; the node keeps the name of its state directory"
        );
    }
    Ok(())
}

fn beside_socket(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".identity");
    name.into()
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut options = files::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = files::open(path, options).with_context(|| format!("file {}", path.display()))?;
    anyhow::ensure!(
        file.try_lock().is_ok(),
        "another daemon has {} locked, and so its socket: choose another with --socket",
        path.display()
    );
    Ok(file)
}

fn read(path: &Path) -> anyhow::Result<Option<Written>> {
    let about = || format!("file {}", path.display());
    let text = match files::read(path, BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(about),
    };
    let read = serde_json::from_slice(&text).with_context(|| {
        format!("{}: it says which node this state directory is, and is damaged", about())
    })?;
    Ok(Some(read))
}

/// Reads what an earlier daemon wrote beside the socket; nothing if that cannot be read.
fn read_marker(file: &mut File) -> anyhow::Result<Option<Written>> {
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).ok())
}

fn write_marker(file: &mut File, marker: &Written) -> std::io::Result<()> {
    let text = serde_json::to_string(marker)?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{text}")
}

/// Writes such that a power cut leaves all of it or nothing.
fn write(path: &Path, written: &Written) -> std::io::Result<()> {
    files::replace(path, format!("{}\n", serde_json::to_string(written)?).as_bytes())
}

fn new_id() -> std::io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}
