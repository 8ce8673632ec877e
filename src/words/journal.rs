//! Failures of the journal.

use std::error::Error;
use std::fmt;

use crate::core::coordinator::RebuildError;
use crate::core::journal::JournalFailure;

impl fmt::Display for JournalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(said) => f.write_str(said),
            Self::Closed => f.write_str("the journal is closed"),
        }
    }
}

impl fmt::Display for RebuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSet(address, container, network) => write!(
                f,
                "the journal has {address} of container {container} in no range set of network \
                 {network}"
            ),
            Self::NoBlock(address, network) => {
                write!(f, "the journal has {address} on network {network}, and no block around it")
            }
        }
    }
}

impl Error for RebuildError {}
