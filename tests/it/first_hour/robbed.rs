//! A state directory that is deleted while containers run, on a node without etcd.

use std::fs;

use serde_json::json;

use crate::common::{Call, Daemon, Options};

fn add(container: &str) -> Call {
    let ipam = json!({ "type": "my-ipam", "subnet": "10.9.0.0/28" });
    let config = json!({ "cniVersion": "1.0.0", "name": "pods", "ipam": ipam });
    Call::new("ADD", container, &config)
}

#[test]
fn a_robbed_node_does_not_hand_out_what_containers_hold() {
    let mut daemon = Daemon::start(&Options::default());
    for container in ["c1", "c2", "c3"] {
        assert!(daemon.client().call(&add(container)).succeeded());
    }
    daemon.terminate();
    let aside = daemon.state_dir().with_extension("aside");
    fs::rename(daemon.state_dir(), &aside).expect("a rename");
    let marker = daemon.socket().with_extension("boot");
    for _ in 0..2 {
        let (code, text) = daemon.refusal();
        assert_eq!(code, 2, "{text}");
        for word in [&*marker.display().to_string(), "stop this node's containers", "Put the"] {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
    }
    // The directory is back: so is what was held.
    fs::remove_dir_all(daemon.state_dir()).expect("the empty directory");
    fs::rename(&aside, daemon.state_dir()).expect("a rename");
    daemon.restart();
    assert_eq!(daemon.allocations().len(), 3);
    // An older copy is not the state of this boot either.
    daemon.terminate();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        fs::create_dir_all(to).expect("a directory");
        for entry in fs::read_dir(from).expect("files") {
            let entry = entry.expect("a file");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    };
    copy(&daemon.state_dir(), &aside);
    daemon.restart();
    assert!(daemon.client().call(&add("c4")).succeeded());
    daemon.terminate();
    copy(&aside, &daemon.state_dir());
    let (code, text) = daemon.refusal();
    assert_eq!(code, 2, "{text}");
    // The remedy of the message works.
    fs::remove_dir_all(daemon.state_dir()).expect("the copy");
    fs::remove_file(marker).expect("the marker");
    daemon.restart();
    assert!(daemon.client().call(&add("new")).succeeded());
}

#[test]
fn another_boot_begins_with_any_directory() {
    let boot = tempfile::NamedTempFile::new().expect("a file");
    fs::write(boot.path(), "00000000-0000-4000-8000-000000000001\n").expect("a boot");
    let path = boot.path().display().to_string();
    let env = vec![("LEASEHOLD_BOOT_ID_FILE".to_owned(), path)];
    let mut daemon = Daemon::start(&Options { env, ..Options::default() });
    assert!(daemon.client().call(&add("c1")).succeeded());
    daemon.kill9();
    fs::remove_dir_all(daemon.state_dir()).expect("the state directory");
    fs::write(boot.path(), "00000000-0000-4000-8000-000000000002\n").expect("a boot");
    daemon.restart();
    assert!(daemon.client().call(&add("c1")).succeeded());
}
