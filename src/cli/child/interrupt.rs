//! Notices Ctrl-C and the other signals that ask a program to end, so that it can end in order.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// Knows if this command was told to end. Clones share the answer.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Interrupt(Arc<(Mutex<bool>, Condvar)>);

impl Interrupt {
    /// Takes over the signals; from now on they do not end the process by themselves.
    pub(in crate::cli) fn watch() -> io::Result<Self> {
        let told = Self(Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(entered);
        let teller = told.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
            });
            *teller.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            teller.0.1.notify_all();
        })?;
        Ok(told)
    }

    /// True if a signal came.
    pub(in crate::cli) fn has_come(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a signal, but no longer than `limit`. True if one came.
    pub(in crate::cli) fn wait(&self, limit: Duration) -> bool {
        let told = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(told, limit, |told| !*told);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Fails once a signal came.
    pub(in crate::cli) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.has_come(), "interrupted");
        Ok(())
    }
}
