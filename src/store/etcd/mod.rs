//! The store of a cluster: etcd.
//!
//! Connections have a thread of their own. So the threads that answer containers never decode a
//! listing or wait for a handshake, and deadlines hold while those threads are busy.

mod certificates;
mod convert;
mod endpoint;
mod failure;
mod foreign;
mod history;
mod options;
mod page;
mod plain;
mod probe;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::runtime::{self, Handle};
use tokio::sync::mpsc;

pub use certificates::{CertificateFile, End, Holder};
pub use history::{Compaction, History};
pub use options::{Options, OptionsError};
pub use probe::{Probe, Server};

use self::convert::{Prefix, outcome};
use self::endpoint::Endpoint;
use self::failure::{Failure, chain};
use self::plain::plain;
use super::{ClusterStore, Page, Pending, PendingForeign, PendingPage};
use crate::core::ids::LeaseId;
use crate::core::txn::{Answer, KeyValue, Request, Span, StoreError, TxnOutcome, Watched};
use crate::{clock, limits, metrics};

/// etcd. Its thread, connections and watches end with the last clone.
#[derive(Clone)]
pub struct Etcd {
    cluster: Arc<Cluster>,
    runtime: Handle,
    /// No message is ever sent: the thread ends when all of these senders are gone.
    _alive: mpsc::Sender<Infallible>,
}

/// The members of etcd, and the choice of the one to ask.
struct Cluster {
    options: Options,
    prefix: Prefix,
    endpoints: Vec<Arc<Endpoint>>,
    /// The member that answered last, or the one after a member that did not answer.
    preferred: AtomicUsize,
}

/// The repetition that is allowed when the answer to a request was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// None: the request might be carried out twice, or after it was given up.
    Never,
    /// The same request to another member, because it changes nothing.
    Harmless,
    /// The same request to another member, although it may have been carried out already.
    Repeatable,
}

impl Etcd {
    /// Prepares connections, but does not make them: etcd need not be reachable yet.
    ///
    /// # Errors
    /// An option is wrong, or a file cannot be read; the error names it and the remedy.
    pub fn connect(options: Options) -> Result<Self, OptionsError> {
        let prepared = options.prepare()?;
        let endpoint = |url: &String| Arc::new(Endpoint::new(url, &options, &prepared));
        let cluster = Arc::new(Cluster {
            prefix: Prefix::new(&options.prefix),
            endpoints: options.endpoints.iter().map(endpoint).collect(),
            preferred: AtomicUsize::new(0),
            options,
        });
        let (alive, ended) = mpsc::channel(1);
        let (to, started) = sync_channel(1);
        let endpoints = cluster.options.endpoints.clone();
        let work = move || run(&endpoints, prepared.0, ended, to);
        let system = |error: String| OptionsError(format!("cannot start its thread: {error}"));
        thread::Builder::new()
            .name("etcd".to_owned())
            .spawn(work)
            .map_err(|error| system(error.to_string()))?;
        let runtime = started.recv().map_err(|error| system(error.to_string()))??;
        Ok(Self { cluster, runtime, _alive: alive })
    }
}

/// The body of the thread: a runtime that ends with the last clone.
fn run(
    endpoints: &[String],
    connect: etcd_client::ConnectOptions,
    mut ended: mpsc::Receiver<Infallible>,
    to: SyncSender<Result<Handle, OptionsError>>,
) {
    let mut builder = runtime::Builder::new_current_thread();
    let builder = builder.enable_all().max_blocking_threads(limits::BLOCKING_THREADS_MAX);
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // The receiver waits for this message, so it is there.
            let _ = to.send(Err(OptionsError(format!("cannot start its runtime: {error}"))));
            return;
        }
    };
    runtime.block_on(async {
        // Without a user, this makes no connection: it only reads the certificates.
        let checked = Client::connect(endpoints, Some(connect)).await.map(drop);
        let checked = checked.map_err(|error| {
            OptionsError(format!("caFile, certFile, keyFile or serverName: {}", chain(&error)))
        });
        let good = checked.is_ok();
        if to.send(checked.map(|()| Handle::current())).is_ok() && good {
            ended.recv().await;
        }
    });
}

