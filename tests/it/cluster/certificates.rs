//! Certificates: their end is warned of in time, new ones are taken without a restart, and what is
//! wrong with TLS is named in `leasehold status` and in the log.

use std::fs;

use crate::cluster_admin::ends;
use crate::common::etcd::Cluster;
use crate::common::{Daemon, Options, poll};

use super::PATIENCE;

/// A daemon with a certificate of these names, which are files beside etcd's data.
pub(crate) fn prepare(etcd: &Cluster, ca: &str, client: &str, more: &[&str]) -> Daemon {
    let path = |name: String| etcd.path(&name).display().to_string();
    let (endpoint, ca) = (etcd.endpoint(0), path(format!("{ca}.pem")));
    let (cert, key) = (path(format!("{client}.pem")), path(format!("{client}.key")));
    let mut args = vec!["--node", "a", "--lease-ttl", "5s", "--etcd", &endpoint, "--etcd-ca", &ca];
    args.extend(["--etcd-cert", &cert, "--etcd-key", &key]);
    args.extend(more);
    let args = args.into_iter().map(str::to_owned).collect();
    Daemon::prepare(&Options { args, ..Options::default() })
}

/// Writes the certificate and the key of one name in the place of another's.
pub(crate) fn renew(etcd: &Cluster, from: &str, to: &str) {
    for end in ["key", "pem"] {
        let path = |name: &str| etcd.path(&format!("{name}.{end}"));
        fs::copy(path(from), path(to)).expect("a copy");
    }
}

fn status(daemon: &Daemon) -> String {
    let reply = daemon.client().try_request("GET", "/v1/status", "");
    reply.map(|reply| reply.body).unwrap_or_default()
}

fn await_status(daemon: &Daemon, what: &str, ready: impl Fn(&str) -> bool) {
    let came = poll(2 * PATIENCE, || ready(&status(daemon)));
    assert!(came, "{what}: {}\n{}", status(daemon), daemon.log_tail());
}

#[test]
fn what_is_wrong_with_tls_is_named_in_status_and_log() {
    let etcd = Cluster::start_tls();
    for (ca, client, more, words) in [
        ("other-ca", "client", &[][..], "its certificate is not trusted"),
        (
            "ca",
            "client",
            &["--etcd-server-name", "x.example"],
            "its certificate is for another name",
        ),
        ("ca", "other-client", &[], "does not accept our certificate"),
        ("ca", "expired-client", &[], "our certificate has expired at"),
    ] {
        let mut daemon = prepare(&etcd, ca, client, more);
        daemon.start_unready();
        await_status(&daemon, words, |status| status.contains(words));
        assert!(daemon.log().contains(words), "{words}: {}", daemon.log_tail());
    }
    renew(&etcd, "expired-server", "server");
    let mut daemon = prepare(&etcd, "ca", "client", &[]);
    daemon.start_unready();
    let words = "its certificate is not valid at this time";
    await_status(&daemon, words, |status| status.contains(words));
    assert!(daemon.log().contains(words), "{}", daemon.log_tail());
}

#[test]
fn the_end_of_a_certificate_is_warned_of_until_it_is_renewed() {
    let etcd = Cluster::start_tls();
    renew(&etcd, "ending-client", "ours");
    let mut daemon = prepare(&etcd, "ca", "ours", &[]);
    daemon.restart();
    let words = "its certificate expires at";
    await_status(&daemon, words, |status| status.contains(words) && status.contains("2 hours"));
    let shown = ends(&daemon, &["status"], 0);
    assert!(shown.contains("warning: certFile: ") && shown.contains(words), "{shown}");
    assert!(daemon.log().contains(words), "{}", daemon.log_tail());
    let metric = || -> f64 {
        let name = "leasehold_etcd_certificate_end_timestamp_seconds{certificate=\"client\"} ";
        let metrics = daemon.over_tcp("GET", "/metrics", "").body;
        let end = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        end.parse().expect("a figure")
    };
    let soon = metric();
    renew(&etcd, "client", "ours");
    await_status(&daemon, "renewed", |status| !status.contains(words));
    assert!(metric() > soon + 1e6, "{} is not later than {soon}", metric());
    renew(&etcd, "expired-client", "ours");
    let words = "its certificate has expired at";
    await_status(&daemon, words, |status| status.contains(words));
    assert!(metric() < soon, "{}", metric());
}
