//! The length of etcd's history. etcd keeps every earlier value until somebody compacts, and
//! refuses all writes when its quota is used up. It tells no client which revisions were compacted,
//! but it refuses to read at one of them: so the oldest revision that is left can be found.

use std::time::Duration;

use etcd_client::{Client, Error, GetOptions};

use super::{Cluster, Etcd, kv};
use crate::core::time::BootTime;
use crate::core::txn::StoreError;
use crate::limits;

/// The revisions of etcd at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct History {
    /// The last one.
    pub revision: u64,
    /// The oldest one that can be read; 1: nothing was ever compacted.
    pub oldest: u64,
}

/// The answer to a read at some revision.
enum Read {
    /// It was answered when etcd was at this revision.
    At(u64),
    Compacted,
}

impl Etcd {
    /// Finds out how much history there is, in some twenty small reads. `oldest`: what it was last
    /// time, or 1.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn history(&self, oldest: u64) -> Result<History, StoreError> {
        let cluster = self.cluster.clone();
        let work = self.runtime.spawn(async move { cluster.history(oldest).await });
        work.await.map_err(|_| StoreError::Failed("etcd: its thread has ended".into()))?
    }
}

impl Cluster {
    async fn history(&self, oldest: u64) -> Result<History, StoreError> {
        let Read::At(revision) = self.read_at(0).await? else {
            return Err(StoreError::OddAnswer);
        };
        // All revisions from `high` on can be read, and none up to `low`.
        let (mut low, mut high) = (0, oldest.clamp(1, revision));
        if let Read::Compacted = self.read_at(high).await? {
            (low, high) = (high, revision);
        }
        while low > 0 && high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.read_at(middle).await? {
                Read::Compacted => low = middle,
                Read::At(_) => high = middle,
            }
        }
        Ok(History { revision, oldest: high })
    }

    /// Reads at a revision; 0: at the last one.
    async fn read_at(&self, revision: u64) -> Result<Read, StoreError> {
        let options = GetOptions::new().with_revision(i64::try_from(revision).unwrap_or(i64::MAX));
        let read = |client: Client| {
            let (key, options) = (self.prefix.whole("probe"), options.clone().with_count_only());
            async move {
                match kv(&client).get(key, Some(options)).await {
                    Ok(answer) => {
                        let at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                        Ok(Read::At(u64::try_from(at).unwrap_or_default()))
                    }
                    Err(Error::GRpcStatus(status)) if status.message().contains("compacted") => {
                        Ok(Read::Compacted)
                    }
                    Err(error) => Err(error),
                }
            }
        };
        self.ask(super::Again::Harmless, read).await
    }
}

/// The compactions that this daemon has seen.
#[derive(Default, Debug)]
pub struct Compaction {
    /// A revision that could be read, and when it was the last one.
    seen: Option<(BootTime, u64)>,
}

impl Compaction {
    /// Learns of the history at this time. Returns why it seems that nobody compacts, if it does.
    pub fn learn(&mut self, now: BootTime, history: History) -> Option<String> {
        let History { revision, oldest } = history;
        let since = match self.seen {
            Some((at, seen)) if oldest <= seen => now.since(at),
            _ => {
                self.seen = Some((now, revision));
                Duration::ZERO
            }
        };
        let grows = self.seen.is_some_and(|(_, seen)| revision - seen.min(revision) > 0);
        let kept = revision - oldest.min(revision);
        let long = since >= limits::HISTORY_AGE_MAX && grows;
        let never = oldest <= 1 && revision >= limits::HISTORY_REVISIONS_MAX;
        (long || never).then(|| {
            let since = match never {
                true => "it has never been compacted".to_owned(),
                false => format!("nothing was compacted for {} hours", since.as_secs() / 3600),
            };
            format!(
                "etcd keeps the history of {kept} revisions, and {since}: it grows until its quota \
                 is used up, and then refuses every write. Start etcd with \
                 --auto-compaction-mode=periodic --auto-compaction-retention=1h"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(compaction: &mut Compaction, hours: u64, revision: u64, oldest: u64) -> bool {
        let now = BootTime::BOOT + Duration::from_secs(hours * 3600);
        compaction.learn(now, History { revision, oldest }).is_some()
    }

    #[test]
    fn a_history_that_is_never_compacted_is_told_of_at_once() {
        let mut compaction = Compaction::default();
        assert!(!learn(&mut compaction, 0, limits::HISTORY_REVISIONS_MAX - 1, 1), "a new etcd");
        assert!(learn(&mut compaction, 0, limits::HISTORY_REVISIONS_MAX, 1));
        assert!(!learn(&mut compaction, 1, limits::HISTORY_REVISIONS_MAX, 2));
    }

    #[test]
    fn a_history_that_was_compacted_once_is_told_of_after_a_day() {
        let mut compaction = Compaction::default();
        for (hours, revision, oldest, told) in [
            (0, 900_000, 800_000, false),
            (23, 950_000, 800_000, false),
            (24, 950_001, 800_000, true),
            (25, 950_002, 900_001, false),
            (48, 990_000, 900_001, false),
            (49, 990_001, 900_001, true),
        ] {
            assert_eq!(learn(&mut compaction, hours, revision, oldest), told, "{hours} h");
        }
    }

    #[test]
    fn an_etcd_to_which_nobody_writes_needs_no_compaction() {
        let mut compaction = Compaction::default();
        assert!(!learn(&mut compaction, 0, 500, 400));
        assert!(!learn(&mut compaction, 100, 500, 400));
    }
}
