//! Looks at the certificates for etcd, and warns before they end. They are read again for each new
//! connection, so nothing has to be done once they are renewed.

use std::time::Duration;

use crate::api::AppState;
use crate::api::warnings::Warnings;
use crate::config::Config;
use crate::core::time::UnixTime;
use crate::store::etcd::{CertificateFile, End, Holder, Options};
use crate::{clock, limits, metrics};

/// Looks after them from now on, if this node has an etcd.
pub(super) fn start_watching(config: &Config, node: &AppState) {
    if let Some(options) = &config.etcd {
        actix_rt::spawn(watch(options.clone(), node.warnings.clone()));
    }
}

async fn watch(options: Options, warnings: Warnings) {
    let mut looks = tokio::time::interval(limits::CERTIFICATES_LOOK);
    loop {
        looks.tick().await;
        let all = options.certificates();
        for holder in Holder::ALL {
            let of = all.iter().find(|certificate| certificate.holder == holder);
            let end = of.and_then(|certificate| certificate.end.as_ref().ok());
            metrics::certificate_end(holder.as_str(), end.map(|end| end.at));
        }
        let now = clock::unix();
        let unwise = all.iter().filter_map(|certificate| unwise(certificate, now)).collect();
        warnings.set("certificates", unwise);
    }
}

/// Returns a warning about a certificate, if it needs one.
fn unwise(certificate: &CertificateFile, now: UnixTime) -> Option<String> {
    let CertificateFile { holder, file, end } = certificate;
    let place = format!("{}: {}", holder.option(), file.display());
    match end {
        Err(error) => Some(format!("{place}: the end of its certificate cannot be read: {error}")),
        Ok(End { at, .. }) if *at <= now => Some(format!(
            "{place}: its certificate has expired at {}, so no new connection to etcd can be \
             made: renew it",
            clock::rfc3339(*at)
        )),
        Ok(End { since, at }) => {
            let left = at.since(now);
            (left < limits::CERTIFICATE_END_WARNED.min(at.since(*since) / 10)).then(|| {
                format!(
                    "{place}: its certificate expires at {}, in {}: renew it; the daemon reads it \
                     again for its next connection to etcd",
                    clock::rfc3339(*at),
                    round(left)
                )
            })
        }
    }
}

/// A time in whole days, or hours, or minutes: a new one is a new line in the log.
fn round(left: Duration) -> String {
    let minutes = left.as_secs() / 60;
    match minutes {
        0..120 => format!("{} minutes", minutes / 10 * 10),
        120..2_880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1_440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    fn said(life_days: u64, left: Duration) -> Option<String> {
        let since = UnixTime::from_millis(1_700_000_000_000);
        let at = UnixTime::from_millis(since.as_millis() + life_days * DAY);
        let now = at.before(left);
        let end = Ok(End { since, at });
        unwise(&CertificateFile { holder: Holder::Client, file: "/c.pem".into(), end }, now)
    }

    #[test]
    fn an_end_is_warned_of_in_time_and_not_all_the_time() {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        assert_eq!(said(365, days(15)), None);
        assert!(said(365, days(13)).unwrap().contains("in 13 days"));
        assert_eq!(said(1, Duration::from_secs(4 * 3600)), None, "a life of one day");
        assert!(said(1, Duration::from_secs(2 * 3600)).unwrap().contains("in 2 hours"));
        assert!(said(1, Duration::from_secs(700)).unwrap().contains("in 10 minutes"));
        assert!(said(365, Duration::ZERO).unwrap().contains("has expired at"));
    }
}
