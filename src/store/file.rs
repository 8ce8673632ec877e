//! The storage under redb: a file, and changes that can be held back.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::files;

/// Any storage, chosen at run time.
#[derive(Debug)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    on: Box<dyn StorageBackend>,
    /// True if a commit waits for the disk. Otherwise it is in the page cache, where it survives
    /// `kill -9` and costs no wait.
    sync: bool,
    /// True if changes may be held back. It saves taking the lock in the long time after that.
    holds: AtomicBool,
    /// The changes that are held back, in order, while any are.
    held: Mutex<Option<Vec<Change>>>,
}

/// A change of the storage.
#[derive(Debug)]
enum Change {
    Write(u64, Box<[u8]>),
    SetLen(u64),
    Sync,
}

/// The changes that are held back until the storage may be changed.
#[derive(Debug)]
pub struct HeldBack(Arc<Inner>);

impl Storage {
    /// A storage that is synced if it has a way to sync.
    pub fn new(on: Box<dyn StorageBackend>) -> Self {
        Self::with_sync(on, true)
    }

    fn with_sync(on: Box<dyn StorageBackend>, sync: bool) -> Self {
        let (holds, held) = (AtomicBool::new(false), Mutex::new(None));
        Self(Arc::new(Inner { on, sync, holds, held }))
    }

    /// Keeps all changes in memory from now on, until [`HeldBack::release`]. When redb opens a
    /// database that was not closed, it repairs it. With the changes held back, a database can be
    /// opened and read, and its file stays untouched if this daemon cannot use it.
    pub fn hold_back(&self) -> HeldBack {
        *self.0.held() = Some(Vec::new());
        self.0.holds.store(true, Ordering::Release);
        HeldBack(self.0.clone())
    }
}

impl HeldBack {
    /// Makes the changes, in order, and stops holding changes back. A change that was held back and
    /// not released is never made.
    ///
    /// # Errors
    /// The storage cannot be changed: then it may have a part of the changes, as if the process
    /// had died between them, and takes no later ones.
    pub fn release(self) -> io::Result<()> {
        let mut held = self.0.held();
        for change in held.iter().flatten() {
            self.0.make(change)?;
        }
        *held = None;
        self.0.holds.store(false, Ordering::Release);
        Ok(())
    }
}

