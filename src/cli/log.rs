//! The log: lines on stderr, none of them more often than once a minute. What is left out is
//! counted, and the next line of its kind says how often it was.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::metrics;

/// The shortest time between two lines that say the same.
const PERIOD: Duration = Duration::from_secs(60);

/// The number of messages that are remembered. Beyond it, messages that were not left out lately
/// are forgotten.
const MESSAGES_MAX: usize = 1_000;

/// The time at which each message was last written, and the number of times that it was left out
/// since.
type Said = HashMap<u64, (Instant, u64)>;

/// Leaves out a message that was written within the last minute. At debug it writes all of them,
/// because debug is for tracing single calls.
pub(super) struct Limited<F> {
    inner: F,
    said: Mutex<Said>,
}

impl<F> Limited<F> {
    /// Has lines written in this form.
    pub(super) fn new(inner: F) -> Self {
        Self { inner, said: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if *event.metadata().level() > Level::INFO {
            return self.inner.format_event(context, writer, event);
        }
        let times = match self.said.lock() {
            Ok(mut said) => count(&mut said, key(event), Instant::now()),
            Err(_) => Some(0), // a panic elsewhere: better too much than nothing
        };
        match times {
            None => {
                metrics::log_line_left_out();
                Ok(())
            }
            Some(0) => self.inner.format_event(context, writer, event),
            Some(times) => {
                let mut line = String::new();
                self.inner.format_event(context, Writer::new(&mut line), event)?;
                match line.trim_end().strip_suffix('}') {
                    Some(json) if json.starts_with('{') => {
                        writeln!(writer, "{json},\"leftOut\":{times}}}")
                    }
                    _ => writeln!(writer, "{} (and {times} times more since)", line.trim_end()),
                }
            }
        }
    }
}

/// Decides whether to write a message: returns the number of times that it was left out before, or
/// nothing if it is left out.
fn count(said: &mut Said, key: u64, now: Instant) -> Option<u64> {
    if said.len() >= MESSAGES_MAX {
        said.retain(|_, (at, _)| now.duration_since(*at) < PERIOD);
    }
    if said.len() >= MESSAGES_MAX && !said.contains_key(&key) {
        return Some(0);
    }
    let (at, times) = said.entry(key).or_insert((now, 0));
    if *at != now && now.duration_since(*at) < PERIOD {
        *times += 1;
        return None;
    }
    *at = now;
    Some(std::mem::take(times))
}

/// The fields of a line about a call that tell it from others that meet the same: they make no
/// other message.
const OF_ONE_CALL: [&str; 2] = ["call", "container"];

/// Returns a hash of what a message says, and of where it is in the code.
fn key(event: &Event<'_>) -> u64 {
    let is_of_call = event.metadata().fields().field("call").is_some();
    let mut hashed = Hashed { hasher: DefaultHasher::new(), is_of_call };
    event.metadata().callsite().hash(&mut hashed.hasher);
    event.record(&mut hashed);
    hashed.hasher.finish()
}

struct Hashed {
    hasher: DefaultHasher,
    is_of_call: bool,
}

impl Visit for Hashed {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.is_of_call && OF_ONE_CALL.contains(&field.name()) {
            return;
        }
        field.name().hash(&mut self.hasher);
        format!("{value:?}").hash(&mut self.hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_within_a_minute_is_counted_and_then_said_with_the_count() {
        let (mut said, began) = (Said::new(), Instant::now());
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert_eq!(count(&mut said, 1, began), Some(0));
        assert_eq!(count(&mut said, 2, at(1)), Some(0), "another message");
        for second in 1..60 {
            assert_eq!(count(&mut said, 1, at(second)), None);
        }
        assert_eq!(count(&mut said, 1, at(60)), Some(59));
        assert_eq!(count(&mut said, 1, at(200)), Some(0), "nothing was left out");
    }

    #[test]
    fn the_memory_of_messages_is_bounded() {
        let (mut said, began) = (Said::new(), Instant::now());
        for message in 0..10 * MESSAGES_MAX as u64 {
            assert_eq!(count(&mut said, message, began), Some(0));
        }
        assert_eq!(said.len(), MESSAGES_MAX);
        let later = began + PERIOD;
        assert_eq!(count(&mut said, u64::MAX, later), Some(0));
        assert_eq!(said.len(), 1);
    }
}
