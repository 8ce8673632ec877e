//! Notices that PID 1 is another process than at the last start, in the same boot of the kernel: a
//! sign that the node is itself a container, and was started anew with all that ran in it. It may
//! as well be a daemon in a container of its own, so this is only told, never acted on.

use std::io;

use serde::{Deserialize, Serialize};

use super::boot;
use crate::api::netns;
use crate::config::{BootFrom, Config};
use crate::files;

/// The file in the state directory that remembers PID 1.
const FILE: &str = "pid-1.json";

/// The longest such file, in bytes.
const BYTES_MAX: u64 = 4096;

/// PID 1 at the last start.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
struct InitProcess {
    /// The kernel's boot.
    kernel: String,
    /// The start of PID 1, in ticks since then.
    start: u64,
}

/// Remembers PID 1, and returns what to tell the operator if it is another one than at the last
/// start. The boot in the configuration must still be the kernel's.
pub(super) fn inspect(config: &Config) -> Option<String> {
    // On the host itself, PID 1 ends with the boot. A daemon that is PID 1 is in a container of its
    // own.
    let tells = config.boot_from == BootFrom::Kernel
        && !netns::sees_every_process()
        && std::process::id() != 1;
    if !tells {
        return None;
    }
    let now = InitProcess { kernel: config.boot_id.clone(), start: boot::start_of_init().ok()? };
    let path = config.state_dir.join(FILE);
    let before = files::read(&path, BYTES_MAX).ok();
    let before = before.and_then(|text| serde_json::from_slice::<InitProcess>(&text).ok());
    if before.as_ref() == Some(&now) {
        return None;
    }
    let text = serde_json::to_vec(&now).map_err(io::Error::other);
    if let Err(error) = text.and_then(|text| files::replace(&path, &text)) {
        tracing::warn!(file = %path.display(), %error, "cannot be written");
    }
    before.filter(|before| before.kernel == now.kernel).map(|_| {
        "PID 1 is another process than when this daemon started last, and the kernel is the same: \
         if this node is itself a container (kind, k3d, LXD), all that ran in it has ended, and \
         the sweep releases it after its grace: bootFrom = \"init\" releases it at once. If only \
         the daemon is in a container of its own, leave that out: containers of the host live on"
            .to_owned()
    })
}
