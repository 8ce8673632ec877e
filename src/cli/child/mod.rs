//! Programs that a command starts for itself, and ends: daemons, and an etcd for them.

pub(in crate::cli) mod daemon;
pub(in crate::cli) mod etcd;
pub(in crate::cli) mod interrupt;
pub(in crate::cli) mod plugin;

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

/// The time between two looks at a program that starts or stops.
const LOOK: Duration = Duration::from_millis(5);

/// The number of lines of its log that are shown when a program fails.
const TAIL_LINES: usize = 12;
/// The bytes at the end of the log that are read for that.
const TAIL_BYTES: u64 = 16 << 10;

/// This program, to be run again.
///
/// # Errors
/// The system does not know where this program is.
pub(in crate::cli) fn this_program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("cannot find out where this program is")?))
}

/// Starts a program whose standard error is a log, and which dies with this process. Only the
/// main thread may call this: the kernel takes the end of the calling thread for the parent's end.
///
/// # Errors
/// It cannot be run, or its log cannot be made.
pub(in crate::cli) fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Child> {
    // The program runs with the defaults, not with the settings of this shell.
    let ours = std::env::vars_os().map(|(name, _)| name);
    let of_a_service = [b"LEASEHOLD_".as_slice(), b"ETCD_"];
    for name in ours {
        if of_a_service.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let stderr = File::create(log).context("cannot make a log")?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    // A group of its own: Ctrl-C is for the command, which then ends the program in order.
    command.process_group(0);
    let die_with_parent =
        || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?);
    // SAFETY: between fork and exec only one system call is made, and nothing is allocated.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(die_with_parent);
    }
    let program = command.get_program().to_owned();
    command.spawn().with_context(|| format!("cannot run {}", program.display()))
}

/// Sends SIGTERM, and SIGKILL after the wait. Returns `None` if SIGKILL was needed.
///
/// # Errors
/// The system refuses.
fn end(child: &mut Child, wait: Duration) -> anyhow::Result<Option<ExitStatus>> {
    // A child that was waited for may have left its id to another process.
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    rustix::process::kill_process(Pid::from_child(child), Signal::TERM)?;
    let deadline = Instant::now() + wait;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// The end of a log, for messages.
fn log_tail(log: &Path) -> String {
    let text = tail(log).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    let lines = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("the end of its log:\n  {}", lines.join("\n  "))
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = fs::metadata(path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
