//! Ranges and range sets as a network configuration gives them: host-local's grammar after its
//! defaults and checks. `range_set/` has what is allocated in them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{Address, AddressRange, BlockSize, Cidr, Family};
use super::interval::Intervals;
use super::stage::Stage;

/// The reason why a range or a range set is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// Fewer than two host bits: no room beside network, broadcast and gateway.
    TooSmall(IpNet),
    /// `subnet` is not a network address.
    HostBits {
        /// The prefix length as given.
        len: u8,
        /// The network address that was meant.
        net: IpAddr,
    },
    /// `rangeStart` outside the subnet, or after an explicit `rangeEnd`.
    Start(IpAddr, IpNet),
    /// `rangeStart` at the broadcast address, which host-local answers by leaving the subnet.
    StartAtBroadcast(IpAddr, IpNet),
    /// `rangeEnd` outside the subnet, or before `rangeStart`.
    End(IpAddr, IpNet),
    /// A list of a stage names an address that can never be handed out from this range.
    Listed {
        /// The list.
        stage: Stage,
        /// The address.
        address: IpAddr,
        /// The reason.
        why: ListedWrongly,
    },
    /// Nothing is left of a range.
    NothingLeft(String),
    /// A set without ranges.
    Empty,
    /// A set of both families.
    Mixed,
    /// Two ranges of one set share addresses.
    Overlap(String, String),
}

/// The reason why a list of a stage must not name an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListedWrongly {
    /// It is not between the range's start and end.
    Outside,
    /// It is the range's gateway.
    Gateway,
    /// It is in this list, or in another one, already.
    Twice,
    /// It is excluded.
    Excluded,
    /// It is reserved.
    Reserved,
}

/// The contents of one range object of a configuration, parsed but not yet checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeSpec {
    /// `subnet`, host bits kept.
    pub subnet: IpNet,
    /// `rangeStart`.
    pub start: Option<IpAddr>,
    /// `rangeEnd`.
    pub end: Option<IpAddr>,
    /// `gateway`.
    pub gateway: Option<IpAddr>,
    /// `sandbox`: addresses for pods of that stage only.
    pub sandbox: Vec<IpAddr>,
    /// `smallflow`: addresses for pods of that stage only.
    pub smallflow: Vec<IpAddr>,
}

/// One subnet with its first and last address and its gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The subnet; its prefix length goes into results.
    pub subnet: IpNet,
    /// The addresses that may be handed out, but for the gateway.
    addresses: AddressRange,
    /// Returned with every address of the range; not checked for family or membership, as in
    /// host-local.
    pub gateway: IpAddr,
    /// The addresses of each stage, in order.
    lists: [Vec<Address>; 2],
    /// Its addresses are handed out only if they are asked for by name.
    pub reserved: bool,
}

impl Range {
    /// Checks a range and fills in host-local's defaults: gateway and start are the first address
    /// after the network's, end is the last one, for IPv4 the last but the broadcast address.
    ///
    /// # Errors
    /// The first rule that is broken, in host-local's order.
    pub fn new(spec: RangeSpec) -> Result<Self, RangeError> {
        let RangeSpec { subnet, .. } = spec;
        if subnet.prefix_len() > subnet.max_prefix_len() - 2 {
            return Err(RangeError::TooSmall(subnet));
        }
        if subnet.addr() != subnet.network() {
            let (len, net) = (subnet.prefix_len(), subnet.network());
            return Err(RangeError::HostBits { len, net });
        }
        let family = Family::of(subnet.addr());
        let whole = Cidr::of(subnet);
        let inside = |address: IpAddr| subnet.contains(&address);
        let (second, broadcast) = (whole.first().plus(1), whole.last().previous());
        let last = broadcast.filter(|_| family == Family::V4).unwrap_or(whole.last());
        if let Some(start) = spec.start {
            let after_end = spec.end.is_some_and(|end| {
                Family::of(end) == family && Address::of(start) > Address::of(end)
            });
            if !inside(start) || after_end {
                return Err(RangeError::Start(start, subnet));
            }
            if spec.end.is_none() && Address::of(start) > last {
                return Err(RangeError::StartAtBroadcast(start, subnet));
            }
        }
        let start = spec.start.map_or(second, Address::of);
        if let Some(end) = spec.end
            && (!inside(end) || Address::of(end) < start)
        {
            return Err(RangeError::End(end, subnet));
        }
        let gateway = spec.gateway.unwrap_or_else(|| family.address(second));
        let end = spec.end.map_or(last, Address::of);
        let addresses = AddressRange::between(start, end);
        let mut range =
            Self { subnet, addresses, gateway, lists: Default::default(), reserved: false };
        range.list(Stage::Sandbox, &spec.sandbox)?;
        range.list(Stage::Smallflow, &spec.smallflow)?;
        Ok(range)
    }

