//! The coordinator with real range sets, every message delivered in an order that the test draws.

mod failing;
mod late;
mod merging;
mod pools;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::address::{Address, AddressRange, BlockSize, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::{CallId, OperationId};
use crate::core::journal::JournalFailure;
use crate::core::journal::JournalState;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::Leased;
use crate::core::range::{Range, RangeSpec};
use crate::core::range_set::{self, RangeSet};
use crate::core::time::StartTime;
use crate::core::value::BlockStatus;

fn ranges(subnets: &[&str]) -> Arc<Ranges> {
    let range = |subnet: &&str| {
        let (subnet, none) = (subnet.parse().unwrap(), None);
        let (sandbox, smallflow) = (vec![], vec![]);
        let spec = RangeSpec { subnet, start: none, end: none, gateway: none, sandbox, smallflow };
        Range::new(spec).unwrap()
    };
    Arc::new(Ranges::new(subnets.iter().map(range).collect(), None).unwrap())
}

/// Configurations of one network that a call may bring; the last one joins range sets.
fn configurations() -> Vec<Vec<Arc<Ranges>>> {
    vec![
        vec![ranges(&["10.0.0.0/28"]), ranges(&["fd00::/124"])],
        vec![ranges(&["10.0.0.0/28"]), ranges(&["10.0.1.0/28"])],
        vec![ranges(&["10.0.0.0/28", "10.0.1.0/28"])],
    ]
}

/// Containers from 4 on are on a network of their own.
fn id(container: u8) -> AttachmentId {
    let container_id = format!("c{container}").into();
    let network = if container < 4 { "net" } else { "other" }.into();
    AttachmentId { network, container_id, ifname: "eth0".into() }
}

fn add(container: u8, configuration: usize, requested: Vec<IpAddr>, started_at: u64) -> Call {
    Call::Add(Box::new(Add {
        id: id(container),
        pool: id(container).network,
        sets: configurations().swap_remove(configuration),
        requested,
        stage: None,
        pod: None,
        netns: "".into(),
        started_at: Some(StartTime::from_nanos(started_at)),
        waited_since: None,
        at: UnixTime::from_millis(0),
    }))
}

fn del(container: u8, started_at: u64) -> Call {
    Call::Del(Del {
        id: id(container),
        selector: HoldingSelector::StartedBy(StartTime::from_nanos(started_at)),
    })
}

fn settings(cooldown: Duration) -> Settings {
    Settings { cooldown, min_free: 0, forget_after: Duration::MAX, seed: 0 }
}

enum ToSet {
    Assign(Assign),
    Undo(Address),
    Release(Address),
}

/// Everything around the coordinator, with the messages that are on their way.
struct World {
    coordinator: Coordinator,
    sets: BTreeMap<SetId, (SetIdentity, RangeSet)>,
    to_sets: BTreeMap<SetId, VecDeque<ToSet>>,
    commits: VecDeque<(Option<OperationId>, Vec<JournalEntry>)>,
    merges: VecDeque<(SetId, SetId, Arc<str>)>,
    agreements: VecDeque<(Arc<str>, Arc<Ranges>)>,
    awaited: VecDeque<OperationId>,
    durable: Vec<JournalEntry>,
    shown: BTreeMap<AttachmentId, Arc<Holding>>,
    replies: BTreeMap<u64, Outcome>,
    now: BootTime,
    disk_full: bool,
}

impl World {
    fn new(cooldown: Duration) -> Self {
        Self {
            coordinator: Coordinator::new(settings(cooldown), false, StartTime::BOOT),
            sets: BTreeMap::new(),
            to_sets: BTreeMap::new(),
            commits: VecDeque::new(),
            merges: VecDeque::new(),
            agreements: VecDeque::new(),
            awaited: VecDeque::new(),
            durable: Vec::new(),
            shown: BTreeMap::new(),
            replies: BTreeMap::new(),
            now: BootTime::from_millis(1_000_000),
            disk_full: false,
        }
    }

