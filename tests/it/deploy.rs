//! `leasehold install`, on a directory that stands for a node's file system. What needs no test
//! program is in `tests/deploy`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::common::{Call, Daemon, LEASEHOLD, Options, my_ipam, poll};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command, which must succeed. Returns what it printed.
fn ends(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let wrong = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{wrong}", output.status);
    said.into_owned()
}

const FILES: [&str; 4] = [
    "opt/cni/bin/my-ipam",
    "usr/local/bin/leasehold",
    "etc/systemd/system/leasehold.service",
    "etc/leasehold.toml",
];

fn command(to: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(LEASEHOLD);
    command.arg("install").arg("--to").arg(to).arg("--plugin").arg(my_ipam()).args(args);
    command
}

fn install(to: &Path, args: &[&str]) -> String {
    ends(command(to, args))
}

#[test]
fn install_is_repeatable_and_keeps_a_changed_configuration() {
    let node = tempfile::tempdir().expect("a directory");
    let there = || FILES.iter().filter(|file| node.path().join(file).exists()).count();
    let dry = install(node.path(), &["--dry-run"]);
    assert_eq!((dry.matches("would be installed").count(), there()), (4, 0), "{dry}");
    let said = install(node.path(), &[]);
    assert_eq!((said.matches("installed").count(), there()), (4, 4), "{said}");
    let same = |file: &str, of: &Path| {
        assert_eq!(fs::read(node.path().join(file)).unwrap(), fs::read(of).unwrap(), "{file}");
    };
    same(FILES[0], my_ipam());
    same(FILES[1], Path::new(LEASEHOLD));
    same(FILES[2], &root().join("deploy/leasehold.service"));
    same(FILES[3], &root().join("deploy/leasehold.toml"));
    let version = ends({
        let mut command = Command::new(node.path().join(FILES[0]));
        command.arg("--version");
        command
    });
    assert!(version.starts_with("my-ipam"), "{version}");

    let again = install(node.path(), &[]);
    assert_eq!(again.matches("unchanged").count(), 4, "{again}");
    fs::write(node.path().join(FILES[3]), "cooldown = \"1m\"\n").unwrap();
    fs::write(node.path().join(FILES[0]), "an older plugin").unwrap();
    let said = install(node.path(), &[]);
    assert!(said.contains("kept ") && said.matches("installed").count() == 1, "{said}");
    same(FILES[0], my_ipam());

    let said = install(node.path(), &["--uninstall"]);
    assert_eq!((said.matches("removed").count(), there()), (3, 1), "{said}");
    assert_eq!(fs::read(node.path().join(FILES[3])).unwrap(), b"cooldown = \"1m\"\n");
    let again = install(node.path(), &["--uninstall"]);
    assert_eq!(again.matches("absent").count(), 3, "{again}");
}

#[test]
fn the_network_configuration_waits_for_the_daemon_and_is_put_back() {
    let node = tempfile::tempdir().expect("a directory");
    let conflist = root().join("deploy/kubernetes/conflists/bridge.conflist");
    let place = node.path().join("etc/cni/net.d/bridge.conflist");
    let with = |socket: &Path, args: &[&str]| {
        let mut command = command(node.path(), &["--only=conflist", "--conflist"]);
        command.arg(&conflist).arg("--socket").arg(socket).args(args);
        command
    };
    let none = node.path().join("no.sock");
    let late: Output = with(&none, &["--wait", "1s"]).output().expect("an answer");
    let error = String::from_utf8_lossy(&late.stderr);
    assert!(late.status.code() == Some(2) && error.contains("not ready after 1s"), "{error}");
    assert!(!place.exists());

    let daemon = Daemon::start(&Options::default());
    let mut stays = with(&daemon.socket(), &["--stay"]);
    let mut stays = stays.stdout(Stdio::null()).spawn().expect("it runs");
    assert!(poll(Duration::from_secs(20), || place.exists()), "the daemon is ready");
    fs::remove_file(&place).expect("the file");
    assert!(poll(Duration::from_secs(40), || place.exists()), "it is put back");
    kill_process(Pid::from_child(&stays), Signal::TERM).expect("SIGTERM");
    assert!(stays.wait().expect("an end").success());
    ends(with(&none, &["--uninstall"]));
    assert!(!place.exists());
}

/// The files to copy, and what nodes get by default, give addresses.
#[test]
fn every_example_gives_an_address() {
    let daemon = Daemon::start(&Options::default());
    let mut examples = Vec::new();
    for folder in ["deploy/kubernetes/conflists", "deploy/examples/runtimes"] {
        for file in fs::read_dir(root().join(folder)).expect("examples") {
            let path = file.expect("a file").path();
            let text = fs::read_to_string(&path).expect("a text");
            let example: Value = serde_json::from_str(&text).expect("JSON");
            examples.push((path.display().to_string(), example));
        }
    }
    assert!(examples.len() >= 9, "{}", examples.len());
    for (at, (name, example)) in examples.iter().enumerate() {
        let plugins = example["plugins"].as_array().expect(name);
        let plugin = plugins.iter().find(|plugin| plugin["ipam"].is_object()).expect(name);
        let config = json!({
            "cniVersion": example["cniVersion"],
            // A network of its own: the examples use the same name for other ranges.
            "name": format!("pods-{at}"),
            "ipam": plugin["ipam"],
        });
        let added = daemon.plugin(&Call::new("ADD", "c", &config));
        assert!(added.succeeded(), "{name}: {added:?}");
    }
}