    fn list(&mut self, stage: Stage, addresses: &[IpAddr]) -> Result<(), RangeError> {
        let mut list = Vec::with_capacity(addresses.len());
        let refuse = |address, why| RangeError::Listed { stage, address, why };
        for &address in addresses {
            if Family::of(address) != self.family() || !self.contains(Address::of(address)) {
                return Err(refuse(address, ListedWrongly::Outside));
            }
            if address == self.gateway {
                return Err(refuse(address, ListedWrongly::Gateway));
            }
            list.push(Address::of(address));
        }
        list.sort_unstable();
        let mut pairs = list.windows(2);
        let twice = pairs.find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let twice = twice.or_else(|| list.iter().copied().find(|&n| self.stage_of(n).is_some()));
        if let Some(number) = twice {
            return Err(refuse(self.family().address(number), ListedWrongly::Twice));
        }
        self.lists[stage as usize] = list;
        Ok(())
    }

    /// Returns the range without what is excluded, and with what is reserved in ranges of its own.
    /// Each cut costs one more range, at any size, and readers of ranges need not know of cuts.
    ///
    /// # Errors
    /// Nothing is left, or an address that is listed for a stage is cut out.
    pub fn split(
        self,
        excluded: &Intervals,
        reserved: &Intervals,
    ) -> Result<Vec<Self>, RangeError> {
        for stage in Stage::ALL {
            for &number in self.listed(stage) {
                let of = |cuts: &Intervals, why| cuts.contains(number).then_some(why);
                let excluded = of(excluded, ListedWrongly::Excluded);
                let why = excluded.or_else(|| of(reserved, ListedWrongly::Reserved));
                if let Some(why) = why {
                    let address = self.family().address(number);
                    return Err(RangeError::Listed { stage, address, why });
                }
            }
        }
        let mut only_reserved = reserved.clone();
        excluded.iter().for_each(|range| only_reserved.remove(range));
        let mut cuts: Vec<(AddressRange, bool)> = excluded.iter().map(|cut| (cut, false)).collect();
        cuts.extend(only_reserved.iter().map(|cut| (cut, true)));
        cuts.sort_unstable();
        let (mut pieces, mut rest) = (Vec::new(), Some(self.addresses));
        for (cut, reserved) in cuts {
            let Some((left, part)) = rest.and_then(|left| Some((left, left.common(cut)?))) else {
                continue;
            };
            let before = part.first().previous();
            let before = before.and_then(|last| AddressRange::new(left.first(), last));
            pieces.extend(before.map(|before| self.piece(before, false)));
            if reserved {
                pieces.push(self.piece(part, true));
            }
            rest = part.last().next().and_then(|first| AddressRange::new(first, left.last()));
        }
        pieces.extend(rest.map(|rest| self.piece(rest, false)));
        if pieces.is_empty() {
            return Err(RangeError::NothingLeft(self.to_string()));
        }
        Ok(pieces)
    }

    /// Returns the range with an address that is the gateway of another range in a range of its
    /// own, whose gateway it is too: so it is never handed out.
    pub fn with_gateway(self, gateway: IpAddr) -> Vec<Self> {
        let at = Address::of(gateway);
        let foreign = Family::of(gateway) != self.family() || !self.contains(at);
        if foreign || self.gateway == gateway {
            return vec![self];
        }
        let before = at.previous().and_then(|last| AddressRange::new(self.first(), last));
        let after = at.next().and_then(|first| AddressRange::new(first, self.last()));
        let own = Self { gateway, ..self.piece(AddressRange::one(at), self.reserved) };
        let around = |range| self.piece(range, self.reserved);
        before.map(around).into_iter().chain([own]).chain(after.map(around)).collect()
    }

    fn piece(&self, addresses: AddressRange, reserved: bool) -> Self {
        let lists = self.lists.each_ref().map(|list| {
            list.iter().copied().filter(|address| addresses.contains(*address)).collect()
        });
        Self { subnet: self.subnet, gateway: self.gateway, addresses, lists, reserved }
    }

