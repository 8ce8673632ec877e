//! The requests of runtimes, and the answers that they must get.

use std::net::IpAddr;
use std::time::Duration;

use super::node::Daemon;
use super::world::{Container, Event, State, World};
use crate::core::attachment::AttachmentId;
use crate::core::container_id::ContainerId;
use crate::core::coordinator::{Add, Call, CallError, Del, HoldingSelector, Outcome};
use crate::core::ids::{CallId, Sequence};
use crate::core::node::RangeSetMachine;
use crate::core::range_set::AssignError;
use crate::core::time::{BootTime, StartTime, UnixTime};

impl World {
    pub(super) fn some_calls(&mut self) {
        let wait = self.rng.u64(0..=self.plan.between_calls * 2);
        self.after(wait.max(1), Event::Calls);
        let node = self.rng.usize(0..self.nodes.len());
        let of = &self.nodes[node];
        // Without the store nobody can know that the journal is an old copy. One that is new has
        // nothing to hand out.
        let knowing = |daemon: &Daemon| {
            of.disk.is_new || self.plan.has_no_outages() && daemon.coordinator.holds_calls()
        };
        let serves = |daemon: &Daemon| daemon.is_member() || !of.disk.forgot || knowing(daemon);
        if !of.daemon.as_ref().is_some_and(serves) || of.paused_until > self.now {
            return;
        }
        let of: Vec<u64> =
            self.containers.iter().filter(|(_, c)| c.node == node).map(|(id, _)| *id).collect();
        let orphans = of.iter().copied().find(|id| self.containers[id].state == State::Orphan);
        if let Some(orphan) = orphans {
            return self.delete(orphan);
        }
        if self.quiet {
            return;
        }
        let ebb = self.plan.tides && (self.now / 45_000 + node as u64).is_multiple_of(2);
        let wanted = if ebb { 1 } else { self.plan.containers };
        let wants_more = of.len() < wanted;
        if wants_more && (of.is_empty() || self.rng.u32(0..3) > 0) {
            let requested = (self.rng.u32(0..8) == 0).then(|| self.any_address());
            self.add(node, requested);
        } else if !of.is_empty() {
            let id = of[self.rng.usize(0..of.len())];
            if matches!(self.containers[&id].state, State::Running(_)) {
                if self.plan.repeats && self.rng.u32(0..4) == 0 {
                    self.repeat(id);
                } else {
                    self.delete(id);
                }
            }
        }
    }

    /// Returns an address of some range set of the current configuration.
    pub(super) fn any_address(&mut self) -> IpAddr {
        let sets = &self.configuration;
        let set = &sets[self.rng.usize(0..sets.len())];
        let ranges: Vec<_> = set.iter().collect();
        let range = ranges[self.rng.usize(0..ranges.len())];
        let size = range.addresses().count();
        let at = range.first().plus(u128::from(self.rng.u64(0..size as u64)));
        range.family().address(at)
    }

    /// Lets a container on that node ask for an address; returns its name.
    pub(super) fn add(&mut self, node: usize, requested: Option<IpAddr>) -> u64 {
        let id = self.next_call;
        let container = Container { node, state: State::Adding, requested, overdue: false };
        self.containers.insert(id, container);
        self.say(|| format!("n{node} ADD c{id} {requested:?}"));
        self.call_add(id);
        id
    }

