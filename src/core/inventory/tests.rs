//! The inventory against a plain map of addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// The addresses of the test, few enough that moves meet the same ones again and again.
const ADDRESSES: u128 = 16;
/// The largest block.
const LARGEST_LOG2: u8 = 3;

/// A plain inventory: the state of every address is in a map.
#[derive(Default)]
struct Model {
    blocks: BTreeMap<Cidr, BlockState>,
    addresses: BTreeMap<Address, AddressState>,
    claimed: BTreeSet<Address>,
    /// The addresses that cool, oldest first.
    cooling: Vec<(BootTime, Address)>,
}

impl Model {
    fn block(&self, number: Address) -> Option<(Cidr, BlockState)> {
        let around = |(cidr, _): &(&Cidr, &BlockState)| cidr.contains(number);
        self.blocks.iter().find(around).map(|(cidr, state)| (*cidr, *state))
    }

    fn set(&mut self, now: BootTime, number: Address, state: AddressState) {
        self.cooling.retain(|(_, of)| *of != number);
        if state == AddressState::Cooling {
            self.cooling.push((now, number));
        }
        self.addresses.insert(number, state);
    }

    /// Applies a move; each is told in words: its condition, and the state after it.
    fn apply(&mut self, now: BootTime, number: Address, tried: Move) -> bool {
        use AddressState::{Allocated, Cooling, Free, InTransfer};
        let Some((_, block)) = self.block(number) else { return false };
        let (state, active) = (self.addresses[&number], block == BlockState::Active);
        let (allowed, after) = match tried {
            Move::Allocate => (state == Free && active, Allocated),
            Move::Reuse => (state == Cooling && active, Allocated),
            Move::Hold => (state == Free || state == Cooling, Allocated),
            Move::Release(_) => (state == Allocated, Cooling),
            Move::Undo => (state == Allocated, Free),
            Move::Expire => (state == Cooling, Free),
            Move::Transfer => {
                let ours = active || block == BlockState::Spare;
                (ours && state != Allocated && state != InTransfer, InTransfer)
            }
            Move::Return => (state == InTransfer, Free),
            Move::ReturnCooling(_) => (state == InTransfer, Cooling),
        };
        if allowed {
            self.set(now, number, after);
        }
        allowed
    }

    fn insert(&mut self, cidr: Cidr, state: BlockState) -> bool {
        let free = cidr.addresses().all(|number| self.block(number).is_none());
        if free {
            self.blocks.insert(cidr, state);
            self.claimed.extend(cidr.addresses());
            self.addresses.extend(cidr.addresses().map(|n| (n, AddressState::Free)));
        }
        free
    }

    fn drop_addresses(&mut self, gone: impl Fn(Address) -> bool) {
        self.addresses.retain(|number, _| !gone(*number));
        self.cooling.retain(|(_, number)| !gone(*number));
    }

    fn remove(&mut self, cidr: Cidr) -> bool {
        let held = |number| self.addresses[&number] == AddressState::Allocated;
        if !self.blocks.contains_key(&cidr) || cidr.addresses().any(held) {
            return false;
        }
        self.blocks.remove(&cidr);
        self.claimed.retain(|number| !cidr.contains(*number));
        self.drop_addresses(|number| cidr.contains(number));
        true
    }

    fn split(&mut self, cidr: Cidr, parts: &[Cidr]) -> bool {
        let Some(&state) = self.blocks.get(&cidr) else { return false };
        let kept: Vec<Address> = parts.iter().flat_map(|part| part.addresses()).collect();
        let gone: BTreeSet<Address> =
            cidr.addresses().filter(|number| !kept.contains(number)).collect();
        let inside = kept.iter().all(|number| cidr.contains(*number));
        let disjoint = kept.iter().collect::<BTreeSet<_>>().len() == kept.len();
        let leaves = |number: &Address| self.addresses[number] == AddressState::InTransfer;
        if !inside || !disjoint || !gone.iter().all(leaves) {
            return false;
        }
        self.blocks.remove(&cidr);
        self.blocks.extend(parts.iter().map(|part| (*part, state)));
        self.drop_addresses(|number| gone.contains(&number));
        true
    }

