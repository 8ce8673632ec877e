//! A daemon that must not start: it prints the cause in one line, ends with status 2, and does not
//! disturb a daemon that runs already.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::Held;
use crate::common::{Call, Daemon, LEASEHOLD, Options, poll};

/// The one line of a refusal, which must have these words in it.
pub(super) fn refuses(daemon: &mut Daemon, words: &[&str]) -> String {
    let (code, text) = daemon.refusal();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("leasehold: ")).collect();
    assert_eq!((code, lines.len()), (2, 1), "{text}");
    for word in words {
        assert!(lines[0].contains(word), "no {word:?} in {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Runs `leasehold serve` with these arguments alone; it must refuse them.
fn refuses_arguments(arguments: &[&str], words: &[&str]) {
    let output = Command::new(LEASEHOLD)
        .arg("serve")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("leasehold");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert!(output.stdout.is_empty(), "nothing on standard output");
}

/// A daemon that would start in a directory of its own, with these additional arguments.
fn other(arguments: &[&str]) -> Daemon {
    let args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Daemon::prepare(&Options { args, ..Options::default() })
}

#[test]
fn a_second_daemon_on_the_same_state_directory() {
    let mut held = Held::new();
    let mut second = Daemon::prepare(&Options::default());
    std::os::unix::fs::symlink(held.daemon.state_dir(), second.state_dir()).expect("a link");
    let (pid, directory) = (held.daemon.pid().to_string(), second.state_dir());
    let words = ["pid", &pid, &directory.display().to_string(), "--state-dir"];
    let text = refuses(&mut second, &words);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!second.socket().exists(), "a daemon that did not start leaves no socket");
    held.assert_serves("a second daemon on its directory");
    // The lock is the kernel's: it ends with the first daemon, even if that one is killed.
    held.daemon.kill9();
    second.restart();
    assert_eq!(second.allocations(), held.before);
}

#[test]
fn a_second_daemon_on_the_same_socket() {
    let mut held = Held::new();
    let mut second = Daemon::prepare(&Options::default());
    let directory = second.socket();
    let directory = directory.parent().expect("a directory");
    let first = held.daemon.socket();
    std::os::unix::fs::symlink(first.parent().expect("a directory"), directory).expect("a link");
    let text = refuses(&mut second, &["socket", "another daemon", "--socket"]);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(held.daemon.socket().exists(), "the first daemon's socket is still there");
    held.assert_serves("a second daemon on its socket");
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let socket = dir.path().join("leasehold.sock");
    let state = dir.path().join("state");
    let [socket_text, state] = [&socket, &state].map(|path| path.to_str().expect("UTF-8"));
    refuses_arguments(
        &["--state-dir", state, "--socket", socket_text, "--listen", &address],
        &["cannot listen on", &address, "--listen", "in use"],
    );
    assert!(!socket.exists(), "a daemon that did not start leaves no socket");
}

#[test]
fn something_else_in_the_place_of_the_socket_is_left_alone() {
    let mut daemon = Daemon::prepare(&Options::default());
    fs::create_dir(daemon.socket().parent().expect("a directory")).expect("a directory");
    fs::write(daemon.socket(), "precious").expect("a file");
    refuses(&mut daemon, &["socket", "something else"]);
    assert_eq!(fs::read_to_string(daemon.socket()).expect("the file"), "precious");
}

#[test]
fn a_state_directory_that_is_a_file() {
    let mut daemon = Daemon::prepare(&Options::default());
    fs::write(daemon.state_dir(), "").expect("a file");
    let path = daemon.state_dir().display().to_string();
    refuses(&mut daemon, &["state directory", &path]);
}

#[test]
fn a_configuration_file_that_is_wrong() {
    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let file = dir.path().join("leasehold.toml");
    let path = file.to_str().expect("a path in UTF-8");
    refuses_arguments(&["--config", path], &["configuration file", path]);
    // An error that the file's parser cannot place is reported with the file's name.
    for (text, words) in [
        ("colour = \"red\"\n", ["colour", "stateDir", "line 1"].as_slice()),
        ("cooldown = \"30s\"\nstate-dir = \"/x\"\n", &["state-dir", "stateDir", "line 2"]),
        ("cooldown = \"5 parsecs\"\n", &["cooldown", "parsecs"]),
        ("cooldown = \"2 days\"\n", &["cooldown", "1day"]),
        ("cooldown = 30\n", &["cooldown", "line 1"]),
        ("listen = \"everywhere\"\n", &["listen", "line 1"]),
        ("node = \n", &["line 1"]),
    ] {
        fs::write(&file, text).expect("a configuration file");
        refuses_arguments(&["--config", path], &[words, &[path]].concat());
    }
    // Flags can cause these errors too.
    for (text, words) in [
        ("node = \"a/b\"\n", ["node name", "a/b", "--node"]),
        ("keepAfterReboot = true\n", ["keepAfterReboot", "fsync", "power cut"]),
        ("bootIdFile = \"/nowhere/boot\"\n", ["boot id", "/nowhere/boot", "No such file"]),
    ] {
        fs::write(&file, text).expect("a configuration file");
        refuses_arguments(&["--config", path], &words);
    }
}

#[test]
fn flags_that_are_wrong() {
    for (arguments, words) in [
        (["--cooldown", "soon"], ["--cooldown", "soon"]),
        (["--cooldown", "48h"], ["--cooldown", "1day"]),
        (["--listen", "9750"], ["--listen", "9750"]),
        (["--fsync", "maybe"], ["--fsync", "maybe"]),
        (["--node", "a b"], ["node name", "--node"]),
        (["--colour", "red"], ["--colour", "unexpected"]),
    ] {
        refuses_arguments(&arguments, &words);
    }
    refuses(&mut other(&["--keep-after-reboot"]), &["keepAfterReboot", "fsync", "power cut"]);
}

/// SIGHUP ends nothing, also when the file that is read again is wrong; the level of the log comes
/// from it.
#[test]
fn a_hang_up_reads_the_level_of_the_log_again_and_ends_nothing() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("leasehold.toml");
    let write = |text: &str| fs::write(&file, text).expect("a file");
    write("log = \"info\"");
    let env = vec![("LEASEHOLD_CONFIG".to_owned(), file.display().to_string())];
    let daemon = Daemon::start(&Options { env, ..Options::default() });
    let hang_up = |words: &str| {
        let pid = i32::try_from(daemon.pid()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::HUP)
            .expect("SIGHUP");
        let told = poll(Duration::from_secs(20), || daemon.log().contains(words));
        assert!(told, "{words}: {}", daemon.log_tail());
    };
    let add = |container: &str| {
        let call = Call::new("ADD", container, &super::config("pods", "10.3.0.0/24"));
        assert!(daemon.client().call(&call).succeeded());
    };
    add("before");
    write("log = \"debug\"");
    hang_up("SIGHUP: the level of the log was read again");
    add("after");
    assert!(poll(Duration::from_secs(20), || daemon.log().contains("after")), "{}", daemon.log());
    assert!(!daemon.log().contains("before"), "{}", daemon.log());
    write("log = 5");
    hang_up("SIGHUP: everything stays as it was");
    write("log = \"inof\"");
    hang_up("\"inof\" is neither a level");
    add("last");
    assert_eq!(daemon.allocations().len(), 3);
}
