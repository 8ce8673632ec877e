//! The node's durable local memory: what attachments hold, what cools, where the cursors stand, and
//! of which blocks addresses may be handed out.
//!
//! One redb database. By default it survives the death of the process but not of the machine
//! (`sync_data` does nothing, the page cache keeps what was written), and that is enough: after a
//! reboot no container of the earlier boot exists, and a file that a power cut broke is recognised
//! by its boot id and replaced. Fail-stop: after the first error nothing more is written.

mod counter;
pub mod past;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redb::{Database, WriteTransaction};

use crate::core::attachment::Netns;
use crate::core::ids::Sequence;
use crate::core::journal::JournalFailure;
use crate::core::journal::{self, JournalEntry, JournalState, NewBoot, Rows as _};
use crate::core::time::BootTime;
use crate::store::file::{self, Storage};
use crate::{files, limits};
use counter::{CommitCounter, Marker};
use past::{Bounds, Past};
use tables::Tables;

/// Memory for redb's pages, in bytes. The journal is written, hardly ever read.
const CACHE_BYTES: usize = 1 << 18;

/// The reason why the journal cannot be used. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened or made.
    #[error("journal {path}: {cause}; check its disk and its permissions")]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of redb.
        cause: Box<redb::Error>,
    },
    /// The file cannot be read back.
    #[error(
        "journal {path} of this boot is damaged: {cause}; nothing is handed out on a guess. Move \
         the file away to start empty, once no container of this boot runs on this node"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        cause: String,
    },
    /// The file was written by a newer version, whose rows mean other things.
    #[error(
        "journal {path} has format {format}, and this daemon reads up to {}: start the newer \
         version of leasehold again, or move the file away once no container runs on this node",
        tables::FORMAT
    )]
    Newer {
        /// The file, which is as it was.
        path: PathBuf,
        /// Its format.
        format: u128,
    },
    /// Nothing says in which boot the file was written.
    #[error(
        "{path} is lost or damaged, so nobody knows whether the containers of the journal beside \
         it still run, and nothing is handed out on a guess. If this machine has not rebooted \
         since leasehold ran last, copy {this_boot} to {path}; if it has, move the journal away"
    )]
    BootUnknown {
        /// The file with the boot's id.
        path: PathBuf,
        /// The path at which the id of this boot is found.
        this_boot: &'static str,
    },
    /// PID 1 is another one, and a container from before it is there.
    #[error(
        "PID 1 is a new one, and the network namespace of container {container}, {netns}, is still \
         there: containers here do not end with PID 1 as this daemon sees it, and their addresses \
         would be given out again. Leave bootFrom out (--boot-from kernel)"
    )]
    ContainersLive {
        /// The container.
        container: String,
        /// Its namespace.
        netns: String,
    },
    /// The state that this node had in this boot is gone.
    #[error(
        "the state directory {dir} is not the one of this boot: its journal has {commits} commits, \
         and this node made {made} since the machine started (says {marker}); the addresses of \
         containers that run now would be handed out again. Put the directory back, or stop this \
         node's containers and remove {marker}, then start"
    )]
    Robbed {
        /// The state directory.
        dir: PathBuf,
        /// The commits of the journal that is there.
        commits: u64,
        /// The commits that were made.
        made: u64,
        /// The file that says so.
        marker: PathBuf,
    },
    /// A file beside the journal.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] Box<redb::Error>),
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

/// The options with which a journal is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the file.
    pub dir: PathBuf,
    /// True if a commit must survive the death of the machine.
    pub fsync: bool,
    /// True if what containers of an earlier boot held is kept.
    pub keep_after_reboot: bool,
    /// The id of this boot.
    pub boot_id: String,
    /// The time for which released addresses cool.
    pub cooldown: Duration,
    /// The time now, on the boot clock.
    pub now: BootTime,
    /// A file outside of `dir` that ends with this boot. It is the only memory of a state directory
    /// that is gone; where the cluster's store remembers, there is none.
    pub marker: Option<PathBuf>,
    /// Tells whether a container's namespace is still there, if a boot may be one that containers
    /// outlive by mistake: then it is none.
    pub still_there: Option<fn(&Netns) -> bool>,
    /// The bounds of the past holdings that are kept.
    pub history: Bounds,
}

/// The result of reading the file.
#[derive(Default, Debug)]
pub struct Opened {
    /// Its content.
    pub state: JournalState,
    /// True if this is the first start of this boot: what blocks it holds may have been taken from
    /// it meanwhile, and the file may be older than what was written.
    pub new_boot: bool,
    /// Holdings of an earlier boot that were ended, if this is the first start since.
    pub ended_by_reboot: Option<usize>,
    /// The path to which a file of an earlier boot was moved that could not be read.
    pub replaced: Option<PathBuf>,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    db: Arc<Database>,
    past: past::Writer,
    cooldown: Duration,
    next_sequence: Sequence,
    /// Commits of entries so far, this one's number included in each.
    commits: u64,
    counter: Option<CommitCounter>,
    marker: Option<Marker>,
    broken: Option<JournalFailure>,
}

