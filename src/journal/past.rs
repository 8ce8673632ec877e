//! Past holdings: who held an address before, for people who look into what happened. Nothing that
//! the node decides depends on them, so they are no part of the state that entries make.
//!
//! A row is written in the commit that ends its holding, and costs no commit of its own. The rows
//! are numbered, so the oldest are found without a search when there are too many of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use super::{boxed, rows};
use crate::clock;
use crate::core::attachment::Holding;
use crate::core::time::UnixTime;
use crate::limits;

/// A past holding by its number: when it ended, the reason, its sequence number, network, container
/// and interface, and the rest of its row. An older daemon does not know the table, and leaves it
/// as it is: the format of the journal is the same.
const PAST: TableDefinition<'_, u64, Value> = TableDefinition::new("past_holdings");
type Value = (u64, u8, u64, &'static str, &'static str, &'static str, &'static [u8]);

/// The most rows that are removed when one is added, so that no commit is slow when the bounds were
/// narrowed.
const REMOVED_PER_ROW: u64 = 2;

type Failed = Box<redb::Error>;

/// The bounds of the past holdings that are kept: their number and their age.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The largest number of them; 0: none is kept.
    pub count: u64,
    /// The longest time since the end of one.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { count: limits::PAST_COUNT, age: limits::PAST_AGE }
    }
}

impl Bounds {
    /// The bounds that are given, or else the usual ones.
    pub fn new(count: Option<u64>, age: Option<Duration>) -> Self {
        let usual = Self::default();
        Self { count: count.unwrap_or(usual.count), age: age.unwrap_or(usual.age) }
    }

    /// True if a holding that ended then is no longer kept.
    fn is_over(&self, ended: UnixTime, now: UnixTime) -> bool {
        now.since(ended) > self.age
    }
}

/// The reason why a holding ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It was released: by a DEL, an operator, the sweep, or because its ADD failed.
    Released,
    /// The machine has rebooted.
    Reboot,
}

/// A holding that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastHolding {
    /// The holding.
    pub holding: Holding,
    /// The time at which it ended.
    pub ended: UnixTime,
    /// The reason.
    pub end: End,
}

/// The writer of past holdings.
#[derive(Debug)]
pub(super) struct Writer {
    bounds: Bounds,
    /// The numbers of the oldest row and of the next one.
    first: u64,
    next: u64,
}

impl Writer {
    /// Reads which rows there are.
    pub(super) fn open(db: &Database, bounds: Bounds) -> Result<Self, Failed> {
        let txn = db.begin_read().map_err(boxed)?;
        let table = match txn.open_table(PAST) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Self { bounds, first: 0, next: 0 }),
            table => table.map_err(boxed)?,
        };
        let first = table.first().map_err(boxed)?.map(|(number, _)| number.value());
        let last = table.last().map_err(boxed)?.map(|(number, _)| number.value());
        let next = last.map_or(0, |last| last + 1);
        Ok(Self { bounds, first: first.unwrap_or(next), next })
    }

    /// The number of rows.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.next - self.first
    }

    /// Adds holdings that end in a commit, and removes what is beyond the bounds.
    pub(super) fn add<'a>(
        &mut self,
        txn: &WriteTransaction,
        ended: impl IntoIterator<Item = &'a Arc<Holding>>,
        end: End,
    ) -> Result<(), Failed> {
        let mut ended = ended.into_iter().peekable();
        if self.bounds.count == 0 && self.first == self.next || ended.peek().is_none() {
            return Ok(());
        }
        let mut table = txn.open_table(PAST).map_err(boxed)?;
        let now = clock::unix();
        for holding in ended {
            if self.bounds.count > 0 {
                self.put(&mut table, holding, now, end)?;
            }
            self.trim(&mut table, now)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        table: &mut Table<'_, u64, Value>,
        holding: &Holding,
        now: UnixTime,
        end: End,
    ) -> Result<(), Failed> {
        let (container, row) = (holding.container_id.to_text(), rows::holding(holding));
        let (sequence, network, container, ifname) = rows::key(holding, &container);
        let end = u8::from(end == End::Reboot);
        let value = (now.as_millis(), end, sequence, network, container, ifname, &*row);
        table.insert(self.next, value).map_err(boxed)?;
        self.next += 1;
        Ok(())
    }

    fn trim(&mut self, table: &mut Table<'_, u64, Value>, now: UnixTime) -> Result<(), Failed> {
        for _ in 0..REMOVED_PER_ROW {
            if self.first == self.next {
                return Ok(());
            }
            let over = self.next - self.first > self.bounds.count || {
                let oldest = table.get(self.first).map_err(boxed)?;
                oldest.is_none_or(|row| {
                    self.bounds.is_over(UnixTime::from_millis(row.value().0), now)
                })
            };
            if !over {
                return Ok(());
            }
            table.remove(self.first).map_err(boxed)?;
            self.first += 1;
        }
        Ok(())
    }
}

/// A reader of past holdings, which does not keep the journal from being closed.
#[derive(Clone, Debug)]
pub struct Past {
    db: Weak<Database>,
    bounds: Bounds,
}

impl Past {
    pub(super) fn of(db: &Arc<Database>, bounds: Bounds) -> Self {
        Self { db: Arc::downgrade(db), bounds }
    }

    /// Returns the past holdings that fit, latest first, `limit` of them at most. It goes through
    /// all that are kept, and holds up no commit.
    ///
    /// # Errors
    /// The journal is closed or cannot be read.
    pub fn find(
        &self,
        limit: usize,
        mut fits: impl FnMut(&Holding) -> bool,
    ) -> anyhow::Result<Vec<PastHolding>> {
        let Some(db) = self.db.upgrade() else { anyhow::bail!("the journal is closed") };
        let table = match db.begin_read()?.open_table(PAST) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let (now, mut found) = (clock::unix(), Vec::new());
        for row in table.iter()?.rev() {
            let (_, value) = row?;
            let (ended, end, sequence, network, container, ifname, rest) = value.value();
            let ended = UnixTime::from_millis(ended);
            if found.len() == limit || self.bounds.is_over(ended, now) {
                break;
            }
            let holding = rows::read_holding((sequence, network, container, ifname), rest)?;
            if fits(&holding) {
                let end = if end == 0 { End::Released } else { End::Reboot };
                found.push(PastHolding { holding, ended, end });
            }
        }
        Ok(found)
    }
}
