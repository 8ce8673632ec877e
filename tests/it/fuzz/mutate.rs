//! Mutations of JSON and of bytes.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Marks in a value for text that a [`Value`] cannot hold; they are replaced in the final text.
const MARKS: [(&str, &str); 4] = [
    ("\"@1e400@\"", "1e400"),
    ("\"@2^64@\"", "18446744073709551616"),
    ("\"@-2^70@\"", "-1180591620717411303424"),
    ("\"@surrogate@\"", "\"\\ud800\""),
];
/// The key that becomes another key of its object, once more.
const TWICE: &str = "@twice@";
/// Texts with a meaning in some field, in the wrong place or at an edge.
const TEXTS: [&str; 44] = [
    "",
    " ",
    "\0",
    "a/b",
    ".",
    "..",
    "../../etc/passwd",
    "/dev/zero",
    "/proc/self/mem",
    "é\u{202e}\u{ffff}",
    "ADD",
    "DEL",
    "CHECK",
    "GC",
    "STATUS",
    "VERSION",
    "add",
    "0.1.0",
    "0.2.0",
    "0.3.1",
    "0.4.0",
    "1.0.0",
    "1.1.0",
    "9.9.9",
    "1.0",
    "::",
    "::/0",
    "0.0.0.0/0",
    "255.255.255.255",
    "10.1.2.0/31",
    "10.1.2.255",
    "10.1.2.3/24",
    "10.1.2.0/24",
    "010.1.2.0/24",
    "2001:db8::/127",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe80::1%eth0",
    "::ffff:10.1.2.3",
    "IP=10.1.2.3",
    "IP=;IgnoreUnknown=1",
    "a=b=c;;",
    "K8S_POD_NAME=pay-10-sandbox-84f8cc5d4b-8v4fw;IgnoreUnknown=1",
    "fuzz-one",
    "fuzz-two",
];

/// An odd value.
fn odd(rng: &mut Rng) -> Value {
    match rng.u8(..22) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(0.5),
        7 => json!([]),
        8 => json!({}),
        9 => json!([[]]),
        10 => json!([{}]),
        11 => json!(["10.1.2.9", "10.1.2.9/24", "", null]),
        12 => nested(rng.usize(2..200)),
        13 => json!("x".repeat(rng.usize(1..5_000))),
        14 => json!("10.1.2.".repeat(rng.usize(1..50))),
        15 => {
            let (mark, _) = MARKS[rng.usize(..MARKS.len())];
            json!(mark.trim_matches('"'))
        }
        16 => json!([[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.250" }, {}]]),
        17 => json!(vec![json!([{ "subnet": "10.1.2.0/24" }]); rng.usize(1..300)]),
        18 => json!(rng.i64(..)),
        _ => json!(TEXTS[rng.usize(..TEXTS.len())]),
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, level| match level % 3 {
        0 => json!({ "ipam": inner }),
        _ => json!([inner]),
    })
}

/// The pointers to all parts of a value, itself included.
fn pointers(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        let mut inside = |key: &str, value: &Value| {
            let key = key.replace('~', "~0").replace('/', "~1");
            walk(value, &format!("{at}/{key}"), found);
        };
        match value {
            Value::Object(members) => members.iter().for_each(|(key, value)| inside(key, value)),
            Value::Array(items) => {
                let items = items.iter().take(20).enumerate();
                items.for_each(|(index, value)| inside(&index.to_string(), value));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

/// Changes one thing.
fn slip(rng: &mut Rng, root: &mut Value) {
    let pointers = pointers(root);
    let other = root.pointer(&pointers[rng.usize(..pointers.len())]).cloned();
    let pointer = &pointers[rng.usize(..pointers.len())];
    let Some(value) = root.pointer_mut(pointer) else { return };
    match (rng.u8(..10), value) {
        (0 | 1, Value::Object(members)) if !members.is_empty() => {
            let key = members.keys().nth(rng.usize(..members.len())).cloned();
            drop(key.and_then(|key| members.remove(&key)));
        }
        (2, Value::Object(members)) => change_key(rng, members),
        (3, Value::Object(members)) => {
            drop(members.insert(TWICE.to_owned(), other.unwrap_or_default()));
        }
        (0..=2, Value::Array(items)) if !items.is_empty() => {
            let item = items[rng.usize(..items.len())].clone();
            let count = rng.usize(..10);
            items.extend(vec![item; if count == 0 { 300 } else { count }]);
        }
        (3, Value::Array(items)) => items.clear(),
        (0..=3, Value::String(text)) => *text = spoiled(rng, text),
        (4 | 5, value) => *value = other.unwrap_or_default(),
        (_, value) => *value = odd(rng),
    }
}

/// A key in another case, or another key.
fn change_key(rng: &mut Rng, members: &mut Map<String, Value>) {
    let Some(key) = members.keys().nth(rng.usize(..members.len().max(1))).cloned() else { return };
    let value = members.remove(&key).unwrap_or_default();
    let key = match rng.u8(..4) {
        0 => key.to_uppercase(),
        1 => TEXTS[rng.usize(..TEXTS.len())].to_owned(),
        2 => "undo".to_owned(),
        _ => "startedAt".to_owned(),
    };
    members.insert(key, value);
}

/// A text with one character more, less or changed.
fn spoiled(rng: &mut Rng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let at = rng.usize(..=characters.len());
    match rng.u8(..3) {
        0 => characters.insert(at, rng.char(..)),
        1 if at < characters.len() => drop(characters.remove(at)),
        _ if at < characters.len() => characters[at] = rng.char('!'..='~'),
        _ => {}
    }
    characters.into_iter().collect()
}

/// A call with some mutations, as text.
pub(super) fn json_text(rng: &mut Rng, call: &Value) -> String {
    let mut call = call.clone();
    for _ in 0..rng.usize(1..5) {
        slip(rng, &mut call);
    }
    let mut text = call.to_string();
    for (mark, meant) in MARKS {
        text = text.replace(mark, meant);
    }
    let keys = ["command", "config", "name", "ipam", "subnet", "cniVersion", "ranges"];
    text.replace(TWICE, keys[rng.usize(..keys.len())])
}

/// Bytes with some mutations.
pub(super) fn bytes(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, rng.u8(..)),
            3 => {
                let token: &[u8] =
                    [b"\r\n".as_slice(), b"\0", b"\xff\xfe", b"\"", b"]}", b"-1"][rng.usize(..6)];
                drop(bytes.splice(at..at, token.iter().copied()));
            }
            4 => {
                let end = (at + rng.usize(..200)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ if at < bytes.len() => bytes[at] = rng.u8(..),
            _ => {}
        }
    }
}

/// Any bytes.
pub(super) fn noise(rng: &mut Rng, most: usize) -> Vec<u8> {
    let count = rng.usize(..most);
    std::iter::repeat_with(|| rng.u8(..)).take(count).collect()
}
