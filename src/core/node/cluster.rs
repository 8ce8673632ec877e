//! Passes the effects of the leaseholder on: each one goes to the range set that it concerns.

use super::coordinator::CoordinatorMachine;
use super::message::{After, Event, Message, OrderOrigin, Output, ToLeaseholder, ToRangeSet};
use crate::core::address::Cidr;
use crate::core::ids::Link;
use crate::core::journal::JournalEntry;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Effect, Order, Question};
use crate::core::mutant::{Mutant, broken};
use crate::core::range_set::GoodUntil;
use crate::core::set_identity::SetId;
use crate::core::time::BootTime;

impl CoordinatorMachine {
    /// Takes what the leaseholder says, in the order in which it says it.
    pub(super) fn on_leaseholder_effect(
        &mut self,
        now: BootTime,
        effect: Effect,
        origin: Option<OrderOrigin>,
    ) {
        match (origin, effect) {
            (Some(OrderOrigin::RangeSet(set, context)), effect) => {
                self.send_set(set, ToRangeSet::OrderEnded(context, effect));
            }
            (
                Some(OrderOrigin::Coordinator(network, allowed)),
                Effect::BlockSizeAgreed(_, result),
            ) => self.core.block_size_agreed(now, &network, &allowed, result),
            (_, effect) => self.on_cluster_effect(now, effect),
        }
    }

    fn on_cluster_effect(&mut self, now: BootTime, effect: Effect) {
        match effect {
            Effect::Intend(link) => self.intend(link),
            Effect::Reached(link) => {
                let entries = vec![JournalEntry::Chain(link)];
                self.commit(entries, After::Nothing);
            }
            Effect::WentBack(lost) => {
                self.commit(vec![JournalEntry::WentBack(lost)], After::Nothing);
            }
            Effect::Settled => self.commit(vec![JournalEntry::Settled], After::Nothing),
            Effect::Recorded(operations) => self.recorded(now, operations),
            Effect::Recover(stored) => {
                let recovered = self.core.recover(now, *stored);
                self.report(Event::StateRecovered(recovered));
            }
            Effect::RecordsListed(cidrs, found) => self.core.records_listed(&cidrs, found),
            Effect::Joined { .. } => {
                if !self.cluster.unconfirmed || broken(Mutant::ConfirmedEarly) {
                    self.commit_confirmed();
                }
                self.core.joined();
                self.cluster.joined = true;
                self.tell_all(&effect);
                self.confirm();
                self.begin_early_calls(now);
            }
            Effect::Halted(cause) => {
                self.cluster.halted = cause;
                self.tell_all(&Effect::Halted(self.cluster.halted()));
            }
            Effect::SparesGone => {
                self.cluster.lease_losses = self.cluster.lease_losses.next();
                self.cluster.drop_spares();
                self.tell_all(&effect);
            }
            Effect::Stalled(ref cause) => {
                self.cluster.stalled.clone_from(cause);
                self.tell_all(&effect);
                if let Some(cause) = cause {
                    self.not_recorded(now, cause);
                    self.begin_early_calls(now);
                }
            }
            Effect::GoodUntil(until) => {
                self.cluster.good_until = GoodUntil::Time(until);
                self.tell_all(&effect);
            }
            Effect::Alone(alone) => {
                self.cluster.alone = Some(alone);
                self.tell_all(&effect);
            }
            Effect::Draining(draining) => {
                self.cluster.draining = draining;
                self.tell_all(&effect);
            }
            // Nothing is handed out of range sets that become one: this waits until they have.
            effect if !self.retiring.is_empty() && !broken(Mutant::MergeNotHeldBack) => {
                self.cluster.held_back.push_back(effect);
            }
            effect => self.tell_owner(effect),
        }
    }

    /// Lets the leaseholder send a transaction as soon as the journal knows of it (rule 13).
    fn intend(&mut self, link: Link) {
        let entries = vec![JournalEntry::Intent(link)];
        if broken(Mutant::IntentBeforeDurable) {
            self.commit(entries, After::Nothing);
            return self.send_leaseholder(ToLeaseholder::Intended(link));
        }
        self.commit(entries, After::Intent(link));
    }

    pub(super) fn commit(&mut self, entries: Vec<JournalEntry>, then: After) {
        self.outputs.push_back(Output::commit(entries, then));
    }

    pub(super) fn report(&mut self, event: Event) {
        self.outputs.push_back(Output::Report(Box::new(event)));
    }

    pub(super) fn send_leaseholder(&mut self, message: ToLeaseholder) {
        self.outputs.push_back(Output::Send(Message::Leaseholder(message)));
    }

    pub(super) fn send_set(&mut self, set: SetId, message: ToRangeSet) {
        if let Some(sent) = self.sets.get_mut(&set) {
            *sent = sent.next();
        }
        self.outputs.push_back(Output::Send(Message::RangeSet(set, message)));
    }

