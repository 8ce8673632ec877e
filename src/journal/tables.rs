//! The tables of the journal: the rows that entries change, and what is read at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};

use super::{boxed, rows};
use crate::core::address::{Address, BlockSize, Cidr};
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::ids::{Link, Sequence};
use crate::core::journal::{Cooling, JournalState, Rows};
use crate::core::keys::PoolFamily;
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::time::StartTime;

/// The format of the rows that this daemon writes. It reads this one and all before.
///
/// - 0: no format is written down; otherwise as 1.
/// - 1: the first one that is written down.
pub(super) const FORMAT: u64 = 1;

type Failed = Box<redb::Error>;
type HoldingKey = (u64, &'static str, &'static str, &'static str);
type AttachmentKey = (&'static str, &'static str, &'static str);
type BlockKey = rows::BlockKey<'static>;

/// Sequence number, network, container and interface, to the rest of a holding. What is new is
/// side by side, and so is most of what ends soon: however many are held, a commit changes few
/// pages.
const HOLDINGS: TableDefinition<'_, HoldingKey, &[u8]> = TableDefinition::new("holdings");
/// Time of release, range set and address: oldest first.
const COOLING: TableDefinition<'_, rows::CoolingRow, ()> = TableDefinition::new("cooling");
/// Blocks by network, family and first address: the binary logarithms of their sizes, and
/// whether they are lost.
const BLOCKS: TableDefinition<'_, BlockKey, u8> = TableDefinition::new("blocks");
/// The id of the boot in which the rows were written last.
const BOOT: TableDefinition<'_, (), &str> = TableDefinition::new("boot");
/// DELs from before the node had joined, by network, container and interface: when they started.
const EARLY_DELS: TableDefinition<'_, AttachmentKey, u64> = TableDefinition::new("early_dels");
/// While a restore of the store is being settled: the blocks that were lost before it, as in
/// [`BLOCKS`], and [`SETTLING`].
const LOST_BEFORE: TableDefinition<'_, BlockKey, u8> = TableDefinition::new("lost_before");
/// The row that is there although no block was lost.
const SETTLING: BlockKey = ("", "", 0);
/// Range sets by name.
const SETS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("range_sets");
/// Cursors and counters, which nearly every commit changes: one table, since each table that a
/// commit opens costs it about as much as a row.
const NUMBERS: TableDefinition<'_, NumberKey, u128> = TableDefinition::new("numbers");

/// The key of a number: its meaning, its range set and its slot.
pub(super) type NumberKey = (u8, u32, u16);

/// The number of commits of entries.
pub(super) const COMMITS: NumberKey = (0, 0, 0);
/// Higher than every sequence number ever given.
pub(super) const NEXT_SEQUENCE: NumberKey = (1, 0, 0);
/// The first field of the keys of cursors.
const CURSOR: u8 = 2;
/// The point to which the node's chain in the cluster's store has come.
const CHAIN: NumberKey = (3, 0, 0);
/// The point to which it may have come.
const INTENT: NumberKey = (4, 0, 0);
/// The [`FORMAT`] of all rows but this one: no later format may give this row, or the table it is
/// in, another name or other types.
const WRITTEN_FORMAT: NumberKey = (5, 0, 0);
/// 1: the store has confirmed in this boot which blocks are this node's.
const CONFIRMED: NumberKey = (6, 0, 0);

/// The table in a slot, opened if need be.
macro_rules! table {
    ($tables:expr, $slot:ident, $definition:expr) => {{
        if $tables.$slot.is_none() {
            $tables.$slot = Some($tables.txn.open_table($definition).map_err(boxed)?);
        }
        $tables.$slot.as_mut().unwrap_or_else(|| unreachable!("it was opened just now"))
    }};
}

/// The format of a journal's rows; 0 also for a new journal, which has none.
pub(super) fn format(db: &Database) -> Result<u128, Failed> {
    let txn = db.begin_read().map_err(boxed)?;
    let numbers = match txn.open_table(NUMBERS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(0),
        numbers => numbers.map_err(boxed)?,
    };
    let format = numbers.get(WRITTEN_FORMAT).map_err(boxed)?;
    Ok(format.map_or(0, |format| format.value()))
}

/// Makes the tables that are not there, and writes the format down.
pub(super) fn make(db: &Database) -> Result<(), Failed> {
    let txn = db.begin_write().map_err(boxed)?;
    txn.open_table(HOLDINGS).map_err(boxed)?;
    txn.open_table(COOLING).map_err(boxed)?;
    txn.open_table(BLOCKS).map_err(boxed)?;
    txn.open_table(SETS).map_err(boxed)?;
    let mut numbers = txn.open_table(NUMBERS).map_err(boxed)?;
    // A daemon that wrote format 0 trusted its blocks at every start but the first of a boot.
    if numbers.get(COMMITS).map_err(boxed)?.is_some() {
        numbers.insert(CONFIRMED, 1).map_err(boxed)?;
    }
    numbers.insert(WRITTEN_FORMAT, u128::from(FORMAT)).map_err(boxed)?;
    drop(numbers);
    txn.commit().map_err(boxed)
}

/// Everything in the tables, and the number of commits.
pub(super) fn read(db: &Database) -> anyhow::Result<(JournalState, u64)> {
    let mut state = JournalState::default();
    let mut commits = 0;
    let txn = db.begin_read()?;
    for row in txn.open_table(HOLDINGS)?.iter()? {
        let (key, value) = row?;
        state.holdings.put(Arc::new(rows::read_holding(key.value(), value.value())?));
    }
    for row in txn.open_table(SETS)?.iter()? {
        let (key, value) = row?;
        let id = SetId::new(key.value());
        state.sets.insert(id, rows::read_set(id, value.value())?);
    }
    for row in txn.open_table(BLOCKS)?.iter()? {
        let (key, value) = row?;
        let (pool, cidr, lost) = rows::read_block(key.value(), value.value())?;
        if lost { &mut state.lost } else { &mut state.blocks }.insert((pool, cidr));
    }
    state.early_dels = read_early_dels(&txn)?;
    state.settling = read_settling(&txn)?;
    for row in txn.open_table(COOLING)?.iter()? {
        state.cooling.insert(rows::read_cooling(row?.0.value()));
    }
    for row in txn.open_table(NUMBERS)?.iter()? {
        let (key, value) = row?;
        match key.value() {
            COMMITS => commits = u64::try_from(value.value())?,
            NEXT_SEQUENCE => state.next_sequence = Sequence::new(u64::try_from(value.value())?),
            CHAIN => state.chain = Link::new(u64::try_from(value.value())?),
            INTENT => state.intent = Link::new(u64::try_from(value.value())?),
            (CURSOR, set, slot) => {
                let last = Address::new(value.value());
                state.cursors.insert((SetId::new(set), slot), last);
            }
            CONFIRMED => state.confirmed = value.value() != 0,
            WRITTEN_FORMAT => {}
            key => anyhow::bail!("unknown number {key:?}"),
        }
    }
    Ok((state, commits))
}

/// The id of the boot in which the journal was written; none, if that was by a version that did not
/// write it down.
pub(super) fn boot_id(db: &Database) -> Result<Option<String>, Failed> {
    let txn = db.begin_read().map_err(boxed)?;
    let table = match txn.open_table(BOOT) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        table => table.map_err(boxed)?,
    };
    let id = table.get(()).map_err(boxed)?;
    Ok(id.map(|id| id.value().to_owned()))
}

/// Removes the id, as if an older version had written the journal.
#[cfg(test)]
pub(super) fn forget_boot_id(db: &Database) {
    let txn = db.begin_write().unwrap();
    txn.delete_table(BOOT).unwrap();
    txn.commit().unwrap();
}

/// Writes the id of this boot.
pub(super) fn set_boot_id(db: &Database, id: &str) -> Result<(), Failed> {
    let txn = db.begin_write().map_err(boxed)?;
    txn.open_table(BOOT).map_err(boxed)?.insert((), id).map_err(boxed)?;
    txn.commit().map_err(boxed)
}

/// DELs from before the node had joined. The table is there only since the first one.
fn read_early_dels(txn: &ReadTransaction) -> anyhow::Result<BTreeMap<AttachmentId, StartTime>> {
    let table = match txn.open_table(EARLY_DELS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        table => table?,
    };
    let mut early_dels = BTreeMap::new();
    for row in table.iter()? {
        let (key, started_at) = row?;
        let (network, container_id, ifname) = key.value();
        let (network, container_id) = (network.into(), container_id.into());
        let id = AttachmentId { network, container_id, ifname: ifname.into() };
        early_dels.insert(id, StartTime::from_nanos(started_at.value()));
    }
    Ok(early_dels)
}

/// Reads what was lost before the restore that is being settled. The table exists only since the
/// first one.
fn read_settling(txn: &ReadTransaction) -> anyhow::Result<Option<BTreeSet<(PoolFamily, Cidr)>>> {
    let table = match txn.open_table(LOST_BEFORE) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        table => table?,
    };
    let mut settling = None;
    for row in table.iter()? {
        let (key, value) = row?;
        let lost: &mut BTreeSet<_> = settling.get_or_insert_default();
        if key.value() != SETTLING {
            let (pool, cidr, _) = rows::read_block(key.value(), value.value())?;
            lost.insert((pool, cidr));
        }
    }
    Ok(settling)
}

