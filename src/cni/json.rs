//! JSON as it was written: every key of an object, in order, twice if it is there twice. Texts are
//! borrowed from the body. Reading keys as Go does (see `json_cursor.rs`) needs that.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Code, Error};

/// The bytes of a line that are quoted on either side of a syntax error.
const QUOTE_BYTES: usize = 60;

/// One JSON value.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    String(Cow<'a, str>),
    Array(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Json<'a> {
    /// Parses a whole text. `what` is its name in messages, such as `request body`.
    ///
    /// # Errors
    /// [`Code::Decode`] with line and column when it is not JSON, or nested deeper than 128.
    pub(super) fn parse(text: &'a [u8], what: &str) -> Result<Self, Error> {
        serde_json::from_slice(text).map_err(|error| syntax(text, what, &error))
    }

    /// The member of an object with that key in any case, the last if there are several. A value
    /// that is not an object has no members.
    pub(super) fn member(&self, key: &str) -> Option<&Self> {
        let Self::Object(pairs) = self else {
            return None;
        };
        let last = pairs.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key));
        last.map(|(_, value)| value)
    }

    /// The kind of the value, for messages: `a string`, `an object`, ...
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Unsigned(_) | Self::Negative(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// The error for a text that is not JSON, with the place and the remedy.
fn syntax(text: &[u8], what: &str, error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let full = error.to_string();
    let suffix = format!(" at line {line} column {column}");
    let why = full.strip_suffix(&suffix).unwrap_or(&full);
    let msg = format!("{what} is not valid JSON{suffix}: {why}");
    let at = offset(text, line, column);
    let details = if why == "trailing comma" {
        comma(text, at)
    } else {
        quote(text, at).map(|quote| format!("line {line} reads: {quote}"))
    };
    Error::new(Code::Decode, msg).with_details(details.unwrap_or_default())
}

/// The remedy for a trailing comma, which is before the bracket where the parser noticed it.
fn comma(text: &[u8], bracket: usize) -> Option<String> {
    let at = text.get(..bracket)?.iter().rposition(|&byte| byte == b',')?;
    let line = 1 + text[..at].iter().filter(|&&byte| byte == b'\n').count();
    let column = at - line_start(text, at) + 1;
    let quote = quote(text, at)?;
    Some(format!(
        "remove the comma at line {line} column {column}: JSON allows none before a closing \
         bracket; line {line} reads: {quote}"
    ))
}

/// The offset of a line and column, both counted from one; at most the length of the text.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let before = text.split_inclusive(|&byte| byte == b'\n').take(line.saturating_sub(1));
    let start: usize = before.map(<[u8]>::len).sum();
    (start + column.saturating_sub(1)).min(text.len())
}

/// The offset at which the line of another offset starts.
fn line_start(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1)
}

/// The line around an offset, shortened; `None` if it is blank.
fn quote(text: &[u8], at: usize) -> Option<String> {
    let at = at.min(text.len());
    let first = line_start(text, at).max(at.saturating_sub(QUOTE_BYTES));
    let rest = &text[at..];
    let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    let line = String::from_utf8_lossy(&text[first..at + end.min(QUOTE_BYTES)]);
    let line = line.trim();
    if line.is_empty() { None } else { Some(line.to_owned()) }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = from.next_element()? {
            array.push(value);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json<'de>, A::Error> {
        let mut object = Vec::new();
        while let Some((Key(key), value)) = from.next_entry()? {
            object.push((key, value));
        }
        Ok(Json::Object(object))
    }
}

/// A key, borrowed when it has no escapes (serde's own `Cow` is always owned).
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(value.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Error {
        let error = Json::parse(text.as_bytes(), "text").unwrap_err();
        assert_eq!(error.code, Code::Decode);
        error
    }

    #[test]
    fn nothing_of_an_object_is_lost() {
        let json = Json::parse(br#"{"b":1,"\u0061":[true,-2,0.5],"b":null}"#, "text").unwrap();
        let Json::Object(pairs) = json else {
            panic!("not an object");
        };
        let keys: Vec<_> = pairs.iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, ["b", "a", "b"]);
        assert!(matches!(pairs[0].0, Cow::Borrowed(_)));
        let array = vec![Json::Bool(true), Json::Negative(-2), Json::Float(0.5)];
        assert_eq!(pairs[1].1, Json::Array(array));
        assert_eq!(pairs[2].1, Json::Null);
    }

    #[test]
    fn a_trailing_comma_is_pointed_at() {
        let error = error("{\n  \"routes\": [\n    {\"dst\": \"0.0.0.0/0\"},\n  ]\n}");
        assert_eq!(error.msg, "text is not valid JSON at line 4 column 3: trailing comma");
        assert_eq!(
            error.details,
            "remove the comma at line 3 column 25: JSON allows none before a closing bracket; \
             line 3 reads: {\"dst\": \"0.0.0.0/0\"},"
        );
    }

    #[test]
    fn any_other_slip_is_quoted() {
        let one = error("{\"a\": 1 \"b\": 2}");
        assert!(one.msg.starts_with("text is not valid JSON at line 1 column 9: expected"));
        assert_eq!(one.details, "line 1 reads: {\"a\": 1 \"b\": 2}");
        let long = format!("[{}x]", "1,".repeat(5000));
        assert!(error(&long).details.len() < 3 * QUOTE_BYTES);
        assert_eq!(error("").details, "");
    }

    #[test]
    fn bytes_that_are_not_json_are_an_error_not_a_crash() {
        assert!(error(&"[".repeat(100_000)).msg.ends_with("recursion limit exceeded"));
        assert!(error("{} x").msg.ends_with("trailing characters"));
        for text in
            [&b"\xff"[..], b"{\"a\":\"\xff\"}", b"{\"\xc3(\":1}", b"\xef\xbb\xbf{}", b"\"\\ud800\""]
        {
            assert!(Json::parse(text, "text").is_err(), "{text:?}");
        }
    }
}
