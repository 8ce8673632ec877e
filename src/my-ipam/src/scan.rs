//! Takes members out of a JSON object as far as brackets and quotes go, also if its nesting,
//! numbers, surrogates, commas or bytes are wrong. Only a DEL is read so, since an error would
//! strand addresses. The daemon uses it too.

/// The mark with which some editors begin a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Calls `each` with every member of an object, in order: its key, if that is text, and its value
/// as it stands. It goes on after a fault as long as it is certain which object a member is of: up
/// to the end of the object or of the text, to a bracket that does not fit, or to a colon without a
/// key.
pub fn members<'a>(input: &'a [u8], mut each: impl FnMut(Option<String>, &'a [u8])) {
    let mut text = Text { rest: input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input) };
    if text.take(b'{').is_none() {
        return;
    }
    loop {
        if text.take(b',').is_some() {
            continue;
        }
        let Some(key) = text.value().filter(|key| !key.is_empty()) else { return };
        if text.take(b':').is_none() {
            continue;
        }
        let Some(value) = text.value() else { return };
        if !value.is_empty() {
            each(serde_json::from_slice(key).ok(), value);
        }
    }
}

/// Returns the name in a configuration: the last one, in any case of its key, as in Go.
#[must_use]
pub fn name(input: &[u8]) -> Option<String> {
    let mut name = None;
    members(input, |key, value| {
        if is(key.as_deref(), "name") && value != b"null" {
            name = serde_json::from_slice(value).ok();
        }
    });
    name
}

/// Returns whether a key is this one, in any case.
pub(crate) fn is(key: Option<&str>, name: &str) -> bool {
    key.is_some_and(|key| key.eq_ignore_ascii_case(name))
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

    /// Takes a value of any kind: a string, something in brackets, or other bytes up to what cannot
    /// be part of a number or a word. It is empty if none is there; nothing if it does not end, or
    /// its brackets do not fit.
    fn value(&mut self) -> Option<&'a [u8]> {
        self.rest = self.rest.trim_ascii_start();
        let mut open = Vec::new();
        let mut at = 0;
        loop {
            let byte = *self.rest.get(at)?;
            let is_first = at == 0 || !open.is_empty();
            match byte {
                b'"' | b'\'' if is_first => at += string_length(&self.rest[at..], byte)?,
                b'{' | b'[' if is_first => {
                    open.push(if byte == b'{' { b'}' } else { b']' });
                    at += 1;
                }
                b'}' | b']' if !open.is_empty() => {
                    open.pop().filter(|fits| *fits == byte)?;
                    at += 1;
                }
                _ if open.is_empty() && is_end(byte) => break,
                _ => {
                    at += 1;
                    continue;
                }
            }
            if open.is_empty() {
                break;
            }
        }
        self.first(at)
    }

    fn first(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(first)
    }
}

/// Returns whether a byte ends a word or a number.
fn is_end(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b",:{}[]\"'".contains(&byte)
}

/// The length of the string at the begin of a text, quotes included.
fn string_length(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match *text.get(at)? {
            byte if byte == quote => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn the_last_name_counts() {
        assert_eq!(name(b"{}"), None);
        assert_eq!(name(br#"{"name":"a","Name":"b","NAME":null}"#), Some("b".to_owned()));
        assert_eq!(
            name(b"{\"a\":[{\"name\":\"x\xff\\\"\"}] , \"name\" : \"n\" }\n"),
            Some("n".into())
        );
        for bad in [&b"5"[..], b"", b"\"name\":\"n\"", br#"[{"name":"n"}]"#, br#"{"name":5}"#] {
            assert_eq!(name(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_name_is_found_beside_any_fault() {
        for config in [
            &br#"{"name":"n""#[..],
            br#"{"name":"n"}}"#,
            br#"{"name":"n",}"#,
            br#"{"name":"n" "x":1}"#,
            br#"{"x":1 "name":"n"}"#,
            br#"{"x":"y" "name":"n"}"#,
            br#"{"x":{"y":1} "name":"n"}"#,
            br#"{"name":"n","x":"#,
            br#"{"name":"n","x":"y"#,
            br#"{"name":"n","x":[{"name":"no""#,
            br#"{"x":NaN,"name":"n"}"#,
            br#"{"x":,"name":"n"}"#,
            br#"{"x","name":"n"}"#,
            br#"{,"name":"n"}"#,
            br#"{'a':1,"name":"n"}"#,
            br#"{'a,"name":"no"':1,"name":"n"}"#,
            br#"{"name":"n",'a,"name":"no"':1}"#,
            br#"{a:1,"name":"n"}"#,
            br#"{{"name":"no"}:1,"name":"n"}"#,
            br#"{"name":"n","x":[1},"name":"no"}"#,
            b"\xef\xbb\xbf{\"name\":\"n\"}",
        ] {
            assert_eq!(name(config).as_deref(), Some("n"), "{}", config.escape_ascii());
        }
    }

    #[test]
    fn a_name_further_in_is_never_taken() {
        for config in [
            &br#"{"ipam":{"name":"no"}"#[..],
            br#"{"ipam":{"name":"no""#,
            br#"{"ipam":{"a":1],"name":"no"}}"#,
            br#"{"ipam":{"a":[1},"name":"no"}}"#,
            br#"{"ipam":"type":"x","name":"no"},"name":"n"}"#,
            br#"{"ipam"::{"name":"no"}}"#,
            br#"{"ipam":{"a":"b,"name":"no"}}"#,
            br#"{"a":"b,"name":"no"}"#,
            br#"{"ipam" {"name":"no"}}"#,
            br#"{],"name":"no"}"#,
        ] {
            assert_eq!(name(config), None, "{}", config.escape_ascii());
        }
    }
}
