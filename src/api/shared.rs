//! Does a piece of work once for all callers who ask for it at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock;
use crate::core::time::StartTime;

/// The result of the last piece of work, and the time at which it began.
#[derive(Debug)]
pub(super) struct Shared<T>(Arc<Mutex<Option<Last<T>>>>);

type Last<T> = (StartTime, Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Shared<T> {
    /// Returns the result of work that began after this call, or at most `age` before it. If many
    /// callers wait at once, one of them does the work once for all of them.
    pub(super) async fn get(&self, age: Duration, work: impl Future<Output = T>) -> Arc<T> {
        let asked = clock::start();
        let mut last = self.0.lock().await;
        if let Some((began, result)) = &*last
            && (*began > asked || asked.since(*began) < age)
        {
            return result.clone();
        }
        let began = clock::start();
        let result = Arc::new(work.await);
        *last = Some((began, result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_same_work_gets_the_same_result() {
        let (shared, runs) = (Shared::default(), AtomicUsize::new(0));
        let ask = |age| {
            shared.get(age, async {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        let fresh = || ask(Duration::ZERO);
        let all = tokio::join!(fresh(), fresh(), fresh(), fresh(), fresh());
        // The first caller's work has begun when the others ask, so they wait for the next one.
        assert_eq!((*all.0, [*all.1, *all.2, *all.3, *all.4]), (1, [2; 4]));
        assert_eq!(*fresh().await, 3, "nobody asked at the same time");
        assert_eq!(*ask(Duration::from_secs(3600)).await, 3, "old enough for this one");
    }

    #[tokio::test]
    async fn the_next_one_does_the_work_of_one_who_went_away() {
        let shared = Shared::default();
        let never = shared.get(Duration::ZERO, std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(10), never).await.is_err());
        assert_eq!(*shared.get(Duration::ZERO, async { 7 }).await, 7);
    }
}
