//! Checks a file of the daemon as its start would, and tells every fault of it.

use std::path::Path;

use super::{Commit, Config, File, ServeArgs};
use crate::store::etcd::Options;

/// A fault in a file of the daemon.
#[derive(Debug)]
pub struct Fault {
    /// The place, in bytes from the start of the file.
    pub offset: usize,
    /// The fault and its remedy.
    pub text: String,
}

/// The result of a check.
#[derive(Debug)]
pub struct Checked {
    /// The faults, for which the daemon would not start or would not do what the file says.
    pub faults: Vec<Fault>,
    /// Sentences about what is unwise.
    pub unwise: Vec<String>,
    /// The settings, if the file alone gives some.
    pub config: Option<Config>,
}

/// Checks a file of the daemon, alone: without flags and variables.
pub fn check_file(path: &Path, text: &str) -> Checked {
    let mut checked = Checked { faults: Vec::new(), unwise: Vec::new(), config: None };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            checked.faults.push(Fault { offset, text: error.message().to_owned() });
            return checked;
        }
    };
    let (file, faults) = read_keys(&table);
    for (key, said) in &faults {
        checked.faults.push(Fault { offset: offset_of(text, key), text: said.clone() });
    }
    let of_etcd = faults.iter().any(|(key, _)| key.starts_with("etcd"));
    let (args, faults) = file.args();
    faults.into_iter().for_each(|said| checked.add(text, said));
    // Without all of what it says of etcd, the rest of that would look wrong.
    if of_etcd {
        return checked;
    }
    match Config::unchecked(ServeArgs::default(), args, Some(path.to_owned())) {
        Err(error) => checked.add(text, format!("{error:#}")),
        Ok(config) => {
            let etcd = config.etcd.iter().flat_map(Options::faults);
            config.faults().into_iter().chain(etcd).for_each(|said| checked.add(text, said));
            checked.unwise = unwise(&config);
            checked.config = Some(config);
        }
    }
    checked
}

impl Checked {
    /// Adds a fault, at the first line whose key it names.
    pub fn add(&mut self, text: &str, said: String) {
        self.faults.push(Fault { offset: offset_of_named(text, &said), text: said });
    }
}

fn unwise(config: &Config) -> Vec<String> {
    let mut unwise: Vec<String> = config.etcd.iter().flat_map(Options::unwise).collect();
    if config.etcd.is_none() {
        let alone = "no [etcd]: this node is alone, and shares no pool with other nodes";
        unwise.push(alone.to_owned());
    }
    if config.offline_limit.is_some() && config.commit == Commit::Journal {
        unwise.push(
            "offlineLimit: other nodes get none of this node's addresses when it is silent, since \
             some may be held without a record: with commit = \"etcd\" they get its free ones"
                .to_owned(),
        );
    }
    for (key, path) in [("socket", &config.socket), ("stateDir", &config.state_dir)] {
        if path.is_relative() {
            unwise.push(format!(
                "{key}: {} is looked for in the directory in which a program happens to run: give \
                 a path that begins with /",
                path.display()
            ));
        }
    }
    unwise
}

/// The file with those keys that can be read; and the others, each with what is wrong with it.
fn read_keys(table: &toml::Table) -> (File, Vec<(String, String)>) {
    let (mut good, mut faults) = (toml::Table::new(), Vec::new());
    for (key, value) in table {
        match (key.as_str(), value) {
            ("etcd", toml::Value::Table(fields)) => {
                let mut kept = toml::Table::new();
                for (field, value) in fields {
                    let one = toml::Table::from_iter([(field.clone(), value.clone())]);
                    let alone = toml::Table::from_iter([(key.clone(), one.into())]);
                    match read(alone, field) {
                        Ok(_) => drop(kept.insert(field.clone(), value.clone())),
                        Err(said) => faults.push((format!("etcd.{field}"), said)),
                    }
                }
                good.insert(key.clone(), kept.into());
            }
            _ => match read(toml::Table::from_iter([(key.clone(), value.clone())]), key) {
                Ok(_) => drop(good.insert(key.clone(), value.clone())),
                Err(said) => faults.push((key.clone(), said)),
            },
        }
    }
    (read(good, "").unwrap_or_default(), faults)
}

/// `key`: the one that the table has.
fn read(table: toml::Table, key: &str) -> Result<File, String> {
    table.try_into::<File>().map_err(|error| {
        let said = error.message().to_owned();
        if said.contains(key) { said } else { format!("{key}: {said}") }
    })
}

/// Returns the start of the line with a key, in bytes; 0 if there is none.
fn offset_of(text: &str, key: &str) -> usize {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let (mut here, mut offset) = ("", 0);
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if let Some(header) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = header.trim();
        }
        let found = trimmed.split('=').next().unwrap_or_default().trim().trim_matches('"');
        let is_named = line.contains('=') && (found == key || (here == section && found == name));
        if is_named || (trimmed.starts_with('[') && here == key) {
            return offset;
        }
        offset += line.len();
    }
    0
}

/// Returns the start of the first line whose key a message names, in bytes; 0 if there is none.
fn offset_of_named(text: &str, message: &str) -> usize {
    let words: Vec<&str> = message.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let key = line.split('=').next().unwrap_or_default().trim();
        if !key.is_empty() && line.contains('=') && words.contains(&key) {
            return offset;
        }
        offset += line.len();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let checked = check_file(Path::new("leasehold.toml"), text);
        let line = |offset: usize| text[..offset].lines().count() + 1;
        checked.faults.iter().map(|of| format!("{} {}", line(of.offset), of.text)).collect()
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let text = "node = \"a b\"\nwarmAddresses = 9999999\nlisten = 5\ncooldown = \"x\"\n\
                    sweep = \"1ns\"\nnods = 1\nkeepAfterReboot = true\n";
        let shown = shown(text);
        for words in [
            "1 invalid node name",
            "2 warmAddresses: at most",
            "3 listen",
            "4 cooldown: ",
            "5 sweep: ",
            "6 unknown field `nods`",
            "7 keepAfterReboot needs fsync",
        ] {
            assert!(shown.iter().any(|line| line.starts_with(words)), "{words}: {shown:#?}");
        }
        assert_eq!(shown.len(), 7, "{shown:#?}");
    }

    #[test]
    fn what_the_start_refuses_of_etcd_is_wrong() {
        let text = "[etcd]\nendpoints = [\"nope:2379\", \"https://e:2379\"]\n\
                    caFile = \"/nope/ca\"\n\
                    user = \"u\"\npasswordFile = \"/nope/password\"\ncertFile = \"/nope/cert\"\n";
        let shown = shown(text);
        for words in [
            "2 endpoints: \"nope:2379\" is not a URL",
            "3 caFile: /nope/ca: ",
            "5 passwordFile: /nope/password: ",
        ] {
            assert!(shown.iter().any(|line| line.starts_with(words)), "{words}: {shown:#?}");
        }
    }

    #[test]
    fn a_key_of_the_wrong_type_makes_no_other_look_wrong() {
        let typed = shown("[etcd]\nendpoints = 5\ncaFile = \"/nope/ca\"\n");
        assert_eq!(typed.len(), 1, "{typed:?}");
    }

    #[test]
    fn a_file_that_is_none_has_one_remedy() {
        let text = "[etcd]\nendpoints = [\"http://e:2379\"]\nuser = \"u\"\n\
                    passwordFile = \"/\"\n";
        let shown = shown(text);
        assert_eq!(
            shown,
            ["4 passwordFile: /: it is not a regular file: remove it, or name another one \
              (--etcd-password-file)"]
        );
    }
}
