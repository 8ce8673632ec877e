//! Refusals of etcd, and options that cannot work: each error names the fault and the remedy.

use std::fs;

use leasehold::core::txn::StoreError;
use leasehold::store::etcd::{Etcd, Options, Server};

use super::{Subject, put};
use crate::common::etcd::{Cluster, PASSWORD};

fn probe(options: &Options) -> Vec<Result<Server, String>> {
    let etcd = Etcd::connect(options.clone()).expect("good options");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let probes = runtime.block_on(etcd.probe());
    let endpoints: Vec<_> = probes.iter().map(|probe| probe.endpoint.clone()).collect();
    assert_eq!(endpoints, options.endpoints);
    probes.into_iter().map(|probe| probe.outcome).collect()
}

/// Checks that the only endpoint and requests to it fail, for a reason with these words in it.
fn refused(options: &Options, words: &[&str]) {
    let why = probe(options).remove(0).expect_err("something is wrong");
    for word in words {
        assert!(why.contains(word), "{why:?} has no {word:?}");
    }
    let store = Subject::etcd(options.clone());
    match store.txn(&[], &[put("sessions/a", 1)]) {
        Err(StoreError::Failed(why) | StoreError::Unknown(why)) => {
            assert!(why.contains(&options.endpoints[0]), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

fn serves(options: &Options) {
    let server = probe(options).remove(0).expect("a server");
    assert!(server.version.split('.').count() == 3, "{server:?}");
    Subject::etcd(options.clone()).done(&[], &[put("sessions/a", 1)]);
}

#[test]
fn what_is_wrong_with_certificates_is_said() {
    let cluster = Cluster::start_tls();
    let good = cluster.options("/test");
    serves(&good);
    serves(&Options { server_name: Some("etcd.example".to_owned()), ..good.clone() });
    let file = |name: &str| Some(cluster.path(name));
    refused(
        &Options { ca_file: file("other-ca.pem"), ..good.clone() },
        &["not trusted", "caFile", "--etcd-ca"],
    );
    refused(
        &Options { cert_file: None, key_file: None, ..good.clone() },
        &["client certificate", "--etcd-cert", "--etcd-key"],
    );
    refused(
        &Options {
            cert_file: file("other-client.pem"),
            key_file: file("other-client.key"),
            ..good.clone()
        },
        &["does not accept our certificate", "--etcd-cert"],
    );
    refused(
        &Options { server_name: Some("nothing.example".to_owned()), ..good.clone() },
        &["another name", "nothing.example", "etcd.example", "--etcd-server-name"],
    );
    let plain = vec![good.endpoints[0].replace("https", "http")];
    refused(&Options { endpoints: plain, ..Options::default() }, &["https://", "--etcd"]);
    let open = Cluster::start(1);
    let encrypted = vec![open.endpoint(0).replace("http", "https")];
    refused(&Options { endpoints: encrypted, ..good }, &["does not speak TLS", "http://"]);
}

#[test]
fn what_is_wrong_with_a_user_is_said() {
    let mut cluster = Cluster::start(1);
    let open = cluster.options("/test");
    let (right, wrong) = (cluster.password_file(PASSWORD), cluster.path("wrong"));
    fs::write(&wrong, "no secret").expect("a file");
    let as_user = |user: &str, file: &std::path::Path| Options {
        user: Some(user.to_owned()),
        password_file: Some(file.to_owned()),
        ..open.clone()
    };
    serves(&open);
    // As long as etcd has no users, a configured user is not an error.
    serves(&as_user("leasehold", &right));
    let early = Subject::etcd(as_user("leasehold", &right));
    early.done(&[], &[put("sessions/a", 1)]);
    cluster.authenticate(&[("leasehold", "/test/"), ("other", "/other/")]);
    serves(&as_user("leasehold", &right));
    early.done(&[], &[put("sessions/a", 1)]);
    refused(&open, &["wants a user", "--etcd-user", "--etcd-password-file"]);
    refused(&as_user("leasehold", &wrong), &["wrong user or password", "passwordFile"]);
    refused(&as_user("nobody", &right), &["wrong user or password", "--etcd-user"]);
    refused(&as_user("other", &right), &["other", "may not", "/test/", "grant-permission"]);
    // Tokens do not outlive the member that gave them.
    cluster.kill(0);
    cluster.restart(0);
    early.done(&[], &[put("sessions/a", 2)]);
}

#[test]
fn an_endpoint_without_etcd_is_said() {
    let options = |endpoint: &str| Options {
        endpoints: vec![endpoint.to_owned()],
        prefix: "/test".to_owned(),
        ..Options::default()
    };
    refused(&options("http://127.0.0.1:1"), &["nothing listens there", "refused"]);
    refused(&options("http://nowhere.invalid:2379"), &["cannot be resolved", "--etcd"]);
}

#[test]
fn one_endpoint_of_several_is_told_apart() {
    let cluster = Cluster::start(1);
    let mut options = cluster.options("/test");
    options.endpoints.push("http://127.0.0.1:1".to_owned());
    let probes = probe(&options);
    assert!(probes[0].is_ok() && probes[1].is_err(), "{probes:?}");
}

#[test]
fn a_request_that_etcd_finds_wrong_has_failed() {
    let cluster = Cluster::start(1);
    let store = Subject::etcd(cluster.options("/test"));
    let many: Vec<_> = (0..129).map(|number| put(&format!("sessions/{number}"), 1)).collect();
    let twice = [put("sessions/a", 1), put("sessions/a", 2)];
    for (writes, words) in [(&many[..], "too many operations"), (&twice, "duplicate key")] {
        match store.txn(&[], writes) {
            Err(StoreError::Failed(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(store.key("sessions/a").is_none());
}

#[test]
fn options_that_cannot_work_name_the_field_and_the_remedy() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let empty = Some(file.path().to_owned());
    let nowhere = Some(std::path::PathBuf::from("/nowhere/x.pem"));
    let base =
        Options { endpoints: vec!["http://127.0.0.1:2379".to_owned()], ..Options::default() };
    let secure = Options { endpoints: vec!["https://[::1]:2379/".to_owned()], ..base.clone() };
    let of = |endpoint: &str| Options { endpoints: vec![endpoint.to_owned()], ..base.clone() };
    let many = vec!["http://127.0.0.1:2379".to_owned(); 17];
    let user = Some("u".to_owned());
    for (options, words) in [
        (Options { endpoints: Vec::new(), ..base.clone() }, ["endpoints", "--etcd"].as_slice()),
        (Options { endpoints: many, ..base.clone() }, &["endpoints", "16", "17"]),
        (of("127.0.0.1:2379"), &["endpoints", "127.0.0.1:2379", "http://HOST:PORT"]),
        (of("http://127.0.0.1"), &["endpoints", "PORT"]),
        (of("http://u:p@host:2379"), &["endpoints", "HOST"]),
        (of("http://host:2379/path"), &["endpoints", "HOST"]),
        (of("ftp://host:2379"), &["endpoints", "ftp"]),
        (Options { prefix: String::new(), ..base.clone() }, &["prefix", "--etcd-prefix"]),
        (Options { prefix: "/x/".to_owned(), ..base.clone() }, &["prefix", "/x/"]),
        (Options { ca_file: empty.clone(), ..base.clone() }, &["caFile", "https://"]),
        (secure.clone(), &["caFile", "--etcd-ca"]),
        (Options { ca_file: nowhere.clone(), ..secure.clone() }, &["caFile", "/nowhere/x.pem"]),
        (Options { ca_file: empty.clone(), ..secure }, &["caFile", "certificate", "PEM"]),
        (Options { user: user.clone(), ..base.clone() }, &["passwordFile", "--etcd-password-file"]),
        (Options { password_file: empty.clone(), ..base.clone() }, &["user", "--etcd-user"]),
        (
            Options { user: user.clone(), password_file: nowhere, ..base.clone() },
            &["passwordFile", "/nowhere/x.pem"],
        ),
        (Options { user, password_file: empty, ..base.clone() }, &["passwordFile", "empty"]),
    ] {
        let Err(error) = Etcd::connect(options.clone()) else { panic!("{options:?} is taken") };
        let error = error.to_string();
        for word in words {
            assert!(error.contains(word), "{error:?} has no {word:?}");
        }
    }
    assert!(Etcd::connect(base).is_ok());
}

#[test]
fn a_key_of_another_certificate_is_refused_at_once() {
    let cluster = Cluster::start_tls();
    let options =
        Options { key_file: Some(cluster.path("other-client.key")), ..cluster.options("/test") };
    let Err(error) = Etcd::connect(options) else { panic!("it is taken") };
    assert!(error.to_string().contains("keyFile"), "{error}");
    let error = error.to_string().to_lowercase();
    assert!(error.contains("inconsistent") || error.contains("mismatch"), "{error}");
}

/// Certificates are renewed by writing new files in their place.
#[test]
fn renewed_certificates_are_used_for_the_next_connection() {
    let cluster = Cluster::start_tls();
    let renew = |from: &str| {
        for end in ["pem", "key"] {
            let (from, to) = (format!("{from}.{end}"), format!("renewed.{end}"));
            fs::copy(cluster.path(&from), cluster.path(&to)).expect("a copy");
        }
    };
    renew("other-client");
    let (cert_file, key_file) =
        (Some(cluster.path("renewed.pem")), Some(cluster.path("renewed.key")));
    let options = Options { cert_file, key_file, ..cluster.options("/test") };
    let store = Subject::etcd(options);
    assert!(store.txn(&[], &[put("sessions/a", 1)]).is_err(), "etcd knows no such authority");
    renew("client");
    store.done(&[], &[put("sessions/a", 1)]);
    fs::remove_file(cluster.path("renewed.key")).expect("an end");
    store.done(&[], &[put("sessions/a", 2)]);
}
