//! The node's durable local record: what attachments hold, what cools, where the cursors stand.
//!
//! One redb database. By default it survives the death of the process but not of the machine
//! (`sync_data` does nothing, the page cache keeps what was written), and that is enough: after a
//! reboot no container of the earlier boot exists, and a file that a power cut broke is recognised
//! by its boot id and replaced. Fail-stop: after the first error nothing is written any more.

mod counter;
mod rows;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::core::Millis;
use crate::core::coordinator::{JournalState, Record};
use crate::store::file::{self, Storage};
use counter::CommitCounter;

const HOLDINGS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("holdings");
const COOLING: TableDefinition<'_, (u64, u32, u128), ()> = TableDefinition::new("cooling");
const CURSORS: TableDefinition<'_, (u32, u16), u128> = TableDefinition::new("cursors");
const SETS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("range_sets");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

/// The counter of sequence numbers, and that of commits.
const NEXT_SEQUENCE: &str = "next_sequence";
const COMMITS: &str = "commits";

/// Sequence numbers are reserved in steps, so that not every ADD writes the counter.
const SEQUENCE_STEP: u64 = 4096;

/// Memory for redb's pages, in bytes. The journal is written, hardly ever read.
const CACHE_BYTES: usize = 4 << 20;

/// Why the journal cannot be used. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened or made.
    #[error("journal {path}: {source}; check its disk and its permissions")]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// The file cannot be read back.
    #[error(
        "journal {path} of this boot is damaged: {cause}; nothing is handed out on a guess. Move \
         the file away to start empty, once no container of this boot runs on this node"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A file beside the journal.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A commit failed.
    #[error("{0}")]
    Commit(#[from] Box<redb::Error>),
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

/// How a journal is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the file.
    pub dir: PathBuf,
    /// Whether a commit must survive the death of the machine.
    pub fsync: bool,
    /// Keep what containers of an earlier boot held.
    pub keep_after_reboot: bool,
    /// The id of this boot.
    pub boot_id: String,
    /// How long released addresses cool, in milliseconds.
    pub cooldown: Millis,
    /// Now, on the boot clock.
    pub now: Millis,
}

/// What the file told.
#[derive(Default, Debug)]
pub struct Opened {
    /// Its content.
    pub state: JournalState,
    /// Holdings of an earlier boot that were ended, if this is the first start since.
    pub ended_by_reboot: Option<usize>,
    /// Where a file of an earlier boot was moved that could not be read.
    pub replaced: Option<PathBuf>,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    db: Database,
    cooldown: Millis,
    sequences_below: u64,
    /// Commits of records so far, this one's number included in each.
    commits: u64,
    counter: Option<CommitCounter>,
    broken: Option<Arc<str>>,
}

impl Journal {
    /// Opens the journal of a state directory, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened; or it is damaged, although it is of this boot or was to be kept.
    pub fn open(options: &Options) -> Result<(Self, Opened), JournalError> {
        let path = options.dir.join("journal.redb");
        let boot_path = options.dir.join("boot-id");
        let boot = match fs::read_to_string(&boot_path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(JournalError::File { path: boot_path, source }),
        };
        let same_boot = boot.as_deref() == Some(options.boot_id.as_str());
        let needed = same_boot || options.keep_after_reboot;
        let (mut journal, mut opened) = match Self::open_file(&path, options) {
            Err(JournalError::Damaged { .. }) if !needed => {
                let aside = path.with_extension("redb.broken");
                fs::rename(&path, &aside)
                    .map_err(|source| JournalError::File { path: path.clone(), source })?;
                let (journal, mut opened) = Self::open_file(&path, options)?;
                opened.replaced = Some(aside);
                (journal, opened)
            }
            opened => opened?,
        };
        if !same_boot {
            journal.begin_boot(options, &mut opened)?;
            write_durably(&boot_path, options.boot_id.as_bytes())
                .map_err(|source| JournalError::File { path: boot_path, source })?;
        }
        Ok((journal, opened))
    }

    fn open_file(path: &Path, options: &Options) -> Result<(Self, Opened), JournalError> {
        let failed = |error| damaged_or_unusable(path, Box::new(error));
        let counter_path = path.with_extension("commits");
        let new = !path.exists();
        if new {
            CommitCounter::remove(&counter_path)
                .map_err(|source| JournalError::File { path: counter_path.clone(), source })?;
        }
        file::make(path, |storage| {
            Self::open_on(storage, path, options).map_err(|error| match error {
                JournalError::Open { source, .. } => *source,
                other => redb::Error::Corrupted(other.to_string()),
            })
        })
        .map_err(failed)?;
        let storage = file::open(path, options.fsync).map_err(failed)?;
        let (mut journal, opened) = Self::open_on(storage, path, options)?;
        let counter = CommitCounter::open(&counter_path)
            .map_err(|source| JournalError::File { path: counter_path, source })?;
        // Redb goes back to the commit before the last one when the last one is damaged, which
        // nothing that was merely killed can be: then answers are missing.
        if counter.last > journal.commits {
            let cause = format!(
                "it ends with commit {}, but commit {} was made",
                journal.commits, counter.last
            );
            return Err(JournalError::Damaged { path: path.to_owned(), cause });
        }
        journal.counter = Some(counter);
        Ok((journal, opened))
    }

