//! Answers the questions of other nodes ([`peers`]).

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::check::{self, gc};
use super::cluster::{Refusal, Store};
use super::peers::{self, Question, Sent, Subject};
use super::{AppState, Phase};
use crate::core::ids::LeaseId;
use crate::core::keys::{ASKED, answers_prefix};
use crate::core::txn::{KeyValue, Watched};
use crate::limits;

/// Answers the questions of other nodes until the daemon stops, a bounded number at a time.
pub(crate) async fn answer_all(node: AppState) {
    let mut phase = node.phase.clone();
    tokio::select! {
        () = answer_each(&node) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
    }
}

async fn answer_each(node: &AppState) {
    let mut questions = node.store.watch(ASKED.to_owned());
    let room = Arc::new(Semaphore::new(limits::PEER_QUESTIONS_MAX));
    while let Some(report) = questions.recv().await {
        let keys = match report {
            Watched::Put(key) => vec![key],
            Watched::Listed(keys) => keys,
            Watched::Deleted(_) => continue,
        };
        for key in keys {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            begin(node, &key, permit);
        }
    }
}

/// The place of an answer, and the lease on which it hangs. The next question may begin when this
/// one is answered.
struct Place {
    key: String,
    lease: LeaseId,
    _permit: OwnedSemaphorePermit,
}

/// Begins to answer a question.
fn begin(node: &AppState, key: &KeyValue, permit: OwnedSemaphorePermit) {
    let (Some(id), Some(sent)) = (key.key.strip_prefix(ASKED), peers::read::<Sent>(key)) else {
        return;
    };
    let Sent { from, lease, question } = sent;
    let me = &node.about.node;
    let Some(lease) = LeaseId::new(lease).filter(|_| from != *me && question.is_for(me)) else {
        return;
    };
    let place = Place { key: format!("{}{me}", answers_prefix(id)), lease, _permit: permit };
    let Question { subject, of_all, mut of_each } = question;
    let (own, work) = (of_each.remove(me).unwrap_or_default(), node.clone());
    match subject {
        Subject::History => drop(actix_rt::spawn(async move {
            let Some(query) = of(of_all) else { return };
            tell(&work, place, work.history.tell(query).await).await;
        })),
        // It may go through many holdings: calls do not wait for that.
        Subject::Check => node.lists.keep_doing(async move {
            let strays = of(own).unwrap_or_default();
            tell(&work, place, check::tell(&work, strays).await).await;
        }),
        // On the thread of the actors, as `gc::collect` wants it.
        Subject::Gc => drop(actix_rt::spawn(async move {
            let Some(collect) = of::<gc::Collect>(own) else { return };
            tell(&work, place, gc::collect(&work, &collect).await).await;
        })),
    }
}

fn of<T: DeserializeOwned>(json: Json) -> Option<T> {
    serde_json::from_value(json).ok()
}

async fn tell<T: Serialize>(node: &AppState, place: Place, answer: Result<T, Refusal>) {
    // The asker names the nodes that give no answer.
    let Ok(answer) = answer else { return };
    let store = Store::new(&node.store);
    if let Err(error) = peers::put(&store, place.key, &answer, place.lease).await {
        tracing::debug!(%error, "an answer to another node could not be written");
    }
}
