//! Names of things that are numbers.

/// An etcd lease. Never 0.
pub type LeaseId = i64;
