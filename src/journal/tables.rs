//! The tables of the journal: what is read at the start, what each record changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{boxed, rows};
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::coordinator::{JournalEntry, JournalState};
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::without;
use crate::limits;

type Failed = Box<redb::Error>;
type HoldingKey = (u64, &'static str, &'static str, &'static str);
type BlockKey = (&'static str, &'static str, u128);

/// Sequence number, network, container and interface, to the rest of a holding. What is new is
/// side by side, and so is most of what ends soon: however many are held, a commit changes few
/// pages.
const HOLDINGS: TableDefinition<'_, HoldingKey, &[u8]> = TableDefinition::new("holdings");
/// Time of release, range set and address: oldest first.
const COOLING: TableDefinition<'_, (u64, u32, u128), ()> = TableDefinition::new("cooling");
/// Blocks by network, family and first address: the binary logarithms of their sizes, and
/// [`rows::LOST`].
const BLOCKS: TableDefinition<'_, BlockKey, u8> = TableDefinition::new("blocks");
/// Range sets by name.
const SETS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("range_sets");
/// Cursors and counters, which nearly every commit changes: one table, since each table that a
/// commit opens costs it about as much as a row.
const NUMBERS: TableDefinition<'_, NumberKey, u128> = TableDefinition::new("numbers");

/// What a number is, of which range set and slot.
pub(super) type NumberKey = (u8, u32, u16);

/// How many commits of records there were.
pub(super) const COMMITS: NumberKey = (0, 0, 0);
/// Higher than every sequence number ever given.
pub(super) const NEXT_SEQUENCE: NumberKey = (1, 0, 0);
/// The first field of the keys of cursors.
const CURSOR: u8 = 2;
/// How far the node's chain in the cluster's store has come.
const CHAIN: NumberKey = (3, 0, 0);
/// How far it may have come.
const INTENT: NumberKey = (4, 0, 0);
/// 1: the store has confirmed in this boot which blocks are this node's; 0: not yet; absent in
/// journals of earlier versions, whose node was confirmed at every start but the first of a boot.
const CONFIRMED: NumberKey = (5, 0, 0);

/// Makes the tables that are not there.
pub(super) fn make(db: &Database) -> Result<(), Failed> {
    let txn = db.begin_write().map_err(boxed)?;
    txn.open_table(HOLDINGS).map_err(boxed)?;
    txn.open_table(COOLING).map_err(boxed)?;
    txn.open_table(BLOCKS).map_err(boxed)?;
    txn.open_table(SETS).map_err(boxed)?;
    txn.open_table(NUMBERS).map_err(boxed)?;
    txn.commit().map_err(boxed)
}

/// Everything in the tables, and the number of commits.
pub(super) fn read(db: &Database) -> anyhow::Result<(JournalState, u64)> {
    let mut state = JournalState { next_sequence: 1, confirmed: true, ..JournalState::default() };
    let mut commits = 0;
    let txn = db.begin_read()?;
    for row in txn.open_table(HOLDINGS)?.iter()? {
        let (key, value) = row?;
        state.holdings.push(Arc::new(rows::read_holding(key.value(), value.value())?));
    }
    for row in txn.open_table(SETS)?.iter()? {
        let (key, value) = row?;
        state.sets.push(rows::read_set(key.value(), value.value())?);
    }
    for row in txn.open_table(BLOCKS)?.iter()? {
        let (key, value) = row?;
        let block = rows::read_block(key.value(), value.value())?;
        let lost = value.value() & rows::LOST != 0;
        if lost { &mut state.lost } else { &mut state.blocks }.push(block);
    }
    for row in txn.open_table(COOLING)?.iter()? {
        let (released, set, number) = row?.0.value();
        state.cooling.push((set, number, released));
    }
    for row in txn.open_table(NUMBERS)?.iter()? {
        let (key, value) = row?;
        match key.value() {
            COMMITS => commits = u64::try_from(value.value())?,
            NEXT_SEQUENCE => state.next_sequence = u64::try_from(value.value())?,
            CHAIN => state.chain = u64::try_from(value.value())?,
            CONFIRMED => state.confirmed = value.value() != 0,
            INTENT => state.intent = u64::try_from(value.value())?,
            (CURSOR, set, slot) => state.cursors.push((set, slot, value.value())),
            key => anyhow::bail!("unknown number {key:?}"),
        }
    }
    Ok((state, commits))
}

/// Rewrites what does not outlive a boot, in one commit: `cooling` cools from `now` on, and
/// nothing else; holdings end, or forget when their plugin process started.
pub(super) fn begin_boot(
    db: &Database,
    keep: bool,
    now: Millis,
    cooling: &BTreeSet<(u32, u128)>,
) -> Result<(), Failed> {
    let txn = db.begin_write().map_err(boxed)?;
    txn.delete_table(COOLING).map_err(boxed)?;
    let mut table = txn.open_table(COOLING).map_err(boxed)?;
    for &(set, number) in cooling {
        table.insert((now, set, number), ()).map_err(boxed)?;
    }
    let mut holdings = txn.open_table(HOLDINGS).map_err(boxed)?;
    let mut kept = Vec::new();
    for row in holdings.iter().map_err(boxed)? {
        let (key, value) = row.map_err(boxed)?;
        let (sequence, network, container, ifname) = key.value();
        let key = [network, container, ifname].map(str::to_owned);
        kept.push((sequence, key, rows::without_start(value.value())));
    }
    holdings.retain(|_, _| keep).map_err(boxed)?;
    for (sequence, [network, container, ifname], value) in kept.iter().filter(|_| keep) {
        let key = (*sequence, network.as_str(), container.as_str(), ifname.as_str());
        holdings.insert(key, value.as_slice()).map_err(boxed)?;
    }
    let mut numbers = txn.open_table(NUMBERS).map_err(boxed)?;
    numbers.insert(CONFIRMED, 0).map_err(boxed)?;
    drop((table, holdings, numbers));
    txn.commit().map_err(boxed)
}

/// The tables of one commit, each opened when it is first needed.
pub(super) struct Tables<'t> {
    txn: &'t WriteTransaction,
    cooldown: Millis,
    holdings: Option<Table<'t, HoldingKey, &'static [u8]>>,
    cooling: Option<Table<'t, (u64, u32, u128), ()>>,
    numbers: Option<Table<'t, NumberKey, u128>>,
}

