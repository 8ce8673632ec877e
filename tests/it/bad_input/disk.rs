//! A full disk: ADDs fail with code 5 and the cause, the node says that it is not ready, and the
//! calls that were answered before still count after the disk has room again and the daemon was
//! restarted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{assert_refused, config};
use crate::common::{Call, Client, Daemon, Options, Outcome, poll};

/// The size of the small disk, in MiB.
const DISK_MIB: u32 = 4;
/// More ADDs than a disk of this size has room for beside the ballast.
const ADDS_MAX: usize = 20_000;

/// A small disk, mounted for as long as this value is there.
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        Self::of_size(DISK_MIB)
    }

    /// Mounts a disk of this size.
    pub(crate) fn of_size(mib: u32) -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "leasehold-it"])
            .arg(dir.path())
            .output()
            .expect("the program mount (Debian's package mount)");
        let stderr = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "this test mounts a tmpfs, run it as root: {stderr}");
        Self { dir }
    }

    /// Has this state directory be on the disk.
    pub(crate) fn hold(&self, state: &Path) {
        let inside = self.dir.path().join("state");
        fs::create_dir(&inside).expect("a directory on the small disk");
        std::os::unix::fs::symlink(inside, state).expect("a link");
    }

    /// Takes up all space but a little.
    pub(crate) fn fill(&self, keep: u64) -> PathBuf {
        let path = self.dir.path().join("ballast");
        let mut file = File::create(&path).expect("a file");
        // Ends with "no space left".
        while file.write_all(&[1; 4096]).is_ok() {}
        let length = file.metadata().expect("the file's length").len();
        file.set_len(length - keep).expect("a shorter file");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.dir.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is left mounted", self.dir.path().display());
        }
    }
}

/// A daemon whose state directory is on a small disk. The daemon ends before the disk goes.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) disk: SmallDisk,
}

impl World {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut daemon = Daemon::prepare(&Options { args, ..Options::default() });
        let disk = SmallDisk::mount();
        disk.hold(&daemon.state_dir());
        daemon.restart();
        Self { daemon, disk }
    }
}

fn call(command: &'static str, container: &str) -> Call {
    Call::new(command, container, &config("full", "10.5.0.0/16"))
}

/// The daemon's list of allocations, by container.
fn listed(daemon: &Daemon) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let rows = daemon.allocations();
    rows.iter().map(|row| (text(&row["containerId"]), text(&row["address"]))).collect()
}

fn address(outcome: &Outcome) -> String {
    let address = outcome.expect_result()["ips"][0]["address"].as_str().expect("an address");
    address.split('/').next().expect("an address").to_owned()
}

/// Makes ADDs, with now and then a DEL, until one fails. Returns the answers and the failure.
fn fill_up(client: &mut Client) -> (BTreeMap<String, String>, Outcome) {
    let mut held = BTreeMap::new();
    for number in 0..ADDS_MAX {
        let container = format!("container-with-a-long-name-{number}");
        let added = client.call(&call("ADD", &container));
        if !added.succeeded() {
            return (held, added);
        }
        held.insert(container.clone(), address(&added));
        if number % 5 == 4 {
            let deleted = client.call(&call("DEL", &container));
            if !deleted.succeeded() {
                return (held, deleted);
            }
            held.remove(&container);
        }
    }
    panic!("{ADDS_MAX} ADDs went onto a full disk");
}

