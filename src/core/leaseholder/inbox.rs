//! Messages of other nodes: questions for addresses, and answers to ours.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Effect, Leaseholder, Question};
use crate::core::ids::MergeCount;
use crate::core::keys::{PoolFamily, inbox, message_network};
use crate::core::time::BootTime;
use crate::core::txn::{KeyValue, Watched};
use crate::core::value::{MessageBody, Value};

impl Leaseholder {
    /// Watches for messages about a network. Not before the network is used: most nodes use few.
    pub(super) fn watch_inbox(&mut self, network: &Arc<str>) {
        let prefix = inbox(network, &self.identity.node);
        if self.watched.insert(prefix.clone()) {
            self.effects.push_back(Effect::Watch(prefix));
        }
    }

    /// Watches for messages about every network of which this node has blocks, or had some.
    pub(super) fn watch_inboxes(&mut self) {
        let lost = self.lost.iter().map(|(pool, _)| pool.network.clone());
        let networks = self.owned.keys().map(|pool| pool.network.clone());
        for network in networks.chain(lost).collect::<BTreeSet<_>>() {
            self.watch_inbox(&network);
        }
    }

    /// Handles a report of a watch. Reports are only hints (rule 5): every decision that rests on
    /// them is made by a transaction that compares.
    pub fn observed(&mut self, now: BootTime, watched: Watched) {
        match watched {
            Watched::Listed(keys) => {
                let there: BTreeSet<&str> = keys.iter().map(|key| &*key.key).collect();
                let under = keys.first().and_then(|key| key.key.rsplit_once('/'));
                if let Some((prefix, _)) = under {
                    self.questions
                        .retain(|key, _| !key.starts_with(prefix) || there.contains(key.as_str()));
                    self.taken_answers
                        .retain(|key| !key.starts_with(prefix) || there.contains(key.as_str()));
                }
                for key in &keys {
                    self.received(now, key);
                }
            }
            Watched::Put(key) => self.received(now, &key),
            Watched::Deleted(key) => {
                self.questions.remove(&key);
                self.taken_answers.remove(&key);
                self.unasked.retain(|question| question.key != key);
            }
        }
        self.link(now);
    }

    fn received(&mut self, now: BootTime, key: &KeyValue) {
        let Value::Message(message) = &key.value else { return };
        let MessageBody::Ask { wanted, even_cooling } = &message.body else {
            return self.handle_answer(now, key, message);
        };
        let Some(network) = message_network(&key.key) else { return };
        if self.questions.insert(key.key.clone(), key.mod_revision) == Some(key.mod_revision) {
            return;
        }
        self.unasked.push(Question {
            key: key.key.clone(),
            revision: key.mod_revision,
            from: message.from.clone(),
            lease: message.lease,
            pool: PoolFamily { network: network.into(), family: message.family },
            wanted: wanted.clone(),
            even_cooling: *even_cooling,
            merges: MergeCount::default(),
        });
    }

    /// Passes questions on, once it is known what the current transaction changes of this node's
    /// blocks, since the asker may have seen the change already. And not before it is known what
    /// the node holds.
    pub(super) fn ask_on(&mut self) {
        if self.batch.is_none() && self.is_member() {
            self.effects.extend(self.unasked.drain(..).map(Effect::Asked));
        }
    }
}