    fn call(&mut self, call_id: u64, call: Call) {
        self.coordinator.call(self.now, CallId::new(call_id + 1).unwrap(), call);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(effect) = self.coordinator.poll_effect() {
            let mut to = |set, message| self.to_sets.entry(set).or_default().push_back(message);
            match effect {
                Effect::Open(record) => {
                    let settings = self.coordinator.settings;
                    let set = RangeSet::new(record.family, record.block_size, settings);
                    self.sets.insert(record.id, (record, set));
                }
                Effect::AgreeBlockSize(network, allowed) => {
                    self.agreements.push_back((network, allowed));
                }
                Effect::RecordsCompared => {}
                Effect::AwaitRecord(id, _) | Effect::AwaitEnd(id, _) => self.awaited.push_back(id),
                Effect::Assign(set, request) => to(set, ToSet::Assign(request)),
                Effect::Undo(set, number) => to(set, ToSet::Undo(number)),
                Effect::Release(set, number) => to(set, ToSet::Release(number)),
                Effect::Merge(into, from, network) => self.merges.push_back((into, from, network)),
                Effect::Commit(operation, records) => self.commits.push_back((operation, records)),
                Effect::Held(holding) => drop(self.shown.insert(holding.id(), holding)),
                Effect::Ended(holding) | Effect::Superseded(holding) => {
                    drop(self.shown.remove(&holding.id()));
                }
                Effect::Reply(call, outcome) => drop(self.replies.insert(call.get() - 1, outcome)),
                Effect::Recover(..) | Effect::Forget(..) | Effect::Overlap(..) => {}
            }
        }
        self.check_unique();
    }

    fn check_unique(&self) {
        let mut seen = BTreeSet::new();
        assert_eq!(self.shown.len(), self.coordinator.held().len());
        for holding in self.shown.values() {
            for address in holding.addresses.iter() {
                assert!(seen.insert((&holding.scope.pool, address)), "{address} is held twice");
            }
        }
    }

    /// Delivers one of the messages that may come next; false when there is none.
    fn deliver(&mut self, draw: usize) -> bool {
        let ready = |(&set, queue): (&SetId, &VecDeque<_>)| (!queue.is_empty()).then_some(set);
        let sets: Vec<SetId> = self.to_sets.iter().filter_map(ready).collect();
        let choices = [
            sets.len(),
            usize::from(!self.commits.is_empty()),
            self.merges.len(),
            self.agreements.len(),
            self.awaited.len(),
        ];
        let total: usize = choices.iter().sum();
        if total == 0 {
            return false;
        }
        self.now = self.now + Duration::from_millis(1);
        let mut choice = draw % total;
        let mut kind = 0;
        while choice >= choices[kind] {
            choice -= choices[kind];
            kind += 1;
        }
        match kind {
            0 => self.deliver_to_set(sets[choice]),
            1 => {
                let (operation, records) = self.commits.pop_front().unwrap();
                let result = if self.disk_full {
                    Err(JournalFailure::Storage("no space".into()))
                } else {
                    Ok(())
                };
                self.durable.extend(records.into_iter().filter(|_| !self.disk_full));
                if let Some(operation) = operation {
                    self.coordinator.committed(self.now, operation, result);
                }
            }
            2 => self.deliver_merge(),
            3 => {
                let (network, allowed) = self.agreements.remove(choice).unwrap();
                let size = Ok(allowed.usual_block_size());
                self.coordinator.block_size_agreed(self.now, &network, &allowed, size);
            }
            _ => {
                let id = self.awaited.remove(choice).unwrap();
                let late = (draw / total).is_multiple_of(3);
                let result = if late { Err(Cause::NotRecordedInTime) } else { Ok(()) };
                self.coordinator.recorded(self.now, id, result);
            }
        }
        self.collect();
        true
    }

    fn deliver_merge(&mut self) {
        let (into, from, network) = self.merges.pop_front().unwrap();
        // Messages to a range set come before its end.
        while self.to_sets.get(&from).is_some_and(|queue| !queue.is_empty()) {
            self.deliver_to_set(from);
        }
        let (_, from) = self.sets.remove(&from).unwrap();
        self.sets.get_mut(&into).unwrap().1.absorb(from);
        self.coordinator.merged(self.now, &network);
    }

