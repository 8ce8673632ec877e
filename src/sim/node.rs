//! A node: the real machines, and what actors do around them (`src/actors`), without actors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::coordinator::{self, Call, Coordinator, Outcome, SetId, SetRecord, restore};
use crate::core::journal::{JournalEntry, JournalState, NewBoot};
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{
    Leaseholder, NodeIdentity, Order, OrderId, Question, RecordChange, without,
};
use crate::core::mutant::{Mutant, broken};
use crate::core::range::Ranges;
use crate::core::range_set::{self, RangeSet, Settings};
use crate::core::txn::{Answer, Request, StoreError, Watched};
use crate::core::value::{AllocationValue, BlockStatus};

/// What a node wants of the world.
#[derive(Debug)]
pub(super) enum Out {
    Store(u64, Request),
    Watch(String),
    Reply(u64, Outcome),
    /// A commit was asked for.
    Commit,
}

/// Who waits for a commit.
#[derive(Debug)]
pub(super) enum After {
    Nothing,
    Operation(u64),
    Intended(u64),
    Order(SetId, Waiting, Box<Order>),
}

/// What a range set waits for.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    Lease(Vec<Cidr>),
    GiveBack,
    Transfer(Question),
    Find,
}

#[derive(Debug)]
pub(super) enum Who {
    Set(SetId, Waiting),
    AgreeBlockSize(Arc<str>, Arc<Ranges>),
}

/// A daemon that runs.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) coordinator: Coordinator,
    pub(super) sets: BTreeMap<SetId, (SetRecord, RangeSet)>,
    pub(super) leaseholder: Leaseholder,
    pub(super) commits: VecDeque<(Vec<JournalEntry>, After)>,
    pub(super) orders: BTreeMap<OrderId, Who>,
    next_order: OrderId,
    pub(super) joined: bool,
    pub(super) alone: bool,
    pub(super) stalled: Option<Arc<str>>,
    pub(super) halted: Option<Arc<str>>,
    pub(super) draining: bool,
    pub(super) awaiting: BTreeMap<u64, (usize, Millis)>,
    pub(super) out: Vec<Out>,
    pub(super) went_back: bool,
    pub(super) lost: usize,
}

/// What of a node outlives its daemon.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) name: Arc<str>,
    pub(super) boot: u64,
    /// The journal as this boot began.
    pub(super) at_boot: JournalState,
    /// What was added to it since.
    pub(super) journal: Vec<JournalEntry>,
    pub(super) settings: Settings,
    pub(super) await_records: bool,
    /// It lost its journal, or some of it, while its containers ran.
    pub(super) forgot: bool,
}

impl Disk {
    fn state(&self) -> JournalState {
        let mut state = self.at_boot.clone();
        for entry in &self.journal {
            state.apply(self.settings.cooldown, entry);
        }
        state
    }

    /// What the journal says is held.
    pub(super) fn held(&self) -> BTreeSet<(AttachmentId, IpAddr)> {
        let holdings = self.state().holdings.into_iter();
        let each = |holding: Arc<Holding>| {
            let addresses = holding.addresses.to_vec();
            addresses.into_iter().map(move |address| (holding.id(), address))
        };
        holdings.flat_map(each).collect()
    }

    /// The machine starts anew: containers of the earlier boot are gone.
    pub(super) fn reboot(&mut self, now: Millis) {
        self.boot += 1;
        let mut state = self.state();
        let cooldown = self.settings.cooldown;
        state.begin_boot(NewBoot { keep_holdings: false, cooldown, now });
        self.forget();
        self.at_boot = state;
    }

    /// The journal is lost.
    pub(super) fn forget(&mut self) {
        self.at_boot = JournalState::default();
        self.journal.clear();
    }

