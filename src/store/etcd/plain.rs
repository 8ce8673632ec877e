//! Explains errors of etcd, and of connections to it, with a remedy.

use super::certificates::Holder;
use super::failure::Failure;
use super::options::Options;
use crate::clock;

/// The meaning of a failure for the operator, with the error itself in brackets; the error alone if
/// no explanation is known.
pub(super) fn plain(options: &Options, failure: &Failure) -> String {
    let why = failure.why();
    match advice(options, why) {
        Some(advice) => format!("{advice} ({why})"),
        None => why.to_owned(),
    }
}

fn advice(options: &Options, why: &str) -> Option<String> {
    let Options { prefix, .. } = options;
    let user = options.user.as_deref().unwrap_or("of the certificate");
    let says = |words: &[&str]| words.iter().any(|words| why.contains(words));
    let advice = if says(&["Connection refused"]) {
        "nothing listens there: is etcd running, and is this its client port?"
    } else if says(&["failed to lookup address"]) {
        "its name cannot be resolved here: give another name or an address (--etcd)"
    } else if says(&["UnknownIssuer", "BadSignature"]) {
        "its certificate is not trusted: caFile must have the certificate of the authority that \
         signed it (--etcd-ca)"
    } else if says(&["not valid for name"]) {
        "its certificate is for another name: give one of its names (--etcd-server-name)"
    } else if says(&["certificate expired", "certificate: Expired", "not valid yet"]) {
        "its certificate is not valid at this time: renew it, or set the clock"
    } else if says(&["received fatal alert"]) && options.cert_file.is_none() {
        "it wants a client certificate: give certFile and keyFile (--etcd-cert, --etcd-key)"
    } else if says(&["received fatal alert"]) {
        return Some(not_accepted(options));
    } else if says(&["InvalidContentType", "handshake eof"]) {
        "it does not speak TLS: is its URL http://? (--etcd)"
    } else if says(&["grpc-status header missing"]) {
        "the server there is not etcd: is this etcd's client port?"
    } else if says(&["invalid user ID or password"]) {
        "wrong user or password: check user and passwordFile (--etcd-user, --etcd-password-file)"
    } else if says(&["user name is empty"]) {
        "it wants a user and a password (--etcd-user, --etcd-password-file)"
    } else if says(&["permission denied"]) {
        return Some(format!(
            "the user {user} may not read and write keys under {prefix}/: give one of its roles \
             that permission (etcdctl role grant-permission ROLE readwrite --prefix=true {prefix}/)"
        ));
    } else if says(&["no leader"]) {
        "it has no leader: most members are down, or it is cut off from them"
    } else if says(&["database space exceeded"]) {
        "its disk quota is used up: compact and defragment it, then disarm the alarm"
    } else if says(&["no answer within"]) {
        "it is stopped, overloaded or cut off from the network"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

/// The explanation when etcd does not accept our certificate.
fn not_accepted(options: &Options) -> String {
    let ended = options.certificates().into_iter().find_map(|certificate| {
        let end = certificate.end.ok()?;
        (certificate.holder == Holder::Client && end.at <= clock::unix()).then_some(end.at)
    });
    match ended {
        Some(at) => format!(
            "our certificate has expired at {}: renew the file in certFile (--etcd-cert)",
            clock::rfc3339(at)
        ),
        None => "it does not accept our certificate: certFile must be signed by an authority that \
                 etcd trusts for clients (--etcd-cert)"
            .to_owned(),
    }
}

/// The explanation when a member ends a connection on which nothing was answered yet.
pub(super) fn ended_at_once(options: &Options, failure: &Failure) -> Option<String> {
    let words = ["broken pipe", "connection closed", "reset by peer", "connection error"];
    let ended = words.iter().any(|words| failure.why().contains(words));
    let encrypted = options.ca_file.is_some();
    let advice = match failure {
        _ if !ended || failure.why().contains("alert") => return None,
        Failure::NotSent(_) if encrypted => "it does not speak TLS: is its URL http://? (--etcd)",
        Failure::Lost(_) if encrypted && options.cert_file.is_none() => {
            "it ends the connection, as etcd does when it wants a client certificate: give \
             certFile and keyFile (--etcd-cert, --etcd-key)"
        }
        Failure::Lost(_) if encrypted => {
            let why = not_accepted(options);
            return Some(format!("it ends the connection, as etcd does in such a case: {why}"));
        }
        Failure::Lost(_) => {
            "it ends the connection, as etcd does when its URL is https:// (--etcd)"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}
