//! Addresses, ranges of them, and the cidrs that nodes hold. They are types of their
//! own, so that none of them passes for a count, a size or a pair of anything else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::limits;

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

    /// Returns the address of this family with that number; bits above the family's width are
    /// dropped.
    pub fn address(self, address: Address) -> IpAddr {
        match self {
            #[allow(clippy::cast_possible_truncation)]
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(address.0 as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(address.0)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address as a number, to be read together with its family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Address(u128);

impl Address {
    /// The first one there is, in each family.
    pub const FIRST: Self = Self(0);

    /// The last one there is in IPv6; no IPv4 address comes after it either.
    pub const LAST: Self = Self(u128::MAX);

    /// Returns the one with this number.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// Returns an address without its family.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(u128::from(v4.to_bits())),
            IpAddr::V6(v6) => Self(v6.to_bits()),
        }
    }

    /// Returns its number.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Returns the address after this one; none after the last one.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Returns the address before this one; none before the first one.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// Returns the address so many after this one; the last one there is, if that would be later.
    #[must_use]
    pub fn plus(self, count: u128) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Returns the number of addresses from `first` up to this one, without this one; 0, if this
    /// one is not later.
    pub fn since(self, first: Self) -> u128 {
        self.0.saturating_sub(first.0)
    }
}

/// Writes the number as an IPv4 address if it fits into one, else as an IPv6 address: for logs and
/// tests.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.0 <= u128::from(u32::MAX) { Family::V4 } else { Family::V6 };
        fmt::Display::fmt(&family.address(*self), f)
    }
}

/// Addresses of one family from the first to the last: at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: Address,
    last: Address,
}

impl AddressRange {
    /// Every address.
    pub const ALL: Self = Self { first: Address::FIRST, last: Address::LAST };

    /// Returns the addresses from `first` to `last`; none, if the last one comes before the first.
    pub fn new(first: Address, last: Address) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Returns the two addresses and all between them, in either order.
    pub fn between(a: Address, b: Address) -> Self {
        Self { first: a.min(b), last: a.max(b) }
    }

    /// Returns the range of one address.
    pub const fn one(address: Address) -> Self {
        Self { first: address, last: address }
    }

    /// Returns the first address.
    pub const fn first(self) -> Address {
        self.first
    }

    /// Returns the last address.
    pub const fn last(self) -> Address {
        self.last
    }

    /// Returns the number of addresses; as many as a number can say for all of IPv6, which has one
    /// more.
    pub fn count(self) -> u128 {
        self.last.since(self.first).saturating_add(1)
    }

    /// Returns whether the address is in the range.
    pub fn contains(self, address: Address) -> bool {
        self.first <= address && address <= self.last
    }

    /// Returns whether the two have an address in common.
    pub fn meets(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Returns the addresses that the two have in common.
    pub fn common(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Returns the range with all of the first and of the last block that it has a part of.
    pub fn whole_blocks(self, size: BlockSize) -> Self {
        Self {
            first: Cidr::containing(self.first, size).first(),
            last: Cidr::containing(self.last, size).last(),
        }
    }

    /// Returns the addresses, in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Address> {
        (self.first.0..=self.last.0).map(Address)
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}", self.first, self.last)
    }
}

/// The size of a block, or of a part of one: a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct BlockSize(u8);

impl BlockSize {
    /// One address.
    pub const ONE: Self = Self(0);

    /// The largest block: see [`limits::BLOCK_LOG2_MAX`].
    pub const MAX: Self = Self(limits::BLOCK_LOG2_MAX);

    /// Returns the size of `2^log2` addresses.
    pub const fn of_log2(log2: u8) -> Self {
        Self(log2)
    }

    /// Returns the size of what has a prefix of that many bits; none, if the family has fewer.
    pub fn of_prefix(family: Family, bits: u8) -> Option<Self> {
        family.bits().checked_sub(bits).map(Self)
    }

    /// Returns the binary logarithm of the number of addresses.
    pub const fn log2(self) -> u8 {
        self.0
    }

    /// Returns the number of bits of the prefix that the addresses have in common.
    pub fn prefix(self, family: Family) -> u8 {
        family.bits().saturating_sub(self.0)
    }

    /// Returns the number of addresses; as many as a number can say for all of IPv6.
    pub fn addresses(self) -> u128 {
        1u128.checked_shl(u32::from(self.0)).unwrap_or(u128::MAX)
    }

    /// Returns half of this size; none for one address.
    pub fn half(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// Returns this size and all smaller ones, the largest first.
    pub fn and_smaller(self) -> impl Iterator<Item = Self> {
        (0..=self.0).rev().map(Self)
    }

    /// Returns a mask of the bits that differ within a block of this size.
    fn mask(self) -> u128 {
        1u128.checked_shl(u32::from(self.0)).map_or(u128::MAX, |bit| bit - 1)
    }
}

/// A CIDR-aligned run of addresses of one family, as many as a power of two: what a block covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr {
    first: Address,
    size: BlockSize,
}