fn full_disk(arguments: &[&str]) {
    let mut world = World::new(arguments);
    let mut client = world.daemon.client();
    for number in 0..10 {
        client.call(&call("ADD", &format!("early-{number}"))).expect_result();
    }
    let ballast = world.disk.fill(64 << 10);
    let (mut held, failure) = fill_up(&mut client);
    for (container, address) in listed(&world.daemon) {
        if container.starts_with("early-") {
            held.insert(container, address);
        }
    }
    assert_refused(&failure, 5, &["journal", "No space left on device", "state directory"]);
    assert_eq!(listed(&world.daemon), held, "what was refused is not listed");
    // From now on every answer says so.
    let again = client.call(&call("ADD", "again"));
    assert_refused(&again, 5, &["No space left on device", "restarts then"]);
    let status = client.call(&call("STATUS", "any"));
    assert_refused(&status, 50, &["No space left on device"]);
    let ready = client.request("GET", "/readyz", "");
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(ready.body.contains("No space left on device"), "{}", ready.body);
    assert_eq!(client.get("/v1/status")["state"], json!("broken"));
    let metrics = client.request("GET", "/metrics", "").body;
    assert!(metrics.contains("\nleasehold_journal_broken 1\n"), "{metrics}");
    // CHECK and a DEL of nothing need no journal and still work. "The same answer again" must not
    // be promised.
    let check = client.call(&call("CHECK", "early-0"));
    assert!(check.succeeded(), "{check:?}");
    let nothing = client.call(&call("DEL", "nobody"));
    assert!(nothing.succeeded(), "{nothing:?}");
    let deleted = client.call(&call("DEL", "early-0"));
    assert_refused(&deleted, 5, &["No space left on device"]);

    world.daemon.kill9();
    fs::remove_file(ballast).expect("room on the disk");
    world.daemon.restart();
    assert_eq!(listed(&world.daemon), held, "what was answered is there, and nothing else");
    let mut client = world.daemon.client();
    for (container, held) in &held {
        assert_eq!(address(&client.call(&call("ADD", container))), *held);
    }
    client.call(&call("ADD", "again")).expect_result();
    let deleted = client.call(&call("DEL", "early-0"));
    assert!(deleted.succeeded(), "{deleted:?}");
    assert!(!listed(&world.daemon).contains_key("early-0"));
}

#[test]
fn a_full_disk_loses_nothing_that_was_answered() {
    full_disk(&[]);
}

#[test]
fn a_full_disk_loses_nothing_that_was_answered_with_fsync() {
    full_disk(&["--fsync"]);
}

#[test]
fn a_plain_del_through_the_plugin_is_kept_as_a_note_or_refused_never_forgotten() {
    let mut world = World::new(&[]);
    let mut client = world.daemon.client();
    client.call(&call("ADD", "early")).expect_result();
    let ballast = world.disk.fill(16 << 10);
    let (_, failure) = fill_up(&mut client);
    assert_eq!(failure.code(), Some(5), "{failure:?}");
    let deleted = world.daemon.plugin(&call("DEL", "early"));
    world.daemon.kill9();
    fs::remove_file(ballast).expect("room on the disk");
    world.daemon.restart();
    let there = listed(&world.daemon).contains_key("early");
    assert_eq!(there, !deleted.succeeded(), "the DEL was answered with {deleted:?}");
}

/// Nobody restarts the daemon: it goes on by itself when there is room, under the same number, and
/// acts on the DEL that it had to refuse.
#[test]
fn a_node_goes_on_by_itself_when_the_disk_has_room_again() {
    let world = World::new(&[]);
    let mut client = world.daemon.client();
    client.call(&call("ADD", "early")).expect_result();
    let ballast = world.disk.fill(16 << 10);
    let (mut held, failure) = fill_up(&mut client);
    assert_eq!(failure.code(), Some(5), "{failure:?}");
    let deleted = world.daemon.plugin(&call("DEL", "early"));
    assert!(deleted.succeeded(), "a DEL is kept as a note: {deleted:?}");
    let pid = client.get("/v1/status")["about"]["pid"].clone();
    fs::remove_file(ballast).expect("room on the disk");
    let goes_on = || {
        let added = world.daemon.plugin(&call("ADD", "later"));
        added.succeeded().then(|| held.insert("later".to_owned(), address(&added))).is_some()
    };
    assert!(poll(Duration::from_secs(10), goes_on), "{}", world.daemon.log_tail());
    assert_eq!(world.daemon.client().get("/v1/status")["about"]["pid"], pid);
    assert_eq!(listed(&world.daemon), held, "all that was answered, and no more");
}

#[test]
fn a_disk_that_is_full_from_the_start() {
    let mut daemon = Daemon::prepare(&Options::default());
    let disk = SmallDisk::mount();
    disk.hold(&daemon.state_dir());
    let ballast = disk.fill(0);
    let (code, text) = daemon.refusal();
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("No space left on device"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    fs::remove_file(ballast).expect("room on the disk");
    daemon.restart();
    assert!(daemon.allocations().is_empty());
    drop(daemon); // before the disk
}
