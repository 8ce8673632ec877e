//! The actors: each turns a message into an input of its core machine and carries out the effects.
//!
//! | actor | owns | thread | sends to |
//! | --- | --- | --- | --- |
//! | [`coordinator::CoordinatorActor`] | `core::Coordinator` | socket | all others |
//! | [`range_set::RangeSetActor`], one per range set | `core::RangeSet` | socket | all others |
//! | [`leaseholder::LeaseholderActor`] | `core::Leaseholder` | socket | coordinator, the store |
//! | [`journal::JournalActor`] | the journal, or its thread with `fsync` | socket | nobody |
//!
//! All of them run on the thread that serves the socket: a message to another thread that sleeps
//! costs 60 microseconds, one on the same thread less than one. What waits for a disk or a network
//! runs elsewhere. The first three never wait for each other's answers: what one machine emits is
//! sent on in that order, and what comes of it is a message of its own. What the leaseholder says
//! to range sets goes through the coordinator, which knows which one it is for. How much is in
//! flight is bounded at the door ([`limits::CALLS_IN_FLIGHT_MAX`]), not by mailboxes: mailboxes
//! here are made larger than everything that can be in flight.
//!
//! [`limits::CALLS_IN_FLIGHT_MAX`]: crate::limits::CALLS_IN_FLIGHT_MAX

pub mod cluster;
pub mod coordinator;
pub mod index;
pub mod journal;
pub mod leaseholder;
pub mod range_set;
