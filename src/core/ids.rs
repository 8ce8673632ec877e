//! Names of things that are numbers, as types that cannot be mixed up.

use std::fmt;
use std::num::NonZeroI64;

/// An etcd lease. There is no lease 0: `Option<LeaseId>` is a lease or none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseId(NonZeroI64);

impl LeaseId {
    /// The lease with this number; nothing, if it is not a positive one.
    pub fn new(number: i64) -> Option<Self> {
        NonZeroI64::new(number).filter(|number| number.is_positive()).map(Self)
    }

    /// Its number, which is positive.
    pub fn get(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As `etcdctl lease list` prints it.
impl fmt::LowerHex for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0.get(), f)
    }
}
