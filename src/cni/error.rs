//! The CNI error object and its codes.

use std::fmt;
use std::num::NonZeroU64;

use serde_json::{Map, Value};

use super::print::pretty;
use super::version::Version;

/// Longest `msg` and longest `details` that are printed, in bytes: both can quote a caller's text.
const TEXT_BYTES_MAX: usize = 4096;

/// Longest `cniVersion` that is echoed, in bytes.
const VERSION_BYTES_MAX: usize = 64;

/// The kind of failure that an error object reports. Codes below 100 are those of the CNI
/// specification 1.1, section "Error"; codes from 100 up are Leasehold's own.
///
/// Only codes that some answer uses are here. Code 3 ("container unknown") never will be: to a
/// runtime it means that no DEL is needed, which Leasehold never claims.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Code {
    /// The configuration's `cniVersion` is not supported, or does not allow the command.
    IncompatibleVersion = 1,
    /// A `CNI_*` variable is missing or bad.
    Environment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The request or the configuration is not JSON, or not of the expected structure.
    Decode = 6,
    /// The configuration is wrong.
    Config = 7,
    /// The same call may succeed later.
    TryAgain = 11,
    /// STATUS: this node cannot serve an ADD now.
    NotAvailable = 50,
    /// No address is free.
    Exhausted = 100,
    /// The attachment already holds other addresses than it asks for.
    AlreadyHeld = 101,
    /// A requested address is not available.
    Taken = 102,
    /// CHECK: the attachment does not hold the addresses that it should.
    CheckFailed = 103,
    /// The container's DEL came before its ADD.
    Overtaken = 104,
    /// The pod's namespace may not use the pool or the stage.
    NotAllowed = 105,
    /// A fault in Leasehold.
    Internal = 199,
}

/// Every code with its short name, which is a metric label, and its meaning.
const TABLE: [(Code, &str, &str); 14] = [
    (
        Code::IncompatibleVersion,
        "incompatible_version",
        "the configuration's cniVersion is not supported, or does not allow the command",
    ),
    (Code::Environment, "environment", "a CNI_* variable is missing or bad"),
    (Code::Io, "io", "reading or writing failed"),
    (
        Code::Decode,
        "decode",
        "the request or the configuration is not JSON, or not of the expected structure",
    ),
    (Code::Config, "config", "the configuration is wrong"),
    (Code::TryAgain, "try_again", "the same call may succeed later"),
    (Code::NotAvailable, "not_available", "STATUS: this node cannot serve an ADD now"),
    (Code::Exhausted, "exhausted", "no address is free"),
    (
        Code::AlreadyHeld,
        "already_held",
        "the attachment already holds other addresses than it asks for",
    ),
    (Code::Taken, "taken", "a requested address is not available"),
    (
        Code::CheckFailed,
        "check_failed",
        "CHECK: the attachment does not hold the addresses that it should",
    ),
    (Code::Overtaken, "overtaken", "the container's DEL came before its ADD"),
    (Code::NotAllowed, "not_allowed", "the pod's namespace may not use the pool or the stage"),
    (Code::Internal, "internal", "a fault in Leasehold"),
];

