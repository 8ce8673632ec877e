//! What tests see of a cluster, and events by hand.

use super::world::{Event, World};
use crate::core::Millis;
use crate::core::keys::SESSIONS;
use crate::core::txn::Span;

impl World {
    pub(super) fn sessions(&self) -> usize {
        self.etcd.read(&Span::prefix(SESSIONS, usize::MAX)).len()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// How many calls have no answer yet.
    pub(super) fn waiting(&self) -> usize {
        self.calls.len()
    }

    /// How many blocks a node has in hand.
    pub(super) fn blocks(&self, node: usize) -> usize {
        let sets = self.nodes[node].daemon.iter().flat_map(|daemon| daemon.sets.values());
        sets.map(|(_, set)| set.blocks().count()).sum()
    }

    /// The requests that the store may carry out next, whatever their time. Nodes meet nowhere
    /// else: everything between two of them happens first, in order.
    pub(super) fn next_requests(&mut self) -> Vec<(Millis, u64)> {
        let local = |event: &Event| {
            matches!(event, Event::Answer { .. } | Event::Report { .. } | Event::Sync { .. })
        };
        while let Some(at) = self.events.iter().find(|(_, event)| local(event)).map(|(at, _)| *at) {
            self.happen(at);
        }
        let arrivals = self.events.iter().filter(|(_, e)| matches!(e, Event::Arrive { .. }));
        arrivals.map(|(at, _)| *at).collect()
    }

    /// Has an event come.
    pub(super) fn happen(&mut self, at: (Millis, u64)) {
        if let Some(event) = self.events.remove(&at) {
            self.now += 1;
            self.handle(event);
        }
    }
}