    /// Passes on what waited until range sets had become one.
    pub(super) fn tell_held_back(&mut self) {
        if self.retiring.is_empty() {
            for effect in std::mem::take(&mut self.cluster.held_back) {
                self.tell_owner(effect);
            }
            self.confirm();
        }
    }

    /// Lets the range sets hand out again when each was told which of its blocks are lost, and has
    /// them say when these are on their way into the journal: it must not count as confirmed
    /// before (rule 17).
    fn confirm(&mut self) {
        let told = self.cluster.joined && self.retiring.is_empty();
        if !told || !std::mem::take(&mut self.cluster.unconfirmed) {
            return;
        }
        self.tell_all(&Effect::Halted(self.cluster.halted()));
        let sets = self.sets();
        self.cluster.confirming = sets.iter().copied().collect();
        sets.into_iter().for_each(|set| self.send_set(set, ToRangeSet::Confirm));
        self.confirm_if_all_have();
    }

    /// A range set has handled all that was said before it was to confirm. When all have, the
    /// journal has taken what they lost.
    pub(super) fn confirmed(&mut self, set: SetId) {
        self.cluster.confirming.remove(&set);
        self.confirm_if_all_have();
    }

    fn confirm_if_all_have(&mut self) {
        if self.cluster.confirming.is_empty() && !broken(Mutant::ConfirmedEarly) {
            self.commit_confirmed();
        }
    }

    /// Remembers that the store has confirmed the blocks: the next daemon of this boot need not ask
    /// it. If the node forfeits what it has no record of, that one must (rule 34).
    fn commit_confirmed(&mut self) {
        if !self.cluster.forfeits {
            self.commit(vec![JournalEntry::Confirmed(true)], After::Nothing);
        }
    }

    fn tell_all(&mut self, effect: &Effect) {
        let sets: Vec<SetId> = self.sets.keys().chain(&self.retiring).copied().collect();
        for set in sets {
            self.send_set(set, ToRangeSet::Cluster(effect.clone()));
        }
    }

    /// Tells each range set of its own blocks.
    fn tell_owner(&mut self, effect: Effect) {
        match effect {
            Effect::Asked(question) => {
                let merges = self.cluster.merges;
                self.ask_next(Question { merges, ..question }, None);
            }
            Effect::Spares(pool, cidrs) => {
                for (owner, cidrs) in self.by_owner(&pool, cidrs) {
                    let spares = Effect::Spares(pool.clone(), cidrs);
                    match (owner, spares) {
                        (Some(set), spares) => self.send_set(set, ToRangeSet::Cluster(spares)),
                        (None, Effect::Spares(pool, cidrs)) => {
                            self.submit(Order::GiveBack { pool, cidrs });
                        }
                        _ => {}
                    }
                }
            }
            Effect::Lost(pool, cidrs) => {
                for (owner, cidrs) in self.by_owner(&pool, cidrs) {
                    if let Some(set) = owner {
                        let lost = Effect::Lost(pool.clone(), cidrs);
                        self.send_set(set, ToRangeSet::Cluster(lost));
                    }
                }
            }
            Effect::Regained(ref pool, cidr)
            | Effect::Unparked(ref pool, cidr)
            | Effect::Split(ref pool, cidr, _) => {
                if let Some(set) = self.core.owner_of_cidr(pool, cidr) {
                    self.send_set(set, ToRangeSet::Cluster(effect));
                }
            }
            _ => {}
        }
    }

    /// Divides cidrs by their owner; neighbouring cidrs with one owner stay together.
    fn by_owner(&self, pool: &PoolFamily, cidrs: Vec<Cidr>) -> Vec<(Option<SetId>, Vec<Cidr>)> {
        let mut parts: Vec<(Option<SetId>, Vec<Cidr>)> = Vec::new();
        for cidr in cidrs {
            let owner = self.core.owner_of_cidr(pool, cidr);
            match parts.last_mut() {
                Some((of, cidrs)) if *of == owner => cidrs.push(cidr),
                _ => parts.push((owner, vec![cidr])),
            }
        }
        parts
    }

    /// Submits an order whose end nobody waits for.
    fn submit(&mut self, order: Order) {
        self.send_leaseholder(ToLeaseholder::SubmitOrder(None, order));
    }

    /// A range set has nothing for a question. If others have become one since the question was
    /// passed on, their blocks may have been where nobody was asked: it is passed on anew.
    pub(super) fn nothing_for(&mut self, now: BootTime, question: Question, set: SetId) {
        if question.merges == self.cluster.merges {
            self.ask_next(question, Some(set));
        } else {
            self.on_cluster_effect(now, Effect::Asked(question));
        }
    }

