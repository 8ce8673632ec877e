//! The cluster's store, and what is wrong with it beside everything else.

use std::sync::Arc;

use anyhow::Context as _;

use crate::config::Config;
use crate::store::ClusterStore;
use crate::store::embedded::Embedded;
use crate::store::etcd::{Compaction, Etcd, Probe, Server};
use crate::{clock, limits, metrics};

/// Opens it. Whether etcd can be reached does not matter yet.
///
/// # Errors
/// An option is wrong, or the file of a node without etcd cannot be used.
pub(super) fn open(config: &Config) -> anyhow::Result<Arc<dyn ClusterStore>> {
    let Some(options) = &config.etcd else {
        let path = config.state_dir.join("cluster.redb");
        let store = Embedded::open(&path).with_context(|| path.display().to_string())?;
        return Ok(Arc::new(store));
    };
    options.unwise().iter().for_each(|unwise| tracing::warn!("{unwise}"));
    let store = Etcd::connect(options.clone())?;
    metrics::etcd_history(0);
    actix_rt::spawn(warn_of_etcd(store.clone()));
    actix_rt::spawn(watch_history(store.clone()));
    Ok(Arc::new(store))
}

/// Says what is wrong with etcd's members.
async fn warn_of_etcd(store: Etcd) {
    for Probe { endpoint, outcome } in store.probe().await {
        match outcome {
            Ok(Server { version, warning: None }) => tracing::info!(endpoint, version, "etcd"),
            Ok(Server { warning: Some(warning), .. }) => tracing::warn!(endpoint, "{warning}"),
            Err(error) => tracing::warn!(endpoint, "{error}"),
        }
    }
}

/// Warns if nobody compacts etcd, for ever.
async fn watch_history(store: Etcd) {
    let (mut compaction, mut oldest) = (Compaction::default(), 1);
    let mut looks = tokio::time::interval(limits::HISTORY_LOOK);
    loop {
        looks.tick().await;
        // Without an answer there is nothing to say that others do not say.
        let Ok(history) = store.history(oldest).await else { continue };
        oldest = history.oldest;
        metrics::etcd_history(history.revision.saturating_sub(history.oldest));
        if let Some(unwise) = compaction.learn(clock::boot(), history) {
            tracing::warn!("{unwise}");
        }
    }
}
