//! The ids of containers.

use std::borrow::Cow;
use std::fmt;

/// Bytes that 64 digits stand for.
const DIGEST_BYTES: usize = 32;

/// `CNI_CONTAINERID`. Runtimes name containers by 64 hexadecimal digits, which take half the memory
/// as the number they stand for, and no allocation; any other text is kept as it is. Ordered, but
/// not as texts are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Form);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    /// Written with lower-case digits.
    Digest([u8; DIGEST_BYTES]),
    Text(Box<str>),
}

impl ContainerId {
    /// Returns the id as its runtime wrote it.
    pub fn to_text(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Digest(digest) => {
                let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
                let mut text = String::with_capacity(2 * DIGEST_BYTES);
                text.extend(
                    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
                );
                text.into()
            }
            Form::Text(text) => (&**text).into(),
        }
    }

    /// Returns from where on, in order, ids begin with this text: those of 64 digits, and others.
    /// They end with the first one that does not.
    pub fn first_with(prefix: &str) -> impl Iterator<Item = Self> + use<> {
        let digits = digest(&format!("{prefix:0<width$}", width = 2 * DIGEST_BYTES));
        digits
            .map(|digest| Self(Form::Digest(digest)))
            .into_iter()
            .chain([Self(Form::Text(prefix.into()))])
    }

    /// Returns whether the id begins with this text.
    pub fn starts_with(&self, prefix: &str) -> bool {
        self.to_text().starts_with(prefix)
    }
}

impl From<&str> for ContainerId {
    fn from(text: &str) -> Self {
        Self(digest(text).map_or_else(|| Form::Text(text.into()), Form::Digest))
    }
}

impl From<String> for ContainerId {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_text())
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.to_text(), f)
    }
}

/// Returns the bytes that 64 lower-case hexadecimal digits stand for.
fn digest(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let pairs = text.as_bytes().as_chunks::<2>().0;
    let mut digest = [0; DIGEST_BYTES];
    if text.len() != 2 * DIGEST_BYTES {
        return None;
    }
    for (byte, &[high, low]) in digest.iter_mut().zip(pairs) {
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(digest)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_comes_back_as_it_was_written() {
        let digits = "0123456789abcdef".repeat(4);
        let upper = digits.to_uppercase();
        let almost = format!("{}g", &digits[1..]);
        let longer = format!("{digits}00");
        for (text, packed) in [
            (&*digits, true),
            (&upper, false),
            (&almost, false),
            (&longer, false),
            (&digits[2..], false),
            ("c1", false),
            ("", false),
        ] {
            let id = ContainerId::from(text);
            assert_eq!(matches!(id.0, Form::Digest(_)), packed, "{text}");
            assert_eq!((&*id.to_text(), id.to_string(), format!("{id:?}")), {
                (text, text.to_owned(), format!("{text:?}"))
            });
            assert_eq!(id, ContainerId::from(id.to_string()));
        }
        assert_ne!(ContainerId::from(&*digits), ContainerId::from(&*upper));
    }
}
