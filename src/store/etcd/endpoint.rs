//! One member of etcd: a connection that is made when it is needed and dropped when it fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use etcd_client::{Client, ConnectOptions, Error};
use tokio::time::timeout;

use super::failure::{Failure, chain};
use super::options::{Options, User};
use super::plain::ended_at_once;

/// A member of etcd.
pub(super) struct Endpoint {
    pub(super) url: String,
    /// The options, which are read anew, files and all, for each new connection: certificates and
    /// passwords are renewed while the daemon runs.
    source: Options,
    /// The options that were read last without a fault.
    prepared: Mutex<(ConnectOptions, User)>,
    client: Mutex<Option<Client>>,
    /// True if etcd has answered a request on the present connection.
    answered: AtomicBool,
}

impl Endpoint {
    pub(super) fn new(url: &str, source: &Options, prepared: &(ConnectOptions, User)) -> Self {
        Self {
            url: url.to_owned(),
            source: source.clone(),
            prepared: Mutex::new(prepared.clone()),
            client: Mutex::default(),
            answered: AtomicBool::default(),
        }
    }

    /// The options for a new connection. Files that are just being replaced count as unchanged.
    fn prepare(&self) -> (ConnectOptions, User) {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        match self.source.prepare() {
            Ok(now) => *prepared = now,
            Err(error) => {
                tracing::warn!(%error, "a file cannot be read anew; what was read before counts");
            }
        }
        prepared.clone()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client with the endpoint's connection, authenticated if there is a user.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        if let Some(client) = &*self.slot() {
            return Ok(client.clone());
        }
        let connect = |options| Client::connect([&self.url], Some(options));
        let (options, user) = self.prepare();
        let connected = match &user {
            None => connect(options).await?,
            Some((user, password)) => {
                match connect(options.clone().with_user(user, password)).await {
                    // etcd's own client, too, goes on without authentication then.
                    Err(error) if chain(&error).contains("authentication is not enabled") => {
                        connect(options).await?
                    }
                    connected => connected?,
                }
            }
        };
        Ok(self.slot().insert(connected).clone())
    }

    /// Drops the connection; the next request makes a new one.
    pub(super) fn forget(&self) {
        self.slot().take();
        self.answered.store(false, Ordering::Relaxed);
    }

    /// Explains the end of a connection on which nothing was ever answered: so etcd refuses a
    /// client's certificate.
    fn explain(&self, failure: Failure) -> Failure {
        let explained = |why: String| match ended_at_once(&self.source, &failure) {
            Some(advice) => format!("{advice}: {why}"),
            None => why,
        };
        match &failure {
            _ if self.answered.load(Ordering::Relaxed) => failure,
            Failure::NotSent(why) => Failure::NotSent(explained(why.clone())),
            Failure::Lost(why) => Failure::Lost(explained(why.clone())),
            _ => failure,
        }
    }

    /// Makes a request, and repeats it once with a new token if etcd does not know the old one.
    pub(super) async fn call<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut known = self.source.user.is_none();
        let request_deadline = self.source.request_deadline;
        loop {
            let connecting =
                timeout(self.source.connect_deadline + request_deadline, self.client());
            let client = match connecting.await {
                Ok(Ok(client)) => client,
                Ok(Err(error)) => return Err(self.explain(Failure::NotSent(chain(&error)))),
                Err(_) => return Err(Failure::NotSent("no answer to the password".to_owned())),
            };
            let failure = match timeout(request_deadline, request(client)).await {
                Ok(Ok(answer)) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => {
                    let waited = humantime::format_duration(request_deadline);
                    Failure::Lost(format!("no answer within {waited}"))
                }
            };
            match failure {
                Failure::Stranger(_) if !known => known = true,
                Failure::Refused(_) | Failure::LeaseGone => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
                _ => {
                    let failure = self.explain(failure);
                    self.forget();
                    return Err(failure);
                }
            }
            self.forget();
        }
    }
}
