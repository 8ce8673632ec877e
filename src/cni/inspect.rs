//! Tells the author of a file what is wrong, unknown or unwise in it: in a network configuration, a
//! list of plugins, or an `ipam` object that is kept centrally. It needs no daemon.

use std::fmt;

use super::central;
use super::error::Error;
use super::faults;
use super::json::Json;
use super::json_cursor::JsonCursor;
use super::netconf;
use super::offer::offers_any;
use super::position;
use super::unknown::unknown;
use super::version::Version;
use crate::core::range::Ranges;

/// The weight of a remark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Weight {
    /// An ADD fails.
    Wrong,
    /// A key has no effect.
    Unknown,
    /// It works, but hardly as meant.
    Unwise,
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
            Self::Unwise => "unwise",
        })
    }
}

/// One remark about a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Remark {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The weight of the remark.
    pub weight: Weight,
    /// The fault and its remedy.
    pub text: String,
}

/// The kind of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Not JSON.
    Unclear,
    /// A CNI configuration with one plugin.
    Configuration,
    /// A CNI configuration with a list of plugins.
    List,
    /// An `ipam` object, as `leasehold network put` takes it.
    Central,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unclear => "a text that is not JSON",
            Self::Configuration => "a network configuration",
            Self::List => "a network configuration list",
            Self::Central => "an ipam object to be kept centrally",
        })
    }
}

/// The remarks about a text, by their places.
struct Remarks<'a> {
    text: &'a [u8],
    all: Vec<Remark>,
}

impl Remarks<'_> {
    fn add(&mut self, weight: Weight, path: &str, text: String) {
        let (line, column) = position::of(self.text, path);
        self.all.push(Remark { line, column, weight, text });
    }

    fn error(&mut self, before: &str, within: &str, error: &Error) {
        let text = match &*error.details {
            "" => error.msg.clone(),
            details => format!("{}: {details}", error.msg),
        };
        let path = if error.place.is_empty() { within } else { &error.place };
        self.add(Weight::Wrong, &format!("{before}{path}"), text);
    }
}

/// Looks through a file. The remarks are in the order of the text.
pub fn inspect(text: &[u8]) -> (Subject, Vec<Remark>) {
    let mut remarks = Remarks { text, all: Vec::new() };
    let json = match serde_json::from_slice::<Json<'_>>(text) {
        Ok(json) => json,
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let text = match Json::parse(text, "file") {
                Err(error) if error.details.is_empty() => error.msg,
                Err(error) => format!("{}: {}", error.msg, error.details),
                Ok(_) => error.to_string(),
            };
            let weight = Weight::Wrong;
            return (Subject::Unclear, vec![Remark { line, column, weight, text }]);
        }
    };
    let subject = if json.member("plugins").is_some() {
        list(&json, &mut remarks);
        Subject::List
    } else if json.member("ipam").is_some() || json.member("name").is_some() {
        configuration(&json, "", &mut remarks);
        Subject::Configuration
    } else {
        central_object(text, &mut remarks);
        Subject::Central
    };
    twice(&json, "", &mut remarks);
    let mut all = remarks.all;
    all.sort();
    all.dedup();
    (subject, all)
}

fn central_object(text: &[u8], remarks: &mut Remarks<'_>) {
    // Paths begin with `ipam.`, which is the whole text here.
    let own = |path: &str| path.strip_prefix("ipam").unwrap_or(path).to_owned();
    match central::check_keys(text) {
        Ok((sets, without_effect)) => {
            for key in without_effect {
                remarks.add(Weight::Unknown, &own(&key.place), key.to_string());
            }
            useless(&sets, "ranges", remarks);
        }
        Err(first) => {
            let config = serde_json::from_slice::<Json<'_>>(text)
                .map(|ipam| Json::Object(vec![("ipam".into(), ipam)]));
            let more = config.iter().flat_map(faults::of);
            for error in [first].into_iter().chain(more) {
                let error = Error { place: own(&error.place).into(), ..error };
                remarks.error("", "", &error);
            }
        }
    }
}

/// Range sets that can be read, and do not do what their author means.
fn useless(sets: &[Ranges], path: &str, remarks: &mut Remarks<'_>) {
    for (index, set) in sets.iter().enumerate() {
        if !offers_any(set) {
            let text = format!(
                "range {index}: every address is reserved, listed for a stage or a gateway, so \
                 none is left for an ADD that asks for none: {set}"
            );
            remarks.add(Weight::Wrong, path, text);
        }
        for range in set.iter().filter(|range| !range.subnet.contains(&range.gateway)) {
            let text = format!(
                "gateway {} is outside of its subnet {}: a container may not reach it",
                range.gateway, range.subnet
            );
            remarks.add(Weight::Unwise, path, text);
        }
    }
}

