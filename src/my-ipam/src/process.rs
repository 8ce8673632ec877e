//! The process around a run: clock and standard streams.

use std::io::{self, IsTerminal as _, Read, Write};
use std::process::ExitCode;

use rustix::stdio;
use rustix::time::{DynamicClockId, clock_gettime_dynamic};

use super::{ProcessIo, run};
use crate::limits::ANSWER_WAIT_MAX;

/// The whole of the binary `my-ipam`.
#[must_use]
pub fn main() -> ExitCode {
    // First of all: the sooner, the closer to the start of the process.
    let started_at_ns = boot_clock_ns();
    let argument = std::env::args_os().nth(1);
    // Nobody types a configuration, and a person who tries the plugin by hand must not be left
    // hanging.
    let typed = stdio::stdin().is_terminal();
    let (mut nothing, mut stdin) = (io::empty(), Stdin);
    let status = run(&mut ProcessIo {
        started_at_ns,
        argument: argument.as_deref(),
        environment: &|name| std::env::var_os(name),
        stdin: if typed { &mut nothing as &mut dyn Read } else { &mut stdin },
        stdout: &mut Stdout,
        stderr: &mut io::stderr(),
        answer_wait: ANSWER_WAIT_MAX,
    });
    ExitCode::from(status)
}

/// Now, in nanoseconds since boot, time asleep included; `None`: the system does not say.
///
/// The start of the process as the kernel knows it (`/proc/self/stat`, field 22) would be the
/// real thing, but it counts in ticks of 10 ms, in which a runtime can do a DEL *and* the next ADD
/// of the same attachment. This is later than the exec by a fraction of a millisecond.
pub(super) fn boot_clock_ns() -> Option<u64> {
    let time = clock_gettime_dynamic(DynamicClockId::Boottime).ok()?;
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    Some(seconds.ok()? * 1_000_000_000 + nanoseconds.ok()?)
}

/// Standard input without std's buffer.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(stdio::stdin(), room)?)
    }
}

/// Standard output as a plain file: std's own would split a result with newlines in it over two
/// writes.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(stdio::stdout(), text)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
