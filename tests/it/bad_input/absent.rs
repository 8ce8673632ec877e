//! A socket on which no daemon answers: an ADD says "try again later", a DEL succeeds and leaves a
//! note, and a user without permission to connect gets an error that says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use super::{Held, config, refusal};
use crate::common::{Call, Outcome, copy_program, feed, my_ipam, run};

/// The user without any rights: `nobody`.
const NOBODY: u32 = 65534;

/// Runs the plugin against any path of a socket.
fn plugin(socket: &Path, call: &Call) -> Output {
    let mut environment = call.environment().to_vec();
    environment.push(("LEASEHOLD_SOCKET", socket.to_str().expect("a path in UTF-8")));
    run(my_ipam(), &environment, &call.config.to_string())
}

fn call(command: &'static str) -> Call {
    Call::new(command, "c1", &config("absent", "10.1.2.0/24"))
}

/// The notes that wait beside a socket.
fn notes(socket: &Path) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(my_ipam::note::directory(socket)) else { return Vec::new() };
    let text = |entry: fs::DirEntry| fs::read_to_string(entry.path()).expect("a note");
    let json = |text: String| serde_json::from_str(&text).expect("JSON in a note");
    entries.map(|entry| json(text(entry.expect("an entry")))).collect()
}

/// Checks that each command reports, in its own way, that no daemon answers there.
fn nobody_answers(socket: &Path) {
    all_but_del_are_refused(socket);
    let deleted = Outcome::of_process(&plugin(socket, &call("DEL")));
    assert_eq!(deleted, Outcome::Done(None));
    let notes = notes(socket);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!((&notes[0]["command"], &notes[0]["containerId"]), (&"DEL".into(), &"c1".into()));
    assert!(notes[0]["startedAt"].is_u64(), "{notes:?}");
}

fn all_but_del_are_refused(socket: &Path) {
    let place = socket.display().to_string();
    for command in ["ADD", "CHECK", "GC"] {
        refusal(
            &plugin(socket, &call(command)),
            11,
            &["try again later", &place, "leasehold serve"],
        );
    }
    refusal(&plugin(socket, &call("STATUS")), 50, &["does not answer", &place]);
    assert!(notes(socket).is_empty(), "only a DEL leaves a note");
}

fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let socket = dir.path().join("leasehold.sock");
    (dir, socket)
}

#[test]
fn a_socket_that_is_not_there() {
    let (_dir, socket) = place();
    nobody_answers(&socket);
}

#[test]
fn a_socket_whose_directory_is_not_there() {
    let (dir, socket) = place();
    let socket = socket.with_file_name("run").join("leasehold.sock");
    all_but_del_are_refused(&socket);
    // Anybody may have written the path: nothing is made for it, not even for a note.
    refusal(&plugin(&socket, &call("DEL")), 11, &["a note of this DEL", "does not exist"]);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn a_socket_file_that_a_dead_daemon_left() {
    let (_dir, socket) = place();
    drop(UnixListener::bind(&socket).expect("a socket"));
    assert!(socket.exists(), "closing a listener leaves its file");
    nobody_answers(&socket);
}

#[test]
fn a_plain_file_in_the_place_of_the_socket() {
    let (_dir, socket) = place();
    fs::write(&socket, "").expect("a file");
    nobody_answers(&socket);
}

#[test]
fn a_listener_that_hangs_up() {
    let (_dir, socket) = place();
    let listener = UnixListener::bind(&socket).expect("a socket");
    // It ends with the test's process: nothing else can wake it.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    nobody_answers(&socket);
}

#[test]
fn a_path_that_no_socket_can_have() {
    let (dir, _) = place();
    let socket = dir.path().join("s".repeat(200));
    refusal(&plugin(&socket, &call("ADD")), 11, &[&socket.display().to_string()]);
}

#[test]
fn who_may_not_connect_is_told_and_nothing_is_left_behind() {
    assert!(geteuid().is_root(), "this test becomes another user: run it as root");
    let mut held = Held::new();
    let (dir, _) = place();
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(dir.path(), mode(0o755)).expect("a directory for everybody");
    let plugin = dir.path().join("my-ipam");
    copy_program(my_ipam(), &plugin);
    let denied = |command| {
        let call = Call::new(command, "held", &config("held", "10.99.0.0/24"));
        let mut run = Command::new(&plugin);
        run.uid(NOBODY).gid(NOBODY).current_dir("/").env_clear().envs(call.environment());
        run.env("LEASEHOLD_SOCKET", held.daemon.socket());
        let socket = held.daemon.socket().display().to_string();
        refusal(&feed(run, &call.config.to_string()), 5, &["no access", &socket, "root"]);
    };
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        denied(command);
    }
    // The socket itself keeps others out, not only its directory.
    let run = held.daemon.socket();
    let run = run.parent().expect("a directory");
    fs::set_permissions(run, mode(0o755)).expect("an open directory");
    fs::set_permissions(run.parent().expect("a directory"), mode(0o755)).expect("an open one");
    denied("ADD");
    denied("DEL");
    held.assert_serves("calls of a user without rights");
}
