//! The plugin's words about itself.

use std::borrow::Cow;
use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::fmt::Write;

use serde_json::Value;

use super::peek::Peek;

/// The versions of the CNI specification that Leasehold speaks, oldest first.
pub const VERSIONS_SUPPORTED: [&str; 7] =
    ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The C library that this program has in it, as target triples name it.
const LIBRARY: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };

/// For somebody who runs it by hand, without `CNI_COMMAND`.
pub(super) const TEXT: &str = concat!(
    "my-ipam ",
    env!("CARGO_PKG_VERSION"),
    ": the CNI IPAM plugin of Leasehold\n",
    "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n",
);

const HELP: &str = concat!(
    "my-ipam ",
    env!("CARGO_PKG_VERSION"),
    ": the CNI IPAM plugin of Leasehold

A container runtime runs it; put it into the runtime's CNI directory (/opt/cni/bin) and name it
in a network configuration: \"ipam\": {\"type\": \"my-ipam\", ...}. It passes each call to the
daemon of the node (leasehold serve) and prints the daemon's answer.

Environment: CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION), CNI_CONTAINERID, CNI_NETNS,
CNI_IFNAME, CNI_ARGS, CNI_PATH. Standard input: the network configuration.
The daemon's socket: \"socket\" in \"ipam\", else LEASEHOLD_SOCKET, else
/run/leasehold/leasehold.sock. An ADD waits up to 10 seconds for a daemon that does not listen
yet: \"waitSeconds\" in \"ipam\", else LEASEHOLD_WAIT_SECONDS.

CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0
",
);

/// The text for a command line argument. Others are ignored, as host-local does.
pub(super) fn argument(argument: &OsStr) -> Option<Cow<'static, str>> {
    match argument.to_str() {
        Some("--help" | "-h") => Some(HELP.into()),
        Some("--version" | "-V") => {
            let version = env!("CARGO_PKG_VERSION");
            Some(format!("my-ipam {version}, {ARCH}-unknown-linux-{LIBRARY}\n").into())
        }
        _ => None,
    }
}

/// The answer to VERSION: one line; the specification wants the caller's `cniVersion` echoed.
pub(super) fn version(peek: &Peek) -> String {
    let mut line =
        format!("{{\"cniVersion\":{},\"supportedVersions\":[", Value::from(peek.version()));
    for (index, version) in VERSIONS_SUPPORTED.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(line, "{comma}\"{version}\"");
    }
    line.push_str("]}\n");
    line
}
