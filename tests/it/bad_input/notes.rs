//! DELs that no daemon took: the next daemon carries them out before it answers any call, does not
//! release anything newer than them, and puts aside the notes that it cannot read.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::config;
use crate::common::{Call, Daemon, Options, Outcome, poll};

/// The time within which the daemon must find a note that was left while it runs: a few of its
/// rounds.
const ROUND_LIMIT: Duration = Duration::from_secs(20);

/// A call on a pool of two addresses, .2 and .3: when both are held, an ADD fails.
fn tight(command: &'static str, container: &str) -> Call {
    let mut config = config("tight", "10.3.0.0/29");
    config["ipam"]["ranges"][0][0]["rangeEnd"] = json!("10.3.0.3");
    Call::new(command, container, &config)
}

fn addresses(daemon: &Daemon) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let row = |row: &Value| (text(&row["containerId"]), text(&row["address"]));
    daemon.allocations().iter().map(row).collect()
}

fn note_files(daemon: &Daemon) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> =
        fs::read_dir(daemon.notes_dir()).expect("the notes").map(name).collect();
    names.sort();
    names
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |part: i64| u64::try_from(part).expect("a time after the boot");
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// Leaves a note as the plugin does.
fn leave(daemon: &Daemon, started_at: u64, note: &Value) -> PathBuf {
    let path = daemon.notes_dir().join(format!("{started_at}-1.json"));
    fs::write(&path, note.to_string()).expect("a note");
    path
}

fn del_note(container: &str, started_at: u64) -> Value {
    json!({
        "command": "DEL", "containerId": container, "netns": "", "ifname": "eth0", "args": "",
        "path": "/x", "startedAt": started_at, "config": tight("DEL", container).config,
    })
}

/// The containers that hold an address, in order.
fn holders(daemon: &Daemon) -> Vec<String> {
    let mut holders: Vec<String> =
        addresses(daemon).into_iter().map(|(holder, _)| holder).collect();
    holders.sort();
    holders
}

#[test]
fn a_del_while_the_daemon_is_down_is_done_before_anything_is_answered() {
    let mut daemon = Daemon::start(&Options::default());
    for container in ["one", "two"] {
        daemon.plugin(&tight("ADD", container)).expect_result();
    }
    let full = daemon.plugin(&tight("ADD", "three"));
    assert_eq!(full.code(), Some(100), "{full:?}");
    daemon.kill9();
    assert_eq!(daemon.plugin(&tight("DEL", "one")), Outcome::Done(None));
    assert_eq!(note_files(&daemon).len(), 1);
    // This ADD comes as early as possible: only the address that the note frees can answer it.
    let mut client = daemon.client();
    let early = std::thread::scope(|scope| {
        let early = scope.spawn(move || {
            let (add, mut answer) = (tight("ADD", "three"), None);
            poll(ROUND_LIMIT, || {
                answer = client.try_call(&add).ok();
                answer.is_some()
            });
            answer.expect("an answer of the daemon that starts")
        });
        daemon.restart();
        early.join().expect("the early ADD")
    });
    assert_eq!(early.expect_result()["ips"][0]["address"], "10.3.0.2/29");
    assert_eq!(holders(&daemon), ["three", "two"]);
    assert_eq!(note_files(&daemon), [""; 0], "an obeyed note is taken away");
    // The DEL was answered, so a repetition changes nothing.
    assert_eq!(daemon.plugin(&tight("DEL", "one")), Outcome::Done(None));
    assert_eq!(holders(&daemon), ["three", "two"]);
}

#[test]
fn a_note_releases_nothing_that_is_newer_than_itself() {
    let mut daemon = Daemon::start(&Options::default());
    let before = now_ns();
    daemon.plugin(&tight("ADD", "one")).expect_result();
    let between = now_ns();
    daemon.plugin(&tight("ADD", "two")).expect_result();
    daemon.kill9();
    leave(&daemon, before, &del_note("one", before));
    leave(&daemon, between, &del_note("two", between));
    daemon.restart();
    assert_eq!(holders(&daemon), ["one", "two"], "{}", daemon.log_tail());
    assert_eq!(note_files(&daemon), [""; 0], "an overtaken note is taken away");
    daemon.kill9();
    let after = now_ns();
    leave(&daemon, after, &del_note("one", after));
    daemon.restart();
    assert_eq!(holders(&daemon), ["two"], "{}", daemon.log_tail());
}

