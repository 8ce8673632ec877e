//! Ranges and range sets as a network configuration gives them: host-local's grammar after its
//! defaults and checks. What is allocated in them is elsewhere (`range_set.rs`).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{Cidr, Family, number};
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
}

/// What one range object of a configuration says, parsed but not yet checked.
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
        let mut range = Self { subnet, start, end, gateway, lists: Default::default() };
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

    /// The family of the subnet.
    pub fn family(&self) -> Family {
        Family::of(self.subnet.addr())
    }

    /// Whether the address is between start and end.
    pub fn contains(&self, number: u128) -> bool {
        self.start <= number && number <= self.end
    }

    /// The addresses listed for a stage, in order.
    pub fn listed(&self, stage: Stage) -> &[u128] {
        &self.lists[stage as usize]
    }

    /// The stage that the address is kept for, if any.
    pub fn stage_of(&self, number: u128) -> Option<Stage> {
        Stage::ALL.into_iter().find(|&stage| self.listed(stage).binary_search(&number).is_ok())
    }

    /// Whether the address is the gateway, which is never handed out.
    pub fn is_gateway(&self, address: u128) -> bool {
        Family::of(self.gateway) == self.family() && number(self.gateway) == address
    }

    /// Whether a pod of that stage may get the address without asking for it.
    pub fn offers(&self, number: u128, stage: Option<Stage>) -> bool {
        !self.is_gateway(number) && self.stage_of(number) == stage
    }
}

impl fmt::Display for Range {
    /// `first-last`, as in host-local's messages.
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

    /// The family of all its ranges.
    pub fn family(&self) -> Family {
        self.ranges[0].family()
    }

    /// The ranges, in the order in which they are handed out; at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Range> {
        self.ranges.iter()
    }

    /// The range that contains the address.
    pub fn find(&self, number: u128) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(number))
    }

    /// The range that contains the address, family included.
    pub fn find_address(&self, address: IpAddr) -> Option<&Range> {
        if Family::of(address) == self.family() { self.find(number(address)) } else { None }
    }

    /// Whether the two sets share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family()
            && self.iter().any(|a| other.iter().any(|b| a.start <= b.end && b.start <= a.end))
    }

    /// The usual size of a block in this set: the largest power of two that leaves at least 32
    /// blocks in it, at most 64 addresses, at least one; or what `blockSize` says.
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
    /// `first-last,first-last`, as in host-local's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.ranges.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}