    /// Counts the addresses that are in another range too, without the gateway.
    pub fn count_in(&self, other: AddressRange) -> u128 {
        let gateway = Address::of(self.gateway);
        let common = self.addresses.common(other);
        common.map_or(0, |common| common.count() - u128::from(common.contains(gateway)))
    }

    /// Returns the addresses from the first to the last that may be handed out.
    pub fn addresses(&self) -> AddressRange {
        self.addresses
    }

    /// Returns the first address that may be handed out.
    pub fn first(&self) -> Address {
        self.addresses.first()
    }

    /// Returns the last address that may be handed out.
    pub fn last(&self) -> Address {
        self.addresses.last()
    }

    /// Returns the family of the subnet.
    pub fn family(&self) -> Family {
        Family::of(self.subnet.addr())
    }

    /// Returns whether the address is between start and end.
    pub fn contains(&self, number: Address) -> bool {
        self.addresses.contains(number)
    }

    /// Returns the addresses listed for a stage, in order.
    pub fn listed(&self, stage: Stage) -> &[Address] {
        &self.lists[stage as usize]
    }

    /// Returns the stage that the address is kept for, if any.
    pub fn stage_of(&self, number: Address) -> Option<Stage> {
        Stage::ALL.into_iter().find(|&stage| self.listed(stage).binary_search(&number).is_ok())
    }

    /// Returns whether the address is the gateway, which is never handed out.
    pub fn is_gateway(&self, address: Address) -> bool {
        Family::of(self.gateway) == self.family() && Address::of(self.gateway) == address
    }

    /// Returns whether a pod of that stage may get the address without asking for it.
    pub fn offers(&self, number: Address, stage: Option<Stage>) -> bool {
        !self.reserved && self.may_have(number, stage)
    }

    /// Returns whether a pod of that stage may get the address if it asks for it.
    pub fn may_have(&self, number: Address, stage: Option<Stage>) -> bool {
        !self.is_gateway(number) && self.stage_of(number) == stage
    }
}

impl fmt::Display for Range {
    /// Writes `first-last`, as in host-local's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family();
        write!(f, "{}-{}", family.address(self.first()), family.address(self.last()))
    }
}

/// One range set as a configuration gives it: the ranges of one inner list of `ranges`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranges {
    ranges: Vec<Range>,
    /// `blockSize`, if it is given.
    pub block_size: Option<BlockSize>,
}

impl Ranges {
    /// Checks a set.
    ///
    /// # Errors
    /// Empty, mixed families, or two ranges that share an address.
    pub fn new(ranges: Vec<Range>, block_size: Option<BlockSize>) -> Result<Self, RangeError> {
        let first = ranges.first().ok_or(RangeError::Empty)?;
        if ranges.iter().any(|range| range.family() != first.family()) {
            return Err(RangeError::Mixed);
        }
        for (i, a) in ranges.iter().enumerate() {
            for b in &ranges[i + 1..] {
                if a.addresses.meets(b.addresses) {
                    return Err(RangeError::Overlap(a.to_string(), b.to_string()));
                }
            }
        }
        Ok(Self { ranges, block_size })
    }

    /// Returns the same set with each range cut: `cuts` has what is excluded and what is reserved,
    /// for each range in order.
    ///
    /// # Errors
    /// The index of a range, and why it cannot be cut so.
    pub fn split(self, cuts: &[(Intervals, Intervals)]) -> Result<Self, (usize, RangeError)> {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for (index, (range, (excluded, reserved))) in self.ranges.into_iter().zip(cuts).enumerate()
        {
            if excluded.is_empty() && reserved.is_empty() {
                ranges.push(range);
            } else {
                ranges.extend(range.split(excluded, reserved).map_err(|error| (index, error))?);
            }
        }
        Ok(Self { ranges, block_size: self.block_size })
    }

    /// Returns the same set, of which no address that is one of these gateways is handed out.
    pub fn with_gateways(mut self, gateways: &[IpAddr]) -> Self {
        for &gateway in gateways {
            // In nearly all cases there is nothing to do.
            if self.find_address(gateway).is_some_and(|range| range.gateway != gateway) {
                let ranges = self.ranges.into_iter();
                self.ranges = ranges.flat_map(|range| range.with_gateway(gateway)).collect();
            }
        }
        self
    }

    /// Returns the family of all its ranges.
    pub fn family(&self) -> Family {
        self.ranges[0].family()
    }

