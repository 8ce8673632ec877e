//! The options of the connection to etcd, and the errors in them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::{files, limits};

/// The options of the connection to etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The members' client URLs, such as `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// The prefix of every key.
    pub prefix: String,
    /// The user, if etcd authenticates by password.
    pub user: Option<String>,
    /// The file with its password; a line end after the password does not count.
    pub password_file: Option<PathBuf>,
    /// Certificates of the authorities that sign the servers', as PEM. Needed for `https`.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, as PEM, if etcd wants one.
    pub cert_file: Option<PathBuf>,
    /// Its key, as PEM.
    pub key_file: Option<PathBuf>,
    /// The name in the servers' certificates, if it is not the one in the URLs.
    pub server_name: Option<String>,
    /// The longest time for one endpoint to accept a connection.
    pub connect_deadline: Duration,
    /// The longest time for one endpoint to answer a request.
    pub request_deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/leasehold/v1".to_owned(),
            user: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            server_name: None,
            connect_deadline: limits::ETCD_CONNECT_WAIT_MAX,
            request_deadline: limits::ETCD_ANSWER_WAIT_MAX,
        }
    }
}

/// A wrong option, with the remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("etcd: {0}")]
pub struct OptionsError(pub(super) String);

fn wrong<T>(about: String) -> Result<T, OptionsError> {
    Err(OptionsError(about))
}

/// A user and its password.
pub(super) type User = Option<(String, String)>;

impl Options {
    /// The options of a connection without a user, and the user.
    pub(super) fn prepare(&self) -> Result<(ConnectOptions, User), OptionsError> {
        if self.endpoints.is_empty() || self.endpoints.len() > limits::ETCD_ENDPOINTS_MAX {
            return wrong(format!(
                "endpoints: give the URLs of 1 to {} members (--etcd), not of {}",
                limits::ETCD_ENDPOINTS_MAX,
                self.endpoints.len()
            ));
        }
        for endpoint in &self.endpoints {
            self.check(endpoint)?;
        }
        if self.prefix.is_empty() || self.prefix.ends_with('/') {
            return wrong(format!(
                "prefix: {:?} must not be empty or end in '/': give something such as \
                 /leasehold/v1 (--etcd-prefix)",
                self.prefix
            ));
        }
        let options = ConnectOptions::new()
            .with_connect_timeout(self.connect_deadline)
            .with_keep_alive(limits::ETCD_PING, limits::ETCD_PING_WAIT_MAX)
            // etcd ends connections that send pings without an open request.
            .with_keep_alive_while_idle(false)
            // A member that is cut off from the others reports that, instead of serving old
            // watches.
            .with_require_leader(true);
        let options = match self.tls()? {
            Some(tls) => options.with_tls(tls),
            None => options,
        };
        Ok((options, self.user()?))
    }

    /// Says everything for which no connection would be tried.
    pub fn faults(&self) -> Vec<String> {
        let endpoints = self.endpoints.iter().map(|endpoint| self.check(endpoint).err());
        let whole = [self.tls().err(), self.user().err()];
        let mut faults: Vec<String> =
            endpoints.chain(whole).flatten().map(|OptionsError(said)| said).collect();
        // Such as a number of endpoints.
        if let (true, Err(OptionsError(said))) = (faults.is_empty(), self.prepare()) {
            faults.push(said);
        }
        faults.dedup();
        faults
    }

    /// Returns what is unwise, in sentences.
    pub fn unwise(&self) -> Vec<String> {
        let mut all = Vec::new();
        let plain = self.endpoints.iter().find(|endpoint| endpoint.starts_with("http://"));
        if let (Some(user), Some(endpoint)) = (&self.user, plain) {
            all.push(format!(
                "endpoints: the password of {user} goes to {endpoint} in the clear, and everybody \
                 on the way can read it: use https://"
            ));
        }
        let secrets = [("passwordFile", &self.password_file), ("keyFile", &self.key_file)];
        for (field, file) in secrets {
            let said = file.as_deref().map(files::check_secret);
            match said {
                Some(Ok(Some(unwise))) => all.push(format!("{field}: {unwise}")),
                Some(Err(error)) if error.kind() == io::ErrorKind::Other => {
                    all.push(format!("{field}: {error}"));
                }
                // A file that cannot be looked at cannot be read either, and that is told.
                _ => {}
            }
        }
        all
    }

