//! Containers whose network namespace is gone.

use std::fs;

use serde_json::{Value, json};

use super::{
    Namespace, PATIENCE, Place, Process, add_in, added, config, ends, ends_json, findings, holders,
    kinds, leasehold, metric,
};
use crate::common::{Daemon, Options, poll};

#[test]
fn a_container_whose_namespace_is_gone_is_found_and_released() {
    let args = vec!["--listen-details".to_owned()];
    let daemon = Daemon::start(&Options { args, ..Options::default() });
    let pods = config("pods");
    let (gone, stays) = (Namespace::new(), Namespace::new());
    let address = added(&add_in(&daemon, "gone", &gone.path(), &pods));
    added(&add_in(&daemon, "stays", &stays.path(), &pods));
    let said = ends(&daemon, &["check"], 0);
    assert!(said.starts_with("nothing found: 2 attachments with 2 network names"), "{said}");
    assert_eq!(ends(&daemon, &["gc"], 0), "nothing to release\n");

    let netns = gone.path();
    drop(gone);
    let report = ends_json(&daemon, &["check"], 1);
    let found = &report["findings"][0];
    for (field, value) in [
        ("kind", json!("namespaceGone")),
        ("addresses", json!([address])),
        ("containerId", json!("gone")),
        ("netns", json!(netns)),
        ("certain", json!(true)),
    ] {
        assert_eq!(found[field], value, "{field} in {report:#}");
    }
    assert_eq!(
        (report["findings"].as_array().map(Vec::len), &report["clean"]),
        (Some(1), &json!(false))
    );
    let said = ends(&daemon, &["check"], 1);
    assert!(said.contains("nothing is at") && said.contains("`leasehold gc` releases"), "{said}");
    let figure = |kind| metric(&daemon, &format!("leasehold_check_findings{{kind=\"{kind}\"}}"));
    assert_eq!((figure("namespaceGone"), figure("duplicate")), (1.0, 0.0));
    let state =
        |state| metric(&daemon, &format!("leasehold_network_namespaces{{state=\"{state}\"}}"));
    assert_eq!((state("there"), state("gone"), state("doubtful")), (1.0, 1.0, 0.0));
    // The same over TCP, where nothing can be changed.
    let over_tcp = daemon.over_tcp("GET", "/v1/check", "");
    assert_eq!(over_tcp.status, 200);
    assert!(over_tcp.body.contains("namespaceGone"), "{}", over_tcp.body);
    let body = json!({ "findings": report["findings"] }).to_string();
    assert_eq!(daemon.over_tcp("POST", "/v1/gc", &body).status, 404);

    let dry = ends_json(&daemon, &["gc", "--dry-run"], 0);
    assert_eq!((&dry[0]["outcome"], holders(&daemon).len()), (&json!("would"), 2));
    let (code, said, _) = leasehold(&daemon, &["gc", "--report", "-"], &report.to_string());
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("released: namespaceGone,"), "{said}");
    assert_eq!(holders(&daemon), ["stays"]);
    assert_eq!(findings(&daemon), Vec::<Value>::new());
    // A second release is skipped, and the output says so.
    let (code, said, _) = leasehold(&daemon, &["gc", "--report", "-"], &report.to_string());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("skipped: ") && said.contains("it no longer holds an address"), "{said}");
}

#[test]
fn what_has_changed_since_the_report_is_skipped() {
    let mut daemon = Daemon::start(&Options::default());
    let pods = config("pods");
    let (old, new, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    let address = added(&add_in(&daemon, "again", &old.path(), &pods));
    added(&add_in(&daemon, "other", &other.path(), &pods));
    drop(old);
    let report = ends(&daemon, &["check", "-o", "json"], 1);
    let file = daemon.state_dir().join("report.json");
    fs::write(&file, &report).expect("a report");
    let file = file.to_str().expect("a path in UTF-8").to_owned();
    let gc = ["gc", "--report", &file];

    // Its runtime adds it again without a DEL: it is alive, and keeps its address.
    assert_eq!(added(&super::add_again(&daemon, "again", &new.path(), &pods)), address);
    for force in [&[][..], &["--force"]] {
        let said = ends(&daemon, &[&gc[..], force].concat(), 1);
        assert!(said.contains("skipped") && said.contains("was added again"), "{said}");
    }
    assert_eq!(holders(&daemon), ["again", "other"]);
    assert_eq!(findings(&daemon), Vec::<Value>::new());

    // It is gone once more: the old report is not about this one.
    drop(new);
    assert_eq!(findings(&daemon).len(), 1);
    ends(&daemon, &gc, 1);
    assert_eq!(holders(&daemon), ["again", "other"]);
    // Allocations that a restart reads back are judged in the same way.
    daemon.restart();
    assert_eq!(kinds(&findings(&daemon)), [("namespaceGone", &*address)]);

    // Findings in another node's report are left to that node.
    let theirs = report.replace(&format!("\"{}\"", node(&daemon)), "\"node-9\"");
    assert_ne!(theirs, report);
    let (code, said, _) = leasehold(&daemon, &["gc", "--report", "-"], &theirs);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("left: ") && said.contains("node node-9 holds it"), "{said}");
    for (args, stdin, word) in [
        (&["gc", "--report", "-"][..], "{}", "is not a report of `leasehold check -o json`"),
        (&["gc", "--report", "-"], "\u{0}", "the report on standard input is not"),
        (&["gc", "--report", "/nonexistent/report"], "", "cannot be read"),
        (&["check", "--socket", "/nonexistent/socket"], "", "leasehold serve"),
    ] {
        let (code, _, said) = leasehold(&daemon, args, stdin);
        assert!(code == 2 && said.contains(word), "{args:?}: {code}: {said}");
    }
    ends(&daemon, &["gc"], 0);
    assert_eq!(holders(&daemon), ["other"]);
}