    /// Passes a question on to the next range set that may have an address for it: the first one,
    /// or the one after `asked`. When all have been asked, it is refused.
    pub(super) fn ask_next(&mut self, question: Question, asked: Option<SetId>) {
        let mut owners = self.core.owners_in(&question.pool, &question.wanted).into_iter();
        let next = match asked {
            None => owners.next(),
            Some(asked) => owners.skip_while(|set| *set != asked).nth(1),
        };
        match next {
            Some(set) => self.send_set(set, ToRangeSet::Cluster(Effect::Asked(question))),
            None => self.submit(Order::Refuse(question)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::core::address::{Address, BlockSize, Family};
    use crate::core::coordinator::Coordinator;
    use crate::core::ids::{Epoch, MessageCount};
    use crate::core::mutant::breaks;
    use crate::core::node::cluster_facts::ClusterFacts;
    use crate::core::node::message::{Machine as _, ToCoordinator, ToJournal};
    use crate::core::range_set::Settings;
    use crate::core::time::StartTime;

    /// The journal counts as confirmed only when it has taken what the store gave to others: else a
    /// daemon that dies in between hands that out after its start (seed 38746).
    #[test]
    fn a_journal_is_confirmed_when_all_range_sets_know_what_is_lost() {
        let [a, b] = [SetId::FIRST, SetId::FIRST.next()];
        let confirmed_after = |retiring: Option<SetId>| {
            let mut machine = machine(true);
            machine.sets = [a, b].map(|set| (set, MessageCount::default())).into();
            machine.retiring.extend(retiring);
            let joined = Effect::Joined { epoch: Epoch::FIRST };
            let mut inputs = vec![ToCoordinator::Cluster(joined, None)];
            let network = Arc::from("net");
            inputs.extend(retiring.map(|from| ToCoordinator::Merged { network, from }));
            inputs.extend([a, b].map(ToCoordinator::Confirmed));
            let mut handled = 0;
            for input in inputs {
                machine.handle(BootTime::BOOT, input);
                handled += 1;
                let mut outputs = std::iter::from_fn(|| machine.poll_output());
                if outputs.any(|output| is_commit_of(&output, &JournalEntry::Confirmed(true))) {
                    break;
                }
            }
            handled
        };
        assert_eq!((confirmed_after(None), confirmed_after(Some(b.next()))), (3, 4));
        breaks(Some(Mutant::ConfirmedEarly));
        let broken = confirmed_after(None);
        breaks(None);
        assert_eq!(broken, 1, "the test does not notice the broken rule");
    }

    fn machine(unconfirmed: bool) -> CoordinatorMachine {
        let cooldown = Duration::ZERO;
        let settings = Settings { cooldown, forget_after: cooldown, min_free: 1, seed: 0 };
        let core = Coordinator::new(settings, false, StartTime::BOOT);
        let facts = ClusterFacts { unconfirmed, records: true, ..ClusterFacts::default() };
        CoordinatorMachine::new(core, vec![], facts)
    }

    fn is_commit_of(output: &Output, entry: &JournalEntry) -> bool {
        matches!(output, Output::Send(Message::Journal(ToJournal::Commit(commit)))
            if commit.entries.contains(entry))
    }

    /// A spare comes while range sets become one; before they have, the lease is lost, and with it
    /// the spare. Nobody is told of it (seed 13771).
    #[test]
    fn a_spare_that_is_held_back_goes_with_its_lease() {
        let passed_on = |lease_is_lost: bool| {
            let mut machine = machine(false);
            let (now, from) = (BootTime::BOOT, SetId::FIRST);
            machine.retiring.insert(from);
            let pool = PoolFamily { network: "net".into(), family: Family::V4 };
            let network = pool.network.clone();
            let cidr = Cidr::containing(Address::of([10, 0, 0, 8].into()), BlockSize::ONE);
            let mut told = vec![Effect::Spares(pool, vec![cidr])];
            told.extend(lease_is_lost.then_some(Effect::SparesGone));
            for effect in told {
                machine.handle(now, ToCoordinator::Cluster(effect, None));
            }
            machine.handle(now, ToCoordinator::Merged { network, from });
            // No range set has its addresses: it is given back.
            let outputs = std::iter::from_fn(|| machine.poll_output());
            let is_order = |output: &Output| {
                matches!(output, Output::Send(Message::Leaseholder(ToLeaseholder::SubmitOrder(..))))
            };
            outputs.filter(is_order).count()
        };
        assert_eq!((passed_on(false), passed_on(true)), (1, 0));
        breaks(Some(Mutant::LostLeaseSparesKept));
        let broken = passed_on(true);
        breaks(None);
        assert_eq!(broken, 1, "the test does not notice the broken rule");
    }
}
