//! Watches: each lists the keys, follows their changes, and lists again after it may have missed
//! some.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Cluster;
use super::failure::chain;
use super::plain::plain;
use crate::core::txn::{Answer, Request, Span, Watched};
use crate::{limits, metrics};

/// Reports the keys under a prefix until the listener is gone.
pub(super) async fn report(cluster: Arc<Cluster>, prefix: String, to: mpsc::Sender<Watched>) {
    let mut pause = limits::WATCH_PAUSE_MIN;
    loop {
        let broken = tokio::select! {
            broken = follow(&cluster, &prefix, &to, &mut pause) => broken,
            () = to.closed() => return,
        };
        if to.is_closed() {
            return;
        }
        metrics::etcd_watch("failed");
        tracing::warn!("watching {prefix}: {broken}; listing again in {pause:?} or less");
        tokio::select! {
            () = sleep(jitter(pause)) => {}
            () = to.closed() => return,
        }
        pause = (pause * 2).min(limits::WATCH_PAUSE_MAX);
    }
}

/// A time between half of `time` and all of it, so that nodes that lost the same member do not all
/// come back at once.
fn jitter(time: Duration) -> Duration {
    let dice = u32::try_from(RandomState::new().hash_one(()) % 1024).unwrap_or_default();
    time / 2 + time / 2 * dice / 1024
}

/// Lists once, reports changes, and returns the reason for the end.
async fn follow(
    cluster: &Cluster,
    prefix: &str,
    to: &mpsc::Sender<Watched>,
    pause: &mut Duration,
) -> String {
    let all = Span::prefix(prefix, usize::MAX);
    let (first, past) = (cluster.prefix.whole(&all.first), cluster.prefix.whole(&all.past));
    let listed = match cluster.answer(Request::Read(vec![all])).await {
        Ok(Answer::Read(listed)) => listed,
        Ok(_) => return "no answer to a read".to_owned(),
        Err(error) => return error.to_string(),
    };
    // Usually the member that answered the listing; the stream has every change since.
    let (at, endpoint) = cluster.preferred();
    let next = i64::try_from(listed.revision.next().get()).unwrap_or(i64::MAX);
    let options = WatchOptions::new().with_range(past).with_start_revision(next);
    let open = endpoint.call(|client| {
        let (first, options) = (first.clone(), options.clone());
        let mut client =
            client.watch_client().max_decoding_message_size(limits::ETCD_ANSWER_BYTES_MAX);
        async move { client.watch(first, Some(options)).await }
    });
    let stream = match open.await {
        Ok(stream) => stream,
        Err(failure) => {
            cluster.avoid(at);
            return format!("{}: {}", endpoint.url, plain(&cluster.options, &failure));
        }
    };
    let keys = listed.spans.into_iter().flatten().collect();
    if to.send(Watched::Listed(keys)).await.is_err() {
        return "nobody listens".to_owned();
    }
    let broken = pass_on(cluster, stream, to, pause).await;
    cluster.avoid(at);
    format!("{}: {broken}", endpoint.url)
}

/// Passes changes on, and returns the reason for the end.
async fn pass_on(
    cluster: &Cluster,
    mut stream: WatchStream,
    to: &mpsc::Sender<Watched>,
    pause: &mut Duration,
) -> String {
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the stream ended".to_owned(),
            Err(error) => return chain(&error),
        };
        if message.compact_revision() != 0 {
            return format!("compacted up to revision {}", message.compact_revision());
        }
        if message.canceled() {
            return format!("cancelled: {}", message.cancel_reason());
        }
        if message.created() {
            metrics::etcd_watch("ok");
            *pause = limits::WATCH_PAUSE_MIN;
        }
        for event in message.events() {
            let Some(found) = event.kv() else { continue };
            let report = match event.event_type() {
                EventType::Put => match cluster.prefix.key_value(found) {
                    Ok(key) => Watched::Put(key),
                    Err(error) => return chain(&error),
                },
                EventType::Delete => Watched::Deleted(cluster.prefix.strip(found.key())),
            };
            if to.send(report).await.is_err() {
                return "nobody listens".to_owned();
            }
        }
    }
}
