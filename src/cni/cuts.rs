//! `exclude` and `reserved` of a range: addresses that are never handed out, and those that are
//! handed out only if they are asked for by name.

use crate::core::address::{Cidr, Family};
use crate::core::interval::Intervals;
use crate::core::range::Range;
use crate::limits::CUTS_MAX;

use super::error::Error;
use super::ip;
use super::json_cursor::JsonCursor;

/// The addresses that are excluded from a range, and those that are reserved in it.
pub(super) type Cut = (Intervals, Intervals);

/// Reads the cuts of a configuration, and counts them.
#[derive(Default)]
pub(super) struct Cuts {
    /// The entries of all `exclude` and `reserved` so far.
    entries: usize,
}

impl Cuts {
    /// Reads what a range object excludes and reserves.
    pub(super) fn of(&mut self, node: &JsonCursor<'_>, range: &Range) -> Result<Cut, Error> {
        Ok((self.list(node, "exclude", range)?, self.list(node, "reserved", range)?))
    }

    fn list(
        &mut self,
        node: &JsonCursor<'_>,
        key: &'static str,
        range: &Range,
    ) -> Result<Intervals, Error> {
        let mut cut = Intervals::default();
        let Some(items) = node.items(key, CUTS_MAX)? else {
            return Ok(cut);
        };
        self.entries += items.len();
        if self.entries > CUTS_MAX {
            let what = "brings the entries of exclude and reserved to more than the";
            return Err(items.array.refuse(format_args!("{what} {CUTS_MAX} that are allowed")));
        }
        for item in items.iter() {
            let text = item.text()?;
            let Some(net) = ip::net_or_address(text) else {
                let what = format!("must be an address or a CIDR, not {text:?}");
                return Err(item.refuse(what));
            };
            let (cidr, whole) = (Cidr::of(net.trunc()), Cidr::of(range.subnet));
            let outside = !cidr.meets(whole);
            if Family::of(net.addr()) != range.family() || outside {
                return Err(item.refuse(format_args!("is not in the subnet {}", range.subnet)));
            }
            cut.insert(cidr.range());
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::vectors::{add, with_ipam};
    use crate::core::address::Address;

    #[test]
    fn excluded_and_reserved_addresses_are_cut_out() {
        let set = |more: &str| {
            let range = format!(r#"{{"subnet":"10.0.0.0/8"{more}}}"#);
            add(&with_ipam(&format!(r#"{{"ranges":[[{range}]]}}"#)))
        };
        let shown = |more: &str| {
            let sets = set(more).unwrap().sets;
            let piece =
                |range: &Range| format!("{range}{}", if range.reserved { " reserved" } else { "" });
            sets[0].iter().map(piece).collect::<Vec<_>>()
        };
        let exclude = r#","exclude":["10.0.0.0/9","10.128.0.7"],"reserved":["10.128.0.9/31"]"#;
        assert_eq!(
            shown(exclude),
            [
                "10.128.0.0-10.128.0.6",
                "10.128.0.8-10.128.0.9 reserved",
                "10.128.0.10-10.255.255.254",
            ]
        );
        for (more, msg) in [
            (r#","exclude":"10.0.0.1""#, "ipam.ranges[0][0].exclude must be an array"),
            (r#","exclude":["x"]"#, "ipam.ranges[0][0].exclude[0] must be an address or a CIDR"),
            (r#","reserved":["fd00::1"]"#, "ipam.ranges[0][0].reserved[0] is not in the subnet"),
            (r#","exclude":["11.0.0.1"]"#, "ipam.ranges[0][0].exclude[0] is not in the subnet"),
            (r#","exclude":["10.0.0.0/8"]"#, "invalid range set 0: exclude leaves no address"),
            (
                r#","exclude":["10.0.0.9"],"sandbox":["10.0.0.9"]"#,
                "invalid range set 0: sandbox lists 10.0.0.9, which is excluded",
            ),
        ] {
            let error = set(more).unwrap_err();
            assert!(error.msg.starts_with(msg), "{more}: {error:?}");
        }
    }

    #[test]
    fn the_gateway_of_another_range_is_not_offered() {
        let ipam = r#"{"ranges":[[
            {"subnet":"10.0.0.0/24","rangeStart":"10.0.0.2","rangeEnd":"10.0.0.9"},
            {"subnet":"10.0.0.0/24","rangeStart":"10.0.0.20","rangeEnd":"10.0.0.29",
             "gateway":"10.0.0.5"}]]}"#;
        let sets = add(&with_ipam(ipam)).unwrap().sets;
        let not = |range: &Range| {
            range.addresses().iter().filter(|number| !range.offers(*number, None)).collect()
        };
        let not: Vec<Vec<Address>> = sets[0].iter().map(not).collect();
        let gateway = Address::of([10, 0, 0, 5].into());
        assert_eq!(not, [vec![], vec![gateway], vec![], vec![]]);
        let asked = sets[0].find(gateway).unwrap();
        assert!(asked.is_gateway(gateway));
    }
}