    fn deliver_to_set(&mut self, id: SetId) {
        let message = self.to_sets.get_mut(&id).unwrap().pop_front().unwrap();
        let (record, set) = self.sets.get_mut(&id).unwrap();
        let pool = PoolFamily { network: record.network.clone(), family: record.family };
        let mut answers = Vec::new();
        match message {
            ToSet::Assign(request) => {
                let operation = request.id;
                answers.extend(set.assign(self.now, request).map(|result| (operation, result)));
            }
            ToSet::Undo(number) => set.undo(self.now, number),
            ToSet::Release(number) => set.release(self.now, number),
        }
        while let Some(effect) = set.poll_effect() {
            match effect {
                range_set::Effect::Assigned(operation, result) => answers.push((operation, result)),
                range_set::Effect::Lease { activate, claim } => {
                    let claimed = claim.iter().filter(|(_, of)| *of == BlockStatus::Active);
                    let active = activate.into_iter().chain(claimed.map(|(cidr, _)| *cidr));
                    let records = active.map(|cidr| JournalEntry::Block(pool.clone(), cidr));
                    self.commits.push_back((None, records.collect()));
                    set.leased(self.now, Leased::Done);
                }
                other => panic!("{other:?}: the node is alone, and nothing is idle"),
            }
        }
        set.check_invariants();
        for (operation, result) in answers {
            self.coordinator.assigned(self.now, operation, result);
        }
    }

    fn run_to_end(&mut self, mut draw: impl FnMut() -> usize) {
        while self.deliver(draw()) {}
    }

    /// Asserts that nothing is on its way: the assigned addresses are the held ones, and a restart
    /// would find the same.
    fn check_settled(&self) {
        assert_eq!(self.coordinator.in_flight(), 0);
        assert!(self.coordinator.queues.is_empty(), "no attachment waits");
        let assigned: u64 = self.sets.values().map(|(_, set)| set.stats().allocated).sum();
        let held: usize = self.shown.values().map(|holding| holding.addresses.len()).sum();
        assert_eq!(assigned, held as u64, "nothing leaks");
        let (after, sets) = self.restart();
        let found: BTreeMap<_, _> = after.held().all().map(|h| (h.id(), h.clone())).collect();
        assert_eq!(found, self.shown);
        let rebuilt: u64 = sets.iter().map(|(_, set)| set.stats().allocated).sum();
        assert_eq!(rebuilt, assigned);
        let active = |sets: &mut dyn Iterator<Item = &RangeSet>| -> BTreeSet<Cidr> {
            let active = |block: &&crate::core::block::Block| {
                block.state() == crate::core::block::BlockState::Active
            };
            sets.flat_map(|set| set.blocks().filter(active).map(|block| block.cidr())).collect()
        };
        let before = active(&mut self.sets.values().map(|(_, set)| set));
        assert_eq!(active(&mut sets.iter().map(|(_, set)| set)), before);
    }

