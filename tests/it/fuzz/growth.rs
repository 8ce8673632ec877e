//! Thousands of bad inputs cost the daemon no memory that stays.

use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;

use super::{World, bytes, calls, mutate, socket};
use crate::common::poll;

/// Inputs that warm the daemon up; five times as many follow.
const WARM: usize = 1_500;
/// Inputs between two health checks.
const BATCH: usize = 1_500;
/// The allowed difference of memory, in KiB: the allocator's own ups and downs, and the daemon's
/// memory of its DELs and of each network that it ever served. A leak of 2 KiB for each of the
/// inputs that followed would be twice this.
const SLACK_KIB: u64 = 8 << 10;

/// The time within which free memory has gone back to the system.
const BACK_WITHIN: Duration = Duration::from_secs(170);

fn feed(world: &mut World, rng: &mut Rng, inputs: usize, calls: &[Value], bodies: &[Vec<u8>]) {
    for _ in 0..inputs / BATCH {
        let connections =
            (0..BATCH / 2).map(|_| bytes::connection(rng, bodies)).collect::<Vec<_>>();
        socket::exchange_all(|| world.daemon.connect(), &connections);
        for _ in 0..BATCH / 2 {
            let call = &calls[rng.usize(..calls.len())];
            calls::judge(&mut world.client, &mutate::json_text(rng, call));
        }
        world.end_all();
    }
}

#[test]
fn memory_does_not_grow_with_bad_inputs() {
    let (mut world, calls, bodies) = (World::new(), calls::valid(), socket::bodies());
    let mut rng = Rng::with_seed(3);
    feed(&mut world, &mut rng, WARM, &calls, &bodies);
    let before = world.daemon.memory_kib("VmRSS");
    feed(&mut world, &mut rng, 5 * WARM, &calls, &bodies);
    // The allocator gives free memory back now and then, perhaps just before the first look.
    let small = || world.daemon.memory_kib("VmRSS") < before + SLACK_KIB;
    poll(BACK_WITHIN, small);
    let after = world.daemon.memory_kib("VmRSS");
    println!("{before} KiB after {WARM} inputs, {after} KiB after {} more", 5 * WARM);
    assert!(after < before + SLACK_KIB, "{before} KiB became {after} KiB");
}
