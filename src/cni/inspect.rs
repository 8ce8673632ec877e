//! Tells the author of a file what is wrong, unknown or unwise in it: in a network configuration, a
//! list of plugins, or an `ipam` object that is kept centrally. It needs no daemon.

use std::fmt;

use super::central;
use super::error::Error;
use super::json::Json;
use super::json_cursor::JsonCursor;
use super::netconf;
use super::position;
use super::unknown::unknown;
use super::version::Version;

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
    let mut all = remarks.all;
    all.sort();
    all.dedup();
    (subject, all)
}

fn central_object(text: &[u8], remarks: &mut Remarks<'_>) {
    // Paths begin with `ipam.`, which is the whole text here.
    let own = |path: &str| path.strip_prefix("ipam").unwrap_or(path).to_owned();
    match central::check_keys(text) {
        Ok((_, without_effect)) => {
            for key in without_effect {
                remarks.add(Weight::Unknown, &own(&key.place), key.to_string());
            }
        }
        Err(error) => {
            let error = Error { place: own(&error.place), ..error };
            remarks.error("", "", &error);
        }
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
        return;
    }
    for key in ["network", "networkFrom"] {
        if ipam.get(key).is_some() {
            let text = format!("ipam.{key} has no effect beside ranges");
            remarks.add(Weight::Unwise, &format!("{before}ipam.{key}"), text);
        }
    }
    if let Err(error) = netconf::ranges_and_routes(&root) {
        remarks.error(before, "ipam", &error);
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
                    {"type":"bridge","ipam":{"type":"my-ipam"}},{"type":"portmap"}]}"#,
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
                "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"ipam\":{\"type\":\"host-local\"}}",
                "1:42 unwise ipam.type is \"host-local\"",
            ),
        ] {
            let shown = shown(text);
            assert!(shown.iter().any(|line| line.starts_with(words)), "{words}: {shown:?}");
        }
    }
}
