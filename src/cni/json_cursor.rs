//! Walks a configuration as Go's `encoding/json` decodes it into host-local's types: keys match in
//! any case, the last of two equal keys wins, unknown keys are ignored, and `null` means absent.
//! Unlike there, an error names its place in the configuration.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::error::{Code, Error};
use super::ip;
use super::json::Json;

/// A value of a configuration and the path to it. The path is built on the stack and costs nothing
/// until it is printed.
#[derive(Clone, Copy)]
pub(super) struct JsonCursor<'a> {
    json: &'a Json<'a>,
    path: Path<'a>,
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Self, &'static str),
    Item(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Path::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl<'a> JsonCursor<'a> {
    /// The top of a configuration.
    pub(super) fn root(json: &'a Json<'a>) -> Self {
        Self { json, path: Path::Root }
    }

    /// The member of an object, `null` included. A value that is not an object has no members.
    pub(super) fn raw(&self, key: &'static str) -> Option<JsonCursor<'_>> {
        let path = Path::Key(&self.path, key);
        self.json.member(key).map(|json| JsonCursor { json, path })
    }

    /// The member of an object, unless it is absent or `null`. A value that is not an object has no
    /// members.
    pub(super) fn get(&self, key: &'static str) -> Option<JsonCursor<'_>> {
        self.raw(key).filter(|node| !node.is_null())
    }

    /// The member of that key, which must be an object.
    pub(super) fn object(&self, key: &'static str) -> Result<Option<JsonCursor<'_>>, Error> {
        self.get(key).map(JsonCursor::an_object).transpose()
    }

    /// The member of that key, which must be a string.
    pub(super) fn string(&self, key: &'static str) -> Result<Option<&str>, Error> {
        self.get(key).map(|node| node.text()).transpose()
    }

    /// The member of that key, which must be a whole number.
    pub(super) fn integer(&self, key: &'static str) -> Result<Option<i64>, Error> {
        self.get(key).map(|node| node.whole()).transpose()
    }

    /// The member of that key, which must be an address; the empty text means no address.
    pub(super) fn address(&self, key: &'static str) -> Result<Option<IpAddr>, Error> {
        let node = self.get(key);
        node.map_or(Ok(None), |node| node.an_address())
    }

    /// The items of the member of that key, which must be an array of at most `max`.
    pub(super) fn items(&self, key: &'static str, max: usize) -> Result<Option<Items<'_>>, Error> {
        self.get(key).map(|node| node.an_array(max)).transpose()
    }

    /// The path to the value.
    pub(super) fn path(&self) -> impl fmt::Display {
        self.path
    }

    /// The keys of an object as they are written, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let pairs = match self.json {
            Json::Object(pairs) => pairs.as_slice(),
            _ => &[],
        };
        pairs.iter().map(|(key, _)| &**key)
    }

    /// True if the value is `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.json, Json::Null)
    }

    /// True if the value is `true`.
    pub(super) fn is_true(&self) -> bool {
        matches!(self.json, Json::Bool(true))
    }

    /// True if both values are the same.
    pub(super) fn same(&self, other: &JsonCursor<'_>) -> bool {
        self.json == other.json
    }

    /// Returns the value itself, if it is an object.
    pub(super) fn an_object(self) -> Result<Self, Error> {
        match self.json {
            Json::Object(_) => Ok(self),
            _ => Err(self.not("an object")),
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Result<&'a str, Error> {
        match self.json {
            Json::String(text) => Ok(text),
            _ => Err(self.not("a string")),
        }
    }

    /// The items of an array of at most `max`.
    pub(super) fn an_array(self, max: usize) -> Result<Items<'a>, Error> {
        match self.json {
            Json::Array(items) if items.len() <= max => Ok(Items { array: self, items }),
            Json::Array(items) => Err(self.too_many(items.len(), max)),
            _ => Err(self.not("an array")),
        }
    }

    /// The string as an address; `None` if it is empty.
    pub(super) fn an_address(&self) -> Result<Option<IpAddr>, Error> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let address = ip::address(text);
        address.map(Some).ok_or_else(|| {
            let msg = format!("invalid IP address: {text}");
            self.blame(msg, "must be an address without a prefix length, such as 10.1.2.3")
        })
    }

    fn whole(&self) -> Result<i64, Error> {
        match *self.json {
            Json::Unsigned(number) => i64::try_from(number).ok(),
            Json::Negative(number) => Some(number),
            Json::Float(_) => None,
            _ => return Err(self.not("a whole number")),
        }
        .ok_or_else(|| self.refuse("must be a whole number that fits in 64 bits"))
    }

    /// An error whose message names the value's place and its fault.
    pub(super) fn refuse(&self, what: impl fmt::Display) -> Error {
        Error::new(Code::Config, format!("{} {what}", self.path)).at(self.path)
    }

    /// An error with host-local's message. The details name the value's place and the remedy.
    pub(super) fn blame(&self, msg: impl Into<String>, what: impl fmt::Display) -> Error {
        let details = format!("{} {what}", self.path);
        Error::new(Code::Config, msg).with_details(details).at(self.path)
    }

    /// The error for an array that is too long.
    pub(super) fn too_many(&self, len: usize, max: usize) -> Error {
        self.refuse(format_args!("has {len} entries, more than the {max} that are allowed"))
    }

    fn not(&self, what: &str) -> Error {
        self.refuse(format_args!("must be {what}, not {}", self.json.kind()))
    }

    /// An address with its prefix length.
    pub(super) fn cidr(&self) -> Result<IpNet, Error> {
        let text = self.text()?;
        ip::net(text).ok_or_else(|| {
            let msg = format!("invalid CIDR address: {text}");
            self.blame(msg, "must be an address with a prefix length, such as 10.1.2.0/24")
        })
    }
}

/// The items of an array.
#[derive(Clone, Copy)]
pub(super) struct Items<'a> {
    /// The array itself.
    pub(super) array: JsonCursor<'a>,
    items: &'a [Json<'a>],
}

