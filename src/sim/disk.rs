//! A node's disk: what outlives its daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::plan::Plan;
use crate::core::Millis;
use crate::core::address::{Cidr, Family, number};
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::coordinator::{JournalEntry, JournalState, SetId, SetRecord};
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{NodeIdentity, without};
use crate::core::node::{BootOptions, Booted, boot};
use crate::core::range_set::Settings;

/// What of a node outlives its daemon.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) name: Arc<str>,
    pub(super) boot: u64,
    /// The groups that were written.
    pub(super) journal: Vec<Vec<JournalEntry>>,
    pub(super) settings: Settings,
    pub(super) await_records: bool,
    pub(super) offline_limit: Option<Millis>,
    /// The next write fails, and every later one.
    pub(super) fails: bool,
    /// No daemon has started in this boot.
    pub(super) new_boot: bool,
    /// It lost its journal, or some of it, while its containers ran.
    pub(super) forgot: bool,
}

/// Takes a run out of the blocks of a journal; what is left of a larger one stays.
fn cut(blocks: &mut Vec<(PoolFamily, Cidr)>, pool: &PoolFamily, cidr: Cidr) {
    let overlaps = |at: &Cidr| at.start <= cidr.end() && cidr.start <= at.end();
    let hit = blocks.extract_if(.., |(of, at)| of == pool && overlaps(at));
    let hit: Vec<(PoolFamily, Cidr)> = hit.collect();
    for (pool, at) in hit.into_iter().filter(|(_, at)| at.size_log2 > cidr.size_log2) {
        blocks.extend(without(at, cidr).into_iter().map(|part| (pool.clone(), part)));
    }
}

impl Disk {
    /// An empty one.
    pub(super) fn new(name: Arc<str>, settings: Settings, plan: &Plan) -> Self {
        Self {
            name,
            boot: 1,
            journal: vec![],
            settings,
            await_records: plan.await_records,
            offline_limit: plan.offline_limit,
            fails: false,
            new_boot: true,
            forgot: false,
        }
    }

    pub(super) fn state(&self) -> JournalState {
        let mut state = JournalState { next_sequence: 1, ..JournalState::default() };
        for record in self.journal.iter().flatten() {
            match record.clone() {
                JournalEntry::Hold(holding) => {
                    state.next_sequence = state.next_sequence.max(holding.sequence + 1);
                    state.holdings.push(holding);
                }
                JournalEntry::End(ended) => state.holdings.retain(|held| *held != ended),
                JournalEntry::Cool(set, number, at) => state.cooling.push((set, number, at)),
                JournalEntry::Cursor(set, set_index, number) => {
                    state.cursors.retain(|(of, at, _)| (*of, *at) != (set, set_index));
                    state.cursors.push((set, set_index, number));
                }
                JournalEntry::Set(set) => {
                    state.sets.retain(|known| known.id != set.id);
                    state.sets.push(set);
                }
                JournalEntry::ForgetSet(id) => state.sets.retain(|known| known.id != id),
                JournalEntry::Block(pool, cidr) => {
                    cut(&mut state.blocks, &pool, cidr);
                    cut(&mut state.lost, &pool, cidr);
                    state.blocks.push((pool, cidr));
                }
                JournalEntry::LostBlock(pool, cidr) => {
                    cut(&mut state.blocks, &pool, cidr);
                    cut(&mut state.lost, &pool, cidr);
                    state.lost.push((pool, cidr));
                }
                JournalEntry::NoBlock(pool, cidr) => {
                    cut(&mut state.blocks, &pool, cidr);
                    cut(&mut state.lost, &pool, cidr);
                }
                JournalEntry::Chain(sequence) => state.chain = sequence,
                JournalEntry::Intent(sequence) => state.intent = sequence,
                JournalEntry::Confirmed => state.confirmed = true,
            }
        }
        // An address cools from its last release, unless it is held again.
        let mut last: BTreeMap<(SetId, u128), Millis> = BTreeMap::new();
        for &(set, number, at) in &state.cooling {
            last.insert((set, number), at);
        }
        state.cooling = last.into_iter().map(|((set, number), at)| (set, number, at)).collect();
        state
    }

    /// What the journal says is held.
    pub(super) fn held(&self) -> BTreeSet<(AttachmentId, IpAddr)> {
        let holdings = self.state().holdings.into_iter();
        let each = |holding: Arc<Holding>| {
            let addresses = holding.addresses.to_vec();
            addresses.into_iter().map(move |address| (holding.id(), address))
        };
        holdings.flat_map(each).collect()
    }

    /// The machine starts anew. A power cut may leave an older journal, or none.
    pub(super) fn reboot(&mut self, groups: usize) {
        self.boot += 1;
        self.new_boot = true;
        self.forgot = false;
        self.fails = false;
        self.journal.truncate(groups);
    }

    /// The first start of a boot: containers of the earlier boot are gone.
    fn begin_boot(&mut self, now: Millis) {
        for group in &mut self.journal {
            group.retain(|entry| *entry != JournalEntry::Confirmed);
        }
        let state = self.state();
        let mut entries = Vec::new();
        for holding in &state.holdings {
            entries.push(JournalEntry::End(holding.clone()));
            for &address in holding.addresses.iter() {
                let number = number(address);
                let owns = |set: &&SetRecord| {
                    set.family == Family::of(address)
                        && set.ranges.iter().any(|&(first, last)| first <= number && number <= last)
                };
                if let Some(set) = state.sets.iter().find(owns) {
                    entries.push(JournalEntry::Cool(set.id, number, now));
                }
            }
        }
        self.journal.push(entries);
    }

    /// The machines of its node, from what is on it.
    pub(super) fn boot(&mut self, now: Millis) -> Booted {
        let new_boot = std::mem::take(&mut self.new_boot);
        if new_boot {
            self.begin_boot(now);
        }
        let identity = NodeIdentity {
            node: self.name.clone(),
            machine_id: self.name.clone(),
            boot_id: format!("{}", self.boot).into(),
            version: "sim".into(),
            since_unix_ms: now,
            ttl_s: 30,
            offline_limit: self.offline_limit,
            keeps_after_reboot: false,
            records: true,
        };
        let options = BootOptions {
            identity,
            settings: self.settings,
            await_records: self.await_records,
            alone_since_ns: 0,
            unix_offset: 0,
        };
        let booted = boot(self.state(), options).unwrap_or_else(|error| panic!("{error}"));
        self.journal.push(booted.entries.clone());
        booted
    }
}