    fn stats(&self) -> Stats {
        let blocks = |state| self.blocks.values().filter(|of| **of == state).count() as u64;
        let addresses = |state| self.addresses.values().filter(|of| **of == state).count() as u64;
        let active = |number: &Address| self.block(*number).unwrap().1 == BlockState::Active;
        let free = |(number, state): &(&Address, &AddressState)| {
            **state == AddressState::Free && active(number)
        };
        Stats {
            allocated: addresses(AddressState::Allocated),
            cooling: addresses(AddressState::Cooling),
            free: self.addresses.iter().filter(free).count() as u64,
            in_transfer: addresses(AddressState::InTransfer),
            spare: blocks(BlockState::Spare),
            active: blocks(BlockState::Active),
            returning: blocks(BlockState::Returning),
            lost: blocks(BlockState::Lost),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Address, Move),
    Expire(u64),
    Insert(Cidr, BlockState),
    Remove(usize),
    SetState(usize, BlockState),
    /// The number of a block, and the bits for [`parts`].
    Split(usize, u16, u16),
    /// The same cidr leaves: it goes into transfer first, if it can.
    PartWith(usize, u128),
    Claim(Cidr),
    ForgetClaims(AddressRange),
}

fn address() -> impl Strategy<Value = Address> {
    (0..ADDRESSES).prop_map(Address::new)
}

fn cidr() -> impl Strategy<Value = Cidr> {
    (address(), 0..=LARGEST_LOG2)
        .prop_map(|(address, log2)| Cidr::containing(address, BlockSize::of_log2(log2)))
}

fn block_state() -> impl Strategy<Value = BlockState> {
    prop_oneof![
        4 => Just(BlockState::Active),
        2 => Just(BlockState::Spare),
        1 => Just(BlockState::Returning),
        1 => Just(BlockState::Lost),
    ]
}

fn any_move() -> impl Strategy<Value = Move> {
    prop::sample::select(vec![
        Move::Allocate,
        Move::Allocate,
        Move::Reuse,
        Move::Hold,
        Move::Release(BootTime::BOOT),
        Move::Release(BootTime::BOOT),
        Move::Undo,
        Move::Expire,
        Move::Transfer,
        Move::Return,
        Move::ReturnCooling(BootTime::BOOT),
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (address(), any_move()).prop_map(|(number, tried)| Step::Apply(number, tried)),
        1 => (0u64..5).prop_map(Step::Expire),
        3 => (cidr(), block_state()).prop_map(|(cidr, state)| Step::Insert(cidr, state)),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), block_state()).prop_map(|(which, to)| Step::SetState(which, to)),
        1 => (any::<usize>(), any::<u16>(), prop_oneof![3 => Just(0), 1 => any::<u16>()])
            .prop_map(|(which, halve, omit)| Step::Split(which, halve, omit)),
        1 => (any::<usize>(), 0..ADDRESSES).prop_map(|(which, at)| Step::PartWith(which, at)),
        1 => cidr().prop_map(Step::Claim),
        1 => (address(), 0u128..10).prop_map(|(at, more)| {
            Step::ForgetClaims(AddressRange::between(at, at.plus(more)))
        }),
    ]
}

/// Adds the parts of a block to `into`: a bit of `halve` divides one in two, a bit of `omit` leaves
/// one out.
fn parts(block: Cidr, halve: &mut u16, omit: &mut u16, into: &mut Vec<Cidr>) {
    let bit = |bits: &mut u16| std::mem::replace(bits, *bits >> 1) & 1 == 1;
    if let Some(halves) = block.halves()
        && bit(halve)
    {
        halves.into_iter().for_each(|half| parts(half, halve, omit, into));
    } else if !bit(omit) {
        into.push(block);
    }
}

