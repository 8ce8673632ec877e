//! Decides from an error whether a request was certainly not carried out and never will be.
//!
//! The uniqueness of addresses rests on this. If a request counts as dead but is carried out after
//! all, it can give one block to two nodes; a request that counts as doubtful only costs a read. So
//! every error that does not prove the request dead is [`Failure::Lost`].

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

/// The state of a request that was not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not leave this process.
    NotSent(String),
    /// etcd says that it did not carry it out, for a reason that another try does not change.
    Refused(String),
    /// etcd says that it did not carry it out, because it does not know the caller, or its token
    /// is too old.
    Stranger(String),
    /// etcd says that it did not carry it out, because a lease that it names is gone.
    LeaseGone,
    /// It may have been carried out, or may still be.
    Lost(String),
}

/// The begin of etcd's own errors; the errors of a proxy or of the transport do not count.
const OF_ETCD: &str = "etcdserver: ";

impl Failure {
    /// The meaning of a request's error.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(status),
            // All other errors come from a stream that was open already.
            _ => Self::Lost(chain(error)),
        }
    }

    /// The reason.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::NotSent(why) | Self::Refused(why) | Self::Stranger(why) | Self::Lost(why) => why,
            Self::LeaseGone => "an etcd lease is gone",
        }
    }

    fn of_status(status: &Status) -> Self {
        // tonic hands a request to a connection only after it is made (with TLS: after the
        // handshake). This error comes instead of the connection, and no layer below tries again.
        if connect_error(status) {
            return Self::NotSent(chain(status));
        }
        let said = status.message().strip_prefix(OF_ETCD);
        match (status.code(), said) {
            // Tokens are checked before anything is proposed; a token's age also when it is
            // applied, on every member alike, before anything is changed.
            (Code::Unauthenticated, Some(said))
            | (
                Code::InvalidArgument,
                Some(said @ ("user name is empty" | "revision of auth store is old")),
            ) => Self::Stranger(said.to_owned()),
            // A malformed or too large request is refused before it is proposed. A request that the
            // user may not make is refused then too, or else when it is applied, on every member
            // alike, before anything is changed.
            (Code::InvalidArgument | Code::PermissionDenied, Some(said)) => {
                Self::Refused(said.to_owned())
            }
            // The leases of all writes are looked up when the transaction is applied, on every
            // member alike, before the first write.
            (Code::NotFound, Some("requested lease not found")) => Self::LeaseGone,
            // Some of these codes look safe and are not. Unavailable (no leader, leader changed,
            // timeouts, a broken connection) comes after a proposal that may still be applied.
            // ResourceExhausted: the transaction that reaches etcd's disk quota is carried out
            // and answered "database space exceeded". OutOfRange: the answer was too large.
            _ => Self::Lost(chain(status)),
        }
    }
}

fn connect_error(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes, each written once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    // The client's error does not name its causes.
    match error.downcast_ref::<Error>() {
        Some(Error::GRpcStatus(status)) => return chain(status),
        Some(Error::TransportError(error)) => return chain(error),
        _ => {}
    }
    let mut said = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = if said.is_empty() { text } else { format!("{said}: {text}") };
        }
        cause = error.source();
    }
    said
}
