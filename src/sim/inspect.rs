//! The view that tests have of a cluster, and events by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Millis;
use super::world::{Event, SimNode, World};
use crate::core::address::{Address, Family};
use crate::core::block::{Block, BlockState};
use crate::core::keys::{ALLOCATIONS, SESSIONS, allocation_address};
use crate::core::node::RangeSetMachine;
use crate::core::txn::Span;
use crate::core::value::Value;

impl World {
    pub(super) fn sessions(&self) -> usize {
        self.etcd.read(&Span::prefix(SESSIONS, usize::MAX)).len()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the number of calls that have no answer yet.
    pub(super) fn waiting(&self) -> usize {
        self.calls.len()
    }

    /// Asserts that exactly the holdings are recorded, now that nothing is in progress. An address
    /// handed out of a block that is another node's now is that node's to record.
    pub(super) fn check_recorded(&self) {
        let mut recorded = BTreeMap::new();
        for key in self.etcd.read(&Span::prefix(ALLOCATIONS, usize::MAX)) {
            let Value::Allocation(value) = key.value else { continue };
            let address = allocation_address(&key.key).expect("the key of an address");
            // In a block that nobody has, a restored backup may have old ones, until it is claimed.
            if !self.is_in_a_block(address) {
                continue;
            }
            recorded.insert(address, (value.container_id, value.sequence));
        }
        let mut held = BTreeMap::new();
        for daemon in self.nodes.iter().filter_map(|node| node.daemon.as_ref()) {
            for holding in daemon.coordinator.held().all() {
                let blocks = || daemon.sets.values().flat_map(RangeSetMachine::blocks);
                let ours = |address: &&IpAddr| {
                    let in_hand = |b: &Block| b.state() == BlockState::Active;
                    blocks().any(|b| b.cidr().contains(Address::of(**address)) && in_hand(b))
                };
                for &address in holding.addresses.iter().filter(ours) {
                    held.insert(address, (holding.container_id.clone(), holding.sequence));
                }
            }
        }
        assert_eq!(recorded, held, "what is recorded is not what is held");
    }

    /// Returns whether some node has a block with this address in hand.
    fn is_in_a_block(&self, address: IpAddr) -> bool {
        let daemons = self.nodes.iter().filter_map(|node| node.daemon.as_ref());
        let mut sets = daemons.flat_map(|daemon| daemon.sets.values());
        sets.any(|set| {
            set.identity().family == Family::of(address)
                && set.blocks().any(|block| block.cidr().contains(Address::of(address)))
        })
    }

    /// Returns the number of blocks that a node has in hand.
    pub(super) fn blocks(&self, node: usize) -> usize {
        let sets = self.nodes[node].daemon.iter().flat_map(|daemon| daemon.sets.values());
        sets.map(|set| set.blocks().count()).sum()
    }

    /// Returns the number of range sets that all nodes have open.
    pub(super) fn range_sets(&self) -> usize {
        self.nodes.iter().filter_map(|node| node.daemon.as_ref()).map(|d| d.sets.len()).sum()
    }

    /// Returns the number of rows about range sets in all journals.
    pub(super) fn journal_rows(&self) -> usize {
        let rows = |node: &SimNode| {
            let state = node.disk.state();
            let cooling = state.cooling.len();
            state.sets.len() + state.cursors.len() + state.blocks.len() + cooling
        };
        self.nodes.iter().map(rows).sum()
    }

    /// Returns the requests that the store may carry out next, regardless of their time. Nodes meet
    /// nowhere else: everything between two of them happens first, in order.
    pub(super) fn next_requests(&mut self) -> Vec<(Millis, u64)> {
        let local = |event: &Event| {
            matches!(
                event,
                Event::Answer { .. }
                    | Event::Report { .. }
                    | Event::Sync { .. }
                    | Event::Serve { .. }
            )
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
