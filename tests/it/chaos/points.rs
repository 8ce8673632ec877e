//! A daemon ends at a named point (`src/points.rs`), and the next one has given nothing twice and
//! lost nothing.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::callers::{addresses, call, post};
use super::history::{Addresses, By, Container, History, NodeAt, What};
use crate::cluster::{await_status, network, options, values};
use crate::common::etcd::Cluster;
use crate::common::{Client, Daemon, Options, Outcome, poll};

/// Addresses of the network: two nodes want more blocks all the time.
const ADDRESSES: usize = 40;
/// The time within which a daemon ends at its point.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// The time within which every address can be had.
const FREE_WITHIN: Duration = Duration::from_secs(40);
/// Containers that the first daemon has before it is started with a point.
const BEFORE: Container = 8;

/// Two nodes, of which the first one ends at a point.
struct World {
    etcd: Cluster,
    nodes: [Daemon; 2],
    history: History,
    network: Value,
    next: Container,
}

impl World {
    fn new() -> Self {
        let etcd = Cluster::start(1);
        let start = |name: &str| Daemon::start(&options(&etcd, name, &[]));
        let nodes = [start("node-0"), start("node-1")];
        let last = format!("10.3.0.{}", 9 + ADDRESSES);
        let range = json!({ "subnet": "10.3.0.0/24", "rangeStart": "10.3.0.10", "rangeEnd": last });
        let mut network = network("points", &range);
        network["ipam"]["blockSize"] = 30.into();
        let mut world = Self { etcd, nodes, history: History::new(2), network, next: 1 };
        world.nodes.iter().for_each(await_member);
        for _ in 0..BEFORE {
            assert!(world.add(0).is_some() && world.add(1).is_some());
        }
        // A state directory that is lost brings back what is recorded.
        let recorded = || values(&world.etcd, "allocations/").len() == world.history.held().len();
        assert!(poll(ENDS_WITHIN, recorded), "records are not written");
        world
    }

    /// Has the next daemon of the first node end at a point, or none.
    fn arm(&mut self, point: Option<&str>) {
        let mut options: Options = options(&self.etcd, "node-0", &[]);
        let at = |point: &str| ("LEASEHOLD_ABORT_AT".to_owned(), point.to_owned());
        options.env.extend(point.map(at));
        self.nodes[0].set_options(options);
    }

    /// An ADD of a new container; the container, if it was answered.
    fn add(&mut self, node: NodeAt) -> Option<Container> {
        let container = self.next;
        self.next += 1;
        self.add_again(container, node).then_some(container)
    }

    fn add_again(&self, container: Container, node: NodeAt) -> bool {
        self.history.note(What::Add(container, node));
        let mut client = Client::new(self.nodes[node].socket());
        let what = match post(&mut client, &call("ADD", container, &self.network)) {
            Some(Outcome::Done(Some(result))) => What::Added(container, addresses(&result)),
            Some(Outcome::Refused(error)) => {
                What::Refused(container, error["code"].as_u64().expect("a code"))
            }
            _ => What::AddLost(container),
        };
        let answered = matches!(what, What::Added(..));
        self.history.note(what);
        answered
    }

    fn del(&self, container: Container, node: NodeAt) -> bool {
        self.history.note(What::Del(container));
        let mut client = Client::new(self.nodes[node].socket());
        let answer = post(&mut client, &call("DEL", container, &self.network));
        let done = matches!(answer, Some(Outcome::Done(_)));
        if done {
            self.history.note(What::Deleted(container, By::Socket));
        }
        done
    }

    /// ADDs and DELs on the first node until it has ended. Containers of unknown state are ended
    /// later.
    fn call_until_it_ends(&mut self) {
        let mut own: Vec<Container> = Vec::new();
        let ended = poll(ENDS_WITHIN, || {
            own.extend(self.add(0));
            if own.len() > 10 {
                let oldest = own.remove(0);
                self.del(oldest, 0);
            }
            self.nodes[0].ended().is_some()
        });
        self.assert_ended(ended);
    }

    fn await_its_end(&mut self) {
        let ended = poll(ENDS_WITHIN, || self.nodes[0].ended().is_some());
        self.assert_ended(ended);
    }

    /// The daemon has ended by itself, and not because something else was wrong.
    fn assert_ended(&mut self, ended: bool) {
        assert!(ended, "it does not end at its point\n{}", self.nodes[0].log_tail());
        let status = self.nodes[0].ended().expect("an end");
        let by = std::os::unix::process::ExitStatusExt::signal(&status);
        // SIGABRT.
        assert_eq!(by, Some(6), "{status}\n{}", self.nodes[0].log_tail());
        self.nodes[0].kill9();
    }

