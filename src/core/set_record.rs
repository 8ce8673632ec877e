//! The identity of a range set, apart from its behaviour: its name and the addresses that it owns.

use std::sync::Arc;

use super::address::Family;

/// Names a range set of this node for as long as its journal lives.
pub type SetId = u32;

/// A range set as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetRecord {
    /// Its name.
    pub id: SetId,
    /// Its network.
    pub network: Arc<str>,
    /// Its family.
    pub family: Family,
    /// The usual size of its blocks, as the binary logarithm of the number of addresses.
    pub block_log2: u8,
    /// The addresses of all ranges that were ever routed to it, as first and last of each run.
    pub ranges: Vec<(u128, u128)>,
}
