//! A second daemon under the name of a node, on a state directory of its own.

use super::disk::Disk;
use super::world::{Event, SimNode, World};
use crate::core::keys::node_key;
use crate::core::txn::Span;
use crate::core::value::Value;

impl World {
    /// Cuts a node off and starts a daemon with its name elsewhere. There is one at a time.
    pub(super) fn usurp(&mut self, victim: usize) {
        if self.nodes.len() > self.plan.nodes || !self.is_registered(victim) {
            return; // the first one to register has the name
        }
        let usurper = self.nodes.len();
        let of = &mut self.nodes[victim];
        of.cut = true;
        let mut disk = Disk::new(of.disk.name.clone(), of.disk.settings, &self.plan);
        disk.identity = format!("{} again", of.disk.name).into();
        disk.boot = of.disk.boot;
        self.nodes.push(SimNode::new(disk));
        let (heal, start) = (self.rng.u64(1_000..90_000), self.rng.u64(10..20_000));
        self.after(heal, Event::Heal(victim));
        self.after(start, Event::Start(usurper));
    }

    /// Returns whether the store knows the node by its name and identity.
    fn is_registered(&self, node: usize) -> bool {
        let disk = &self.nodes[node].disk;
        let key = self.etcd.read(&Span::key(&node_key(&disk.name))).pop();
        key.is_some_and(|key| match key.value {
            Value::Node(value) => value.identity.as_ref() == Some(&disk.identity),
            _ => false,
        })
    }

    /// Ends it with its containers: somebody has noticed.
    pub(super) fn end_usurper(&mut self) {
        let usurper = self.plan.nodes;
        if self.nodes.len() == usurper {
            return;
        }
        self.crash(usurper);
        self.end_containers(usurper);
        self.nodes.truncate(usurper);
        self.events.retain(|_, event| event.node() != Some(usurper));
    }
}

impl Event {
    /// Returns the node that it is for.
    fn node(&self) -> Option<usize> {
        match self {
            Self::Arrive { node, .. }
            | Self::Answer { node, .. }
            | Self::Report { node, .. }
            | Self::Sync { node, .. }
            | Self::Serve { node, .. }
            | Self::Timer { node, .. }
            | Self::Start(node)
            | Self::Kill { node, .. }
            | Self::Heal(node)
            | Self::Repair { node, .. } => Some(*node),
            Self::Calls
            | Self::Fault(_)
            | Self::EtcdUp
            | Self::Backup
            | Self::Operate { .. }
            | Self::Release { .. } => None,
        }
    }
}
