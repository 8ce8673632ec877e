//! The range sets of a configuration: host-local's grammar and checks, in its order and words.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::core::address::{BlockSize, Family};
use crate::core::range::{Range, RangeError, RangeSpec, Ranges};
use crate::core::stage::Stage;
use crate::limits::{BLOCK_LOG2_MAX, LISTED_MAX, RANGES_MAX};

use super::cuts::{Cut, Cuts};
use super::error::{Code, Error};
use super::ip;
use super::json_cursor::JsonCursor;
use super::version::Version;

/// Collects range sets in the order that messages and results number them by:
/// `runtimeConfig.ipRanges`, then the single range of `ipam`, then `ipam.ranges`.
pub(super) struct RangeSetParser {
    sets: Vec<Ranges>,
    /// The addresses that are excluded from each range of each set, and those that are reserved in
    /// it.
    cut: Vec<Vec<Cut>>,
    cuts: Cuts,
    ranges: usize,
    /// `blockSize` and `blockSize6`, as binary logarithms.
    block_size: [Option<BlockSize>; 2],
}

impl RangeSetParser {
    /// All range sets of a configuration, checked one by one and against each other. No range set
    /// at all is not an error here. `raw_version` is `cniVersion` as written.
    pub(super) fn read(
        ipam: &JsonCursor<'_>,
        runtime: Option<&JsonCursor<'_>>,
        version: Version,
        raw_version: &str,
    ) -> Result<Vec<Ranges>, Error> {
        let block_size =
            [block(ipam, "blockSize", Family::V4)?, block(ipam, "blockSize6", Family::V6)?];
        let (sets, cut, cuts) = Default::default();
        let mut pool = Self { sets, cut, cuts, ranges: 0, block_size };
        if let Some(runtime) = runtime {
            pool.add_sets(runtime, "ipRanges")?;
        }
        if ipam.get("subnet").is_some() {
            pool.count(ipam, 1)?;
            let range = pool.range(ipam)?;
            let cuts = vec![pool.cuts.of(ipam, &range)?];
            pool.add(ipam, vec![range], cuts)?;
        }
        pool.add_sets(ipam, "ranges")?;
        if version < Version::V0_3_0 {
            pool.check_one_per_family(raw_version)?;
        }
        pool.check_apart()?;
        pool.cut()
    }

