//! The unwise parts of the configurations that calls bring: told of once for each network, and
//! listed by `leasehold status` until a call brings a better one.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::cni::unknown::UnknownKey;
use crate::limits;

/// The warnings by network.
#[derive(Clone, Default, Debug)]
pub struct Warnings(Arc<RwLock<BTreeMap<Arc<str>, Vec<UnknownKey>>>>);

impl Warnings {
    /// Takes note of the keys without effect in a network's configuration.
    pub fn note(&self, network: &Arc<str>, keys: Vec<UnknownKey>) {
        let known = {
            let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
            match all.get(network) {
                None => keys.is_empty() || all.len() >= limits::WARNED_NETWORKS_MAX,
                Some(known) => *known == keys,
            }
        };
        if known {
            return;
        }
        for key in &keys {
            tracing::warn!(network = &**network, "{key}");
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() {
            all.remove(network);
        } else {
            all.insert(network.clone(), keys);
        }
    }

    /// All of them, in words.
    pub fn list(&self) -> Vec<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let texts = |(network, keys): (&Arc<str>, &Vec<UnknownKey>)| {
            keys.iter().map(|key| format!("network {network}: {key}")).collect::<Vec<_>>()
        };
        all.iter().flat_map(texts).collect()
    }
}
