//! Puts one file in its place, or takes it away: whole or not at all, and only if it must.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::Builder;

use crate::{files, limits};

/// The permissions of a directory that had to be made.
const DIRECTORY_MODE: u32 = 0o755;

/// The outcome for a file or, in a dry run, what it would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Done {
    /// It is new, or replaces another content.
    Installed,
    /// It was there already, with this content and these permissions.
    Unchanged,
    /// It has another content, which stays.
    Kept,
    /// It is gone.
    Removed,
    /// It was not there.
    Absent,
}

/// The file that a part wants.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) path: &'a Path,
    pub(super) content: &'a [u8],
    /// Its permissions.
    pub(super) mode: u32,
    /// People change it: another content stays.
    pub(super) is_peoples: bool,
}

impl Wanted<'_> {
    /// Puts the file in its place. Readers see the old file or the new one, whole, and a program
    /// that runs can be replaced.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn put(&self, dry_run: bool) -> io::Result<Done> {
        match self.there()? {
            Some((content, mode)) if content == self.content && mode == self.mode => {
                return Ok(Done::Unchanged);
            }
            Some((content, _)) if self.is_peoples && content != self.content => {
                return Ok(Done::Kept);
            }
            _ => {}
        }
        if !dry_run {
            self.write()?;
        }
        Ok(Done::Installed)
    }

    /// Takes the file away. What people changed stays.
    ///
    /// # Errors
    /// It cannot be read or removed.
    pub(super) fn take_away(&self, dry_run: bool) -> io::Result<Done> {
        match self.there()? {
            None => return Ok(Done::Absent),
            Some((content, _)) if self.is_peoples && content != self.content => {
                return Ok(Done::Kept);
            }
            Some(_) => {}
        }
        if !dry_run {
            fs::remove_file(self.path)?;
        }
        Ok(Done::Removed)
    }

    /// The content and the permissions of the file that is there.
    fn there(&self) -> io::Result<Option<(Vec<u8>, u32)>> {
        match files::read_foreign(self.path, limits::PROGRAM_BYTES_MAX as u64) {
            Ok(content) => {
                let mode = fs::metadata(self.path)?.permissions().mode() & 0o7777;
                Ok(Some((content, mode)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            fs::create_dir_all(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?;
        }
        // Runtimes read every file of their directory that ends in .conf, .conflist or .json.
        let mut file =
            Builder::new().prefix(".leasehold-").suffix(".new").tempfile_in(directory)?;
        file.write_all(self.content)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(self.mode))?;
        file.as_file().sync_all()?;
        file.persist(self.path)?;
        fs::File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_once_and_what_people_changed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        let wanted = |content, is_peoples| Wanted { path: &path, content, mode: 0o644, is_peoples };
        let (old, new) = (wanted(b"old", true), wanted(b"new", true));
        assert_eq!(old.take_away(false).unwrap(), Done::Absent);
        assert_eq!(old.put(true).unwrap(), Done::Installed);
        assert!(!path.exists(), "a dry run");
        assert_eq!(old.put(false).unwrap(), Done::Installed);
        assert_eq!(old.put(false).unwrap(), Done::Unchanged);
        assert_eq!(
            (new.put(false).unwrap(), fs::read(&path).unwrap()),
            (Done::Kept, b"old".into())
        );
        assert_eq!(new.take_away(false).unwrap(), Done::Kept);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(old.put(false).unwrap(), Done::Installed, "other permissions");
        let program = wanted(b"new", false);
        assert_eq!(program.put(false).unwrap(), Done::Installed);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(program.take_away(true).unwrap(), Done::Removed);
        assert!(path.exists(), "a dry run");
        assert_eq!(program.take_away(false).unwrap(), Done::Removed);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            0,
            "nothing is left over"
        );
    }
}
