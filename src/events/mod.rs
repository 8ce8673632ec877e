//! Events of the machines, put into words and counted; the last ones are kept for readers.

mod recent;

pub use recent::{Happening, KeptEvent, Recent};

use crate::core::address::{Cidr, Family};
use crate::core::cause::Cause;
use crate::core::leaseholder::Leased;
use crate::core::node::{Event, SearchEnd};
use crate::{limits, metrics};

/// Writes an event to the log, counts it, and keeps it for readers if it is of interest later.
pub fn tell(recent: &Recent, event: &Event) {
    if let Some(happening) = lasting(event) {
        recent.add(happening);
    }
    match event {
        Event::Overlap(a, b, pairs) => {
            tracing::warn!("networks {a} and {b} overlap: each may hand out the other's addresses");
            metrics::overlaps(*pairs);
        }
        Event::Forgotten { network, overlaps } => {
            tracing::debug!(network = &**network, "a range set that was not used is forgotten");
            metrics::overlaps(*overlaps);
        }
        Event::Merge(network) => {
            tracing::info!(network = &**network, "two range sets of the network become one");
        }
        Event::JournalFailed(cause) => {
            tracing::error!(%cause, "the journal failed: ADD is refused");
        }
        Event::StateRecovered(recovered) => tracing::error!(
            blocks = recovered.blocks,
            remembered = recovered.remembered,
            ended = recovered.ended,
            "the state directory is older than this node, or new, and containers of this boot may \
             run: what the cluster's store has of them is held again, and every other address of \
             this node's blocks cools first (`leasehold check` finds what is left over)"
        ),
        event => tell_of_blocks(event),
    }
}

fn tell_of_blocks(event: &Event) {
    match event {
        Event::Leased(network, family, cidrs, leased) => {
            let metrics = metrics::RangeSet::new(network, *family);
            match leased {
                Leased::Done => {
                    metrics.lease_done();
                    let blocks = prefixes(*family, cidrs);
                    tracing::info!(network = &**network, blocks, "leased blocks");
                }
                Leased::Conflict { .. } => metrics.lease_conflict(),
                Leased::Failed(cause) => {
                    metrics.lease_failed();
                    let blocks = prefixes(*family, cidrs);
                    tracing::error!(network = &**network, blocks, %cause, "no block leased");
                }
            }
        }
        Event::Waited { network, family, waited, .. } => {
            metrics::waited(network, *family, *waited);
        }
        Event::GivenBack(network, family, cidrs, done) => {
            let blocks = prefixes(*family, cidrs);
            if *done {
                metrics::RangeSet::new(network, *family).given_back(cidrs.len());
                tracing::info!(network = &**network, blocks, "gave free blocks back");
            } else {
                tracing::warn!(network = &**network, blocks, "blocks not given back");
            }
        }
        Event::Parked(network, family, cidrs, done) => {
            let blocks = prefixes(*family, cidrs);
            if *done {
                metrics::RangeSet::new(network, *family).given_back(cidrs.len());
                tracing::info!(
                    network = &**network,
                    blocks,
                    "blocks in which nothing is held go back"
                );
            } else {
                tracing::warn!(
                    network = &**network,
                    blocks,
                    "blocks in which nothing is held stay with this node: the cluster's store was \
                     not reached"
                );
            }
        }
        Event::Transferred(network, family) => {
            metrics::RangeSet::new(network, *family).given();
            tracing::info!(network = &**network, "gave free addresses to another node");
        }
        event => tell_of_cluster(event),
    }
}

/// Blocks for the log, which names so many of them: `3: 10.0.0.0/28 10.0.0.16/28 and more`.
fn prefixes(family: Family, cidrs: &[Cidr]) -> String {
    let named = cidrs.iter().take(limits::BLOCKS_NAMED_MAX);
    let names: Vec<String> = named.map(|cidr| cidr.net(family).to_string()).collect();
    let more = if cidrs.len() > names.len() { " and more" } else { "" };
    format!("{}: {}{more}", cidrs.len(), names.join(" "))
}