impl Code {
    /// All codes, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|&(code, ..)| code)
    }

    /// The `code` of the error object.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The short name: a metric label, never reworded.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// One sentence for people.
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Self, &'static str, &'static str) {
        let row = TABLE.iter().find(|&&(code, ..)| code == self);
        // A test keeps the table complete; the last row, "internal", is never wrong.
        row.unwrap_or(&TABLE[TABLE.len() - 1])
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The CNI error object.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{msg}")]
pub struct Error {
    /// The configuration's `cniVersion`; empty when it is not known.
    pub cni_version: String,
    /// The kind of failure.
    pub code: Code,
    /// The fault, in host-local's words if host-local reports the same fault.
    pub msg: String,
    /// The place of the fault, and its remedy; may be empty.
    pub details: String,
    /// The path of the value at fault in the configuration, such as `ipam.ranges[0][0].subnet`, if
    /// it is known; for tools that look for it, not printed.
    pub place: Box<str>,
    /// The command of the call that failed, if it is known; for metrics, not printed.
    pub verb: Option<&'static str>,
    /// The number of the call that failed, if the log has lines with it: it ends the details, since
    /// runtimes pass on what a failed plugin prints on stdout, and nothing else of it.
    pub call: Option<NonZeroU64>,
}

impl Error {
    /// An error of an unknown `cniVersion`, without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        let (cni_version, details, place) = Default::default();
        Self { cni_version, code, msg: msg.into(), details, place, verb: None, call: None }
    }

    /// The same error, at this path.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self { place: place.to_string().into(), ..self }
    }

    /// The same error, of the call with this number; 0 is none.
    #[must_use]
    pub fn of_call(self, call: u64) -> Self {
        Self { call: NonZeroU64::new(call), ..self }
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The same error for a configuration of this `cniVersion`.
    #[must_use]
    pub fn version(self, cni_version: &str) -> Self {
        Self { cni_version: cni_version.to_owned(), ..self }
    }

    /// The text that the plugin prints: JSON indented by four spaces, without a trailing newline.
    /// `cniVersion` is the newest supported one if the configuration's is not known; empty
    /// `details` are left out (CNI specification 1.1, section "Error").
    pub fn render(&self) -> String {
        let echo = self.cni_version.as_str();
        let known = !echo.is_empty() && echo.len() <= VERSION_BYTES_MAX;
        let version = if known { echo } else { Version::NEWEST.as_str() };
        let mut object = Map::new();
        object.insert("cniVersion".into(), Value::from(version));
        object.insert("code".into(), Value::from(self.code.number()));
        object.insert("msg".into(), Value::from(clip(&self.msg)));
        let mut details = clip(&self.details);
        if let Some(call) = self.call {
            let between = if details.is_empty() { "" } else { "; " };
            details.push_str(&format!("{between}call={call} in the log of the daemon"));
        }
        if !details.is_empty() {
            object.insert("details".into(), Value::from(details));
        }
        pretty(&object)
    }
}

/// The text, or its start if it is too long to print.
fn clip(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(TEXT_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code_once_in_order() {
        let all = [
            Code::IncompatibleVersion,
            Code::Environment,
            Code::Io,
            Code::Decode,
            Code::Config,
            Code::TryAgain,
            Code::NotAvailable,
            Code::Exhausted,
            Code::AlreadyHeld,
            Code::Taken,
            Code::CheckFailed,
            Code::Overtaken,
            Code::NotAllowed,
            Code::Internal,
        ];
        assert!(Code::all().eq(all));
        assert!(all.is_sorted());
        for code in all {
            assert_eq!(code.row().0, code);
            assert!(!code.meaning().is_empty());
            let row = format!("| {} | `{}` | ", code.number(), code.name());
            assert!(include_str!("../../docs/reference.md").contains(&row), "{row}");
        }
        let numbers: Vec<_> = Code::all().map(Code::number).collect();
        assert_eq!(numbers, [1, 4, 5, 6, 7, 11, 50, 100, 101, 102, 103, 104, 105, 199]);
    }

    #[test]
    fn the_object_is_printed_as_the_specification_has_it() {
        let error = Error::new(Code::Config, "bad \"x\" <y>").version("0.4.0");
        assert_eq!(
            error.render(),
            "{\n    \"cniVersion\": \"0.4.0\",\n    \"code\": 7,\n    \
             \"msg\": \"bad \\\"x\\\" <y>\"\n}"
        );
        let error = Error::new(Code::Overtaken, "late").with_details("why");
        assert_eq!(
            error.render(),
            "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 104,\n    \"msg\": \"late\",\n    \
             \"details\": \"why\"\n}"
        );
    }

    #[test]
    fn the_number_of_the_call_ends_the_details() {
        let details = |error: Error| {
            let object: Value = serde_json::from_str(&error.render()).unwrap();
            object["details"].as_str().unwrap().to_owned()
        };
        let error = Error::new(Code::Exhausted, "full").of_call(17);
        assert_eq!(details(error.clone()), "call=17 in the log of the daemon");
        let error = error.with_details("add a range");
        assert_eq!(details(error.clone()), "add a range; call=17 in the log of the daemon");
        let long = details(error.with_details("x".repeat(1 << 20)));
        assert!(long.ends_with("...; call=17 in the log of the daemon"), "it is not cut off");
    }

    #[test]
    fn what_it_quotes_is_bounded() {
        let error = Error::new(Code::Config, "é".repeat(1 << 20))
            .with_details("x".repeat(1 << 20))
            .version(&"9".repeat(1 << 20));
        assert!(error.render().len() < 3 * TEXT_BYTES_MAX);
    }
}
