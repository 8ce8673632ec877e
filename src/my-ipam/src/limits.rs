//! The limits of the plugin and of the client, by name; the daemon shares some of them. Past a
//! limit there is a typed error, never a hang.

use std::time::Duration;

/// Largest request body on the socket, in bytes. A configuration is about 1 KiB, a CNI GC of a
/// full node (250 pods) about 30 KiB, an array of 64 calls about 64 KiB.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// Largest standard input that the plugin reads, in bytes: what the daemon would take, less room
/// for the envelope.
pub const STDIN_BYTES_MAX: usize = BODY_BYTES_MAX - (1 << 20);

/// Largest standard input of a DEL, in bytes: of one that is larger than what the daemon takes, the
/// plugin sends the name alone.
pub const DEL_STDIN_BYTES_MAX: usize = 64 << 20;

/// Largest `resolv.conf`, in bytes. A usual one has less than 1 KiB.
pub const RESOLV_CONF_BYTES_MAX: usize = 1 << 20;

/// The time that the plugin waits for the daemon's answer to one call. Longer than any wait inside
/// the daemon, shorter than the minute that runtimes give to a DEL.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(50);

/// The time that an ADD waits for a daemon that does not listen yet, unless it is told otherwise. A
/// restart of the daemon takes less than a second; a boot, a few.
pub const DAEMON_WAIT: Duration = Duration::from_secs(10);

/// The longest such wait that may be asked for: what is left of [`ANSWER_WAIT_MAX`] suffices for an
/// answer. containerd and CRI-O give a whole sandbox two minutes or more.
pub const DAEMON_WAIT_MAX: Duration = Duration::from_secs(40);

/// The pause between two attempts to reach it.
pub const DAEMON_LOOK: Duration = Duration::from_millis(50);

/// Largest answer that the plugin and the commands read from the daemon, in bytes, head included.
/// A listing of 60,000 allocations at 200 bytes each is 12 MB.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Largest head (status line and headers) of an answer, in bytes. The daemon's is about 100.
pub const ANSWER_HEAD_BYTES_MAX: usize = 16 << 10;

/// Notes (DELs that no daemon took) that may wait in one directory. A node churning 20 containers
/// a second fills it in about an hour without its daemon; a note is about 2 KiB.
pub const NOTES_MAX: usize = 65_536;
