//! The proof by simulation: many nodes of the real `core` against a model of etcd. Everything that
//! can go wrong does, and the rules of `docs/protocol.md` must hold.
//!
//! After each step: no address is held twice, nothing that was answered is lost. After the faults
//! end: every call has an answer and every address can be had. A seed decides everything, so one
//! that fails fails again: `LEASEHOLD_SEED=17 cargo test sim` runs it alone and prints its trace.

mod calls;
mod disk;
pub(crate) mod etcd;
mod faults;
mod forfeits;
mod inspect;
mod lives;
mod network;
mod node;
mod operators;
mod plan;
mod refusing;
mod stories;
mod tests;
mod trace_fmt;
mod usurper;
mod world;

/// Milliseconds of the simulated world, points in time and spans alike. Machines are told the time
/// as a [`BootTime`](crate::core::time::BootTime).
type Millis = u64;
