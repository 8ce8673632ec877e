//! Mode `core`: the allocator alone, without messages, journal or sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::report::{Series, Target, times};
use super::{Bench, Plan};
use crate::core::address::{Address, BlockSize, Cidr, Family};
use crate::core::ids::OperationId;
use crate::core::range::{Range, RangeSpec, Ranges};
use crate::core::range_set::{Assign, JournalledSet, RangeSet, Settings};
use crate::core::time::BootTime;

const MODE: &str = "core";

/// Addresses in the set, besides those that are taken beforehand: 512 blocks.
const FREE_LOG2: u32 = 15;

/// The size of a block, as a logarithm.
const BLOCK_SIZE: BlockSize = BlockSize::of_log2(6);

/// Pairs of calls that are timed together: one alone takes no longer than reading the clock.
const BATCH: u64 = 64;

/// Addresses that are assigned at once, besides those that are taken beforehand.
const LIVING: usize = 1000;

/// The cooldown of a released address; each pair of calls takes one.
const COOLDOWN: Duration = Duration::from_secs(1);

/// 11.0.0.0: a range of /8 has room for every number of addresses.
const FIRST: Address = Address::new(0x0b00_0000);

/// A range set that is in use.
struct Used {
    set: RangeSet,
    allowed: Arc<Ranges>,
    living: VecDeque<Address>,
    now: BootTime,
}

/// The number of steps of the progress bar.
pub(super) fn steps(plan: &Plan) -> u64 {
    u64::from(plan.rounds)
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let mut contenders = Vec::new();
    for &taken in &bench.plan.taken {
        let name = format!("allocator, {taken} taken");
        let series = Series::new(MODE, format!("assign and release, mean of {BATCH}"), name)?;
        let mut used = Used::new(taken)?;
        // Twice around, so that every structure has reached its final size.
        for _ in 0..(1 << FREE_LOG2) * 2 {
            used.assign_and_release()?;
        }
        contenders.push((taken, used, series));
    }
    for _ in 0..bench.plan.rounds {
        bench.step("core")?;
        for (_, used, series) in &mut contenders {
            let (mut each, began) = (times()?, Instant::now());
            while began.elapsed() < bench.plan.slice {
                let began = Instant::now();
                for _ in 0..BATCH {
                    used.assign_and_release()?;
                }
                let mean = began.elapsed().as_nanos() / u128::from(BATCH);
                each.saturating_record_n(u64::try_from(mean)?, BATCH);
            }
            series.round(&each, began.elapsed())?;
        }
    }
    bench.report.series(contenders.iter().map(|(_, _, series)| series));
    for (taken, _, series) in &contenders {
        let took = series.medians_us();
        let what = format!("assign plus release, {taken} taken");
        bench.report.find(MODE, what, took, "us", Target::AtMost(1.0));
    }
    Ok(())
}

impl Used {
    fn new(taken: u32) -> anyhow::Result<Self> {
        let blocks = (u128::from(taken) + (1 << FREE_LOG2)).div_ceil(BLOCK_SIZE.addresses());
        let addresses = blocks * BLOCK_SIZE.addresses();
        let cidr = |block| Cidr::containing(FIRST.plus(block * BLOCK_SIZE.addresses()), BLOCK_SIZE);
        let journalled = JournalledSet {
            blocks: (0..blocks).map(cidr).collect(),
            // Spread over all blocks.
            allocated: (0..u128::from(taken))
                .map(|n| FIRST.plus(2 + n * addresses / (u128::from(taken) + 2)))
                .collect(),
            ..JournalledSet::default()
        };
        let (cooldown, forget_after) = (COOLDOWN, Duration::MAX);
        let settings = Settings { cooldown, min_free: 0, forget_after, seed: 0 };
        let mut set = RangeSet::new(Family::V4, BLOCK_SIZE, settings);
        let foreign = |address| anyhow::anyhow!("address {address:?} is not in a block");
        set.rebuild(journalled).map_err(foreign)?;
        // The set must not ask for further blocks: the walk turns back at the last one.
        let last = FIRST.plus(addresses - 1);
        let end = Some(Family::V4.address(last));
        let spec = RangeSpec {
            subnet: "11.0.0.0/8".parse()?,
            start: None,
            end,
            gateway: None,
            sandbox: Vec::new(),
            smallflow: Vec::new(),
        };
        let allowed = Arc::new(Ranges::new(vec![Range::new(spec)?], None)?);
        Ok(Self {
            set,
            allowed,
            living: VecDeque::with_capacity(LIVING + 1),
            now: BootTime::BOOT + COOLDOWN,
        })
    }

    /// Assigns an address, and releases the oldest one.
    fn assign_and_release(&mut self) -> anyhow::Result<()> {
        self.now = self.now + Duration::from_millis(1);
        let allowed = self.allowed.clone();
        let request =
            Assign { id: OperationId::FIRST, set_index: 0, allowed, requested: None, stage: None };
        let number = self.set.assign(self.now, request).context("no block")??;
        self.living.push_back(number);
        if self.living.len() > LIVING
            && let Some(oldest) = self.living.pop_front()
        {
            self.set.release(self.now, oldest);
        }
        anyhow::ensure!(self.set.poll_effect().is_none(), "a warm set must not ask for blocks");
        Ok(())
    }
}