/// Takes a step in both, and says whether each of them accepted it.
fn take(step: Step, now: BootTime, inventory: &mut Inventory, model: &mut Model) -> (bool, bool) {
    let nth = |model: &Model, which: usize| {
        let blocks: Vec<Cidr> = model.blocks.keys().copied().collect();
        blocks.get(which % blocks.len().max(1)).copied().unwrap_or(Cidr::one(Address::FIRST))
    };
    match step {
        Step::Apply(number, tried) => {
            let tried = match tried {
                Move::Release(_) => Move::Release(now),
                Move::ReturnCooling(_) => Move::ReturnCooling(now),
                other => other,
            };
            let was = model.addresses.get(&number).copied();
            let moved = inventory.apply(number, tried);
            assert!(moved.is_err() || moved.ok() == was, "{moved:?}");
            (moved.is_ok(), model.apply(now, number, tried))
        }
        Step::Expire(ago) => {
            let until = now.before(Duration::from_millis(ago)).unwrap();
            inventory.expire(until);
            for (released, number) in model.cooling.clone() {
                if released <= until {
                    model.apply(now, number, Move::Expire);
                }
            }
            (true, true)
        }
        Step::Insert(cidr, state) => {
            (inventory.insert(cidr, state).is_ok(), model.insert(cidr, state))
        }
        Step::Remove(which) => {
            let cidr = nth(model, which);
            (inventory.remove(cidr).is_ok(), model.remove(cidr))
        }
        Step::SetState(which, state) => {
            let cidr = nth(model, which);
            let set = model.blocks.get_mut(&cidr).map(|of| *of = state).is_some();
            (inventory.set_state(cidr, state).is_ok(), set)
        }
        Step::Split(which, mut halve, mut omit) => {
            let (cidr, mut into) = (nth(model, which), Vec::new());
            parts(cidr, &mut halve, &mut omit, &mut into);
            (inventory.split(cidr, &into).is_ok(), model.split(cidr, &into))
        }
        Step::PartWith(which, at) => {
            let cidr = nth(model, which);
            let number = cidr.first().plus(at % cidr.size().addresses());
            let moved = inventory.apply(number, Move::Transfer).is_ok();
            assert_eq!(moved, model.apply(now, number, Move::Transfer));
            let left = crate::core::leaseholder::without(cidr, Cidr::one(number));
            (inventory.split(cidr, &left).is_ok(), model.split(cidr, &left))
        }
        Step::Claim(cidr) => {
            inventory.claim(cidr);
            model.claimed.extend(cidr.addresses());
            (true, true)
        }
        Step::ForgetClaims(range) => {
            inventory.forget_claims(range);
            let Model { claimed, addresses, .. } = model;
            claimed.retain(|n| !range.contains(*n) || addresses.contains_key(n));
            (true, true)
        }
    }
}