    /// Returns the ranges, in the order in which they are handed out; at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Range> {
        self.ranges.iter()
    }

    /// Returns the range that contains the address.
    pub fn find(&self, number: Address) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(number))
    }

    /// Returns the range that contains the address, family included.
    pub fn find_address(&self, address: IpAddr) -> Option<&Range> {
        if Family::of(address) == self.family() { self.find(Address::of(address)) } else { None }
    }

    /// Returns whether the two sets share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family()
            && self.iter().any(|a| other.iter().any(|b| a.addresses.meets(b.addresses)))
    }

    /// Returns the usual size of a block in this set: the largest power of two that leaves at least
    /// 32 blocks in it, at most 64 addresses, at least one; or what `blockSize` says.
    pub fn usual_block_size(&self) -> BlockSize {
        if let Some(size) = self.block_size {
            return size;
        }
        let total =
            self.iter().map(|range| range.addresses.count()).fold(0u128, u128::saturating_add);
        #[allow(clippy::cast_possible_truncation)]
        let log2 = (total / 32).max(1).ilog2().min(6) as u8;
        BlockSize::of_log2(log2)
    }
}

impl fmt::Display for Ranges {
    /// Writes `first-last,first-last`, as in host-local's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.ranges.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u128) -> Address {
        Address::new((10 << 24) + number)
    }

    fn range(start: u128, end: u128, sandbox: &[u128]) -> Range {
        let address = |number| Family::V4.address(at(number));
        let spec = RangeSpec {
            subnet: "10.0.0.0/8".parse().unwrap(),
            start: Some(address(start)),
            end: Some(address(end)),
            gateway: None,
            sandbox: sandbox.iter().map(|&number| address(number)).collect(),
            smallflow: Vec::new(),
        };
        Range::new(spec).unwrap()
    }

    fn intervals(of: &[(u128, u128)]) -> Intervals {
        let mut intervals = Intervals::default();
        for &(first, last) in of {
            intervals.insert(AddressRange::between(at(first), at(last)));
        }
        intervals
    }

    #[test]
    fn cuts_leave_every_other_address() {
        let all = [(0, 9), (4, 4), (9, 30), (15, 20), (30, 40), (0, 40), (12, 12)];
        for excluded in all.iter().map(|&one| intervals(&[one])) {
            for reserved in all.iter().map(|&one| intervals(&[one, (25, 26)])) {
                let pieces = range(5, 30, &[]).split(&excluded, &reserved);
                for number in 5..=30 {
                    let number = at(number);
                    let is_in = |cuts: &Intervals| cuts.contains(number);
                    let expected = (!is_in(&excluded)).then(|| is_in(&reserved));
                    let pieces = pieces.as_deref().unwrap_or_default();
                    let mut found = pieces.iter().filter(|piece| piece.contains(number));
                    let one = found.next().map(|piece| piece.reserved);
                    assert_eq!((one, found.next()), (expected, None), "{excluded:?} {reserved:?}");
                }
                let nothing = pieces.is_err();
                assert_eq!(nothing, excluded == intervals(&[(0, 40)]), "{pieces:?}");
            }
        }
    }

    #[test]
    fn a_cut_costs_the_same_at_any_size() {
        let six: Range = {
            let spec = RangeSpec {
                subnet: "fd00::/16".parse().unwrap(),
                start: None,
                end: None,
                gateway: None,
                sandbox: Vec::new(),
                smallflow: Vec::new(),
            };
            Range::new(spec).unwrap()
        };
        let mut excluded = Intervals::default();
        excluded.insert(AddressRange::between(six.first().plus(5), six.last().previous().unwrap()));
        assert_eq!(six.split(&excluded, &Intervals::default()).unwrap().len(), 2);
    }

    #[test]
    fn an_address_of_a_stage_is_not_cut_out() {
        let cut = intervals(&[(7, 8)]);
        let none = Intervals::default();
        for (excluded, reserved, why) in
            [(&cut, &none, "is excluded"), (&none, &cut, "is reserved")]
        {
            let error = range(5, 30, &[7]).split(excluded, reserved).unwrap_err();
            assert_eq!(error.to_string(), format!("sandbox lists 10.0.0.7, which {why}"));
        }
        let pieces = range(5, 30, &[9]).split(&cut, &none).unwrap();
        assert_eq!(pieces[1].listed(Stage::Sandbox), [at(9)]);
    }
}
