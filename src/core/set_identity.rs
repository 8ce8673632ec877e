//! The identity of a range set, apart from its behaviour: its name and the addresses that it owns.

use std::fmt;
use std::sync::Arc;

use super::address::{AddressRange, BlockSize, Family};

/// Names a range set of this node for as long as its journal lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct SetId(u32);

impl SetId {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// Returns the range set with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns its number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Returns the one after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range set as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetIdentity {
    /// Its name.
    pub id: SetId,
    /// Its network.
    pub network: Arc<str>,
    /// Its family.
    pub family: Family,
    /// The usual size of its blocks.
    pub block_size: BlockSize,
    /// The addresses of all ranges that were ever routed to it.
    pub ranges: Vec<AddressRange>,
}
