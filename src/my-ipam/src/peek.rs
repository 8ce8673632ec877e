//! Reads what the plugin must know of the configuration: the socket, the path of a `resolv.conf`,
//! and the version for error objects.
//!
//! The daemon says whether the configuration is right. So this never fails: it takes what it finds
//! up to the first fault. Keys match in any case and the last one wins, as in Go's JSON, which
//! host-local's users are used to. It costs microseconds.

use std::fmt;

use serde_core::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor,
};
use serde_json::Value;

use crate::scan::{self, is};

/// The version in error objects and in VERSION where the configuration names none.
const VERSION_USUAL: &str = "1.1.0";

/// The values that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Peek {
    /// `ipam.socket`, if it is a non-empty string.
    pub(super) socket: Option<String>,
    /// `ipam.waitSeconds`, if it is a whole number.
    pub(super) wait_s: Option<u64>,
    /// `ipam.resolvConf`, if it is a non-empty string.
    pub(super) resolv_conf: Option<String>,
    /// `cniVersion`, if it is a non-empty string.
    version: Option<String>,
}

impl Peek {
    pub(super) fn at(config: &[u8]) -> Self {
        let mut found = Self::default();
        let mut json = serde_json::Deserializer::from_slice(config);
        // A fault only ends the search: see above.
        let _ = Object { found: &mut found, inside_ipam: false }.deserialize(&mut json);
        found
    }

    /// Looks for the socket and the version in a configuration that has faults: a DEL must reach
    /// the daemon that holds its addresses, also if the rest of the configuration is wrong.
    pub(super) fn look_behind_faults(&mut self, config: &[u8]) {
        let string = |value: &[u8]| {
            serde_json::from_slice::<String>(value).ok().filter(|text| !text.is_empty())
        };
        scan::members(config, |key, value| {
            if is(key.as_deref(), "cniVersion") {
                self.version = string(value).or_else(|| self.version.take());
            } else if is(key.as_deref(), "ipam") {
                scan::members(value, |key, value| {
                    if is(key.as_deref(), "socket") {
                        self.socket = string(value);
                    }
                });
            }
        });
    }

    pub(super) fn version(&self) -> &str {
        self.version.as_deref().unwrap_or(VERSION_USUAL)
    }
}

/// The configuration, or its `ipam`: keeps what it finds at once, so that a fault further on does
/// not lose it.
struct Object<'a> {
    found: &'a mut Peek,
    inside_ipam: bool,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<Key>()? {
            match key {
                Key::Socket if self.inside_ipam => {
                    self.found.socket = text(entries.next_value()?);
                }
                Key::Wait if self.inside_ipam => {
                    self.found.wait_s = entries.next_value::<Value>()?.as_u64();
                }
                Key::ResolvConf if self.inside_ipam => {
                    self.found.resolv_conf = text(entries.next_value()?);
                }
                Key::Version if !self.inside_ipam => {
                    self.found.version = text(entries.next_value()?);
                }
                Key::Ipam if !self.inside_ipam => {
                    entries
                        .next_value_seed(Object { found: &mut *self.found, inside_ipam: true })?;
                }
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A key, as far as it counts.
enum Key {
    Socket,
    Wait,
    ResolvConf,
    Version,
    Ipam,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        let is = |name: &str| key.eq_ignore_ascii_case(name);
        Ok(match () {
            () if is("socket") => Key::Socket,
            () if is("waitSeconds") => Key::Wait,
            () if is("resolvConf") => Key::ResolvConf,
            () if is("cniVersion") => Key::Version,
            () if is("ipam") => Key::Ipam,
            () => Key::Other,
        })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(config: &str) -> (Option<String>, Option<String>) {
        let Peek { socket, version, .. } = Peek::at(config.as_bytes());
        (socket, version)
    }

    fn both(socket: &str, version: &str) -> (Option<String>, Option<String>) {
        (Some(socket.to_owned()), Some(version.to_owned()))
    }

    #[test]
    fn finds_both_in_any_order_and_case() {
        let config = r#"{"cniVersion":"1.0.0","x":[{"socket":"/no"}],"ipam":{"socket":"/s"}}"#;
        assert_eq!(peek(config), both("/s", "1.0.0"));
        let config = r#"{"IPAM":{"ipam":{"socket":"/no"},"Socket":"/a\u0062"},"cniversion":"1"}"#;
        assert_eq!(peek(config), both("/ab", "1"));
        let config = r#"{"ipam":{"socket":"/1"},"ipam":{"socket":"/2","socket":"/3"}}"#;
        assert_eq!(peek(config), (Some("/3".to_owned()), None));
    }

    #[test]
    fn other_kinds_and_empty_strings_count_as_absent() {
        for config in [
            r#"{"cniVersion":1,"ipam":{"socket":["/s"]}}"#,
            r#"{"cniVersion":"","ipam":{"socket":""}}"#,
            r#"{"ipam":"/s"}"#,
            r#"{"socket":"/s"}"#,
            "[]",
            "",
            "\u{fffd}",
        ] {
            assert_eq!(peek(config), (None, None), "{config}");
        }
        assert_eq!(Peek::at(b"\xff").version(), "1.1.0");
    }

    #[test]
    fn a_wait_is_a_whole_number_of_seconds() {
        let wait = |config: &str| Peek::at(config.as_bytes()).wait_s;
        assert_eq!(wait(r#"{"ipam":{"waitSeconds":7}}"#), Some(7));
        assert_eq!(wait(r#"{"ipam":{"waitSeconds":0}}"#), Some(0));
        for config in [r#"{"waitSeconds":7}"#, r#"{"ipam":{"waitSeconds":"7"}}"#, "{}"] {
            assert_eq!(wait(config), None, "{config}");
        }
    }

    #[test]
    fn a_del_finds_its_daemon_behind_faults() {
        let behind = br#"{"x":"\xff","ipam":{"socket":"/s"}}"#;
        assert_eq!(Peek::at(behind).socket, None, "else nobody would have to look");
        let deep = format!(
            r#"{{"x":{}{},"ipam":{{"y":1e999,"socket":"/s"}},"cniVersion":"1.0.0"}}"#,
            "[".repeat(9999),
            "]".repeat(9999)
        );
        for config in [
            deep.as_bytes(),
            br#"{"x":"\ud800","ipam":{"socket":"/s"},"cniVersion":"1.0.0"}"#,
            b"{\"x\":\"\xff\",\"cniVersion\":\"1.0.0\",\
              \"ipam\":{\"y\":\"\xff\",\"socket\":\"/s\"}}",
        ] {
            let mut peek = Peek::at(config);
            peek.look_behind_faults(config);
            assert_eq!((peek.socket.as_deref(), peek.version()), (Some("/s"), "1.0.0"));
        }
    }

    #[test]
    fn keeps_what_it_found_before_a_fault() {
        let config = r#"{"cniVersion":"0.4.0","ipam":{"socket":"/s","range"#;
        assert_eq!(peek(config), both("/s", "0.4.0"));
        let deep = "[".repeat(if cfg!(miri) { 1_000 } else { 1 << 20 });
        let deep = format!(r#"{{"cniVersion":"0.4.0","x":{deep}"#);
        assert_eq!(peek(&deep), (None, Some("0.4.0".to_owned())));
    }
}
