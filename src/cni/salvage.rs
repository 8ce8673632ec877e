//! Takes what a DEL needs out of a configuration that cannot be read. Its fault was there at the
//! ADD, or is newer than the ADD, and an error would only strand the addresses. So depth, numbers
//! and texts count only as far as brackets and quotes go; only the name must be good.

use my_ipam::scan::name;

use super::envelope::plugin_parts;

/// The body of the plugin's DEL with its name alone for a configuration; nothing if it is no DEL,
/// or has no name.
pub(super) fn del(body: &[u8]) -> Option<Vec<u8>> {
    let (head, input) = plugin_parts(body)?;
    if !head.starts_with(b"{\"command\":\"DEL\"") {
        return None;
    }
    let name = serde_json::to_string(&name(input)?).ok()?;
    Some([head, b"\n{\"name\":", name.as_bytes(), b"}\n}"].concat())
}

#[cfg(test)]
mod tests {
    use crate::cni::error::Code;
    use crate::cni::parse::parse;

    fn call(command: &str, config: &[u8]) -> Vec<u8> {
        let head = format!(
            "{{\"command\":\"{command}\",\"containerId\":\"c\",\"netns\":\"/n\",\"ifname\":\"e\",\
             \"args\":\"\",\"path\":\"/p\",\"startedAt\":7,\"config\":\n"
        );
        [head.as_bytes(), config, b"\n}"].concat()
    }

    #[test]
    fn a_del_works_with_any_other_fault_in_the_configuration() {
        let deep = format!(r#"{{"a":{}{},"name":"n"}}"#, "[".repeat(9999), "]".repeat(9999));
        for config in [
            deep.as_bytes(),
            br#"{"name":"n","a":"\ud800"}"#,
            br#"{"\ud800":1,"name":"n"}"#,
            br#"{"name":"n","a":1e999999}"#,
            b"{\"a\":\"\xff\",\"name\":\"n\"}",
            b"{\"\xff\":{\"name\":\"no\"} , \"NAME\" : \"n\" , \"a\":[\"]}\", 1e999] } \n",
            br#"{"name":"n","a":1e999"#,
            br#"{"name":"n" "a":1}"#,
            br#"{"name":"n","a":[}"#,
            br#"{"name":"n",}"#,
            br#"{"name":"n","a":"#,
            br#"{"a":NaN,"name":"n"}"#,
            br#"{'a':1,"name":"n"}"#,
            b"\xef\xbb\xbf{\"name\":\"n\"}",
            // The input cannot add keys to the call.
            br#"{"name":"n","a":1e999},"undo":true"#,
        ] {
            let request = parse(&call("DEL", config)).unwrap();
            assert_eq!(&*request.network, "n", "{}", config.escape_ascii());
            assert_eq!(request.started_at.map(|at| at.as_nanos()), Some(7));
            assert!(!request.undo, "{}", config.escape_ascii());
            let other = parse(&call("CHECK", config)).unwrap_err();
            assert_eq!(other.code, Code::Decode, "only a DEL is so lenient");
        }
    }

    #[test]
    fn what_has_no_name_is_refused() {
        for config in [
            &b"{\"name\":\"\xff\"}"[..],
            b"{\"name\":\"\\ud800\"}",
            br#"{"a":1e999}"#,
            br#"{"ipam":{"name":"n"}"#,
            b"5",
            b"",
        ] {
            let error = parse(&call("DEL", config)).unwrap_err();
            assert_eq!(error.code, Code::Decode, "{}", config.escape_ascii());
        }
    }
}
