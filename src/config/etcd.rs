//! The part of the configuration about etcd.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::times::between;
use crate::limits;
use crate::store::etcd::Options;

/// The options of `leasehold serve` about etcd.
#[derive(Args, Clone, Default, Debug)]
pub struct EtcdArgs {
    /// URLs of etcd's members, separated by commas; without them the node is alone and keeps its
    /// own store
    #[arg(
        long = "etcd",
        value_name = "URL[,URL...]",
        env = "LEASEHOLD_ETCD",
        value_delimiter = ','
    )]
    pub endpoints: Vec<String>,
    /// Prefix of every key in etcd [default: /leasehold/v1]
    #[arg(long = "etcd-prefix", value_name = "PREFIX", env = "LEASEHOLD_ETCD_PREFIX")]
    pub prefix: Option<String>,
    /// User of etcd; needs a password file
    #[arg(long = "etcd-user", value_name = "NAME", env = "LEASEHOLD_ETCD_USER")]
    pub user: Option<String>,
    /// File with that user's password
    #[arg(long = "etcd-password-file", value_name = "FILE", env = "LEASEHOLD_ETCD_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// File with certificates of the authorities that signed etcd's certificates (PEM); needed for
    /// https
    #[arg(long = "etcd-ca", value_name = "FILE", env = "LEASEHOLD_ETCD_CA")]
    pub ca_file: Option<PathBuf>,
    /// File with the daemon's certificate (PEM), if etcd asks for one
    #[arg(long = "etcd-cert", value_name = "FILE", env = "LEASEHOLD_ETCD_CERT")]
    pub cert_file: Option<PathBuf>,
    /// File with the key of the daemon's certificate (PEM)
    #[arg(long = "etcd-key", value_name = "FILE", env = "LEASEHOLD_ETCD_KEY")]
    pub key_file: Option<PathBuf>,
    /// Name in etcd's certificates, if it is not the name in the URLs
    #[arg(long = "etcd-server-name", value_name = "NAME", env = "LEASEHOLD_ETCD_SERVER_NAME")]
    pub server_name: Option<String>,
    /// Time after which a member that does not answer is given up and another one is asked
    /// [default: 3s]
    #[arg(long = "etcd-request-deadline", value_name = "TIME",
          env = "LEASEHOLD_ETCD_REQUEST_DEADLINE", value_parser = deadline)]
    pub request_deadline: Option<Duration>,
}

/// The same options in the form of the file: the table `[etcd]`.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    endpoints: Vec<String>,
    prefix: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    request_deadline: Option<String>,
}

fn deadline(text: &str) -> Result<Duration, String> {
    between(text, limits::ETCD_ANSWER_WAIT_SHORTEST, limits::ETCD_ANSWER_WAIT_LONGEST)
}

impl File {
    /// The options of the file as arguments, and what is wrong with one that is left out.
    pub(super) fn args(self) -> (EtcdArgs, Option<String>) {
        let request_deadline = self.request_deadline.as_deref().map(deadline).transpose();
        let fault = request_deadline.as_ref().err().map(|e| format!("etcd.requestDeadline: {e}"));
        let args = EtcdArgs {
            endpoints: self.endpoints,
            prefix: self.prefix,
            user: self.user,
            password_file: self.password_file,
            ca_file: self.ca_file,
            cert_file: self.cert_file,
            key_file: self.key_file,
            server_name: self.server_name,
            request_deadline: request_deadline.ok().flatten(),
        };
        (args, fault)
    }
}

impl EtcdArgs {
    /// These options, with those of `file` where they are missing.
    pub(super) fn or(self, file: Self) -> Self {
        let given = |endpoints: Vec<String>| -> Vec<String> {
            endpoints.into_iter().filter(|endpoint| !endpoint.is_empty()).collect()
        };
        let endpoints = match given(self.endpoints) {
            none if none.is_empty() => given(file.endpoints),
            endpoints => endpoints,
        };
        Self {
            endpoints,
            prefix: self.prefix.or(file.prefix),
            user: self.user.or(file.user),
            password_file: self.password_file.or(file.password_file),
            ca_file: self.ca_file.or(file.ca_file),
            cert_file: self.cert_file.or(file.cert_file),
            key_file: self.key_file.or(file.key_file),
            server_name: self.server_name.or(file.server_name),
            request_deadline: self.request_deadline.or(file.request_deadline),
        }
    }

    /// The options of the connection to etcd, or `None` without etcd.
    pub(super) fn options(self) -> anyhow::Result<Option<Options>> {
        if self.endpoints.is_empty() {
            let said = [
                ("prefix", self.prefix.is_some()),
                ("user", self.user.is_some()),
                ("passwordFile", self.password_file.is_some()),
                ("caFile", self.ca_file.is_some()),
                ("certFile", self.cert_file.is_some()),
                ("keyFile", self.key_file.is_some()),
                ("serverName", self.server_name.is_some()),
                ("requestDeadline", self.request_deadline.is_some()),
            ];
            if let Some((field, _)) = said.iter().find(|(_, said)| *said) {
                anyhow::bail!("etcd.{field} is given, but no URL of etcd: give --etcd too");
            }
            return Ok(None);
        }
        let default = Options::default();
        let prefix = self.prefix.unwrap_or(default.prefix);
        Ok(Some(Options {
            endpoints: self.endpoints,
            prefix: prefix.trim_end_matches('/').to_owned(),
            user: self.user,
            password_file: self.password_file,
            ca_file: self.ca_file,
            cert_file: self.cert_file,
            key_file: self.key_file,
            server_name: self.server_name,
            connect_deadline: default.connect_deadline,
            request_deadline: self.request_deadline.unwrap_or(default.request_deadline),
        }))
    }
}
