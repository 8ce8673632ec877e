//! The process around a run: clock, signals, standard streams. All of the plugin's unsafe code.

use std::ffi::{c_int, c_long};
use std::fs::File;
use std::io::{self, IsTerminal, Read as _};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::time::Duration;

use super::{Begun, Surroundings, run};
use crate::limits::ANSWER_WAIT_MAX;

const CLOCK_BOOTTIME: c_int = 7;
const SIGPIPE: c_int = 13;
const SIG_IGN: usize = 1;

/// `struct timespec` of Linux.
#[repr(C)]
struct Timespec {
    seconds: c_long,
    nanoseconds: c_long,
}

// std links the C library anyway.
#[allow(unsafe_code)]
unsafe extern "C" {
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
}

/// The whole of the binary `my-ipam`, for a C `main`: gives the exit status.
///
/// It is called without the runtime that Rust puts around `fn main`, and does the one part of it
/// that counts here: ignoring SIGPIPE, so that a closed standard output is an error to act on
/// (undo the ADD) and not the end of the process.
/// `begun` is what was done of the call before.
#[must_use]
pub fn main(begun: Begun) -> c_int {
    // First of all: the sooner, the closer to the start of the process.
    let started_at_ns = match begun.started_at_ns {
        0 => boot_clock_ns(),
        early => early,
    };
    // SAFETY: ignoring a signal has no handler that could run; no other thread exists.
    #[allow(unsafe_code)]
    unsafe {
        signal(SIGPIPE, SIG_IGN);
    }
    let waited = match begun.asked_at_ns {
        0 => Duration::ZERO,
        since => Duration::from_nanos(boot_clock_ns().saturating_sub(since)),
    };
    let argument = std::env::args_os().nth(1);
    let mut stdin = standard(0);
    let mut stdout = standard(1);
    // Nobody types a configuration, and who tries the plugin by hand must not be left hanging.
    let typed = stdin.is_terminal();
    let mut nothing = io::empty();
    let mut all = begun.config.chain(&mut *stdin);
    let status = run(&mut Surroundings {
        started_at_ns,
        argument: argument.as_deref(),
        environment: &|name| std::env::var_os(name),
        stdin: if typed { &mut nothing } else { &mut all },
        stdout: &mut *stdout,
        stderr: &mut io::stderr(),
        answer_wait: ANSWER_WAIT_MAX.saturating_sub(waited),
        sent: begun.sent,
    });
    c_int::from(status)
}

/// Now, in nanoseconds since boot, time asleep included.
///
/// The start of the process as the kernel knows it (`/proc/self/stat`, field 22) would be the
/// real thing, but it counts in ticks of 10 ms, in which a runtime can do a DEL *and* the next ADD
/// of the same attachment. This is later than the exec by a fraction of a millisecond.
fn boot_clock_ns() -> u64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: it writes one `timespec` to where one is.
    #[allow(unsafe_code)]
    let result = unsafe { clock_gettime(CLOCK_BOOTTIME, &raw mut time) };
    debug_assert_eq!(result, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

/// A standard stream as a plain file: std's own would split a result with newlines in it over two
/// writes, and takes a closed standard output for a success.
fn standard(fd: c_int) -> ManuallyDrop<File> {
    // SAFETY: never closed here (`ManuallyDrop`). If the caller left it closed, another file of
    // ours may get the number, but that is closed again before anything is printed.
    #[allow(unsafe_code)]
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}
