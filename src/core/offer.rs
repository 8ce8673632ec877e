//! The addresses that can ever be handed out of a range set, counted without walking through them.

use std::collections::BTreeSet;

use super::address::{Address, AddressRange, Cidr};
use super::interval::Intervals;
use super::range::Ranges;
use super::stage::Stage;

/// The addresses that ranges offer: from their starts to their ends, without gateways.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The ranges, in order, gateways among them.
    ranges: Vec<AddressRange>,
    /// The gateways in these ranges, in order: nobody gets them.
    gateways: Vec<Address>,
    /// The addresses in these ranges that are kept for the pods of a stage, in order.
    listed: Vec<Address>,
    /// Gateways and stages are known.
    is_whole: bool,
}

impl Offer {
    /// Returns the offer of these ranges together.
    pub fn of<'a>(sets: impl Iterator<Item = &'a Ranges> + Clone) -> Self {
        let all = || sets.clone().flat_map(Ranges::iter);
        let mut ranges = Intervals::default();
        all().for_each(|range| ranges.insert(range.addresses()));
        // Another set of ranges may hand out what is a gateway here.
        let nobody_offers = |address: &Address| {
            let mut around = all().filter(|range| range.contains(*address));
            around.clone().next().is_some() && around.all(|range| range.is_gateway(*address))
        };
        let gateways: BTreeSet<Address> = all()
            .filter(|range| range.is_gateway(Address::of(range.gateway)))
            .map(|range| Address::of(range.gateway))
            .filter(nobody_offers)
            .collect();
        let listed: BTreeSet<Address> = all()
            .flat_map(|range| Stage::ALL.into_iter().flat_map(|stage| range.listed(stage)))
            .copied()
            .collect();
        Self {
            ranges: ranges.iter().collect(),
            gateways: gateways.into_iter().collect(),
            listed: listed.into_iter().collect(),
            is_whole: true,
        }
    }

    /// Returns the offer of these ranges, whose gateways and stages are not known. They are in
    /// order.
    pub fn of_ranges(ranges: &[AddressRange]) -> Self {
        Self { ranges: ranges.to_vec(), gateways: vec![], listed: vec![], is_whole: false }
    }

    /// Returns whether gateways and stages are known.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Returns the number of addresses that can ever be handed out.
    pub fn size(&self) -> u128 {
        self.count(AddressRange::ALL)
    }

    /// Returns the number of gateways between the starts and ends of the ranges.
    pub fn reserved(&self) -> u64 {
        self.gateways.len() as u64
    }

    /// Returns the number of addresses that are kept for the pods of a stage.
    pub fn kept(&self) -> u64 {
        self.listed.len() as u64
    }

    /// Returns the number of addresses of a block that can ever be handed out.
    pub fn count_in(&self, cidr: Cidr) -> u128 {
        self.count(cidr.range())
    }

    /// Returns the ranges of addresses, gateways among them.
    pub fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// Returns the addresses that are kept for the pods of a stage, in order.
    pub fn listed(&self) -> &[Address] {
        &self.listed
    }

    /// Returns the addresses that nobody gets: gateways, and all between the ranges.
    pub fn gaps(&self) -> impl Iterator<Item = AddressRange> + '_ {
        let ends = self.ranges.iter().map(|range| range.last().next());
        let firsts = std::iter::once(Some(Address::FIRST)).chain(ends);
        let befores = self.ranges.iter().map(|range| range.first().previous());
        let lasts = befores.chain(std::iter::once(Some(Address::LAST)));
        let outside =
            firsts.zip(lasts).filter_map(|(first, last)| AddressRange::new(first?, last?));
        outside.chain(self.gateways.iter().copied().map(AddressRange::one))
    }

    fn count(&self, of: AddressRange) -> u128 {
        let from = self.ranges.partition_point(|range| range.last() < of.first());
        let meeting = self.ranges[from..].iter().map_while(|range| range.common(of));
        let within = meeting.map(AddressRange::count);
        let below = self.gateways.partition_point(|&gateway| gateway < of.first());
        let gateways = self.gateways.partition_point(|&gateway| gateway <= of.last()) - below;
        within.fold(0u128, u128::saturating_add).saturating_sub(gateways as u128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::range::{Range, RangeSpec};

    fn range(subnet: &str, start: Option<&str>, sandbox: &[&str]) -> Range {
        let address = |text: &str| text.parse().unwrap();
        Range::new(RangeSpec {
            subnet: subnet.parse().unwrap(),
            start: start.map(address),
            end: None,
            gateway: None,
            sandbox: sandbox.iter().map(|text| address(text)).collect(),
            smallflow: vec![],
        })
        .unwrap()
    }

    fn cidr(net: &str) -> Cidr {
        Cidr::of(net.parse().unwrap())
    }

    #[test]
    fn network_gateway_and_broadcast_are_in_no_offer() {
        let ranges =
            vec![range("10.0.0.0/24", None, &["10.0.0.9"]), range("10.0.1.0/30", None, &[])];
        let set = Ranges::new(ranges, None).unwrap();
        let offer = Offer::of([&set].into_iter());
        assert_eq!(offer.size(), 253 + 1);
        assert_eq!((offer.reserved(), offer.kept()), (2, 1));
        for (net, count) in
            [("10.0.0.0/30", 2), ("10.0.0.252/30", 3), ("10.0.1.0/24", 1), ("10.9.0.0/16", 0)]
        {
            assert_eq!(offer.count_in(cidr(net)), count, "{net}");
        }
        let gap = |address: &str| {
            let address = Address::of(address.parse().unwrap());
            offer.gaps().any(|gap| gap.contains(address))
        };
        for nobodys in ["10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.1", "9.9.9.9", "10.1.0.0"] {
            assert!(gap(nobodys), "{nobodys}");
        }
        assert!(!gap("10.0.0.2") && !gap("10.0.0.254") && !gap("10.0.1.2"));
    }

    #[test]
    fn a_gateway_that_other_ranges_hand_out_counts() {
        let one = Ranges::new(vec![range("10.0.0.0/24", None, &[])], None).unwrap();
        let wide = Ranges::new(vec![range("10.0.0.0/16", Some("10.0.0.1"), &[])], None).unwrap();
        let other = Ranges::new(vec![range("10.0.0.0/23", Some("10.0.0.2"), &[])], None).unwrap();
        assert_eq!(Offer::of([&one, &other].into_iter()).size(), 509);
        // Every set has the same gateway.
        assert_eq!(Offer::of([&one, &wide].into_iter()).size(), 65_533);
    }

    #[test]
    fn a_range_of_every_size_is_counted() {
        let set = Ranges::new(vec![range("2001:db8::/64", None, &[])], None).unwrap();
        assert_eq!(Offer::of([&set].into_iter()).size(), (1 << 64) - 2);
        assert_eq!(Offer::of_ranges(&[AddressRange::ALL]).size(), u128::MAX);
        assert_eq!(Offer::default().size(), 0);
    }
}
