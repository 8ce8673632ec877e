//! What an error says about the request: that it was not carried out and never will be, or nothing.
//!
//! The uniqueness of addresses rests on this. A request that is taken for dead and is carried out
//! after all can give one block to two nodes; one that is taken for doubtful costs a read. So
//! whatever is not proved here is [`Failure::Lost`].

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

/// What became of a request that was not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not leave this process.
    NotSent(String),
    /// etcd says that it did not carry it out, for a reason that another try does not change.
    Refused(String),
    /// etcd says that it did not carry it out, since it does not know who asks (any more).
    Stranger(String),
    /// etcd says that it did not carry it out, since a lease that it names is gone.
    LeaseGone,
    /// It may have been carried out, or may be yet.
    Lost(String),
}

/// etcd itself begins its errors so; what a proxy or the transport says does not count.
const OF_ETCD: &str = "etcdserver: ";

impl Failure {
    /// What an error of a request means.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(status),
            // The rest comes from a stream that was open already.
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
        // tonic hands a request over to a connection only once that is made (with TLS: after its
        // handshake); this error takes the place of the connection. Nothing below tries again.
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
            // What is malformed or too large is refused before it is proposed; what the user may
            // not do, too, or else when it is applied, on every member alike, before anything is
            // changed.
            (Code::InvalidArgument | Code::PermissionDenied, Some(said)) => {
                Self::Refused(said.to_owned())
            }
            // Looked up when the transaction is applied, on every member alike, for all writes
            // before the first one.
            (Code::NotFound, Some("requested lease not found")) => Self::LeaseGone,
            // Among them: Unavailable (no leader, leader changed, timeouts, a connection that
            // broke) comes after a proposal that may still be applied. ResourceExhausted: when
            // etcd's disk quota is reached, the transaction that reaches it is carried out and
            // answered "database space exceeded". OutOfRange: an answer that is too large for us.
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

/// An error with its causes, each said once.
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
