//! The end of a run: everything is mended, and everything must be well.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::callers::{addresses, call, post};
use super::history::{Addresses, By, Container, NodeAt, What};
use super::link::Way;
use super::run::{Node, Run};
use crate::cluster::values;
use crate::common::{Client, Outcome};

/// The time within which all is well after it was mended. A restore of etcd takes a minute more.
const WELL_WITHIN: Duration = Duration::from_secs(60);
/// The time within which a daemon has acted on all notes.
const NOTES_WITHIN: Duration = Duration::from_secs(20);
/// The time within which every address can be had again.
const FREE_WITHIN: Duration = Duration::from_secs(60);

/// Waits until all faults are mended: they mend what they broke. All nodes must be members.
pub(super) fn mend(run: &Run) {
    for node in &run.nodes {
        node.links.set(Way::Open);
        let mut daemon = node.daemon.lock().expect("a daemon");
        if let Some(status) = daemon.ended() {
            panic!("{} has ended by itself: {status}\n{}", node.name, daemon.log_tail());
        }
    }
    run.history.fault("all is mended".to_owned());
    let settling = run.settling.lock().expect("a time").saturating_sub(run.history.now());
    for node in &run.nodes {
        run.await_node(node, WELL_WITHIN + settling, Node::is_member);
    }
}

/// Checks what nodes hold against what callers were told, ends all, and has every address again.
pub(super) fn check(run: &Run) {
    run.history.fault("the end: callers are done".to_owned());
    for node in &run.nodes {
        let none = || std::fs::read_dir(&node.notes).is_ok_and(|notes| notes.count() == 0);
        assert!(run.poll(NOTES_WITHIN, none), "{} does not act on its notes", node.name);
        run.await_node(node, WELL_WITHIN, Node::is_settled);
        list(run, node);
    }
    for (container, at, addresses) in run.history.held() {
        again(run, container, &addresses, at);
    }
    compare_records(run);
    for node in &run.nodes {
        // What may have risen, as the documents say, goes now.
        for (container, addresses) in node.listing().expect("a list") {
            end(run, container, &addresses, node);
        }
        list(run, node);
        let left = node.listing().expect("a list");
        assert!(
            left.is_empty() || run.is_over(),
            "{} holds {left:?} after everything was ended\n{}",
            node.name,
            run.history.violations().len()
        );
    }
    if !run.is_over() {
        fill(run);
    }
    for node in &run.nodes {
        let log = node.daemon.lock().expect("a daemon").log();
        let panicked = log.lines().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None, "{}", node.name);
    }
}

fn list(run: &Run, node: &Node) {
    assert!(run.poll(WELL_WITHIN, || run.list(node, true)), "{} does not answer", node.name);
}

/// An ADD of what a container has gives the same again.
fn again(run: &Run, container: Container, addresses: &Addresses, at: NodeAt) {
    run.history.note(What::Add(container, at));
    let call = call("ADD", container, network_of(run, addresses));
    let what = match post(&mut Client::new(run.nodes[at].socket.clone()), &call) {
        Some(Outcome::Done(Some(result))) => What::Added(container, self::addresses(&result)),
        Some(Outcome::Refused(error)) => {
            What::Refused(container, error["code"].as_u64().expect("a code"))
        }
        other => panic!("the ADD of a container that holds is answered with {other:?}"),
    };
    run.history.note(what);
}

/// The network of these addresses: one of the two has two families.
fn network_of<'a>(run: &'a Run, addresses: &Addresses) -> &'a Value {
    &run.networks[usize::from(addresses.len() > 1)]
}

fn end(run: &Run, container: Container, addresses: &Addresses, node: &Node) {
    run.history.note(What::Del(container));
    let call = call("DEL", container, network_of(run, addresses));
    let answer = post(&mut Client::new(node.socket.clone()), &call);
    assert!(matches!(answer, Some(Outcome::Done(_))), "a DEL is answered with {answer:?}");
    run.history.note(What::Deleted(container, By::Socket));
}

/// The records in etcd are what nodes list.
fn compare_records(run: &Run) {
    let mut listed = BTreeMap::<String, String>::new();
    for node in &run.nodes {
        for (container, addresses) in node.listing().expect("a list") {
            for address in addresses {
                listed.insert(address.to_string(), format!("c{container:06} on {}", node.name));
            }
        }
    }
    let stored = || {
        let etcd = run.etcd.lock().expect("etcd");
        let mut stored = BTreeMap::<String, String>::new();
        for record in values(&etcd, "allocations/") {
            let text = |name: &str| record[name].as_str().expect("a text").to_owned();
            let of = format!("{} on {}", text("containerId"), text("node"));
            for address in record["addresses"].as_array().expect("addresses") {
                stored.insert(address.as_str().expect("an address").to_owned(), of.clone());
            }
        }
        stored
    };
    let same = run.poll(WELL_WITHIN, || stored() == listed);
    assert!(same || run.is_over(), "etcd records {:#?}, listed is {listed:#?}", stored());
}

/// Every address of the network that all want one of can be had again, and no more than there are.
fn fill(run: &Run) {
    let begun = Instant::now();
    let mut had = BTreeMap::<Container, (NodeAt, Addresses)>::new();
    let mut last = None;
    for turn in 0.. {
        if had.len() == usize::from(run.settings.tight) || run.is_over() {
            break;
        }
        assert!(
            begun.elapsed() < FREE_WITHIN,
            "only {} of {} addresses can be had: {last:?}\n{had:?}",
            had.len(),
            run.settings.tight
        );
        let node = &run.nodes[turn % run.nodes.len()];
        let container = run.new_container();
        run.history.note(What::Add(container, node.at));
        let answer =
            post(&mut Client::new(node.socket.clone()), &call("ADD", container, &run.networks[0]));
        match answer {
            Some(Outcome::Done(Some(result))) => {
                let addresses = addresses(&result);
                run.history.note(What::Added(container, addresses.clone()));
                had.insert(container, (node.at, addresses));
            }
            other => {
                // Addresses cool, and blocks are on their way.
                run.history.note(What::AddLost(container));
                last = other;
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}
