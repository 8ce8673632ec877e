//! Limits of the sweep, and of what it asks of the container runtime.

use std::time::Duration;

/// The shortest interval of a sweep, and the shortest grace time.
pub const SWEEP_MIN: Duration = Duration::from_secs(1);

/// The longest interval of a sweep, and the longest grace time.
pub const SWEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// The default interval of the sweep.
pub const SWEEP: Duration = Duration::from_secs(30);

/// The default time for which a network namespace must have been gone before a sweep releases its
/// addresses. A runtime that ends a container may delete its namespace before its DEL.
pub const SWEEP_GRACE: Duration = Duration::from_secs(120);

/// Looks of the sweep for each check that the daemon makes by itself: one in ten minutes.
pub const LOOKS_PER_CHECK: u32 = 20;

/// The longest time that an ADD which found every address taken waits for the sweep.
pub const SWEEP_WAIT_MAX: Duration = Duration::from_secs(5);

/// Attachments that one pass of a sweep releases.
pub const SWEPT_PER_PASS_MAX: usize = 1_000;

/// The default time for which the runtime must have known no pod of an id before its addresses are
/// released. kubelet gives a runtime four minutes to start a pod, and the runtime lists a pod only
/// some time after its ADD.
pub const CRI_GRACE: Duration = Duration::from_secs(600);

/// The longest time for one answer of the runtime.
pub const CRI_WAIT_MAX: Duration = Duration::from_secs(10);

/// The largest answer of the runtime, in bytes: a pod takes some kilobytes with its labels and
/// annotations.
pub const CRI_BYTES_MAX: usize = 64 << 20;