impl Items<'_> {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The items in order, `null` included.
    pub(super) fn iter(&self) -> impl Iterator<Item = JsonCursor<'_>> {
        let path = &self.array.path;
        let items = self.items.iter().enumerate();
        items.map(move |(i, json)| JsonCursor { json, path: Path::Item(path, i) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(text: &str, f: impl FnOnce(JsonCursor<'_>) -> T) -> T {
        let json = Json::parse(text.as_bytes(), "text").unwrap();
        f(JsonCursor::root(&json))
    }

    #[test]
    fn keys_count_in_any_case_and_the_last_wins() {
        with(r#"{"subnet":"a","SUBNET":"b","Subnet":"c","x":1}"#, |node| {
            assert_eq!(node.string("subnet"), Ok(Some("c")));
            assert_eq!(node.string("gateway"), Ok(None));
        });
        with(r#"{"a":null}"#, |node| {
            assert_eq!(node.string("a"), Ok(None));
            assert!(node.raw("a").unwrap().is_null());
        });
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let text =
            r#"{"ipam":{"ranges":[[{},{"subnet":5}],7],"mtu":1.5,"big":9223372036854775808}}"#;
        with(text, |root| {
            let ipam = root.object("ipam").unwrap().unwrap();
            let sets = ipam.items("ranges", 9).unwrap().unwrap();
            let sets: Vec<_> = sets.iter().collect();
            let ranges = sets[0].an_array(9).unwrap();
            let range = ranges.iter().nth(1).unwrap();
            let error = range.string("subnet").unwrap_err();
            assert_eq!(error.code, Code::Config);
            assert_eq!(error.msg, "ipam.ranges[0][1].subnet must be a string, not a number");
            let error = sets[1].an_array(9).err().unwrap();
            assert_eq!(error.msg, "ipam.ranges[1] must be an array, not a number");
            let error = sets[0].an_array(1).err().unwrap();
            assert_eq!(error.msg, "ipam.ranges[0] has 2 entries, more than the 1 that are allowed");
            for key in ["mtu", "big"] {
                let error = ipam.integer(key).unwrap_err();
                assert_eq!(
                    error.msg,
                    format!("ipam.{key} must be a whole number that fits in 64 bits")
                );
            }
            let error = ipam.integer("ranges").unwrap_err();
            assert_eq!(error.msg, "ipam.ranges must be a whole number, not an array");
            let error = root.string("ipam").unwrap_err();
            assert_eq!(error.msg, "ipam must be a string, not an object");
        });
    }

    #[test]
    fn an_address_is_checked_and_the_empty_one_is_none() {
        with(r#"{"a":"","b":"::ffff:10.0.0.1","c":"10.0.0.01"}"#, |node| {
            assert_eq!(node.address("a"), Ok(None));
            assert_eq!(node.address("b"), Ok(Some([10, 0, 0, 1].into())));
            let error = node.address("c").unwrap_err();
            assert_eq!(error.msg, "invalid IP address: 10.0.0.01");
            assert_eq!(
                error.details,
                "c must be an address without a prefix length, such as 10.1.2.3"
            );
        });
    }
}