fn node(daemon: &Daemon) -> String {
    daemon.client().get("/v1/status")["about"]["node"].as_str().expect("a name").to_owned()
}

#[test]
fn a_namespace_of_the_same_name_is_another_one() {
    let daemon = Daemon::start(&Options::default());
    let (namespace, other) = (Namespace::new(), Namespace::new());
    added(&add_in(&daemon, "gone", &namespace.path(), &config("pods")));
    added(&add_in(&daemon, "stays", &other.path(), &config("pods")));
    namespace.replace();
    let said = ends(&daemon, &["check"], 1);
    assert!(said.contains("another network namespace is at"), "{said}");
    ends(&daemon, &["gc"], 0);
    assert_eq!(holders(&daemon), ["stays"]);
}

#[test]
fn namespaces_of_processes_end_with_them_or_with_their_id() {
    let daemon = Daemon::start(&Options::default());
    let pods = config("pods");
    let (ends_soon, stays) = (Process::new("exec sleep 600"), Process::new("exec sleep 600"));
    let mut changes = Process::new("read line; exec unshare --net sleep 600");
    let own = std::path::Path::new("/proc/self/ns/net");
    for (container, process) in [("ends", &ends_soon), ("stays", &stays), ("changes", &changes)] {
        process.await_other(own);
        added(&add_in(&daemon, container, &process.netns(), &pods));
    }
    assert_eq!(findings(&daemon), Vec::<Value>::new());
    drop(ends_soon);
    let before = fs::read_link(changes.netns()).expect("a namespace");
    drop(changes.0.stdin.take());
    let changed = poll(PATIENCE, || fs::read_link(changes.netns()).is_ok_and(|now| now != before));
    assert!(changed, "the process has its old namespace");
    let mut gone: Vec<String> = findings(&daemon)
        .iter()
        .map(|found| format!("{} {}", found["containerId"], found["certain"]))
        .collect();
    gone.sort();
    assert_eq!(gone, ["\"changes\" true", "\"ends\" true"]);
    ends(&daemon, &["gc"], 0);
    assert_eq!(holders(&daemon), ["stays"]);
}

#[test]
fn what_may_only_be_out_of_sight_is_released_by_force_only() {
    let daemon = Daemon::start(&Options::default());
    let pods = config("pods");
    let mut place = Place::new();
    let (a, b) = (place.add("a"), place.add("b"));
    added(&add_in(&daemon, "a", &a, &pods));
    added(&add_in(&daemon, "b", &b, &pods));
    // A daemon in a container: mounts of the host are files here.
    place.unmount(&a);
    let found = findings(&daemon);
    assert_eq!((&found[0]["containerId"], &found[0]["certain"]), (&json!("a"), &json!(false)));
    let said = ends(&daemon, &["gc"], 1);
    assert!(said.contains("is not a network namespace") && said.contains("say --force"), "{said}");
    // Or the directory is empty.
    fs::remove_file(&a).expect("the end of a file");
    assert_eq!(findings(&daemon)[0]["certain"], true, "b is there: this one is gone");
    place.remove(&b);
    assert!(findings(&daemon).iter().all(|found| found["certain"] == true), "it is the same");
    place.replace();
    let said = ends(&daemon, &["check"], 1);
    let where_ = place.dir.path().display();
    assert!(said.contains(&format!("all 2 network namespaces in {where_} appear gone")), "{said}");
    let said = ends(&daemon, &["gc"], 1);
    assert!(
        said.matches("skipped: ").count() == 2 && said.contains("not checked: all 2"),
        "{said}"
    );
    assert_eq!(holders(&daemon), ["a", "b"]);
    // A namespace of any container that can be seen there shows that the others are gone.
    let sign = place.add("sign");
    assert!(findings(&daemon).iter().all(|found| found["certain"] == true));
    place.remove(&sign);
    ends(&daemon, &["gc", "--force", "--dry-run"], 1);
    assert_eq!(holders(&daemon), ["a", "b"]);
    ends(&daemon, &["gc", "--force"], 1);
    assert_eq!(holders(&daemon), Vec::<String>::new());
}

#[test]
fn a_namespace_that_the_daemon_never_saw_is_not_gone_for_certain() {
    let daemon = Daemon::start(&Options::default());
    let other = Namespace::new();
    added(&add_in(&daemon, "seen", &other.path(), &config("pods")));
    let unseen = std::path::Path::new("/run/netns/leasehold-of-another-mount-namespace");
    added(&add_in(&daemon, "unseen", unseen, &config("pods")));
    let relative = std::path::Path::new("relative");
    added(&add_in(&daemon, "relative", relative, &config("pods")));
    let report = ends_json(&daemon, &["check"], 1);
    let found = &report["findings"];
    assert_eq!((&found[0]["containerId"], &found[0]["certain"]), (&json!("unseen"), &json!(false)));
    assert!(found[0]["why"].as_str().is_some_and(|why| why.contains("did not see it either")));
    assert_eq!(found[1], Value::Null);
    let unchecked = report["unchecked"][0].as_str().expect("what was not looked at");
    assert!(unchecked.starts_with("1 network namespaces cannot be looked at"), "{unchecked}");
    ends(&daemon, &["gc"], 1);
    assert_eq!(holders(&daemon), ["relative", "seen", "unseen"]);
}
