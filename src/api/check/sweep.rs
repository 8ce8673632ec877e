//! The sweep: releases, now and then, what attachments hold whose network namespace is gone, or
//! whose pod the container runtime does not know; and before an ADD is told that every address is
//! taken. An operator may turn it off; the look at namespaces is always taken, for the figures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::gc::{self, GcOutcome};
use super::namespaces::{self, NamespaceScan};
use super::pods::Pods;
use crate::api::{AppState, Phase};
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::ids::Sequence;
use crate::core::time::BootTime;
use crate::cri::Cri;
use crate::{clock, limits, metrics};

/// The options of a daemon's sweep.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The time from one look to the next.
    pub every: Duration,
    /// The time for which a namespace must have been gone.
    pub grace: Duration,
    /// The container runtime, if it is asked for its pods, and the time for which it must not have
    /// known one.
    pub cri: Option<(Cri, Duration)>,
}

/// The things that a look may not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unseen {
    Namespaces,
    Pods,
}

/// Asks the sweep for a pass out of turn.
#[derive(Clone, Debug)]
pub struct Sweeps {
    wanted: Arc<Notify>,
    /// The number of attachments that were released so far, told after each pass; nothing: the
    /// sweep is off.
    released: Arc<watch::Sender<Option<u64>>>,
    /// The things that the last look could not see, in sentences.
    blind: Arc<Mutex<Vec<(Unseen, String)>>>,
}

impl Default for Sweeps {
    fn default() -> Self {
        let released = Arc::new(watch::Sender::new(None));
        Self { wanted: Arc::default(), released, blind: Arc::default() }
    }
}

impl Sweeps {
    /// Says what the sweep cannot see, and so does not release.
    pub fn blind(&self) -> Vec<String> {
        let blind = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        blind.iter().map(|(_, why)| why.clone()).collect()
    }

    /// Has a pass done, unless the last one was a moment ago. Returns whether anything was
    /// released.
    pub async fn pass(&self) -> bool {
        let mut told = self.released.subscribe();
        let Some(before) = *told.borrow_and_update() else { return false };
        self.wanted.notify_one();
        let told = tokio::time::timeout(limits::SWEEP_WAIT_MAX, told.changed()).await;
        told.is_ok() && self.released.borrow().is_some_and(|now| now > before)
    }
}

/// The attachments that lack their namespace, or their pod, and the time since which each look has
/// found that, on the boot clock.
#[derive(Default, Debug)]
struct Waiting(BTreeMap<(AttachmentId, Sequence), BootTime>);

impl Waiting {
    /// Takes what is gone now; gives what was gone `grace` ago too, and at every look since.
    fn due(
        &mut self,
        now: BootTime,
        gone: impl Iterator<Item = (AttachmentId, Sequence)>,
        grace: Duration,
    ) -> Vec<(AttachmentId, Sequence)> {
        let before = std::mem::take(&mut self.0);
        self.0 = gone.map(|of| (before.get(&of).copied().unwrap_or(now), of)).map(flip).collect();
        let seen_before = |since: BootTime| since < now && since + grace <= now;
        let due = self.0.iter().filter(|&(_, &since)| seen_before(since));
        due.map(|(of, _)| of.clone()).take(limits::SWEPT_PER_PASS_MAX).collect()
    }
}

fn flip<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// Looks, and releases if it is to sweep, until the daemon stops.
pub async fn run(node: AppState, sweep: Option<Sweep>) {
    let mut last: Option<BootTime> = None;
    let Sweeps { wanted, released, blind } = node.sweeps.clone();
    let every = sweep.as_ref().map_or(limits::NAMESPACES_LOOK, |sweep| sweep.every);
    released.send_replace(sweep.as_ref().map(|_| 0));
    let mut sweeper = sweep.map(Sweeper::new);
    let mut looks = 0;
    loop {
        let _ = tokio::time::timeout(every, wanted.notified()).await;
        match *node.phase.borrow() {
            Phase::Starting => continue,
            Phase::Serving => {}
            Phase::Stopping => return,
        }
        let mut count = 0;
        if last.is_none_or(|last| clock::boot().since(last) >= limits::SWEEP_MIN) {
            let scan = namespaces::inspect(&node).await;
            if let Some(sweeper) = &mut sweeper {
                let unseen;
                (count, unseen) = sweeper.pass(&node, &scan).await;
                say(unseen, &mut blind.lock().unwrap_or_else(PoisonError::into_inner));
            }
            last = Some(clock::boot());
            looks += 1;
            if looks % limits::LOOKS_PER_CHECK == 0 {
                node.lists.keep_doing(super::check_own(node.clone()));
            }
        }
        released.send_modify(|released| *released = released.map(|released| released + count));
    }
}

