//! A node whose journal is older than itself rebuilds its state from the store, before it joins.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::join::Step;
use super::record_scan::RecordScan;
use super::{Effect, Leaseholder, Pending, Recorded, StoredBlock, StoredState, parts};
use crate::core::address::Cidr;
use crate::core::keys::{NETWORKS, PoolFamily, parse_block_key};
use crate::core::time::BootTime;
use crate::core::txn::Snapshot;
use crate::core::value::{BlockStatus, Value};

impl Leaseholder {
    /// Handles the store's answer with the networks, and keeps those of which this node has blocks.
    pub(super) fn mapped(&mut self, now: BootTime, snapshot: Snapshot) {
        let known = self.in_hand();
        let Some(joining) = self.joining() else { return };
        joining.step = Step::ScanningRecords;
        let blocks = joining.blocks.iter().filter(|(_, block)| block.status != BlockStatus::Spare);
        let blocks = blocks.filter_map(|(key, block)| {
            let (network, family, _) = parse_block_key(&key.key)?;
            let (pool, cidr) = (PoolFamily { network: network.into(), family }, block.cidr);
            let known = known.get(&pool).map_or(&[][..], Vec::as_slice);
            let missing = parts::missing(cidr, known).collect();
            Some(StoredBlock { pool, cidr, missing })
        });
        joining.stored_state = StoredState { blocks: blocks.collect(), ..StoredState::default() };
        let blocks = &joining.stored_state.blocks;
        let ours = |network: &str| blocks.iter().any(|block| *block.pool.network == *network);
        let networks = snapshot.spans.into_iter().flatten().filter_map(|key| match key.value {
            Value::Network(value) => Some((key.key.strip_prefix(NETWORKS)?.into(), value)),
            _ => None,
        });
        let networks = networks.filter(|(network, _): &(Arc<str>, _)| ours(network)).collect();
        joining.stored_state.networks = networks;
        let items = joining.stored_state.blocks.iter();
        let items = items.map(|block| (block.pool.clone(), block.cidr));
        joining.scan = RecordScan::new(items);
        self.rebuild(now, None);
    }

    /// Returns the blocks that this node has in hand, also if they are lost or parked, in order.
    fn in_hand(&self) -> BTreeMap<PoolFamily, Vec<Cidr>> {
        let owned = self.owned.iter().flat_map(|(pool, blocks)| {
            blocks.values().map(move |owned| (pool.clone(), owned.cidr))
        });
        let mut known: BTreeMap<PoolFamily, Vec<Cidr>> = BTreeMap::new();
        for (pool, cidr) in owned.chain(self.lost.iter().chain(&self.parked).cloned()) {
            known.entry(pool).or_default().push(cidr);
        }
        known.values_mut().for_each(|cidrs| cidrs.sort_unstable());
        known
    }

    /// Handles the store's answer with some records of a node that forgot.
    pub(super) fn rebuild(&mut self, now: BootTime, snapshot: Option<Snapshot>) {
        let Some(joining) = self.joining() else { return };
        let (mut scan, mut stored_state) =
            (std::mem::take(&mut joining.scan), std::mem::take(&mut joining.stored_state));
        let goes_on = self.recover(now, &mut scan, &mut stored_state, snapshot);
        let Some(joining) = self.joining() else { return };
        (joining.scan, joining.stored_state) = (scan, stored_state);
        if !goes_on {
            self.become_member(now);
        }
    }

    /// Takes the next step of a node that forgot: reads its records, block by block, and then gives
    /// all of it back to its memory. Returns whether a read is open.
    fn recover(
        &mut self,
        now: BootTime,
        scan: &mut RecordScan,
        stored_state: &mut StoredState,
        answer: Option<Snapshot>,
    ) -> bool {
        if let Some(snapshot) = answer {
            for ((pool, ..), records) in scan.take_answer(snapshot) {
                let of = |(at, value): Recorded| (pool.network.clone(), (at, value));
                stored_state.records.extend(records.into_iter().map(of));
            }
        }
        scan.put_back();
        match scan.next() {
            Some(read) => self.request(now, Pending::Join, read),
            None => self.effects.push_back(Effect::Recover(Box::new(std::mem::take(stored_state)))),
        }
        !scan.requested.is_empty()
    }
}