#[test]
fn an_undo_releases_only_what_its_own_add_made() {
    let mut daemon = Daemon::start(&Options::default());
    let started_at = now_ns();
    let mut add = del_note("one", started_at);
    add["command"] = json!("ADD");
    add["netns"] = json!("/x");
    let reply = daemon.client().request("POST", "/v1/cni", &add.to_string());
    assert_eq!(reply.status, 200, "{}", reply.body);
    let undo = |started_at: u64| {
        let mut note = del_note("one", started_at);
        note["undo"] = json!(true);
        note
    };
    daemon.kill9();
    leave(&daemon, 1, &undo(started_at - 1));
    leave(&daemon, 2, &undo(started_at + 1));
    daemon.restart();
    assert_eq!(holders(&daemon), ["one"], "{}", daemon.log_tail());
    daemon.kill9();
    leave(&daemon, 3, &undo(started_at));
    daemon.restart();
    assert_eq!(holders(&daemon), [""; 0], "{}", daemon.log_tail());
}

#[test]
fn a_note_that_comes_while_the_daemon_runs_is_found() {
    let daemon = Daemon::start(&Options::default());
    daemon.plugin(&tight("ADD", "one")).expect_result();
    let now = now_ns();
    leave(&daemon, now, &del_note("one", now));
    let found = poll(ROUND_LIMIT, || note_files(&daemon).is_empty());
    assert!(found, "the note still waits\n{}", daemon.log_tail());
    assert_eq!(holders(&daemon), [""; 0]);
}

#[test]
fn notes_that_name_no_attachment_are_put_aside() {
    let mut daemon = Daemon::start(&Options::default());
    daemon.plugin(&tight("ADD", "one")).expect_result();
    daemon.kill9();
    let now = now_ns();
    let mut add = del_note("one", now);
    add["command"] = json!("ADD");
    add["netns"] = json!("/x");
    let mut undated = del_note("one", now);
    undated.as_object_mut().expect("an object").remove("startedAt");
    let mut nameless = del_note("one", now);
    nameless["config"].as_object_mut().expect("an object").remove("name");
    let bad = [
        json!("rubbish"),
        json!(null),
        json!([]),
        add,
        undated,
        nameless,
        del_note("a/b", now), // the plugin leaves what the runtime gave it
        del_note("", now),
    ];
    for (number, note) in (0..).zip(&bad) {
        leave(&daemon, number, note);
    }
    fs::write(daemon.notes_dir().join("100-1.json"), b"{\"command\":\"DEL").expect("a note");
    fs::write(daemon.notes_dir().join("101-1.json"), b"").expect("a note");
    // A file that is not a note is left alone.
    fs::write(daemon.notes_dir().join(".102-1.json"), b"{}").expect("a hidden file");
    fs::write(daemon.notes_dir().join("README"), b"hello").expect("a file");
    daemon.restart();
    let left = note_files(&daemon);
    let waiting: Vec<&String> =
        left.iter().filter(|name| !name.starts_with('.') && name.ends_with(".json")).collect();
    assert!(waiting.is_empty(), "never to be acted on, never put aside: {waiting:?}");
    let aside = left.iter().filter(|name| name.ends_with(".unreadable")).count();
    assert_eq!(aside, bad.len() + 2, "{left:?}");
    assert!(left.contains(&".102-1.json".to_owned()) && left.contains(&"README".to_owned()));
    assert_eq!(holders(&daemon), ["one"]);
    let metrics = daemon.client().request("GET", "/metrics", "").body;
    let counted = format!("leasehold_del_notes_total{{result=\"unreadable\"}} {aside}");
    assert!(metrics.contains(&counted), "no {counted} in {metrics}");
}