    /// Starts the daemon that was not killed on purpose, and judges everything.
    fn judge(mut self) {
        self.arm(None);
        self.nodes[0].restart();
        self.nodes.iter().for_each(await_member);
        self.list();
        let held = self.history.held();
        assert!(held.len() >= usize::try_from(BEFORE).expect("a few"), "{held:?}");
        for &(container, node, _) in &held {
            assert!(self.add_again(container, node), "{}", self.nodes[node].log_tail());
        }
        // What may hold something goes; then every other address can be had, and none of these.
        for container in 1..self.next {
            if !held.iter().any(|(it, ..)| *it == container) {
                assert!(self.del(container, 0), "{}", self.nodes[0].log_tail());
            }
        }
        let mut left = ADDRESSES - held.len();
        let all = poll(FREE_WITHIN, || {
            left -= (0..2).filter(|&node| left > 0 && self.add(node).is_some()).count();
            left == 0
        });
        self.assert_legal();
        assert!(all, "{left} addresses cannot be had\n{}", self.nodes[0].log_tail());
        self.list();
        for (container, node, _) in self.history.held() {
            assert!(self.del(container, node));
        }
        self.list();
        for node in &self.nodes {
            assert_eq!(node.allocations(), Vec::<Value>::new(), "{}", node.log_tail());
        }
    }

    fn list(&self) {
        for (node, daemon) in self.nodes.iter().enumerate() {
            let asked = self.history.now();
            let mut held = std::collections::BTreeMap::<Container, Addresses>::new();
            for row in daemon.allocations() {
                let text = |name: &str| row[name].as_str().expect(name).to_owned();
                let container = text("containerId").trim_start_matches('c').parse();
                let address = text("address").parse().expect("an address");
                held.entry(container.expect("a number")).or_default().push(address);
            }
            self.history.note(What::Listed { node, asked, held, last: true });
        }
        self.assert_legal();
    }

    fn assert_legal(&self) {
        let violations = self.history.violations();
        let stories: Vec<_> = violations.iter().map(|one| self.history.story(one)).collect();
        assert!(stories.is_empty(), "{}", stories.join("\n"));
    }
}

fn await_member(daemon: &Daemon) {
    await_status(daemon, "a member with its records written", |status| {
        let cluster = &status["cluster"];
        cluster["state"] == "member" && cluster["recordsWaiting"] == 0
    });
}

/// While calls are made, at each of these points, early and late.
#[test]
fn at_a_point_of_a_call_nothing_is_given_twice_or_lost() {
    for point in [
        "before-commit:5",
        "before-commit:30",
        "after-commit:5",
        "after-commit:30",
        "before-answer:3",
        "before-answer:20",
        "after-answer:3",
        "after-answer:20",
        "transaction-done:3",
        "transaction-done:6",
    ] {
        println!("{point}");
        let mut world = World::new();
        world.arm(Some(point));
        world.nodes[0].kill9();
        world.nodes[0].begin();
        world.call_until_it_ends();
        world.judge();
    }
}

/// The store takes the daemon as the node, and the daemon dies before it knows.
#[test]
fn at_the_moment_of_joining_nothing_is_given_twice_or_lost() {
    let mut world = World::new();
    world.arm(Some("joining"));
    world.nodes[0].kill9();
    world.nodes[0].begin();
    world.await_its_end();
    world.judge();
}

/// The state directory is lost, and the daemon dies while it reads what it held.
#[test]
fn at_the_moment_of_remembering_nothing_is_given_twice_or_lost() {
    let mut world = World::new();
    world.arm(Some("remembering"));
    world.nodes[0].kill9();
    fs::remove_dir_all(world.nodes[0].state_dir()).expect("the end of a state directory");
    world.nodes[0].begin();
    world.await_its_end();
    world.judge();
}

/// The daemon dies while it stops: before it has finished its calls, when its blocks are parked,
/// and when its socket is closed.
#[test]
fn at_each_step_of_a_stop_nothing_is_given_twice_or_lost() {
    for step in 1..=3 {
        let mut world = World::new();
        world.arm(Some(&format!("stopping:{step}")));
        world.nodes[0].restart();
        await_member(&world.nodes[0]);
        assert!(world.add(0).is_some());
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(world.nodes[0].pid()).expect("an id"))
                .expect("an id"),
            rustix::process::Signal::TERM,
        )
        .expect("SIGTERM to the daemon");
        world.await_its_end();
        world.judge();
    }
}
