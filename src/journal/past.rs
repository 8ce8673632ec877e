//! Past holdings: who held an address before, for people who look into what happened. Nothing that
//! the node decides depends on them, so they are no part of the state that entries make.
//!
//! The rows of many are written together ([`limits::PAST_WAIT_MAX`]), since a table costs a commit
//! about as much as all else in it: a daemon that is killed loses the last ones. They are numbered,
//! so the oldest are found without a search when there are too many of them.

use std::borrow::Cow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use serde::{Deserialize, Serialize};

use super::{boxed, rows};
use crate::clock;
use crate::core::attachment::Holding;
use crate::core::time::{BootTime, UnixTime};
use crate::limits;

/// Past holdings that were written together, by the number of the first one: when the last one
/// ended, and all of them as JSON. An older daemon does not know the table, and leaves it as it is:
/// the format of the journal is the same.
const PAST: TableDefinition<'_, u64, (u64, &[u8])> = TableDefinition::new("past");

type PastTable<'t> = Table<'t, u64, (u64, &'static [u8])>;

/// A past holding as it is written.
#[derive(Serialize, Deserialize)]
struct PastRow<'a> {
    ended_unix_ms: u64,
    /// A reboot ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reboot: bool,
    sequence: u64,
    #[serde(borrow)]
    network: Cow<'a, str>,
    #[serde(borrow)]
    container: Cow<'a, str>,
    #[serde(borrow)]
    ifname: Cow<'a, str>,
    #[serde(borrow)]
    holding: rows::HoldingRow<'a>,
}

/// The most rows that are removed for each holding that is added, so that no commit is slow when
/// the bounds were narrowed.
const REMOVED_PER_HOLDING: usize = 2;

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
    pub holding: Arc<Holding>,
    /// The time at which it ended.
    pub ended: UnixTime,
    /// The reason.
    pub end: End,
}

/// Past holdings that are not in the table yet, oldest first. The writer never waits for a reader
/// that has the lock: it leaves new ones in a queue, and the next holder of the lock takes them in.
#[derive(Debug)]
pub(super) struct Waiting {
    new: Receiver<PastHolding>,
    all: Vec<PastHolding>,
}

impl Waiting {
    fn take_in(&mut self) {
        self.all.extend(self.new.try_iter());
    }
}

/// Past holdings that are being written: until that is done, readers wait.
pub(super) struct Batch<'w>(MutexGuard<'w, Waiting>);

impl Batch<'_> {
    /// They are in the table.
    pub(super) fn written(mut self) {
        self.0.all.clear();
    }
}

/// The writer of past holdings.
#[derive(Debug)]
pub(super) struct Writer {
    bounds: Bounds,
    /// The most that wait.
    batch: usize,
    /// The numbers of the oldest holding in the table and of the next one.
    first: u64,
    next: u64,
    sender: Sender<PastHolding>,
    waiting: Arc<Mutex<Waiting>>,
    /// The number of those that wait, and the time of the last write.
    count: usize,
    last: Option<BootTime>,
}

