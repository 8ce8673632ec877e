//! A daemon that lost state: its state directory is gone, or is an older copy, or the daemon died
//! before its records were written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Book, RECORDS_MAX, add, add_all, address_of, await_status, containers, metric, network, nodes,
    options, wide,
};
use crate::common::etcd::Cluster;
use crate::common::{Call, Client, Daemon, LEASEHOLD, Options, Outcome, poll};

/// Long enough for the assertions that must be made before it ends.
const COOLDOWN: &str = "15s";
const COOLDOWN_S: u64 = 15;
/// The log line of a daemon that lost state.
const FORGOT: &str = "the state directory is older than this node, or new";

/// Two daemons whose released addresses cool for a while.
fn pair(etcd: &Cluster) -> Vec<Daemon> {
    let start =
        |node: &str| Daemon::start(&Options { cooldown: COOLDOWN, ..options(etcd, node, &[]) });
    let daemons = vec![start("node-0"), start("node-1")];
    for daemon in &daemons {
        await_status(daemon, "a member that knows of the other", |status| {
            status["cluster"]["state"] == "member" && status["cluster"]["alone"] == false
        });
    }
    daemons
}

fn await_member(daemon: &Daemon) {
    await_status(daemon, "a member", |status| status["cluster"]["state"] == "member");
}

/// Waits for the log line: another actor writes it than the one that reports the membership.
fn await_forgot(daemon: &Daemon) {
    let said = poll(Duration::from_secs(5), || daemon.log().contains(FORGOT));
    assert!(said, "{}", daemon.log_tail());
}

fn end_all(client: &mut Client, containers: &[String], config: &Value) {
    let calls: Vec<Call> = containers.iter().map(|c| Call::new("DEL", c, config)).collect();
    let outcomes = client.try_calls(&calls).expect("answers on the socket");
    assert!(outcomes.iter().all(Outcome::succeeded), "{outcomes:?}");
}

fn addresses(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(address_of).collect()
}

/// An ADD that asks for an address by name.
fn ask(daemon: &Daemon, container: &str, address: &str) -> Outcome {
    let mut call = Call::new("ADD", container, &wide());
    call.args = format!("IP={address}");
    daemon.client().call(&call)
}