impl Inner {
    fn held(&self) -> std::sync::MutexGuard<'_, Option<Vec<Change>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, change: &Change) -> io::Result<()> {
        match change {
            Change::Write(offset, data) => self.on.write(*offset, data),
            Change::SetLen(len) => self.on.set_len(*len),
            Change::Sync if self.sync => self.on.sync_data(),
            Change::Sync => Ok(()),
        }
    }

    /// Keeps a change if changes are held back.
    fn keep(&self, change: impl FnOnce() -> Change) -> bool {
        if !self.holds.load(Ordering::Acquire) {
            return false;
        }
        let mut held = self.held();
        match &mut *held {
            Some(held) => {
                held.push(change());
                true
            }
            None => false,
        }
    }

    /// The length after these changes.
    fn len_of(&self, changes: &[Change]) -> io::Result<u64> {
        let set = changes.iter().rev().find_map(|change| match change {
            Change::SetLen(len) => Some(*len),
            _ => None,
        });
        set.map_or_else(|| self.on.len(), Ok)
    }

    /// If changes are held back, reads the bytes that the storage would have with them. They are
    /// few: redb's repairs of an old database, or the pages of a new one.
    fn read_held(&self, offset: u64, out: &mut [u8]) -> Option<io::Result<()>> {
        let held = self.held();
        let changes = held.as_ref()?;
        let end = offset + out.len() as u64;
        // The place in `out` of the bytes from `from` to `to`.
        let place = |from: u64, to: u64| {
            let at =
                |byte: u64| usize::try_from(byte.clamp(offset, end) - offset).unwrap_or(usize::MAX);
            at(from)..at(to)
        };
        let read = self.len_of(changes).and_then(|len| match end <= len {
            true => self.on.len(),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        let read = read.and_then(|len| {
            let there = place(0, len);
            out[there.end..].fill(0);
            match there.is_empty() {
                true => Ok(()), // nothing of it is in the storage
                false => self.on.read(offset, &mut out[there]),
            }
        });
        for change in changes {
            match change {
                Change::Write(at, data) => {
                    let of = place(*at, at + data.len() as u64);
                    let skipped = usize::try_from(offset.saturating_sub(*at)).unwrap_or(usize::MAX);
                    let length = of.len();
                    if length > 0 {
                        out[of].copy_from_slice(&data[skipped..skipped + length]);
                    }
                }
                Change::SetLen(len) => out[place(*len, u64::MAX)].fill(0),
                Change::Sync => {}
            }
        }
        Some(read)
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        if !self.0.holds.load(Ordering::Acquire) {
            return self.0.on.len();
        }
        self.0.len_of(self.0.held().as_deref().unwrap_or_default())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.holds.load(Ordering::Acquire)
            && let Some(read) = self.0.read_held(offset, out)
        {
            return read;
        }
        self.0.on.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.0.keep(|| Change::SetLen(len)) { Ok(()) } else { self.0.on.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.keep(|| Change::Sync) { Ok(()) } else { self.0.make(&Change::Sync) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let kept = self.0.keep(|| Change::Write(offset, data.into()));
        if kept { Ok(()) } else { self.0.on.write(offset, data) }
    }

    fn close(&self) -> io::Result<()> {
        self.0.on.close()
    }
}

/// The storage in a file, which is created if it does not exist.
///
/// # Errors
/// The file cannot be opened.
pub fn open(path: &Path, sync: bool) -> Result<Storage, redb::Error> {
    let mut options = files::options();
    let file = files::open(path, options.read(true).write(true).create(true).truncate(false))?;
    Ok(Storage::with_sync(Box::new(FileBackend::new(file)?), sync))
}

/// Makes a database file with `make` if there is none: under another name first, so that a daemon
/// that dies meanwhile leaves no half of a file.
///
/// # Errors
/// The errors of `make` and of the system.
pub fn make<T, E: From<redb::Error>>(
    path: &Path,
    make: impl FnOnce(Storage) -> Result<T, E>,
) -> Result<(), E> {
    let system = |error| E::from(redb::Error::Io(error));
    if path.try_exists().map_err(system)? {
        return Ok(());
    }
    let new = path.with_extension("redb.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(error)),
        _ => {}
    }
    drop(make(open(&new, true)?)?);
    fs::rename(&new, path).map_err(system)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file in memory.
    #[derive(Clone, Default, Debug)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl StorageBackend for Memory {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let from = usize::try_from(offset).unwrap();
            let bytes = self.0.lock().unwrap();
            let read = bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(read);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let from = usize::try_from(offset).unwrap();
            let mut bytes = self.0.lock().unwrap();
            let end = bytes.len().max(from + data.len());
            bytes.resize(end, 0);
            bytes[from..from + data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Sync,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..24, prop::collection::vec(1u8.., 0..9))
                .prop_map(|(offset, data)| Step::Write(offset, data)),
            2 => (0u64..32).prop_map(Step::SetLen),
            1 => Just(Step::Sync),
        ]
    }

    fn carry_out(on: &dyn StorageBackend, step: &Step) {
        let done = match step {
            Step::Write(offset, data) => on.write(*offset, data),
            Step::SetLen(len) => on.set_len(*len),
            Step::Sync => on.sync_data(),
        };
        done.unwrap();
    }

    proptest! {
        /// A read from a storage that holds changes back sees the changes. The file has none of
        /// them before the release, and all of them after it.
        #[test]
        fn what_is_held_back_can_be_read_and_is_not_there(
            before in prop::collection::vec(1u8.., 0..24),
            steps in prop::collection::vec(step(), 0..12),
        ) {
            let (file, model) = (Memory::default(), Memory::default());
            *file.0.lock().unwrap() = before.clone();
            *model.0.lock().unwrap() = before.clone();
            let storage = Storage::new(Box::new(file.clone()));
            let held_back = storage.hold_back();
            for step in &steps {
                // Redb makes room before it writes.
                if let Step::Write(offset, data) = step {
                    let end = (offset + data.len() as u64).max(model.len().unwrap());
                    carry_out(&model, &Step::SetLen(end));
                    carry_out(&storage, &Step::SetLen(end));
                }
                carry_out(&model, step);
                carry_out(&storage, step);
                prop_assert_eq!(storage.len().unwrap(), model.len().unwrap());
                for from in 0..40 {
                    for length in 0..8 {
                        let (mut got, mut expected) = (vec![0xEE; length], vec![0xEE; length]);
                        let read = storage.read(from, &mut got).is_ok();
                        prop_assert_eq!(read, model.read(from, &mut expected).is_ok());
                        prop_assert!(!read || got == expected);
                    }
                }
                prop_assert_eq!(&*file.0.lock().unwrap(), &before);
            }
            held_back.release().unwrap();
            prop_assert_eq!(&*file.0.lock().unwrap(), &*model.0.lock().unwrap());
            carry_out(&storage, &Step::SetLen(3));
            prop_assert_eq!(file.len().unwrap(), 3);
        }
    }
}