    /// Starts the daemon.
    pub(super) fn start(&self, now: Millis) -> Daemon {
        let state = self.state();
        let chain = (state.chain, state.intent);
        let (mut blocks, mut lost) = (state.blocks.clone(), state.lost.clone());
        let coordinator = Coordinator::new(self.settings, self.await_records, 0);
        let rebuilt = restore(coordinator, state).unwrap();
        blocks.retain(|block| !rebuilt.stray.contains(block));
        lost.retain(|block| !rebuilt.stray.contains(block));
        let me = NodeIdentity {
            node: self.name.clone(),
            machine_id: self.name.clone(),
            boot_id: format!("{}", self.boot).into(),
            version: "sim".into(),
            since_unix_ms: now,
            ttl_s: 30,
            offline_limit: None,
            keeps_after_reboot: false,
            records: true,
        };
        let mut daemon = Daemon {
            coordinator: rebuilt.coordinator,
            sets: rebuilt
                .sets
                .into_iter()
                .map(|(record, set)| (record.id, (record, set)))
                .collect(),
            leaseholder: Leaseholder::new(me, chain, blocks, lost, 0),
            commits: VecDeque::new(),
            orders: BTreeMap::new(),
            next_order: 1,
            joined: false,
            alone: true,
            stalled: None,
            halted: None,
            draining: false,
            awaiting: BTreeMap::new(),
            out: Vec::new(),
            went_back: false,
            lost: 0,
        };
        daemon.leaseholder.start(now);
        daemon.drive(now);
        daemon
    }
}

impl Daemon {
    pub(super) fn call(&mut self, now: Millis, id: u64, call: Call) {
        self.coordinator.call(now, id, call);
        self.drive(now);
    }

    pub(super) fn answered(&mut self, now: Millis, id: u64, answer: Result<Answer, StoreError>) {
        self.leaseholder.answered(now, id, answer);
        self.drive(now);
    }

    pub(super) fn observed(&mut self, now: Millis, watched: Watched) {
        self.leaseholder.observed(now, watched);
        self.drive(now);
    }

    /// The commits that are not durable yet.
    pub(super) fn unsynced(&self) -> impl Iterator<Item = &Vec<JournalEntry>> {
        self.commits.iter().map(|(records, _)| records)
    }

    /// Makes the first commits durable, as one group.
    pub(super) fn commit(&mut self, now: Millis, count: usize, journal: &mut Vec<JournalEntry>) {
        for _ in 0..count {
            let Some((records, after)) = self.commits.pop_front() else { break };
            journal.extend(records);
            match after {
                After::Nothing => {}
                After::Intended(sequence) => self.leaseholder.intended(now, sequence),
                After::Operation(operation) => self.coordinator.committed(now, operation, Ok(())),
                After::Order(set, waiting, order) => self.place(now, set, waiting, *order),
            }
        }
        self.drive(now);
    }

    pub(super) fn timeout(&mut self, now: Millis) {
        self.leaseholder.handle_timeout(now);
        for (_, set) in self.sets.values_mut() {
            if set.poll_timeout().is_some_and(|due| due <= now) {
                set.handle_timeout(now);
            }
        }
        let late: Vec<u64> =
            self.awaiting.iter().filter(|(_, at)| at.1 <= now).map(|(id, _)| *id).collect();
        for operation in late {
            self.awaiting.remove(&operation);
            self.coordinator.recorded(now, operation, Err("too late".into()));
        }
        self.drive(now);
    }

    pub(super) fn due(&self) -> Option<Millis> {
        let sets = self.sets.values().filter_map(|(_, set)| set.poll_timeout());
        let awaiting = self.awaiting.values().map(|(_, until)| *until);
        sets.chain(self.leaseholder.poll_timeout()).chain(awaiting).min()
    }

    pub(super) fn keep(&mut self, records: Vec<JournalEntry>, after: After) {
        self.commits.push_back((records, after));
        self.out.push(Out::Commit);
    }

    fn place(&mut self, now: Millis, set: SetId, waiting: Waiting, order: Order) {
        let id = self.next_order;
        self.next_order += 1;
        self.orders.insert(id, Who::Set(set, waiting));
        self.leaseholder.order(now, id, order);
    }