/// Writes, in one commit, what [`JournalState::begin_boot`] changed: holdings, what cools, and that
/// the blocks are not confirmed; and in which boot that was. `beside` adds to the same commit.
pub(super) fn begin_boot(
    db: &Database,
    state: &JournalState,
    boot_id: &str,
    beside: impl FnOnce(&WriteTransaction) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let txn = db.begin_write().map_err(boxed)?;
    txn.delete_table(HOLDINGS).map_err(boxed)?;
    txn.delete_table(COOLING).map_err(boxed)?;
    txn.delete_table(EARLY_DELS).map_err(boxed)?;
    let mut tables = Tables::of(&txn, state.next_sequence);
    table!(tables, holdings, HOLDINGS);
    table!(tables, cooling, COOLING);
    for holding in &state.holdings {
        tables.put_holding(holding)?;
    }
    for &row in &state.cooling {
        tables.put_cooling(row)?;
    }
    tables.set(CONFIRMED, u128::from(state.confirmed))?;
    drop(tables);
    beside(&txn)?;
    txn.open_table(BOOT).map_err(boxed)?.insert((), boot_id).map_err(boxed)?;
    txn.commit().map_err(boxed)
}

/// The tables of one commit, each opened when it is first needed.
pub(super) struct Tables<'t> {
    txn: &'t WriteTransaction,
    holdings: Option<Table<'t, HoldingKey, &'static [u8]>>,
    cooling: Option<Table<'t, rows::CoolingRow, ()>>,
    blocks: Option<Table<'t, BlockKey, u8>>,
    sets: Option<Table<'t, u32, &'static [u8]>>,
    numbers: Option<Table<'t, NumberKey, u128>>,
    next_sequence: Sequence,
    /// Cursors that are not in their table yet: of the places of one cursor in a commit only the
    /// last will ever be read.
    cursors: BTreeMap<(SetId, u16), Address>,
}

