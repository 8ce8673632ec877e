//! How far the journal had come, told by another file: what shows that its end is missing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The number of the last commit that was answered, in a file of its own.
#[derive(Debug)]
pub(super) struct CommitCounter {
    file: File,
    /// The number, which is also how many there were.
    pub(super) last: u64,
}

impl CommitCounter {
    /// Takes the file away, before a new journal is made.
    pub(super) fn remove(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; 8];
        let last = match file.read_exact(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { file, last })
    }

    /// Writes the number down.
    pub(super) fn set(&mut self, commits: u64) -> io::Result<()> {
        self.last = commits;
        self.file.write_all_at(&commits.to_le_bytes(), 0)
    }
}
