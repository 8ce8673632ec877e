//! The unwise parts of the configurations that calls bring: told of once for each network, and
//! listed by `leasehold status` until a call brings a better one.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::cni::unknown::UnknownKey;
use crate::limits;

/// The warnings: by network, and about the node.
#[derive(Clone, Default, Debug)]
pub struct Warnings {
    networks: Arc<RwLock<BTreeMap<Arc<str>, Vec<UnknownKey>>>>,
    /// Those about the node itself, by subject.
    node: Arc<RwLock<BTreeMap<&'static str, Vec<String>>>>,
}

impl Warnings {
    /// Takes note of the keys without effect in a network's configuration.
    pub fn add(&self, network: &Arc<str>, keys: Vec<UnknownKey>) {
        let known = {
            let all = self.networks.read().unwrap_or_else(PoisonError::into_inner);
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
        let mut all = self.networks.write().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() {
            all.remove(network);
        } else {
            all.insert(network.clone(), keys);
        }
    }

    /// Says what is unwise about a subject of the node now, in place of what was said before. The
    /// log has what is new.
    pub fn set(&self, subject: &'static str, said: Vec<String>) {
        let mut node = self.node.write().unwrap_or_else(PoisonError::into_inner);
        let before = node.insert(subject, Vec::new()).unwrap_or_default();
        for text in said.iter().filter(|text| !before.contains(text)) {
            tracing::warn!("{text}");
        }
        node.insert(subject, said);
    }

    /// All of them, in words.
    pub fn list(&self) -> Vec<String> {
        let all = self.networks.read().unwrap_or_else(PoisonError::into_inner);
        let texts = |(network, keys): (&Arc<str>, &Vec<UnknownKey>)| {
            keys.iter().map(|key| format!("network {network}: {key}")).collect::<Vec<_>>()
        };
        let node = self.node.read().unwrap_or_else(PoisonError::into_inner);
        node.values().flatten().cloned().chain(all.iter().flat_map(texts)).collect()
    }
}
