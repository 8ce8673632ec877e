//! Takes members out of a JSON object as far as brackets and quotes go, also if its nesting,
//! numbers, surrogates or bytes are wrong. Only a DEL is read so, since an error would strand
//! addresses. The daemon uses it too.

/// Calls `each` with every member of an object, in order: its key, if that is text, and its value
/// as it stands. Returns nothing if the object does not end, or if more follows it; the members up
/// to there were given all the same.
#[must_use]
pub fn members<'a>(input: &'a [u8], mut each: impl FnMut(Option<String>, &'a [u8])) -> Option<()> {
    let mut text = Text { rest: input };
    text.take(b'{')?;
    if text.take(b'}').is_none() {
        loop {
            let key = text.string()?;
            text.take(b':')?;
            let value = text.value()?;
            each(serde_json::from_slice(key).ok(), value);
            if text.take(b',').is_none() {
                break text.take(b'}')?;
            }
        }
    }
    text.rest.trim_ascii().is_empty().then_some(())
}

/// Returns the name in a configuration: the last one, in any case of its key, as in Go.
#[must_use]
pub fn name(input: &[u8]) -> Option<String> {
    let mut name = None;
    members(input, |key, value| {
        if is(key.as_deref(), "name") && value != b"null" {
            name = serde_json::from_slice(value).ok();
        }
    })?;
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

    #[test]
    fn the_last_name_counts_and_only_a_whole_object_has_one() {
        assert_eq!(name(b"{}"), None);
        assert_eq!(name(br#"{"name":"a","Name":"b","NAME":null}"#), Some("b".to_owned()));
        assert_eq!(
            name(b"{\"a\":[{\"name\":\"x\xff\\\"\"}] , \"name\" : \"n\" }\n"),
            Some("n".into())
        );
        for bad in [&br#"{"name":"n""#[..], br#"{"name":"n"}}"#, br#"{"name":"n",}"#, b"5", b""] {
            assert_eq!(name(bad), None, "{}", bad.escape_ascii());
        }
    }
}
