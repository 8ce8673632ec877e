//! Options about etcd: their sources, their order of precedence, and the errors in them.

use std::fs;
use std::time::Duration;

use clap::Parser;
use leasehold::config::{Commit, Config, ServeArgs};
use tempfile::NamedTempFile;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeArgs,
}

/// The configuration of a file with that text and of these arguments.
fn configured(text: &str, arguments: &[&str]) -> Result<Config, String> {
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("a configuration file");
    let path = file.path().to_str().expect("a path in UTF-8");
    let line = ["serve", "--config", path].into_iter().chain(arguments.iter().copied());
    let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
    Config::new(line.serve).map_err(|error| format!("{error:#}"))
}

#[test]
fn without_etcd_nothing_of_it_is_set() {
    let config = configured("", &[]).expect("a configuration");
    assert_eq!(config.etcd, None);
    assert_eq!((config.lease_ttl, config.warm_addresses), (Duration::from_secs(30), 32));
    assert_eq!((config.commit, config.offline_limit), (Commit::Journal, None));
}

#[test]
fn the_file_says_everything_and_flags_win() {
    let text = r#"
        leaseTtl = "1m"
        warmAddresses = 64
        commit = "etcd"
        offlineLimit = "1h"
        [etcd]
        endpoints = ["https://a:2379", "https://b:2379"]
        prefix = "/x/v1/"
        user = "u"
        passwordFile = "/p"
        caFile = "/ca"
        certFile = "/cert"
        keyFile = "/key"
        serverName = "s"
        requestDeadline = "5s"
    "#;
    let config = configured(text, &[]).expect("a configuration");
    assert_eq!((config.lease_ttl, config.warm_addresses), (Duration::from_secs(60), 64));
    assert_eq!(config.commit, Commit::Etcd);
    assert_eq!(config.offline_limit, Some(Duration::from_secs(3600)));
    let etcd = config.etcd.expect("etcd");
    assert_eq!(etcd.endpoints, ["https://a:2379", "https://b:2379"]);
    assert_eq!((&*etcd.prefix, etcd.user.as_deref()), ("/x/v1", Some("u")));
    let files = [&etcd.password_file, &etcd.ca_file, &etcd.cert_file, &etcd.key_file];
    let files: Vec<_> = files.iter().map(|file| file.as_ref().expect("a file")).collect();
    assert_eq!(files, ["/p", "/ca", "/cert", "/key"].map(std::path::Path::new));
    assert_eq!(etcd.server_name.as_deref(), Some("s"));
    assert_eq!(etcd.request_deadline, Duration::from_secs(5));
    let flags = [
        ["--etcd", "http://c:1,http://d:2"],
        ["--etcd-prefix", "/y"],
        ["--etcd-user", "v"],
        ["--etcd-password-file", "/p2"],
        ["--etcd-ca", "/ca2"],
        ["--etcd-cert", "/cert2"],
        ["--etcd-key", "/key2"],
        ["--etcd-server-name", "t"],
        ["--etcd-request-deadline", "100ms"],
        ["--lease-ttl", "5s"],
        ["--warm-addresses", "0"],
        ["--commit", "journal"],
        ["--offline-limit", "10s"],
    ];
    let config = configured(text, flags.as_flattened()).expect("a configuration");
    assert_eq!((config.lease_ttl, config.warm_addresses), (Duration::from_secs(5), 0));
    assert_eq!(config.commit, Commit::Journal);
    assert_eq!(config.offline_limit, Some(Duration::from_secs(10)));
    let etcd = config.etcd.expect("etcd");
    assert_eq!(etcd.endpoints, ["http://c:1", "http://d:2"]);
    assert_eq!((&*etcd.prefix, etcd.user.as_deref()), ("/y", Some("v")));
    let files = [&etcd.password_file, &etcd.ca_file, &etcd.cert_file, &etcd.key_file];
    let files: Vec<_> = files.iter().map(|file| file.as_ref().expect("a file")).collect();
    assert_eq!(files, ["/p2", "/ca2", "/cert2", "/key2"].map(std::path::Path::new));
    assert_eq!(etcd.server_name.as_deref(), Some("t"));
    assert_eq!(etcd.request_deadline, Duration::from_millis(100));
}

#[test]
fn what_is_wrong_names_the_field_and_the_remedy() {
    for (text, words) in [
        ("commit = \"etcd\"", ["commit", "--etcd"].as_slice()),
        ("commit = \"paper\"", &["commit", "paper", "journal"]),
        ("offlineLimit = \"1m\"", &["offlineLimit", "--etcd"]),
        ("offlineLimit = \"1s\"", &["offlineLimit", "10s"]),
        ("leaseTtl = \"1s\"", &["leaseTtl", "at least 5s"]),
        ("leaseTtl = \"2h\"", &["leaseTtl", "at most 1h"]),
        ("leaseTtl = \"5500ms\"", &["leaseTtl", "whole seconds"]),
        ("leaseTtl = \"soon\"", &["leaseTtl", "number"]),
        ("warmAddresses = 99999999", &["warmAddresses", "1048576"]),
        ("warmAddresses = -1", &["warmAddresses"]),
        ("[etcd]\nurl = \"http://a:1\"", &["url", "endpoints"]),
        ("[etcd]\nendpoints = \"http://a:1\"", &["endpoints", "line 2"]),
        ("[etcd]\nprefix = \"/x\"", &["etcd.prefix", "--etcd"]),
        ("[etcd]\ncaFile = \"/x\"", &["etcd.caFile", "--etcd"]),
        ("[etcd]\nrequestDeadline = \"1ms\"", &["etcd.requestDeadline", "at least 100ms"]),
        ("[etcd]\nrequestDeadline = \"1h\"", &["etcd.requestDeadline", "at most 1m"]),
    ] {
        let Err(error) = configured(text, &[]) else { panic!("{text} is taken") };
        for word in words {
            assert!(error.contains(word), "{error:?} has no {word:?}");
        }
    }
    for (arguments, words) in [
        (["--commit", "etcd"], ["commit", "--etcd"]),
        (["--commit", "paper"], ["--commit", "paper"]),
        (["--lease-ttl", "1s"], ["--lease-ttl", "at least 5s"]),
        (["--warm-addresses", "2000000"], ["--warm-addresses", "1048576"]),
        (["--offline-limit", "1s"], ["--offline-limit", "at least 10s"]),
        (["--etcd-user", "u"], ["etcd.user", "--etcd"]),
        (["--etcd-request-deadline", "1h"], ["--etcd-request-deadline", "at most 1m"]),
    ] {
        let Err(error) = configured("", &arguments) else { panic!("{arguments:?} is taken") };
        for word in words {
            assert!(error.contains(word), "{error:?} has no {word:?}");
        }
    }
}
