//! Judges whether an answer is one to CNI at all: no matter which program listens on the socket,
//! what the runtime reads must be JSON of the right outline.

use serde_core::de::IgnoredAny;
use serde_json::Value;

use super::command::Command;
use super::failure::{DECODING, TRY_AGAIN};

/// Returns whether the body is a result: an object, or nothing where the command has no result.
pub(super) fn is_result(command: Command, body: &[u8]) -> bool {
    if body.is_empty() {
        return command != Command::Add;
    }
    // `IgnoredAny` does not check strings for UTF-8, so this does.
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Returns whether the body is an error object: one with a version, a code and a message.
pub(super) fn is_error(body: &[u8]) -> bool {
    let object: Value = serde_json::from_slice(body).unwrap_or_default();
    let has_text = |key: &str| object[key].as_str().is_some_and(|text| !text.is_empty());
    has_text("cniVersion") && has_text("msg") && object["code"].is_u64()
}

/// Returns whether the body is an error object that says to try again later.
pub(super) fn is_try_again(body: &[u8]) -> bool {
    let object: Value = serde_json::from_slice(body).unwrap_or_default();
    object["code"] == TRY_AGAIN
}

/// Returns whether the body is an error object about a key that the daemon does not know.
pub(super) fn names_unknown_key(body: &[u8], key: &str) -> bool {
    let object: Value = serde_json::from_slice(body).unwrap_or_default();
    let names = |msg: &str| msg.contains("unknown key") && msg.contains(key);
    object["code"] == DECODING && object["msg"].as_str().is_some_and(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_objects_and_only_an_add_needs_one() {
        for body in [r#"{"ips":[]}"#, " {}\n"] {
            assert!(is_result(Command::Add, body.as_bytes()), "{body}");
        }
        assert!(is_result(Command::Del, b"") && !is_result(Command::Add, b""));
        for body in [b"null".as_slice(), b"[]", b"{", b"{} x", b"{\"a\":\"\xff\"}", b"not found"] {
            assert!(!is_result(Command::Del, body), "{}", body.escape_ascii());
        }
        let deep = if cfg!(miri) { 1_000 } else { 100_000 };
        assert!(!is_result(Command::Add, &b"{\"a\":".repeat(deep)));
    }

    #[test]
    fn errors_have_a_version_a_code_and_a_message() {
        assert!(is_error(br#"{"cniVersion":"1.1.0","code":100,"msg":"no address is free"}"#));
        for body in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"code":7,"msg":"m"}"#,
            r#"{"cniVersion":"1.1.0","code":"7","msg":"m"}"#,
            r#"{"cniVersion":"1.1.0","code":7,"msg":""}"#,
        ] {
            assert!(!is_error(body.as_bytes()), "{body}");
        }
    }
}
