//! Decides whether this daemon may use its node's name. Blocks belong to the identity of a state
//! directory, not to a name: a daemon that has only the name inherits no block (rule 30).

use super::join::JoinPhase;
use super::{Chain, Leaseholder};
use crate::core::cause::Cause;
use crate::core::ids::Epoch;
use crate::core::mutant::{Mutant, broken};
use crate::core::value::{NodeValue, SessionValue};

impl Leaseholder {
    /// Returns the reason why this daemon must not be the node that the store knows by its name, if
    /// there is one.
    pub(super) fn name_conflict(
        &self,
        node: Option<&NodeValue>,
        session: Option<&SessionValue>,
    ) -> Option<Cause> {
        let (node, me) = (node.filter(|node| node.removed.is_none())?, &self.identity);
        let name = me.node.clone();
        if let (Some(stored), Some(own)) = (&node.machine_id, &me.machine_id)
            && stored != own
        {
            let (stored, own) = (stored.clone(), own.clone());
            return Some(Cause::OtherMachine { node: name, stored, own });
        }
        if let (Some(stored), Some(own)) = (&node.identity, &me.identity)
            && !self.is_own(node)
        {
            let (stored, own) = (stored.clone(), own.clone());
            let lives = session.is_some();
            return Some(Cause::OtherDirectory { node: name, stored, own, lives });
        }
        session?;
        if self.chain == Chain::default() {
            return Some(Cause::NameInUse { node: name, ttl: me.ttl });
        }
        let other_boot = node.boot_id != me.boot_id && me.identity.is_some();
        // A daemon of an earlier boot is dead, but a copy of its disk, on another machine, would
        // think the same of the one that lives.
        let may_be_copy = self.chain.epoch.is_none() && other_boot;
        may_be_copy.then_some(Cause::OtherBoot { node: name, ttl: me.ttl })
    }

    /// Returns whether the node in the store is the one of this state directory. An older version
    /// wrote no identity, and took the name for it.
    pub(super) fn is_own(&self, node: &NodeValue) -> bool {
        match (&node.identity, &self.identity.identity) {
            (Some(stored), Some(own)) => stored == own || broken(Mutant::NameInherits),
            _ => true,
        }
    }

    /// Returns the epoch in which this state directory became the node, if it joins with this one.
    pub(super) fn first_epoch(&self, node: Option<&NodeValue>, epoch: Epoch) -> Option<Epoch> {
        match node {
            Some(node) if self.is_own(node) => node.first_epoch,
            // The name was free for this one.
            Some(_) => Some(epoch),
            None => None,
        }
    }

    /// Remembers that the name is another's: nothing is leased or handed out.
    pub(super) fn lose_name(&mut self, cause: Cause) {
        let new = self.stalled.as_ref() != Some(&cause);
        let Some(joining) = self.joining() else { return };
        joining.nameless = true;
        if new {
            self.stall(None);
            self.stall(Some(cause.clone()));
            self.halt(Some(cause));
        }
    }

    /// Returns whether the node's name is another's at present.
    pub(super) fn is_nameless(&self) -> bool {
        matches!(&self.phase, JoinPhase::Joining(joining) if joining.nameless)
    }

    /// Remembers that the name is this node's (again).
    pub(super) fn regain_name(&mut self) {
        if let Some(joining) = self.joining()
            && std::mem::take(&mut joining.nameless)
        {
            self.stall(None);
            self.halt(None);
        }
    }
}
