//! Takes what a DEL needs out of a configuration that cannot be read. Its fault was there at the
//! ADD, or is newer than the ADD, and an error would only strand the addresses. So depth, numbers
//! and texts count only as far as brackets and quotes go; only the name must be good.

use super::envelope::plugin_parts;

/// The body of the plugin's DEL with its name alone for a configuration; nothing if it is no DEL,
/// or has no name, or if more follows the configuration.
pub(super) fn del(body: &[u8]) -> Option<Vec<u8>> {
    let (head, input) = plugin_parts(body)?;
    if !head.starts_with(b"{\"command\":\"DEL\"") {
        return None;
    }
    let name = serde_json::to_string(&name(input)?).ok()?;
    Some([head, b"\n{\"name\":", name.as_bytes(), b"}\n}"].concat())
}

/// The name in a configuration: the last one, in any case of its key, as in Go.
fn name(input: &[u8]) -> Option<String> {
    let mut text = Text { rest: input };
    let mut name = None;
    text.take(b'{')?;
    if text.take(b'}').is_none() {
        loop {
            let key = text.string()?;
            text.take(b':')?;
            let value = text.value()?;
            let key: Option<String> = serde_json::from_slice(key).ok();
            if key.is_some_and(|key| key.eq_ignore_ascii_case("name")) && value != b"null" {
                name = serde_json::from_slice(value).ok();
            }
            if text.take(b',').is_none() {
                break text.take(b'}')?;
            }
        }
    }
    text.rest.trim_ascii().is_empty().then_some(name).flatten()
}

/// The rest of a text.
struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    /// Takes one byte, after white space.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.trim_ascii_start().strip_prefix(&[byte])?;
        Some(())
    }

    /// Takes a string, with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.rest = self.rest.trim_ascii_start();
        let length = string_length(self.rest)?;
        self.first(length)
    }

    /// Takes a value of any kind, as far as brackets and strings tell where it ends.
    fn value(&mut self) -> Option<&'a [u8]> {
        self.rest = self.rest.trim_ascii_start();
        let (mut depth, mut at) = (0_usize, 0);
        loop {
            match self.rest.get(at)? {
                b'"' => at += string_length(&self.rest[at..])?,
                b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
                b',' | b'}' | b']' if depth == 0 => break,
                b'}' | b']' => (depth, at) = (depth - 1, at + 1),
                _ => at += 1,
            }
        }
        let value = self.first(at)?.trim_ascii_end();
        (!value.is_empty()).then_some(value)
    }

    fn first(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(first)
    }
}

/// The length of the string at the begin of a text, quotes included.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = text.starts_with(b"\"").then_some(1)?;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::name;
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
    fn a_del_works_whatever_else_the_configuration_says() {
        let deep = format!(r#"{{"a":{}{},"name":"n"}}"#, "[".repeat(9999), "]".repeat(9999));
        for config in [
            deep.as_bytes(),
            br#"{"name":"n","a":"\ud800"}"#,
            br#"{"\ud800":1,"name":"n"}"#,
            br#"{"name":"n","a":1e999999}"#,
            b"{\"a\":\"\xff\",\"name\":\"n\"}",
            b"{\"\xff\":{\"name\":\"no\"} , \"NAME\" : \"n\" , \"a\":[\"]}\", 1e999] } \n",
        ] {
            let request = parse(&call("DEL", config)).unwrap();
            assert_eq!(&*request.network, "n", "{}", config.escape_ascii());
            assert_eq!(request.started_at.map(|at| at.as_nanos()), Some(7));
            let other = parse(&call("CHECK", config)).unwrap_err();
            assert_eq!(other.code, Code::Decode, "only a DEL is so lenient");
        }
    }

    #[test]
    fn what_has_no_name_or_no_end_is_refused() {
        for config in [
            &b"{\"name\":\"\xff\"}"[..],
            b"{\"name\":\"\\ud800\"}",
            br#"{"a":1e999}"#,
            br#"{"name":"n","a":1e999"#,
            br#"{"name":"n","a":1e999},"undo":true"#,
            br#"{"name":"n" 1e999}"#,
            br#"{"name":"n","a":[}"#,
            br#"{"name":"n",}"#,
            b"5",
            b"",
        ] {
            let error = parse(&call("DEL", config)).unwrap_err();
            assert_eq!(error.code, Code::Decode, "{}", config.escape_ascii());
        }
        assert_eq!(name(b"{}"), None);
        assert_eq!(name(br#"{"name":"a","Name":"b","NAME":null}"#), Some("b".to_owned()));
    }
}
