//! The list of valid attachments in the configuration of a GC.

use super::error::Error;
use super::json_cursor::JsonCursor;
use super::request::{Gc, Id};

/// The two spellings of the list of attachments that a GC leaves alone; libcni sends both.
const VALID_ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// The attachments that a GC leaves alone (CNI specification 1.1, section "GC"). `null` is an empty
/// list, because Go prints one so; without either key there is no list. An attachment in either of
/// the lists stays.
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

#[cfg(test)]
mod tests {
    use crate::cni::error::Code;
    use crate::cni::parse::parse;
    use crate::cni::request::Body;
    use crate::cni::vectors::{Call, code_of, with_ipam};

    fn call(more: &str) -> Call {
        let ipam = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}]]}"#;
        Call { command: "GC", version: "1.1.0", more: more.into(), ..with_ipam(ipam) }
    }

    fn body(more: &str) -> Body {
        parse(call(more).body().as_bytes()).unwrap().body
    }

    #[test]
    fn a_gc_without_a_list_says_nothing() {
        let valid = |more: &str| match body(more) {
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
        let error = code_of(&call(r#","cni.dev/attachments":[{"ifname":"eth0"}]"#), Code::Config);
        assert_eq!(error.msg, "cni.dev/attachments[0] has no containerID");
        let no_ipam = Call { ipam: "5".into(), ..call("") };
        assert!(parse(no_ipam.body().as_bytes()).is_ok());
    }
}
