//! Daemons that are told to stop give back the blocks in which nothing is held.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    Book, PATIENCE, active_blocks, add, add_all, address_of, await_status, containers, network,
    nodes, options, values, wide,
};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Outcome, poll};

/// The shortest life of a parked block.
const PARKED: Duration = Duration::from_secs(30);
/// The longest time that etcd takes to end a lease whose time is over.
const LATE_MAX: Duration = Duration::from_secs(15);
/// The longest time that a daemon takes to stop.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The prefixes of the blocks in etcd in a state.
fn in_state(etcd: &Cluster, state: &str) -> Vec<String> {
    let blocks = values(etcd, "blocks/").into_iter().filter(|block| block["state"] == state);
    blocks.map(|block| block["prefix"].as_str().expect("a prefix").to_owned()).collect()
}

fn del(daemon: &Daemon, container: &str, config: &Value) {
    assert!(daemon.client().call(&Call::new("DEL", container, config)).succeeded());
}

fn stop(daemon: &mut Daemon) {
    let began = Instant::now();
    assert!(daemon.terminate().success(), "{}", daemon.log_tail());
    assert!(began.elapsed() < STOP_MAX, "stopped after {:?}", began.elapsed());
}

/// The nodes that come and go, and the containers that each of them runs.
const LIVES: usize = 30;
const OF_EACH: usize = 7;

/// Thirty nodes come, run 210 containers between them, and go. The node that stays can use every
/// address at once, also those that still cool; and what it did not need is free when its time is
/// over.
#[test]
fn short_lived_nodes_leave_every_address_to_the_others() {
    let etcd = Cluster::start(1);
    let keep = nodes(&etcd, 1, &[]).remove(0);
    let (config, book) = (network("pods", &json!({ "subnet": "10.9.0.0/24" })), Book::default());
    book.added("first", &address_of(&add(&keep, "first", &config)));
    for life in 0..LIVES {
        let mut short = Daemon::start(&options(&etcd, &format!("short-{life}"), &[]));
        let pods = containers("pod", OF_EACH);
        let outcomes = add_all(&mut short.client(), &pods, &config);
        assert!(outcomes.iter().all(Outcome::succeeded), "{outcomes:?} {}", short.log_tail());
        pods.iter().for_each(|pod| del(&short, pod, &config));
        stop(&mut short);
    }
    assert!(!in_state(&etcd, "parked").is_empty(), "{:?}", values(&etcd, "blocks/"));
    let all = containers("pod", 253 - 1);
    book.add_all(&all, &add_all(&mut keep.client(), &all, &config));
    assert_eq!(book.len(), 253, "the pool fills to the last address");
    let own = |block: &Value| block["owner"] == keep.client().get("/v1/status")["about"]["node"];
    let gone = poll(PARKED + LATE_MAX, || values(&etcd, "blocks/").iter().all(own));
    assert!(gone, "left behind: {:?}", values(&etcd, "blocks/"));
}

/// A daemon that starts again within seconds has its blocks, and none of them is parked. Without
/// a start they are free when their time is over, except for the one in which something is held.
#[test]
fn a_restart_keeps_the_blocks_and_an_end_frees_them() {
    let etcd = Cluster::start(1);
    let mut daemon = nodes(&etcd, 1, &[]).remove(0);
    let (config, book) = (wide(), Book::default());
    let all = containers("pod", 300);
    let outcomes = add_all(&mut daemon.client(), &all, &config);
    all.iter().skip(1).for_each(|container| del(&daemon, container, &config));
    book.added(&all[0], &address_of(&outcomes[0]));
    let before = active_blocks(&daemon);
    stop(&mut daemon);
    let parked = in_state(&etcd, "parked");
    assert!(!parked.is_empty() && parked.len() < before.len(), "{parked:?} of {before:?}");
    daemon.restart();
    await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
    assert_eq!(active_blocks(&daemon), before, "{}", daemon.log_tail());
    assert_eq!(in_state(&etcd, "parked"), Vec::<String>::new());

    stop(&mut daemon);
    let stopped = Instant::now();
    assert!(!in_state(&etcd, "parked").is_empty());
    let free = poll(PARKED + LATE_MAX, || in_state(&etcd, "parked").is_empty());
    let took = stopped.elapsed();
    assert!(free && took + Duration::from_secs(2) > PARKED, "free: {free}, after {took:?}");
    assert_eq!(in_state(&etcd, "active").len(), before.len() - parked.len());
    daemon.restart();
    await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
    book.compare(&[&daemon]);
    let more = containers("more", 200);
    book.add_all(&more, &add_all(&mut daemon.client(), &more, &config));
}

