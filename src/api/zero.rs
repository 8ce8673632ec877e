//! Numbers that are 0 in JSON where the program has none: for `#[serde(with = "zero")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::ids::{Epoch, Revision};
use crate::core::time::UnixTime;

/// A value with a number that is not 0.
pub(crate) trait Number: Copy {
    /// Returns the number.
    fn number(self) -> u64;
    /// Returns the value with this number; none for 0.
    fn of(number: u64) -> Option<Self>;
}

impl Number for Epoch {
    fn number(self) -> u64 {
        self.get()
    }

    fn of(number: u64) -> Option<Self> {
        Self::new(number)
    }
}

impl Number for Revision {
    fn number(self) -> u64 {
        self.get()
    }

    fn of(number: u64) -> Option<Self> {
        Self::new(number)
    }
}

/// In milliseconds since 1970.
impl Number for UnixTime {
    fn number(self) -> u64 {
        self.as_millis()
    }

    fn of(number: u64) -> Option<Self> {
        (number > 0).then(|| Self::from_millis(number))
    }
}

/// Returns the number; 0 for none.
pub(crate) fn or_zero<T: Number>(value: Option<T>) -> u64 {
    value.map_or(0, Number::number)
}

// serde asks for a reference.
#[allow(clippy::ref_option)]
pub(super) fn serialize<T: Number, S: Serializer>(
    value: &Option<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    or_zero(*value).serialize(to)
}

pub(super) fn deserialize<'a, T: Number, D: Deserializer<'a>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    u64::deserialize(from).map(T::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Row {
        #[serde(with = "super")]
        epoch: Option<Epoch>,
        #[serde(with = "super")]
        since: Option<UnixTime>,
    }

    #[test]
    fn none_is_zero_in_json_and_only_there() {
        for (row, text) in [
            (Row { epoch: None, since: None }, r#"{"epoch":0,"since":0}"#),
            (
                Row { epoch: Epoch::new(7), since: Some(UnixTime::from_millis(9)) },
                r#"{"epoch":7,"since":9}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&row).unwrap(), text);
            assert_eq!(serde_json::from_str::<Row>(text).unwrap(), row);
        }
    }
}
