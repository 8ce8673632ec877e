//! Ranges and range sets as a network configuration gives them: host-local's grammar after its
//! defaults and checks. What is allocated in them is elsewhere (`range_set.rs`).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{Cidr, Family, number};
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
    /// The first address that may be handed out.
    pub start: u128,
    /// The last one.
    pub end: u128,
    /// Returned with every address of the range; not checked for family or membership, as in
    /// host-local.
    pub gateway: IpAddr,
    /// The addresses of each stage, in order.
    lists: [Vec<u128>; 2],
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
        let last = whole.end() - u128::from(family == Family::V4);
        if let Some(start) = spec.start {
            let after_end = spec
                .end
                .is_some_and(|end| Family::of(end) == family && number(start) > number(end));
            if !inside(start) || after_end {
                return Err(RangeError::Start(start, subnet));
            }
            if spec.end.is_none() && number(start) > last {
                return Err(RangeError::StartAtBroadcast(start, subnet));
            }
        }
        let start = spec.start.map_or(whole.start + 1, number);
        if let Some(end) = spec.end
            && (!inside(end) || number(end) < start)
        {
            return Err(RangeError::End(end, subnet));
        }
        let gateway = spec.gateway.unwrap_or_else(|| family.address(whole.start + 1));
        let end = spec.end.map_or(last, number);
        let mut range =
            Self { subnet, start, end, gateway, lists: Default::default(), reserved: false };
        range.list(Stage::Sandbox, &spec.sandbox)?;
        range.list(Stage::Smallflow, &spec.smallflow)?;
        Ok(range)
    }

    fn list(&mut self, stage: Stage, addresses: &[IpAddr]) -> Result<(), RangeError> {
        let mut list = Vec::with_capacity(addresses.len());
        let refuse = |address, why| RangeError::Listed { stage, address, why };
        for &address in addresses {
            if Family::of(address) != self.family() || !self.contains(number(address)) {
                return Err(refuse(address, ListedWrongly::Outside));
            }
            if address == self.gateway {
                return Err(refuse(address, ListedWrongly::Gateway));
            }
            list.push(number(address));
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
                let of = |cuts: &Intervals, why| cuts.overlaps(number, number).then_some(why);
                let excluded = of(excluded, ListedWrongly::Excluded);
                let why = excluded.or_else(|| of(reserved, ListedWrongly::Reserved));
                if let Some(why) = why {
                    let address = self.family().address(number);
                    return Err(RangeError::Listed { stage, address, why });
                }
            }
        }
        let mut only_reserved = reserved.clone();
        excluded.iter().for_each(|(first, last)| only_reserved.remove(first, last));
        let mut cuts: Vec<(u128, u128, bool)> =
            excluded.iter().map(|(first, last)| (first, last, false)).collect();
        cuts.extend(only_reserved.iter().map(|(first, last)| (first, last, true)));
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), Some(self.start));
        for (first, last, reserved) in cuts {
            let Some(start) = from.filter(|&start| last >= start && first <= self.end) else {
                continue;
            };
            if start < first {
                pieces.push(self.piece(start, first - 1, false));
            }
            if reserved {
                pieces.push(self.piece(first.max(start), last.min(self.end), true));
            }
            from = last.checked_add(1).filter(|&next| next <= self.end);
        }
        pieces.extend(from.map(|start| self.piece(start, self.end, false)));
        if pieces.is_empty() {
            return Err(RangeError::NothingLeft(self.to_string()));
        }
        Ok(pieces)
    }

    /// Returns the range with an address that is the gateway of another range in a range of its
    /// own, whose gateway it is too: so it is never handed out.
    pub fn with_gateway(self, gateway: IpAddr) -> Vec<Self> {
        let at = number(gateway);
        let foreign = Family::of(gateway) != self.family() || !self.contains(at);
        if foreign || self.gateway == gateway {
            return vec![self];
        }
        let mut pieces = Vec::with_capacity(3);
        if self.start < at {
            pieces.push(self.piece(self.start, at - 1, self.reserved));
        }
        pieces.push(Self { gateway, ..self.piece(at, at, self.reserved) });
        if at < self.end {
            pieces.push(self.piece(at + 1, self.end, self.reserved));
        }
        pieces
    }

    fn piece(&self, start: u128, end: u128, reserved: bool) -> Self {
        let lists = self.lists.each_ref().map(|list| {
            let inside = |number: &u128| start <= *number && *number <= end;
            list.iter().copied().filter(inside).collect()
        });
        Self { subnet: self.subnet, gateway: self.gateway, start, end, lists, reserved }
    }

    /// Returns the family of the subnet.
    pub fn family(&self) -> Family {
        Family::of(self.subnet.addr())
    }

    /// Returns whether the address is between start and end.
    pub fn contains(&self, number: u128) -> bool {
        self.start <= number && number <= self.end
    }

    /// Returns the addresses listed for a stage, in order.
    pub fn listed(&self, stage: Stage) -> &[u128] {
        &self.lists[stage as usize]
    }

    /// Returns the stage that the address is kept for, if any.
    pub fn stage_of(&self, number: u128) -> Option<Stage> {
        Stage::ALL.into_iter().find(|&stage| self.listed(stage).binary_search(&number).is_ok())
    }

    /// Returns whether the address is the gateway, which is never handed out.
    pub fn is_gateway(&self, address: u128) -> bool {
        Family::of(self.gateway) == self.family() && number(self.gateway) == address
    }

    /// Returns whether a pod of that stage may get the address without asking for it.
    pub fn offers(&self, number: u128, stage: Option<Stage>) -> bool {
        !self.reserved && self.may_have(number, stage)
    }

    /// Returns whether a pod of that stage may get the address if it asks for it.
    pub fn may_have(&self, number: u128, stage: Option<Stage>) -> bool {
        !self.is_gateway(number) && self.stage_of(number) == stage
    }
}

