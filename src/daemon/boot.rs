//! The boot in which this daemon runs. No container outlives a boot. Usually it is the kernel's. On
//! a node that is itself a container, the kernel goes on when the node is started again, and its
//! containers end with PID 1: an operator may say that a new PID 1 is a new boot too.
//!
//! The daemon never guesses that: a daemon in a container of its own has a PID 1 that ends with
//! that container alone, and the addresses of all the others would be given out again.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::config::{BootFrom, Config};
use crate::{files, limits};

/// The file in the state directory that says which boot it is.
const FILE: &str = "boot-from.json";

/// The longest such file, in bytes.
const BYTES_MAX: u64 = 4096;

/// The field of `/proc/PID/stat` with the start of a process, counted after the name, in brackets.
const START_FIELD: usize = 19;

/// The content of the file.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
struct Written {
    /// The kernel's boot.
    kernel: String,
    /// The start of PID 1, in ticks since then.
    init: u64,
    /// The id of the boot that follows from both.
    boot: String,
}

/// The boot, and what the daemon must write down about it.
#[derive(Debug)]
pub(super) struct Boot {
    /// True if PID 1 is part of it, so that containers may live that were there before.
    pub(super) of_init: bool,
    /// The file's new content, if it is to be written.
    news: Option<Written>,
}

impl Boot {
    /// Finds out which boot this is, in place of the kernel's.
    ///
    /// # Errors
    /// PID 1 is this daemon, or cannot be looked at; the file cannot be read.
    pub(super) fn find(config: &mut Config) -> anyhow::Result<Self> {
        let path = config.state_dir.join(FILE);
        let about = || format!("file {}", path.display());
        let kernel = config.boot_id.clone();
        let written = match files::read(&path, BYTES_MAX) {
            Ok(text) => Some(serde_json::from_slice::<Written>(&text).with_context(|| {
                format!("{}: it says which boot this is, and is damaged", about())
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(about),
        };
        let written = written.filter(|written| written.kernel == kernel);
        if config.boot_from == BootFrom::Kernel {
            // After the option was taken back, the boot is still the one that it was.
            if let Some(written) = written {
                config.boot_id = written.boot;
            }
            return Ok(Self { of_init: config.boot_id != kernel, news: None });
        }
        let init = init_start()?;
        let boot = match written {
            Some(written) if written.init == init => {
                config.boot_id = written.boot;
                return Ok(Self { of_init: true, news: None });
            }
            // Containers from before the option was given, in this boot of the kernel, still run.
            None if is_known(config, &kernel) => kernel.clone(),
            _ => derived(&kernel, init),
        };
        config.boot_id.clone_from(&boot);
        Ok(Self { of_init: true, news: Some(Written { kernel, init, boot }) })
    }

    /// Writes down which boot it is, once the journal has taken it for that.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn keep(self, state_dir: &Path) -> anyhow::Result<()> {
        let path = state_dir.join(FILE);
        let Some(news) = self.news else { return Ok(()) };
        write(&path, &news).with_context(|| format!("file {}", path.display()))
    }
}

/// Returns whether the journal, or what is beside the socket, is of this boot of the kernel.
fn is_known(config: &Config, kernel: &str) -> bool {
    let names = |path: &Path| {
        files::read(path, limits::BOOT_ID_BYTES_MAX)
            .is_ok_and(|text| text.windows(kernel.len()).any(|at| at == kernel.as_bytes()))
    };
    names(&config.state_dir.join("boot-id")) || names(&config.socket.with_extension("boot"))
}

/// The start of PID 1 of this PID namespace, in ticks since the kernel's boot: no other process of
/// that id has the same.
fn init_start() -> anyhow::Result<u64> {
    anyhow::ensure!(
        std::process::id() != 1,
        "bootFrom = \"init\": this daemon is PID 1 itself, so its own restart would count as a \
         boot, and the addresses of containers that run would be given out again: leave it out \
         (--boot-from kernel)"
    );
    start_of_init().context("bootFrom = \"init\"")
}

/// The same, for every daemon.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn start_of_init() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/1/stat").context("/proc/1/stat")?;
    let start = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(START_FIELD)?.parse().ok());
    start.context("/proc/1/stat has no start of PID 1")
}

/// An id of the same form as the kernel's: its last digits are those of both facts together.
fn derived(kernel: &str, init: u64) -> String {
    let digits = 12.min(kernel.len());
    let Some((head, tail)) = kernel.split_at_checked(kernel.len() - digits) else {
        return kernel.to_owned();
    };
    let Ok(tail) = u64::from_str_radix(tail, 16) else { return kernel.to_owned() };
    // Never the kernel's own: PID 1 did not start with tick 0.
    let mixed = (tail ^ init) & 0xffff_ffff_ffff;
    format!("{head}{mixed:0digits$x}")
}

/// Writes such that a power cut leaves all of it or nothing.
fn write(path: &Path, written: &Written) -> io::Result<()> {
    files::replace(path, serde_json::to_string(written)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "3c8b0f26-8f3e-4d55-9f1a-0123456789ab";

    #[test]
    fn another_start_of_pid_1_is_another_boot_of_the_same_form() {
        let (one, other) = (derived(KERNEL, 171), derived(KERNEL, 4_711));
        assert_eq!(one.len(), KERNEL.len());
        assert!(one != KERNEL && other != KERNEL && one != other);
        assert_eq!(one, derived(KERNEL, 171));
        assert!(one.starts_with("3c8b0f26-8f3e-4d55-9f1a-"), "{one}");
    }

    #[test]
    fn the_start_of_pid_1_is_read() {
        let start = init_start().unwrap();
        assert_eq!(start, init_start().unwrap());
    }
}
