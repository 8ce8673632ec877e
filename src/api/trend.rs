//! `/v1/trend`: how full each network was in the last hour. The daemon samples that now and then,
//! out of what it knows anyway; what all nodes hold is known for the times at which somebody looked
//! at the map.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{AppState, Phase, figures, sets};
use crate::core::keys::PoolFamily;
use crate::core::time::UnixTime;
use crate::{clock, limits};

/// The points of each network and family.
#[derive(Default, Debug)]
pub struct Trends(Mutex<BTreeMap<PoolFamily, VecDeque<Point>>>);

/// The fill of a network at one time: the time, in milliseconds since 1970; the addresses in blocks
/// of any node (null: the cluster's store was not reached yet); those that this node's containers
/// hold; and those that all nodes' containers hold (null: nobody had them counted).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Point(pub u64, pub Option<u128>, pub u64, pub Option<u64>);

/// The answer.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// The time between two points, in milliseconds.
    pub every_ms: u64,
    /// The networks.
    pub pools: Vec<TrendRow>,
}

/// The curve of a network.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct TrendRow {
    /// The network.
    pub network: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The points, the oldest first.
    pub points: Vec<Point>,
}

impl Trends {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PoolFamily, VecDeque<Point>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a point of each network, and forgets networks that are no longer used when their last
    /// point is too old.
    fn add(&self, now: UnixTime, points: BTreeMap<PoolFamily, Point>) {
        let mut kept = self.lock();
        let every = limits::TREND_EVERY.as_millis();
        let hour = every.saturating_mul(limits::TREND_POINTS_MAX as u128);
        kept.retain(|_, points| {
            points.back().is_some_and(|last| {
                u128::from(now.as_millis() - last.0.min(now.as_millis())) < hour
            })
        });
        for (pool, point) in points {
            if kept.len() >= limits::TREND_POOLS_MAX && !kept.contains_key(&pool) {
                continue;
            }
            let curve = kept.entry(pool).or_default();
            curve.push_back(point);
            if curve.len() > limits::TREND_POINTS_MAX {
                curve.pop_front();
            }
        }
    }
}

/// Notes points until the daemon stops.
pub(super) async fn follow(node: AppState) {
    let mut phase = node.phase.clone();
    let notes = async {
        let mut ticks = tokio::time::interval(limits::TREND_EVERY);
        loop {
            ticks.tick().await;
            let now = clock::unix();
            node.trends.add(now, points(&node, now).await);
        }
    };
    tokio::select! {
        () = notes => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
    }
}

async fn points(node: &AppState, now: UnixTime) -> BTreeMap<PoolFamily, Point> {
    let sets = tokio::time::timeout(limits::HEALTH_WAIT_MAX, node.machines.describe_sets());
    let recently = now.before(limits::TREND_EVERY);
    let counted = node.counts.used_since(recently);
    let mut points: BTreeMap<PoolFamily, Point> = BTreeMap::new();
    for set in sets.await.unwrap_or_default() {
        let known = sets::of_node(&set);
        let of = figures::of_set(node, &known, Some(&set));
        let pool = known.pool;
        let used = counted.as_ref().map(|counted| counted.get(&pool).copied().unwrap_or(0));
        let in_blocks = of.cluster.map(|cluster| of.size.saturating_sub(cluster.unclaimed));
        let at = now.as_millis();
        let point = points.entry(pool).or_insert(Point(at, Some(0), 0, used));
        point.1 = point.1.zip(in_blocks).map(|(sum, more)| sum + more);
        point.2 += set.capacity.allocated;
    }
    points
}

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/trend", web::get().to(show));
}

async fn show(node: web::Data<AppState>) -> HttpResponse {
    let work = AppState::clone(&node);
    let trend = async move {
        let kept = work.trends.lock();
        let row = |(pool, points): (&PoolFamily, &VecDeque<Point>)| TrendRow {
            network: pool.network.to_string(),
            family: pool.family.to_string(),
            points: points.iter().copied().collect(),
        };
        let pools = kept.iter().map(row).collect();
        let every_ms = u64::try_from(limits::TREND_EVERY.as_millis()).unwrap_or(u64::MAX);
        Ok(Trend { every_ms, pools })
    };
    node.lists.answer(trend).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Family;

    #[test]
    fn curves_are_bounded_and_end_with_their_network() {
        let trends = Trends::default();
        let pool = |name: &str| PoolFamily { network: name.into(), family: Family::V4 };
        let every = u64::try_from(limits::TREND_EVERY.as_millis()).unwrap();
        let at = |tick: usize| UnixTime::from_millis(1_000_000 + every * tick as u64);
        let note = |tick: usize, name: &str| {
            let point = Point(at(tick).as_millis(), Some(1), 1, None);
            trends.add(at(tick), BTreeMap::from([(pool(name), point)]));
        };
        note(0, "old");
        (1..=limits::TREND_POINTS_MAX + 5).for_each(|tick| note(tick, "new"));
        let kept = trends.lock();
        assert_eq!(kept.keys().collect::<Vec<_>>(), [&pool("new")]);
        assert_eq!(kept[&pool("new")].len(), limits::TREND_POINTS_MAX);
        drop(kept);
        for number in 0..2 * limits::TREND_POOLS_MAX {
            note(limits::TREND_POINTS_MAX + 6, &number.to_string());
        }
        assert_eq!(trends.lock().len(), limits::TREND_POOLS_MAX);
    }
}