fn tell_of_cluster(event: &Event) {
    match event {
        Event::Joined { epoch } => tracing::info!(epoch = epoch.get(), "joined the cluster"),
        Event::Stalled(Some(cause)) => tracing::warn!(%cause, "nothing can be leased"),
        Event::Stalled(None) => tracing::info!("the cluster's store answers again"),
        Event::Halted(Some(cause)) => tracing::error!(%cause, "nothing is handed out"),
        Event::Halted(None) => tracing::info!("addresses are handed out again"),
        Event::Draining(true) => tracing::warn!("this node is drained: it hands out nothing"),
        Event::Draining(false) => tracing::info!("this node is not drained any longer"),
        Event::WentBack => {
            metrics::Leaseholder::new().went_back();
            tracing::error!(
                "the cluster's store is older than this node's journal, as if restored from a \
                 backup: blocks are claimed anew, and nothing is handed out of what others took"
            );
        }
        Event::Settling(Some(awaited)) => {
            let cause = Cause::Restored { awaited: awaited.clone().into() };
            tracing::warn!("{cause}");
        }
        Event::Settling(None) => {
            tracing::info!(
                "the restore of the cluster's store is settled: blocks are leased again"
            );
        }
        Event::Lost(pool, cidrs) => {
            for cidr in cidrs {
                tracing::error!(
                    network = &*pool.network, block = %cidr.net(pool.family),
                    "the cluster's store does not have this block as this node's: nothing is \
                     handed out of it"
                );
            }
        }
        Event::Regained(pool, cidr) => {
            let block = cidr.net(pool.family);
            tracing::info!(network = &*pool.network, %block, "a block is back");
        }
        Event::TookForfeit { pool, cidr, from } => {
            tracing::warn!(
                network = &*pool.network, block = %cidr.net(pool.family), node = &**from,
                "took free addresses of a node that has been silent for longer than its \
                 offlineLimit"
            );
        }
        Event::Searched(end) => metrics::Leaseholder::new().found(match end {
            SearchEnd::Gap => "gap",
            SearchEnd::Given => "given",
            SearchEnd::Nobody => "nobody",
            SearchEnd::Failed => "failed",
        }),
        Event::LeaseLeft => {
            tracing::warn!("the cluster's store does not answer: the lease runs out by itself");
        }
        _ => {}
    }
}

/// Returns the part of an event that is kept for readers. The reports of the cluster's store of
/// blocks and sessions, this node's among them, are kept elsewhere (`src/api/news.rs`).
fn lasting(event: &Event) -> Option<Happening> {
    let (kind, network, text) = match event {
        Event::JournalFailed(cause) => {
            ("journalFailed", None, format!("the journal failed, and ADD is refused: {cause}"))
        }
        Event::StateRecovered(recovered) => (
            "stateRecovered",
            None,
            format!(
                "the state directory was lost or old: {} blocks and {} allocations are taken over \
                 from the cluster's store",
                recovered.blocks, recovered.remembered
            ),
        ),
        Event::Stalled(Some(cause)) => {
            ("storeAway", None, format!("nothing can be leased: {cause}"))
        }
        Event::Stalled(None) => ("storeBack", None, "the cluster's store answers again".to_owned()),
        Event::Halted(Some(cause)) => ("halted", None, format!("nothing is handed out: {cause}")),
        Event::Halted(None) => ("resumed", None, "addresses are handed out again".to_owned()),
        Event::WentBack => (
            "storeRestored",
            None,
            "the cluster's store is older than this node, as if restored from a backup".to_owned(),
        ),
        Event::Settling(Some(awaited)) => {
            ("storeRestored", None, Cause::Restored { awaited: awaited.clone().into() }.to_string())
        }
        Event::Settling(None) => (
            "storeSettled",
            None,
            "the restore of the cluster's store is settled: blocks are leased again".to_owned(),
        ),
        Event::Lost(pool, cidrs) => {
            let blocks: Vec<_> =
                cidrs.iter().map(|cidr| cidr.net(pool.family).to_string()).collect();
            let text = format!(
                "this node lost {}: the cluster's store does not have it as its own",
                blocks.join(", ")
            );
            ("blockLost", Some(&pool.network), text)
        }
        Event::Regained(pool, cidr) => {
            let text = format!("this node has {} again", cidr.net(pool.family));
            ("blockRegained", Some(&pool.network), text)
        }
        _ => return None,
    };
    Some(Happening { kind, node: None, network: network.cloned(), text, of_block: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_some_blocks_and_counts_all() {
        let block = |at: usize| Cidr::of(format!("10.0.{at}.0/28").parse().unwrap());
        let of = |count: usize| prefixes(Family::V4, &(0..count).map(block).collect::<Vec<_>>());
        assert_eq!(of(2), "2: 10.0.0.0/28 10.0.1.0/28");
        let many = of(100);
        assert!(many.starts_with("100: 10.0.0.0/28 ") && many.ends_with(" and more"), "{many}");
    }
}
