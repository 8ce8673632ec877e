//! Goal: a warm allocator takes nothing from the heap.
//!
//! Method: a program of its own, whose global allocator counts; no other test runs in it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says why by panicking"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::core::address::{Address, BlockSize, Cidr, Family};
use leasehold::core::ids::OperationId;
use leasehold::core::range::{Range, RangeSpec, Ranges};
use leasehold::core::range_set::{Assign, JournalledSet, RangeSet, Settings};
use leasehold::core::time::BootTime;

static TAKEN: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: the system's allocator does the work.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Blocks of 64 addresses of 10.0.0.0/16: all of it is in hand.
const BLOCKS: u128 = 1024;
/// Pairs of calls, before and while it counts: more than once around the range.
const PAIRS: u32 = 200_000;
/// Pieces of memory for this number of pairs when blocks fill up and open again all the time: the
/// ordered index of blocks with free addresses is a tree, whose nodes come and go.
const WANDERING_MAX: u64 = 200;

struct Used {
    set: RangeSet,
    allowed: Arc<Ranges>,
    living: VecDeque<Address>,
    keep: usize,
    now: BootTime,
}

impl Used {
    /// A set of which `keep` addresses are assigned at once. Addresses cool for as many
    /// milliseconds; each pair of calls takes one.
    fn new(keep: usize) -> Self {
        let spec = RangeSpec {
            subnet: "10.0.0.0/16".parse().unwrap(),
            start: None,
            end: None,
            gateway: None,
            sandbox: Vec::new(),
            smallflow: Vec::new(),
        };
        let allowed = Arc::new(Ranges::new(vec![Range::new(spec).unwrap()], None).unwrap());
        let cidr = |block: u128| {
            let first = Address::new(0x0a00_0000 + block * 64);
            Cidr::containing(first, BlockSize::of_log2(6))
        };
        let blocks = (0..BLOCKS).map(cidr).collect();
        let (cooldown, forget_after) = (Duration::from_millis(keep as u64), Duration::MAX);
        let settings = Settings { cooldown, min_free: 32, forget_after, seed: 0 };
        let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(6), settings);
        set.rebuild(JournalledSet { blocks, ..JournalledSet::default() }).unwrap();
        let living = VecDeque::with_capacity(keep + 1);
        Self { set, allowed, living, keep, now: BootTime::from_millis(keep as u64) }
    }

    fn assign_and_release(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let allowed = self.allowed.clone();
        let request =
            Assign { id: OperationId::FIRST, set_index: 0, allowed, requested: None, stage: None };
        let number = self.set.assign(self.now, request).unwrap().unwrap();
        self.living.push_back(number);
        if self.living.len() > self.keep {
            let oldest = self.living.pop_front().unwrap();
            self.set.release(self.now, oldest);
        }
        assert!(self.set.poll_effect().is_none(), "a warm set must not ask for blocks");
    }
}

/// Pieces of memory that a warm set takes for [`PAIRS`] pairs of calls.
fn taken(keep: usize) -> u64 {
    let mut used = Used::new(keep);
    (0..PAIRS).for_each(|_| used.assign_and_release());
    let before = TAKEN.load(Ordering::Relaxed);
    (0..PAIRS).for_each(|_| used.assign_and_release());
    TAKEN.load(Ordering::Relaxed) - before
}

/// One test, so that nothing else runs while it counts.
#[test]
fn a_warm_allocator_takes_nothing_from_the_heap() {
    let few = taken(10);
    assert_eq!(few, 0, "{few} pieces of memory for {PAIRS} pairs of calls");
    let many = taken(500);
    println!("{many} pieces of memory for {PAIRS} pairs of calls while blocks fill and open");
    assert!(many <= WANDERING_MAX, "{many} pieces of memory for {PAIRS} pairs of calls");
    // The counter works: it can differ from zero.
    let before = TAKEN.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(TAKEN.load(Ordering::Relaxed) - before, 1);
}
