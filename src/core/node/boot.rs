//! From a journal to the machines of a node.

use std::collections::BTreeSet;

use super::cluster_facts::{ClusterFacts, forfeits};
use super::{CoordinatorMachine, LeaseholderMachine};
use crate::core::address::Cidr;
use crate::core::block::BlockState;
use crate::core::coordinator::{Coordinator, RebuildError, Rebuilt, rebuild};
use crate::core::journal::{JournalEntry, JournalState};
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Leaseholder, NodeIdentity, Withheld};
use crate::core::mutant::{Mutant, broken};
use crate::core::range_set::{RangeSet, Settings};
use crate::core::set_identity::SetIdentity;
use crate::core::time::{StartTime, UnixTime};

/// The inputs with which a node's machines start, beside its journal.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// The identity of the node.
    pub identity: NodeIdentity,
    /// The settings of its range sets.
    pub settings: Settings,
    /// The time at which this daemon became the only one of its state directory.
    pub alone_since: StartTime,
    /// The time at which the boot clock was at 0.
    pub booted_at: UnixTime,
}

/// The machines of a node, which the caller must start.
#[derive(Debug)]
pub struct Booted {
    /// Entries that must be durable before the first machine starts: blocks of no range set are
    /// forgotten. The leaseholder gives them back when it joins.
    pub entries: Vec<JournalEntry>,
    /// The coordinator, which opens the range sets.
    pub coordinator: CoordinatorMachine,
    /// The leaseholder.
    pub leaseholder: LeaseholderMachine,
}

/// Makes the machines of a node from its journal.
///
/// # Errors
/// The journal contradicts itself.
pub fn boot(state: JournalState, options: BootOptions) -> Result<Booted, RebuildError> {
    let BootOptions { identity, settings, alone_since, .. } = options;
    let forfeits = forfeits(&identity);
    let confirmed = state.confirmed && !forfeits || broken(Mutant::UnconfirmedTrusted);
    let unconfirmed = !confirmed && !state.blocks.is_empty();
    let ask_again = state.confirmed && forfeits;
    let (mut blocks, mut lost) = (state.blocks.clone(), state.lost.clone());
    let chain = (state.chain, state.intent);
    let settling = state.settling.clone();
    let coordinator = Coordinator::new(settings, identity.records_awaited, alone_since);
    let Rebuilt { coordinator, sets, stray } = rebuild(coordinator, state)?;
    blocks.retain(|block| !stray.contains(block));
    lost.retain(|block| !stray.contains(block));
    let entries = stray.into_iter().map(|(pool, cidr)| JournalEntry::NoBlock(pool, cidr));
    // Durable before the store says so: the next daemon may not wait for its records.
    let entries = entries.chain(ask_again.then_some(JournalEntry::Confirmed(false)));
    let node = identity.node.clone();
    let facts = ClusterFacts::new(&identity, unconfirmed);
    let parked = parked(&sets);
    lost.retain(|block| !parked.contains(block));
    let withheld = Withheld { lost, parked, settling };
    let leaseholder = Leaseholder::new(identity, chain, blocks, withheld, options.booted_at);
    Ok(Booted {
        entries: entries.collect(),
        coordinator: CoordinatorMachine::new(coordinator, sets, facts),
        leaseholder: LeaseholderMachine::new(leaseholder, node),
    })
}

/// Returns the blocks that the daemon before parked.
fn parked(sets: &[(SetIdentity, RangeSet)]) -> BTreeSet<(PoolFamily, Cidr)> {
    let of_set = |(identity, set): &(SetIdentity, RangeSet)| {
        let pool = PoolFamily { network: identity.network.clone(), family: identity.family };
        let parked = set.blocks().filter(|block| block.state() == BlockState::Returning);
        parked.map(|block| (pool.clone(), block.cidr())).collect::<Vec<_>>()
    };
    sets.iter().flat_map(of_set).collect()
}