/// Checks that `leasehold check` finds only that these containers have no network namespaces.
fn check(daemon: &Daemon) {
    let mut command = Command::new(LEASEHOLD);
    command.args(["check", "-o", "json"]).env("LEASEHOLD_SOCKET", daemon.socket());
    let output = command.output().expect("leasehold runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let findings = report["findings"].as_array().expect("findings");
    let found: Vec<&Value> = findings.iter().filter(|f| f["kind"] != "namespaceGone").collect();
    assert!(found.is_empty() && report["leftOff"] == 0, "{found:#?}\n{}", daemon.log_tail());
    let unchecked = report["unchecked"].as_array().expect("what was not looked at");
    let others = |why: &&Value| !why.as_str().is_some_and(|why| why.contains("namespaces"));
    assert_eq!(unchecked.iter().find(others), None, "the store was not looked at");
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(status.success(), "cp -a {from:?} {to:?}: {status}");
}

/// Ends one of two daemons with `end`, after which its state directory is lost. If etcd is away
/// meanwhile, the last ADDs are not recorded.
fn lost(end: impl Fn(&mut Daemon), recorded_all: bool) {
    let etcd = Cluster::start(1);
    let mut daemons = pair(&etcd);
    let (config, book) = (wide(), Book::default());
    let recorded = containers("recorded", 150);
    let before = addresses(&add_all(&mut daemons[0].client(), &recorded, &config));
    let theirs = containers("theirs", 50);
    book.add_all(&theirs, &add_all(&mut daemons[1].client(), &theirs, &config));
    recorded.iter().zip(&before).for_each(|(container, at)| book.added(container, at));
    book.await_records(&etcd, RECORDS_MAX);
    let mut unrecorded = Vec::new();
    if !recorded_all {
        etcd.pause(0);
        // Only one transaction runs at a time: the second array is in none.
        add_all(&mut daemons[0].client(), &containers("on-its-way", 5), &config);
        let late = containers("late", 20);
        unrecorded = addresses(&add_all(&mut daemons[0].client(), &late, &config));
    }
    end(&mut daemons[0]);
    if !recorded_all {
        etcd.resume(0);
    }
    fs::remove_dir_all(daemons[0].state_dir()).expect("the end of the state directory");
    let began = Instant::now();
    daemons[0].try_start().expect("a daemon that waits for its node's old lease");
    let meanwhile = containers("meanwhile", 500);
    book.add_all(&meanwhile, &add_all(&mut daemons[1].client(), &meanwhile, &config));
    // A DEL counts even if it comes before the daemon has rebuilt the allocation that it ends.
    let ended = Call::new("DEL", &recorded[0], &config);
    book.ending(&before[0]);
    assert!(daemons[0].plugin(&ended).succeeded());
    await_member(&daemons[0]);
    println!("a member after {:?}", began.elapsed());
    await_forgot(&daemons[0]);

    let again = addresses(&add_all(&mut daemons[0].client(), &recorded[1..], &config));
    assert_eq!(again, before[1..], "an ADD of what was recorded gives the same again");
    // An allocation that reached etcd although its daemon was dying is held; the rest is not.
    adopt(&daemons[0], &book, "on-its-way");
    book.compare(&daemons.iter().collect::<Vec<_>>());
    nobody_gets(&unrecorded, &daemons, &book, began);
    before[1..].iter().for_each(|at| book.ending(at));
    end_all(&mut daemons[0].client(), &recorded[1..], &config);
    book.compare(&daemons.iter().collect::<Vec<_>>());
    book.await_records(&etcd, RECORDS_MAX);
    daemons.iter().for_each(check);
}

/// Checks that no ADD gets an address that an unrecorded container may still use, before the
/// address has cooled.
fn nobody_gets(unrecorded: &[String], daemons: &[Daemon], book: &Book, began: Instant) {
    let unsure: BTreeSet<&String> = unrecorded.iter().collect();
    for (daemon, name) in daemons.iter().zip(["after-0", "after-1"]) {
        let after = containers(name, 300);
        let outcomes = add_all(&mut daemon.client(), &after, &wide());
        book.add_all(&after, &outcomes);
        let cooling = began.elapsed() < Duration::from_secs(COOLDOWN_S);
        let given: Vec<String> =
            addresses(&outcomes).into_iter().filter(|at| unsure.contains(at)).collect();
        assert!(!cooling || given.is_empty(), "{given:?} may be in use");
    }
    let cool = poll(Duration::from_secs(COOLDOWN_S + 15), || {
        metric(&daemons[0], "leasehold_addresses", &["state=\"cooling\""]) == 0.0
    });
    assert!(cool, "addresses cool for ever");
    let free: Vec<&String> = unrecorded.iter().filter(|at| !is_held(daemons, at)).take(3).collect();
    for at in free {
        assert_eq!(address_of(&ask(&daemons[0], &format!("for-{at}"), at)), *at);
        book.added(&format!("for-{at}"), at);
    }
}

/// Remembers the addresses that a daemon lists for containers whose calls may not have been carried
/// out.
fn adopt(daemon: &Daemon, book: &Book, prefix: &str) {
    for row in daemon.allocations() {
        let text = |name: &str| row[name].as_str().expect(name).to_owned();
        if text("containerId").starts_with(prefix) {
            book.added(&text("containerId"), &text("address"));
        }
    }
}

/// True if any daemon lists the address.
fn is_held(daemons: &[Daemon], address: &str) -> bool {
    daemons.iter().flat_map(Daemon::allocations).any(|row| row["address"] == address)
}

#[test]
fn a_state_directory_that_is_lost_after_a_stop_comes_back_from_the_records() {
    lost(|daemon| assert!(daemon.terminate().success()), true);
}

#[test]
fn a_state_directory_that_is_lost_with_the_daemon_comes_back_but_for_the_lag() {
    lost(Daemon::kill9, false);
}

/// After the copy was made, addresses were given and released, on this node and on another one.
#[test]
fn an_old_copy_of_the_state_directory_gives_no_address_twice() {
    let etcd = Cluster::start(1);
    let mut daemons = pair(&etcd);
    let (config, book) = (wide(), Book::default());
    let other = network("other", &json!({ "subnet": "10.9.0.0/16" }));
    let old = containers("old", 100);
    let before = addresses(&add_all(&mut daemons[0].client(), &old, &config));
    old.iter().zip(&before).for_each(|(container, at)| book.added(container, at));
    assert!(daemons[0].terminate().success());
    let kept = daemons[0].state_dir().with_file_name("copy");
    copy(&daemons[0].state_dir(), &kept);
    daemons[0].restart();

    // After the copy: some containers end, and another node gets one of their addresses; there are
    // new containers, also on a network that the copy does not know.
    before[..40].iter().for_each(|at| book.ending(at));
    end_all(&mut daemons[0].client(), &old[..40], &config);
    let since = containers("since", 300);
    let news = addresses(&add_all(&mut daemons[0].client(), &since, &config));
    since.iter().zip(&news).for_each(|(container, at)| book.added(container, at));
    let first = address_of(&add(&daemons[0], "first", &other));
    book.added("first", &first);
    let taken = poll(Duration::from_secs(COOLDOWN_S + 15), || {
        ask(&daemons[1], "taker", &before[5]).succeeded()
    });
    assert!(taken, "{:?}", ask(&daemons[1], "taker", &before[5]));
    book.added("taker", &before[5]);
    book.await_records(&etcd, RECORDS_MAX);
    assert!(daemons[0].terminate().success());
    fs::remove_dir_all(daemons[0].state_dir()).expect("the end of the state directory");
    copy(&kept, &daemons[0].state_dir());
    daemons[0].restart();
    await_member(&daemons[0]);
    await_forgot(&daemons[0]);

    let again = addresses(&add_all(&mut daemons[0].client(), &since, &config));
    assert_eq!(again, news, "an ADD of what was given since gives the same again");
    assert_eq!(address_of(&add(&daemons[0], "first", &other)), first);
    // The container whose address another node has counts as a new one.
    book.added(&old[5], &address_of(&add(&daemons[0], &old[5], &config)));
    for (daemon, name) in daemons.iter().zip(["after-0", "after-1"]) {
        let after = containers(name, 300);
        book.add_all(&after, &add_all(&mut daemon.client(), &after, &config));
    }
    // Containers that ended after the copy may hold again, until their DELs come again.
    let ends: Vec<String> = old[..40].to_vec();
    let fifth = daemons[0].allocations();
    let fifth = fifth.iter().find(|row| row["containerId"] == old[5].as_str()).expect("old-5");
    book.ending(fifth["address"].as_str().expect("an address"));
    end_all(&mut daemons[0].client(), &ends, &config);
    book.compare(&daemons.iter().collect::<Vec<_>>());
    book.await_records(&etcd, RECORDS_MAX);
    daemons.iter().for_each(check);
}

/// ADDs and DELs of which etcd knows nothing when their daemon dies.
#[test]
fn records_that_a_killed_daemon_had_not_written_are_caught_up() {
    let etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 2, &[]);
    let (config, book) = (wide(), Book::default());
    let held = containers("held", 100);
    let before = addresses(&add_all(&mut daemons[0].client(), &held, &config));
    held.iter().zip(&before).for_each(|(container, at)| book.added(container, at));
    book.await_records(&etcd, RECORDS_MAX);

    etcd.pause(0);
    // Only one transaction runs at a time, and it stays unanswered: later changes are in none.
    add(&daemons[0], "on-its-way", &config);
    end_all(&mut daemons[0].client(), &held[..40], &config);
    before[..40].iter().for_each(|at| book.ending(at));
    let late = containers("late", 60);
    book.add_all(&late, &add_all(&mut daemons[0].client(), &late, &config));
    daemons[0].kill9();
    etcd.resume(0);
    let recorded = super::records(&etcd);
    assert!(before[..40].iter().all(|at| recorded.contains_key(at)), "{recorded:?}");
    assert!(!recorded.values().any(|container| container.starts_with("late")), "{recorded:?}");
    daemons[0].restart();
    await_member(&daemons[0]);
    adopt(&daemons[0], &book, "on-its-way");
    println!("records after {:?}", book.await_records(&etcd, RECORDS_MAX));
    book.compare(&daemons.iter().collect::<Vec<_>>());
    daemons.iter().for_each(check);
}
