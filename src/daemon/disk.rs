//! After the journal failed: when its disk takes writes again, the daemon starts again, in the same
//! process. So the journal is opened and verified like at every start, and nothing of what is in
//! memory, which may be more than the disk has, is taken over (rule 14).

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::api::AppState;
use crate::limits;

/// Waits until the journal has failed and its disk takes writes again.
pub(super) async fn mended(node: &AppState, state_dir: &Path) {
    loop {
        tokio::time::sleep(limits::DISK_LOOK).await;
        if node.index.broken().is_none() {
            continue;
        }
        let dir = state_dir.to_owned();
        let look = tokio::task::spawn_blocking(move || takes_writes(&dir)).await;
        if matches!(look, Ok(Ok(()))) {
            tracing::warn!(
                dir = %state_dir.display(),
                "the disk takes writes again: the daemon starts again and reads its journal anew"
            );
            return;
        }
    }
}

/// Writes as much as the journal will need at first, and removes it.
fn takes_writes(dir: &Path) -> std::io::Result<()> {
    let mut file = tempfile_in(dir)?;
    file.write_all(&vec![1; limits::DISK_ROOM])?;
    file.sync_all()
}

/// A file that is gone when it is closed.
fn tempfile_in(dir: &Path) -> std::io::Result<fs::File> {
    let path = dir.join("room.probe");
    let _ = fs::remove_file(&path);
    let file = fs::File::create_new(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Becomes a new process of the same program with the same arguments, under the same number, so
/// that a supervisor sees no end. Locks and files of this one are closed by that.
pub(super) fn start_again() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os();
    let mut program = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        program.arg0(name);
    }
    Err(program.args(arguments).exec()).context("the daemon cannot be started again")
}