    /// Opens a journal of this boot on any storage. `path` is for messages.
    ///
    /// # Errors
    /// The storage cannot be opened or its content is damaged.
    pub fn open_on(
        storage: Storage,
        path: &Path,
        options: &Options,
    ) -> Result<(Self, Opened), JournalError> {
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let failed = |error| damaged_or_unusable(path, error);
        let db = builder.create_with_backend(storage).map_err(|e| failed(boxed(e)))?;
        let mut journal = Self {
            db,
            cooldown: options.cooldown,
            sequences_below: 0,
            commits: 0,
            counter: None,
            broken: None,
        };
        journal.make_tables().map_err(failed)?;
        let state = journal.read().map_err(|cause| JournalError::Damaged {
            path: path.to_owned(),
            cause: cause.to_string(),
        })?;
        journal.sequences_below = state.next_sequence;
        journal.commits = journal.count(COMMITS).map_err(failed)?;
        Ok((journal, Opened { state, ..Opened::default() }))
    }

    fn make_tables(&self) -> Result<(), Box<redb::Error>> {
        let txn = self.db.begin_write().map_err(boxed)?;
        txn.open_table(HOLDINGS).map_err(boxed)?;
        txn.open_table(COOLING).map_err(boxed)?;
        txn.open_table(CURSORS).map_err(boxed)?;
        txn.open_table(SETS).map_err(boxed)?;
        txn.open_table(COUNTERS).map_err(boxed)?;
        txn.commit().map_err(boxed)
    }

    fn read(&self) -> anyhow::Result<JournalState> {
        let mut state = JournalState::default();
        let txn = self.db.begin_read()?;
        for row in txn.open_table(HOLDINGS)?.iter()? {
            let (key, value) = row?;
            state.holdings.push(Arc::new(rows::read_holding(key.value(), value.value())?));
        }
        for row in txn.open_table(SETS)?.iter()? {
            let (key, value) = row?;
            state.sets.push(rows::read_set(key.value(), value.value())?);
        }
        for row in txn.open_table(COOLING)?.iter()? {
            let (released, set, number) = row?.0.value();
            state.cooling.push((set, number, released));
        }
        for row in txn.open_table(CURSORS)?.iter()? {
            let (key, value) = row?;
            let (set, slot) = key.value();
            state.cursors.push((set, slot, value.value()));
        }
        let next = txn.open_table(COUNTERS)?.get(NEXT_SEQUENCE)?;
        state.next_sequence = next.map_or(1, |value| value.value());
        Ok(state)
    }

    fn count(&self, name: &str) -> Result<u64, Box<redb::Error>> {
        let txn = self.db.begin_read().map_err(boxed)?;
        let counters = txn.open_table(COUNTERS).map_err(boxed)?;
        Ok(counters.get(name).map_err(boxed)?.map_or(0, |value| value.value()))
    }

    /// The first start after a reboot: no container of the earlier boot exists any more, and times
    /// on its clock mean nothing. What was held or cooling cools anew; what is kept forgets when
    /// its plugin process started, so that every DEL of this boot counts as later.
    fn begin_boot(&mut self, options: &Options, opened: &mut Opened) -> Result<(), JournalError> {
        let state = &mut opened.state;
        let mut cooling: BTreeSet<(u32, u128)> =
            state.cooling.iter().map(|&(set, number, _)| (set, number)).collect();
        if options.keep_after_reboot {
            for holding in &mut state.holdings {
                Arc::make_mut(holding).started_at = None;
            }
        } else {
            let ended = std::mem::take(&mut state.holdings);
            opened.ended_by_reboot = (!ended.is_empty()).then_some(ended.len());
            for holding in ended {
                cooling.extend(rows::numbers(&holding, &state.sets));
            }
        }
        if options.cooldown == 0 {
            cooling.clear();
        }
        state.cooling = cooling.iter().map(|&(set, number)| (set, number, options.now)).collect();
        Ok(self.rewrite(options, &cooling)?)
    }

