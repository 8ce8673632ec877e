//! Figures of a daemon: its own metrics, and the kernel's figures of its process.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use my_ipam::client;

/// The longest time that the daemon may take to show its metrics.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);

/// The sum of a metric's series that have all of these labels; 0 if there is none.
///
/// # Errors
/// The daemon does not answer.
pub(super) fn metric(socket: &Path, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let deadline = Instant::now() + ANSWER_WAIT_MAX;
    let response = client::request(socket, "GET", "/metrics", &[], deadline)?;
    let text = String::from_utf8(response.body)?;
    let value = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (of, rest) = series.split_once('{').unwrap_or((series, ""));
        let wanted = of == name && labels.iter().all(|label| rest.contains(label));
        wanted.then(|| value.parse::<f64>().ok()).flatten()
    };
    Ok(text.lines().filter_map(value).sum())
}

/// The resident memory of a process, in bytes.
///
/// # Errors
/// The process is gone.
pub(super) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(number_of(&status, "VmRSS:").context("no VmRSS")? * 1024)
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
