//! The machine against a plain model of host-local's walk with a cooldown.

mod blocks;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::address::{Address, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::OperationId;
use crate::core::leaseholder::{Found, Leased};
use crate::core::range::{Range, RangeSpec, Ranges};
use crate::core::stage::Stage;
use crate::core::value::BlockStatus;
use crate::limits;

fn range(subnet: &str, start: u8, end: u8, sandbox: &[u8]) -> Range {
    let subnet: ipnet::IpNet = subnet.parse().unwrap();
    let address = |n: u8| Family::V4.address(Address::of(subnet.addr()).plus(u128::from(n)));
    let sandbox = sandbox.iter().map(|&n| address(n)).collect();
    let (start, end) = (Some(address(start)), Some(address(end)));
    let spec = RangeSpec { subnet, start, end, gateway: None, sandbox, smallflow: vec![] };
    Range::new(spec).unwrap()
}

/// Returns all addresses of 10.0.0.0/8.
fn large() -> Arc<Ranges> {
    let spec = RangeSpec {
        subnet: "10.0.0.0/8".parse().unwrap(),
        start: None,
        end: None,
        gateway: None,
        sandbox: vec![],
        smallflow: vec![],
    };
    Arc::new(Ranges::new(vec![Range::new(spec).unwrap()], None).unwrap())
}

/// Returns a request for any address.
fn any_address(id: OperationId, allowed: &Arc<Ranges>) -> Assign {
    Assign { id, set_index: 0, allowed: allowed.clone(), requested: None, stage: None }
}

/// Returns the ranges that calls use, and others over some of the same addresses.
fn views() -> [Arc<Ranges>; 2] {
    let wide = [range("10.0.0.0/26", 1, 30, &[3, 20]), range("10.0.1.0/28", 1, 14, &[])];
    let narrow = [range("10.0.0.0/26", 8, 12, &[])];
    [
        Arc::new(Ranges::new(wide.to_vec(), None).unwrap()),
        Arc::new(Ranges::new(narrow.to_vec(), None).unwrap()),
    ]
}

/// The walk of host-local, address by address.
#[derive(Default)]
struct Model {
    held: BTreeMap<Address, ()>,
    cooling: Vec<(BootTime, Address)>,
    cursors: BTreeMap<u16, Address>,
    cooldown: Duration,
}

impl Model {
    fn is_free(&self, number: Address) -> bool {
        !self.held.contains_key(&number) && !self.cooling.iter().any(|&(_, n)| n == number)
    }

    fn expire_cooldowns(&mut self, now: BootTime) {
        self.cooling.retain(|&(released, _)| released + self.cooldown > now);
    }

    fn walk(&self, allowed: &Ranges, set_index: u16) -> Vec<Address> {
        let all: Vec<Address> = allowed.iter().flat_map(|range| range.addresses().iter()).collect();
        let at =
            self.cursors.get(&set_index).and_then(|cursor| all.iter().position(|n| n == cursor));
        let first = at.map_or(0, |at| at + 1);
        all[first..].iter().chain(&all[..first]).copied().collect()
    }

    fn pick(&self, request: &Assign) -> Option<Address> {
        let offers = |n: Address| request.allowed.find(n).unwrap().offers(n, request.stage);
        if let Some(requested) = request.requested {
            return (offers(requested) && !self.held.contains_key(&requested)).then_some(requested);
        }
        let mut walk = self.walk(&request.allowed, request.set_index).into_iter();
        walk.find(|&n| offers(n) && self.is_free(n)).or_else(|| {
            let seen = |n: Address| request.allowed.find(n).is_some_and(|_| offers(n));
            self.cooling.iter().map(|&(_, n)| n).find(|&n| seen(n))
        })
    }

