//! One node: its machines, what they tell each other, and what must be durable first.
//!
//! A node is a coordinator, one range set for each pool of addresses that it uses, a leaseholder,
//! and a journal. Each is a [`Machine`]: messages go in, [`Output`]s come out, in
//! order. The daemon runs each machine behind the mailbox of an actor (`src/actors`), the simulator
//! behind a mailbox that it serves in any order (`src/sim`); both carry out the same outputs, and
//! neither decides anything.
//!
//! ```text
//!   call                                               store's answers, watch reports
//!     |                                                         |
//!     v               Assign, Release ...                       v
//!  CoordinatorMachine ------------------> RangeSetMachine   LeaseholderMachine
//!     |      ^    ^   <------------------   |                |  ^     |
//!     |      |    |        Assigned         | Commit, then   |  |     +--> store
//!     |      |    +-------------------------+--- Place ------+--+
//!     |      |      Cluster (all that the leaseholder says)  |
//!     |      +-----------------------------------------------+
//!     | Commit, then Committed
//!     v
//!  JournalMachine --> disk
//! ```
//!
//! **Order.** A message is in its receiver's mailbox before the sender's next output is carried
//! out, and a mailbox is served in order. Nothing else is promised: the mailboxes of two machines
//! are served in any order.
//!
//! **Durability is a value.** A message that must wait for the journal travels inside the
//! [`Commit`] for which it waits ([`After`]); [`JournalMachine`] lets it go when the entries are
//! durable, and turns it into its failure when they are not (rules 12 to 15).

mod boot;
mod cluster;
mod cluster_facts;
mod coordinator;
mod forget;
mod journal;
mod leaseholder;
mod message;
mod range_set;
mod serving;

pub use boot::{BootOptions, Booted, boot};
pub use coordinator::CoordinatorMachine;
pub use journal::JournalMachine;
pub use leaseholder::{Figures, LeaseholderMachine, Standing};
pub use message::{
    After, Commit, Event, Group, Machine, Message, OrderContext, OrderOrigin, Output, SearchEnd,
    ToCoordinator, ToJournal, ToLeaseholder, ToRangeSet,
};
pub use range_set::RangeSetMachine;
pub use serving::{Unable, Unready, first_full};
