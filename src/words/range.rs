//! Ranges that are refused, in host-local's words where it has some.

use std::error::Error;
use std::fmt;

use crate::core::range::{ListedWrongly, RangeError};

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall(net) => write!(f, "Network {net} too small to allocate from"),
            Self::HostBits { len, net } => write!(
                f,
                "Network has host bits set. For a subnet mask of length {len} the network address \
                 is {net}"
            ),
            Self::Start(start, net) => write!(f, "RangeStart {start} not in network {net}"),
            Self::StartAtBroadcast(start, net) => write!(
                f,
                "RangeStart {start} is the broadcast address of {net}: no address is left after it"
            ),
            Self::End(end, net) => write!(f, "RangeEnd {end} not in network {net}"),
            Self::Listed { stage, address, why } => {
                write!(f, "{stage} lists {address}, which {why}")
            }
            Self::NothingLeft(range) => write!(f, "exclude leaves no address of {range}"),
            Self::Empty => f.write_str("empty range set"),
            Self::Mixed => f.write_str("mixed address families"),
            Self::Overlap(a, b) => write!(f, "subnets {a} and {b} overlap"),
        }
    }
}

impl Error for RangeError {}

impl fmt::Display for ListedWrongly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "is outside the range",
            Self::Gateway => "is the range's gateway",
            Self::Twice => "is listed twice",
            Self::Excluded => "is excluded",
            Self::Reserved => "is reserved",
        })
    }
}
