//! JSON in the form in which CNI plugins print it.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// JSON indented by four spaces, without a trailing newline, as CNI plugins print it.
pub(super) fn pretty(value: &impl Serialize) -> String {
    let mut out = Vec::with_capacity(512);
    let mut to = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    // Memory takes all that is written, and every key here is a string: nothing can fail.
    let written = value.serialize(&mut to).is_ok();
    debug_assert!(written);
    String::from_utf8(out).unwrap_or_default()
}
