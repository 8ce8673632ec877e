//! The journal of a node, apart from where it is kept: its entries, the rows that they change, and
//! what a reboot makes of them.
//!
//! [`apply`] is the only place that knows what an entry means. It works on any [`Rows`]: on the
//! tables of the file, and on [`JournalState`] in memory, which the file is read into.

mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, Cidr};
use super::attachment::{AttachmentId, Holding};
use super::ids::{Link, Sequence};
use super::keys::PoolFamily;
use super::leaseholder::without;
use super::set_identity::{SetId, SetIdentity};
use super::time::{BootTime, StartTime};

pub use state::{Holdings, JournalState, NewBoot};

/// Sequence numbers are reserved in steps, so that not every ADD changes the row that has them.
const SEQUENCE_STEP: u64 = 4096;

/// The number of cooled rows that are removed when one is added.
const FORGOTTEN_PER_ROW: usize = 2;

/// The number of cooled rows that are removed when a range set is forgotten.
const FORGOTTEN_PER_SET: usize = 256;

/// The reason why nothing is made durable any longer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalFailure {
    /// The storage failed, in its own words.
    Storage(Arc<str>),
    /// The journal was closed.
    Closed,
}

/// A change to the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalEntry {
    /// An attachment holds these addresses.
    Hold(Arc<Holding>),
    /// This holding has ended, and none that came after it.
    End(Arc<Holding>),
    /// An address began to cool then.
    Cool(SetId, Address, BootTime),
    /// The last address handed out for a slot of a range set.
    Cursor(SetId, u16, Address),
    /// A range set is there, or has grown.
    Set(SetIdentity),
    /// A range set has become part of another one, and what cools in it with it.
    MergeSets {
        /// The range set that remains.
        into: SetId,
        /// The range set that is gone.
        from: SetId,
    },
    /// A range set is gone at this time; all that ever cooled in it has cooled off.
    ForgetSet(SetId, BootTime),
    /// Addresses of this cidr may be handed out: it is one block, and its parts are none any
    /// longer.
    Block(PoolFamily, Cidr),
    /// The store gave this block to others; what is held of it stays held until its DEL.
    LostBlock(PoolFamily, Cidr),
    /// Addresses of this cidr may no longer be handed out. It may be a part of a block, or several
    /// blocks.
    NoBlock(PoolFamily, Cidr),
    /// The node's chain in the cluster's store has come so far.
    Chain(Link),
    /// It may have come so far.
    Intent(Link),
    /// The store has confirmed, in this boot, which blocks are this node's; or it has to do so
    /// before anything is handed out.
    Confirmed(bool),
    /// A DEL of this attachment that started then was answered before the node had joined, and so
    /// before it knew whether this journal is all there was (rule 28).
    EarlyDel(AttachmentId, StartTime),
    /// The node has joined: it knows.
    NoEarlyDels,
    /// The store went back in time; these blocks were lost before that (rule 26).
    WentBack(Vec<(PoolFamily, Cidr)>),
    /// The restore of the store is settled.
    Settled,
}

/// A cooling address: its time of release, its range set, itself.
pub type Cooling = (BootTime, SetId, Address);

/// The rows of a journal, wherever they are kept. A row that is put replaces the one with the same
/// key; nothing happens when one is removed that is not there.
pub trait Rows {
    /// The reason why a row cannot be read or changed, for all methods.
    type Error;

    /// Puts a holding, by sequence number and attachment.
    fn put_holding(&mut self, holding: &Arc<Holding>) -> Result<(), Self::Error>;

    /// Removes the holding with this one's sequence number and attachment.
    fn remove_holding(&mut self, holding: &Holding) -> Result<(), Self::Error>;

    /// Returns the sequence number from which on none is reserved.
    fn next_sequence(&self) -> Sequence;

    /// Reserves all sequence numbers below this one.
    fn set_next_sequence(&mut self, next: Sequence) -> Result<(), Self::Error>;

    /// Puts a cooling address.
    fn put_cooling(&mut self, row: Cooling) -> Result<(), Self::Error>;

    /// Removes a cooling address.
    fn remove_cooling(&mut self, row: Cooling) -> Result<(), Self::Error>;

    /// Returns the address that was released first.
    fn oldest_cooling(&mut self) -> Result<Option<Cooling>, Self::Error>;

    /// Returns all cooling addresses of a range set. It may take long: sets are merged seldom.
    fn cooling_of(&mut self, set: SetId) -> Result<Vec<Cooling>, Self::Error>;

    /// Puts the cursor of a slot of a range set.
    fn put_cursor(&mut self, set: SetId, slot: u16, number: Address) -> Result<(), Self::Error>;

    /// Removes the cursor of a slot of a range set.
    fn remove_cursor(&mut self, set: SetId, slot: u16) -> Result<(), Self::Error>;

    /// Returns the slots and cursors of a range set.
    fn cursors_of(&mut self, set: SetId) -> Result<Vec<(u16, Address)>, Self::Error>;

    /// Puts a range set, by its id.
    fn put_set(&mut self, set: &SetIdentity) -> Result<(), Self::Error>;

    /// Removes a range set.
    fn remove_set(&mut self, set: SetId) -> Result<(), Self::Error>;

    /// Puts a block of at most the largest size, which meets no other one; `lost`: the
    /// store gave it to others.
    fn put_block(&mut self, pool: &PoolFamily, cidr: Cidr, lost: bool) -> Result<(), Self::Error>;

    /// Removes a block.
    fn remove_block(&mut self, pool: &PoolFamily, cidr: Cidr) -> Result<(), Self::Error>;