    /// Carries out what the machines ask for, until they ask for nothing more.
    fn drive(&mut self, now: Millis) {
        for turn in 0.. {
            assert!(turn < 100_000, "the machines are busy for ever");
            if let Some(effect) = self.coordinator.poll_effect() {
                self.of_coordinator(now, effect);
            } else if let Some(effect) = self.leaseholder.poll_effect() {
                self.of_leaseholder(now, effect);
            } else {
                let mut next = self.sets.iter_mut();
                let next = next.find_map(|(id, (_, set))| Some((*id, set.poll_effect()?)));
                let Some((id, effect)) = next else {
                    if turn > 0 {
                        self.check();
                    }
                    return;
                };
                self.of_set(now, id, effect);
            }
        }
    }

    /// What is held is taken in a block in hand.
    fn check(&self) {
        for (_, set) in self.sets.values() {
            set.check_invariants();
        }
        if self.coordinator.held().len() > 500 {
            return; // a burst: it would take longer than the burst
        }
        for holding in self.coordinator.held().all() {
            for &address in holding.addresses.iter() {
                let number = crate::core::address::number(address);
                let mut blocks = self.sets.values().flat_map(|(_, set)| set.blocks());
                let block = blocks.find(|block| block.cidr().contains(number));
                let taken = block.is_some_and(|b| b.is_taken(number) && !b.is_cooling(number));
                assert!(taken, "{address} is held in {block:?}");
            }
        }
    }

    fn of_coordinator(&mut self, now: Millis, effect: coordinator::Effect) {
        use coordinator::Effect as E;
        let set = |sets: &mut BTreeMap<SetId, (SetRecord, RangeSet)>,
                   id,
                   f: &mut dyn FnMut(&mut RangeSet)| {
            if let Some((_, set)) = sets.get_mut(&id) {
                f(set);
            }
        };
        match effect {
            E::Open(record) => {
                let settings = self.coordinator.settings();
                let mut set = RangeSet::new(record.family, record.block_log2, settings);
                if self.joined {
                    set.joined();
                }
                set.alone(self.alone);
                set.stalled(now, self.stalled.clone());
                set.halted(now, self.halted.clone());
                set.draining(now, self.draining);
                self.sets.insert(record.id, (record, set));
            }
            E::Assign(id, request) => {
                let operation = request.id;
                let mut answer = None;
                set(&mut self.sets, id, &mut |set| answer = set.assign(now, request.clone()));
                if let Some(result) = answer {
                    self.coordinator.assigned(now, operation, result);
                }
            }
            E::Undo(id, number) => set(&mut self.sets, id, &mut |set| set.undo(now, number)),
            E::Release(id, number) => set(&mut self.sets, id, &mut |set| set.release(now, number)),
            E::Recover(id, cidrs, held) => set(&mut self.sets, id, &mut |set| {
                set.recover(now, &cidrs, &held);
            }),
            E::Forget(network, address) => {
                let change = RecordChange { network, address, value: None };
                self.leaseholder.record(now, change, None);
            }
            E::Merge(..) => unreachable!("the workload has no configuration that merges"),
            E::Commit(operation, records) => self.keep(records, After::Operation(operation)),
            E::Held(holding) => self.record(now, &holding, true, None),
            E::Ended(holding) => self.record(now, &holding, false, None),
            E::AwaitRecord(operation, holding) => {
                self.awaiting.insert(operation, (holding.addresses.len(), now + 10_000));
                self.record(now, &holding, true, Some(operation));
            }
            E::Reply(call, outcome) => self.out.push(Out::Reply(call, outcome)),
            E::Overlap(..) => {}
            E::AgreeBlockSize(network, allowed) => {
                let id = self.next_order;
                self.next_order += 1;
                let pool = PoolFamily { network: network.clone(), family: allowed.family() };
                let order = Order::AgreeBlockSize {
                    pool,
                    ranges: allowed.iter().map(|range| (range.start, range.end)).collect(),
                    block_log2: allowed.usual_block_log2(),
                    explicit: allowed.block_log2.is_some(),
                };
                self.orders.insert(id, Who::AgreeBlockSize(network, allowed));
                self.leaseholder.order(now, id, order);
            }
        }
    }

