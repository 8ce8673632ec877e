//! What a configuration says about the past: the result of the ADD, for a CHECK, and who is still
//! there, for a GC.

use ipnet::IpNet;

use super::error::Error;
use super::json_cursor::JsonCursor;
use super::request::{Gc, Id};

/// The two spellings of the list of attachments that a GC leaves alone; libcni sends both.
const VALID_ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// Who is still there at a GC (CNI specification 1.1, section "GC"). `null` is what Go makes of
/// an empty list; only the absence of both keys says nothing. An attachment in either list stays.
///
/// # Errors
/// `Code::Config`.
pub(super) fn gc(root: &JsonCursor<'_>) -> Result<Gc, Error> {
    let [list, misspelt] = VALID_ATTACHMENTS.map(|key| root.raw(key));
    let misspelt = misspelt.filter(|other| !list.as_ref().is_some_and(|list| list.same(other)));
    let mut valid = None;
    for list in [list, misspelt].into_iter().flatten() {
        let valid: &mut Vec<Id> = valid.get_or_insert_default();
        if list.is_null() {
            continue;
        }
        // The body bounds the list.
        for item in list.an_array(usize::MAX)?.iter() {
            let item = item.an_object()?;
            let member = |key| {
                let text = item.string(key)?.filter(|text| !text.is_empty());
                text.ok_or_else(|| item.refuse(format_args!("has no {key}")))
            };
            let container_id = member("containerID")?.into();
            let ifname = member("ifname")?.into();
            valid.push(Id { container_id, ifname });
        }
    }
    Ok(Gc { valid })
}

/// The addresses in `prevResult`, in the shape of any version: `ips[].address`, or `ip4.ip` and
/// `ip6.ip`. None without a `prevResult`.
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
    use crate::cni::request::{Body, Request};
    use crate::cni::vectors::{Call, code_of, with_ipam};

    fn call(command: &'static str, version: &'static str, more: &str) -> Call {
        let ipam = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}]]}"#;
        Call { command, version, more: more.into(), ..with_ipam(ipam) }
    }

    fn parsed(call: &Call) -> Request {
        parse(call.body().as_bytes()).unwrap()
    }

    #[test]
    fn a_check_reads_the_result_in_every_shape() {
        let prev_ips = |more: &str| match parsed(&call("CHECK", "0.4.0", more)).body {
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
            assert_eq!(code_of(&call("CHECK", "0.4.0", more), Code::Config).msg, msg);
        }
    }

    #[test]
    fn a_gc_without_a_list_says_nothing() {
        let valid = |more: &str| match parsed(&call("GC", "1.1.0", more)).body {
            Body::Gc(gc) => gc.valid.map(|ids| {
                ids.iter().map(|id| format!("{}/{}", id.container_id, id.ifname)).collect()
            }),
            other => panic!("{other:?}"),
        };
        let some = |ids: &[&str]| -> Option<Vec<String>> {
            Some(ids.iter().map(|&id| id.to_owned()).collect())
        };
        assert_eq!(valid(""), None);
        let (a, b) =
            (r#"{"containerID":"a","ifname":"eth0"}"#, r#"{"containerId":"b","IfName":"net1"}"#);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            assert_eq!(valid(&format!(r#","{key}":null"#)), some(&[]));
            assert_eq!(valid(&format!(r#","{key}":[]"#)), some(&[]));
            assert_eq!(valid(&format!(r#","{key}":[{a},{b}]"#)), some(&["a/eth0", "b/net1"]));
        }
        let both = |one: &str, two: &str| {
            valid(&format!(r#","cni.dev/valid-attachments":{one},"cni.dev/attachments":{two}"#))
        };
        assert_eq!(both(&format!("[{a}]"), &format!("[{a}]")), some(&["a/eth0"]));
        assert_eq!(both("null", &format!("[{b}]")), some(&["b/net1"]));
        assert_eq!(both(&format!("[{a}]"), &format!("[{b}]")), some(&["a/eth0", "b/net1"]));
        let error = code_of(
            &call("GC", "1.1.0", r#","cni.dev/attachments":[{"ifname":"eth0"}]"#),
            Code::Config,
        );
        assert_eq!(error.msg, "cni.dev/attachments[0] has no containerID");
        let no_ipam = Call { ipam: "5".into(), ..call("GC", "1.1.0", "") };
        assert!(parse(no_ipam.body().as_bytes()).is_ok());
    }
}
