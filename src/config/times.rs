//! Times in options, and their bounds.

use std::time::Duration;

use crate::limits;

/// Parses a time as people write it, within limits.
pub(super) fn between(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let show = humantime::format_duration;
    if duration < min {
        return Err(format!("it must be at least {}", show(min)));
    }
    if duration > max {
        return Err(format!("it must be at most {}", show(max)));
    }
    Ok(duration)
}

pub(super) fn cooldown(text: &str) -> Result<Duration, String> {
    between(text, Duration::ZERO, limits::COOLDOWN_MAX)
}

pub(super) fn lease_ttl(text: &str) -> Result<Duration, String> {
    let ttl = between(text, limits::LEASE_TTL_MIN, limits::LEASE_TTL_MAX)?;
    // etcd counts in seconds.
    if ttl.subsec_nanos() == 0 { Ok(ttl) } else { Err("it must be in whole seconds".to_owned()) }
}

pub(super) fn offline_limit(text: &str) -> Result<Duration, String> {
    between(text, limits::OFFLINE_LIMIT_MIN, limits::OFFLINE_LIMIT_MAX)
}

pub(super) fn forget_after(text: &str) -> Result<Duration, String> {
    between(text, limits::FORGET_AFTER_MIN, limits::FORGET_AFTER_MAX)
}

pub(super) fn history_age(text: &str) -> Result<Duration, String> {
    between(text, limits::PAST_AGE_MIN, limits::PAST_AGE_MAX)
}

pub(super) fn sweep_every(text: &str) -> Result<Duration, String> {
    let every = between(text, Duration::ZERO, limits::SWEEP_MAX)?;
    if every.is_zero() { Ok(every) } else { sweep(text) }
}

pub(super) fn sweep(text: &str) -> Result<Duration, String> {
    between(text, limits::SWEEP_MIN, limits::SWEEP_MAX)
}

/// Parses a time from the file.
pub(super) fn parse(
    field: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<Duration, String>,
) -> Result<Option<Duration>, String> {
    text.map(parse).transpose().map_err(|error| format!("{field}: {error}"))
}