impl Cluster {
    fn preferred(&self) -> (usize, Arc<Endpoint>) {
        let at = self.preferred.load(Ordering::Relaxed) % self.endpoints.len();
        (at, self.endpoints[at].clone())
    }

    /// Lets requests begin with the member after this one.
    fn avoid(&self, at: usize) {
        self.preferred.store((at + 1) % self.endpoints.len(), Ordering::Relaxed);
    }

    /// Makes a request to one member after the other, once to each, as long as that is safe.
    async fn ask<T, F>(&self, again: Again, request: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (first, _) = self.preferred();
        let mut said = Vec::new();
        let mut lost = false;
        for step in 0..self.endpoints.len() {
            let at = (first + step) % self.endpoints.len();
            let endpoint = &self.endpoints[at];
            let failure = match endpoint.call(&request).await {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            said.push(format!("{}: {}", endpoint.url, plain(&self.options, &failure)));
            match failure {
                Failure::LeaseGone => return Err(StoreError::LeaseGone),
                Failure::Refused(_) | Failure::Stranger(_) => break,
                Failure::NotSent(_) => {}
                Failure::Lost(_) => {
                    self.avoid(at);
                    lost = true;
                    if again == Again::Never {
                        break;
                    }
                }
            }
        }
        let said = format!("etcd {}", said.join("; ")).into();
        let doubtful = lost && again != Again::Harmless;
        Err(if doubtful { StoreError::Unknown(said) } else { StoreError::Failed(said) })
    }

    async fn answer(&self, request: Request) -> Result<Answer, StoreError> {
        match request {
            Request::Txn(txn) => {
                let txn = self.prefix.txn(&txn);
                let answer = self.ask(Again::Never, |client| {
                    let txn = txn.clone();
                    async move { outcome(&kv(&client).txn(txn).await?) }
                });
                answer.await.map(Answer::Txn)
            }
            Request::Read(spans) => {
                let spans = &spans;
                let answer = self.ask(Again::Harmless, |client| async move {
                    self.prefix.read(kv(&client), spans).await
                });
                answer.await.map(Answer::Read)
            }
            Request::Grant(life) => {
                let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
                let granted = self.ask(Again::Never, |mut client| async move {
                    client.lease_grant(seconds, None).await
                });
                let granted = granted.await?;
                let lease = LeaseId::new(granted.id());
                let lease =
                    lease.ok_or_else(|| StoreError::Failed("etcd granted no lease".into()))?;
                Ok(Answer::Granted(lease, seconds_of(granted.ttl()).unwrap_or_default()))
            }
            Request::KeepAlive(lease) => {
                match self.ask(Again::Repeatable, |client| keep_alive(client, lease)).await {
                    Err(StoreError::LeaseGone) => Ok(Answer::Kept(None)),
                    kept => kept.map(Answer::Kept),
                }
            }
            Request::TimeLeft(lease) => {
                let left = self.ask(Again::Harmless, |mut client| async move {
                    client.lease_time_to_live(lease.get(), None).await
                });
                match left.await {
                    // etcd answers -1 for a lease that it does not know.
                    Ok(left) => Ok(Answer::Left(seconds_of(left.ttl()))),
                    Err(StoreError::LeaseGone) => Ok(Answer::Left(None)),
                    Err(error) => Err(error),
                }
            }
            Request::Revoke(lease) => {
                let revoked = self.ask(Again::Never, |mut client| async move {
                    client.lease_revoke(lease.get()).await
                });
                match revoked.await {
                    Ok(_) | Err(StoreError::LeaseGone) => Ok(Answer::Revoked),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

fn kv(client: &Client) -> etcd_client::KvClient {
    client.kv_client().max_decoding_message_size(limits::ETCD_ANSWER_BYTES_MAX)
}

/// Sends one keep-alive over a stream of its own. The client hides the answer to the first message,
/// so a second message asks for the lease's remaining life.
async fn keep_alive(mut client: Client, lease: LeaseId) -> Result<Option<Duration>, Error> {
    let (mut keeper, mut stream) = match client.lease_keep_alive(lease.get()).await {
        Err(Error::LeaseKeepAliveError(why)) if why == "lease not found" => return Ok(None),
        opened => opened?,
    };
    keeper.keep_alive().await?;
    let kept = stream.message().await?;
    let kept = kept.ok_or_else(|| Error::Internal("the stream ended".to_owned()))?;
    Ok(seconds_of(kept.ttl()).filter(|left| !left.is_zero()))
}

/// Returns a number of seconds as a time; nothing, if it is negative.
fn seconds_of(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// Counts a request by its operation and result, and the time that it took.
fn count(operation: &'static str, answer: &Result<Answer, StoreError>, took: Duration) {
    let result = match answer {
        Ok(Answer::Txn(TxnOutcome::Refused(_)) | Answer::Kept(None) | Answer::Left(None)) => {
            "refused"
        }
        Ok(_) => "ok",
        Err(error) => word(error),
    };
    metrics::etcd_request(operation, result, took);
}

/// The result of a request that failed, as metrics name it.
fn word(error: &StoreError) -> &'static str {
    match error {
        StoreError::LeaseGone => "refused",
        StoreError::Failed(_) => "failed",
        StoreError::Unknown(_) | StoreError::OddAnswer => "unknown",
    }
}

impl ClusterStore for Etcd {
    /// The request begins at once, even if the answer is not awaited.
    fn ask(&self, request: Request) -> Pending {
        let cluster = self.cluster.clone();
        let operation = match request {
            Request::Txn(_) => "txn",
            Request::Read(_) => "read",
            Request::Grant(_) => "grant",
            Request::KeepAlive(_) => "keepalive",
            Request::TimeLeft(_) => "timetolive",
            Request::Revoke(_) => "revoke",
        };
        let work = self.runtime.spawn(async move {
            let began = clock::start();
            let answer = cluster.answer(request).await;
            let took = clock::start().since(began);
            count(operation, &answer, took);
            answer
        });
        Box::pin(async move {
            let ended = |_| StoreError::Unknown("etcd: its thread has ended".into());
            work.await.map_err(ended)?
        })
    }

    fn watch(&self, prefix: String) -> mpsc::Receiver<Watched> {
        let (to, reports) = mpsc::channel(limits::WATCH_REPORTS_MAX);
        self.runtime.spawn(watch::report(self.cluster.clone(), prefix, to));
        reports
    }

    fn foreign(&self, prefix: &'static str) -> PendingForeign {
        let cluster = self.cluster.clone();
        let work = self.runtime.spawn(async move { cluster.foreign(prefix).await });
        Box::pin(async move {
            work.await.map_err(|_| StoreError::Failed("etcd: its thread has ended".into()))?
        })
    }

    fn keys(&self, span: Span) -> PendingPage<String> {
        let cluster = self.cluster.clone();
        self.read_page(async move { cluster.keys(&span).await })
    }

    fn with_texts(&self, span: Span, texts: Vec<String>) -> PendingPage<KeyValue> {
        let cluster = self.cluster.clone();
        self.read_page(async move { cluster.with_texts(&span, &texts).await })
    }
}

impl Etcd {
    /// Reads a page on etcd's thread, and counts it.
    fn read_page<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<Page<T>, StoreError>> + Send + 'static,
    ) -> PendingPage<T> {
        let work = self.runtime.spawn(async move {
            let began = clock::start();
            let page = read.await;
            let result = page.as_ref().map_or_else(word, |_| "ok");
            metrics::etcd_request("read", result, clock::start().since(began));
            page
        });
        Box::pin(async move {
            work.await.map_err(|_| StoreError::Failed("etcd: its thread has ended".into()))?
        })
    }
}