impl Cidr {
    /// Returns the cidr of that size around an address.
    pub fn containing(address: Address, size: BlockSize) -> Self {
        Self { first: Address(address.0 & !size.mask()), size }
    }

    /// Returns the cidr of one address.
    pub fn one(address: Address) -> Self {
        Self { first: address, size: BlockSize::ONE }
    }

    /// Returns the first address.
    pub const fn first(self) -> Address {
        self.first
    }

    /// Returns the last address.
    pub fn last(self) -> Address {
        Address(self.first.0 | self.size.mask())
    }

    /// Returns the number of addresses as a power of two.
    pub const fn size(self) -> BlockSize {
        self.size
    }

    /// Returns the addresses as a range.
    pub fn range(self) -> AddressRange {
        AddressRange { first: self.first, last: self.last() }
    }

    /// Returns whether the address is in the cidr.
    pub fn contains(self, address: Address) -> bool {
        address.0 & !self.size.mask() == self.first.0
    }

    /// Returns whether all of the other cidr is in this one.
    pub fn covers(self, other: Self) -> bool {
        self.size >= other.size && self.contains(other.first)
    }

    /// Returns whether the two have an address in common: then one of them covers the other.
    pub fn meets(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Returns the two halves, in order; none of one address.
    pub fn halves(self) -> Option<[Self; 2]> {
        let size = self.size.half()?;
        let low = Self { first: self.first, size };
        Some([low, Self { first: Address(self.first.0 | (low.size.mask() + 1)), size }])
    }

    /// Returns the addresses, in order.
    pub fn addresses(self) -> impl DoubleEndedIterator<Item = Address> {
        self.range().iter()
    }

    /// Returns the cidr as text, such as `10.1.2.8/29`.
    pub fn net(self, family: Family) -> IpNet {
        IpNet::new_assert(family.address(self.first), self.size.prefix(family))
    }

    /// Returns the addresses of an `IpNet`, host bits dropped.
    pub fn of(net: IpNet) -> Self {
        let size = BlockSize(net.max_prefix_len() - net.prefix_len());
        Self { first: Address::of(net.network()), size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Address {
        Address::of(text.parse().unwrap())
    }

    #[test]
    fn a_run_is_aligned_and_reads_as_cidr() {
        let cidr = Cidr::containing(at("10.1.2.13"), BlockSize::of_log2(3));
        assert_eq!(cidr.net(Family::V4).to_string(), "10.1.2.8/29");
        assert_eq!((cidr.last().since(cidr.first()), cidr.size().addresses()), (7, 8));
        assert!(cidr.contains(cidr.last()) && !cidr.contains(cidr.last().next().unwrap()));
        assert_eq!(Cidr::of(cidr.net(Family::V4)), cidr);
        let [low, high] = cidr.halves().unwrap();
        assert_eq!(
            [low, high].map(|half| half.net(Family::V4).to_string()),
            ["10.1.2.8/30", "10.1.2.12/30"]
        );
        assert!(cidr.covers(low) && low.meets(cidr) && !low.meets(high) && !low.covers(cidr));
        assert_eq!(Cidr::one(low.first()).halves(), None);
    }

    #[test]
    fn the_whole_of_ipv6_is_a_run_too() {
        let cidr = Cidr::containing(Address::new(5), BlockSize::of_log2(128));
        assert_eq!(cidr.range(), AddressRange::ALL);
        assert_eq!((cidr.size().addresses(), cidr.range().count()), (u128::MAX, u128::MAX));
        assert_eq!(cidr.net(Family::V6).to_string(), "::/0");
        let [low, high] = cidr.halves().unwrap();
        assert_eq!((low.last().next(), high.last()), (Some(high.first()), Address::LAST));
    }

    #[test]
    fn there_is_a_first_address_and_a_last_one() {
        assert_eq!((Address::FIRST.previous(), Address::LAST.next()), (None, None));
        assert_eq!(Address::LAST.plus(1), Address::LAST);
        assert_eq!(Address::FIRST.since(Address::LAST), 0);
    }

    #[test]
    fn a_range_has_an_order() {
        let [low, high] = [at("10.0.0.5"), at("10.0.0.9")];
        assert_eq!(AddressRange::new(high, low), None);
        let range = AddressRange::new(low, high).unwrap();
        assert_eq!(AddressRange::between(high, low), range);
        assert_eq!((range.count(), range.iter().count()), (5, 5));
        assert_eq!(format!("{range:?}"), "10.0.0.5-10.0.0.9");
        let whole = range.whole_blocks(BlockSize::of_log2(2));
        assert_eq!(whole, AddressRange::between(at("10.0.0.4"), at("10.0.0.11")));
        let rest = AddressRange::between(at("10.0.0.9"), Address::LAST);
        assert_eq!(range.common(rest), Some(AddressRange::one(high)));
        assert!(range.meets(rest) && !AddressRange::one(low).meets(rest));
    }
}
