//! Notes: DELs that no daemon took, left in a directory for the daemon to act on.
//!
//! A note is the body of the request as it would have been sent. It appears under its name whole
//! or not at all (written under a hidden name, then renamed). It is not synced to the disk: what
//! loses it is the end of the machine, and that is the end of its containers too.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::client::{SOCKET_DEFAULT, reason};
use crate::limits::NOTES_MAX;

/// The directory of the notes, beside a socket with the usual name.
const DIRECTORY: &str = "notes";

/// Returns the directory of the notes for the daemon behind `socket`: `notes` beside a socket with
/// the usual name, `NAME.notes` beside a socket with another one. So daemons whose sockets are in
/// one directory have notes of their own. Names that start with a dot are not notes yet, or never
/// became one.
#[must_use]
pub fn directory(socket: &Path) -> PathBuf {
    let usual = Path::new(SOCKET_DEFAULT).file_name();
    match socket.file_name() {
        Some(name) if Some(name) != usual => {
            let mut own = name.to_owned();
            own.push(".");
            own.push(DIRECTORY);
            socket.with_file_name(own)
        }
        _ => socket.with_file_name(DIRECTORY),
    }
}

/// The reason why a note could not be left.
#[derive(Debug)]
pub(super) enum NoteError {
    /// At this path.
    Io(PathBuf, io::Error),
    /// [`NOTES_MAX`] notes wait already in this directory.
    Full(PathBuf),
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, cause) => write!(f, "{}: {}", path.display(), reason(cause)),
            Self::Full(path) => {
                write!(f, "{}: {NOTES_MAX} notes, the most there may be", path.display())
            }
        }
    }
}

/// Leaves a note of that name and text beside `socket`.
pub(super) fn leave(socket: &Path, name: &str, text: &[&[u8]]) -> Result<(), NoteError> {
    leave_one_of(socket, name, text, NOTES_MAX)
}

fn leave_one_of(
    socket: &Path,
    name: &str,
    text: &[&[u8]],
    notes_max: usize,
) -> Result<(), NoteError> {
    let directory = directory(socket);
    let at = |path: &Path| {
        let path = path.to_owned();
        |cause| NoteError::Io(path, cause)
    };
    // The daemon makes its directories private too; this is for a daemon that never ran.
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(at(&directory))?;
    // Hidden files count: what killed plugins left behind must not grow without a limit either.
    let waiting = fs::read_dir(&directory).map_err(at(&directory))?.take(notes_max).count();
    if waiting == notes_max {
        return Err(NoteError::Full(directory));
    }
    let hidden = directory.join(format!(".{name}"));
    let note = directory.join(name);
    write(&hidden, text).and_then(|()| fs::rename(&hidden, &note)).map_err(|cause| {
        // Best effort: the failure itself is what counts.
        let _ = fs::remove_file(&hidden);
        NoteError::Io(note, cause)
    })
}

fn write(path: &Path, text: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&text.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_of_a_directory_has_notes_of_its_own() {
        for (socket, notes) in [
            (SOCKET_DEFAULT, "/run/leasehold/notes"),
            ("/tmp/run/leasehold.sock", "/tmp/run/notes"),
            ("/tmp/run/n0.sock", "/tmp/run/n0.sock.notes"),
            ("/tmp/run/n1", "/tmp/run/n1.notes"),
        ] {
            assert_eq!(directory(Path::new(socket)), Path::new(notes));
        }
    }

    #[test]
    fn a_full_directory_takes_no_more_and_hidden_files_count() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("s");
        leave_one_of(&socket, "1", &[b"{", b"}"], 2).unwrap();
        fs::write(directory(&socket).join(".killed"), "").unwrap();
        let error = leave_one_of(&socket, "2", &[b"{}"], 2).unwrap_err();
        assert!(matches!(error, NoteError::Full(_)), "{error:?}");
        assert!(error.to_string().ends_with("/s.notes: 65536 notes, the most there may be"));
        assert_eq!(fs::read(directory(&socket).join("1")).unwrap(), b"{}");
    }

    #[test]
    fn a_note_that_fails_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("s");
        // A directory in the way of the rename.
        fs::create_dir_all(directory(&socket).join("1/x")).unwrap();
        let error = leave(&socket, "1", &[b"{}"]).unwrap_err();
        assert!(matches!(error, NoteError::Io(..)), "{error:?}");
        assert_eq!(fs::read_dir(directory(&socket)).unwrap().count(), 1);
    }
}