impl<'t> Tables<'t> {
    /// No table is open yet.
    pub(super) fn of(txn: &'t WriteTransaction, next_sequence: Sequence) -> Self {
        Self {
            txn,
            holdings: None,
            cooling: None,
            blocks: None,
            sets: None,
            numbers: None,
            next_sequence,
            cursors: BTreeMap::new(),
        }
    }

    /// Sets a number.
    pub(super) fn set(&mut self, key: NumberKey, number: u128) -> Result<(), Failed> {
        table!(self, numbers, NUMBERS).insert(key, number).map_err(boxed)?;
        Ok(())
    }

    /// Writes what was left for the end of the commit, and closes the tables.
    pub(super) fn finish(mut self) -> Result<(), Failed> {
        for ((set, slot), number) in std::mem::take(&mut self.cursors) {
            self.set((CURSOR, set.get(), slot), number.get())?;
        }
        Ok(())
    }
}

impl Rows for Tables<'_> {
    type Error = Failed;

    fn put_holding(&mut self, holding: &Arc<Holding>) -> Result<(), Failed> {
        let (container, value) = (holding.container_id.to_text(), rows::holding(holding));
        let key = rows::key(holding, &container);
        table!(self, holdings, HOLDINGS).insert(key, &*value).map_err(boxed)?;
        Ok(())
    }

    fn remove_holding(&mut self, holding: &Holding) -> Result<(), Failed> {
        let container = holding.container_id.to_text();
        let key = rows::key(holding, &container);
        table!(self, holdings, HOLDINGS).remove(key).map_err(boxed)?;
        Ok(())
    }

    fn next_sequence(&self) -> Sequence {
        self.next_sequence
    }

    fn set_next_sequence(&mut self, next: Sequence) -> Result<(), Failed> {
        self.next_sequence = next;
        self.set(NEXT_SEQUENCE, u128::from(next.get()))
    }

    fn put_cooling(&mut self, row: Cooling) -> Result<(), Failed> {
        table!(self, cooling, COOLING).insert(rows::cooling(row), ()).map_err(boxed)?;
        Ok(())
    }

    fn remove_cooling(&mut self, row: Cooling) -> Result<(), Failed> {
        table!(self, cooling, COOLING).remove(rows::cooling(row)).map_err(boxed)?;
        Ok(())
    }

    fn oldest_cooling(&mut self) -> Result<Option<Cooling>, Failed> {
        let oldest = table!(self, cooling, COOLING).first().map_err(boxed)?;
        Ok(oldest.map(|(row, _)| rows::read_cooling(row.value())))
    }

    fn cooling_of(&mut self, set: SetId) -> Result<Vec<Cooling>, Failed> {
        let mut cooling = Vec::new();
        for row in table!(self, cooling, COOLING).iter().map_err(boxed)? {
            let row = rows::read_cooling(row.map_err(boxed)?.0.value());
            cooling.extend((row.1 == set).then_some(row));
        }
        Ok(cooling)
    }

    fn put_cursor(&mut self, set: SetId, slot: u16, number: Address) -> Result<(), Failed> {
        self.cursors.insert((set, slot), number);
        Ok(())
    }

    fn remove_cursor(&mut self, set: SetId, slot: u16) -> Result<(), Failed> {
        self.cursors.remove(&(set, slot));
        table!(self, numbers, NUMBERS).remove((CURSOR, set.get(), slot)).map_err(boxed)?;
        Ok(())
    }

    fn cursors_of(&mut self, set: SetId) -> Result<Vec<(u16, Address)>, Failed> {
        let mut cursors = BTreeMap::new();
        let of_set = (CURSOR, set.get(), 0)..=(CURSOR, set.get(), u16::MAX);
        for row in table!(self, numbers, NUMBERS).range(of_set).map_err(boxed)? {
            let (key, number) = row.map_err(boxed)?;
            cursors.insert(key.value().2, Address::new(number.value()));
        }
        let newer = self.cursors.range((set, 0)..=(set, u16::MAX));
        cursors.extend(newer.map(|(&(_, slot), &number)| (slot, number)));
        Ok(cursors.into_iter().collect())
    }

    fn put_set(&mut self, set: &SetIdentity) -> Result<(), Failed> {
        table!(self, sets, SETS).insert(set.id.get(), &*rows::set(set)).map_err(boxed)?;
        Ok(())
    }

    fn remove_set(&mut self, set: SetId) -> Result<(), Failed> {
        table!(self, sets, SETS).remove(set.get()).map_err(boxed)?;
        Ok(())
    }

    fn put_block(&mut self, pool: &PoolFamily, cidr: Cidr, lost: bool) -> Result<(), Failed> {
        let (key, value) = rows::block(pool, cidr, lost);
        table!(self, blocks, BLOCKS).insert(key, value).map_err(boxed)?;
        Ok(())
    }

    fn remove_block(&mut self, pool: &PoolFamily, cidr: Cidr) -> Result<(), Failed> {
        let (key, _) = rows::block(pool, cidr, false);
        table!(self, blocks, BLOCKS).remove(key).map_err(boxed)?;
        Ok(())
    }

    fn blocks_meeting(
        &mut self,
        pool: &PoolFamily,
        cidr: Cidr,
    ) -> Result<Vec<(Cidr, bool)>, Failed> {
        let first = Cidr::containing(cidr.first(), BlockSize::MAX).first();
        let key = |at: Address| (&*pool.network, pool.family.as_str(), at.get());
        let near = key(first)..=key(cidr.last());
        let mut met = Vec::new();
        for row in table!(self, blocks, BLOCKS).range(near).map_err(boxed)? {
            let (key, value) = row.map_err(boxed)?;
            let (block, lost) = rows::block_of(key.value().2, value.value());
            if block.last() >= cidr.first() {
                met.push((block, lost));
            }
        }
        Ok(met)
    }

    fn set_chain(&mut self, reached: Link) -> Result<(), Failed> {
        self.set(CHAIN, u128::from(reached.get()))
    }

    fn set_intent(&mut self, intended: Link) -> Result<(), Failed> {
        self.set(INTENT, u128::from(intended.get()))
    }

    fn set_confirmed(&mut self, confirmed: bool) -> Result<(), Failed> {
        self.set(CONFIRMED, u128::from(confirmed))
    }

    fn put_early_del(&mut self, id: &AttachmentId, started_at: StartTime) -> Result<(), Failed> {
        let container = id.container_id.to_text();
        let mut table = self.txn.open_table(EARLY_DELS).map_err(boxed)?;
        table
            .insert((&*id.network, &*container, &*id.ifname), started_at.as_nanos())
            .map_err(boxed)?;
        Ok(())
    }

    fn remove_early_dels(&mut self) -> Result<(), Failed> {
        self.txn.delete_table(EARLY_DELS).map_err(boxed)?;
        Ok(())
    }

    fn set_settling(&mut self, lost: Option<&[(PoolFamily, Cidr)]>) -> Result<(), Failed> {
        self.txn.delete_table(LOST_BEFORE).map_err(boxed)?;
        let Some(lost) = lost else { return Ok(()) };
        let mut table = self.txn.open_table(LOST_BEFORE).map_err(boxed)?;
        table.insert(SETTLING, 0).map_err(boxed)?;
        for (pool, cidr) in lost {
            let (key, value) = rows::block(pool, *cidr, true);
            table.insert(key, value).map_err(boxed)?;
        }
        Ok(())
    }
}
