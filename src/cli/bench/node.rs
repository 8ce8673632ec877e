//! The kernel's figures of a daemon's process.

use std::fs;

use anyhow::Context as _;

/// The resident memory of a process, in bytes.
///
/// # Errors
/// The process is gone.
pub(super) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(number_of(&status, "VmRSS:").context("no VmRSS")? * 1024)
}

/// The number of files that a process has open.
///
/// # Errors
/// The process is gone.
pub(super) fn open_files(pid: u32) -> anyhow::Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}

/// The number of times that the threads of a process have been woken up so far.
///
/// # Errors
/// The process is gone.
pub(super) fn wakeups(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        sum += number_of(&status, "voluntary_ctxt_switches:").unwrap_or_default();
    }
    Ok(sum)
}

fn number_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