impl fmt::Display for Range {
    /// Writes `first-last`, as in host-local's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family();
        write!(f, "{}-{}", family.address(self.start), family.address(self.end))
    }
}

/// One range set as a configuration gives it: the ranges of one inner list of `ranges`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranges {
    ranges: Vec<Range>,
    /// `blockSize`, as the binary logarithm of the number of addresses in a block.
    pub block_log2: Option<u8>,
}

impl Ranges {
    /// Checks a set.
    ///
    /// # Errors
    /// Empty, mixed families, or two ranges that share an address.
    pub fn new(ranges: Vec<Range>, block_log2: Option<u8>) -> Result<Self, RangeError> {
        let first = ranges.first().ok_or(RangeError::Empty)?;
        if ranges.iter().any(|range| range.family() != first.family()) {
            return Err(RangeError::Mixed);
        }
        for (i, a) in ranges.iter().enumerate() {
            for b in &ranges[i + 1..] {
                if a.start <= b.end && b.start <= a.end {
                    return Err(RangeError::Overlap(a.to_string(), b.to_string()));
                }
            }
        }
        Ok(Self { ranges, block_log2 })
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
        Ok(Self { ranges, block_log2: self.block_log2 })
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
    pub fn find(&self, number: u128) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(number))
    }

    /// Returns the range that contains the address, family included.
    pub fn find_address(&self, address: IpAddr) -> Option<&Range> {
        if Family::of(address) == self.family() { self.find(number(address)) } else { None }
    }

    /// Returns whether the two sets share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family()
            && self.iter().any(|a| other.iter().any(|b| a.start <= b.end && b.start <= a.end))
    }

    /// Returns the usual size of a block in this set: the largest power of two that leaves at least
    /// 32 blocks in it, at most 64 addresses, at least one; or what `blockSize` says.
    pub fn usual_block_log2(&self) -> u8 {
        if let Some(log2) = self.block_log2 {
            return log2;
        }
        let size = |range: &Range| (range.end - range.start).saturating_add(1);
        let total = self.iter().map(size).fold(0u128, u128::saturating_add);
        #[allow(clippy::cast_possible_truncation)]
        let log2 = (total / 32).max(1).ilog2().min(6) as u8;
        log2
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

    fn range(start: u128, end: u128, sandbox: &[u128]) -> Range {
        let address = |number| Family::V4.address((10 << 24) + number);
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
        for (first, last) in of {
            intervals.insert((10 << 24) + first, (10 << 24) + last);
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
                    let number = (10 << 24) + number;
                    let is_in = |cuts: &Intervals| cuts.overlaps(number, number);
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
        excluded.insert(six.start + 5, six.end - 5);
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
        assert_eq!(pieces[1].listed(Stage::Sandbox), [(10 << 24) + 9]);
    }
}