    /// Writes what [`Journal::begin_boot`] decided, in one commit.
    fn rewrite(
        &mut self,
        options: &Options,
        cooling: &BTreeSet<(u32, u128)>,
    ) -> Result<(), Box<redb::Error>> {
        let txn = self.db.begin_write().map_err(boxed)?;
        txn.delete_table(COOLING).map_err(boxed)?;
        {
            let mut rows = txn.open_table(COOLING).map_err(boxed)?;
            for &(set, number) in cooling {
                rows.insert((options.now, set, number), ()).map_err(boxed)?;
            }
            let mut holdings = txn.open_table(HOLDINGS).map_err(boxed)?;
            if options.keep_after_reboot {
                let mut kept = Vec::new();
                for row in holdings.iter().map_err(boxed)? {
                    let (key, value) = row.map_err(boxed)?;
                    let (network, container, ifname) = key.value();
                    let key = [network, container, ifname].map(str::to_owned);
                    kept.push((key, rows::without_start(value.value())));
                }
                for ([network, container, ifname], value) in &kept {
                    let key = (network.as_str(), container.as_str(), ifname.as_str());
                    holdings.insert(key, value.as_slice()).map_err(boxed)?;
                }
            } else {
                holdings.retain(|_, _| false).map_err(boxed)?;
            }
        }
        txn.commit().map_err(boxed)
    }

    /// Makes records durable, all or none. After the first failure every call fails.
    ///
    /// # Errors
    /// Why nothing is durable any more.
    pub fn commit<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<(), Arc<str>> {
        if let Some(cause) = &self.broken {
            return Err(cause.clone());
        }
        let done = self.write(records).and_then(|()| match &mut self.counter {
            Some(counter) => {
                counter.set(self.commits).map_err(|error| boxed(redb::Error::Io(error)))
            }
            None => Ok(()),
        });
        done.map_err(|error| {
            let cause: Arc<str> = error.to_string().into();
            self.broken = Some(cause.clone());
            cause
        })
    }

    fn write<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<(), Box<redb::Error>> {
        let txn = self.db.begin_write().map_err(boxed)?;
        {
            let mut holdings = txn.open_table(HOLDINGS).map_err(boxed)?;
            let mut cooling = txn.open_table(COOLING).map_err(boxed)?;
            let mut cursors = txn.open_table(CURSORS).map_err(boxed)?;
            let mut sets = txn.open_table(SETS).map_err(boxed)?;
            let mut counters = txn.open_table(COUNTERS).map_err(boxed)?;
            counters.insert(COMMITS, self.commits + 1).map_err(boxed)?;
            for record in records {
                match record {
                    Record::Hold(holding, netns) => {
                        let value = rows::holding(holding, netns);
                        holdings.insert(rows::key(&holding.id), &*value).map_err(boxed)?;
                        if holding.sequence >= self.sequences_below {
                            self.sequences_below = holding.sequence + SEQUENCE_STEP;
                            let below = self.sequences_below;
                            counters.insert(NEXT_SEQUENCE, below).map_err(boxed)?;
                        }
                    }
                    Record::End(id) => {
                        holdings.remove(rows::key(id)).map_err(boxed)?;
                    }
                    Record::Cool(set, number, released) => {
                        cooling.insert((*released, *set, *number), ()).map_err(boxed)?;
                        forget_oldest(&mut cooling, released.saturating_sub(self.cooldown))?;
                    }
                    Record::Cursor(set, slot, number) => {
                        cursors.insert((*set, *slot), number).map_err(boxed)?;
                    }
                    Record::Set(set) => {
                        sets.insert(set.id, &*rows::set(set)).map_err(boxed)?;
                    }
                    Record::ForgetSet(id) => {
                        sets.remove(id).map_err(boxed)?;
                    }
                }
            }
        }
        txn.commit().map_err(boxed)?;
        self.commits += 1;
        Ok(())
    }
}

/// What an error on opening means: damage is never mended by trying again.
fn damaged_or_unusable(path: &Path, error: Box<redb::Error>) -> JournalError {
    let path = path.to_owned();
    match *error {
        redb::Error::Io(ref io) if io.kind() != std::io::ErrorKind::InvalidData => {
            JournalError::Open { path, source: error }
        }
        redb::Error::DatabaseAlreadyOpen => JournalError::Open { path, source: error },
        cause => JournalError::Damaged { path, cause: cause.to_string() },
    }
}

/// Every row that is added takes away up to two that have had their time: so the table stays as
/// small as what is cooling.
fn forget_oldest(
    cooling: &mut redb::Table<'_, (u64, u32, u128), ()>,
    until: Millis,
) -> Result<(), Box<redb::Error>> {
    for _ in 0..2 {
        let oldest = cooling.first().map_err(boxed)?.map(|(key, _)| key.value().0);
        if oldest.is_none_or(|released| released >= until) {
            break;
        }
        cooling.pop_first().map_err(boxed)?;
    }
    Ok(())
}

/// Replaces a file such that after a power cut it has its old content or its new one.
fn write_durably(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
