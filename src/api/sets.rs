//! The range sets that the cluster has: those of this node, those of central configurations, and
//! those that other nodes use. For metrics, commands and the map.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pools::PlacedBlock;
use crate::actors::Description;
use crate::cni::central::check;
use crate::core::address::{Address, AddressRange, BlockSize, Cidr, Family};
use crate::core::keys::PoolFamily;
use crate::core::offer::Offer;
use crate::core::value::NetworkValue;

/// A range set.
#[derive(Clone, Debug)]
pub(super) struct KnownSet {
    /// The addresses of which it is a part.
    pub(super) pool: PoolFamily,
    /// The size of new blocks.
    pub(super) block_size: BlockSize,
    /// The addresses that it can ever hand out.
    pub(super) offer: Offer,
}

impl KnownSet {
    /// Returns whether any of these addresses are in it.
    fn meets(&self, addresses: AddressRange) -> bool {
        self.offer.ranges().iter().any(|range| range.meets(addresses))
    }

    fn first(&self) -> Option<Address> {
        self.offer.ranges().first().copied().map(AddressRange::first)
    }

    /// The address with which its first block begins: the name of the range set among those of its
    /// pool, the same on every node with the same ranges, whether its gateways are known or not.
    pub(super) fn start(&self) -> Address {
        let first = self.offer.ranges().first().copied();
        first.map_or(Address::FIRST, |range| range.whole_blocks(self.block_size).first())
    }
}

/// Range sets that are found by their network.
#[derive(Clone, Default, Debug)]
pub(super) struct Sets {
    all: Vec<KnownSet>,
    by_network: BTreeMap<Arc<str>, Vec<usize>>,
}

impl Sets {
    /// All range sets, by pool and address. What this node knows of its own counts before what is
    /// in the store (`known`), and that before the blocks of nobody's range set.
    pub(super) fn new(local: &[Description], known: Vec<KnownSet>, blocks: &[PlacedBlock]) -> Self {
        let mut found = Self::default();
        local.iter().for_each(|set| found.add(of_node(set)));
        known.into_iter().for_each(|set| found.add_apart(set));
        for block in blocks {
            if found.of_block(block).is_none() {
                let offer = Offer::of_ranges(&[block.cidr.range()]);
                let (pool, block_size) = (block.pool.clone(), block.cidr.size());
                found.add(KnownSet { pool, block_size, offer });
            }
        }
        let mut all = found.all;
        all.sort_by(|a, b| (&a.pool, a.first()).cmp(&(&b.pool, b.first())));
        let mut sorted = Self::default();
        all.into_iter().for_each(|set| sorted.add(set));
        sorted
    }

    pub(super) fn all(&self) -> &[KnownSet] {
        &self.all
    }

    /// The place of the range set of which a block is: the first that has an address of it.
    pub(super) fn of_block(&self, block: &PlacedBlock) -> Option<usize> {
        let range = block.cidr.range();
        self.of(&block.pool.network, block.pool.family).find(|&at| self.all[at].meets(range))
    }

    /// The place of the range set that hands an address out.
    pub(super) fn of_address(
        &self,
        network: &str,
        family: Family,
        address: Address,
    ) -> Option<usize> {
        let one = Cidr::one(address);
        self.of(network, family).find(|&at| self.all[at].offer.count_in(one) == 1)
    }

    fn of(&self, network: &str, family: Family) -> impl Iterator<Item = usize> + '_ {
        let places = self.by_network.get(network).into_iter().flatten().copied();
        places.filter(move |&at| self.all[at].pool.family == family)
    }

    fn add(&mut self, set: KnownSet) {
        let places = self.by_network.entry(set.pool.network.clone()).or_default();
        places.push(self.all.len());
        self.all.push(set);
    }

    /// Adds a range set, unless a better known one has addresses of it, or of its first block.
    fn add_apart(&mut self, new: KnownSet) {
        let ranges = new.offer.ranges();
        let is_known = self.of(&new.pool.network, new.pool.family).any(|at| {
            let known = &self.all[at];
            known.start() == new.start() || ranges.iter().any(|range| known.meets(*range))
        });
        if !is_known {
            self.add(new);
        }
    }
}

