//! The node's durable local record: what attachments hold, what cools, where the cursors stand.
//!
//! One redb database. By default it survives the death of the process but not of the machine
//! (`sync_data` does nothing, the page cache keeps what was written), and that is enough: after a
//! reboot no container of the earlier boot exists, and a file that a power cut broke is recognised
//! by its boot id and replaced. Fail-stop: after the first error nothing is written any more.

mod rows;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::core::Millis;
use crate::core::coordinator::{JournalState, Record};
use crate::store::file::{self, Boxed};

const HOLDINGS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("holdings");
const COOLING: TableDefinition<'_, (u64, u32, u128), ()> = TableDefinition::new("cooling");
const CURSORS: TableDefinition<'_, (u32, u16), u128> = TableDefinition::new("cursors");
const SETS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("range_sets");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

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
    broken: Option<Arc<str>>,
}

impl Journal {
    /// Opens the journal of a state directory, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened, or is damaged although it is of this boot.
    pub fn open(options: &Options) -> Result<(Self, Opened), JournalError> {
        let path = options.dir.join("journal.redb");
        let boot_path = options.dir.join("boot-id");
        let boot = match fs::read_to_string(&boot_path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(JournalError::File { path: boot_path, source }),
        };
        let same_boot = boot.as_deref() == Some(options.boot_id.as_str());
        let backend = || {
            file::open(&path, options.fsync).map_err(|error| {
                let source = Box::new(error);
                JournalError::Open { path: path.clone(), source }
            })
        };
        let (mut journal, mut opened) = match Self::open_on(backend()?, &path, options) {
            Err(error) if same_boot || !path.exists() => return Err(error),
            Err(_) => {
                let aside = path.with_extension("redb.broken");
                fs::rename(&path, &aside)
                    .map_err(|source| JournalError::File { path: path.clone(), source })?;
                let (journal, mut opened) = Self::open_on(backend()?, &path, options)?;
                opened.replaced = Some(aside);
                (journal, opened)
            }
            Ok(opened) => opened,
        };
        if !same_boot {
            journal.begin_boot(options, &mut opened)?;
            write_durably(&boot_path, options.boot_id.as_bytes())
                .map_err(|source| JournalError::File { path: boot_path, source })?;
        }
        Ok((journal, opened))
    }

    /// Opens a journal of this boot on any storage. `path` is for messages.
    ///
    /// # Errors
    /// The storage cannot be opened or its content is damaged.
    pub fn open_on(
        backend: Box<dyn StorageBackend>,
        path: &Path,
        options: &Options,
    ) -> Result<(Self, Opened), JournalError> {
        let open = |source| JournalError::Open { path: path.to_owned(), source };
        let mut builder = Database::builder();
        let db = builder.set_cache_size(CACHE_BYTES);
        let db = db.create_with_backend(Boxed(backend)).map_err(|e| open(boxed(e)))?;
        let mut journal = Self { db, cooldown: options.cooldown, sequences_below: 0, broken: None };
        journal.make_tables().map_err(open)?;
        let state = journal.read().map_err(|cause| JournalError::Damaged {
            path: path.to_owned(),
            cause: cause.to_string(),
        })?;
        journal.sequences_below = state.next_sequence;
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
        let next = txn.open_table(COUNTERS)?.get("next_sequence")?;
        state.next_sequence = next.map_or(1, |value| value.value());
        Ok(state)
    }

    /// The first start after a reboot: no container of the earlier boot exists any more, and times
    /// on its clock mean nothing. Everything that was held or cooling cools anew.
    fn begin_boot(&mut self, options: &Options, opened: &mut Opened) -> Result<(), JournalError> {
        let state = &mut opened.state;
        let mut records = Vec::new();
        for (set, number, released) in &mut state.cooling {
            *released = options.now;
            records.push(Record::Cool(*set, *number, options.now));
        }
        if !options.keep_after_reboot && !state.holdings.is_empty() {
            for holding in std::mem::take(&mut state.holdings) {
                records.push(Record::End(holding.id.clone()));
                for (set, number) in rows::numbers(&holding, &state.sets) {
                    state.cooling.push((set, number, options.now));
                    records.push(Record::Cool(set, number, options.now));
                }
                *opened.ended_by_reboot.get_or_insert(0) += 1;
            }
        }
        if options.cooldown == 0 {
            state.cooling.clear();
        }
        self.forget_cooling()?;
        Ok(self.write(&records)?)
    }

    fn forget_cooling(&self) -> Result<(), JournalError> {
        let txn = self.db.begin_write().map_err(boxed)?;
        txn.delete_table(COOLING).map_err(boxed)?;
        txn.open_table(COOLING).map_err(boxed)?;
        Ok(txn.commit().map_err(boxed)?)
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
        self.write(records).map_err(|error| {
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
            for record in records {
                match record {
                    Record::Hold(holding, netns) => {
                        let value = rows::holding(holding, netns);
                        holdings.insert(rows::key(&holding.id), &*value).map_err(boxed)?;
                        if holding.sequence >= self.sequences_below {
                            self.sequences_below = holding.sequence + SEQUENCE_STEP;
                            let mut counters = txn.open_table(COUNTERS).map_err(boxed)?;
                            let below = self.sequences_below;
                            counters.insert("next_sequence", below).map_err(boxed)?;
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
        txn.commit().map_err(boxed)
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
    let mut file = fs::File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
