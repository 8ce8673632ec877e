//! Notes: DELs that no daemon took, left in a directory for the daemon to act on.
//!
//! A note is the body of the request as it would have been sent. It appears under its name whole
//! or not at all (written under a hidden name, then renamed). It is not synced to the disk: what
//! loses it is the end of the machine, and that is the end of its containers too.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::fs::{Gid, Uid};
use rustix::fs::{fchown, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::client::{SOCKET_DEFAULT, reason};
use crate::limits::NOTES_MAX;

/// The directory of the notes, beside a socket with the usual name.
const DIRECTORY: &str = "notes";
/// The names `.` and `..` in each directory.
const DOTS: usize = 2;
/// The bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

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
    /// Others can change what is in this directory.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The bits of its mode.
        mode: u32,
    },
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, cause) => write!(f, "{}: {}", path.display(), reason(cause)),
            Self::Full(path) => {
                write!(f, "{}: {NOTES_MAX} notes, the most there may be", path.display())
            }
            Self::Foreign { path, owner, mode } => write!(
                f,
                "{}: it belongs to user {owner} and has mode {mode:04o}, so others can change what \
                 is in it: put the socket into a directory of root",
                path.display()
            ),
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
    let at = |cause: Errno| NoteError::Io(directory.clone(), cause.into());
    let notes = open(socket, &directory)?;
    // Hidden files count: what killed plugins left behind must not grow without a limit either.
    let waiting = Dir::read_from(&notes).map_err(at)?.take(notes_max + DOTS).count();
    if waiting == notes_max + DOTS {
        return Err(NoteError::Full(directory));
    }
    let hidden = format!(".{name}");
    write(&notes, &hidden, text)
        .and_then(|()| renameat(&notes, &hidden, &notes, name).map_err(Into::into))
        .map_err(|cause: io::Error| {
            // Best effort: the failure itself is what counts.
            let _ = unlinkat(&notes, &hidden, AtFlags::empty());
            NoteError::Io(directory.join(name), cause)
        })
}

/// Opens the directory of the notes, and makes it if it is not there. The path of the socket may
/// come from a configuration that a stranger wrote, and this process may be root: so the directory
/// above must be there already, and nobody else may be able to change either of them. The usual one
/// is the operator's in any case, and a daemon of another user may own it.
fn open(socket: &Path, directory: &Path) -> Result<OwnedFd, NoteError> {
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    let is_usual = socket == Path::new(SOCKET_DEFAULT);
    let at = |path: &Path| {
        let path = path.to_owned();
        |cause: Errno| NoteError::Io(path, cause.into())
    };
    let private = Mode::RWXU;
    if is_usual {
        make(CWD, above, private).map_err(at(above))?;
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat(CWD, above, flags, Mode::empty()).map_err(at(above))?;
    check(&parent, above, is_usual)?;
    let name = directory.file_name().unwrap_or_default();
    make(&parent, Path::new(name), private).map_err(at(directory))?;
    let notes = openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty());
    let notes = notes.map_err(at(directory))?;
    check(&notes, directory, is_usual)?;
    Ok(notes)
}

/// Makes a directory unless something is there.
fn make(at: impl AsFd, path: &Path, mode: Mode) -> Result<(), Errno> {
    match mkdirat(at, path, mode) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Checks that nobody else can put something in the place of a note.
fn check(directory: &OwnedFd, path: &Path, any_owner: bool) -> Result<(), NoteError> {
    let about = fstat(directory).map_err(|cause| NoteError::Io(path.to_owned(), cause.into()))?;
    let mode = about.st_mode & 0o7777;
    let own = about.st_uid == 0 || about.st_uid == geteuid().as_raw();
    if (own || any_owner) && mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(NoteError::Foreign { path: path.to_owned(), owner: about.st_uid, mode })
}

/// Writes a file that was not there, for the owner of the directory to read.
fn write(directory: &OwnedFd, name: &str, text: &[&[u8]]) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    let about = fstat(directory)?;
    // Root leaves notes for a daemon of another user.
    if geteuid().is_root() && about.st_uid != 0 {
        let (user, group) = (Uid::from_raw(about.st_uid), Gid::from_raw(about.st_gid));
        fchown(&file, Some(user), Some(group))?;
    }
    fs::File::from(file).write_all(&text.concat())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

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
    fn a_note_is_left_only_where_nobody_else_can_change_it() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("d");
        let socket = dir.join("s");
        let error = leave(&socket, "1", &[b"{}"]).unwrap_err();
        assert!(matches!(&error, NoteError::Io(at, _) if *at == dir), "{error:?}");
        assert!(!dir.exists(), "nothing is made for a path of a configuration");
        fs::create_dir(&dir).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        for unsafe_mode in [0o777, 0o1777, 0o720] {
            mode(&dir, unsafe_mode).unwrap();
            let error = leave(&socket, "1", &[b"{}"]).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {unsafe_mode:04o}")), "{error}");
        }
        mode(&dir, 0o755).unwrap();
        // A link in the place of the directory of notes, made while the mode was wrong.
        let elsewhere = home.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, directory(&socket)).unwrap();
        leave(&socket, "1", &[b"{}"]).unwrap_err();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::remove_file(directory(&socket)).unwrap();
        leave(&socket, "1", &[b"{}"]).unwrap();
        if !geteuid().is_root() {
            return; // only root can give a directory away
        }
        let user = Uid::from_raw(65_534);
        rustix::fs::chown(&dir, Some(user), None).unwrap();
        let error = leave(&socket, "2", &[b"{}"]).unwrap_err().to_string();
        assert!(error.contains("belongs to user 65534"), "{error}");
    }

    #[test]
    fn root_leaves_a_note_that_the_daemon_can_read() {
        if !geteuid().is_root() {
            return; // only root can give a file away
        }
        let home = tempfile::tempdir().unwrap();
        let user = Uid::from_raw(65_534);
        let notes = openat(CWD, home.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        fchown(&notes, Some(user), None).unwrap();
        write(&notes, "1", &[b"{}"]).unwrap();
        let about = rustix::fs::stat(home.path().join("1")).unwrap();
        assert_eq!((about.st_uid, about.st_mode & 0o777), (65_534, 0o600));
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
