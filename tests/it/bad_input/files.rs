//! Links, pipes and directories that others can write to, where the daemon and the plugin open
//! files of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use super::start::refuses;
use super::{Held, config};
use crate::common::{Call, Daemon, Options, poll};

/// The time within which the daemon looks at its notes again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A user who is not root.
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn fifo(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).expect("a pipe");
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    for at in ["state directory", "directory of the socket", "notes"] {
        let mut daemon = Daemon::prepare(&Options::default());
        let socket = daemon.socket();
        let dir = match at {
            "notes" => daemon.notes_dir(),
            "state directory" => daemon.state_dir(),
            _ => socket.parent().expect("a directory").to_owned(),
        };
        fs::create_dir_all(&dir).expect("a directory");
        let parent = dir.parent().expect("a directory");
        let named = dir.display().to_string();
        for wrong in [0o777, 0o1777, 0o770] {
            mode(&dir, wrong);
            let text = refuses(&mut daemon, &[&named, &format!("mode {wrong:04o}"), "chmod 700"]);
            assert!(text.contains("belongs to user 0"), "{text}");
        }
        mode(&dir, 0o700);
        chown(&dir, Some(NOBODY), None).expect("another owner");
        refuses(&mut daemon, &[&named, "belongs to user 65534", "chown 0"]);
        chown(&dir, Some(0), None).expect("root");
        // A link that somebody else made, in a directory to which everybody can write.
        let elsewhere = parent.join("elsewhere");
        fs::rename(&dir, &elsewhere).expect("another name");
        symlink(&elsewhere, &dir).expect("a link");
        std::os::unix::fs::lchown(&dir, Some(NOBODY), None).expect("another owner");
        refuses(&mut daemon, &[&named, "symbolic link of user 65534"]);
        fs::remove_file(&dir).expect("no link");
        fs::rename(&elsewhere, &dir).expect("its name");
        daemon.restart();
    }
}

/// A link in the state directory named like a file of the daemon made root write to any file.
#[test]
fn links_and_pipes_in_the_state_directory_are_refused() {
    for name in ["lock", "boot-id", "identity.json", "journal.redb", "journal.commits"] {
        for link in [true, false] {
            let mut daemon = Daemon::start(&Options::default());
            daemon.terminate();
            let path = daemon.state_dir().join(name);
            let victim = daemon.state_dir().with_file_name("victim");
            fs::write(&victim, "precious").expect("a file");
            let _ = fs::remove_file(&path);
            let words = if link {
                symlink(&victim, &path).expect("a link");
                "symbolic link"
            } else {
                fifo(&path);
                "not a regular file"
            };
            let text = refuses(&mut daemon, &[name, words]);
            assert_eq!(text.matches(words).count(), 1, "said twice: {text}");
            assert_eq!(fs::read(&victim).expect("the victim"), b"precious", "{text}");
        }
    }
}

#[test]
fn pipes_and_links_among_the_notes_are_set_aside_and_hang_nobody() {
    let mut held = Held::new();
    let notes = held.daemon.notes_dir();
    let secret = notes.with_file_name("secret");
    fs::write(&secret, "{}").expect("a file");
    fifo(&notes.join("1-1.json"));
    symlink(&secret, notes.join("2-1.json")).expect("a link");
    for round in 0..2 {
        let aside = poll(PATIENCE, || {
            notes.join("1-1.unreadable").exists() && notes.join("2-1.unreadable").is_symlink()
        });
        assert!(aside, "round {round}\n{}", held.daemon.log_tail());
        held.assert_serves("a pipe among the notes");
        held.daemon.restart();
        held.client = held.daemon.client();
    }
}

#[test]
fn nothing_is_made_for_a_socket_that_a_configuration_names() {
    let daemon = Daemon::start(&Options::default());
    let home = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let del = |socket: &Path| {
        let mut call = Call::new("DEL", "gone", &config("pods", "10.1.0.0/24"));
        call.config["ipam"]["socket"] = socket.to_string_lossy().into();
        crate::common::run(crate::common::my_ipam(), &call.environment(), &call.config.to_string())
    };
    let deep = home.path().join("a/b/s");
    super::refusal(&del(&deep), 11, &["a note of this DEL", "does not exist"]);
    assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 0);
    let shared = home.path().join("shared");
    fs::create_dir(&shared).expect("a directory");
    mode(&shared, 0o1777);
    super::refusal(&del(&shared.join("s")), 11, &["a note of this DEL", "mode 1777"]);
    assert_eq!(fs::read_dir(&shared).expect("a directory").count(), 0);
    mode(&shared, 0o755);
    assert!(del(&shared.join("s")).status.success());
    assert_eq!(fs::read_dir(shared.join("s.notes")).expect("the notes").count(), 1);
    drop(daemon);
}

#[test]
fn files_are_private_and_no_core_is_dumped() {
    let daemon = Daemon::start(&Options::default());
    let run = daemon.socket().parent().expect("a directory").to_owned();
    for dir in [daemon.state_dir(), run] {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let about = fs::symlink_metadata(&path).expect("a file");
            assert_eq!(about.mode() & 0o077, 0, "{}: {:o}", path.display(), about.mode());
        }
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let figures: Vec<&str> = core.expect("a limit").split_whitespace().skip(4).collect();
    assert_eq!(figures[..2], ["0", "0"], "{limits}");
}

#[test]
fn a_password_that_others_can_read_is_told_of() {
    let home = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let password = home.path().join("password");
    fs::write(&password, "secret").expect("a password");
    mode(&password, 0o644);
    let args = |extra: &[&str]| {
        let file = password.to_string_lossy();
        let mut all = vec!["--etcd", "http://127.0.0.1:9", "--etcd-user", "leasehold"];
        all.extend(["--etcd-password-file", &file]);
        all.extend(extra);
        all.into_iter().map(str::to_owned).collect()
    };
    let daemon = Daemon::start(&Options { args: args(&[]), ..Options::default() });
    for words in [
        "the password of leasehold goes to http://127.0.0.1:9 in the clear",
        "mode 0644, so others than its owner can read the secret in it: chmod 600",
    ] {
        assert!(daemon.log().contains(words), "{}", daemon.log());
    }
    mode(&password, 0o600);
    let quiet = Daemon::start(&Options { args: args(&[]), ..Options::default() });
    assert!(!quiet.log().contains("can read the secret"), "{}", quiet.log());
}
