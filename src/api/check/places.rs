//! The directories in which the runtimes of this node have their network namespaces, as they were
//! when one was seen there last.
//!
//! When the last one there is gone, nothing in the directory shows that this daemon sees what its
//! host has. But as long as it is the very same directory, what is not in it is gone. A daemon that
//! is started anew elsewhere, such as in a container, may have another directory by that name.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use crate::api::netns::other_name;
use crate::{files, limits};

/// A directory: the numbers of its file system, its own number, and when it was made, since the
/// number may be used again.
type Directory = (u32, u32, u64, i64, u32);

/// The directories of this boot. Numbers of file systems have no meaning in another one.
#[derive(Clone, Debug)]
pub struct Places {
    file: PathBuf,
    known: Arc<Mutex<Written>>,
}

#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Written {
    boot_id: String,
    places: BTreeMap<String, Directory>,
}

impl Places {
    /// Reads what an earlier daemon of this boot knew.
    pub fn open(file: PathBuf, boot_id: &str) -> Self {
        let text = files::read(&file, limits::PLACES_FILE_BYTES_MAX).unwrap_or_default();
        let known = serde_json::from_slice(&text).ok();
        let known = known.filter(|known: &Written| known.boot_id == boot_id);
        let none = || Written { boot_id: boot_id.to_owned(), places: BTreeMap::new() };
        Self { file, known: Arc::new(Mutex::new(known.unwrap_or_else(none))) }
    }

    /// Returns whether nothing is known of a place, and there is room for it.
    pub(in crate::api) fn is_new(&self, place: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.places.len() < limits::PLACES_MAX && !known.places.contains_key(place)
    }

    /// Takes in that a namespace is seen in a place. It may write a file.
    pub(in crate::api) fn observe(&self, place: &str) {
        let Some(directory) = directory(place) else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let full = known.places.len() >= limits::PLACES_MAX && !known.places.contains_key(place);
        if full || known.places.get(place) == Some(&directory) {
            return;
        }
        known.places.insert(place.to_owned(), directory);
        if let Err(error) = self.save(&known) {
            tracing::warn!(file = %self.file.display(), %error, "cannot be written");
        }
    }

    /// Returns whether a place is the directory in which a namespace was seen.
    pub(super) fn is_same(&self, place: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.places.get(place).is_some_and(|then| directory(place) == Some(*then))
    }

    fn save(&self, known: &Written) -> io::Result<()> {
        files::replace(&self.file, &serde_json::to_vec(known)?)
    }
}

fn directory(place: &str) -> Option<Directory> {
    let look = |path: &str| {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = statx(CWD, path, AtFlags::empty(), wanted).ok()?;
        let made = found.stx_btime;
        let file_system = (found.stx_dev_major, found.stx_dev_minor);
        Some((file_system.0, file_system.1, found.stx_ino, made.tv_sec, made.tv_nsec))
    };
    look(place).or_else(|| look(&other_name(place)?))
}

/// Returns the place of a namespace: its directory, or `/proc` for those of processes. `/var/run`
/// and `/run` are one.
pub(in crate::api) fn place(path: &str) -> String {
    if path.starts_with("/proc/") {
        return "/proc".to_owned();
    }
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    match directory.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}"),
        None if directory.is_empty() => "/".to_owned(),
        None => directory.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_of_the_same_name_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, place) = (dir.path().join("places.json"), dir.path().join("netns"));
        let name = place.to_str().unwrap();
        fs::create_dir(&place).unwrap();
        let places = Places::open(file.clone(), "boot");
        assert!(places.is_new(name) && !places.is_same(name));
        places.observe(name);
        assert!(places.is_same(name) && !places.is_new(name));
        // The next daemon knows it, in this boot.
        assert!(Places::open(file.clone(), "boot").is_same(name));
        assert!(!Places::open(file.clone(), "another").is_same(name));
        fs::rename(&place, dir.path().join("aside")).unwrap();
        assert!(!places.is_same(name), "it is not there");
        fs::create_dir(&place).unwrap();
        assert!(!places.is_same(name), "it is another one");
        places.observe(name);
        assert!(Places::open(file, "boot").is_same(name));
    }

    #[test]
    fn both_names_of_run_are_one_place() {
        assert_eq!(place("/var/run/netns/a"), place("/run/netns/b"));
        assert_eq!(place("/proc/7/ns/net"), "/proc");
        assert_eq!((place("/a"), place("a")), ("/".to_owned(), "/".to_owned()));
    }
}
