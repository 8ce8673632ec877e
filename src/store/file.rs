//! Where redb keeps its bytes.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;

/// Any storage, chosen at run time.
#[derive(Debug)]
pub struct Storage {
    on: Box<dyn StorageBackend>,
    /// Whether a commit waits for the disk. If not, it is in the page cache, where it survives
    /// `kill -9`, and costs no wait.
    sync: bool,
}

impl Storage {
    /// A storage that is synced if it can be.
    pub fn new(on: Box<dyn StorageBackend>) -> Self {
        Self { on, sync: true }
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        self.on.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.on.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.on.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync { self.on.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.on.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.on.close()
    }
}

/// The storage in a file, made if it is not there.
///
/// # Errors
/// The file cannot be opened.
pub fn open(path: &Path, sync: bool) -> Result<Storage, redb::Error> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    let on = Box::new(FileBackend::new(file)?);
    Ok(Storage { on, sync })
}

/// Makes a database file with `make` if there is none: under another name first, so that a daemon
/// that dies meanwhile leaves no half of one.
///
/// # Errors
/// As `make` and the system say.
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
