//! Every node uses a change of a centrally kept object as soon as it hears of it.

use serde_json::{Value, json};

use super::super::common::etcd::Cluster;
use super::super::common::{Daemon, Options, poll};
use super::networks::{Files, bare, put};
use super::{
    PATIENCE, address, call, config, ends, ends_json, fails, first, leasehold_with, start, texts,
};

fn pods() -> Value {
    config("pods", &bare())
}

fn edit(daemon: &Daemon, sed: &str) {
    let editor = format!("sed -i '{sed}'");
    let output = leasehold_with(
        &daemon.socket(),
        &["network", "edit", "pods"],
        &[("VISUAL", ""), ("EDITOR", &editor)],
    );
    let (stdout, stderr) = texts(&output);
    assert!(stdout.starts_with("changed"), "{sed}: {stdout}{stderr}");
}

/// True if a node has taken in an object, by the routes that an attachment gets: each object of
/// these tests has another metric.
fn follows(daemon: &Daemon, container: &str, priority: u64) {
    let shown = || {
        let added = call(daemon, "ADD", container, &pods());
        added.succeeded() && added.expect_result()["routes"][0]["priority"] == priority
    };
    assert!(poll(PATIENCE, shown), "{:?}", call(daemon, "ADD", container, &pods()));
}

fn object(range: &Value, priority: u64) -> Value {
    json!({ "ranges": [[range]], "routes": [{ "dst": "0.0.0.0/0", "priority": priority }] })
}

#[test]
fn ranges_grow_shrink_and_move_under_running_containers() {
    let etcd = Cluster::start(1);
    let (a, b) = (start(&etcd, "a"), start(&etcd, "b"));
    let files = Files::new();
    let small = json!({ "subnet": "10.44.0.0/29" });
    put(&a, &files, "pods", &object(&small, 1));
    follows(&b, "b1", 1);
    let mut held = vec![("b1", address(&b, "b1", &pods()))];
    for (daemon, container) in [(&a, "a1"), (&a, "a2"), (&b, "b2"), (&b, "b3")] {
        held.push((container, address(daemon, container, &pods())));
    }
    let full = call(&a, "ADD", "a3", &pods());
    assert_eq!(full.code(), Some(100), "{full:?}");
    // It grows, by a hand in an editor on the other node.
    edit(&b, "s|0.0/29|0.0/28|;s|\"priority\": 1|\"priority\": 2|");
    follows(&a, "a1", 2);
    let grown = address(&a, "a3", &pods());
    assert!(!held.iter().any(|(_, address)| *address == grown), "{grown}: {held:?}");
    held.push(("a3", grown));
    // It shrinks to one address that is held. Addresses outside stay held, and pass a CHECK.
    let one = json!({ "subnet": "10.44.0.0/28", "rangeStart": held[0].1, "rangeEnd": held[0].1 });
    put(&a, &files, "pods", &object(&one, 3));
    follows(&b, "b1", 3);
    let on = |container: &str| if container.starts_with('a') { &a } else { &b };
    for (container, address) in &held {
        let mut check = pods();
        let ips = json!([{ "address": format!("{address}/28") }]);
        check["prevResult"] = json!({ "cniVersion": "1.0.0", "ips": ips });
        let checked = call(on(container), "CHECK", container, &check);
        assert!(checked.succeeded(), "{container}: {checked:?}");
    }
    assert_eq!(a.allocations().len() + b.allocations().len(), held.len());
    // After their DELs, the address outside is not given out again, but the one inside is.
    for (container, _) in &held[1..] {
        assert!(call(on(container), "DEL", container, &pods()).succeeded());
    }
    for daemon in [&a, &b] {
        let full = call(daemon, "ADD", "new", &pods());
        assert_eq!(full.code(), Some(100), "{full:?}");
    }
    assert!(call(&b, "DEL", "b1", &pods()).succeeded());
    // The other node is asked for it, at the latest when its last answer has aged.
    let given = poll(PATIENCE, || call(&a, "ADD", "new", &pods()).succeeded());
    assert!(given, "{:?}", call(&a, "ADD", "new", &pods()));
    assert_eq!(address(&a, "new", &pods()), held[0].1);
    // Other ranges altogether, with the gateway at their end.
    let moved = json!({ "subnet": "10.47.0.0/28", "gateway": "10.47.0.14" });
    put(&b, &files, "pods", &object(&moved, 4));
    follows(&a, "a4", 4);
    let added = call(&a, "ADD", "a4", &pods());
    assert_eq!(first(&added)[..7], *"10.47.0");
    assert_eq!(added.expect_result()["ips"][0]["gateway"], "10.47.0.14");
    // The gateway moves, and the old one can be had; an answer that is given again has the new.
    let moved = json!({ "subnet": "10.47.0.0/28", "gateway": "10.47.0.13" });
    put(&b, &files, "pods", &object(&moved, 5));
    follows(&a, "a4", 5);
    let added = call(&a, "ADD", "a4", &pods());
    assert_eq!(added.expect_result()["ips"][0]["gateway"], "10.47.0.13");
    let others: Vec<String> =
        (0..12).map(|n| address([&a, &b][n % 2], &format!("m{n}"), &pods())).collect();
    assert!(others.contains(&"10.47.0.14".to_owned()), "{others:?}");
    assert!(!others.contains(&"10.47.0.13".to_owned()), "{others:?}");
    // Addresses that the first object gave are still held.
    assert!(a.allocations().iter().any(|row| row["address"] == held[0].1.as_str()));
}

