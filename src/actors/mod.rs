//! The actors: each is the mailbox and the timer of one machine of the node
//! ([`crate::core::node`]).
//!
//! | actor | machine | thread |
//! | --- | --- | --- |
//! | [`Host`]`<CoordinatorMachine>` | every call of the node | socket |
//! | [`Host`]`<RangeSetMachine>`, one for each range set | addresses and blocks | socket |
//! | [`Host`]`<LeaseholderMachine>` | the node in the cluster | socket |
//! | [`Host`]`<JournalMachine>` | the journal's order | socket; with `fsync`, the disk has one |
//!
//! An actor decides nothing: it hands messages to its machine and the machine's outputs to
//! [`Wires`], in order. All of them run on the thread that serves the socket: a message to another
//! thread that sleeps costs 60 microseconds, one on the same thread less than one. Work that waits
//! for a disk or a network runs elsewhere, and its result is a message. No actor waits for another
//! one's answer. The coordinator bounds the calls in flight ([`limits::CALLS_IN_FLIGHT_MAX`]), and
//! so all that can be in a mailbox.
//!
//! [`limits::CALLS_IN_FLIGHT_MAX`]: crate::limits::CALLS_IN_FLIGHT_MAX

mod handle;
mod host;
mod index;
mod journal;
mod wires;

use std::io;
use std::sync::Arc;

use actix::{AsyncContext as _, Context};
use tokio::sync::watch;

use crate::core::node::{Booted, CoordinatorMachine, JournalMachine, LeaseholderMachine, Standing};
use crate::events::Recent;
use crate::journal::Journal;
use crate::store::ClusterStore;
use crate::{limits, metrics};

pub use handle::{BlockFigures, Description, NodeHandle, WAITED};
pub use host::Host;
#[cfg(test)]
pub(crate) use index::tests::filled as filled_index;
pub use index::{HeldAddress, Index};
use journal::Disk;
use wires::Readers;
pub use wires::Wires;

/// A node whose actors run.
pub struct Running {
    /// The handle with which it is called and asked.
    pub handle: NodeHandle,
    /// Its standing in the cluster.
    pub standing: watch::Receiver<Standing>,
    /// The holdings, for readers.
    pub index: Arc<Index>,
}

/// Starts the actors of a node on the current thread. `fsync`: commits wait for the disk, so they
/// are made on a thread of their own.
///
/// # Errors
/// The journal's thread cannot be started.
pub fn start(
    booted: Booted,
    journal: Journal,
    fsync: bool,
    store: Arc<dyn ClusterStore>,
    recent: Arc<Recent>,
) -> io::Result<Running> {
    let Booted { coordinator, leaseholder, .. } = booted;
    let index = Arc::new(Index::new(coordinator.held().all().cloned()));
    // Each of these knows the others.
    let for_coordinator = Context::<Host<CoordinatorMachine>>::new();
    let for_leaseholder = Context::<Host<LeaseholderMachine>>::new();
    let for_journal = Context::<Host<JournalMachine>>::new();
    let handle = NodeHandle::new(
        for_coordinator.address(),
        for_leaseholder.address(),
        for_journal.address(),
    );
    let shown = Readers { index: index.clone(), recent };
    let disk = Disk::new(journal, fsync, for_journal.address())?;
    let wires = Wires::new(handle.clone(), disk, store, shown);
    let machine = JournalMachine::new(limits::COMMITS_PER_GROUP_MAX);
    for_journal.run(Host::new(machine, wires.clone(), ()));
    let (sender, standing) = watch::channel(Standing::default());
    let shown = (sender, metrics::Leaseholder::new());
    for_coordinator.run(Host::new(coordinator, wires.clone(), ()));
    for_leaseholder.run(Host::new(leaseholder, wires, shown));
    Ok(Running { handle, standing, index })
}