/// The table in a slot, opened if need be.
macro_rules! table {
    ($tables:expr, $slot:ident, $definition:expr) => {{
        if $tables.$slot.is_none() {
            $tables.$slot = Some($tables.txn.open_table($definition).map_err(boxed)?);
        }
        $tables.$slot.as_mut().unwrap_or_else(|| unreachable!("it was opened just now"))
    }};
}

impl<'t> Tables<'t> {
    /// No table is open yet. `cooldown` in milliseconds.
    pub(super) fn of(txn: &'t WriteTransaction, cooldown: Millis) -> Self {
        Self { txn, cooldown, holdings: None, cooling: None, numbers: None }
    }

    /// Sets a number.
    pub(super) fn set(&mut self, key: NumberKey, number: u128) -> Result<(), Failed> {
        table!(self, numbers, NUMBERS).insert(key, number).map_err(boxed)?;
        Ok(())
    }

    /// Makes the change of a record.
    pub(super) fn write(&mut self, record: &JournalEntry) -> Result<(), Failed> {
        match record {
            JournalEntry::Hold(holding) => {
                let (container, value) = (holding.container_id.to_text(), rows::holding(holding));
                let key = rows::key(holding, &container);
                table!(self, holdings, HOLDINGS).insert(key, &*value).map_err(boxed)?;
            }
            JournalEntry::End(holding) => {
                let container = holding.container_id.to_text();
                let key = rows::key(holding, &container);
                table!(self, holdings, HOLDINGS).remove(key).map_err(boxed)?;
            }
            JournalEntry::Cool(set, number, released) => {
                let cooling = table!(self, cooling, COOLING);
                cooling.insert((*released, *set, *number), ()).map_err(boxed)?;
                forget_oldest(cooling, released.saturating_sub(self.cooldown))?;
            }
            JournalEntry::Cursor(set, slot, number) => self.set((CURSOR, *set, *slot), *number)?,
            JournalEntry::Set(set) => {
                let mut sets = self.txn.open_table(SETS).map_err(boxed)?;
                sets.insert(set.id, &*rows::set(set)).map_err(boxed)?;
            }
            JournalEntry::ForgetSet(id) => {
                self.txn.open_table(SETS).map_err(boxed)?.remove(id).map_err(boxed)?;
            }
            JournalEntry::Block(pool, cidr) => {
                let mut blocks = self.txn.open_table(BLOCKS).map_err(boxed)?;
                cut(&mut blocks, pool, *cidr)?;
                blocks.insert(rows::block_key(pool, *cidr), cidr.size_log2).map_err(boxed)?;
            }
            JournalEntry::LostBlock(pool, cidr) => {
                let mut blocks = self.txn.open_table(BLOCKS).map_err(boxed)?;
                cut(&mut blocks, pool, *cidr)?;
                let value = cidr.size_log2 | rows::LOST;
                blocks.insert(rows::block_key(pool, *cidr), value).map_err(boxed)?;
            }
            JournalEntry::NoBlock(pool, cidr) => {
                cut(&mut self.txn.open_table(BLOCKS).map_err(boxed)?, pool, *cidr)?;
            }
            JournalEntry::Chain(sequence) => self.set(CHAIN, u128::from(*sequence))?,
            JournalEntry::Intent(sequence) => self.set(INTENT, u128::from(*sequence))?,
            JournalEntry::Confirmed => self.set(CONFIRMED, 1)?,
        }
        Ok(())
    }
}

/// Leaves nothing of a run in the table: blocks in it go, of one around it the rest stays.
fn cut(blocks: &mut Table<'_, BlockKey, u8>, pool: &PoolFamily, cidr: Cidr) -> Result<(), Failed> {
    let from = Cidr::containing(cidr.start, limits::BLOCK_LOG2_MAX).start;
    let range = |number| (&*pool.network, pool.family.as_str(), number);
    let mut met = Vec::new();
    for row in blocks.range(range(from)..=range(cidr.end())).map_err(boxed)? {
        let (key, value) = row.map_err(boxed)?;
        let (size_log2, lost) = (value.value() & !rows::LOST, value.value() & rows::LOST);
        let block = Cidr { start: key.value().2, size_log2 };
        if block.end() >= cidr.start {
            met.push((block, lost));
        }
    }
    for (block, lost) in met {
        blocks.remove(rows::block_key(pool, block)).map_err(boxed)?;
        let around = block.size_log2 > cidr.size_log2;
        for part in around.then(|| without(block, cidr)).into_iter().flatten() {
            let value = part.size_log2 | lost;
            blocks.insert(rows::block_key(pool, part), value).map_err(boxed)?;
        }
    }
    Ok(())
}

/// Every row that is added takes away up to two that have had their time: so the table stays as
/// small as what is cooling.
fn forget_oldest(
    cooling: &mut Table<'_, (u64, u32, u128), ()>,
    until: Millis,
) -> Result<(), Failed> {
    for _ in 0..2 {
        let oldest = cooling.first().map_err(boxed)?.map(|(key, _)| key.value().0);
        if oldest.is_none_or(|released| released >= until) {
            break;
        }
        cooling.pop_first().map_err(boxed)?;
    }
    Ok(())
}