/// A daemon that cannot reach etcd stops in time, keeps its blocks, and serves from them after its
/// next start, still without etcd.
#[test]
fn a_daemon_that_stops_in_an_outage_keeps_its_blocks() {
    let mut etcd = Cluster::start(1);
    let mut daemon = nodes(&etcd, 1, &[]).remove(0);
    let config = wide();
    let all = containers("pod", 100);
    add_all(&mut daemon.client(), &all, &config);
    all.iter().for_each(|container| del(&daemon, container, &config));
    let before = active_blocks(&daemon);
    etcd.kill(0);
    await_status(&daemon, "without etcd", |status| !status["cluster"]["cause"].is_null());
    stop(&mut daemon);
    daemon.restart();
    assert!(add(&daemon, "without", &config).succeeded(), "{}", daemon.log_tail());
    etcd.restart(0);
    await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
    assert_eq!(active_blocks(&daemon), before);
}

/// The state that a daemon says it is in; empty if it does not answer.
fn state(daemon: &Daemon) -> String {
    let reply = daemon.client().try_request("GET", "/v1/status", "");
    let status: Value =
        reply.ok().and_then(|reply| serde_json::from_str(&reply.body).ok()).unwrap_or_default();
    status["state"].as_str().unwrap_or_default().to_owned()
}

/// A step of a start, and whether a daemon has come to it.
type Step<'a> = (&'a str, &'a dyn Fn(&Daemon) -> bool);

/// SIGTERM comes at each step of a start: when the state directory is locked, when the socket is
/// there, when the daemon answers, when it is a member. It ends in order, and the next one has
/// everything.
#[test]
fn sigterm_at_each_step_of_a_start_ends_the_daemon_in_order() {
    let etcd = Cluster::start(1);
    let mut daemon = nodes(&etcd, 1, &[]).remove(0);
    let (config, book) = (wide(), Book::default());
    let all = containers("pod", 100);
    book.add_all(&all, &add_all(&mut daemon.client(), &all, &config));
    stop(&mut daemon);
    let lock = daemon.state_dir().join("lock");
    let locked = |_: &Daemon| lock.exists();
    let is_member = |daemon: &Daemon| daemon.log().matches(" serving ").count() > 1;
    let steps: [Step<'_>; 4] = [
        ("locked", &locked),
        ("bound", &|daemon| daemon.socket().exists()),
        ("answering", &|daemon| !state(daemon).is_empty()),
        ("serving", &is_member),
    ];
    for (step, is_there) in steps {
        fs::remove_file(&lock).expect("the lock of the daemon before");
        daemon.begin();
        assert!(poll(PATIENCE, || is_there(&daemon)), "{step}\n{}", daemon.log_tail());
        stop(&mut daemon);
        assert!(!daemon.socket().exists(), "{step}: the socket is still there");
    }
    daemon.restart();
    await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
    book.compare(&[&daemon]);
}

/// A DEL of the plugin reaches a daemon that takes no calls any more: it leaves a note, and the
/// next daemon acts on that.
#[test]
fn a_del_that_reaches_a_stopping_daemon_is_kept_as_a_note() {
    let etcd = Cluster::start(1);
    let mut daemon = nodes(&etcd, 1, &[]).remove(0);
    let config = wide();
    for container in ["stays", "goes"] {
        assert!(add(&daemon, container, &config).succeeded());
    }
    let (socket, second) = (daemon.socket(), daemon.socket().with_file_name("second"));
    fs::hard_link(&socket, &second).expect("a second name of the socket");
    // Without an answer of etcd the stop takes some seconds.
    etcd.pause(0);
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("an id")).expect("an id");
    kill_process(pid, Signal::TERM).expect("SIGTERM to the daemon");
    assert!(poll(PATIENCE, || !socket.exists()), "{}", daemon.log_tail());
    // As if the plugin had connected just before the socket's name went.
    fs::rename(&second, &socket).expect("the socket's name again");
    assert!(poll(PATIENCE, || state(&daemon) == "stopping"), "{}", daemon.log_tail());
    let refused = daemon.plugin(&Call::new("ADD", "late", &config));
    assert_eq!(refused.code(), Some(11), "it takes no calls: {refused:?}");
    assert!(refused.message().contains("stop"), "{refused:?}");
    let deleted = daemon.plugin(&Call::new("DEL", "goes", &config));
    assert_eq!(deleted, Outcome::Done(None), "{}", daemon.log_tail());
    let notes = fs::read_dir(daemon.notes_dir()).expect("the notes").count();
    assert_eq!(notes, 1, "{}", daemon.log_tail());
    let ended = poll(PATIENCE + STOP_MAX, || daemon.ended().is_some());
    assert!(ended, "{}", daemon.log_tail());
    etcd.resume(0);
    daemon.kill9(); // it has ended; so it is known that none runs
    daemon.try_start().expect("it starts again");
    let held: Vec<Value> =
        daemon.allocations().iter().map(|row| row["containerId"].clone()).collect();
    assert_eq!(held, ["stays"], "{}", daemon.log_tail());
}