    fn record(&mut self, now: Millis, holding: &Holding, there: bool, waiting: Option<u64>) {
        for &address in holding.addresses.iter() {
            let value = there.then(|| Box::new(allocation(holding)));
            let network = holding.scope.pool.clone();
            self.leaseholder.record(now, RecordChange { network, address, value }, waiting);
        }
    }

    fn of_set(&mut self, now: Millis, id: SetId, effect: range_set::Effect) {
        use range_set::Effect as E;
        let record = &self.sets[&id].0;
        let pool = PoolFamily { network: record.network.clone(), family: record.family };
        match effect {
            E::Assigned(operation, result) => self.coordinator.assigned(now, operation, result),
            E::Lease { activate, claim } => {
                let active = |(cidr, status): &(Cidr, BlockStatus)| {
                    (*status == BlockStatus::Active).then_some(*cidr)
                };
                let cidrs = activate.iter().copied().chain(claim.iter().filter_map(active));
                let waiting = Waiting::Lease(cidrs.collect());
                self.place(now, id, waiting, Order::Lease { pool, activate, claim });
            }
            E::GiveBack(cidrs) => {
                let durable = cidrs.iter().filter(|(_, spare)| !spare);
                let gone = |(cidr, _): &(Cidr, bool)| JournalEntry::NoBlock(pool.clone(), *cidr);
                let records: Vec<JournalEntry> = durable.map(gone).collect();
                let waiting = Waiting::GiveBack;
                let cidrs = cidrs.into_iter().map(|(cidr, _)| cidr).collect();
                let order = Order::GiveBack { pool, cidrs };
                if broken(Mutant::GiveBackBeforeJournal) {
                    self.place(now, id, waiting, order);
                } else {
                    self.keep(records, After::Order(id, waiting, Box::new(order)));
                }
            }
            E::Transfer { question, block, give, spare } => {
                let mut records = Vec::new();
                if !spare {
                    let part = |cidr| JournalEntry::Block(pool.clone(), cidr);
                    records.push(JournalEntry::NoBlock(pool.clone(), block));
                    records.extend(without(block, give).into_iter().map(part));
                }
                let waiting = Waiting::Transfer(question.clone());
                self.keep(
                    records,
                    After::Order(id, waiting, Box::new(Order::Transfer { question, block, give })),
                );
            }
            E::JournalLost(cidr) => {
                self.keep(vec![JournalEntry::LostBlock(pool, cidr)], After::Nothing);
            }
            E::JournalBlock(cidr) => {
                self.keep(vec![JournalEntry::Block(pool, cidr)], After::Nothing);
            }
            E::ReleaseUnknown(cidrs) => {
                self.leaseholder.order(now, 0, Order::GiveBack { pool, cidrs });
            }
            E::Refuse(question) => self.leaseholder.order(now, 0, Order::Refuse(question)),
            E::Find { wanted, even_cooling } => {
                let order = Order::Find { pool, wanted, even_cooling };
                self.place(now, id, Waiting::Find, order);
            }
        }
    }
}

fn allocation(holding: &Holding) -> AllocationValue {
    AllocationValue {
        node: "".into(),
        network: None,
        container_id: holding.container_id.clone(),
        ifname: holding.scope.ifname.clone(),
        addresses: holding.addresses.to_vec(),
        namespace: "".into(),
        pod: "".into(),
        stage: "".into(),
        netns: "".into(),
        since_unix_ms: 0,
        started_at: None,
        sequence: holding.sequence,
    }
}
