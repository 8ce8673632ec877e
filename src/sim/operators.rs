//! Operators, who remove and drain nodes with the machines of the core: each request takes its
//! time, and may be lost, while nodes go on.

use std::time::Duration;

use super::node::Daemon;
use super::world::{Event, Operator, World};
use crate::core::keys::drain_key;
use crate::core::operator::{
    Command, DrainNode, DrainNodeCommand, RemoveNode, RemoveNodeCommand, Step,
};
use crate::core::time::UnixTime;
use crate::core::txn::{Answer, Request, StoreError, Txn, Write};

impl World {
    /// Has an operator remove a node by force: one that lives may object as long as its blocks are
    /// in quarantine. One that was removed and holds nothing is forgotten.
    pub(super) fn remove(&mut self, node: usize, quarantine_s: u64) {
        // A node that has lost its state directory, and whose records are deleted before it has
        // read them and written them down, cannot know what its containers hold (ARCHITECTURE.md
        // says so).
        let of = &self.nodes[node];
        let has_read = |daemon: &Daemon| daemon.is_member() && daemon.unwritten().count() == 0;
        if of.disk.forgot && (of.disk.fails || !of.daemon.as_ref().is_some_and(has_read)) {
            return;
        }
        let command = RemoveNodeCommand {
            node: self.nodes[node].disk.name.clone(),
            incarnation: None,
            local: false,
            force: true,
            quarantine: Some(Duration::from_secs(quarantine_s)),
            dry_run: false,
        };
        let mut machine = RemoveNode::new(command);
        let step = machine.start(UnixTime::from_millis(self.now));
        let id = self.new_operator(Operator::Remove(node, Box::new(machine)));
        self.after_remove(id, step);
    }

    /// Returns whether an operator's command to remove the node is on its way.
    pub(super) fn is_being_removed(&self, node: usize) -> bool {
        self.operators.values().any(|of| matches!(of, Operator::Remove(at, _) if *at == node))
    }

    /// Has an operator drain a node, or end its drain.
    pub(super) fn drain(&mut self, node: usize) {
        self.nodes[node].draining ^= true;
        let undo = !self.nodes[node].draining;
        let command = DrainNodeCommand { node: self.nodes[node].disk.name.clone(), undo };
        let mut machine = DrainNode::new(command);
        let step = machine.start(UnixTime::from_millis(self.now));
        let id = self.new_operator(Operator::Drain(machine));
        self.after_drain(id, step);
    }

    /// Ends every drain, also where the store forgot that it had ended.
    pub(super) fn end_drains(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].draining = false;
            let then = vec![Write::Delete(drain_key(&self.nodes[node].disk.name))];
            let _ = self.etcd.ask(self.now, Request::Txn(Txn { when: vec![], then }));
        }
        self.operators.clear();
    }

    fn new_operator(&mut self, operator: Operator) -> u64 {
        self.next_call += 1;
        self.operators.insert(self.next_call, operator);
        self.next_call
    }

    fn after_remove<T: std::fmt::Debug>(&mut self, id: u64, step: Step<T>) {
        let Some(Operator::Remove(node, _)) = self.operators.get(&id) else { return };
        let node = *node;
        // A node that is removed while it lives gets a chance to say so before its blocks are free.
        self.nodes[node].paused_until = self.nodes[node].paused_until.min(self.now + 60_000);
        self.ask_for(id, step);
    }

    fn after_drain<T: std::fmt::Debug>(&mut self, id: u64, step: Step<T>) {
        self.ask_for(id, step);
    }

    fn ask_for<T: std::fmt::Debug>(&mut self, id: u64, step: Step<T>) {
        match step {
            Step::Ask(request) => {
                let wait = self.rng.u64(0..20);
                self.after(wait, Event::Operate { id, request });
            }
            Step::Done(end) => {
                self.say(|| format!("operator {id}: {end:?}"));
                self.operators.remove(&id);
            }
        }
    }

    /// Brings a request of an operator to the store; now and then it, or its answer, is lost.
    pub(super) fn operate(&mut self, id: u64, request: Request) {
        let bad = !self.quiet && self.plan.bad_message > 0;
        let lost = bad && self.rng.u32(0..self.plan.bad_message) == 0;
        let unknown = || Err(StoreError::Unknown("deadline exceeded".into()));
        let answer: Result<Answer, StoreError> = if self.etcd_down {
            Err(StoreError::Failed("connection refused".into()))
        } else if lost && self.rng.bool() {
            unknown()
        } else {
            let answer = self.etcd.ask(self.now, request);
            self.tell_watchers();
            if lost { unknown() } else { answer }
        };
        match self.operators.get_mut(&id) {
            Some(Operator::Remove(_, machine)) => {
                let step = machine.answered(answer);
                self.after_remove(id, step);
            }
            Some(Operator::Drain(machine)) => {
                let step = machine.answered(answer);
                self.after_drain(id, step);
            }
            None => {}
        }
    }
}
