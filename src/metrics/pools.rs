//! The figures of the range sets of the cluster. Their series are made anew at each look, so that
//! none of a range set stays that is no longer there.

use metrics::{Key, Label, Level, Metadata, Recorder as _};

use super::catalogue::*;
use super::{SERIES, pool_labels, series};
use crate::core::address::{Address, Family};
use crate::core::range_set::Capacity;

/// The labels of a range set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PoolName {
    /// Its network.
    pub network: Box<str>,
    /// Its family.
    pub family: Family,
    /// The address with which its first block begins.
    pub start: Address,
}

/// The addresses of a range set.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pool {
    /// True if its gateways are known; else they count like other addresses, and what is kept for
    /// stages is not known.
    pub exact: bool,
    /// Addresses that can ever be handed out in the cluster.
    pub size: u128,
    /// Addresses that are kept for pods of a stage.
    pub kept: u64,
    /// Gateways, which are never handed out.
    pub reserved: u64,
    /// Addresses in a block of the usual size.
    pub block_size: u64,
    /// The figures that the cluster's blocks give, once they are known.
    pub cluster: Option<PoolInCluster>,
    /// The addresses of this node's blocks; none: it has no such range set.
    pub local: Option<Capacity>,
}

/// The figures that the cluster's blocks give for a range set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PoolInCluster {
    /// Addresses in no node's block.
    pub unclaimed: u128,
    /// Addresses in blocks of nodes without a session.
    pub gone: u128,
    /// Addresses in blocks of removed nodes.
    pub quarantined: u128,
}

/// Shows the figures of these range sets, and of no others any longer.
pub fn pools<'a>(all: impl Iterator<Item = (PoolName, &'a Pool)>) {
    let (Some(series), Ok(recorder)) = (SERIES.get(), series::recorder()) else { return };
    let metadata = Metadata::new(module_path!(), Level::INFO, None);
    for (name, pool) in all {
        show(&name, pool, |metric, labels, value| {
            let key = Key::from_parts(metric, labels);
            recorder.register_gauge(&key, &metadata).set(value);
        });
    }
    series.show_pools(recorder);
}

#[allow(clippy::cast_precision_loss)]
fn show(name: &PoolName, pool: &Pool, gauge: impl Fn(&'static str, Vec<Label>, f64)) {
    let labels = || {
        let mut labels = pool_labels(&name.network, name.family);
        labels.push(Label::new("range_set", name.family.address(name.start).to_string()));
        labels
    };
    let with = |label, value: &'static str| {
        let mut labels = labels();
        labels.push(Label::from_static_parts(label, value));
        labels
    };
    let show = |metric, value: f64| {
        let exact = if pool.exact { "true" } else { "false" };
        gauge(metric, with("exact", exact), value);
    };
    show(POOL_SIZE, pool.size as f64);
    if pool.exact {
        show(POOL_KEPT, pool.kept as f64);
        show(POOL_RESERVED, pool.reserved as f64);
    }
    if let Some(cluster) = pool.cluster {
        show(POOL_UNCLAIMED, cluster.unclaimed as f64);
        show(POOL_GONE, cluster.gone as f64);
        show(POOL_QUARANTINED, cluster.quarantined as f64);
    }
    gauge(BLOCK_SIZE, labels(), pool.block_size as f64);
    for (state, addresses) in pool.local.iter().flat_map(states) {
        gauge(ADDRESSES, with("state", state), addresses as f64);
    }
}

fn states(local: &Capacity) -> [(&'static str, u64); 8] {
    [
        ("allocated", local.allocated),
        ("cooling", local.cooling),
        ("leaving", local.leaving),
        ("free", local.free),
        ("kept", local.kept),
        ("spare", local.spare),
        ("withheld", local.withheld),
        ("reserved", local.reserved),
    ]
}
