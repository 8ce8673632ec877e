//! Opens files safely. It follows no link that somebody else made, opens nothing that blocks, reads
//! no more than a limit, and uses only directories in which nobody else can replace the file.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// The bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// The bits of a mode that let others than the owner read.
const OTHERS_READ: u32 = 0o044;

/// Options with which a file of this program is opened: the path is no link, opening does not
/// wait, and a new file is for its owner only.
pub(crate) fn options() -> OpenOptions {
    opening(OFlags::NOFOLLOW | OFlags::NONBLOCK)
}

fn opening(flags: OFlags) -> OpenOptions {
    let mut options = File::options();
    options.mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// Opens a file of this program. Write `options()` for the options, and what else it takes.
///
/// # Errors
/// It cannot be opened, is a link, or is no regular file.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
            io::Error::other("it is a symbolic link, which is not followed here: remove it")
        }
        // A pipe that nobody reads.
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => not_regular(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file: remove it, or name another one")
}

/// The content of a file of this program, of so many bytes at most.
///
/// # Errors
/// It cannot be opened or read, or is longer.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    content(open(path, options().read(true))?, bytes_max)
}

fn content(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(io::Error::other(format!(
            "it is longer than {bytes_max} bytes: name another one"
        )));
    }
    Ok(content)
}

/// The content of a file that somebody else wrote and keeps, such as a certificate, of so many
/// bytes at most. It may be a link, as those that Kubernetes makes of secrets.
///
/// # Errors
/// It cannot be opened or read, is no regular file, or is longer.
pub(crate) fn read_foreign(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open(path, opening(OFlags::NONBLOCK).read(true))?;
    content(file, bytes_max)
}

/// Replaces the content of a file of this program; a power cut leaves the old content or the new
/// one.
///
/// # Errors
/// It cannot be written; the file is as it was.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = open(&new, options().write(true).create_new(true))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Does what [`replace`] does, and holds up no other task. A failure is only logged: what the file
/// remembers saves work at the next start.
pub(crate) async fn remember(path: &Path, content: Vec<u8>) {
    let to = path.to_owned();
    let written = tokio::task::spawn_blocking(move || replace(&to, &content)).await;
    if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
        tracing::warn!(file = %path.display(), %error, "cannot be written");
    }
}

/// Returns what is unwise about a file with a secret, if anything is.
///
/// # Errors
/// It is not there, or belongs to a user who is neither root nor this one.
pub(crate) fn check_secret(path: &Path) -> io::Result<Option<String>> {
    let about = fs::metadata(path)?;
    if !is_trusted(about.uid()) {
        return Err(io::Error::other(format!(
            "it belongs to user {}, who can change it: give a file of root or of user {} (chown)",
            about.uid(),
            geteuid()
        )));
    }
    let mode = about.mode() & 0o7777;
    Ok((mode & OTHERS_READ != 0).then(|| {
        format!(
            "{} has mode {mode:04o}, so others than its owner can read the secret in it: chmod 600",
            path.display()
        )
    }))
}

/// Makes a directory of this program, for its owner only, and the ones above it, unless it is
/// there; and checks it.
///
/// # Errors
/// It cannot be made, or others can change what is in it.
pub(crate) fn make_directory(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    check_directory(dir)
}

/// Checks that only root and this user can change what is in a directory.
///
/// # Errors
/// Others can; the text names owner, mode and remedy.
pub(crate) fn check_directory(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let link = fs::symlink_metadata(dir)?;
    if link.is_symlink() && !is_trusted(link.uid()) {
        return Err(io::Error::other(format!(
            "it is a symbolic link of user {}, who can make it lead elsewhere: remove it, or \
             choose another directory",
            link.uid()
        )));
    }
    check_owner(&fs::metadata(dir)?)
}

fn check_owner(about: &Metadata) -> io::Result<()> {
    let (owner, mode, us) = (about.uid(), about.mode() & 0o7777, geteuid());
    if is_trusted(owner) && mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it belongs to user {owner} and has mode {mode:04o}, so others can put files and links \
         into it: choose a directory that belongs to user {us} and that nobody else can write to \
         (chown {us}, chmod 700)",
        us = us.as_raw()
    )))
}

fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use rustix::fs::{CWD, Gid, Mode, Uid, chown, mkfifoat};
    use tempfile::TempDir;

    use super::*;

    fn home() -> (TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("f");
        (home, file)
    }

    #[test]
    fn a_link_a_pipe_and_a_directory_are_no_files_of_ours() {
        let (home, file) = home();
        let victim = home.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let refused = |words: &str| {
            for options in [options().read(true), options().write(true).truncate(true)] {
                let error = open(&file, options).unwrap_err();
                assert!(error.to_string().contains(words), "{error}");
            }
            assert!(read(&file, 9).is_err());
        };
        symlink(&victim, &file).unwrap();
        refused("symbolic link");
        assert_eq!(read_foreign(&file, 9).unwrap(), b"precious", "others may link theirs");
        fs::remove_file(&file).unwrap();
        mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
        refused("not a regular file");
        assert!(read_foreign(&file, 9).is_err(), "it would wait for ever");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_file_is_private_and_has_a_longest_length() {
        let (_home, file) = home();
        open(&file, options().write(true).create(true)).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::write(&file, "1234").unwrap();
        assert_eq!(read(&file, 4).unwrap(), b"1234");
        assert!(read(&file, 3).unwrap_err().to_string().contains("longer than 3 bytes"));
    }

    #[test]
    fn a_directory_of_others_is_refused_with_owner_and_mode() {
        let (home, dir) = home();
        make_directory(&dir.join("deep")).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        for mode in [0o720, 0o702, 0o1777] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
            let error = make_directory(&dir).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        make_directory(&dir).unwrap();
        if !geteuid().is_root() {
            return; // only root can give a directory away
        }
        let nobody = (Some(Uid::from_raw(65_534)), Some(Gid::from_raw(65_534)));
        let link = home.path().join("link");
        symlink(&dir, &link).unwrap();
        check_directory(&link).unwrap();
        rustix::fs::chownat(CWD, &link, nobody.0, nobody.1, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .unwrap();
        let error = check_directory(&link).unwrap_err().to_string();
        assert!(error.contains("symbolic link of user 65534"), "{error}");
        chown(&dir, nobody.0, nobody.1).unwrap();
        let error = check_directory(&dir).unwrap_err().to_string();
        assert!(error.contains("belongs to user 65534"), "{error}");
    }

    #[test]
    fn a_secret_that_others_read_is_told_of() {
        let (_home, file) = home();
        fs::write(&file, "x").unwrap();
        for (mode, told) in [(0o600, false), (0o400, false), (0o644, true), (0o640, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let said = check_secret(&file).unwrap();
            assert_eq!(said.is_some(), told, "{mode:o}");
            assert!(said.is_none_or(|said| said.contains(&format!("mode {mode:04o}"))));
        }
    }
}
