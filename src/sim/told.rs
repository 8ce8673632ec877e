//! What the leaseholder says, and to which range set it goes (`src/actors/cluster.rs`).

use super::node::{After, Daemon, Out, Waiting, Who};
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::coordinator::SetId;
use crate::core::journal::JournalEntry;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Effect, Found, Leased, Order, OrderId};
use crate::core::range_set::RangeSet;

impl Daemon {
    pub(super) fn of_leaseholder(&mut self, now: Millis, effect: Effect) {
        match effect {
            Effect::Store(id, request) => self.out.push(Out::Store(id, request)),
            Effect::Watch(prefix) => self.out.push(Out::Watch(prefix)),
            Effect::Leased(id, leased) => self.leased(now, id, leased),
            Effect::GivenBack(id, done) => self.given_back(now, id, done),
            Effect::Transferred(id, done) => self.transferred(now, id, done),
            Effect::Found(id, found) => self.found(now, id, found),
            Effect::BlockSizeAgreed(id, result) => {
                if let Some(Who::AgreeBlockSize(network, allowed)) = self.orders.remove(&id) {
                    self.coordinator.block_size_agreed(now, &network, &allowed, result);
                }
            }
            Effect::Asked(question) => {
                let of = |&(first, _): &(u128, u128)| {
                    self.coordinator.owner_of_cidr(&question.pool, Cidr::containing(first, 0))
                };
                match question.wanted.iter().find_map(of).and_then(|id| self.sets.get_mut(&id)) {
                    Some((_, set)) => set.asked(now, question),
                    None => self.leaseholder.order(now, 0, Order::Refuse(question)),
                }
            }
            Effect::Spares(pool, cidrs) => {
                for cidr in cidrs {
                    match self.owner(&pool, cidr) {
                        Some(set) => set.spares(now, &[cidr]),
                        None => {
                            let (pool, cidrs) = (pool.clone(), vec![cidr]);
                            self.leaseholder.order(now, 0, Order::GiveBack { pool, cidrs });
                        }
                    }
                }
            }
            effect => self.of_cluster(now, effect),
        }
    }

    fn of_cluster(&mut self, now: Millis, effect: Effect) {
        match effect {
            Effect::SparesGone => self.each(|set| set.spares_gone(now)),
            Effect::Lost(pool, cidrs) => {
                self.lost += cidrs.len();
                for cidr in cidrs {
                    if let Some(set) = self.owner(&pool, cidr) {
                        set.lost(now, &[cidr]);
                    }
                }
            }
            Effect::Regained(pool, cidr) => {
                if let Some(set) = self.owner(&pool, cidr) {
                    set.regained(now, cidr);
                }
            }
            Effect::Split(pool, cidr, parts) => {
                if let Some(set) = self.owner(&pool, cidr) {
                    set.split(cidr, &parts);
                }
            }
            Effect::Stalled(cause) => {
                self.stalled.clone_from(&cause);
                self.each(|set| set.stalled(now, cause.clone()));
            }
            Effect::Halted(cause) => {
                self.halted.clone_from(&cause);
                self.each(|set| set.halted(now, cause.clone()));
            }
            Effect::Alone(alone) => {
                self.alone = alone;
                self.each(|set| set.alone(alone));
            }
            Effect::Draining(draining) => {
                self.draining = draining;
                self.each(|set| set.draining(now, draining));
            }
            Effect::Intend(sequence) => {
                self.keep(vec![JournalEntry::Intent(sequence)], After::Intended(sequence));
            }
            Effect::Reached(sequence) => {
                self.keep(vec![JournalEntry::Chain(sequence)], After::Nothing);
            }
            Effect::Recover(memory) => drop(self.coordinator.recover(now, *memory)),
            Effect::RecordsListed(cidrs, found) => self.coordinator.records_listed(&cidrs, found),
            Effect::Recorded(operations) => {
                for operation in operations {
                    let Some((left, _)) = self.awaiting.get_mut(&operation) else { continue };
                    *left -= 1;
                    if *left == 0 {
                        self.awaiting.remove(&operation);
                        self.coordinator.recorded(now, operation, Ok(()));
                    }
                }
            }
            Effect::Joined { .. } => {
                self.joined = true;
                self.each(RangeSet::joined);
            }
            Effect::WentBack => self.went_back = true,
            _ => {}
        }
    }

    fn each(&mut self, mut f: impl FnMut(&mut RangeSet)) {
        self.sets.values_mut().for_each(|(_, set)| f(set));
    }

    fn owner(&mut self, pool: &PoolFamily, cidr: Cidr) -> Option<&mut RangeSet> {
        let id = self.coordinator.owner_of_cidr(pool, cidr)?;
        self.sets.get_mut(&id).map(|(_, set)| set)
    }

    fn pool(&self, id: SetId) -> PoolFamily {
        let record = &self.sets[&id].0;
        PoolFamily { network: record.network.clone(), family: record.family }
    }

    fn leased(&mut self, now: Millis, id: OrderId, leased: Leased) {
        let Some(Who::Set(set, Waiting::Lease(cidrs))) = self.orders.remove(&id) else { return };
        if leased == Leased::Done {
            let pool = self.pool(set);
            let records =
                cidrs.into_iter().map(|cidr| JournalEntry::Block(pool.clone(), cidr)).collect();
            self.keep(records, After::Nothing);
        }
        self.sets.get_mut(&set).unwrap().1.leased(now, leased);
    }

    fn given_back(&mut self, now: Millis, id: OrderId, done: bool) {
        let Some(Who::Set(set, Waiting::GiveBack)) = self.orders.remove(&id) else { return };
        self.sets.get_mut(&set).unwrap().1.given_back(now, done);
    }

    fn transferred(&mut self, now: Millis, id: OrderId, done: bool) {
        let Some(Who::Set(set, Waiting::Transfer(question))) = self.orders.remove(&id) else {
            return;
        };
        self.sets.get_mut(&set).unwrap().1.transferred(now, &question.key, done);
    }

    fn found(&mut self, now: Millis, id: OrderId, found: Found) {
        let Some(Who::Set(set, Waiting::Find)) = self.orders.remove(&id) else { return };
        self.sets.get_mut(&set).unwrap().1.found(now, found);
    }
}
