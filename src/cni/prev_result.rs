//! The result of the ADD, which the configuration of a CHECK repeats as `prevResult`.

use ipnet::IpNet;

use super::error::Error;
use super::json_cursor::JsonCursor;

/// The addresses in `prevResult`, in the form of any version: `ips[].address`, or `ip4.ip` and
/// `ip6.ip`. `None` without a `prevResult`.
///
/// # Errors
/// `Code::Config`.
pub(super) fn prev_ips(root: &JsonCursor<'_>) -> Result<Option<Vec<IpNet>>, Error> {
    let Some(result) = root.object("prevResult")? else {
        return Ok(None);
    };
    let mut found = Vec::new();
    // The body bounds the list.
    if let Some(ips) = result.items("ips", usize::MAX)? {
        for item in ips.iter() {
            let item = item.an_object()?;
            let address = item.get("address");
            found.push(address.ok_or_else(|| item.refuse("has no address"))?.cidr()?);
        }
    }
    for key in ["ip4", "ip6"] {
        let of_family = result.object(key)?;
        if let Some(ip) = of_family.as_ref().and_then(|of_family| of_family.get("ip")) {
            found.push(ip.cidr()?);
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use crate::cni::error::Code;
    use crate::cni::parse::parse;
    use crate::cni::request::Body;
    use crate::cni::vectors::{Call, code_of, with_ipam};

    fn call(more: &str) -> Call {
        let ipam = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}]]}"#;
        Call { command: "CHECK", version: "0.4.0", more: more.into(), ..with_ipam(ipam) }
    }

    fn body(more: &str) -> Body {
        parse(call(more).body().as_bytes()).unwrap().body
    }

    #[test]
    fn a_check_reads_the_result_in_every_shape() {
        let prev_ips = |more: &str| match body(more) {
            Body::Check(check) => check.prev_ips,
            other => panic!("{other:?}"),
        };
        let nets = |nets: &[&str]| Some(nets.iter().map(|net| net.parse().unwrap()).collect());
        assert_eq!(prev_ips(""), None);
        assert_eq!(prev_ips(r#","prevResult":null"#), None);
        assert_eq!(prev_ips(r#","prevResult":{}"#), nets(&[]));
        let new = r#","prevResult":{"interfaces":[{}],"ips":[{"address":"10.1.2.2/24",
            "interface":0},{"address":"2001:db8::2/64"}]}"#;
        assert_eq!(prev_ips(new), nets(&["10.1.2.2/24", "2001:db8::2/64"]));
        let old = r#","prevResult":{"ip6":{"ip":"2001:db8::2/64"},"ip4":{"ip":"10.1.2.2/24"}}"#;
        assert_eq!(prev_ips(old), nets(&["10.1.2.2/24", "2001:db8::2/64"]));
        for (more, msg) in [
            (r#","prevResult":[]"#, "prevResult must be an object, not an array"),
            (r#","prevResult":{"ips":[{}]}"#, "prevResult.ips[0] has no address"),
            (r#","prevResult":{"ips":[{"address":"x"}]}"#, "invalid CIDR address: x"),
            (
                r#","prevResult":{"ip4":{"ip":5}}"#,
                "prevResult.ip4.ip must be a string, not a number",
            ),
        ] {
            assert_eq!(code_of(&call(more), Code::Config).msg, msg);
        }
    }
}
