//! The file of `resolvConf`. The plugin reads it, since its path counts where the runtime lives.
//! The daemon opens only what the plugin cannot know: the path in an object that is kept centrally.

use std::io;
use std::path::Path;

use crate::cni::error::{Code, Error};
use crate::cni::resolv::{self, Dns, ResolvConf};
use crate::{files, limits};

/// Returns what the file says, as host-local reads it.
///
/// # Errors
/// [`Code::Config`]: the file cannot be read, by the plugin or, if that did not look, by the
/// daemon.
pub(super) async fn read(file: &ResolvConf) -> Result<Dns, Error> {
    let path = &*file.path;
    match &file.content {
        Some(Ok(text)) => Ok(resolv::parse(text)),
        Some(Err(cause)) => Err(cannot_open(path, cause)),
        None => {
            let text = own(path).await.map_err(|error| match error.kind() {
                // host-local's words, which are Go's.
                io::ErrorKind::NotFound => cannot_open(path, "no such file or directory"),
                _ => cannot_open(path, &error.to_string()),
            })?;
            Ok(resolv::parse(&String::from_utf8_lossy(&text)))
        }
    }
}

async fn own(path: &Path) -> io::Result<Vec<u8>> {
    if !path.is_absolute() {
        let why = "the daemon reads it for a central object, and takes only a path that begins \
                   with /";
        return Err(io::Error::other(why));
    }
    let path = path.to_owned();
    let max = limits::RESOLV_CONF_BYTES_MAX as u64;
    let read = tokio::task::spawn_blocking(move || files::read_foreign(&path, max));
    read.await.map_err(io::Error::other)?
}

fn cannot_open(path: &Path, cause: &str) -> Error {
    let msg = format!("open {}: {cause}", path.display());
    Error::new(Code::Config, msg).with_details("ipam.resolvConf: name a readable file")
}