/// Asserts that every question has the answer that a walk through all addresses finds.
fn compare(inventory: &Inventory, model: &Model) {
    inventory.check_invariants();
    assert_eq!(inventory.stats(), model.stats());
    assert_eq!(inventory.free(), model.stats().free);
    let blocks: Vec<(Cidr, BlockState)> =
        inventory.blocks().map(|block| (block.cidr(), block.state())).collect();
    let expected: Vec<(Cidr, BlockState)> =
        model.blocks.iter().map(|(cidr, state)| (*cidr, *state)).collect();
    assert_eq!(blocks, expected);
    let spares = expected.iter().filter(|(_, state)| *state == BlockState::Spare);
    assert!(inventory.spares().eq(spares.map(|(cidr, _)| *cidr)));
    let all = AddressRange::between(Address::FIRST, Address::new(ADDRESSES + 11));
    let is = |number: &Address, state| model.block(*number).is_some_and(|(_, of)| of == state);
    let free = |n: &Address| {
        is(n, BlockState::Active) && model.addresses.get(n) == Some(&AddressState::Free)
    };
    for number in all.iter() {
        assert_eq!(inventory.state_of(number), model.addresses.get(&number).copied());
        assert_eq!(
            inventory.is_claimed(AddressRange::one(number)),
            model.claimed.contains(&number)
        );
        let rest = AddressRange::between(number, all.last());
        let next = |wanted: &dyn Fn(&Address) -> bool| rest.iter().find(wanted);
        assert_eq!(inventory.first_free(number), next(&free), "from {number:?}");
        assert_eq!(inventory.first_spare(number), next(&|n| is(n, BlockState::Spare)));
        assert_eq!(inventory.first_unclaimed(number), next(&|n| !model.claimed.contains(n)));
        let odd = |n: Address| n >= number && n.get() % 2 == 1;
        let oldest = model.cooling.iter().map(|(_, n)| *n).find(|n| odd(*n));
        assert_eq!(inventory.oldest_cooling(odd), oldest);
    }
    assert_eq!(inventory.oldest_release(), model.cooling.first().map(|(released, _)| *released));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Random moves of addresses and blocks, allowed or not: the inventory refuses those that the
    /// model refuses, and agrees with it about every address and every count.
    #[test]
    fn an_inventory_is_a_map_of_addresses(
        steps in prop::collection::vec((step(), 0u64..3), 1..150),
    ) {
        let (mut inventory, mut model) = (Inventory::default(), Model::default());
        let mut now = BootTime::from_millis(10);
        for (step, wait) in steps {
            now = now + Duration::from_millis(wait);
            let (accepted, expected) = take(step.clone(), now, &mut inventory, &mut model);
            prop_assert_eq!(accepted, expected, "{:?}", step);
            compare(&inventory, &model);
        }
    }

    /// Two inventories of different addresses become one, as if all had happened in one.
    #[test]
    fn absorbing_adds_up(
        steps in prop::collection::vec((0u128..8, any_move(), 0u64..3, any::<bool>()), 1..80),
    ) {
        let (mut inventory, mut model) = (Inventory::default(), Model::default());
        let mut now = BootTime::from_millis(10);
        let mut halves = [Inventory::default(), Inventory::default()];
        let mut models = [Model::default(), Model::default()];
        let blocks = [0, 8].map(|at| Cidr::containing(Address::new(at), BlockSize::of_log2(3)));
        for (half, cidr) in blocks.into_iter().enumerate() {
            let step = || Step::Insert(cidr, BlockState::Active);
            take(step(), now, &mut halves[half], &mut models[half]);
            take(step(), now, &mut inventory, &mut model);
        }
        for (number, tried, wait, high) in steps {
            now = now + Duration::from_millis(wait);
            let half = usize::from(high);
            let step = || Step::Apply(blocks[half].first().plus(number), tried);
            take(step(), now, &mut halves[half], &mut models[half]);
            take(step(), now, &mut inventory, &mut model);
        }
        let [mut low, high] = halves;
        low.absorb(high.clone()).unwrap();
        prop_assert_eq!(&low.claimed, &inventory.claimed);
        let queue = |cooling: &Cooling| cooling.clone().drain().collect::<Vec<_>>();
        let (mine, mut all) = (queue(&low.cooling), queue(&inventory.cooling));
        all.sort_unstable();
        prop_assert_eq!(mine, all);
        let before = low.stats();
        prop_assert_eq!(low.absorb(high), Err(BlockError::Overlaps(blocks[1])));
        prop_assert_eq!(low.stats(), before);
        // Addresses that cool since the same time may be in another order.
        model.cooling.sort_unstable();
        compare(&low, &model);
    }
}

#[test]
fn a_block_that_no_bitmap_could_hold_is_refused() {
    let mut inventory = Inventory::default();
    let cidr =
        Cidr::containing(Address::new(1 << 100), BlockSize::of_log2(BlockSize::MAX.log2() + 1));
    assert_eq!(inventory.insert(cidr, BlockState::Active), Err(BlockError::TooLarge(cidr)));
}
