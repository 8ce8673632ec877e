//! The election of one instance by a Lease of Kubernetes, without a clock and without IO.
//!
//! Every instance reads the Lease at each renewal. The one that it names renews it. Another one
//! takes it once it has not changed for its whole duration, by the clock of the one that looks: no
//! time in the Lease is compared with a clock. The API server carries out a write only if the
//! Lease has not changed since it was read, so two instances cannot both take it.

use std::time::Duration;

use super::limits;

/// The part of a Lease that matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LeaseState {
    /// The version of the object, which changes with each write.
    pub(crate) version: String,
    /// The identity of the instance that leads; empty if it gave that up.
    pub(crate) holder: String,
    /// The time after a write for which nobody else may take it.
    pub(crate) duration: Duration,
    /// The number of times that the holder has changed.
    pub(crate) transitions: i32,
}

/// The next write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// There is no Lease: make it.
    Create,
    /// The Lease is ours, or may be taken: write it over the version that was read.
    Write {
        /// The version that was read.
        version: String,
        /// The number of changes of the holder that is written.
        transitions: i32,
    },
    /// Another instance leads.
    Wait,
}

/// The state of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    identity: String,
    duration: Duration,
    /// The version that was read last, and when it was first seen.
    observed: Option<(String, Duration)>,
    /// The time until which nobody else can take the Lease.
    held_until: Option<Duration>,
}

impl Election {
    /// An instance that does not lead.
    pub(crate) fn new(identity: String, duration: Duration) -> Self {
        Self { identity, duration, observed: None, held_until: None }
    }

    /// The name that this instance writes into the Lease.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// The time until which this instance leads, if it does.
    pub(crate) fn held_until(&self) -> Option<Duration> {
        self.held_until
    }

    /// Decides what to write. `now`: a time after the Lease was read.
    pub(crate) fn decide(&mut self, lease: Option<&LeaseState>, now: Duration) -> Step {
        let Some(lease) = lease else {
            (self.observed, self.held_until) = (None, None);
            return Step::Create;
        };
        let since = match &self.observed {
            Some((version, since)) if *version == lease.version => *since,
            _ => {
                self.observed = Some((lease.version.clone(), now));
                now
            }
        };
        let version = lease.version.clone();
        if lease.holder == self.identity {
            return Step::Write { version, transitions: lease.transitions };
        }
        self.held_until = None;
        let duration = lease.duration.min(limits::LEASE_MAX);
        if lease.holder.is_empty() || now >= since + duration {
            return Step::Write { version, transitions: lease.transitions.saturating_add(1) };
        }
        Step::Wait
    }

    /// The API server carried out a write that was sent at this time.
    pub(crate) fn written(&mut self, sent: Duration) {
        // Others count from when they see it, which is later.
        self.held_until = Some(sent + self.duration);
    }

    /// The write was refused: another instance was faster.
    pub(crate) fn refused(&mut self) {
        self.held_until = None;
    }
}

#[cfg(test)]
mod tests;
