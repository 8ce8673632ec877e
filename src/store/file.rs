//! Where redb keeps its bytes.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;

/// Any storage, chosen at run time.
#[derive(Debug)]
pub struct Boxed(pub Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// A file that is written but not synced: a commit is in the page cache, where it survives
/// `kill -9`, and costs no wait for the disk.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// The storage in a file, made if it is not there.
///
/// # Errors
/// The file cannot be opened.
pub fn open(path: &Path, fsync: bool) -> Result<Box<dyn StorageBackend>, redb::Error> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    let backend = FileBackend::new(file)?;
    Ok(if fsync { Box::new(backend) } else { Box::new(Unsynced(backend)) })
}

/// Makes a database file with `make` if there is none: under another name first, so that a daemon
/// that dies meanwhile leaves no half of one.
///
/// # Errors
/// As `make` and the system say.
pub fn make<T, E: From<redb::Error>>(
    path: &Path,
    make: impl FnOnce(Box<dyn StorageBackend>) -> Result<T, E>,
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