impl Writer {
    /// Reads which rows there are; `batch` are written together. If none is to be kept, all go.
    pub(super) fn open(db: &Database, bounds: Bounds, batch: usize) -> Result<Self, Failed> {
        if bounds.count == 0 {
            let txn = db.begin_write().map_err(boxed)?;
            txn.delete_table(PAST).map_err(boxed)?;
            txn.commit().map_err(boxed)?;
        }
        let (sender, new) = channel();
        let waiting = Arc::new(Mutex::new(Waiting { new, all: Vec::new() }));
        let (first, next, count, last) = (0, 0, 0, None);
        let none = Self { bounds, batch, first, next, sender, waiting, count, last };
        let txn = db.begin_read().map_err(boxed)?;
        let table = match txn.open_table(PAST) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(none),
            table => table.map_err(boxed)?,
        };
        let first = table.first().map_err(boxed)?.map_or(0, |(number, _)| number.value());
        let next = match table.last().map_err(boxed)? {
            Some((number, row)) => {
                let count = read_row(row.value().1).map_or(1, |row| row.len() as u64);
                number.value() + count
            }
            None => 0,
        };
        Ok(Self { first, next, ..none })
    }

    /// The number of holdings in the table.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.next - self.first
    }

    /// Returns whether holdings wait to be written.
    pub(super) fn waits(&self) -> bool {
        self.count > 0
    }

    /// Remembers a holding that has ended, to be written soon.
    pub(super) fn add(&mut self, holding: Arc<Holding>) {
        if self.bounds.count > 0 {
            let past = PastHolding { holding, ended: clock::unix(), end: End::Released };
            // The receiver lives as long as this does.
            let _ = self.sender.send(past);
            self.count += 1;
        }
    }

    /// Returns the place of the holdings that wait, if it is time to write them: with the first one
    /// after a while at once, so that little is lost where little happens.
    pub(super) fn due(&self) -> Option<Arc<Mutex<Waiting>>> {
        let last = self.last.is_none_or(|last| clock::boot().since(last) >= limits::PAST_WAIT_MAX);
        let due = self.count >= self.batch || last;
        (self.waits() && due).then(|| self.waiting())
    }

    /// The holdings that wait.
    pub(super) fn waiting(&self) -> Arc<Mutex<Waiting>> {
        self.waiting.clone()
    }

    /// Writes the holdings that wait, unless a reader looks at them: then they wait longer.
    pub(super) fn write<'w>(
        &mut self,
        txn: &WriteTransaction,
        waiting: &'w Mutex<Waiting>,
    ) -> Result<Option<Batch<'w>>, Failed> {
        let mut waiting = match waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        waiting.take_in();
        self.put_all(txn, &waiting.all)?;
        (self.count, self.last) = (0, Some(clock::boot()));
        Ok(Some(Batch(waiting)))
    }

    /// Writes holdings that a reboot ended.
    pub(super) fn put_ended_by_reboot<'a>(
        &mut self,
        txn: &WriteTransaction,
        ended: impl IntoIterator<Item = &'a Arc<Holding>>,
    ) -> Result<(), Failed> {
        if self.bounds.count == 0 {
            return Ok(());
        }
        let now = clock::unix();
        let past = |holding: &Arc<Holding>| PastHolding {
            holding: holding.clone(),
            ended: now,
            end: End::Reboot,
        };
        let all: Vec<PastHolding> = ended.into_iter().map(past).collect();
        all.chunks(limits::PAST_BATCH).try_for_each(|row| self.put_all(txn, row))
    }

    /// Adds a row of them, and removes what is beyond the bounds.
    fn put_all(&mut self, txn: &WriteTransaction, all: &[PastHolding]) -> Result<(), Failed> {
        let Some(last) = all.last() else { return Ok(()) };
        let mut table = txn.open_table(PAST).map_err(boxed)?;
        table.insert(self.next, (last.ended.as_millis(), &*row_of(all))).map_err(boxed)?;
        self.next += all.len() as u64;
        for _ in 0..REMOVED_PER_HOLDING * all.len() {
            let Some(behind) = self.oldest_is_over(&table)? else { break };
            table.remove(self.first).map_err(boxed)?;
            self.first = behind;
        }
        Ok(())
    }

    /// If the oldest row is beyond the bounds, returns the number of the first holding behind it.
    fn oldest_is_over(&self, table: &PastTable<'_>) -> Result<Option<u64>, Failed> {
        let mut rows = table.range(self.first..).map_err(boxed)?;
        let Some((_, oldest)) = rows.next().transpose().map_err(boxed)? else { return Ok(None) };
        let behind = rows.next().transpose().map_err(boxed)?;
        let behind = behind.map_or(self.next, |(number, _)| number.value());
        let ended = UnixTime::from_millis(oldest.value().0);
        let over =
            self.next - behind >= self.bounds.count || self.bounds.is_over(ended, clock::unix());
        Ok(over.then_some(behind))
    }
}

/// A reader of past holdings, which does not keep the journal from being closed.
#[derive(Clone, Debug)]
pub struct Past {
    db: Weak<Database>,
    waiting: Arc<Mutex<Waiting>>,
    bounds: Bounds,
}

impl Past {
    pub(super) fn of(db: &Arc<Database>, writer: &Writer) -> Self {
        let (waiting, bounds) = (writer.waiting.clone(), writer.bounds);
        Self { db: Arc::downgrade(db), waiting, bounds }
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
        let (mut found, txn) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.take_in();
            (waiting.all.clone(), db.begin_read()?)
        };
        let now = clock::unix();
        let kept = usize::try_from(self.bounds.count).unwrap_or(usize::MAX);
        let waiting = found.len().min(kept);
        found.reverse();
        found.truncate(kept);
        found.retain(|past| !self.bounds.is_over(past.ended, now) && fits(&past.holding));
        found.truncate(limit);
        let table = match txn.open_table(PAST) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(found),
            table => table?,
        };
        let mut left = kept - waiting;
        for row in table.iter()?.rev() {
            let (_, row) = row?;
            for past in read_row(row.value().1)?.into_iter().rev().take(left) {
                if found.len() == limit || self.bounds.is_over(past.ended, now) {
                    return Ok(found);
                }
                left -= 1;
                if fits(&past.holding) {
                    found.push(past);
                }
            }
        }
        Ok(found)
    }
}

/// The row of past holdings.
fn row_of(all: &[PastHolding]) -> Vec<u8> {
    rows::encode(&all.iter().map(past_row).collect::<Vec<_>>())
}

fn past_row(past: &PastHolding) -> PastRow<'_> {
    let (holding, scope) = (&past.holding, &past.holding.scope);
    PastRow {
        ended_unix_ms: past.ended.as_millis(),
        reboot: past.end == End::Reboot,
        sequence: holding.sequence.get(),
        network: (*scope.network).into(),
        container: holding.container_id.to_text(),
        ifname: (*scope.ifname).into(),
        holding: rows::holding_row(holding),
    }
}

/// Past holdings from their row.
fn read_row(value: &[u8]) -> anyhow::Result<Vec<PastHolding>> {
    let rows: Vec<PastRow<'_>> = serde_json::from_slice(value)?;
    let past = |row: PastRow<'_>| {
        let key = (row.sequence, &*row.network, &*row.container, &*row.ifname);
        let holding = Arc::new(rows::holding_of(key, row.holding)?);
        let end = if row.reboot { End::Reboot } else { End::Released };
        Ok(PastHolding { holding, ended: UnixTime::from_millis(row.ended_unix_ms), end })
    };
    rows.into_iter().map(past).collect()
}
