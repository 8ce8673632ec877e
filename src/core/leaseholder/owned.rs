//! The blocks of this node as the store has them.

use super::Leaseholder;
use crate::core::address::Cidr;
use crate::core::ids::Revision;
use crate::core::keys::PoolFamily;
use crate::core::value::BlockStatus;

/// A block of this node as the store has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OwnedBlock {
    pub(super) cidr: Cidr,
    /// The revision of its key; none: it is not known yet.
    pub(super) revision: Option<Revision>,
    pub(super) status: BlockStatus,
}

impl Leaseholder {
    /// Returns the block with exactly these addresses.
    pub(super) fn find_owned(&self, pool: &PoolFamily, cidr: Cidr) -> Option<OwnedBlock> {
        self.owned.get(pool)?.get(&cidr.first()).copied().filter(|owned| owned.cidr == cidr)
    }

    /// Returns whether the block with exactly these addresses is a spare.
    pub(super) fn is_spare(&self, pool: &PoolFamily, cidr: Cidr) -> bool {
        self.find_owned(pool, cidr).is_some_and(|owned| owned.status == BlockStatus::Spare)
    }

    /// Forgets a block, if it is known.
    pub(super) fn forget_owned(&mut self, pool: &PoolFamily, cidr: Cidr) {
        if let Some(blocks) = self.owned.get_mut(pool) {
            blocks.remove(&cidr.first());
            if blocks.is_empty() {
                self.owned.remove(pool);
            }
        }
    }

    /// Adds a block, which overlaps no other one. `revision`: that of its key, if it is known.
    pub(super) fn keep_owned(
        &mut self,
        pool: &PoolFamily,
        cidr: Cidr,
        revision: Option<Revision>,
        status: BlockStatus,
    ) {
        let block = OwnedBlock { cidr, revision, status };
        let blocks = self.owned.entry(pool.clone()).or_default();
        blocks.insert(cidr.first(), block);
        debug_assert!(
            {
                let mut near = blocks.range(..=cidr.last()).rev();
                let last = near.next().is_none_or(|(start, _)| *start == cidr.first());
                last && near.next().is_none_or(|(_, owned)| owned.cidr.last() < cidr.first())
            },
            "blocks of a node overlap"
        );
    }
}
