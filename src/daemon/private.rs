//! Protection against other users: private files, no core dumps, and the policy of the TCP
//! listener.

use anyhow::Context as _;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

use crate::api::guard::Guard;
use crate::config::Config;
use crate::{files, limits};

/// Nothing that this process writes is for others, and it leaves no copy of its memory, in which
/// passwords and keys are.
pub(super) fn keep_private() {
    umask(Mode::RWXG | Mode::RWXO);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
}

/// The token of the TCP listener.
///
/// # Errors
/// The file cannot be read, or has no token that a client could send.
pub fn token(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(path) = &config.listen_token_file else { return Ok(None) };
    let named = || format!("listenTokenFile: {}", path.display());
    if let Some(unwise) = files::check_secret(path).with_context(named)? {
        tracing::warn!("listenTokenFile: {unwise}");
    }
    let text = files::read_foreign(path, limits::TOKEN_BYTES_MAX).with_context(named)?;
    let token = String::from_utf8_lossy(&text).trim_end_matches(['\r', '\n']).to_owned();
    let good = token.bytes().all(|byte| byte.is_ascii_graphic());
    anyhow::ensure!(
        good && token.len() >= limits::TOKEN_BYTES_MIN,
        "{}: write a token of {} characters or more into it, without spaces (openssl rand -hex 32)",
        named(),
        limits::TOKEN_BYTES_MIN
    );
    Ok(Some(token))
}

/// The policy of the TCP listener.
///
/// # Errors
/// The file with the token cannot be used; the error names it.
pub(super) fn guard(config: &Config) -> anyhow::Result<Guard> {
    let token = token(config)?;
    let mut hosts = config.listen_hosts.clone();
    hosts.push(config.node.clone());
    let (socket, details) = (config.socket.as_path().into(), config.listen_details);
    Ok(Guard { socket, details, token, hosts })
}
