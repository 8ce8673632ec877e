//! Reads what host-local holds on this node: a file for each address, with the container and its
//! interface. A node that changes from host-local to Leasehold has containers whose addresses are
//! only there, and would be handed out again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

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

/// The knowledge of host-local's directories.
#[derive(Clone, Debug)]
pub struct Foreign {
    file: PathBuf,
    seen: Arc<Mutex<Memory>>,
}

/// A file of host-local that is of no importance any longer, although it could not be removed: its
/// container was taken over, or is gone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Settled {
    file: PathBuf,
    container_id: String,
    ifname: String,
}

#[derive(Default, Debug)]
struct Memory {
    /// The directories in which nothing is left to be taken over, as they were then.
    nothing_left: BTreeMap<PathBuf, Look>,
    settled: BTreeSet<Settled>,
}

/// A look into a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Look {
    dir: PathBuf,
    /// The time of its last change; none, if there is no directory.
    changed: Option<SystemTime>,
    /// True if no file there counts, not even one of a container that this node holds.
    is_empty: bool,
}

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
    /// False if nothing may be changed: the ADD is one of which a STATUS asks.
    pub takes_over: bool,
}

impl Foreign {
    /// Reads which files are settled, if the file that says so is there.
    pub fn open(file: PathBuf) -> Self {
        let text = files::read(&file, limits::SETTLED_FILE_BYTES_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let read = |line: &str| {
            let mut parts = line.splitn(3, '\t').map(str::to_owned);
            let (container_id, ifname) = (parts.next()?, parts.next()?);
            Some(Settled { container_id, ifname, file: parts.next()?.into() })
        };
        let settled: BTreeSet<Settled> = text.lines().filter_map(read).collect();
        let seen = Memory { settled, ..Memory::default() };
        Self { file, seen: Arc::new(Mutex::new(seen)) }
    }

    fn seen(&self) -> MutexGuard<'_, Memory> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
        let parent = add.data_dir.clone().unwrap_or_else(|| DIR_DEFAULT.into());
        let dir = parent.join(&**network);
        let Some(look) = self.inspect(&dir, |_| true).await else { return Ok(()) };
        let (is_empty, waiting) = self.waiting(node, network, &dir).await?;
        if waiting.is_empty() {
            self.nothing_left(Look { is_empty, ..look });
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
            return self.import(node, add, &waiting).await;
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

    /// Forgets what host-local holds for an attachment that a DEL has ended, as host-local's own
    /// DEL would: its container may never have been taken over.
    pub async fn end(&self, id: &AttachmentId, data_dir: Option<PathBuf>) {
        let parent = data_dir.unwrap_or_else(|| DIR_DEFAULT.into());
        let dir = parent.join(&*id.network);
        let Some(look) = self.inspect(&dir, |seen| seen.is_empty).await else { return };
        let of = dir.clone();
        let entries = match tokio::task::spawn_blocking(move || read(&of)).await {
            Ok(Ok(entries)) if entries.iter().all(|entry| self.is_settled(entry)) => {
                return self.nothing_left(Look { is_empty: true, ..look });
            }
            Ok(Ok(entries)) => entries,
            // The next ADD is refused for it.
            _ => return,
        };
        let is_of = |entry: &&Entry| {
            id.container_id == ContainerId::from(&*entry.container_id)
                && *id.ifname == *entry.ifname
        };
        self.remove(entries.iter().filter(is_of)).await;
    }

    /// Removes files whose containers were taken over or are gone. What stays is settled.
    async fn remove(&self, entries: impl Iterator<Item = &Entry>) {
        let mut stays = false;
        for entry in entries {
            let Some(file) = entry.file.clone() else { continue };
            let Err(error) = fs::remove_file(&file) else { continue };
            if error.kind() == io::ErrorKind::NotFound {
                continue;
            }
            let path = file.display().to_string();
            let (container_id, ifname) = (entry.container_id.clone(), entry.ifname.clone());
            let mut known = self.seen();
            if known.settled.len() >= limits::SETTLED_MAX {
                // Somebody has removed the others.
                known.settled.retain(|of| of.file.exists());
            }
            if known.settled.len() < limits::SETTLED_MAX {
                known.settled.insert(Settled { file, container_id, ifname });
                stays = true;
            }
            tracing::warn!(file = path, %error, "host-local's file stays, and counts no longer");
        }
        if stays {
            self.save().await;
        }
    }

    /// Writes which files are settled, for the daemon that comes after this one.
    async fn save(&self) {
        let line = |of: &Settled| {
            let Settled { container_id, ifname, file } = of;
            format!("{container_id}\t{ifname}\t{}\n", file.display())
        };
        let text: String = self.seen().settled.iter().map(line).collect();
        files::remember(&self.file, text.into_bytes()).await;
    }

    /// Begins a look into a directory, unless it is as it was when nothing was left there, and
    /// that suffices.
    async fn inspect(&self, dir: &Path, suffices: impl Fn(&Look) -> bool) -> Option<Look> {
        let about = match dir.starts_with(DIR_DEFAULT) {
            true => fs::metadata(dir),
            // It may be on a file system that lets one wait.
            false => tokio::fs::metadata(dir).await,
        };
        let changed = match about {
            Ok(about) => about.modified().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // A look says what is wrong.
            Err(_) => Some(SystemTime::UNIX_EPOCH),
        };
        let is_known = |seen: &Look| seen.changed == changed && suffices(seen);
        let is_known = self.seen().nothing_left.get(dir).is_some_and(is_known);
        (!is_known).then(|| Look { dir: dir.to_owned(), changed, is_empty: false })
    }

    /// Remembers that a look has found nothing. A file that comes within the resolution of the
    /// directory's time would not be noticed, so a fresh directory is looked at again.
    fn nothing_left(&self, look: Look) {
        let is_fresh = |at: SystemTime| at.elapsed().is_ok_and(|age| age < limits::FOREIGN_FRESH);
        let mut known = self.seen();
        let has_room = known.nothing_left.len() < limits::WARNED_NETWORKS_MAX
            || known.nothing_left.contains_key(&look.dir);
        if has_room && !look.changed.is_some_and(is_fresh) {
            known.nothing_left.insert(look.dir.clone(), look);
        }
    }

    /// Returns whether a file is of no importance any longer.
    fn is_settled(&self, entry: &Entry) -> bool {
        let Some(file) = entry.file.clone() else { return false };
        let (container_id, ifname) = (entry.container_id.clone(), entry.ifname.clone());
        self.seen().settled.contains(&Settled { file, container_id, ifname })
    }

    /// Returns whether all these files are of no importance any longer; false without one.
    pub fn are_settled(&self, files: &[PathBuf], id: &AttachmentId) -> bool {
        let known = self.seen();
        let is_settled = |file: &PathBuf| {
            known.settled.contains(&Settled {
                file: file.clone(),
                container_id: id.container_id.to_string(),
                ifname: id.ifname.to_string(),
            })
        };
        !files.is_empty() && files.iter().all(is_settled)
    }

    /// The addresses that host-local holds in a directory for containers of this boot, and this
    /// node does not; and whether no file there counts at all.
    async fn waiting(
        &self,
        node: &AppState,
        network: &Arc<str>,
        dir: &Path,
    ) -> Result<(bool, Vec<Entry>), Error> {
        let of = dir.to_owned();
        let mut entries = match tokio::task::spawn_blocking(move || read(&of)).await {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => return Err(unreadable(dir, &error.to_string())),
            Err(error) => return Err(unreadable(dir, &error.to_string())),
        };
        entries.retain(|entry| !self.is_settled(entry));
        let is_empty = entries.is_empty();
        entries.retain(|entry| {
            entry.of_this_boot && {
                let held = node.index.find(&attachment(network, entry));
                !held.is_some_and(|holding| holding.addresses.contains(&entry.address))
            }
        });
        Ok((is_empty, entries))
    }

    /// Takes over what host-local holds, container by container, and removes its files.
    async fn import(
        &self,
        node: &AppState,
        add: &Asking<'_>,
        waiting: &[Entry],
    ) -> Result<(), Error> {
        let mut containers: BTreeMap<AttachmentId, Vec<&Entry>> = BTreeMap::new();
        for entry in waiting {
            let id = attachment(&add.id.network, entry);
            let is_in = |set: &Arc<Ranges>| set.find_address(entry.address).is_some();
            if !add.sets.iter().any(is_in) {
                let why = format!("{} is in none of the network's ranges", entry.address);
                return Err(cannot_take_over(&id, &why));
            }
            containers.entry(id).or_default().push(entry);
        }
        if !add.takes_over {
            return Ok(());
        }
        for (id, entries) in containers {
            take_over(node, add, &id, &entries).await?;
            self.remove(entries.into_iter()).await;
            tracing::info!(
                network = &*id.network,
                container = &*id.container_id.to_text(),
                ifname = &*id.ifname,
                "taken over from host-local"
            );
        }
        Ok(())
    }
}

fn attachment(network: &Arc<str>, entry: &Entry) -> AttachmentId {
    AttachmentId {
        network: network.clone(),
        container_id: entry.container_id.as_str().into(),
        ifname: entry.ifname.as_str().into(),
    }
}

/// Takes over the addresses of one container.
async fn take_over(
    node: &AppState,
    add: &Asking<'_>,
    id: &AttachmentId,
    entries: &[&Entry],
) -> Result<(), Error> {
    let requested: Vec<IpAddr> = entries.iter().map(|entry| entry.address).collect();
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
    match execute(node, call).await.await {
        Outcome::Failed(error) => Err(cannot_take_over(id, &explain(error).msg)),
        Outcome::Added(_) | Outcome::Ended(_) => Ok(()),
    }
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
