//! Files that people name on the command line.

use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;

use crate::files;

/// Reads a file that people named, of so many bytes at most. It does not wait for a pipe.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    files::read_foreign(path, bytes_max as u64).with_context(|| path.display().to_string())
}

/// Reads a file like [`read_file`], or standard input if its name is `-`.
///
/// # Errors
/// As [`read_file`].
pub(super) fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    if path != Path::new("-") {
        return read_file(path, bytes_max);
    }
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut text)
        .context("standard input")?;
    anyhow::ensure!(text.len() <= bytes_max, "standard input: it is longer than {bytes_max} bytes");
    Ok(text)
}
