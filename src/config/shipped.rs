//! The configuration file that is shipped (`deploy/leasehold.toml`) has every option, and its
//! defaults are the daemon's.

use std::collections::BTreeSet;

use clap::Args as _;

use super::{Config, File, ServeArgs};

const SHIPPED: &str = include_str!("../../deploy/leasehold.toml");

/// The file with the lines that begin so turned into settings.
fn with(starts: &[&str]) -> String {
    let line = |line: &str| {
        let setting = starts.iter().find_map(|start| {
            let rest = line.strip_prefix(start)?;
            let key = rest.split(" = ").next()?;
            key.chars().all(char::is_alphanumeric).then(|| rest.to_owned())
        });
        setting.unwrap_or_else(|| line.to_owned())
    };
    SHIPPED.lines().map(|text| line(text) + "\n").collect()
}

fn config(text: &str) -> Config {
    let file: File = toml::from_str(text).unwrap();
    Config::new(file.args().0).unwrap()
}

/// The keys of a file; those of `[etcd]` with the table's name.
fn keys(text: &str) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    let (etcd, others): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    let below = |(name, table): (&String, &toml::Value)| -> Vec<String> {
        let table = table.as_table().unwrap();
        table.keys().map(|key| format!("{name}.{key}")).collect()
    };
    others.into_iter().map(|(key, _)| key.clone()).chain(etcd.into_iter().flat_map(below)).collect()
}

/// The options of the command line as keys of the file.
fn options() -> BTreeSet<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let shown = command.get_arguments().filter(|option| !option.is_hide_set());
    let key = |option: &clap::Arg| {
        let mut words = option.get_id().as_str().split('_');
        let mut key = words.next().unwrap_or_default().to_owned();
        for word in words {
            key.push_str(&word[..1].to_uppercase());
            key.push_str(&word[1..]);
        }
        let of_etcd = option.get_long().is_some_and(|long| long.starts_with("etcd"));
        if of_etcd { format!("etcd.{key}") } else { key }
    };
    shown.map(key).filter(|key| key != "config").collect()
}

#[test]
fn the_shipped_file_has_every_option() {
    let all = with(&["#e.g. ", "#"]);
    assert_eq!(keys(&all), options());
    config(&all);
}

#[test]
fn the_shipped_file_changes_nothing_and_shows_the_defaults() {
    let defaults = format!("{:?}", config(""));
    assert_eq!(format!("{:?}", config(SHIPPED)), defaults);
    let shown = with(&["#"]);
    assert!(keys(&shown).len() >= 9, "{shown}");
    assert_eq!(format!("{:?}", config(&shown)), defaults);
}
