//! Reads what host-local holds on this node: a file for each address, with the container and its
//! interface. A node that changes from host-local to Leasehold has containers whose addresses are
//! only there, and would be handed out again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::AppState;
use super::outcome::{execute, explain};
use crate::cni::error::{Code, Error};
use crate::core::attachment::{AttachmentId, Netns};
use crate::core::container_id::ContainerId;
use crate::core::coordinator::{Add, Call, Outcome};
use crate::core::range::Ranges;
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
    /// The file of host-local that says so, if one does.
    pub file: Option<PathBuf>,
    /// Its pod, if that is known.
    pub pod: Option<Pod>,
}

/// The pod of a container that another plugin served.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pod {
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Pod {
    /// Returns the `CNI_ARGS` with which a runtime names it.
    pub fn cni_args(&self) -> String {
        format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={}", self.namespace, self.name)
    }
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
            let file = Some(file.path());
            let pod = None;
            entries.push(Entry { container_id, ifname, address, of_this_boot, file, pod });
        }
    }
    entries.sort();
    Ok(entries)
}

/// The networks in whose directories nothing is left to be taken over.
#[derive(Clone, Default, Debug)]
pub struct Foreign(Arc<Mutex<BTreeSet<Arc<str>>>>);

/// The ADD that is to be admitted.
#[derive(Debug)]
pub struct Asking<'a> {
    /// Its attachment.
    pub id: &'a AttachmentId,
    /// The network out of whose pool it is served.
    pub pool: &'a Arc<str>,
    /// Its ranges.
    pub sets: &'a [Arc<Ranges>],
    /// The addresses that it asks for.
    pub requested: &'a [IpAddr],
    /// The directory of host-local's directories, if not the usual one.
    pub data_dir: Option<PathBuf>,
}

impl Foreign {
    /// Admits an ADD on a network if host-local holds nothing there for containers of this boot
    /// that this node does not hold too, or if the ADD takes over just that. What is there is taken
    /// over first, if the operator wants that ([`Policy::import_host_local`]).
    ///
    /// # Errors
    /// The ADD must wait until the addresses are taken over; the error names the command.
    ///
    /// [`Policy::import_host_local`]: super::Policy::import_host_local
    pub async fn admit(&self, node: &AppState, add: &Asking<'_>) -> Result<(), Error> {
        let network = &add.id.network;
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(network) {
            return Ok(());
        }
        let parent = add.data_dir.clone().unwrap_or_else(|| DIR_DEFAULT.into());
        let dir = parent.join(&**network);
        let waiting = waiting(node, network, &dir).await?;
        if waiting.is_empty() {
            self.nothing_left(network);
            return Ok(());
        }
        let own = |entry: &&Entry| {
            add.id.container_id == ContainerId::from(&*entry.container_id)
                && *add.id.ifname == *entry.ifname
        };
        let mut own = waiting.iter().filter(own).peekable();
        if own.peek().is_some() && own.all(|entry| add.requested.contains(&entry.address)) {
            return Ok(());
        }
        if node.policy.import_host_local {
            import(node, add, &waiting).await?;
            self.nothing_left(network);
            return Ok(());
        }
        let count = waiting.len();
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

    fn nothing_left(&self, network: &Arc<str>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < limits::WARNED_NETWORKS_MAX {
            all.insert(network.clone());
        }
    }
}

/// The addresses that host-local holds in a directory for containers of this boot, and this node
/// does not.
async fn waiting(node: &AppState, network: &Arc<str>, dir: &Path) -> Result<Vec<Entry>, Error> {
    let of = dir.to_owned();
    let mut entries = match tokio::task::spawn_blocking(move || read(&of)).await {
        Ok(Ok(entries)) => entries,
        Ok(Err(error)) => return Err(unreadable(dir, &error.to_string())),
        Err(error) => return Err(unreadable(dir, &error.to_string())),
    };
    entries.retain(|entry| {
        entry.of_this_boot && {
            let held = node.index.find(&attachment(network, entry));
            !held.is_some_and(|holding| holding.addresses.contains(&entry.address))
        }
    });
    Ok(entries)
}

fn attachment(network: &Arc<str>, entry: &Entry) -> AttachmentId {
    AttachmentId {
        network: network.clone(),
        container_id: entry.container_id.as_str().into(),
        ifname: entry.ifname.as_str().into(),
    }
}

/// Takes over what host-local holds, container by container, and removes its files.
async fn import(node: &AppState, add: &Asking<'_>, waiting: &[Entry]) -> Result<(), Error> {
    let mut containers: BTreeMap<AttachmentId, Vec<&Entry>> = BTreeMap::new();
    for entry in waiting {
        containers.entry(attachment(&add.id.network, entry)).or_default().push(entry);
    }
    for (id, entries) in containers {
        let requested: Vec<IpAddr> = entries.iter().map(|entry| entry.address).collect();
        let is_in = |at: &IpAddr| add.sets.iter().any(|set| set.find_address(*at).is_some());
        if let Some(outside) = requested.iter().find(|at| !is_in(at)) {
            let why = format!("{outside} is in none of the network's ranges");
            return Err(cannot_take_over(&id, &why));
        }
        let has = |set: &&Arc<Ranges>| requested.iter().any(|&at| set.find_address(at).is_some());
        let call = Call::Add(Box::new(Add {
            id: id.clone(),
            pool: add.pool.clone(),
            sets: add.sets.iter().filter(has).cloned().collect(),
            requested,
            stage: None,
            pod: None,
            netns: Netns::default(),
            started_at: None,
            waited_since: None,
            at: clock::unix(),
        }));
        if let Outcome::Failed(error) = execute(node, call).await.await {
            return Err(cannot_take_over(&id, &explain(error).msg));
        }
        for file in entries.iter().filter_map(|entry| entry.file.as_ref()) {
            // It is held now, so a file that stays does no harm.
            if let Err(error) = fs::remove_file(file) {
                tracing::warn!(file = %file.display(), %error, "host-local's file stays");
            }
        }
        tracing::info!(
            network = &*id.network,
            container = &*id.container_id.to_text(),
            ifname = &*id.ifname,
            "taken over from host-local"
        );
    }
    Ok(())
}

fn cannot_take_over(id: &AttachmentId, why: &str) -> Error {
    let container = &id.container_id;
    let msg = format!("host-local's container {container} cannot be taken over: {why}");
    Error::new(Code::TryAgain, msg).with_details(
        "see all that is there: leasehold import host-local --dry-run; remove its file if the \
         container is gone",
    )
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
