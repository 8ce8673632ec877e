//! Leaving in order, and what a driver must know beside the effects.

use super::join::JoinPhase;
use super::{Leaseholder, Pending};
use crate::core::time::BootTime;
use crate::core::txn::Request;

impl Leaseholder {
    /// Writes the records that wait, without regard to their period.
    pub fn flush(&mut self, now: BootTime) {
        self.records.hurry();
        self.link(now);
    }

    /// Ends the node's presence: its lease, and with it its session and its spares. Nothing is
    /// done afterwards.
    pub fn leave(&mut self, now: BootTime) {
        self.heartbeat_at = None;
        self.reclaim_at = None;
        self.left = true;
        if let Some(lease) = self.lease.take() {
            self.request(now, Pending::Aside, Request::Revoke(lease));
        }
    }

    /// Returns whether another daemon took this node's name, for good.
    pub fn is_fenced(&self) -> bool {
        matches!(self.phase, JoinPhase::Fenced(_))
    }
}
