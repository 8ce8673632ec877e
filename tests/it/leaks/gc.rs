//! The GC of a runtime, whose list may name too few.

use super::{Namespace, add_in, added, config, holders, metric};
use crate::cluster_admin::{ends, ends_json};
use crate::common::{Call, Daemon, Options};

#[test]
fn a_gc_keeps_what_has_its_own_namespace_and_says_so() {
    let daemon = Daemon::start(&Options::default());
    let mut pods = config("pods");
    pods["cniVersion"] = "1.1.0".into();
    let (lives, gone, another) = (Namespace::new(), Namespace::new(), Namespace::new());
    added(&add_in(&daemon, "lives", &lives.path(), &pods));
    added(&add_in(&daemon, "gone", &gone.path(), &pods));
    added(&add_in(&daemon, "another", &another.path(), &pods));
    drop(gone);
    another.replace();
    pods["cni.dev/valid-attachments"] = serde_json::json!([]);
    assert!(daemon.plugin(&Call::new("GC", "", &pods)).succeeded());
    assert_eq!(holders(&daemon), ["lives"], "{}", daemon.log_tail());
    let count =
        |result| metric(&daemon, &format!("leasehold_gc_attachments_total{{result=\"{result}\"}}"));
    assert!((count("kept") - 1.0).abs() < 0.1 && (count("released") - 2.0).abs() < 0.1);
    let log = daemon.log();
    assert!(log.contains("kept although a GC does not name it"), "{log}");
    assert_eq!(log.matches("released by a GC").count(), 2, "{log}");
    // It is found, and force overrules that it is kept.
    let found = ends_json(&daemon, &["check"], 1);
    assert_eq!(found["findings"][0]["kind"], "notNamedByGc", "{found}");
    let said = ends(&daemon, &["gc"], 1);
    assert!(said.starts_with("skipped: notNamedByGc") && said.contains("--force"), "{said}");
    ends(&daemon, &["gc", "--force", "--dry-run"], 0);
    assert_eq!(holders(&daemon), ["lives"]);
    let said = ends(&daemon, &["gc", "--force"], 0);
    assert!(said.starts_with("released: notNamedByGc"), "{said}");
    assert_eq!(holders(&daemon), [""; 0]);
    assert!(daemon.log().contains("released by `leasehold gc --force`"), "{}", daemon.log());
    ends(&daemon, &["check"], 0);
}

/// A container that was taken over from another plugin, or whose namespace the daemon cannot see,
/// may run: nobody knows.
#[test]
fn a_gc_keeps_what_nobody_can_judge() {
    let daemon = Daemon::start(&Options::default());
    let mut pods = config("pods");
    pods["cniVersion"] = "1.1.0".into();
    for (container, netns) in [("imported", "unknown"), ("unseen", "/run/netns/not-seen-here")] {
        let add = Call { netns: netns.to_owned(), ..Call::new("ADD", container, &pods) };
        assert!(daemon.client().call(&add).succeeded());
    }
    pods["cni.dev/valid-attachments"] = serde_json::json!([]);
    assert!(daemon.plugin(&Call::new("GC", "", &pods)).succeeded());
    assert_eq!(holders(&daemon), ["imported", "unseen"]);
    let kept = metric(&daemon, "leasehold_gc_attachments_total{result=\"kept\"}");
    assert!((kept - 2.0).abs() < 0.1, "{kept}");
    let found = ends_json(&daemon, &["check"], 1).to_string();
    assert!(found.contains("has never seen its network namespace"), "{found}");
    let said = ends(&daemon, &["gc"], 1);
    assert!(said.contains("has never seen its network namespace"), "{said}");
    // One of them is found for two reasons, and is skipped the second time.
    ends(&daemon, &["gc", "--force"], 1);
    assert_eq!(holders(&daemon), [""; 0]);
}

#[test]
fn what_a_later_gc_names_is_not_released_by_force() {
    let daemon = Daemon::start(&Options::default());
    let mut pods = config("pods");
    pods["cniVersion"] = "1.1.0".into();
    let lives = Namespace::new();
    added(&add_in(&daemon, "lives", &lives.path(), &pods));
    let gc = |valid: serde_json::Value| {
        let mut pods = pods.clone();
        pods["cni.dev/valid-attachments"] = valid;
        assert!(daemon.plugin(&Call::new("GC", "", &pods)).succeeded());
    };
    gc(serde_json::json!([]));
    let report = ends_json(&daemon, &["check"], 1).to_string();
    gc(serde_json::json!([{ "containerID": "lives", "ifname": "eth0" }]));
    ends(&daemon, &["check"], 0);
    let file = daemon.state_dir().with_file_name("report.json");
    std::fs::write(&file, report).expect("a file");
    let said = ends(&daemon, &["gc", "--force", "--report", &file.display().to_string()], 1);
    assert!(said.starts_with("skipped: notNamedByGc"), "{said}");
    assert_eq!(holders(&daemon), ["lives"]);
}
