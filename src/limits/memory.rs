//! Limits of the memory that the daemon keeps for what comes next.

/// The growth of the resident memory, in bytes, after which free memory is given back: less than
/// the daemon needs at rest.
pub const MEMORY_GROWN: u64 = 4 << 20;

/// The looks at which memory is given back, counted since it has grown; there is one at each
/// housekeeping. The last one is after two and a half minutes, when also the DELs of a burst are
/// forgotten.
pub const MEMORY_LOOKS: [u32; 5] = [1, 3, 9, 18, 30];

/// The first of them at which a daemon gives memory back that has much to do.
pub const MEMORY_LOOKS_BUSY: u32 = 9;

/// A daemon has much to do if it takes more than this part of a processor.
pub const QUIET_SHARE: u32 = 5;

/// The room of a table, in entries, from which on it shrinks when three quarters of it are empty.
pub const ROOM_KEPT: usize = 1_024;