    /// Lets the runtime repeat the ADD of a container that runs.
    pub(super) fn repeat(&mut self, id: u64) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let State::Running(addresses) = &container.state else { return };
        container.state = State::Renewing(addresses.clone());
        let node = container.node;
        self.say(|| format!("n{node} ADD c{id} again"));
        // Somebody has seen the holding in a list, and releases it after it was renewed.
        let daemon = self.nodes[node].daemon.as_ref();
        let listed = daemon.and_then(|daemon| daemon.coordinator.held().find(&attachment(id)));
        if let Some(sequence) = listed.map(|holding| holding.sequence) {
            let wait = self.rng.u64(1..2_000);
            self.after(wait, Event::Release { container: id, sequence });
        }
        self.call_add(id);
    }

    /// Has an operator release a holding that was renewed since it was listed: it stays (rule 8).
    pub(super) fn release_renewed(&mut self, container: u64, sequence: Sequence) {
        let Some(of) = self.containers.get(&container) else { return };
        let daemon = self.nodes[of.node].daemon.as_ref();
        let holding = daemon.and_then(|of| of.coordinator.held().find(&attachment(container)));
        if holding.is_none_or(|holding| holding.sequence == sequence)
            || self.nodes[of.node].paused_until > self.now
        {
            return;
        }
        let selector = HoldingSelector::Sequence(sequence);
        let call = Call::Del(Del { id: attachment(container), selector });
        let node = of.node;
        let id = self.new_call();
        self.say(|| format!("n{node} release of c{container} as it was"));
        self.with(node, |daemon, _| daemon.call(id, call));
    }

    fn call_add(&mut self, id: u64) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let (node, requested) = (container.node, container.requested);
        let silence = self.nodes[node]
            .daemon
            .as_ref()
            .map(|of| of.leaseholder().silence(BootTime::from_millis(self.now)));
        let limit = self.plan.offline_limit;
        container.overdue = limit.is_some_and(|limit| silence.is_some_and(|of| of > limit));
        let call = self.new_call();
        self.calls.insert(call, id);
        let add = Call::Add(Box::new(Add {
            id: attachment(id),
            pool: "net".into(),
            sets: self.configuration.clone(),
            requested: requested.into_iter().collect(),
            stage: None,
            pod: None,
            netns: "".into(),
            started_at: Some(StartTime::from_nanos(self.now * 1_000_000)),
            waited_since: None,
            at: UnixTime::from_millis(0),
        }));
        self.with(node, |daemon, _| daemon.call(call, add));
    }

    /// Ends the container; returns the name of the call.
    pub(super) fn delete(&mut self, container: u64) {
        let Some(of) = self.containers.get_mut(&container) else { return };
        of.state = State::Deleting;
        let node = of.node;
        self.held.retain(|_, id| *id != container);
        let holds = |of: &Daemon| of.coordinator.held().find(&attachment(container)).is_some();
        let knows = |of: &Daemon| of.is_member() && holds(of);
        if !self.nodes[node].daemon.as_ref().is_some_and(knows) {
            self.blind_dels.insert(container);
        }
        let id = self.new_call();
        self.calls.insert(id, container);
        let started = StartTime::from_nanos(self.now * 1_000_000);
        let call = Call::Del(Del {
            id: attachment(container),
            selector: HoldingSelector::StartedBy(started),
        });
        self.say(|| format!("n{node} DEL c{container}"));
        self.with(node, |daemon, _| daemon.call(id, call));
    }

    pub(super) fn replied(&mut self, call: CallId, outcome: Outcome) {
        let Some(id) = self.calls.remove(&call) else { return };
        self.say(|| match &outcome {
            Outcome::Added(holding) => format!("c{id} has {}", holding.addresses[0]),
            Outcome::Ended(_) => format!("c{id} ended"),
            Outcome::Failed(error) => format!("c{id} failed: {error}"),
        });
        let limit = self.plan.offline_limit;
        let Some(container) = self.containers.get_mut(&id) else { return };
        match outcome {
            Outcome::Added(holding) => {
                self.counters.added += 1;
                let of = self.nodes[container.node].daemon.as_ref();
                let silence = of.map_or(Duration::ZERO, |of| {
                    of.leaseholder().silence(BootTime::from_millis(self.now))
                });
                let overdue = container.overdue && limit.is_some_and(|limit| silence > limit);
                let requested = container.requested;
                let before = std::mem::replace(
                    &mut container.state,
                    State::Running(holding.addresses.to_vec()),
                );
                if let State::Renewing(before) = before {
                    assert_eq!(before, *holding.addresses, "a repeated ADD changes nothing");
                    return;
                }
                assert!(!overdue, "c{id} has an address beyond offlineLimit");
                assert!(requested.is_none_or(|requested| holding.addresses.contains(&requested)));
                for &address in holding.addresses.iter() {
                    if let Some(other) = self.held.insert(address, id) {
                        panic!("{address} is held by c{other} and by c{id}");
                    }
                }
            }
            Outcome::Ended(_) => {
                self.counters.ended += 1;
                self.containers.remove(&id);
            }
            Outcome::Failed(error) => {
                self.counters.failed += 1;
                let full = matches!(
                    &error,
                    CallError::Assign { error: AssignError::Exhausted { .. }, .. }
                ) && self.plan.has_enough(&self.configuration);
                assert!(self.quiet || !full, "c{id} was told that no address is left");
                // The journal may have an entry although it did not confirm it.
                let unsure = matches!(error, CallError::Journal(_));
                self.last_error = error.to_string();
                if container.state == State::Adding && !unsure {
                    self.containers.remove(&id);
                } else {
                    container.state = State::Orphan;
                }
            }
        }
    }

    /// Asserts that every call has ended.
    pub(super) fn check_answered(&self) {
        assert!(self.calls.is_empty(), "calls without an answer: {:?}", self.calls);
    }

    /// Fills the pool to the last address: nobody else can have a held address, and everybody can
    /// have every other one.
    pub(super) fn fill(&mut self) {
        let whole = self.plan.whole.clone();
        let offered = whole.iter().flat_map(|range| {
            range.addresses().iter().filter(|number| range.offers(*number, None))
        });
        let total = offered.count();
        let mut failures = 0;
        while self.held_in_pool() < total {
            let node = self.rng.usize(0..self.nodes.len());
            let id = self.add(node, None);
            self.answer_of(id);
            if !self.containers.contains_key(&id) {
                failures += 1;
                assert!(
                    failures < 60,
                    "{} of {total} addresses held; n{node} cannot have more: {}; {}",
                    self.held_in_pool(),
                    self.last_error,
                    self.missing()
                );
                self.settle(2_000);
            }
        }
        let id = self.add(0, None);
        self.answer_of(id);
        assert!(!self.containers.contains_key(&id), "more addresses than there are");
    }

    /// Returns the number of addresses of the whole pool that are held.
    fn held_in_pool(&self) -> usize {
        let whole = &self.plan.whole;
        self.held.keys().filter(|address| whole.find_address(**address).is_some()).count()
    }

    /// Returns the places of the addresses that nobody has.
    pub(super) fn missing(&self) -> String {
        let whole = self.plan.whole.clone();
        let mut text = String::new();
        for range in whole.iter() {
            for number in range.addresses().iter() {
                let address = range.family().address(number);
                if self.held.contains_key(&address) || !range.offers(number, None) {
                    continue;
                }
                text.push_str(&format!("{address} is nobody's;"));
                for node in &self.nodes {
                    let sets = node.daemon.iter().flat_map(|daemon| daemon.sets.values());
                    for block in sets.flat_map(RangeSetMachine::blocks) {
                        if block.cidr().contains(number) {
                            text.push_str(&format!(" {} has {block:?}", node.disk.name));
                        }
                    }
                }
            }
        }
        text
    }

    /// Returns the number of a new call.
    pub(super) fn new_call(&mut self) -> CallId {
        self.next_call += 1;
        CallId::new(self.next_call - 1).expect("calls count from 1")
    }

    /// Waits until the call of a container is answered.
    pub(super) fn answer_of(&mut self, container: u64) {
        let until = self.now + 60_000;
        while self.calls.values().any(|of| *of == container) {
            assert!(self.now < until && self.step(), "no answer for c{container}");
        }
    }

    /// Ends every container.
    pub(super) fn delete_all(&mut self) {
        for id in self.containers.keys().copied().collect::<Vec<_>>() {
            self.delete(id);
        }
    }
}

/// Returns the container with this id.
pub(super) fn container(id: &ContainerId) -> Option<u64> {
    id.to_string().strip_prefix('c')?.parse().ok()
}

/// Returns the attachment of a container.
pub(super) fn attachment(container: u64) -> AttachmentId {
    let container_id = format!("c{container}").into();
    AttachmentId { network: "net".into(), container_id, ifname: "eth0".into() }
}
