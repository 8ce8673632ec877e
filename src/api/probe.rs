//! The daemon looks at itself from outside: a request on its own socket, as a plugin makes one. It
//! proves that the socket's file is there, that its thread accepts and answers, and that the
//! machines behind it work.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::limits;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: leasehold\r\nConnection: close\r\n\r\n";

/// Asks for `/healthz` on the socket.
///
/// # Errors
/// There is no good answer in time; the text says which socket, and why.
pub async fn socket(path: &Path) -> Result<(), String> {
    let named = |why: String| format!("the socket {} is not served: {why}", path.display());
    let text = match tokio::time::timeout(limits::HEALTH_WAIT_MAX * 2, ask(path)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(named(error.to_string())),
        Err(_) => return Err(named("it does not answer in time".to_owned())),
    };
    if text.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(text.split_once("\r\n\r\n").map_or_else(|| named(text.clone()), |(_, why)| why.to_owned()))
}

async fn ask(path: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.take(limits::PROBE_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
