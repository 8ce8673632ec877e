//! Finds every fault of a network configuration, for its author. A call ends at the first one.

use super::error::Error;
use super::json::Json;
use super::netconf;

/// Keys of `ipam` that mean something alone.
const SINGLE: [&str; 12] = [
    "type",
    "name",
    "dataDir",
    "socket",
    "network",
    "networkFrom",
    "resolvConf",
    "waitSeconds",
    "namespaces",
    "stageNamespaces",
    "blockSize",
    "blockSize6",
];

/// The keys of `ipam` that are looked at item by item.
const LISTS: [&str; 2] = ["ranges", "routes"];

/// Returns the faults of a configuration with ranges, the one that a call names first. Each part is
/// looked at alone, beside ranges that are good.
pub(super) fn of(config: &Json<'_>) -> Vec<Error> {
    let Some(first) = fault(config) else { return Vec::new() };
    let (Json::Object(top), Some(Json::Object(ipam))) = (config, config.member("ipam")) else {
        return vec![first];
    };
    let mut all = vec![first];
    for (key, value) in ipam.iter().filter(|(key, _)| is_any(key, &SINGLE)) {
        all.extend(fault(&whole(good_with(key, value.clone()))));
    }
    let flat = ipam.iter().filter(|(key, _)| !is_any(key, &SINGLE) && !is_any(key, &LISTS));
    let flat: Vec<_> = flat.cloned().collect();
    if flat.iter().any(|(key, _)| key.eq_ignore_ascii_case("subnet")) {
        all.extend(fault(&whole(flat)));
    }
    if let Some(Json::Array(sets)) = config.member("ipam").and_then(|ipam| ipam.member("ranges")) {
        for (index, set) in sets.iter().enumerate() {
            let alone = whole(vec![("ranges".into(), Json::Array(vec![set.clone()]))]);
            all.extend(fault(&alone).map(|error| moved(error, index)));
        }
    }
    if let Some(Json::Array(items)) = config.member("ipam").and_then(|ipam| ipam.member("routes")) {
        for (index, route) in items.iter().enumerate() {
            let alone = whole(good_with("routes", Json::Array(vec![route.clone()])));
            all.extend(fault(&alone).map(|error| moved(error, index)));
        }
    }
    let mut rest: Vec<_> =
        top.iter().filter(|(key, _)| !key.eq_ignore_ascii_case("ipam")).cloned().collect();
    rest.push(("ipam".into(), Json::Object(good())));
    all.extend(fault(&Json::Object(rest)));
    all
}

type Fields<'a> = Vec<(std::borrow::Cow<'a, str>, Json<'a>)>;

fn fault(config: &Json<'_>) -> Option<Error> {
    netconf::root(config).and_then(|root| netconf::ranges_and_routes(&root)).err()
}

fn whole(ipam: Fields<'_>) -> Json<'_> {
    Json::Object(vec![("ipam".into(), Json::Object(ipam))])
}

/// Fields with a range that is good.
fn good<'a>() -> Fields<'a> {
    let range = vec![("subnet".into(), Json::String("192.0.2.0/24".into()))];
    vec![("ranges".into(), Json::Array(vec![Json::Array(vec![Json::Object(range)])]))]
}

fn good_with<'a>(key: &str, value: Json<'a>) -> Fields<'a> {
    let mut fields = good();
    fields.push((key.to_owned().into(), value));
    fields
}

fn is_any(key: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(key))
}

/// The error of the only item of a list, which is the item of that index in its file.
fn moved(error: Error, index: usize) -> Error {
    let place = |text: &str| {
        LISTS.iter().fold(text.to_owned(), |text, list| {
            text.replace(&format!("ipam.{list}[0]"), &format!("ipam.{list}[{index}]"))
        })
    };
    let msg = place(&error.msg).replace("range set 0", &format!("range set {index}"));
    Error { msg, details: place(&error.details), place: place(&error.place).into(), ..error }
}
