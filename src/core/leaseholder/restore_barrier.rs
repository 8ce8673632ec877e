//! After the store went back in time (it was restored from a backup): the first node that notices
//! marks it, and nobody claims new blocks until every node has said what it holds (rule 24).
//!
//! Everything that a node did after the backup was made is gone from the store, but not from the
//! node. So a block that looks free may be in use. The mark is removed when the key of every node
//! is newer than it: each has joined again, or found that nothing of its own was lost, or was
//! removed by an operator. A node that the backup does not know can object only for
//! [`limits::RESTORE_SETTLE`].
//!
//! A block that a node had lost before the restore is another node's, or may be. The backup may
//! say that it is still the first one's. So that node gives it back, and claims it again only when
//! the restore is settled: by then its last holder has it (rule 26).

use std::sync::Arc;

use super::{Effect, Leaseholder, Order, Pending};
use crate::core::address::Cidr;
use crate::core::ids::Revision;
use crate::core::keys::{NODES, PoolFamily, RESTORED};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::{BootTime, UnixTime};
use crate::core::txn::{Answer, Compare, KeyValue, Request, Span, StoreError, Txn, Write};
use crate::core::value::Value;
use crate::limits;

/// Marks that the store went back in time. A mark of this revision is written again, since it may
/// be from before.
pub(super) fn mark(now: UnixTime, seen: Option<Revision>) -> Txn {
    let when = vec![Compare::unchanged(RESTORED.to_owned(), seen)];
    let then = vec![Write::Put(RESTORED.to_owned(), Value::Flag(now), None)];
    Txn { when, then }
}

/// Returns whether a restore that was marked at this revision waits for the node with this key: it
/// has not said what it holds, and no operator has removed it.
pub fn is_awaited(key: &KeyValue, marked: Revision) -> bool {
    match &key.value {
        Value::Node(node) => {
            let said = node.acknowledged || node.removed.is_some();
            key.mod_revision <= marked || !said
        }
        _ => false,
    }
}

impl Leaseholder {
    /// Returns whether the store has everything that this node has to say about what it holds.
    pub(super) fn has_acknowledged(&self) -> bool {
        let waits = |order: &Order| matches!(order, Order::Trim { .. } | Order::Drop(..));
        let waiting = self.queue.iter().any(|(_, order)| waits(order));
        !waiting && !self.lost.iter().any(|(pool, cidr)| self.is_last_holder(pool, *cidr))
    }

    /// Remembers that the store is older than this node: what was lost before is not claimed until
    /// all is settled.
    pub(super) fn observe_restore(&mut self) {
        let lost = || self.lost.union(&self.parked).cloned().collect();
        let before = self.settling.get_or_insert_with(lost);
        let before = before.iter().cloned().collect();
        self.effects.push_back(Effect::WentBack(before));
    }

    /// Remembers that no restore is being settled: all lost blocks may be claimed.
    pub(super) fn observe_settled(&mut self, now: BootTime) {
        if self.settling.take().is_some() {
            self.effects.push_back(Effect::Settled);
            self.reclaim_lost(now);
        }
    }

    /// Remembers for which nodes a restore of the store waits; nothing: none is being settled.
    pub(super) fn set_awaited(&mut self, awaited: Option<Vec<Arc<str>>>) {
        if self.awaited != awaited {
            self.awaited.clone_from(&awaited);
            self.effects.push_back(Effect::Settling(awaited));
        }
    }

    /// Returns whether this lost block was lost because the store went back: nobody else has been
    /// given it since this node held it.
    pub(super) fn is_last_holder(&self, pool: &PoolFamily, cidr: Cidr) -> bool {
        self.settling.is_some() && !self.was_lost_before(pool, cidr)
    }

    /// Returns whether a restore is being settled, and this block was lost before it.
    pub(super) fn was_lost_before(&self, pool: &PoolFamily, cidr: Cidr) -> bool {
        let meets = |of: &Cidr| of.meets(cidr);
        let before = self.settling.iter().flatten();
        !broken(Mutant::RestoredTrusted)
            && before.into_iter().any(|(of, lost)| of == pool && meets(lost))
    }

    /// Handles the mark of a restore: says that this node knows of it, and looks whether all others
    /// do.
    pub(super) fn keep_restore_barrier(&mut self, now: BootTime, marked: Revision) {
        if self.chain.revision < Some(marked) {
            // Its spares may be others' blocks by now: it joins again, without them.
            return self.rejoin(now, None);
        }
        if !self.chain.acknowledged {
            if self.has_acknowledged() {
                self.renew_session();
            }
            return;
        }
        let spans = vec![Span::key(RESTORED), Span::prefix(NODES, limits::NODES_MAX)];
        self.request(now, Pending::Barrier, Request::Read(spans));
    }

    /// Takes the mark away when every node has been heard.
    pub(super) fn barrier_answered(&mut self, now: BootTime, answer: Result<Answer, StoreError>) {
        let Ok(Answer::Read(snapshot)) = answer else { return };
        let [mark, nodes] = &snapshot.spans[..] else { return };
        let Some(mark) = mark.first() else { return };
        let Value::Flag(since) = mark.value else { return };
        let awaited = nodes.iter().filter(|key| is_awaited(key, mark.mod_revision));
        let name = |key: &KeyValue| key.key.strip_prefix(NODES).map(Arc::from);
        let awaited: Vec<Arc<str>> = awaited.filter_map(name).collect();
        let all_spoke = awaited.is_empty();
        self.set_awaited(Some(awaited));
        if all_spoke && self.unix_time(now) >= since + limits::RESTORE_SETTLE {
            let when = vec![Compare::At(RESTORED.to_owned(), mark.mod_revision)];
            let then = vec![Write::Delete(RESTORED.to_owned())];
            self.request(now, Pending::Aside, Request::Txn(Txn { when, then }));
        }
    }
}