/// A range set of this node.
pub(super) fn of_node(set: &Description) -> KnownSet {
    let identity = &set.identity;
    KnownSet {
        pool: PoolFamily { network: identity.network.clone(), family: identity.family },
        block_size: identity.block_size,
        offer: set.offer.clone(),
    }
}

/// The range sets of a network's key: of its object, and of what nodes have agreed on.
pub(super) fn of_store(network: &str, value: &NetworkValue) -> Vec<KnownSet> {
    let pool = |family: Family| PoolFamily { network: network.into(), family };
    let object = value.ipam.as_deref().and_then(|ipam| check(ipam.as_bytes()).ok());
    let of_object = object.iter().flatten().map(|set| {
        let (family, offer) = (set.family(), Offer::of([set].into_iter()));
        let agreed = value.geometry.iter().find(|agreed| {
            agreed.family == family
                && agreed
                    .ranges
                    .iter()
                    .any(|range| offer.ranges().iter().any(|own| own.meets(*range)))
        });
        let block_size = agreed.map_or(set.usual_block_size(), |agreed| agreed.block_size);
        KnownSet { pool: pool(family), block_size, offer }
    });
    let of_nodes = value.geometry.iter().map(|agreed| {
        let (family, block_size) = (agreed.family, agreed.block_size);
        KnownSet { pool: pool(family), block_size, offer: Offer::of_ranges(&agreed.ranges) }
    });
    of_object.chain(of_nodes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::value::{BlockStatus, Geometry};

    fn network(name: &str, ipam: Option<&str>, agreed: &[(&str, &str)]) -> Vec<KnownSet> {
        let at = |text: &str| Address::of(text.parse().unwrap());
        let range = |&(first, last): &(&str, &str)| AddressRange::between(at(first), at(last));
        let geometry = agreed.iter().map(|agreed| Geometry {
            family: Family::V4,
            block_size: BlockSize::of_log2(4),
            ranges: vec![range(agreed)],
        });
        let (ipam, geometry) = (ipam.map(Arc::from), geometry.collect());
        of_store(name, &NetworkValue { ipam, geometry })
    }

    fn block(network: &str, net: &str) -> PlacedBlock {
        PlacedBlock {
            pool: PoolFamily { network: network.into(), family: Family::V4 },
            cidr: Cidr::of(net.parse().unwrap()),
            owner: "a".into(),
            status: BlockStatus::Active,
        }
    }

    #[test]
    fn a_set_comes_from_the_object_then_from_what_nodes_agreed_on_then_from_its_blocks() {
        let object = r#"{"ranges": [[{"subnet": "10.0.0.0/24"}]]}"#;
        let agreed = [("10.0.0.1", "10.0.0.254"), ("10.9.0.0", "10.9.0.9")];
        let mut known = network("central", Some(object), &agreed);
        known.extend(network("used", None, &[("10.2.0.0", "10.2.0.255")]));
        let blocks = [block("odd", "10.3.0.0/28"), block("used", "10.2.0.16/28")];
        let sets = Sets::new(&[], known, &blocks);
        let shown = |set: &KnownSet| {
            let size = set.offer.size();
            (set.pool.network.to_string(), size, set.offer.is_whole(), set.block_size.log2())
        };
        assert_eq!(
            sets.all().iter().map(shown).collect::<Vec<_>>(),
            [
                ("central".to_owned(), 253, true, 4),
                ("central".to_owned(), 10, false, 4),
                ("odd".to_owned(), 16, false, 4),
                ("used".to_owned(), 256, false, 4),
            ]
        );
        assert_eq!(blocks.each_ref().map(|block| sets.of_block(block)), [Some(2), Some(3)]);
        let at = |address: &str| Address::of(address.parse().unwrap());
        let of = |network, address| sets.of_address(network, Family::V4, at(address));
        assert_eq!([of("central", "10.0.0.2"), of("central", "10.9.0.5")], [Some(0), Some(1)]);
        assert_eq!([of("central", "10.0.0.1"), of("none", "10.0.0.2")], [None; 2], "a gateway");
        // With gateways and without, a range set has the same name.
        let starts = sets.all().iter().map(KnownSet::start).collect::<Vec<_>>();
        assert_eq!(starts, ["10.0.0.0", "10.9.0.0", "10.3.0.0", "10.2.0.0"].map(at));
    }
}
