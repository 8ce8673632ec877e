//! Reads the file of `ipam.resolvConf`. Its path counts where the runtime lives, in the plugin's
//! working directory and mounts, as it does for host-local. The daemon may live elsewhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;

use crate::client::reason;
use crate::limits::RESOLV_CONF_BYTES_MAX;

/// Returns the key of the request that goes with the path, and its value: the text of the file, or
/// the reason why there is none. The daemon words the error, with all others.
pub(super) fn read(path: &str) -> (&'static str, String) {
    match text(path) {
        Ok(text) => ("resolvConf", text),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            // host-local's words, which are Go's.
            ("resolvConfError", "no such file or directory".to_owned())
        }
        Err(cause) => ("resolvConfError", reason(&cause)),
    }
}

/// It is usually a link, and host-local follows it. A pipe would hold the call up.
fn text(path: &str) -> io::Result<String> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(RESOLV_CONF_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > RESOLV_CONF_BYTES_MAX {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