#[test]
fn a_mistake_changes_nothing_and_is_one_line_that_names_the_field() {
    let daemon = Daemon::start(&Options::default());
    let files = Files::new();
    let good = json!({ "subnet": "10.48.0.0/24", "blockSize": 28 });
    put(&daemon, &files, "pods", &good);
    assert_eq!(address(&daemon, "c1", &pods()), "10.48.0.2");
    let other = json!({ "subnet": "10.49.0.0/24", "blockSize": 30 });
    put(&daemon, &files, "pods", &other);
    assert_eq!(address(&daemon, "c2", &pods()), "10.49.0.2");
    let before = ends_json(&daemon, &["network", "get", "pods"], 0);
    for (object, words) in [
        (json!({ "subnet": "10.48.0.0/33" }), &["ipam.subnet", "10.1.2.0/24"][..]),
        (json!({ "subnet": "10.48.0.1/24" }), &["ipam.subnet must be 10.48.0.0/24"]),
        (
            json!({ "ranges": [[{ "subnet": "10.48.0.0/24", "rangeStart": "10.49.0.1" }]] }),
            &["ipam.ranges[0][0].rangeStart must be from 10.48.0.0 to 10.48.0.255"],
        ),
        (
            json!({ "ranges": [[{ "subnet": "10.48.0.0/24" }], [{ "subnet": "10.48.0.0/25" }]] }),
            &["range set 0 overlaps with 1", "set 0 is 10.48.0.1-10.48.0.254"],
        ),
        (json!({ "subnet": "10.48.0.0/24", "blockSize": 8 }), &["ipam.blockSize", "/20"]),
        // An object that every node would have to refuse later is refused now.
        (
            json!({ "subnet": "10.48.0.0/24", "blockSize": 29 }),
            &["ipam.blockSize is /29", "have agreed on blocks of /28", "leave blockSize out"],
        ),
        (
            json!({ "subnet": "10.48.0.0/15" }),
            &["range set 0 (10.48.0.1-10.49.255.254) joins", "/28", "/30", "of their own"],
        ),
    ] {
        let file = files.write("bad.json", &object.to_string());
        let said = fails(&daemon, &["network", "put", "pods", &file]);
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }
    assert_eq!(ends_json(&daemon, &["network", "get", "pods"], 0), before);
    assert_eq!(address(&daemon, "c3", &pods()), "10.49.0.3");
    // Without a block size of its own it uses the size that was agreed on.
    put(&daemon, &files, "pods", &json!({ "subnet": "10.48.0.0/24" }));
    assert_eq!(address(&daemon, "c4", &pods()), "10.48.0.3");
    let sizes = ends(&daemon, &["network", "list"], 0);
    assert!(sizes.contains("/28 (ipv4), /30 (ipv4)"), "{sizes}");
}

#[test]
fn a_node_that_is_cut_off_or_down_catches_up() {
    let etcd = Cluster::start(3);
    // Each node knows one member only. That of b is not the leader: the others go on without it.
    let (leader, alone) = (etcd.leader(), (etcd.leader() + 1) % 3);
    let node = |name: &str, member| {
        let endpoint = etcd.endpoint(member);
        let args = ["--etcd", &endpoint, "--node", name, "--lease-ttl", "5s"].map(str::to_owned);
        Daemon::start(&Options { args: args.to_vec(), ..Options::default() })
    };
    let (a, b, mut c) = (node("a", leader), node("b", alone), node("c", leader));
    let files = Files::new();
    let range = |subnet: &str| json!({ "subnet": subnet });
    put(&a, &files, "pods", &object(&range("10.50.0.0/24"), 1));
    follows(&b, "b1", 1);
    follows(&c, "c1", 1);
    c.terminate();
    etcd.pause(alone);
    put(&a, &files, "pods", &object(&range("10.51.0.0/24"), 2));
    follows_new(&a, "10.51.0.");
    // Cut off, b goes on with the object that it knows.
    let offline = call(&b, "ADD", "b2", &pods());
    assert!(first(&offline).starts_with("10.50.0."), "{offline:?}");
    etcd.resume(alone);
    follows_new(&b, "10.51.0.");
    c.restart();
    follows_new(&c, "10.51.0.");
    let held: Vec<Value> = b.allocations().into_iter().map(|row| row["address"].clone()).collect();
    let old = held.iter().filter(|a| a.as_str().is_some_and(|a| a.starts_with("10.50.0.")));
    assert_eq!(old.count(), 2, "what b gave meanwhile stays: {held:?}");
}

/// Waits until new containers of a node get addresses that begin with `prefix`.
fn follows_new(daemon: &Daemon, prefix: &str) {
    let mut count = 0;
    let new = || {
        count += 1;
        let added = call(daemon, "ADD", &format!("new{count}"), &pods());
        let good = added.succeeded() && first(&added).starts_with(prefix);
        assert!(good || call(daemon, "DEL", &format!("new{count}"), &pods()).succeeded());
        good
    };
    assert!(poll(PATIENCE, new), "{}", daemon.log_tail());
}
