//! Reads what host-local holds on this node: a file for each address, with the container and its
//! interface. A node that changes from host-local to Leasehold has containers whose addresses are
//! only there, and would be handed out again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::AppState;
use crate::cni::error::{Code, Error};
use crate::core::attachment::AttachmentId;
use crate::core::container_id::ContainerId;
use crate::{clock, files, limits};

/// The directory in which host-local keeps its files unless `dataDir` says otherwise: it has a
/// directory for each network.
pub const DIR_DEFAULT: &str = "/var/lib/cni/networks";

/// The text that an import gives for the namespace of a container: host-local knows none.
pub const NETNS_UNKNOWN: &str = "unknown";

/// One address that host-local holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The container.
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
    /// The address.
    pub address: IpAddr,
    /// True if the file is of this boot. A container of an earlier boot is gone.
    pub of_this_boot: bool,
    /// The file.
    pub file: PathBuf,
}

/// The addresses that host-local holds in the directory of one network; none if there is no
/// directory. Files that are not about an address are passed over.
///
/// # Errors
/// The directory or a file cannot be read, or there are too many of them.
pub fn read(dir: &Path) -> io::Result<Vec<Entry>> {
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut entries = Vec::new();
    for (index, file) in listed.enumerate() {
        if index >= limits::FOREIGN_FILES_MAX {
            return Err(io::Error::other("too many files"));
        }
        let file = file?;
        let name = file.file_name();
        let address = name.to_str().and_then(|name| name.parse::<IpAddr>().ok());
        let about = file.metadata()?;
        let (Some(address), true) = (address, about.is_file()) else { continue };
        let mut text = String::new();
        files::open(&file.path(), files::options().read(true))?
            .take(limits::FOREIGN_FILE_BYTES_MAX)
            .read_to_string(&mut text)?;
        // Old versions wrote the container alone.
        let mut lines = text.lines().map(str::trim);
        let container_id = lines.next().unwrap_or_default().to_owned();
        let ifname = lines.next().filter(|name| !name.is_empty()).unwrap_or("eth0").to_owned();
        let of_this_boot = about.modified().is_ok_and(clock::is_of_this_boot);
        if !container_id.is_empty() {
            entries.push(Entry { container_id, ifname, address, of_this_boot, file: file.path() });
        }
    }
    entries.sort();
    Ok(entries)
}

/// The networks in whose directories nothing is left to be taken over.
#[derive(Clone, Default, Debug)]
pub struct Foreign(Arc<Mutex<BTreeSet<Arc<str>>>>);

impl Foreign {
    /// Admits an ADD on a network if host-local holds nothing there for containers of this boot
    /// that this node does not hold too, or if the ADD takes over just that.
    ///
    /// # Errors
    /// The ADD must wait until the addresses are taken over; the error names the command.
    pub async fn admit(
        &self,
        node: &AppState,
        id: &AttachmentId,
        asked: &[IpAddr],
        data_dir: Option<PathBuf>,
    ) -> Result<(), Error> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id.network) {
            return Ok(());
        }
        let parent = data_dir.unwrap_or_else(|| DIR_DEFAULT.into());
        let dir = parent.join(&*id.network);
        let of = dir.clone();
        let read = tokio::task::spawn_blocking(move || read(&of)).await;
        let entries = match read {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => return Err(unreadable(&dir, &error.to_string())),
            Err(error) => return Err(unreadable(&dir, &error.to_string())),
        };
        let waits = |entry: &&Entry| {
            entry.of_this_boot && {
                let of = AttachmentId {
                    network: id.network.clone(),
                    container_id: entry.container_id.as_str().into(),
                    ifname: entry.ifname.as_str().into(),
                };
                let held = node.index.find(&of);
                !held.is_some_and(|holding| holding.addresses.contains(&entry.address))
            }
        };
        let waiting: Vec<&Entry> = entries.iter().filter(waits).collect();
        if waiting.is_empty() {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() < limits::WARNED_NETWORKS_MAX {
                all.insert(id.network.clone());
            }
            return Ok(());
        }
        let own = |entry: &&&Entry| {
            id.container_id == ContainerId::from(&*entry.container_id)
                && *id.ifname == *entry.ifname
        };
        let mut own = waiting.iter().filter(own).peekable();
        if own.peek().is_some() && own.all(|entry| asked.contains(&entry.address)) {
            return Ok(());
        }
        let (count, network) = (waiting.len(), &id.network);
        let msg = format!(
            "host-local holds {count} addresses of network {network} for containers of this boot \
             (files in {}), and they would be handed out again",
            dir.display()
        );
        Err(Error::new(Code::TryAgain, msg).with_details(format!(
            "take them over on this node: leasehold import host-local {}; or remove the files of \
             containers that are gone",
            parent.display()
        )))
    }
}

fn unreadable(dir: &Path, cause: &str) -> Error {
    let msg = format!("cannot see what host-local holds in {}: {cause}", dir.display());
    let details = "its addresses might be handed out again: make the directory readable, or \
                   remove it if no container has an address of host-local";
    Error::new(Code::TryAgain, msg).with_details(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_host_local_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("10.9.0.2", "c1\r\neth0");
        write("fd00::2", "c1\r\neth0");
        write("10.9.0.3", "old");
        write("10.9.0.4", "");
        write("last_reserved_ip.0", "10.9.0.3");
        write("lock", "");
        fs::create_dir(dir.path().join("10.9.0.9")).unwrap();
        let found = read(dir.path()).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|e| format!("{} {} {} {}", e.container_id, e.ifname, e.address, e.of_this_boot))
            .collect();
        assert_eq!(
            shown,
            ["c1 eth0 10.9.0.2 true", "c1 eth0 fd00::2 true", "old eth0 10.9.0.3 true"]
        );
        assert_eq!(read(&dir.path().join("none")).unwrap(), []);
    }
}
