//! A node alone gives blocks back as fast as it leases them.

use std::collections::VecDeque;

use super::*;

/// A life of short containers: one comes and the oldest one goes, at an even pace.
struct Life {
    held: usize,
    cooldown: Duration,
    /// ADDs in a second.
    rate: u64,
}

/// Returns the largest number of blocks that were in hand, and the number of transactions, after so
/// many containers.
fn live(life: &Life, containers: u64) -> (usize, u64) {
    let allowed = large();
    let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(6), settings(life.cooldown));
    set.joined();
    let (mut store, mut held, mut most) = (Store::default(), VecDeque::new(), 0);
    for id in 0..containers {
        let now = BootTime::from_millis(1_000_000 + id * 1_000 / life.rate);
        if set.poll_timeout().is_some_and(|due| due <= now) {
            set.handle_timeout(now);
            store.answer(&mut set, now);
        }
        let request = any_address(operation(id), &allowed);
        held.push_back(assign(&mut set, &mut store, now, request).unwrap());
        if held.len() > life.held {
            set.release(now, held.pop_front().unwrap());
        }
        most = most.max(store.blocks.len());
    }
    set.check_invariants();
    assert_eq!(set.blocks().count(), store.blocks.len());
    (most, store.txns)
}

#[test]
fn blocks_in_hand_follow_what_is_held_and_cooling_at_any_rate() {
    for (rate, cooldown_s) in [(20, 30), (85, 30), (1_000, 30), (1_000, 0), (100_000, 0)] {
        let life = Life { held: 1_000, cooldown: Duration::from_secs(cooldown_s), rate };
        let containers = 200_000;
        let (most, txns) = live(&life, containers);
        let used = (life.held as u64 + rate * cooldown_s).div_ceil(64);
        let spare = limits::EMPTY_BLOCKS_MAX + 3 * limits::BLOCKS_PER_CLAIM_MAX as u64;
        println!("{rate}/s, {cooldown_s} s: {most} blocks at most, {used} used, {txns} changes");
        assert!(most as u64 <= used + spare, "{most} blocks in hand, {used} of them used");
        // Each block is leased and given back once, and a burst takes many at a time.
        assert!(txns <= 2 * containers / 64, "{txns} transactions for {containers} containers");
    }
}
