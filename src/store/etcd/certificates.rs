//! The ends of the certificates with which the daemon meets etcd.

use std::path::{Path, PathBuf};

use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

use super::options::Options;
use crate::core::time::UnixTime;
use crate::{files, limits};

/// The holder of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// The authorities that signed etcd's certificates.
    Authority,
    /// This daemon, as a client of etcd.
    Client,
}

impl Holder {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Authority, Self::Client];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Client => "client",
        }
    }

    /// The option that names the file.
    pub fn option(self) -> &'static str {
        match self {
            Self::Authority => "caFile",
            Self::Client => "certFile",
        }
    }
}

/// A file with certificates, and when they end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFile {
    /// The party that these certificates name.
    pub holder: Holder,
    /// The file.
    pub file: PathBuf,
    /// Their end, or the reason why that is not known.
    pub end: Result<End, String>,
}

/// The end of a certificate's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The beginning of its life.
    pub since: UnixTime,
    /// The end.
    pub at: UnixTime,
}

impl Options {
    /// Reads the files with certificates as they are now. Of several authorities, one of which is
    /// enough, the one that lives longest counts; of a chain, all of which is needed, the one that
    /// ends first.
    pub fn certificates(&self) -> Vec<CertificateFile> {
        let files = [(Holder::Authority, &self.ca_file), (Holder::Client, &self.cert_file)];
        let named = files.into_iter().filter_map(|(holder, file)| Some((holder, file.clone()?)));
        named
            .map(|(holder, file)| CertificateFile { holder, end: end(holder, &file), file })
            .collect()
    }
}

fn end(holder: Holder, file: &Path) -> Result<End, String> {
    let text =
        files::read_foreign(file, limits::PEM_BYTES_MAX).map_err(|error| error.to_string())?;
    let mut ends = Vec::new();
    for block in Pem::iter_from_buffer(&text) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label == "CERTIFICATE" {
            let certificate = block.parse_x509().map_err(|error| error.to_string())?;
            let validity = certificate.validity();
            ends.push(End { since: time(validity.not_before), at: time(validity.not_after) });
        }
    }
    let end = match holder {
        Holder::Authority => ends.into_iter().max_by_key(|end| end.at),
        Holder::Client => ends.into_iter().min_by_key(|end| end.at),
    };
    end.ok_or_else(|| "it has no certificate".to_owned())
}

fn time(time: ASN1Time) -> UnixTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    UnixTime::from_millis(seconds.saturating_mul(1000))
}