/// The state of a sweep that is on.
struct Sweeper {
    grace: Duration,
    without_namespace: Waiting,
    pods: Option<(Pods, Duration)>,
    without_pod: Waiting,
}

impl Sweeper {
    fn new(sweep: Sweep) -> Self {
        let pods = sweep.cri.map(|(cri, grace)| (Pods::new(cri), grace));
        let (without_namespace, without_pod) = (Waiting::default(), Waiting::default());
        Self { grace: sweep.grace, without_namespace, pods, without_pod }
    }

    /// Releases what has been gone for long enough. Returns how many attachments that was, and
    /// what could not be seen.
    async fn pass(
        &mut self,
        node: &AppState,
        scan: &NamespaceScan,
    ) -> (u64, Vec<(Unseen, String)>) {
        let mut unseen = Vec::new();
        if scan.is_blind() {
            let unjudged = scan.unjudged().into_iter();
            let said = |why| (Unseen::Namespaces, format!("nothing is swept there: {why}"));
            unseen.extend(unjudged.map(said));
        }
        let due = self.without_namespace.due(clock::boot(), scan.gone().map(of), self.grace);
        let mut count = release(node, due, "its network namespace is gone").await;
        if let Some((pods, grace)) = &mut self.pods {
            let gone = pods.gone(node).await.unwrap_or_else(|why| {
                unseen.push((Unseen::Pods, why));
                Vec::new()
            });
            let due = self.without_pod.due(clock::boot(), gone.iter().map(of), *grace);
            count += release(node, due, "the container runtime does not know its pod").await;
        }
        (count, unseen)
    }
}

fn of(holding: &Arc<Holding>) -> (AttachmentId, Sequence) {
    (holding.id(), holding.sequence)
}

/// Releases what these attachments hold. Returns how many of them held something.
async fn release(node: &AppState, due: Vec<(AttachmentId, Sequence)>, why: &str) -> u64 {
    let mut count = 0;
    for (id, sequence) in due {
        let swept = gc::end(node, id.clone(), sequence).await;
        let network = &*id.network;
        let container = &*id.container_id.to_text();
        match swept.outcome {
            GcOutcome::Released => {
                count += 1;
                metrics::swept("released");
                tracing::warn!(
                    network,
                    container,
                    sequence = sequence.get(),
                    "{why} and no DEL came: its addresses are released"
                );
            }
            GcOutcome::Failed => {
                metrics::swept("failed");
                let reason = swept.reason.unwrap_or_default();
                tracing::warn!(network, container, sequence = sequence.get(), reason, "not swept");
            }
            _ => metrics::swept("skipped"),
        }
    }
    count
}

/// Says, when it begins, that something cannot be seen, and so is not swept.
fn say(unseen: Vec<(Unseen, String)>, blind: &mut Vec<(Unseen, String)>) {
    let is_new = |(what, _): &&(Unseen, String)| blind.iter().all(|(known, _)| known != what);
    unseen.iter().filter(is_new).for_each(|(_, why)| tracing::error!("{why}"));
    *blind = unseen;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(container: &str, sequence: u64) -> (AttachmentId, Sequence) {
        let (network, ifname) = ("n".into(), "eth0".into());
        (AttachmentId { network, container_id: container.into(), ifname }, Sequence::new(sequence))
    }

    #[test]
    fn what_is_gone_is_due_after_its_grace_if_it_was_gone_at_each_look() {
        let mut waiting = Waiting::default();
        let (a, b, a_again) = (of("a", 1), of("b", 2), of("a", 3));
        let mut look = |now, gone: &[&(AttachmentId, Sequence)], grace| {
            let (now, grace) = (BootTime::from_millis(now), Duration::from_millis(grace));
            waiting.due(now, gone.iter().map(|&of| of.clone()), grace)
        };
        assert_eq!(look(1_000, &[&a, &b], 500), []);
        assert_eq!(look(1_400, &[&a, &b], 500), [], "its grace is not over");
        assert_eq!(look(1_450, &[&a], 500), []);
        assert_eq!(look(1_500, &[&a, &b], 500), [a], "b was there in between");
        assert_eq!(look(2_000, &[&a_again], 500), [], "another holding has a grace of its own");
        // One look alone is never enough.
        assert_eq!(look(3_000, &[&b], 0), []);
        assert_eq!(look(3_001, &[&b], 0), [b]);
    }
}
