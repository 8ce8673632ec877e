//! Keeps in other files how far the journal had come: they show that its end, or all of it, is
//! missing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::files;

/// The longest marker that is read, in bytes: its number and a boot's id.
const MARKER_BYTES_MAX: u64 = 256;

fn open(path: &Path) -> io::Result<File> {
    files::open(path, files::options().read(true).write(true).create(true).truncate(false))
}

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
        let mut file = open(path)?;
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

/// The same number outside of the state directory, where it ends with the boot: it tells a node
/// that was robbed of its state from a new one.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    /// The number; 0 if the file is of another boot, or is new.
    pub(super) last: u64,
}

impl Marker {
    /// Opens the file, or makes it. It forgets what another boot wrote.
    pub(super) fn open(path: &Path, boot_id: &str) -> io::Result<Self> {
        let mut file = open(path)?;
        let mut content = Vec::new();
        (&mut file).take(MARKER_BYTES_MAX).read_to_end(&mut content)?;
        let last = match content.split_first_chunk::<8>() {
            Some((number, boot)) if boot == boot_id.as_bytes() => u64::from_le_bytes(*number),
            _ => {
                file.set_len(0)?;
                file.write_all_at(&[&[0; 8], boot_id.as_bytes()].concat(), 0)?;
                0
            }
        };
        Ok(Self { file, last })
    }

    /// Writes the number down, as far as possible: a number that is too low only shows less.
    pub(super) fn set(&mut self, commits: u64) {
        self.last = commits;
        let _ = self.file.write_all_at(&commits.to_le_bytes(), 0);
    }
}