/// Keys that an object has twice, as Go reads them.
fn twice(json: &Json<'_>, path: &str, remarks: &mut Remarks<'_>) {
    match json {
        Json::Object(pairs) => {
            for (index, (key, value)) in pairs.iter().enumerate() {
                let at = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
                if pairs[..index].iter().any(|(other, _)| other.eq_ignore_ascii_case(key)) {
                    let text = format!("{at} is there twice, and the last one counts");
                    remarks.add(Weight::Unwise, &at, text);
                }
                twice(value, &at, remarks);
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                twice(item, &format!("{path}[{index}]"), remarks);
            }
        }
        _ => {}
    }
}

/// Each plugin of a list gets the list's name and version, as runtimes give them.
fn list(json: &Json<'_>, remarks: &mut Remarks<'_>) {
    let plugins = match json.member("plugins") {
        Some(Json::Array(plugins)) if !plugins.is_empty() => plugins,
        _ => {
            let text = "plugins must be an array with a plugin".to_owned();
            return remarks.add(Weight::Wrong, "plugins", text);
        }
    };
    let mut with_ipam = false;
    for (index, plugin) in plugins.iter().enumerate() {
        let (Json::Object(own), Some(_)) = (plugin, plugin.member("ipam")) else { continue };
        with_ipam = true;
        let mut fields = own.clone();
        for key in ["name", "cniVersion"] {
            fields.extend(json.member(key).map(|value| (key.into(), value.clone())));
        }
        configuration(&Json::Object(fields), &format!("plugins[{index}]."), remarks);
    }
    if !with_ipam {
        let text = "no plugin of the list has ipam, so none gets an address".to_owned();
        remarks.add(Weight::Unwise, "plugins", text);
    }
}

/// `before`: the path to the plugin in its file.
fn configuration(json: &Json<'_>, before: &str, remarks: &mut Remarks<'_>) {
    let root = match netconf::root(json) {
        Ok(root) => root,
        Err(error) => return remarks.error(before, "", &error),
    };
    // A list has its name and its version at its top: so their paths are the same.
    if let Err(error) = netconf::name(&root) {
        remarks.error("", "name", &error);
    }
    version(&root, remarks);
    let ipam = match root.object("ipam") {
        Ok(Some(ipam)) => ipam,
        Ok(None) => {
            let text = "ipam is missing: the network gets no addresses from Leasehold".to_owned();
            return remarks.add(Weight::Wrong, before, text);
        }
        Err(error) => return remarks.error(before, "ipam", &error),
    };
    match ipam.string("type") {
        Ok(Some("my-ipam")) | Err(_) => {}
        Ok(kind) => {
            let kind = kind.unwrap_or_default();
            let text = format!("ipam.type is {kind:?}: Leasehold's plugin is \"my-ipam\"");
            remarks.add(Weight::Unwise, &format!("{before}ipam.type"), text);
        }
    }
    for key in unknown(&ipam) {
        remarks.add(Weight::Unknown, &format!("{before}{}", key.place), key.to_string());
    }
    if ipam.get("ranges").is_none() && ipam.get("subnet").is_none() {
        // The ranges are kept centrally, or come from the runtime.
        let named = ["network", "networkFrom"].iter().any(|key| ipam.get(key).is_some());
        if !named && !netconf::runtime_gives_ranges(&root) {
            let text = "ipam has no ranges: an ADD fails unless they are kept centrally \
                        (leasehold network put NAME FILE)";
            remarks.add(Weight::Unwise, &format!("{before}ipam"), text.to_owned());
        }
        return;
    }
    for key in ["network", "networkFrom"] {
        if ipam.get(key).is_some() {
            let text = format!("ipam.{key} has no effect beside ranges");
            remarks.add(Weight::Unwise, &format!("{before}ipam.{key}"), text);
        }
    }
    match netconf::ranges_and_routes(&root) {
        Ok(sets) => useless(&sets, &format!("{before}ipam.ranges"), remarks),
        Err(_) => {
            for error in faults::of(json) {
                remarks.error(before, "ipam", &error);
            }
        }
    }
}

