//! Keys of `ipam` that mean nothing here. An ADD passes over them, as host-local does, but somebody
//! wrote them for a reason: an address that was meant to be excluded would be handed out.

use std::fmt;

use super::json_cursor::JsonCursor;
use crate::limits::{RANGES_MAX, ROUTES_MAX, UNKNOWN_KEYS_MAX};

/// Keys of `ipam`.
const IPAM: [&str; 15] = [
    "type",
    "name",
    "ranges",
    "routes",
    "resolvConf",
    "dataDir",
    "socket",
    "waitSeconds",
    "network",
    "networkFrom",
    "namespaces",
    "stageNamespaces",
    "blockSize",
    "blockSize6",
    "subnet",
];

/// Keys of a range, which are keys of `ipam` too if that has a `subnet`.
const RANGE: [&str; 8] =
    ["subnet", "rangeStart", "rangeEnd", "gateway", "sandbox", "smallflow", "exclude", "reserved"];

/// Keys of a route.
const ROUTE: [&str; 7] = ["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];

/// A key that has no effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownKey {
    /// Its path, such as `ipam.ranges[0][0].range_start`.
    pub place: String,
    /// The key that was meant, or why this one has no effect here.
    hint: Hint,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Hint {
    None,
    Meant(&'static str),
    /// A key of a range beside `ranges`.
    OfRange,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match self.hint {
            Hint::None => write!(f, "{place} is not known and has no effect"),
            Hint::Meant(key) => {
                write!(f, "{place} is not known and has no effect: did you mean {key}?")
            }
            Hint::OfRange => write!(
                f,
                "{place} has no effect without ipam.subnet: write it into a range of ipam.ranges"
            ),
        }
    }
}

/// The keys of `ipam` without effect, up to a limit.
pub(super) fn unknown(ipam: &JsonCursor<'_>) -> Vec<UnknownKey> {
    let mut found = Vec::new();
    let single = ipam.get("subnet").is_some();
    for key in ipam.keys() {
        if is_one_of(&IPAM, key) || single && is_one_of(&RANGE, key) {
            continue;
        }
        let known: Vec<&'static str> = IPAM.iter().chain(&RANGE).copied().collect();
        let hint = if is_one_of(&RANGE, key) { Hint::OfRange } else { meant(&known, key) };
        found.push(UnknownKey { place: format!("{}.{key}", ipam.path()), hint });
    }
    let sets = ipam.items("ranges", RANGES_MAX).ok().flatten();
    for set in sets.iter().flat_map(|sets| sets.iter()) {
        let Ok(ranges) = set.an_array(RANGES_MAX) else { continue };
        ranges.iter().for_each(|range| in_object(&range, &RANGE, &mut found));
    }
    let routes = ipam.items("routes", ROUTES_MAX).ok().flatten();
    for route in routes.iter().flat_map(|routes| routes.iter()) {
        in_object(&route, &ROUTE, &mut found);
    }
    found.truncate(UNKNOWN_KEYS_MAX);
    found
}

fn in_object(object: &JsonCursor<'_>, known: &[&'static str], found: &mut Vec<UnknownKey>) {
    for key in object.keys().filter(|key| !is_one_of(known, key)) {
        if found.len() < UNKNOWN_KEYS_MAX {
            let place = format!("{}.{key}", object.path());
            found.push(UnknownKey { place, hint: meant(known, key) });
        }
    }
}

fn is_one_of(known: &[&str], key: &str) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(key))
}

/// The known key that a person most likely meant.
fn meant(known: &[&'static str], key: &str) -> Hint {
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let key = plain(key);
    let near = known.iter().map(|known| (distance(&plain(known), &key), *known)).min();
    near.filter(|(distance, _)| *distance <= 2 && *distance * 2 < key.len())
        .map_or(Hint::None, |(_, known)| Hint::Meant(known))
}

/// Returns the number of letters that must be added, left out or exchanged to make one word of the
/// other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Such a key is no mistyped one.
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let exchanged = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::json::Json;
    use super::*;

    fn found(ipam: &str) -> Vec<String> {
        let text = format!("{{\"ipam\":{ipam}}}");
        let json = Json::parse(text.as_bytes(), "text").unwrap();
        let root = JsonCursor::root(&json);
        let ipam = root.object("ipam").unwrap().unwrap();
        unknown(&ipam).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_known_key_is_known_in_its_place() {
        let range = r#"{"subnet":"a","rangeStart":"b","RANGEEND":"c","gateway":"d","sandbox":[],
            "smallflow":[],"exclude":[],"reserved":[]}"#;
        let ipam = format!(
            r#"{{"type":"my-ipam","name":"n","ranges":[[{range}]],"routes":[{{"dst":"x","gw":"y",
            "mtu":1,"advmss":1,"priority":1,"table":1,"scope":1}}],"resolvConf":"","dataDir":"",
            "socket":"","waitSeconds":1,"network":"","networkFrom":"","namespaces":[],
            "stageNamespaces":{{}},"blockSize":1,
            "blockSize6":1,{}"#,
            &range[1..]
        );
        assert_eq!(found(&ipam), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_key_is_named_with_what_was_meant() {
        for (ipam, words) in [
            (
                r#"{"ranges":[[{"subnet":"a"},{"range_start":"b"}]]}"#,
                "ipam.ranges[0][1].range_start is not known and has no effect: did you mean \
                 rangeStart?",
            ),
            (
                r#"{"subnet":"a","excludes":[]}"#,
                "ipam.excludes is not known and has no effect: did you mean exclude?",
            ),
            (
                r#"{"ranges":[],"exclude":[]}"#,
                "ipam.exclude has no effect without ipam.subnet: write it into a range of \
                 ipam.ranges",
            ),
            (r#"{"routes":[{"via":"x"}]}"#, "ipam.routes[0].via is not known and has no effect"),
            (r#"{"kubernetes":{}}"#, "ipam.kubernetes is not known and has no effect"),
        ] {
            assert_eq!(found(ipam), [words], "{ipam}");
        }
    }

    #[test]
    fn not_more_are_told_than_a_person_reads() {
        let keys: Vec<String> = (0..100).map(|n| format!("\"zz{n}\":1")).collect();
        assert_eq!(found(&format!("{{{}}}", keys.join(","))).len(), UNKNOWN_KEYS_MAX);
    }
}
