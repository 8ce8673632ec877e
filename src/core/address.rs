//! Addresses as numbers, and the CIDR-aligned runs of them that nodes hold.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Returns `ipv4` or `ipv6`: the word in keys, labels and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Reads the word that [`Family::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "ipv4" => Some(Self::V4),
            "ipv6" => Some(Self::V6),
            _ => None,
        }
    }

    /// Returns the address with this number; bits above the family's width are dropped.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            #[allow(clippy::cast_possible_truncation)]
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns an address as a number, to be read together with its family.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A CIDR-aligned run of `2^size_log2` addresses of one family: what a block covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr {
    /// The first address.
    pub start: u128,
    /// The binary logarithm of the number of addresses.
    pub size_log2: u8,
}

impl Cidr {
    /// Returns the aligned run of that size around an address.
    pub fn containing(number: u128, size_log2: u8) -> Self {
        Self { start: number & !mask(size_log2), size_log2 }
    }

    /// Returns the last address.
    pub fn end(self) -> u128 {
        self.start | mask(self.size_log2)
    }

    /// Returns the number of its addresses, which are fewer than 2^128.
    pub fn size(self) -> u128 {
        1 << self.size_log2
    }

    /// Returns whether the address is in the run.
    pub fn contains(self, number: u128) -> bool {
        number & !mask(self.size_log2) == self.start
    }

    /// Returns the run in CIDR form, such as `10.1.2.8/29`.
    pub fn net(self, family: Family) -> IpNet {
        let prefix = family.bits().saturating_sub(self.size_log2);
        IpNet::new_assert(family.address(self.start), prefix)
    }

    /// Returns the run that a CIDR covers, host bits dropped.
    pub fn of(net: IpNet) -> Self {
        Self { start: number(net.network()), size_log2: net.max_prefix_len() - net.prefix_len() }
    }
}

/// Returns a mask of the low `bits` bits; all bits from 128 up.
fn mask(bits: u8) -> u128 {
    1u128.checked_shl(u32::from(bits)).map_or(u128::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_aligned_and_reads_as_cidr() {
        let cidr = Cidr::containing(number("10.1.2.13".parse().unwrap()), 3);
        assert_eq!(cidr.net(Family::V4).to_string(), "10.1.2.8/29");
        assert_eq!(cidr.end() - cidr.start, 7);
        assert!(cidr.contains(cidr.end()) && !cidr.contains(cidr.end() + 1));
        assert_eq!(Cidr::of(cidr.net(Family::V4)), cidr);
    }

    #[test]
    fn the_whole_of_ipv6_is_a_run_too() {
        let cidr = Cidr::containing(5, 128);
        assert_eq!((cidr.start, cidr.end()), (0, u128::MAX));
        assert_eq!(cidr.net(Family::V6).to_string(), "::/0");
    }
}
