//! The first instruction, and system calls without the C library (Linux, x86-64).

use core::arch::{asm, naked_asm};

/// The file descriptors that a process is given.
pub(crate) const STDIN: usize = 0;
pub(crate) const STDOUT: usize = 1;
pub(crate) const STDERR: usize = 2;

const READ: usize = 0;
const WRITE: usize = 1;
const CLOSE: usize = 3;
const RT_SIGACTION: usize = 13;
const IOCTL: usize = 16;
const WRITEV: usize = 20;
const SOCKET: usize = 41;
const CONNECT: usize = 42;
const SETSOCKOPT: usize = 54;
const CLOCK_GETTIME: usize = 228;
const EXIT_GROUP: usize = 231;

const AF_UNIX: u16 = 1;
const SOCK_STREAM_CLOEXEC: usize = 0o2_000_001;
const SOL_SOCKET: usize = 1;
const SO_RCVTIMEO: usize = 20;
const SO_SNDTIMEO: usize = 21;
const TCGETS: usize = 0x5401;
const SIGPIPE: usize = 13;
const SIG_IGN: usize = 1;
const CLOCK_BOOTTIME: usize = 7;

/// `struct sockaddr_un`; the path ends in a zero byte.
#[repr(C)]
pub(crate) struct Address {
    family: u16,
    path: [u8; 108],
}

impl Address {
    /// All zero, which is no address yet.
    pub(crate) const NONE: Self = Self { family: 0, path: [0; 108] };

    /// Makes it that of a path; false if it has no room for it.
    pub(crate) fn set(&mut self, path: &[u8]) -> bool {
        self.family = AF_UNIX;
        match self.path.get_mut(..path.len()) {
            Some(room) if !path.is_empty() && path.len() < size_of::<[u8; 108]>() => {
                room.copy_from_slice(path);
                true
            }
            _ => false,
        }
    }
}

/// `struct iovec`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Part {
    start: *const u8,
    bytes: usize,
}

impl Part {
    pub(crate) const EMPTY: Self = Self { start: core::ptr::null(), bytes: 0 };

    pub(crate) fn of(text: &[u8]) -> Self {
        Self { start: text.as_ptr(), bytes: text.len() }
    }
}

#[allow(unsafe_code)]
unsafe extern "C" {
    /// Of the C library.
    fn _start() -> !;
}

/// Where the kernel, or the dynamic linker, begins (`.cargo/build.rs`). The C library gets stack
/// and registers as they were, should it come to that.
///
/// # Safety
/// Not to be called.
#[allow(unsafe_code)]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn my_ipam_start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        "mov r12, rsp",
        "mov r13, rdx",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {attempt}",
        "mov rsp, r12",
        "mov rdx, r13",
        "jmp {start}",
        attempt = sym super::early::attempt,
        start = sym _start,
    )
}

/// One system call: its result, or less than zero an error's number.
#[allow(unsafe_code)]
fn call(number: usize, of: [usize; 5]) -> isize {
    let result;
    // SAFETY: every caller below passes what the kernel's interface wants, and what pointers point
    // to lives through the call.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") of[0],
            in("rsi") of[1],
            in("rdx") of[2],
            in("r10") of[3],
            in("r8") of[4],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

pub(crate) fn read(fd: usize, into: &mut [u8]) -> isize {
    call(READ, [fd, into.as_mut_ptr() as usize, into.len(), 0, 0])
}

pub(crate) fn write(fd: usize, text: &[u8]) -> isize {
    call(WRITE, [fd, text.as_ptr() as usize, text.len(), 0, 0])
}

pub(crate) fn write_all_at_once(fd: usize, parts: &[Part]) -> isize {
    call(WRITEV, [fd, parts.as_ptr() as usize, parts.len(), 0, 0])
}

pub(crate) fn close(fd: usize) {
    call(CLOSE, [fd, 0, 0, 0, 0]);
}

pub(crate) fn exit(status: usize) {
    call(EXIT_GROUP, [status, 0, 0, 0, 0]);
}

/// Makes writing to what is closed an error, not the end of the process.
pub(crate) fn ignore_sigpipe() {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask.
    let action = [SIG_IGN, 0, 0, 0];
    call(RT_SIGACTION, [SIGPIPE, action.as_ptr() as usize, 0, 8, 0]);
}

pub(crate) fn is_terminal(fd: usize) -> bool {
    // `struct termios` of the kernel has 36 bytes.
    let mut settings = [0usize; 8];
    call(IOCTL, [fd, TCGETS, settings.as_mut_ptr() as usize, 0, 0]) == 0
}

/// Now, in nanoseconds since boot, time asleep included.
pub(crate) fn boot_clock_ns() -> u64 {
    let mut time = [0u64; 2];
    call(CLOCK_GETTIME, [CLOCK_BOOTTIME, time.as_mut_ptr() as usize, 0, 0, 0]);
    time[0] * 1_000_000_000 + time[1]
}

/// A stream socket on which nothing waits for longer than so many seconds; less than zero: none.
pub(crate) fn socket(seconds: u64) -> isize {
    let fd = call(SOCKET, [usize::from(AF_UNIX), SOCK_STREAM_CLOEXEC, 0, 0, 0]);
    if fd >= 0 {
        // `struct timeval`.
        let time = [seconds, 0];
        for option in [SO_SNDTIMEO, SO_RCVTIMEO] {
            let time = time.as_ptr() as usize;
            call(SETSOCKOPT, [fd.cast_unsigned(), SOL_SOCKET, option, time, 16]);
        }
    }
    fd
}

pub(crate) fn connect(fd: usize, to: &Address) -> isize {
    call(CONNECT, [fd, core::ptr::from_ref(to) as usize, size_of::<Address>(), 0, 0])
}
