//! The number of clients that are served at once, on the socket and over TCP.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits;

/// The number of clients that are served at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// On the socket.
    pub(super) socket: usize,
    /// Over TCP.
    pub(super) tcp: usize,
}

impl Room {
    /// Returns the room that so many open files give, beside everything else that the daemon has
    /// open.
    fn within(files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let left = files.saturating_sub(limits::FILES_KEPT).max(limits::CONNECTIONS_MIN);
        let tcp = limits::TCP_CONNECTIONS_MAX.min(left / 4);
        Self { socket: limits::CONNECTIONS_MAX.min(left - tcp), tcp }
    }

    /// Takes as many open files as the system gives this process.
    pub fn make() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, all) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = Self::within(files);
        if room.socket < limits::CONNECTIONS_FEW {
            tracing::warn!(
                files,
                on_the_socket = room.socket,
                over_tcp = room.tcp,
                "few clients are served at once: raise the hard limit of open files (LimitNOFILE)"
            );
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_files_for_everything_else() {
        let room = |files| {
            let Room { socket, tcp } = Room::within(files);
            (socket, tcp)
        };
        assert_eq!(room(u64::MAX), (limits::CONNECTIONS_MAX, limits::TCP_CONNECTIONS_MAX));
        assert_eq!(room(1_024), (384, 128));
        for files in [600, 1_024, 4_096, 20_000, 65_536] {
            let (socket, tcp) = room(files);
            assert!(socket + tcp + limits::FILES_KEPT <= files as usize, "{files}");
        }
        assert_eq!(room(0), (48, 16), "never none");
    }
}
