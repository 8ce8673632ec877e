//! The actors: each turns a message into an input of its core machine and carries out the effects.
//!
//! | actor | owns | thread | sends to |
//! | --- | --- | --- | --- |
//! | [`coordinator::CoordinatorActor`] | `core::Coordinator` | socket | range sets, journal |
//! | [`range_set::RangeSetActor`], one per range set | `core::RangeSet` | socket | leaseholder |
//! | [`journal::JournalActor`] | the journal, or its thread with `fsync` | socket | nobody |
//! | [`leaseholder::Leaseholder`] | who this node is to the store | socket | the store |
//!
//! All of them run on the thread that serves the socket: a message to another thread that sleeps
//! costs 60 microseconds, one on the same thread less than one. What waits for a disk or a network
//! runs elsewhere. Messages go down this table only, so no actor waits for one that may wait for
//! it. How much is in flight is bounded at the door ([`limits::CALLS_IN_FLIGHT_MAX`]), not by
//! mailboxes: mailboxes here are made larger than everything that can be in flight.
//!
//! [`limits::CALLS_IN_FLIGHT_MAX`]: crate::limits::CALLS_IN_FLIGHT_MAX

pub mod coordinator;
pub mod index;
pub mod journal;
pub mod leaseholder;
pub mod range_set;
