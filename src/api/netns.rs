//! The network namespace at a path.

use std::num::NonZeroU32;

use rustix::fs::{stat, statfs};

use super::foreign::NETNS_UNKNOWN;
use crate::core::attachment::Netns;
use crate::limits;

/// The type of the file system of namespaces (`statfs`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The inode number of the first process namespace: a process in it sees every process.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The places where runtimes have namespaces, and where looking never waits for a disk or a
/// network. A namespace elsewhere is not looked at while an ADD waits.
const QUICK_PLACES: [&str; 3] = ["/run/", "/var/run/", "/proc/"];

/// The namespace that a runtime named, as it is when its ADD comes.
pub(super) fn named(path: Box<str>) -> Netns {
    if path.len() > limits::NETNS_BYTES_MAX || &*path == NETNS_UNKNOWN {
        return Netns::default();
    }
    let quick = QUICK_PLACES.iter().any(|place| path.starts_with(place));
    let inode = if quick { inode(&path) } else { None };
    // Numbers of namespaces have 32 bits.
    let inode = inode.and_then(|inode| u32::try_from(inode).ok()).and_then(NonZeroU32::new);
    Netns { path, inode }
}

/// Returns whether a namespace is there: the very one that was there at its ADD.
pub fn is_there(netns: &Netns) -> bool {
    netns.inode.is_some_and(|known| inode(&netns.path) == Some(u64::from(known.get())))
}

/// Returns whether this process sees every process of the machine, by its right number.
pub fn sees_every_process() -> bool {
    stat("/proc/self/ns/pid").is_ok_and(|own| own.st_ino == FIRST_PID_NAMESPACE)
}

/// The inode number of the namespace at a path, if there is one.
pub(super) fn inode(path: &str) -> Option<u64> {
    let at = |path: &str| {
        let of_namespaces = statfs(path).is_ok_and(|found| is_nsfs(&found));
        of_namespaces.then(|| stat(path).ok().map(|found| found.st_ino)).flatten()
    };
    at(path).or_else(|| at(&other_name(path)?))
}

/// The other name of what is at a path below `/run`: on a host, `/var/run` is the same directory,
/// but a daemon in a container may have one of them only.
pub(super) fn other_name(path: &str) -> Option<String> {
    match path.strip_prefix("/var/run/") {
        Some(rest) => Some(format!("/run/{rest}")),
        None => path.strip_prefix("/run/").map(|rest| format!("/var/run/{rest}")),
    }
}

fn is_nsfs(found: &rustix::fs::StatFs) -> bool {
    u64::try_from(found.f_type).is_ok_and(|kind| kind == NSFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_too_long_are_not_kept() {
        let long = format!("/run/{}", "n".repeat(limits::NETNS_BYTES_MAX));
        assert_eq!(named(long.into()), Netns::default());
    }

    #[test]
    fn a_path_below_run_has_two_names() {
        assert_eq!(other_name("/var/run/netns/a").as_deref(), Some("/run/netns/a"));
        assert_eq!(other_name("/run/netns/a").as_deref(), Some("/var/run/netns/a"));
        assert_eq!((other_name("/runs/a"), other_name("/proc/1/ns/net")), (None, None));
    }
}
