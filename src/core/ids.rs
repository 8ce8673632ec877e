//! Names of things that are numbers, as types that cannot be mixed up.

use std::fmt;
use std::num::{NonZeroI64, NonZeroU64};

use super::time::UnixTime;

/// An etcd lease. There is no lease 0: `Option<LeaseId>` is a lease or none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseId(NonZeroI64);

impl LeaseId {
    /// Returns the lease with this number; nothing, if it is not a positive one.
    pub fn new(number: i64) -> Option<Self> {
        NonZeroI64::new(number).filter(|number| number.is_positive()).map(Self)
    }

    /// Returns its number, which is positive.
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

/// Declares the type of a number that counts from 1. There is no 0, so `Option` of it is as small
/// as the number, and none is none.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The first one.
            pub const FIRST: Self = Self(NonZeroU64::MIN);

            /// Returns the one with this number; none, if that is 0.
            pub fn new(number: u64) -> Option<Self> {
                NonZeroU64::new(number).map(Self)
            }

            /// Returns its number, which is not 0.
            pub fn get(self) -> u64 {
                self.0.get()
            }

            /// Returns the one after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Declares the type of a count that begins at 0 and only rises: two of them say which came first.
macro_rules! count {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(u64);

        impl $name {
            /// Returns the count after one more.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
    };
}

count! {
    /// The number of times that the node's lease was lost since the daemon started: spares of an
    /// earlier lease are gone.
    LeaseLosses
}

count! {
    /// The number of messages of the coordinator that a range set was sent, or has handled.
    MessageCount
}

count! {
    /// The number of range sets of a node that have become part of others, or are about to.
    MergeCount
}

/// The number of a question to another node: a part of its key. A daemon counts on from the time at
/// which it started, so that no later daemon of the node uses one again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuestionNumber(u64);

impl QuestionNumber {
    /// Returns the one with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the first one of a daemon that started at this time.
    pub fn first_of(since: UnixTime) -> Self {
        Self(since.as_millis())
    }

    /// Returns the one after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for QuestionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number! {
    /// An order to the leaseholder whose end somebody waits for.
    OrderId
}

number! {
    /// A call to the coordinator, which is answered under this number.
    CallId
}

number! {
    /// An operation of the coordinator: what its commits, its assignments and the records that it
    /// waits for belong to.
    OperationId
}

number! {
    /// A request to the store, which is answered under this number.
    RequestId
}

number! {
    /// A revision of the store: it rises with every transaction that writes, and goes back only
    /// when the store is restored from a backup. That of a key is the one of its last write; a key
    /// that does not exist has none.
    Revision
}

impl Revision {
    /// One that no key ever has.
    pub const NEVER: Self = Self(NonZeroU64::MAX);
}

number! {
    /// A link of a node's chain: a transaction that changes who holds a block, by its place in the
    /// chain. `Option<Link>` is how far a chain has come; none: nothing is in it yet.
    Link
}

impl Link {
    /// Returns the link that comes after those up to this one.
    pub fn after(reached: Option<Self>) -> Self {
        reached.map_or(Self::FIRST, Self::next)
    }
}

/// The sequence number of a holding on its node. A repeated ADD makes it a new one, so that it
/// names what one ADD was answered with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// The first one that a node gives.
    pub const FIRST: Self = Self(1);

    /// Returns the one with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the one after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// Returns the one so many after this one; the last one there is, if that would be later.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number! {
    /// The count of the starts of a node's daemon, and of the removals of the node. What has an
    /// older epoch than the node's key has no say.
    Epoch
}