    fn restart(&self) -> (Coordinator, Vec<(SetIdentity, RangeSet)>) {
        let mut state = JournalState::default();
        for entry in &self.durable {
            state.apply(self.coordinator.settings.cooldown, entry);
        }
        let coordinator = Coordinator::new(self.coordinator.settings, false, StartTime::BOOT);
        let rebuilt = rebuild(coordinator, state).unwrap();
        assert_eq!(rebuilt.stray, [], "every block is in a range set");
        (rebuilt.coordinator, rebuilt.sets)
    }
}

#[derive(Clone, Debug)]
enum Move {
    Add { container: u8, configuration: usize, requested: Option<u8>, shared: bool },
    Del { container: u8, late: bool },
    Gc { keep: u8 },
    Deliver(usize),
}

fn moves() -> impl Strategy<Value = Move> {
    let requested = prop::option::weighted(0.2, 0u8..24);
    prop_oneof![
        4 => (0u8..6, 0usize..3, requested, any::<bool>()).prop_map(
            |(container, configuration, requested, shared)| {
                Move::Add { container, configuration, requested, shared }
            }
        ),
        3 => (0u8..6, any::<bool>()).prop_map(|(container, late)| Move::Del { container, late }),
        1 => any::<u8>().prop_map(|keep| Move::Gc { keep }),
        12 => any::<usize>().prop_map(Move::Deliver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// In every order of messages: each call is answered once, no address is held twice, nothing
    /// leaks when an ADD fails half-way, range sets become one without losing anything, and the
    /// journal says what memory says.
    #[test]
    fn every_order_of_messages_ends_well(
        moves in prop::collection::vec(moves(), 1..80),
        cooldown in prop_oneof![Just(Duration::ZERO), Just(Duration::from_millis(20))],
        await_records in any::<bool>(),
    ) {
        let mut world = World::new(cooldown);
        world.coordinator.await_records = await_records;
        let mut calls = 0;
        for (at, step) in moves.into_iter().enumerate() {
            let started = 1_000 + at as u64;
            let call = match step {
                Move::Deliver(draw) => {
                    world.deliver(draw);
                    continue;
                }
                Move::Add { container, configuration, requested, shared } => {
                    let requested = requested.map(|n| IpAddr::from([10, 0, 0, n]));
                    let requested = requested.into_iter().collect();
                    let pool = if shared { "shared".into() } else { id(container).network };
                    pools::from(&pool, add(container, configuration, requested, started))
                }
                Move::Del { container, late } => {
                    del(container, if late { started - 20 } else { started })
                }
                Move::Gc { keep } => Call::Gc {
                    network: "net".into(),
                    valid: (0..6).filter(|n| keep & (1 << n) != 0)
                        .map(|n| (format!("c{n}").into(), "eth0".into()))
                        .collect(),
                    started_at: StartTime::from_nanos(started),
                },
            };
            calls += 1;
            world.call(calls, call);
        }
        let mut draw = 0usize;
        world.run_to_end(|| { draw = draw.wrapping_mul(31).wrapping_add(7); draw });
        prop_assert_eq!(world.replies.len() as u64, calls, "every call is answered");
        world.check_settled();
    }
}

/// Carries one call out and gives its answer.
fn run(world: &mut World, call_id: u64, call: Call) -> Outcome {
    world.call(call_id, call);
    world.run_to_end(|| 0);
    world.replies.remove(&call_id).unwrap()
}

#[test]
fn an_add_that_its_del_overtook_fails_and_a_later_one_works() {
    let mut world = World::new(Duration::ZERO);
    assert!(matches!(run(&mut world, 1, del(1, 200)), Outcome::Ended(0)));
    let late = run(&mut world, 2, add(1, 0, vec![], 100));
    assert!(matches!(late, Outcome::Failed(CallError::Overtaken(_))), "{late:?}");
    assert!(matches!(run(&mut world, 3, add(1, 0, vec![], 300)), Outcome::Added(_)));
    assert!(matches!(run(&mut world, 4, del(1, 250)), Outcome::Ended(0)), "older than the ADD");
    assert!(matches!(run(&mut world, 5, del(1, 400)), Outcome::Ended(1)));
    world.check_settled();
}

#[test]
fn range_sets_are_not_without_number() {
    let mut world = World::new(Duration::ZERO);
    let one = |n: usize| {
        let Call::Add(mut add) = add(1, 0, vec![], 1) else { panic!() };
        let subnet = format!("10.{}.{}.0/24", n / 256, n % 256);
        add.id.container_id = format!("c{n}").into();
        add.sets = vec![ranges(&[subnet.as_str()])];
        Call::Add(add)
    };
    for n in 0..limits::RANGE_SETS_MAX {
        let entry = world.coordinator.networks.entry("net".into()).or_default();
        let mut set = OpenSet::new(SetId::new(n as u32 + 1), Family::V4, BlockSize::ONE);
        set.add(AddressRange::one(Address::new(n as u128)));
        entry.sets.push(set);
    }
    let outcome = run(&mut world, 1, one(0));
    assert!(matches!(outcome, Outcome::Failed(CallError::TooManySets)), "{outcome:?}");
    world.coordinator.networks.get_mut("net").unwrap().sets.pop();
    world.coordinator.next_set = SetId::new(limits::RANGE_SETS_MAX as u32 + 1);
    assert!(matches!(run(&mut world, 2, one(1)), Outcome::Added(_)));
}

#[test]
fn a_release_by_sequence_number_skips_what_came_later() {
    let mut world = World::new(Duration::ZERO);
    let release =
        |sequence| Call::Del(Del { id: id(1), selector: HoldingSelector::Sequence(sequence) });
    let Outcome::Added(first) = run(&mut world, 1, add(1, 0, vec![], 100)) else { panic!() };
    run(&mut world, 2, del(1, 200));
    let Outcome::Added(second) = run(&mut world, 3, add(1, 0, vec![], 300)) else { panic!() };
    assert!(second.sequence > first.sequence);
    assert!(matches!(run(&mut world, 4, release(first.sequence)), Outcome::Ended(0)));
    assert!(matches!(run(&mut world, 5, release(second.sequence)), Outcome::Ended(1)));
}

#[test]
fn gc_spares_what_came_after_it_and_what_is_listed() {
    let mut world = World::new(Duration::ZERO);
    for (call, (container, at)) in [(1, 100), (2, 110), (3, 300)].into_iter().enumerate() {
        run(&mut world, call as u64, add(container, 0, vec![], at));
    }
    let valid = vec![("c2".into(), "eth0".into())];
    let gc = Call::Gc { network: "net".into(), valid, started_at: StartTime::from_nanos(200) };
    assert!(matches!(run(&mut world, 9, gc), Outcome::Ended(1)));
    let left: Vec<_> = world.shown.keys().map(|id| id.container_id.to_string()).collect();
    assert_eq!(left, ["c2", "c3"]);
    world.check_settled();
}

#[test]
fn a_repeated_add_with_one_more_range_set_is_refused() {
    let mut world = World::new(Duration::ZERO);
    assert!(matches!(run(&mut world, 1, add(1, 0, vec![], 100)), Outcome::Added(_)));
    let Call::Add(mut more) = add(1, 0, vec![], 200) else { panic!() };
    more.sets.push(more.sets[0].clone());
    let outcome = run(&mut world, 2, Call::Add(more));
    let refused = matches!(outcome, Outcome::Failed(CallError::AlreadyHeld { .. }));
    assert!(refused, "{outcome:?}");
    assert!(matches!(run(&mut world, 3, add(1, 0, vec![], 300)), Outcome::Added(_)));
}

#[test]
fn a_broken_journal_ends_all_promises() {
    let mut world = World::new(Duration::ZERO);
    assert!(matches!(run(&mut world, 1, add(1, 0, vec![], 100)), Outcome::Added(_)));
    world.call(2, add(2, 0, vec![], 101));
    world.disk_full = true;
    world.run_to_end(|| 0);
    for (call, what) in [(3, add(1, 0, vec![], 102)), (4, add(3, 0, vec![], 103)), (5, del(1, 104))]
    {
        let outcome = run(&mut world, call, what);
        assert!(matches!(outcome, Outcome::Failed(CallError::Journal(_))), "{outcome:?}");
    }
    assert!(matches!(world.replies[&2], Outcome::Failed(CallError::Journal(_))));
    // Before the node has joined, a DEL of something unknown is a promise too (rule 28).
    let unknown = run(&mut world, 6, del(9, 105));
    assert!(matches!(unknown, Outcome::Failed(CallError::Journal(_))), "{unknown:?}");
    assert!(world.shown.contains_key(&id(1)), "what was promised before is still shown");
}

#[test]
fn a_block_size_that_differs_from_the_first_one_is_refused() {
    let mut world = World::new(Duration::ZERO);
    assert!(matches!(run(&mut world, 1, add(1, 0, vec![], 100)), Outcome::Added(_)));
    let Call::Add(mut other) = add(2, 0, vec![], 101) else { panic!() };
    other.sets[0] = Arc::new(
        Ranges::new(other.sets[0].iter().cloned().collect(), Some(BlockSize::of_log2(3))).unwrap(),
    );
    let outcome = run(&mut world, 2, Call::Add(other));
    let Outcome::Failed(CallError::BlockSize { agreed, configured }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((agreed.addresses(), configured.addresses()), (1, 8));
    world.check_settled();
    assert_eq!(
        Address::of("10.0.0.2".parse().unwrap()),
        Address::of(world.shown[&id(1)].addresses[0])
    );
}
