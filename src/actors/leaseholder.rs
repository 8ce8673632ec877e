//! Who this node is to the cluster's store: every change of ownership goes through here.

use std::sync::Arc;

use actix::prelude::*;

use crate::core::address::{Family, Run};
use crate::core::claim::{self, Owner};
use crate::core::range_set::Claimed;
use crate::core::txn::{Txn, TxnOutcome};
use crate::store::value::{BlockValue, encode};
use crate::store::{ClusterStore, StoreError};
use crate::{clock, limits, metrics};

/// Claims blocks in one transaction.
#[derive(Message)]
#[rtype(result = "Claimed")]
pub struct Claim {
    /// Their network.
    pub network: Arc<str>,
    /// Their family.
    pub family: Family,
    /// What they cover.
    pub runs: Vec<Run>,
}

/// Gives blocks back in one transaction; answers whether they are free now.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct GiveBack {
    /// Their network.
    pub network: Arc<str>,
    /// Their family.
    pub family: Family,
    /// What they cover, each with the revision of its key.
    pub blocks: Vec<(Run, u64)>,
}

/// The actor.
pub struct Leaseholder {
    store: Arc<dyn ClusterStore>,
    owner: Owner,
    epoch: u64,
}

impl Leaseholder {
    /// An actor for a node whose key in the store was written with this epoch.
    pub fn new(store: Arc<dyn ClusterStore>, owner: Owner, epoch: u64) -> Self {
        Self { store, owner, epoch }
    }
}

async fn carry_out(store: &dyn ClusterStore, txn: Txn) -> Result<TxnOutcome, StoreError> {
    let outcome = store.txn(txn).await;
    metrics::store_request(
        "txn",
        match &outcome {
            Ok(TxnOutcome::Done(_)) => "ok",
            Ok(TxnOutcome::Refused) => "refused",
            Err(_) => "error",
        },
    );
    outcome
}

/// Claims runs for an owner and, when that is refused, finds out who is in the way.
///
/// # Errors
/// The store gave no answer.
pub async fn claim_runs(
    store: &dyn ClusterStore,
    owner: &Owner,
    epoch: u64,
    message: Claim,
) -> Result<Claimed, StoreError> {
    let Claim { network, family, runs } = message;
    let now = clock::unix_ms();
    let value =
        |&run: &Run| (run, encode(&BlockValue::active(run, family, &owner.node, epoch, now)));
    let claims: Vec<_> = runs.iter().map(value).collect();
    if let TxnOutcome::Done(revision) =
        carry_out(store, owner.claim(&network, family, &claims)).await?
    {
        return Ok(Claimed::Done(runs.into_iter().map(|run| (run, revision)).collect()));
    }
    let node = store.range(claim::node_key(&owner.node)).await?;
    if node.first().map(|key| key.mod_revision) != Some(owner.revision) {
        let cause = format!("another daemon has taken over node {}: stop one of them", owner.node);
        return Ok(Claimed::Failed(cause.into()));
    }
    let others = store.range(format!("{}{network}/{family}/", claim::BLOCKS)).await?;
    let others = others.iter().filter_map(|key| {
        serde_json::from_slice::<BlockValue>(&key.value).ok().map(|value| Run::of(value.prefix))
    });
    Ok(Claimed::Conflict(others.collect()))
}

impl Actor for Leaseholder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
    }
}

impl Handler<Claim> for Leaseholder {
    type Result = ResponseFuture<Claimed>;

    fn handle(&mut self, message: Claim, _: &mut Self::Context) -> Self::Result {
        let (store, owner, epoch) = (self.store.clone(), self.owner.clone(), self.epoch);
        Box::pin(async move {
            let answer = claim_runs(&*store, &owner, epoch, message).await;
            answer.unwrap_or_else(|error| Claimed::Failed(error.to_string().into()))
        })
    }
}

impl Handler<GiveBack> for Leaseholder {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, message: GiveBack, _: &mut Self::Context) -> Self::Result {
        let GiveBack { network, family, blocks } = message;
        let (store, owner) = (self.store.clone(), self.owner.clone());
        Box::pin(async move {
            let txn = owner.give_back(&network, family, &blocks);
            match carry_out(&*store, txn).await {
                Ok(outcome) => matches!(outcome, TxnOutcome::Done(_)),
                Err(error) => {
                    tracing::warn!(network = &*network, %error, "blocks not given back");
                    false
                }
            }
        })
    }
}