impl Journal {
    /// Opens the journal of a state directory, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened; or it is damaged, although it is of this boot or was to be kept;
    /// or a newer version wrote it, and then nothing is changed.
    pub fn open(options: &Options) -> Result<(Self, Opened), JournalError> {
        let path = options.dir.join("journal.redb");
        let boot_path = options.dir.join("boot-id");
        let boot = match files::read(&boot_path, limits::BOOT_ID_BYTES_MAX) {
            Ok(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(JournalError::File { path: boot_path, cause }),
        };
        // Damage is no reboot: an id of another boot is a whole one.
        let boot = boot.filter(|text| text.trim().len() == options.boot_id.len());
        let other_boot = boot.as_ref().is_some_and(|text| text.trim() != options.boot_id);
        let needed = !other_boot || options.keep_after_reboot;
        let (mut journal, mut opened) = match Self::open_file(&path, options) {
            Err(JournalError::Damaged { .. }) if !needed => {
                let aside = path.with_extension("redb.broken");
                fs::rename(&path, &aside)
                    .map_err(|cause| JournalError::File { path: path.clone(), cause })?;
                let (journal, mut opened) = Self::open_file(&path, options)?;
                opened.replaced = Some(aside);
                (journal, opened)
            }
            opened => opened?,
        };
        // The journal says so as well, since the file may be lost; one that was written by an older
        // version says nothing, or names a boot in which that version was not used.
        let written_in = tables::boot_id(&journal.db)?;
        let ours = options.boot_id.as_str();
        let same_boot = boot.is_some() && !other_boot || written_in.as_deref() == Some(ours);
        if !same_boot && boot.is_none() && written_in.is_none() && journal.commits > 0 {
            let this_boot = "/proc/sys/kernel/random/boot_id";
            return Err(JournalError::BootUnknown { path: boot_path, this_boot });
        }
        if let Some(path) = &options.marker {
            journal.mark(path, options)?;
        }
        opened.new_boot = !same_boot;
        if same_boot && written_in.as_deref() != Some(ours) {
            tables::set_boot_id(&journal.db, ours)?;
        }
        if same_boot && boot.is_none() {
            tracing::warn!(
                path = %boot_path.display(),
                "the boot's id was lost or damaged, and is written anew: the journal knows it"
            );
            files::replace(&boot_path, ours.as_bytes())
                .map_err(|cause| JournalError::File { path: boot_path.clone(), cause })?;
        }
        if !same_boot {
            if let Some(is_there) = options.still_there
                && let Some(living) = opened.state.holdings.iter().find(|h| is_there(&h.netns))
            {
                let container = living.container_id.to_text().to_string();
                let netns = living.netns.path.to_string();
                return Err(JournalError::ContainersLive { container, netns });
            }
            let keep_holdings = options.keep_after_reboot;
            let boot = NewBoot { keep_holdings, cooldown: options.cooldown, now: options.now };
            let before = opened.state.holdings.clone();
            let ended = opened.state.begin_boot(boot);
            opened.ended_by_reboot = (ended > 0).then_some(ended);
            let over = (ended > 0).then_some(&before);
            tables::begin_boot(&journal.db, &opened.state, ours, |txn| {
                journal.past.put_ended_by_reboot(txn, over.into_iter().flatten())
            })?;
            files::replace(&boot_path, options.boot_id.as_bytes())
                .map_err(|cause| JournalError::File { path: boot_path, cause })?;
        }
        Ok((journal, opened))
    }

    /// Compares the journal with the marker, and keeps the marker up to date from then on.
    fn mark(&mut self, path: &Path, options: &Options) -> Result<(), JournalError> {
        let mut marker = Marker::open(path, &options.boot_id)
            .map_err(|cause| JournalError::File { path: path.to_owned(), cause })?;
        if marker.last > self.commits {
            let (dir, made) = (options.dir.clone(), marker.last);
            let (commits, marker) = (self.commits, path.to_owned());
            return Err(JournalError::Robbed { dir, commits, made, marker });
        }
        marker.set(self.commits);
        self.marker = Some(marker);
        Ok(())
    }

    fn open_file(path: &Path, options: &Options) -> Result<(Self, Opened), JournalError> {
        let failed = |error| damaged_or_unusable(path, Box::new(error));
        let counter_path = path.with_extension("commits");
        let new = !path.exists();
        if new {
            CommitCounter::remove(&counter_path)
                .map_err(|cause| JournalError::File { path: counter_path.clone(), cause })?;
        }
        file::make(path, |storage| {
            Self::open_on(storage, path, options).map_err(|error| match error {
                JournalError::Open { cause, .. } => *cause,
                other => redb::Error::Corrupted(other.to_string()),
            })
        })
        .map_err(failed)?;
        let storage = file::open(path, options.fsync).map_err(failed)?;
        let (mut journal, opened) = Self::open_on(storage, path, options)?;
        let counter = CommitCounter::open(&counter_path)
            .map_err(|cause| JournalError::File { path: counter_path, cause })?;
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
    /// The storage cannot be opened, or its content is damaged or of a newer version.
    pub fn open_on(
        storage: Storage,
        path: &Path,
        options: &Options,
    ) -> Result<(Self, Opened), JournalError> {
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let failed = |error| damaged_or_unusable(path, error);
        // Opening mends what a kill left, and a newer version's file must stay as it is.
        let held_back = storage.hold_back();
        let db = builder.create_with_backend(storage).map_err(|e| failed(boxed(e)))?;
        let db = Arc::new(db);
        let format = tables::format(&db).map_err(failed)?;
        if format > u128::from(tables::FORMAT) {
            return Err(JournalError::Newer { path: path.to_owned(), format });
        }
        held_back.release().map_err(|error| failed(boxed(redb::Error::Io(error))))?;
        if format < u128::from(tables::FORMAT) {
            tables::make(&db).map_err(failed)?;
        }
        let (state, commits) = tables::read(&db).map_err(|cause| JournalError::Damaged {
            path: path.to_owned(),
            cause: cause.to_string(),
        })?;
        // A commit that waits for the disk takes all along.
        let batch = if options.fsync { 1 } else { limits::PAST_BATCH };
        let past = past::Writer::open(&db, options.history, batch).map_err(failed)?;
        let journal = Self {
            db,
            past,
            cooldown: options.cooldown,
            next_sequence: state.next_sequence,
            commits,
            counter: None,
            marker: None,
            broken: None,
        };
        Ok((journal, Opened { state, ..Opened::default() }))
    }

    /// A reader of past holdings.
    pub fn past(&self) -> Past {
        Past::of(&self.db, &self.past)
    }

    /// Makes entries durable, all or none. After the first failure every call fails.
    ///
    /// # Errors
    /// The journal has failed, and makes nothing durable from then on; the error says why.
    pub fn commit<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a JournalEntry>,
    ) -> Result<(), JournalFailure> {
        if let Some(cause) = &self.broken {
            return Err(cause.clone());
        }
        let done = self.write(entries).and_then(|()| match &mut self.counter {
            Some(counter) => {
                counter.set(self.commits).map_err(|error| boxed(redb::Error::Io(error)))
            }
            None => Ok(()),
        });
        done.map_err(|error| self.fail(&error))
    }

    /// Returns whether past holdings wait to be written.
    pub fn past_waits(&self) -> bool {
        self.past.waits()
    }

    /// Writes the past holdings that wait.
    ///
    /// # Errors
    /// The journal has failed.
    pub fn write_past(&mut self) -> Result<(), JournalFailure> {
        if !self.past.waits() || self.broken.is_some() {
            return Ok(());
        }
        let past = self.past.waiting();
        let txn = self.db.begin_write().map_err(boxed);
        txn.and_then(|txn| self.finish(txn, Some(&past))).map_err(|error| self.fail(&error))
    }

    /// Commits, together with the past holdings that are due.
    fn finish(
        &mut self,
        txn: WriteTransaction,
        past: Option<&Mutex<past::Waiting>>,
    ) -> Result<(), Box<redb::Error>> {
        let batch = past.map(|waiting| self.past.write(&txn, waiting)).transpose()?.flatten();
        txn.commit().map_err(boxed)?;
        if let Some(batch) = batch {
            batch.written();
        }
        Ok(())
    }

    fn fail(&mut self, error: &redb::Error) -> JournalFailure {
        let cause = JournalFailure::Storage(error.to_string().into());
        self.broken = Some(cause.clone());
        cause
    }

    fn write<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a JournalEntry>,
    ) -> Result<(), Box<redb::Error>> {
        let txn = self.db.begin_write().map_err(boxed)?;
        let mut tables = Tables::of(&txn, self.next_sequence);
        tables.set(tables::COMMITS, u128::from(self.commits + 1))?;
        let mut ended = Vec::new();
        for entry in entries {
            journal::apply(&mut tables, self.cooldown, entry)?;
            if let JournalEntry::End(holding) = entry {
                ended.push(holding.clone());
            }
        }
        self.next_sequence = tables.next_sequence();
        tables.finish()?;
        ended.into_iter().for_each(|holding| self.past.add(holding));
        let past = self.past.due();
        self.finish(txn, past.as_deref())?;
        self.commits += 1;
        if let Some(marker) = &mut self.marker {
            marker.set(self.commits);
        }
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(cause) = self.write_past() {
            tracing::warn!(%cause, "the last past holdings could not be written");
        }
    }
}

/// Returns what an error on opening means: damage is never mended by trying again.
fn damaged_or_unusable(path: &Path, error: Box<redb::Error>) -> JournalError {
    let path = path.to_owned();
    match *error {
        redb::Error::Io(ref io) if io.kind() != std::io::ErrorKind::InvalidData => {
            JournalError::Open { path, cause: error }
        }
        redb::Error::DatabaseAlreadyOpen => JournalError::Open { path, cause: error },
        cause => JournalError::Damaged { path, cause: cause.to_string() },
    }
}