fn version(root: &JsonCursor<'_>, remarks: &mut Remarks<'_>) {
    match root.string("cniVersion") {
        Err(error) => remarks.error("", "cniVersion", &error),
        Ok(None | Some("")) => {
            let text = "cniVersion is missing, which means 0.1.0: one address of each family and \
                        no CHECK; 1.0.0 is understood by every runtime in use";
            remarks.add(Weight::Unwise, "", text.to_owned());
        }
        Ok(Some(text)) if Version::parse(text).is_none() => {
            let text = format!("cniVersion {text:?} is not supported: take 1.0.0");
            remarks.add(Weight::Wrong, "cniVersion", text);
        }
        Ok(Some(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let (_, remarks) = inspect(text.as_bytes());
        let show = |r: &Remark| format!("{}:{} {} {}", r.line, r.column, r.weight, r.text);
        remarks.iter().map(show).collect()
    }

    #[test]
    fn good_files_get_no_remark() {
        for (text, subject) in [
            (
                r#"{"cniVersion":"1.0.0","name":"n","type":"bridge",
                    "ipam":{"type":"my-ipam","subnet":"10.9.0.0/24"}}"#,
                Subject::Configuration,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[
                    {"type":"bridge","ipam":{"type":"my-ipam","network":"n"}},
                    {"type":"portmap"}]}"#,
                Subject::List,
            ),
            (r#"{"ranges":[[{"subnet":"10.9.0.0/24","exclude":["10.9.0.9"]}]]}"#, Subject::Central),
        ] {
            assert_eq!(inspect(text.as_bytes()), (subject, vec![]), "{text}");
        }
    }

    #[test]
    fn each_fault_has_its_line_and_column() {
        for (text, words) in [
            ("{\n \"ipam\": {x}", "2:11 wrong file is not valid JSON at line 2 column 11"),
            (
                "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\n\"ipam\":{\"type\":\"my-ipam\",\n  \
                 \"subnet\":\"10.9.0.1/24\"}}",
                "3:3 wrong invalid range set 0: Network has host bits set",
            ),
            (
                "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"x\"},\n\
                 {\"ipam\":\n \
                 {\"type\":\"my-ipam\",\"subnet\":\"10.9.0.0/24\",\n\"excludes\":[]}}]}",
                "4:1 unknown ipam.excludes is not known and has no effect: did you mean exclude?",
            ),
            ("{\n\"ranges\":[[{\"subnet\":5}]]}", "2:13 wrong ipam.ranges[0][0].subnet must be"),
            (
                "{\"name\":\"n\",\"ipam\":{\"type\":\"my-ipam\"}}",
                "1:1 unwise cniVersion is missing",
            ),
            (
                "{\"subnet\":\"10.9.0.0/24\",\n\"reserved\":[\"10.9.0.0/24\"]}",
                "1:1 wrong range 0: every address is reserved",
            ),
            (
                "{\"ranges\":[[{\"subnet\":\"10.9.0.0/24\",\"gateway\":\"10.8.0.1\"}]]}",
                "1:2 unwise gateway 10.8.0.1 is outside of its subnet 10.9.0.0/24",
            ),
            (
                "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"ipam\":{\"type\":\"my-ipam\"}}",
                "1:34 unwise ipam has no ranges",
            ),
            (
                "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"ipam\":{\"type\":\"my-ipam\",\
                 \"network\":\"a\",\n\"Network\":\"b\"}}",
                "2:1 unwise ipam.Network is there twice",
            ),
            ("", "1:0 wrong file is not valid JSON"),
            (
                "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"ipam\":{\"type\":\"host-local\"}}",
                "1:42 unwise ipam.type is \"host-local\"",
            ),
        ] {
            let shown = shown(text);
            assert!(shown.iter().any(|line| line.starts_with(words)), "{words}: {shown:?}");
        }
    }

    #[test]
    fn every_fault_is_told() {
        let ipam = "{\"type\":\"my-ipam\",\"ranges\":[\n[{\"subnet\":5}],\n\
                    [{\"subnet\":\"10.9.0.1/24\"}],\n\
                    [{\"subnet\":\"10.9.0.0/24\"}]],\n\"routes\":[{\"dst\":\"10.0.0.0/8\"},\n{}],\n\
                    \"dataDir\":5,\n\"waitSeconds\":99}";
        let of_ipam = [
            ("2:", "ipam.ranges[0][0].subnet must be"),
            ("3:", "invalid range set 1: Network has host bits set"),
            ("6:", "ipam.routes[1] has no dst"),
            ("7:", "ipam.dataDir must be a string"),
            ("8:", "ipam.waitSeconds must be from 0 to 40"),
        ];
        let config = format!(
            "{{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"ipam\":{ipam},\n\"args\":{{\"cni\":5}}}}"
        );
        for (text, found) in [(ipam, &of_ipam[..]), (&config, &of_ipam[..])] {
            let shown = shown(text);
            for (line, words) in found {
                let is_it = |row: &String| row.starts_with(line) && row.contains(words);
                assert!(shown.iter().any(is_it), "{line} {words}: {shown:#?}");
            }
            let of_args = usize::from(text.contains("args"));
            assert_eq!(shown.len(), found.len() + of_args, "{shown:#?}");
        }
    }
}