    /// The sets without what is excluded, and without the gateways of all of them: host-local takes
    /// only a range's own gateway for one.
    fn cut(self) -> Result<Vec<Ranges>, Error> {
        let mut gateways: Vec<IpAddr> =
            self.sets.iter().flat_map(Ranges::iter).map(|range| range.gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        let sets = self.sets.into_iter().zip(self.cut).enumerate();
        let cut = sets.map(|(index, (set, cuts))| {
            let cut = set.split(&cuts).map_err(|(range, error)| {
                let msg = format!("invalid range set {index}: {error}");
                let details = format!(
                    "range {range} of the set: a listed address must be neither excluded nor \
                     reserved, and exclude must leave an address"
                );
                Error::new(Code::Config, msg).with_details(details)
            })?;
            Ok(cut.with_gateways(&gateways))
        });
        cut.collect()
    }

    fn add_sets(&mut self, node: &JsonCursor<'_>, key: &'static str) -> Result<(), Error> {
        let Some(sets) = node.items(key, RANGES_MAX)? else {
            return Ok(());
        };
        for set in sets.iter() {
            let items = set.an_array(RANGES_MAX)?;
            self.count(&set, items.len())?;
            let mut ranges = Vec::with_capacity(items.len());
            let mut cuts = Vec::with_capacity(items.len());
            for node in items.iter() {
                let node = node.an_object()?;
                let range = self.range(&node)?;
                cuts.push(self.cuts.of(&node, &range)?);
                ranges.push(range);
            }
            self.add(&set, ranges, cuts)?;
        }
        Ok(())
    }

    /// Limits the number of ranges of all sets together.
    fn count(&mut self, set: &JsonCursor<'_>, ranges: usize) -> Result<(), Error> {
        self.ranges += ranges;
        if self.ranges > RANGES_MAX {
            let what = "brings the ranges of all sets to more than the";
            return Err(set.refuse(format_args!("{what} {RANGES_MAX} that are allowed")));
        }
        Ok(())
    }

    fn add(
        &mut self,
        set: &JsonCursor<'_>,
        ranges: Vec<Range>,
        cuts: Vec<Cut>,
    ) -> Result<(), Error> {
        let family = ranges.first().map_or(Family::V4, Range::family);
        let block_size = self.block_size[family as usize];
        let ranges = Ranges::new(ranges, block_size).map_err(|error| {
            let advice = match error {
                RangeError::Empty => "must have a range",
                RangeError::Mixed => {
                    "must be of one family: give IPv4 and IPv6 a set each, and an ADD returns an \
                     address of both"
                }
                _ => "has an address twice: make its ranges disjoint",
            };
            self.invalid(set, &error.to_string(), advice)
        })?;
        self.sets.push(ranges);
        self.cut.push(cuts);
        Ok(())
    }

    /// One range object, checked.
    fn range(&self, node: &JsonCursor<'_>) -> Result<Range, Error> {
        let Some(subnet) = node.get("subnet") else {
            let advice = "has no subnet: give one, such as \"subnet\": \"10.1.2.0/24\"";
            return Err(self.invalid(node, "IP <nil> not v4 nor v6", advice));
        };
        let text = subnet.text()?;
        let Some((address, len)) = ip::cidr(text) else {
            let msg = format!("invalid CIDR address: {text}");
            let advice = "must be an address with a prefix length, such as 10.1.2.0/24";
            return Err(subnet.blame(msg, advice));
        };
        if address != address.to_canonical() {
            let advice = "is an IPv4 network written as IPv6: write it as IPv4";
            return Err(self.invalid(&subnet, "IPNet IP and Mask version mismatch", advice));
        }
        let Ok(net) = IpNet::new(address, len) else {
            return Err(subnet.refuse("has a prefix length that is too long"));
        };
        let spec = RangeSpec {
            subnet: net,
            start: node.address("rangeStart")?,
            end: node.address("rangeEnd")?,
            gateway: node.address("gateway")?,
            sandbox: listed(node, Stage::Sandbox, LISTED_MAX)?,
            smallflow: Vec::new(),
        };
        let left = LISTED_MAX - spec.sandbox.len();
        let smallflow = listed(node, Stage::Smallflow, left)?;
        Range::new(RangeSpec { smallflow, ..spec }).map_err(|error| self.unfit(node, net, &error))
    }

    /// The error for a range that breaks a rule of its own, with the field and the remedy.
    fn unfit(&self, node: &JsonCursor<'_>, net: IpNet, error: &RangeError) -> Error {
        let (first, last) = (net.network(), net.broadcast());
        let (key, advice) = match error {
            RangeError::TooSmall(_) => {
                let min = net.max_prefix_len() - 2;
                ("subnet", format!("must be a /{min} or larger"))
            }
            RangeError::HostBits { len, net } => ("subnet", format!("must be {net}/{len}")),
            RangeError::Start(..) => {
                ("rangeStart", format!("must be from {first} to {last}, and not after rangeEnd"))
            }
            RangeError::StartAtBroadcast(start, _) => {
                ("rangeStart", format!("must be lower, or rangeEnd must be {start} too"))
            }
            RangeError::End(..) => {
                ("rangeEnd", format!("must be from {first} to {last}, and not before rangeStart"))
            }
            RangeError::Listed { stage, .. } => (
                stage.as_str(),
                "may list addresses from rangeStart to rangeEnd, each in one list once, but not \
                 the gateway"
                    .to_owned(),
            ),
            RangeError::Empty
            | RangeError::Mixed
            | RangeError::Overlap(..)
            | RangeError::NothingLeft(_) => ("subnet", "does not fit the other fields".to_owned()),
        };
        let field = node.get(key);
        self.invalid(field.as_ref().unwrap_or(node), &error.to_string(), &advice)
    }

    /// An error in the set that comes next, in host-local's words.
    fn invalid(&self, at: &JsonCursor<'_>, what: &str, advice: &str) -> Error {
        let msg = format!("invalid range set {}: {what}", self.sets.len());
        at.blame(msg, advice)
    }

    fn check_one_per_family(&self, raw_version: &str) -> Result<(), Error> {
        let count = |family| self.sets.iter().filter(|set| set.family() == family).count();
        if count(Family::V4) <= 1 && count(Family::V6) <= 1 {
            return Ok(());
        }
        let msg =
            format!("CNI version {raw_version} does not support more than 1 address per family");
        Err(Error::new(Code::Config, msg).with_details(
            "every range set gives one address: set cniVersion to 0.3.0 or later, or leave one \
             range set per family",
        ))
    }

    fn check_apart(&self) -> Result<(), Error> {
        for (i, a) in self.sets.iter().enumerate() {
            for (j, b) in self.sets.iter().enumerate().skip(i + 1) {
                if a.overlaps(b) {
                    let msg = format!("range set {i} overlaps with {j}");
                    return Err(Error::new(Code::Config, msg).with_details(format!(
                        "set {i} is {a}, set {j} is {b}; sets are counted through \
                         runtimeConfig.ipRanges, then ipam.subnet, then ipam.ranges"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The addresses that a range object lists for a stage.
fn listed(node: &JsonCursor<'_>, stage: Stage, max: usize) -> Result<Vec<IpAddr>, Error> {
    let Some(items) = node.items(stage.as_str(), LISTED_MAX)? else {
        return Ok(Vec::new());
    };
    if items.len() > max {
        return Err(items.array.refuse(format_args!(
            "brings the addresses that are listed in this range to more than the {LISTED_MAX} \
             that are allowed"
        )));
    }
    let mut list = Vec::with_capacity(items.len());
    for item in items.iter() {
        let address = item.an_address()?;
        list.push(address.ok_or_else(|| item.refuse("must be an address, not empty"))?);
    }
    Ok(list)
}

/// The block size that a configuration sets for a family.
fn block(
    ipam: &JsonCursor<'_>,
    key: &'static str,
    family: Family,
) -> Result<Option<BlockSize>, Error> {
    let Some(prefix) = ipam.integer(key)? else {
        return Ok(None);
    };
    let bits = family.bits();
    let min = bits - BLOCK_LOG2_MAX;
    let fits = u8::try_from(prefix).ok().filter(|prefix| (min..=bits).contains(prefix));
    let Some(fits) = fits else {
        let msg = format!("ipam.{key} must be a prefix length from {min} to {bits}, not {prefix}");
        return Err(Error::new(Code::Config, msg).with_details(format!(
            "a block is 1 to {} addresses: /{bits} to /{min} for {family}",
            1u32 << BLOCK_LOG2_MAX
        )));
    };
    Ok(BlockSize::of_prefix(family, fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::vectors::{add, code_of, with_ipam};

    /// Message and details for one range set in `ipam.ranges`.
    fn refused(set: &str) -> (String, String) {
        let error =
            add(&with_ipam(&format!(r#"{{"ranges":[[{{"subnet":"10.9.0.0/24"}}],{set}]}}"#)));
        let error = error.unwrap_err();
        assert_eq!(error.code, Code::Config, "{set}");
        (error.msg, error.details)
    }

    #[test]
    fn a_bad_range_is_refused_in_host_locals_words() {
        let at = "ipam.ranges[1][0]";
        for (range, msg, field) in [
            (r#"{}"#, "IP <nil> not v4 nor v6", ""),
            (r#"{"subnet":null}"#, "IP <nil> not v4 nor v6", ""),
            (
                r#"{"subnet":"10.0.0.1/31"}"#,
                "Network 10.0.0.1/31 too small to allocate from",
                ".subnet must be a /30 or larger",
            ),
            (
                r#"{"subnet":"2001:db8::/127"}"#,
                "Network 2001:db8::/127 too small to allocate from",
                ".subnet must be a /126 or larger",
            ),
            (
                r#"{"subnet":"::ffff:10.0.0.0/120"}"#,
                "IPNet IP and Mask version mismatch",
                ".subnet is an IPv4 network written as IPv6",
            ),
            (
                r#"{"subnet":"192.0.2.12/24"}"#,
                "Network has host bits set. For a subnet mask of length 24 the network address \
                 is 192.0.2.0",
                ".subnet must be 192.0.2.0/24",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}"#,
                "RangeStart 10.0.1.1 not in network 10.0.0.0/24",
                ".rangeStart must be from 10.0.0.0 to 10.0.0.255, and not after rangeEnd",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}"#,
                "RangeStart 10.0.0.9 not in network 10.0.0.0/24",
                ".rangeStart",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.255"}"#,
                "RangeStart 10.0.0.255 is the broadcast address of 10.0.0.0/24: no address is \
                 left after it",
                ".rangeStart must be lower, or rangeEnd must be 10.0.0.255 too",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.0"}"#,
                "RangeEnd 10.0.0.0 not in network 10.0.0.0/24",
                ".rangeEnd must be from 10.0.0.0",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","sandbox":["10.0.0.1"]}"#,
                "sandbox lists 10.0.0.1, which is the range's gateway",
                ".sandbox may list addresses",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","sandbox":["10.0.0.5"],"smallflow":["10.0.0.5"]}"#,
                "smallflow lists 10.0.0.5, which is listed twice",
                ".smallflow may list",
            ),
        ] {
            let (got, details) = refused(&format!("[{range}]"));
            assert_eq!(got, format!("invalid range set 1: {msg}"));
            assert!(details.starts_with(&format!("{at}{field}")), "{details}");
        }
    }

    #[test]
    fn a_bad_set_is_refused_in_host_locals_words() {
        assert_eq!(refused("[]").0, "invalid range set 1: empty range set");
        let mixed = refused(r#"[{"subnet":"10.0.0.0/24"},{"subnet":"2001:db8::/64"}]"#);
        assert_eq!(mixed.0, "invalid range set 1: mixed address families");
        assert!(mixed.1.starts_with("ipam.ranges[1] must be of one family"));
        let overlap = refused(r#"[{"subnet":"10.0.0.0/24"},{"subnet":"10.0.0.0/25"}]"#);
        assert_eq!(
            overlap.0,
            "invalid range set 1: subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.126 overlap"
        );
        let across = refused(r#"[{"subnet":"10.9.0.0/16"}]"#);
        assert_eq!(across.0, "range set 0 overlaps with 1");
        assert!(across.1.starts_with("set 0 is 10.9.0.1-10.9.0.254, set 1 is 10.9.0.1-"));
    }

    #[test]
    fn texts_and_types_are_checked_with_their_place() {
        for (set, msg, details) in [
            (r#"[{"subnet":""}]"#, "invalid CIDR address: ", "ipam.ranges[1][0].subnet must"),
            (r#"[{"subnet":"10.0.0.0"}]"#, "invalid CIDR address: 10.0.0.0", ""),
            (r#"[{"subnet":"010.0.0.0/24"}]"#, "invalid CIDR address: 010.0.0.0/24", ""),
            (
                r#"[{"subnet":"10.0.0.0/24","gateway":"10.0.0.1/24"}]"#,
                "invalid IP address: 10.0.0.1/24",
                "ipam.ranges[1][0].gateway must be an address",
            ),
            ("5", "ipam.ranges[1] must be an array, not a number", ""),
            ("null", "ipam.ranges[1] must be an array, not null", ""),
            ("[null]", "ipam.ranges[1][0] must be an object, not null", ""),
            (r#"[{"subnet":5}]"#, "ipam.ranges[1][0].subnet must be a string, not a number", ""),
            (
                r#"[{"subnet":"10.0.0.0/24","sandbox":[""]}]"#,
                "ipam.ranges[1][0].sandbox[0] must be an address, not empty",
                "",
            ),
            (
                r#"[{"subnet":"10.0.0.0/24","sandbox":[7]}]"#,
                "ipam.ranges[1][0].sandbox[0] must be a string, not a number",
                "",
            ),
        ] {
            let (got, got_details) = refused(set);
            assert_eq!(got, msg);
            assert!(got_details.starts_with(details), "{got_details}");
        }
    }

    #[test]
    fn block_sizes_go_by_family() {
        let ranges = r#""ranges":[[{"subnet":"10.0.0.0/16"}],[{"subnet":"2001:db8::/64"}]]"#;
        let ipam = with_ipam(&format!(r#"{{"blockSize":28,"blockSize6":116,{ranges}}}"#));
        let sets = add(&ipam).unwrap().sets;
        assert_eq!(
            sets.iter().map(|set| set.block_size).collect::<Vec<_>>(),
            [4, 12].map(|log2| Some(BlockSize::of_log2(log2)))
        );
        let error = code_of(&with_ipam(&format!(r#"{{"blockSize":19,{ranges}}}"#)), Code::Config);
        assert_eq!(error.msg, "ipam.blockSize must be a prefix length from 20 to 32, not 19");
        let error = code_of(&with_ipam(&format!(r#"{{"blockSize6":129,{ranges}}}"#)), Code::Config);
        assert_eq!(error.msg, "ipam.blockSize6 must be a prefix length from 116 to 128, not 129");
        let error = code_of(&with_ipam(&format!(r#"{{"blockSize":"28",{ranges}}}"#)), Code::Config);
        assert_eq!(error.msg, "ipam.blockSize must be a whole number, not a string");
    }
}