    /// Returns the blocks that have an address of this cidr, and whether each is lost.
    fn blocks_meeting(
        &mut self,
        pool: &PoolFamily,
        cidr: Cidr,
    ) -> Result<Vec<(Cidr, bool)>, Self::Error>;

    /// Sets how far the node's chain has come.
    fn set_chain(&mut self, reached: Link) -> Result<(), Self::Error>;

    /// Sets how far it may have come.
    fn set_intent(&mut self, intended: Link) -> Result<(), Self::Error>;

    /// Sets whether the store has confirmed the blocks.
    fn set_confirmed(&mut self, confirmed: bool) -> Result<(), Self::Error>;

    /// Puts a DEL from before the node had joined, by its attachment.
    fn put_early_del(
        &mut self,
        id: &AttachmentId,
        started_at: StartTime,
    ) -> Result<(), Self::Error>;

    /// Removes all of these.
    fn remove_early_dels(&mut self) -> Result<(), Self::Error>;

    /// Sets that a restore of the store is being settled, and what was lost before it; or that
    /// none is.
    fn set_settling(&mut self, lost: Option<&[(PoolFamily, Cidr)]>) -> Result<(), Self::Error>;
}

/// Makes the change of one entry. `cooldown`: how long released addresses cool.
///
/// # Errors
/// A row cannot be read or changed; then the rows may have a part of the change.
pub fn apply<R: Rows>(
    rows: &mut R,
    cooldown: Duration,
    entry: &JournalEntry,
) -> Result<(), R::Error> {
    match entry {
        JournalEntry::Hold(holding) => {
            if holding.sequence >= rows.next_sequence() {
                rows.set_next_sequence(holding.sequence.plus(SEQUENCE_STEP))?;
            }
            rows.put_holding(holding)
        }
        JournalEntry::End(holding) => rows.remove_holding(holding),
        JournalEntry::Cool(set, number, released) => {
            rows.put_cooling((*released, *set, *number))?;
            let cooled = released.before(cooldown);
            cooled.map_or(Ok(()), |cooled| forget_cooled(rows, cooled, FORGOTTEN_PER_ROW))
        }
        JournalEntry::Cursor(set, slot, number) => rows.put_cursor(*set, *slot, *number),
        JournalEntry::Set(set) => rows.put_set(set),
        JournalEntry::MergeSets { into, from } => merge_sets(rows, *into, *from),
        JournalEntry::ForgetSet(set, now) => {
            for (slot, _) in rows.cursors_of(*set)? {
                rows.remove_cursor(*set, slot)?;
            }
            rows.remove_set(*set)?;
            let cooled = now.before(cooldown);
            cooled.map_or(Ok(()), |cooled| forget_cooled(rows, cooled, FORGOTTEN_PER_SET))
        }
        JournalEntry::Block(pool, cidr) => {
            cut(rows, pool, *cidr)?;
            rows.put_block(pool, *cidr, false)
        }
        JournalEntry::LostBlock(pool, cidr) => {
            cut(rows, pool, *cidr)?;
            rows.put_block(pool, *cidr, true)
        }
        JournalEntry::NoBlock(pool, cidr) => cut(rows, pool, *cidr),
        JournalEntry::Chain(reached) => rows.set_chain(*reached),
        JournalEntry::Intent(intended) => rows.set_intent(*intended),
        JournalEntry::Confirmed(confirmed) => rows.set_confirmed(*confirmed),
        JournalEntry::EarlyDel(id, started_at) => rows.put_early_del(id, *started_at),
        JournalEntry::NoEarlyDels => rows.remove_early_dels(),
        JournalEntry::WentBack(lost) => rows.set_settling(Some(lost)),
        JournalEntry::Settled => rows.set_settling(None),
    }
}

/// Removes so many rows whose time is over. It is called for every row that is added, so the number
/// of rows never exceeds the number of cooling addresses by much.
fn forget_cooled<R: Rows>(
    rows: &mut R,
    released_before: BootTime,
    count: usize,
) -> Result<(), R::Error> {
    for _ in 0..count {
        match rows.oldest_cooling()? {
            Some(oldest) if oldest.0 < released_before => rows.remove_cooling(oldest)?,
            _ => break,
        }
    }
    Ok(())
}

/// Moves the addresses that cool in `from` to `into`, where they continue to cool; a slot of `into`
/// that has a cursor keeps it. Nothing remains under the id of `from`, since a later range set may
/// get it.
fn merge_sets<R: Rows>(rows: &mut R, into: SetId, from: SetId) -> Result<(), R::Error> {
    for row in rows.cooling_of(from)? {
        rows.remove_cooling(row)?;
        rows.put_cooling((row.0, into, row.2))?;
    }
    let known = rows.cursors_of(into)?;
    for (slot, number) in rows.cursors_of(from)? {
        rows.remove_cursor(from, slot)?;
        if known.iter().all(|(of, _)| *of != slot) {
            rows.put_cursor(into, slot, number)?;
        }
    }
    rows.remove_set(from)
}

/// Leaves nothing of a run in the blocks: those in it go, of one around it the rest stays.
fn cut<R: Rows>(rows: &mut R, pool: &PoolFamily, cidr: Cidr) -> Result<(), R::Error> {
    for (block, lost) in rows.blocks_meeting(pool, cidr)? {
        rows.remove_block(pool, block)?;
        let around = block.size() > cidr.size();
        for part in around.then(|| without(block, cidr)).into_iter().flatten() {
            rows.put_block(pool, part, lost)?;
        }
    }
    Ok(())
}