    fn assign(&mut self, request: &Assign) -> Option<Address> {
        let number = self.pick(request)?;
        self.cooling.retain(|&(_, n)| n != number);
        self.held.insert(number, ());
        self.cursors.insert(request.set_index, number);
        Some(number)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Assign { narrow: bool, set_index: u16, requested: Option<u8>, sandbox: bool },
    Release(usize),
    Undo(usize),
    Wait(u64),
    Timeout,
}

fn step() -> impl Strategy<Value = Step> {
    let requested = prop::option::weighted(0.2, 0u8..32);
    let assign = (prop::bool::weighted(0.15), 0u16..2, requested, prop::bool::weighted(0.1));
    prop_oneof![
        5 => assign.prop_map(|(narrow, set_index, requested, sandbox)| {
            Step::Assign { narrow, set_index, requested, sandbox }
        }),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Undo),
        1 => (0u64..150).prop_map(Step::Wait),
        1 => Just(Step::Timeout),
    ]
}

fn operation(n: u64) -> OperationId {
    OperationId::new(n + 1).unwrap()
}

fn settings(cooldown: Duration) -> Settings {
    Settings { cooldown, min_free: 0, forget_after: Duration::MAX, seed: 0 }
}

/// Answers leases and give-backs at once, as a store without faults would.
#[derive(Default)]
struct Store {
    blocks: BTreeMap<Address, (Cidr, BlockStatus)>,
    txns: u64,
}

impl Store {
    fn answer(
        &mut self,
        set: &mut RangeSet,
        now: BootTime,
    ) -> Vec<(OperationId, Result<Address, AssignError>)> {
        let mut answers = Vec::new();
        while let Some(effect) = set.poll_effect() {
            match effect {
                Effect::Assigned(id, result) => answers.push((id, result)),
                Effect::Lease { activate, claim } => {
                    self.txns += 1;
                    for cidr in activate {
                        let spare = self.blocks.insert(cidr.first(), (cidr, BlockStatus::Active));
                        assert_eq!(spare, Some((cidr, BlockStatus::Spare)));
                    }
                    for (cidr, status) in claim {
                        let overlap = |(other, _): &(Cidr, BlockStatus)| other.meets(cidr);
                        assert!(!self.blocks.values().any(overlap), "{cidr:?} is claimed twice");
                        self.blocks.insert(cidr.first(), (cidr, status));
                    }
                    set.leased(now, Leased::Done);
                }
                Effect::GiveBack(blocks) => {
                    self.txns += 1;
                    for (cidr, spare) in blocks {
                        let status = if spare { BlockStatus::Spare } else { BlockStatus::Active };
                        assert_eq!(self.blocks.remove(&cidr.first()), Some((cidr, status)));
                    }
                    set.given_back(now, true);
                }
                other => panic!("{other:?}: the node is alone"),
            }
        }
        answers
    }
}

/// Assigns, and waits for blocks as long as it takes.
fn assign(
    set: &mut RangeSet,
    store: &mut Store,
    now: BootTime,
    request: Assign,
) -> Option<Address> {
    let id = request.id;
    let at_once = set.assign(now, request);
    let later = store.answer(set, now);
    let answer = match at_once {
        Some(answer) => answer,
        None => later.into_iter().find(|(of, _)| *of == id).expect("answered").1,
    };
    answer.ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// For any calls in any order, the machine gives the address that the walk of host-local gives,
    /// its inventory agrees with itself, and no two blocks overlap.
    #[test]
    fn it_walks_like_host_local(
        steps in prop::collection::vec(step(), 1..120),
        log2 in 0u8..5,
        cooldown in prop_oneof![Just(Duration::ZERO), Just(Duration::from_millis(100))],
    ) {
        let size = BlockSize::of_log2(log2);
        let mut set = RangeSet::new(Family::V4, size, settings(cooldown));
        let mut model = Model { cooldown, ..Model::default() };
        let mut store = Store::default();
        let [wide, narrow] = views();
        let mut now = BootTime::from_millis(1_000_000);
        for (id, step) in steps.into_iter().enumerate() {
            model.expire_cooldowns(now);
            match step {
                Step::Assign { narrow: use_narrow, set_index, requested, sandbox } => {
                    let allowed = if use_narrow { &narrow } else { &wide };
                    let first = allowed.iter().next().unwrap();
                    let net = Address::of(first.subnet.addr());
                    let requested = requested.map(|n| net.plus(u128::from(n)));
                    let requested = requested.filter(|&n| first.contains(n));
                    let stage = sandbox.then_some(Stage::Sandbox);
                    let (id, allowed) = (operation(id as u64), allowed.clone());
                    let request = Assign { id, set_index, allowed, requested, stage };
                    let expected = model.assign(&request);
                    prop_assert_eq!(assign(&mut set, &mut store, now, request), expected);
                }
                Step::Release(which) if !model.held.is_empty() => {
                    let number = *model.held.keys().nth(which % model.held.len()).unwrap();
                    model.held.remove(&number);
                    if !cooldown.is_zero() {
                        model.cooling.push((now, number));
                    }
                    set.release(now, number);
                }
                Step::Undo(which) if !model.held.is_empty() => {
                    let number = *model.held.keys().nth(which % model.held.len()).unwrap();
                    model.held.remove(&number);
                    set.undo(now, number);
                }
                Step::Wait(millis) => now = now + Duration::from_millis(millis),
                Step::Timeout => {
                    // Sets are forgotten at the end of time.
                    let due = set.poll_timeout().filter(|due| *due < now + limits::COOLDOWN_MAX);
                    now = now.max(due.unwrap_or(now));
                    set.handle_timeout(now);
                }
                _ => {}
            }
            store.answer(&mut set, now);
            set.check_invariants();
            prop_assert_eq!(set.stats().allocated, model.held.len() as u64);
            let held: Vec<Address> = set.blocks().map(|block| block.cidr().first()).collect();
            let known: Vec<Address> = store.blocks.keys().copied().collect();
            prop_assert_eq!(held, known);
        }
    }

    /// Claims that fail, meet others' blocks or come back late: every request is answered, in the
    /// order in which it came, nothing is given twice, and when the store works again an address
    /// can be had.
    #[test]
    fn it_survives_a_bad_store(
        fates in prop::collection::vec((0u8..4, 1usize..8, 0u64..2_000), 1..60),
        log2 in 0u8..4,
    ) {
        let size = BlockSize::of_log2(log2);
        let mut set = RangeSet::new(Family::V4, size, settings(Duration::ZERO));
        let mut others: Vec<Cidr> = Vec::new();
        let [wide, _] = views();
        let mut now = BootTime::from_millis(1_000_000);
        let (mut id, mut next) = (OperationId::FIRST, OperationId::FIRST);
        let mut given = BTreeSet::new();
        for (fate, requests, wait) in fates {
            let mut pending = Vec::new();
            for _ in 0..requests {
                match set.assign(now, any_address(id, &wide)) {
                    Some(Ok(number)) => prop_assert!(given.insert(number)),
                    Some(Err(_)) => {}
                    None => pending.push(id),
                }
                id = id.next();
            }
            now = now + Duration::from_millis(wait);
            let mut fate = fate;
            for _ in 0..2 {
            while let Some(effect) = set.poll_effect() {
                let leased = match effect {
                    Effect::Assigned(of, result) => {
                        prop_assert!(of >= next, "answers come in order");
                        next = of.next();
                        pending.retain(|&id| id != of);
                        if let Ok(number) = result {
                            prop_assert!(given.insert(number));
                            prop_assert!(!others.iter().any(|cidr| cidr.contains(number)));
                        }
                        continue;
                    }
                    Effect::GiveBack(_) => { set.given_back(now, false); continue; }
                    // Others hold all that is left, and give none of it.
                    Effect::Find { .. } => {
                        let found = Found::Nobody { others: others.clone(), gone: None };
                        set.found(now, found);
                        continue;
                    }
                    Effect::Lease { claim, .. } if fate == 1 && !claim.is_empty() => {
                        fate = 0;
                        others.push(claim[0].0);
                        Leased::Conflict { others: vec![claim[0].0], gone: vec![] }
                    }
                    // The node's lease ran out meanwhile, and took the spares along.
                    Effect::Lease { activate, .. } if fate == 3 && !activate.is_empty() => {
                        fate = 0;
                        Leased::Conflict { others: vec![], gone: activate }
                    }
                    Effect::Lease { .. } if fate == 2 => Leased::Failed(Cause::NoAnswerInTime),
                    Effect::Lease { .. } => Leased::Done,
                    other => panic!("{other:?}: nobody asks"),
                };
                set.leased(now, leased);
            }
            // An ADD that comes right after a search that found nothing waits for the next one.
            now = now + limits::NOBODY;
            set.handle_timeout(now);
            }
            prop_assert_eq!(&pending, &Vec::<OperationId>::new(), "everybody is answered");
            set.check_invariants();
        }
    }
}

#[test]
fn a_burst_takes_few_leases() {
    let allowed = large();
    let mut set = RangeSet::new(Family::V4, allowed.usual_block_size(), settings(Duration::ZERO));
    let mut store = Store::default();
    for n in 0..10_000 {
        let id = operation(n);
        let request = any_address(id, &allowed);
        let number =
            assign(&mut set, &mut store, BootTime::from_millis(1_000_000), request).unwrap();
        assert_eq!(number, Address::of("10.0.0.2".parse().unwrap()).plus(u128::from(n)));
    }
    assert!(store.txns <= 20, "{} leases for a burst of 10,000", store.txns);
}

/// Creates a set of blocks of one address, one of which is in hand; the next one is on its way.
fn one_in_hand(now: BootTime) -> (RangeSet, Address, impl Fn(u64) -> Assign) {
    let [wide, _] = views();
    let mut set = RangeSet::new(Family::V4, BlockSize::ONE, settings(Duration::ZERO));
    let request = move |n| Assign {
        id: operation(n),
        set_index: 0,
        allowed: wide.clone(),
        requested: None,
        stage: None,
    };
    assert_eq!(set.assign(now, request(0)), None);
    assert!(matches!(set.poll_effect(), Some(Effect::Lease { .. })));
    set.leased(now, Leased::Done);
    assert!(matches!(set.poll_effect(), Some(Effect::Lease { .. })));
    let Some(Effect::Assigned(_, Ok(held))) = set.poll_effect() else { panic!("no address") };
    (set, held, request)
}

/// Alone, a node goes strictly in order, also to the next block; but not while it cannot have it.
#[test]
fn without_the_store_what_is_in_hand_is_handed_out() {
    let now = BootTime::from_millis(1_000_000);
    let (mut set, held, request) = one_in_hand(now);
    set.release(now, held);
    set.stalled(now, Some(Cause::OfflineLimit));
    assert_eq!(set.could_assign(now, &request(1).allowed), Ok(true));
    assert_eq!(set.assign(now, request(1)), Some(Ok(held)));
    let refused = set.assign(now, request(2));
    assert!(matches!(refused, Some(Err(AssignError::NoBlock(_)))), "{refused:?}");
    assert_eq!(set.could_assign(now, &request(3).allowed), Err(Cause::OfflineLimit));
}

/// A request that waits for a block when the store goes away gets an address that has come back
/// meanwhile.
#[test]
fn requests_that_wait_when_the_store_goes_get_what_is_in_hand() {
    let now = BootTime::from_millis(1_000_000);
    let (mut set, held, request) = one_in_hand(now);
    assert_eq!(set.assign(now, request(1)), None);
    set.release(now, held);
    while set.poll_effect().is_some() {}
    set.stalled(now, Some(Cause::OfflineLimit));
    assert_eq!(set.poll_effect(), Some(Effect::Assigned(operation(1), Ok(held))));
}
