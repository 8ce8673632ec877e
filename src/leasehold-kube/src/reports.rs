//! Events on pods that got no address, on request (`--pod-events`).
//!
//! The kubelet says in an event of its own why it could not make a pod's sandbox, with the error of
//! the plugin in the middle of much else, and says it again with each try. The leader watches those
//! events. For a pod that Leasehold has no address for, it writes one with a reason that can be
//! searched for.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use tokio::time::{sleep, timeout};

use super::kubernetes::{Kubernetes, PodFailure};
use super::{limits, times};

/// The start of the plugin's error if no address is left. host-local has the same words.
const SHORTAGE: &str = "no IP addresses available in range set";
/// Words that only Leasehold's error has: each names a command as the remedy.
const OURS: &str = "leasehold ";

/// The part of the kubelet's message that says that Leasehold has no address.
pub(crate) fn shortage(message: &str) -> Option<&str> {
    let text = &message[message.find(SHORTAGE)?..];
    let end = text.char_indices().nth(limits::REPORT_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    text.contains(OURS).then(|| &text[..end])
}

/// The pods of which an event was written lately, by UID, with the time.
#[derive(Default, Debug)]
pub(crate) struct Reports(BTreeMap<String, Duration>);

impl Reports {
    /// True if an event is to be written about a pod now.
    pub(crate) fn admit(&mut self, pod: &str, now: Duration) -> bool {
        self.0.retain(|_, at| now < *at + limits::REPORT_AGAIN);
        if self.0.contains_key(pod) || self.0.len() >= limits::REPORTS_MAX {
            return false;
        }
        self.0.insert(pod.to_owned(), now);
        true
    }
}

/// Writes events until it is dropped.
pub(crate) async fn run(kubernetes: &Kubernetes, identity: &str, shortest: Duration) {
    let mut reports = Reports::default();
    let mut pause = shortest;
    loop {
        match round(kubernetes, identity, &mut reports).await {
            Ok(()) => pause = shortest,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "events are watched anew");
                pause = (pause * 2).min(limits::PAUSE_MAX);
            }
        }
        sleep(pause).await;
    }
}

/// One watch. Events from before it are not looked at: the kubelet repeats itself.
async fn round(
    kubernetes: &Kubernetes,
    identity: &str,
    reports: &mut Reports,
) -> anyhow::Result<()> {
    let mut failures = pin!(kubernetes.pod_failures().await?);
    loop {
        let failure = timeout(limits::WATCH_SILENCE_MAX, failures.next()).await;
        let Some(failure) = failure.context("the watch is silent")? else { return Ok(()) };
        let Some(of) = failure? else { continue };
        let Some(text) = shortage(&of.message) else { continue };
        if !reports.admit(&of.uid, times::up()) {
            continue;
        }
        let text = format!("Leasehold has no address for this pod: {text}");
        let written = kubernetes.report(&of, &text, identity).await;
        let PodFailure { namespace, pod, .. } = of;
        match written {
            Ok(()) => tracing::info!(namespace, pod, "an event says that it got no address"),
            Err(error) => tracing::warn!(namespace, pod, error = format!("{error:#}"), "no event"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shortage_of_leasehold_is_one() {
        let of = |error: &str| {
            format!(
                "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup \
                 network for sandbox \"ab\": plugin type=\"bridge\" failed (add): {error}"
            )
        };
        let ours = "no IP addresses available in range set: 10.9.0.1-10.9.0.254; network pods has \
                    253 addresses: add a range, or find what is not released: leasehold check, \
                    leasehold allocations";
        assert_eq!(shortage(&of(ours)), Some(ours));
        // That is host-local's.
        assert_eq!(
            shortage(&of("no IP addresses available in range set: 10.9.0.1-10.9.0.2")),
            None
        );
        assert_eq!(shortage(&of("try again; leasehold is restarting")), None);
        let long = of(&format!("{ours}{}", "ä".repeat(5000)));
        assert_eq!(shortage(&long).unwrap().chars().count(), limits::REPORT_CHARS_MAX);
    }

    #[test]
    fn the_words_are_those_of_the_daemon() {
        assert!(include_str!("../../words/call.rs").contains(SHORTAGE));
        let details = include_str!("../../api/shortage.rs");
        assert!(details.contains("leasehold check") && details.contains("leasehold node remove"));
    }

    #[test]
    fn a_pod_has_one_event_in_a_while_and_many_pods_have_a_bound() {
        let (mut reports, at) = (Reports::default(), Duration::from_secs);
        assert!(reports.admit("a", at(0)) && !reports.admit("a", at(1)));
        let again = limits::REPORT_AGAIN;
        assert!(!reports.admit("a", again - at(1)) && reports.admit("a", again));
        for pod in 1..limits::REPORTS_MAX {
            assert!(reports.admit(&pod.to_string(), again), "{pod}");
        }
        assert!(!reports.admit("one more", again) && reports.admit("one more", again * 2));
    }
}
