//! The GC of a runtime, whose list may name too few.

use super::{Namespace, add_in, added, config, holders, metric};
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
}