    fn check(&self, endpoint: &str) -> Result<(), OptionsError> {
        let (secure, rest) = match (endpoint.strip_prefix("https://"), endpoint) {
            (Some(rest), _) => (true, rest),
            (None, endpoint) => (false, endpoint.strip_prefix("http://").unwrap_or_default()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let good = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        let place = rest.rsplit_once(':').filter(|(host, port)| {
            !host.is_empty() && host.chars().all(good) && port.parse::<u16>().is_ok()
        });
        if place.is_none() {
            return wrong(format!(
                "endpoints: {endpoint:?} is not a URL of etcd: give http://HOST:PORT or \
                 https://HOST:PORT with etcd's client port, usually 2379 (--etcd)"
            ));
        }
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        if !secure && (files.iter().any(|file| file.is_some()) || self.server_name.is_some()) {
            return wrong(format!(
                "endpoints: {endpoint} is not encrypted, but caFile, certFile, keyFile or \
                 serverName is given: write https://, or leave these out"
            ));
        }
        if secure && self.ca_file.is_none() {
            return wrong(format!(
                "caFile: {endpoint} is encrypted: give the file with the certificate of the \
                 authority that signed etcd's (--etcd-ca)"
            ));
        }
        Ok(())
    }

    fn tls(&self) -> Result<Option<TlsOptions>, OptionsError> {
        let Some(ca) = &self.ca_file else { return Ok(None) };
        let ca = pem("caFile", "--etcd-ca", ca, "CERTIFICATE-----")?;
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(ca))
            .timeout(self.connect_deadline);
        let tls = match &self.server_name {
            Some(name) => tls.domain_name(name),
            None => tls,
        };
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let cert = pem("certFile", "--etcd-cert", cert, "CERTIFICATE-----")?;
                let key = pem("keyFile", "--etcd-key", key, "PRIVATE KEY-----")?;
                Ok(Some(tls.identity(Identity::from_pem(cert, key))))
            }
            (None, None) => Ok(Some(tls)),
            (Some(_), None) => wrong("keyFile: certFile needs its key too (--etcd-key)".to_owned()),
            (None, Some(_)) => {
                wrong("certFile: keyFile needs its certificate too (--etcd-cert)".to_owned())
            }
        }
    }

    fn user(&self) -> Result<User, OptionsError> {
        match (&self.user, &self.password_file) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                wrong("user: passwordFile is given, but no user (--etcd-user)".to_owned())
            }
            (Some(user), None) => wrong(format!(
                "passwordFile: give the file with the password of {user} (--etcd-password-file)"
            )),
            (Some(user), Some(file)) => {
                let password = read("passwordFile", "--etcd-password-file", file)?;
                let password = password.trim_end_matches(['\r', '\n']);
                if password.is_empty() {
                    return wrong(format!(
                        "passwordFile: {} is empty: write the password of {user} into it",
                        file.display()
                    ));
                }
                Ok(Some((user.clone(), password.to_owned())))
            }
        }
    }
}

fn read(field: &str, flag: &str, file: &Path) -> Result<String, OptionsError> {
    let text = files::read_foreign(file, limits::PEM_BYTES_MAX).and_then(|text| {
        String::from_utf8(text)
            .map_err(|_| io::Error::other("it is not text in UTF-8: name another one"))
    });
    text.map_err(|error| {
        let file = file.display();
        // Other errors have their remedy with them.
        let remedy = match error.kind() {
            io::ErrorKind::Other => "",
            _ => ": give a file that can be read",
        };
        OptionsError(format!("{field}: {file}: {error}{remedy} ({flag})"))
    })
}

/// Reads a PEM file, and checks that it has at least the mark of its expected content.
fn pem(field: &str, flag: &str, file: &Path, mark: &str) -> Result<String, OptionsError> {
    let text = read(field, flag, file)?;
    if text.contains(mark) {
        return Ok(text);
    }
    let (what, file) = (mark.trim_end_matches('-').to_lowercase(), file.display());
    wrong(format!("{field}: {file} has no {what} in PEM form: give another file ({flag})"))
}
