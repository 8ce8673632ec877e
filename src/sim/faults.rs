//! The faults of a run.

use std::net::IpAddr;
use std::time::Duration;

use super::Millis;
use super::calls::{attachment, container};
use super::etcd::Etcd;
use super::node::Daemon;
use super::plan::Fault;
use super::world::{Event, SimNode, State, World};
use crate::core::address::{Address, Family};
use crate::core::attachment::AttachmentId;
use crate::core::coordinator::Call;
use crate::core::keys::{ALLOCATIONS, BLOCKS, NODES, allocation_key, node_key};
use crate::core::time::{BootTime, StartTime};
use crate::core::txn::{KeyValue, Request, Span, StoreError, Write};
use crate::core::value::{BlockStatus, Value};
use crate::limits;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        let every = self.plan.faults.iter().find(|(of, _)| *of == fault);
        let Some(&(_, every)) = every else { return };
        let wait = self.rng.u64(1..every * 2);
        self.after(wait, Event::Fault(fault));
        if self.quiet || self.now < self.calm_until {
            return;
        }
        let node = self.rng.usize(0..self.nodes.len());
        self.say(|| format!("{fault:?} n{node}"));
        match fault {
            Fault::Crash => {
                let node = self.victim(node);
                self.crash(node);
                let wait = self.rng.u64(10..40_000);
                self.after(wait, Event::Start(node));
            }
            Fault::Stop => self.stop(node),
            Fault::Disk => {
                self.nodes[node].disk.fails = true;
                let (wait, life) = (self.rng.u64(100..30_000), self.nodes[node].life);
                self.after(wait, Event::Repair { node, life });
            }
            Fault::Pause => {
                self.nodes[node].paused_until = self.now + self.rng.u64(100..90_000);
            }
            Fault::Cut => {
                self.nodes[node].cut = true;
                let wait = self.rng.u64(100..90_000);
                self.after(wait, Event::Heal(node));
            }
            Fault::Outage => {
                self.etcd_down = true;
                let wait = self.rng.u64(100..60_000);
                self.after(wait, Event::EtcdUp);
            }
            Fault::Reboot => {
                self.crash(node);
                if !self.plan.keep_after_reboot {
                    self.end_containers(node);
                }
                let all = self.nodes[node].disk.journal.len();
                let bad = self.plan.bad_disks && self.rng.bool();
                let groups = if bad { self.rng.usize(0..=all) } else { all };
                let groups = (!bad || self.rng.bool()).then_some(groups);
                self.nodes[node].disk.reboot(groups);
                let wait = self.rng.u64(10..60_000);
                self.after(wait, Event::Start(node));
            }
            Fault::Remove => self.remove(node, self.plan.quarantine_s),
            Fault::Vanish => self.vanish(node),
            Fault::Restore => self.restore(),
            Fault::Usurp => self.usurp(node),
            Fault::Drain => self.drain(node),
            Fault::Configure => {
                let all = &self.plan.configurations;
                self.configuration = all[self.rng.usize(0..all.len())].clone();
            }
            // A removal deletes its records, and nobody can know what it held.
            Fault::Forget if self.is_removed(node) => {}
            Fault::Forget => {
                self.crash(node);
                self.forget(node);
                let wait = self.rng.u64(10..40_000);
                self.after(wait, Event::Start(node));
            }
        }
    }

    /// Turns a machine off, which comes back after its node was removed and its blocks were freed:
    /// what ran on it is gone.
    pub(super) fn vanish(&mut self, node: usize) {
        self.crash(node);
        self.end_containers(node);
        let of = &mut self.nodes[node];
        of.disk.reboot(Some(of.disk.journal.len()));
        of.away_until = self.now + self.rng.u64(70_000..120_000);
        self.after(self.nodes[node].away_until - self.now, Event::Start(node));
        self.remove(node, 60);
    }

    /// Returns whether an operator removes the node, or has removed it and it has not joined since.
    fn is_removed(&self, node: usize) -> bool {
        if self.is_being_removed(node) {
            return true;
        }
        let key = self.etcd.read(&Span::key(&node_key(&self.nodes[node].disk.name))).pop();
        key.is_some_and(|key| match key.value {
            Value::Node(value) => value.removed.is_some(),
            _ => false,
        })
    }

    /// Returns whether the store has an address in an active block of a node. An operator who
    /// removes a node deletes its records too, and it cannot record anew what it still holds.
    fn has_block_of(&self, node: usize, address: IpAddr) -> bool {
        let (family, number) = (Family::of(address), Address::of(address));
        self.etcd.read(&Span::prefix(BLOCKS, usize::MAX)).iter().any(|key| match &key.value {
            Value::Block(block) => {
                let own = *block.owner == *self.nodes[node].disk.name;
                own && block.status == BlockStatus::Active
                    && block.family == family
                    && block.cidr.contains(number)
            }
            _ => false,
        })
    }

    /// Loses the state directory of a node, or takes it back to what it was at some time.
    fn forget(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        disk.is_new = self.rng.bool();
        if disk.is_new {
            disk.lose();
        } else {
            let kept = self.rng.usize(0..=disk.journal.len());
            disk.journal.truncate(kept);
        }
        self.nodes[node].disk.forgot = true;
        let known = self.nodes[node].disk.held();
        let recorded = |id: u64, address: IpAddr| {
            let key = allocation_key("net", address);
            let keys = self.etcd.read(&Span::key(&key));
            keys.iter().any(|key| match &key.value {
                Value::Allocation(value) => value.container_id == attachment(id).container_id,
                _ => false,
            })
        };
        // Nor of DELs whose records were still there, or that the copy does not know.
        let name = self.nodes[node].disk.name.clone();
        let risen = |id: &u64| !self.containers.contains_key(id);
        let records = self.etcd.read(&Span::prefix(ALLOCATIONS, usize::MAX)).into_iter();
        let recorded_here = records.filter_map(|key| match key.value {
            Value::Allocation(value) if value.node == name => container(&value.container_id),
            _ => None,
        });
        let recorded_here: Vec<u64> = recorded_here.filter(risen).collect();
        // On a slow disk a DEL may have waited for as long as it does.
        let is_quick = self.plan.write_ms < 1_000 && self.plan.has_no_outages();
        let sure = self.plan.await_records && is_quick;
        // A node that has not recovered yet, or has ended it in an earlier life, does not await the
        // records; an old copy may have brought some back before.
        let excused = |id: &&u64| self.blind_dels.contains(id) || self.may_rise.contains(id);
        let undone: Vec<_> = recorded_here.iter().filter(|id| !excused(id)).collect();
        assert!(!sure || undone.is_empty(), "{undone:?} ended and are recorded");
        let late = self.records_on_their_way(node);
        self.may_rise.extend(late);
        let in_copy = known.iter().filter_map(|(id, _)| container(&id.container_id)).filter(risen);
        let excused: Vec<u64> = recorded_here.into_iter().chain(in_copy).collect();
        self.may_rise.extend(excused);
        let mut unknown = Vec::new();
        for (&id, _) in self.containers.iter().filter(|(_, of)| of.node == node) {
            // Also what a container holds whose ADD was being repeated when the daemon died.
            let mut has = self.held.iter().filter(|(_, of)| **of == id).map(|(at, _)| *at);
            let is_known = |at| known.contains(&(attachment(id), at)) || recorded(id, at);
            if !has.all(is_known) {
                let mut has = self.held.iter().filter(|(_, of)| **of == id).map(|(at, _)| *at);
                let early = self.plan.await_records && has.any(|at| self.has_block_of(node, at));
                assert!(!early, "c{id} was answered before it was recorded");
                unknown.push(id);
            }
        }
        // Nobody can know of these: what they held cools, and they are gone when it has cooled.
        for id in unknown {
            self.held.retain(|_, of| *of != id);
            if let Some(container) = self.containers.get_mut(&id) {
                container.state = State::Orphan;
            }
        }
    }

    /// Releases what no container of a node holds now, as runtimes have it done.
    pub(super) fn collect_garbage(&mut self) {
        for node in 0..self.nodes.len() {
            let here = self.containers.iter().filter(|(_, container)| container.node == node);
            let valid = here.map(|(id, _)| {
                let AttachmentId { container_id, ifname, .. } = attachment(*id);
                (container_id, (*ifname).into())
            });
            let valid = valid.collect();
            let (network, started_at) = ("net".into(), StartTime::from_nanos(self.now * 1_000_000));
            let call = Call::Gc { network, valid, started_at };
            let id = self.new_call();
            self.with(node, |daemon, _| daemon.call(id, call));
        }
    }

    /// Returns the containers whose records a node has sent and the store may still get.
    fn records_on_their_way(&self, node: usize) -> Vec<u64> {
        let writes = self.events.values().filter_map(|event| match event {
            Event::Arrive { node: of, request: Request::Txn(txn), .. } if *of == node => {
                Some(&txn.then)
            }
            _ => None,
        });
        let recorded = writes.flatten().filter_map(|write| match write {
            Write::Put(_, Value::Allocation(value), _) => container(&value.container_id),
            _ => None,
        });
        recorded.collect()
    }

    /// Asserts that no DEL that was answered is undone.
    pub(super) fn check_ended(&self) {
        for daemon in self.nodes.iter().filter_map(|node| node.daemon.as_ref()) {
            for holding in daemon.coordinator.held().all() {
                let Some(id) = container(&holding.container_id) else { continue };
                let known = self.containers.contains_key(&id) || self.may_rise.contains(&id);
                assert!(known, "c{id} is held after its DEL");
            }
        }
    }

    /// Asserts that every answered allocation is there, now that every node has remembered.
    pub(super) fn check_remembered(&self) {
        for (id, container) in &self.containers {
            let daemon = self.nodes[container.node].daemon.as_ref();
            let holding =
                daemon.and_then(|daemon| daemon.coordinator.held().find(&attachment(*id)));
            if let State::Running(addresses) = &container.state {
                let held = holding.map(|holding| holding.addresses.to_vec());
                assert_eq!(held.as_ref(), Some(addresses), "c{id} lost its address");
            }
        }
    }

    /// Ends the process at once: of what was not durable, some may be.
    pub(super) fn crash(&mut self, node: usize) {
        let Some(daemon) = self.nodes[node].daemon.take() else { return };
        let unsynced: Vec<_> = daemon.unwritten().cloned().collect();
        let torn = self.rng.usize(0..=unsynced.len());
        let of = &mut self.nodes[node];
        of.disk.journal.extend(unsynced.into_iter().take(torn));
        of.stopping = false;
        of.watches.clear();
        of.paused_until = 0;
        of.timer_at = Millis::MAX;
        for container in self.containers.values_mut().filter(|c| c.node == node) {
            // The caller knows nothing, and will delete.
            match container.state {
                State::Adding | State::Deleting | State::Renewing(_) => {
                    container.state = State::Orphan;
                }
                State::Running(_) | State::Orphan => {}
            }
        }
        let containers = &self.containers;
        self.calls.retain(|_, container| containers.get(container).is_some_and(|c| c.node != node));
    }

    /// Chooses the node that dies: rather one whose journal is behind, and half of the time one
    /// that cannot reach the store when it comes back.
    fn victim(&mut self, node: usize) -> usize {
        let behind = |of: &SimNode| of.daemon.as_ref().is_some_and(|of| of.unwritten().count() > 0);
        let victim = match self.nodes.iter().position(behind) {
            Some(behind) if self.rng.bool() => behind,
            _ => node,
        };
        if self.rng.bool() && self.plan.faults.iter().any(|(fault, _)| *fault == Fault::Cut) {
            self.nodes[victim].cut = true;
            let wait = self.rng.u64(100..90_000);
            self.after(wait, Event::Heal(victim));
        }
        victim
    }

    /// Sends SIGTERM: the daemon ends in order, if it can in time.
    pub(super) fn stop(&mut self, node: usize) {
        if self.nodes[node].stopping || self.nodes[node].daemon.is_none() {
            return;
        }
        self.nodes[node].stopping = true;
        let life = self.nodes[node].life;
        self.after(10_000, Event::Kill { node, life });
        self.with(node, |daemon, _| daemon.stop());
    }

    /// Handles a daemon that has stopped in order.
    pub(super) fn stopped(&mut self, node: usize) {
        self.say(|| format!("n{node} has stopped"));
        self.crash(node);
        if !self.nodes[node].leaves {
            let wait = self.rng.u64(10..40_000);
            self.after(wait, Event::Start(node));
        }
    }

    /// Makes room on a disk and starts the daemon again, as somebody would.
    pub(super) fn repair(&mut self, node: usize) {
        self.nodes[node].disk.fails = false;
        self.crash(node);
        self.start(node);
    }

    /// Returns whether the store is going to be restored.
    pub(super) fn restores(&self) -> bool {
        self.plan.faults.iter().any(|(fault, _)| *fault == Fault::Restore)
    }

    pub(super) fn start(&mut self, node: usize) {
        let of = &self.nodes[node];
        if of.daemon.is_some() || of.leaves || self.now < of.away_until && !self.quiet {
            return;
        }
        self.say(|| format!("n{node} starts"));
        let (group_max, now) = (self.plan.group_max, BootTime::from_millis(self.now));
        let torn = self.rng.bool();
        let disk = &mut self.nodes[node].disk;
        // On a disk that is full it ends at once; the supervisor starts it when there is room.
        let Some(daemon) = Daemon::start(disk, group_max, torn, now) else { return };
        // What was answered is there (rule 12).
        let forgot = self.nodes[node].disk.forgot;
        for (id, container) in &self.containers {
            if container.node != node || forgot {
                continue;
            }
            let holding = daemon.coordinator.held().find(&attachment(*id));
            if let State::Running(addresses) = &container.state {
                let held = holding.map(|holding| holding.addresses.to_vec());
                assert_eq!(held.as_ref(), Some(addresses), "c{id} lost its address in a restart");
            }
        }
        self.nodes[node].life += 1;
        self.nodes[node].daemon = Some(daemon);
        self.collect(node);
    }

    pub(super) fn heal(&mut self, node: usize) {
        self.nodes[node].cut = false;
        for prefix in self.nodes[node].watches.clone() {
            self.list(node, &prefix);
        }
    }

    pub(super) fn etcd_up(&mut self) {
        self.etcd_down = false;
        for node in 0..self.nodes.len() {
            self.heal(node);
        }
    }

    /// Ends all containers of a node, which are gone with its machine.
    pub(super) fn end_containers(&mut self, node: usize) {
        self.containers.retain(|_, container| container.node != node);
        let containers = &self.containers;
        self.held.retain(|_, id| containers.contains_key(id));
        self.calls.retain(|_, id| containers.contains_key(id));
    }

    /// Loses the store and brings it back from a backup. All nodes see it go.
    pub(super) fn restore(&mut self) {
        // A node that is away does not know that its blocks went to others after the backup was
        // made: it must have come back before (docs/protocol.md says so).
        let is_back =
            |of: &SimNode| of.away_until == 0 || of.daemon.as_ref().is_some_and(Daemon::is_member);
        // The same holds for what it forfeited.
        let knows = |key: &KeyValue| match &key.value {
            Value::Node(node) => node.forfeit.is_none_or(|forfeit| forfeit.taken == 0),
            _ => true,
        };
        let all_know = self.etcd.read(&Span::prefix(NODES, usize::MAX)).iter().all(knows);
        if !all_know || !self.nodes.iter().all(is_back) {
            return;
        }
        let old = |(at, _): &(Millis, Etcd)| {
            Duration::from_millis(self.now - at) > limits::TOUCH + Duration::from_secs(40)
        };
        let Some(at) = self.backups.iter().rposition(old) else { return };
        let Some((_, backup)) = self.backups.drain(..=at).next_back() else { return };
        self.backups.clear();
        self.plan.faults.retain(|(fault, _)| *fault != Fault::Restore); // once is enough
        self.etcd.restore(self.now, &backup);
        self.tell_watchers();
        let mut notices = false;
        for node in 0..self.nodes.len() {
            notices |= self.see_restore(node, notices);
        }
        self.calm_until = self.now + 15_000; // the nodes that are ahead of the backup notice
        // Nodes that slept are awake, and get what came meanwhile.
        let slept = |_: &_, event: &mut Event| {
            matches!(
                event,
                Event::Answer { .. }
                    | Event::Timer { .. }
                    | Event::Sync { .. }
                    | Event::Serve { .. }
            )
        };
        for (_, event) in self.events.extract_if(.., slept).collect::<Vec<_>>() {
            self.after(1, event);
        }
        // Late messages to the store that was are lost with it.
        let late = |_: &_, event: &mut Event| matches!(event, Event::Arrive { .. });
        for (_, event) in self.events.extract_if(.., late).collect::<Vec<_>>() {
            if let Event::Arrive { node, life, id, answer: true, .. } = event {
                let answer = Err(StoreError::Unknown("connection reset".into()));
                self.after(1, Event::Answer { node, life, id, answer });
            }
        }
        self.etcd_down = true;
        self.after(500, Event::EtcdUp);
    }

    /// Lets a node see that the store was restored; returns whether it notices now.
    fn see_restore(&mut self, node: usize, others_notice: bool) -> bool {
        // A node that was away since before the backup cannot notice, and one that could may
        // be down: these must not come first, and those must come at all (ARCHITECTURE.md says
        // so).
        if self.nodes[node].daemon.is_none() {
            self.start(node);
        }
        let of = &self.nodes[node];
        let key = node_key(&of.disk.name);
        let stored = self.etcd.read(&Span::key(&key)).pop().map(|key| key.value);
        let stored = match stored {
            Some(Value::Node(value)) => value.sequence,
            _ => None,
        };
        let known = of.daemon.as_ref().map(|daemon| daemon.leaseholder().sequence());
        let was_away = known.is_none_or(|known| known <= stored);
        let wait = if was_away { self.now + 15_000 } else { 0 };
        self.nodes[node].paused_until = wait;
        // One that notices is enough. Others may be cut off for a while: nobody claims what
        // only they know to be theirs (rule 24).
        if !was_away && others_notice && self.rng.bool() {
            self.nodes[node].cut = true;
            let wait = self.rng.u64(1_000..60_000);
            self.after(wait, Event::Heal(node));
            return false;
        }
        self.heal(node);
        !was_away
    }
}
