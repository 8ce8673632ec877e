//! The shell around the election: it reads and writes the Lease at each renewal.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::election::{Election, Step};
use super::kubernetes::{Kubernetes, WriteError};
use super::limits::Timing;
use super::times;

/// The time until which this instance leads, as others of the program see it.
#[derive(Clone)]
pub(crate) struct Leadership(watch::Receiver<Option<Duration>>);

impl Leadership {
    /// True if this instance still leads after some time.
    pub(crate) fn lasts(&self, time: Duration) -> bool {
        self.0.borrow().is_some_and(|until| times::up() + time < until)
    }

    /// Waits until this instance leads.
    pub(crate) async fn begins(&mut self) {
        while !self.lasts(Duration::ZERO) {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this instance leads no longer.
    pub(crate) async fn ends(&mut self) {
        loop {
            let until = *self.0.borrow_and_update();
            let Some(left) = until.and_then(|until| until.checked_sub(times::up())) else { return };
            // A renewal comes before that.
            let _ = timeout(left, self.0.changed()).await;
        }
    }
}

/// The part of the program that takes and renews the Lease.
pub(crate) struct Candidate {
    kubernetes: Kubernetes,
    election: Election,
    timing: Timing,
    until: watch::Sender<Option<Duration>>,
    /// The last failure that the log has.
    said: String,
}

impl Candidate {
    /// A candidate, and its leadership.
    pub(crate) fn new(
        kubernetes: Kubernetes,
        identity: String,
        timing: Timing,
    ) -> (Self, Leadership) {
        let (until, leadership) = watch::channel(None);
        let election = Election::new(identity, timing.lease);
        let said = String::new();
        (Self { kubernetes, election, timing, until, said }, Leadership(leadership))
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(&mut self) {
        let mut renewals = tokio::time::interval(self.timing.renew);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            renewals.tick().await;
            let led = self.until.borrow().is_some();
            let round = timeout(self.timing.renew, self.round()).await;
            let failure = match round {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "the API server does not answer in time".to_owned(),
            };
            if failure != self.said && !failure.is_empty() {
                tracing::warn!(error = failure, "the Lease could not be read or written");
            }
            self.said = failure;
            // A Lease that could not be renewed is kept until it ends.
            let until = self.election.held_until().filter(|until| times::up() < *until);
            self.until.send_replace(until);
            match (led, until.is_some()) {
                (false, true) => tracing::info!(identity = self.election.identity(), "leads"),
                (true, false) => tracing::warn!("leads no longer"),
                _ => {}
            }
        }
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let lease = self.kubernetes.lease().await?;
        let step = self.election.decide(lease.as_ref(), times::up());
        // The election may have ended: nobody acts while the next write is on its way.
        self.until.send_replace(self.election.held_until());
        let (version, transitions) = match step {
            Step::Wait => return Ok(()),
            Step::Create => (None, 0),
            Step::Write { version, transitions } => (Some(version), transitions),
        };
        let sent = times::up();
        let identity = self.election.identity();
        let write = self.kubernetes.write_lease(
            version.as_deref(),
            identity,
            self.timing.lease,
            transitions,
        );
        match write.await {
            Ok(()) => self.election.written(sent),
            Err(WriteError::Conflict) => self.election.refused(),
            Err(WriteError::Other(error)) => return Err(error),
        }
        Ok(())
    }

    /// Gives the Lease up, if this instance has it, so that another one leads at once.
    pub(crate) async fn resign(&mut self) {
        self.until.send_replace(None);
        let given_up = timeout(self.timing.renew, async {
            let lease = self.kubernetes.lease().await.ok().flatten()?;
            if lease.holder != self.election.identity() {
                return None;
            }
            let version = Some(lease.version.as_str());
            let write =
                self.kubernetes.write_lease(version, "", self.timing.lease, lease.transitions);
            write.await.ok()
        });
        if let Ok(Some(())) = given_up.await {
            tracing::info!("gave the Lease up");
        }
    }
}
