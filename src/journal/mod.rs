//! The node's durable local record: what attachments hold, what cools, where the cursors stand, and
//! of which blocks addresses may be handed out.
//!
//! One redb database. By default it survives the death of the process but not of the machine
//! (`sync_data` does nothing, the page cache keeps what was written), and that is enough: after a
//! reboot no container of the earlier boot exists, and a file that a power cut broke is recognised
//! by its boot id and replaced. Fail-stop: after the first error nothing is written any more.

mod counter;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::Database;

use crate::core::Millis;
use crate::core::coordinator::{JournalEntry, JournalState};
use crate::store::file::{self, Storage};
use counter::CommitCounter;
use tables::Tables;

/// Sequence numbers are reserved in steps, so that not every ADD writes the counter.
const SEQUENCE_STEP: u64 = 4096;

/// Memory for redb's pages, in bytes. The journal is written, hardly ever read.
const CACHE_BYTES: usize = 1 << 18;

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
    /// This is the first start of this boot: what blocks it holds may have been taken from it
    /// meanwhile, and the file may be older than what was written.
    pub new_boot: bool,
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
        opened.new_boot = !same_boot;
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
        tables::make(&journal.db).map_err(failed)?;
        let (state, commits) = tables::read(&journal.db).map_err(|cause| {
            JournalError::Damaged { path: path.to_owned(), cause: cause.to_string() }
        })?;
        journal.sequences_below = state.next_sequence;
        journal.commits = commits;
        Ok((journal, Opened { state, ..Opened::default() }))
    }

    /// The first start after a reboot: no container of the earlier boot exists any more, and times
    /// on its clock mean nothing. What was held or cooling cools anew; what is kept forgets when
    /// its plugin process started, so that every DEL of this boot counts as later.
    fn begin_boot(&mut self, options: &Options, opened: &mut Opened) -> Result<(), JournalError> {
        let state = &mut opened.state;
        state.confirmed = false;
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
        let kept = options.keep_after_reboot;
        Ok(tables::begin_boot(&self.db, kept, options.now, &cooling)?)
    }

    /// Makes records durable, all or none. After the first failure every call fails.
    ///
    /// # Errors
    /// Why nothing is durable any more.
    pub fn commit<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a JournalEntry>,
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
        records: impl IntoIterator<Item = &'a JournalEntry>,
    ) -> Result<(), Box<redb::Error>> {
        let txn = self.db.begin_write().map_err(boxed)?;
        let mut tables = Tables::of(&txn, self.cooldown);
        tables.set(tables::COMMITS, u128::from(self.commits + 1))?;
        let mut cursors: Vec<&JournalEntry> = Vec::new();
        for record in records {
            if let JournalEntry::Cursor(set, slot, _) = record {
                // Of the places of one cursor in a commit only the last will ever be read.
                cursors.retain(
                    |of| !matches!(of, JournalEntry::Cursor(s, t, _) if (s, t) == (set, slot)),
                );
                cursors.push(record);
                continue;
            }
            tables.write(record)?;
            if let JournalEntry::Hold(holding) = record
                && holding.sequence >= self.sequences_below
            {
                self.sequences_below = holding.sequence + SEQUENCE_STEP;
                tables.set(tables::NEXT_SEQUENCE, u128::from(self.sequences_below))?;
            }
        }
        for cursor in cursors {
            tables.write(cursor)?;
        }
        drop(tables);
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

/// Replaces a file such that after a power cut it has its old content or its new one.
fn write_durably(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
