//! The work of the leader: it watches Node objects and has nodes ended.
//!
//! Each round is a list and one watch. A watch that ends for any reason (its time is over, the
//! connection broke, the API server answers 410 Gone) is followed by the next list, so a deletion
//! that no watch reported is found too.

use std::collections::HashMap;
use std::pin::pin;

use anyhow::Context as _;
use futures::StreamExt as _;
use tokio::time::{sleep, timeout};

use super::ender::Ender;
use super::kubernetes::{Change, Kubernetes};
use super::leader::Leadership;
use super::ledger::{Doubt, Due, Ended, Ledger, News, NodeObject, Rules};
use super::limits::{self, Timing};
use super::memory::Memory;
use super::times::{self, Now};

/// The leader's work.
pub(crate) struct Watcher {
    /// The API server.
    pub(crate) kubernetes: Kubernetes,
    /// The daemon.
    pub(crate) ender: Ender,
    /// The rules that the operator chose.
    pub(crate) rules: Rules,
    /// The times.
    pub(crate) timing: Timing,
    /// The time until which this instance may act.
    pub(crate) leadership: Leadership,
}

/// The state of one time of leading.
struct Term<'a> {
    of: &'a Watcher,
    memory: Memory,
    ledger: Ledger,
    doubt: Option<Doubt>,
    /// The last thing that the log has of a node, by its name.
    said: HashMap<String, String>,
}

impl Watcher {
    /// Works while this instance leads. It ends only by a failure: the next term then begins with
    /// what the ConfigMap says.
    pub(crate) async fn lead(&self) -> Failure {
        let memory = match Memory::load(&self.kubernetes).await {
            Ok(memory) => memory,
            Err(error) => return Failure::Term(error),
        };
        let ledger = Ledger::new(self.rules, memory.entries().clone());
        let mut term = Term { of: self, memory, ledger, doubt: None, said: HashMap::new() };
        let mut pause = self.timing.pause;
        loop {
            match term.round().await {
                Ok(()) => pause = self.timing.pause,
                Err(failure @ (Failure::Term(_) | Failure::Daemon(_))) => return failure,
                Err(Failure::Round(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "nodes are listed anew");
                    pause = (pause * 2).min(limits::PAUSE_MAX.max(self.timing.pause));
                }
            }
            sleep(pause).await;
        }
    }
}

/// The reason why a round or a term ends.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The API server failed: the next round lists anew.
    Round(anyhow::Error),
    /// The memory cannot be read or kept: the next term reads it anew.
    Term(anyhow::Error),
    /// This node has no daemon: another instance has to lead.
    Daemon(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Round(error)
    }
}

impl Term<'_> {
    /// One list and one watch.
    async fn round(&mut self) -> Result<(), Failure> {
        let (nodes, version) = self.of.kubernetes.list().await?;
        let news = self.ledger.list(nodes, times::now());
        self.tell(news);
        self.act().await?;
        let mut changes = pin!(self.of.kubernetes.watch(&version).await?);
        let mut ticks = tokio::time::interval(self.of.timing.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let change = tokio::select! {
                change = timeout(limits::WATCH_SILENCE_MAX, changes.next()) => {
                    change.context("the watch is silent")?
                }
                _ = ticks.tick() => {
                    self.act().await?;
                    continue;
                }
            };
            let Some(change) = change.transpose()? else { return Ok(()) };
            let now = times::now();
            let news = match change {
                Change::There(node) => self.ledger.appear(node, now),
                Change::Deleted(uid) => self.ledger.disappear(&uid, now),
                Change::Nothing => continue,
                Change::Expired => {
                    tracing::info!("the watch is too old (410 Gone): nodes are listed anew");
                    return Ok(());
                }
            };
            self.tell(news);
        }
    }

    /// Keeps what changed. It comes at each tick, and before anything is done.
    async fn keep(&mut self) -> Result<(), Failure> {
        let kept = self.memory.keep(&self.of.kubernetes, self.ledger.entries()).await;
        kept.map_err(Failure::Term)
    }

    /// Ends what is due.
    async fn act(&mut self) -> Result<(), Failure> {
        self.keep().await?;
        self.tell_doubt();
        for due in self.ledger.due(times::now()) {
            let object = self.of.kubernetes.node(&due.name).await?;
            if !self.is_still_due(&due, object, times::now()) {
                continue;
            }
            // Before the Lease can be another's, the daemon has answered.
            if !self.of.leadership.lasts(self.of.timing.request + self.of.timing.margin) {
                return Ok(());
            }
            let outcome = self.of.ender.end(&due).await.map_err(Failure::Daemon)?;
            self.tell_outcome(&due, &outcome);
            self.ledger.ended(&due.uid, &outcome, times::now());
            self.keep().await?;
        }
        Ok(())
    }

    /// True if a node is due also by what the API server says of its object now: a watch may be
    /// late.
    fn is_still_due(&mut self, due: &Due, object: Option<NodeObject>, now: Now) -> bool {
        if let Some(object) = object {
            let news = self.ledger.appear(object, now);
            self.tell(news);
        }
        self.ledger.is_due(&due.uid, now)
    }

    fn tell(&mut self, news: Vec<News>) {
        for news in news {
            match news {
                News::Missing(node) => {
                    let grace = humantime::format_duration(self.of.rules.grace);
                    tracing::info!(node, "its Node object is missing: it is ended after {grace}");
                }
                News::Back(node) => tracing::info!(node, "its Node object is there again"),
                News::Registered(node) => {
                    tracing::info!(node, "the machine registered again: it is not ended");
                }
                News::Nameless(node) => tracing::warn!(
                    node,
                    "its Node object is gone and never had a machine id: it is not ended; use \
                     `leasehold node remove`"
                ),
            }
        }
    }

    /// Tells the reason why nothing is ended, once.
    fn tell_doubt(&mut self) {
        let doubt = self.ledger.doubt();
        match doubt.filter(|_| doubt != self.doubt) {
            Some(Doubt::Empty) => {
                tracing::warn!("the API server lists no Node object at all: no node is ended");
            }
            Some(Doubt::Many { missing, remembered }) => tracing::error!(
                missing,
                remembered,
                "more than half of the Node objects are missing: no node is ended. If that is \
                 right, start with --allow-many"
            ),
            None => {}
        }
        self.doubt = doubt;
        let renamed = self.ledger.renamed().into_iter();
        let renamed: Vec<_> = renamed
            .map(|(node, other)| {
                (node.to_owned(), format!("its machine is node {other} now: it is not ended"))
            })
            .collect();
        for (node, why) in renamed {
            self.tell_once(&node, why);
        }
    }

    fn tell_outcome(&mut self, due: &Due, outcome: &Ended) {
        let Due { name: node, uid, .. } = due;
        match outcome {
            Ended::Removed { quarantine } => {
                let quarantine = humantime::format_duration(*quarantine);
                tracing::info!(node, uid, "ended: its blocks are free after {quarantine}");
            }
            Ended::Gone => {
                self.said.remove(node);
                tracing::info!(node, uid, "the cluster does not know this machine (any longer)");
            }
            Ended::Later(why) => self.tell_once(node, why.clone()),
        }
    }

    /// Tells something of a node, unless that was told last.
    fn tell_once(&mut self, node: &str, why: String) {
        if self.said.get(node) != Some(&why) {
            tracing::warn!(node, why, "not ended; it is tried again");
            self.said.insert(node.to_owned(), why);
        }
    }
}
