//! The deciding half of Leasehold: which address goes to whom, and when.
//!
//! Everything here is pure: no IO, no clock, no randomness, no async, no logging, no serde. Inputs
//! carry the time (`now`, a [`time::BootTime`]) and the machines answer with effects that
//! somebody else carries out. So the same code runs under actors and under a simulator, and a test
//! (`tests/it/tidy`) keeps it so.

pub mod address;
pub mod attachment;
pub mod by_attachment;
pub mod cause;
pub mod container_id;
pub mod cooling;
pub mod coordinator;
pub mod ids;
pub mod interval;
pub mod inventory;
pub mod journal;
pub mod keys;
pub mod leaseholder;
pub mod mutant;
pub mod node;
pub mod offer;
pub mod operator;
pub mod range;
pub mod range_set;
pub mod search;
pub mod set_identity;
pub mod stage;
pub mod time;
pub mod txn;
pub mod value;

pub use inventory::block;

/// A hash map whose order and behaviour depend on nothing outside of it.
pub type Map<K, V> = std::collections::HashMap<
    K,
    V,
    std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>,
>;
