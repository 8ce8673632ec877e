//! Named points at which a debug build can be made to end on the spot, so that tests see what a
//! crash at just that moment leaves behind. `LEASEHOLD_ABORT_AT=after-commit:3` ends the process
//! when it passes that point for the third time. In a release build no point does anything.

/// A point that the process passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A group of commits is about to be written to the journal.
    BeforeCommit,
    /// It is written, and nobody was told.
    AfterCommit,
    /// The answer to a call is ready, and nothing of it was sent.
    BeforeAnswer,
    /// The answer to an ADD that made a holding was sent.
    AfterAnswer,
    /// The store has carried a transaction out, and the node does not know it yet.
    TransactionDone,
    /// The store has taken this daemon as the node, which does not know it yet.
    Joining,
    /// Records were read, from which a node that forgot learns what it holds.
    Remembering,
    /// The daemon stops: before calls are finished, after that, and when the socket is closed.
    Stopping,
}

#[cfg(debug_assertions)]
pub use armed::{arm, pass};

/// Does nothing.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn pass(_: Point) {}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Point;

    /// The variable that names a point and says how often it is passed.
    const VARIABLE: &str = "LEASEHOLD_ABORT_AT";
    /// All points, by their names.
    const NAMES: [(&str, Point); 8] = [
        ("before-commit", Point::BeforeCommit),
        ("after-commit", Point::AfterCommit),
        ("before-answer", Point::BeforeAnswer),
        ("after-answer", Point::AfterAnswer),
        ("transaction-done", Point::TransactionDone),
        ("joining", Point::Joining),
        ("remembering", Point::Remembering),
        ("stopping", Point::Stopping),
    ];

    /// The point at which the process ends, and how often it is still passed until then.
    static END: OnceLock<(Point, AtomicU32)> = OnceLock::new();

    /// Reads from the environment where the process is to end.
    ///
    /// # Errors
    /// The variable names no point, or no number.
    pub fn arm() -> anyhow::Result<()> {
        let Some(asked) = std::env::var(VARIABLE).ok().filter(|asked| !asked.is_empty()) else {
            return Ok(());
        };
        let (name, times) = asked.split_once(':').unwrap_or((&asked, "1"));
        let point = NAMES.iter().find(|(of, _)| *of == name).map(|(_, point)| *point);
        let times = times.parse().ok().filter(|times| *times > 0);
        let (Some(point), Some(times)) = (point, times) else {
            let names = NAMES.map(|(name, _)| name).join(", ");
            anyhow::bail!("{VARIABLE}={asked}: not NAME:TIMES with a name out of {names}");
        };
        tracing::warn!("this daemon ends at {asked}: for tests only");
        let _ = END.set((point, AtomicU32::new(times)));
        Ok(())
    }

    /// Passes a point, or ends there.
    pub fn pass(point: Point) {
        if let Some((at, left)) = END.get()
            && *at == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}
