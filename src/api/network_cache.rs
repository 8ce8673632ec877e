//! The centrally kept configurations, as this node knows them: the cluster's store is watched, and
//! what it said last is kept in the state directory too, for a start while it cannot be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value as Json;
use tokio::sync::{mpsc, watch};

use super::sets::{KnownSet, of_store};
use crate::cni::central::{Central, Found};
use crate::core::ids::Revision;
use crate::core::keys::NETWORKS;
use crate::core::txn::{KeyValue, Watched};
use crate::core::value::{NetworkValue, Value};
use crate::{files, limits};

/// The index.
#[derive(Debug)]
pub struct NetworkCache {
    known: RwLock<KnownNetworks>,
    /// Counts the store's reports, to tell how far they have come.
    reports: watch::Sender<u64>,
    /// The file that keeps the objects for the next start.
    file: PathBuf,
}

#[derive(Default, Debug)]
struct KnownNetworks {
    /// The store has said everything, or an earlier daemon has left what it said.
    complete: bool,
    networks: BTreeMap<Arc<str>, Network>,
}

#[derive(Debug)]
struct Network {
    /// The revision of its key; none: it is from the file.
    revision: Option<Revision>,
    /// Its `ipam` object.
    object: Option<Arc<str>>,
    /// Its range sets: those of its object, and those on which nodes have agreed.
    sets: Vec<KnownSet>,
}

impl Network {
    fn new(name: &str, revision: Option<Revision>, value: NetworkValue) -> Self {
        Self { revision, sets: of_store(name, &value), object: value.ipam }
    }
}

impl NetworkCache {
    /// Begins with what an earlier daemon left in a file; a file that is not there or cannot be
    /// read is as good as none.
    pub fn open(file: PathBuf) -> Self {
        let kept = files::read(&file, limits::NETWORKS_FILE_BYTES_MAX).ok();
        let kept =
            kept.and_then(|kept| serde_json::from_slice::<BTreeMap<String, Json>>(&kept).ok());
        let complete = kept.is_some();
        let network = |(name, object): (String, Json)| {
            let value = NetworkValue { ipam: Some(object.to_string().into()), geometry: vec![] };
            (name.as_str().into(), Network::new(&name, None, value))
        };
        let networks = kept.unwrap_or_default().into_iter().map(network).collect();
        let (reports, _) = watch::channel(0);
        Self { known: RwLock::new(KnownNetworks { complete, networks }), reports, file }
    }

    /// Takes in what the store reports under [`NETWORKS`], for ever.
    pub async fn follow(self: Arc<Self>, mut from: mpsc::Receiver<Watched>) {
        while let Some(report) = from.recv().await {
            if self.learn(report) {
                self.keep().await;
            }
            self.reports.send_modify(|count| *count += 1);
        }
    }

    /// The range sets of the networks that have an object, and of those that are used: of a
    /// deleted network the block size is left, which is no network.
    pub(super) fn sets(&self, used: &BTreeSet<Arc<str>>) -> Vec<KnownSet> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_one =
            |(name, of): &(&Arc<str>, &Network)| of.object.is_some() || used.contains(&**name);
        let networks = known.networks.iter().filter(is_one);
        networks.flat_map(|(_, network)| network.sets.iter().cloned()).collect()
    }

    /// Waits until the store has said everything once. The caller must limit the wait: the store
    /// may be gone.
    pub async fn listed(&self) {
        let mut reports = self.reports.subscribe();
        let _ = reports.wait_for(|count| *count > 0).await;
    }

    /// Waits until a network's key is known as of this revision or later; if there is none,
    /// until the key is known to be gone. The caller must limit the wait.
    pub async fn seen(&self, network: &str, revision: Option<Revision>) {
        let mut reports = self.reports.subscribe();
        let seen = |_: &u64| {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let at = known.networks.get(network).and_then(|known| known.revision);
            if revision.is_none() { at.is_none() } else { at >= revision }
        };
        let _ = reports.wait_for(seen).await;
    }

    /// Takes in one report. Returns whether any object changed.
    fn learn(&self, report: Watched) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.objects();
        match report {
            Watched::Listed(keys) => {
                known.networks = keys.into_iter().filter_map(entry).collect();
                known.complete = true;
            }
            Watched::Put(key) => known.networks.extend(entry(key)),
            Watched::Deleted(key) => {
                known.networks.remove(key.strip_prefix(NETWORKS).unwrap_or_default());
            }
        }
        let after = known.objects();
        for (network, _) in after.iter().filter(|now| !before.contains(now)) {
            tracing::info!(network = &**network, "the central configuration is in use");
        }
        for (network, _) in before.iter().filter(|(was, _)| !after.iter().any(|(is, _)| was == is))
        {
            tracing::info!(network = &**network, "the central configuration is gone");
        }
        before != after
    }

    /// Writes the file, as a whole or not at all. Without it everything works while the store can
    /// be reached.
    async fn keep(&self) {
        let objects: serde_json::Map<String, Json> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let json = |(name, text): (Arc<str>, Arc<str>)| {
                Some((name.to_string(), serde_json::from_str(&text).ok()?))
            };
            known.objects().into_iter().filter_map(json).collect()
        };
        files::remember(&self.file, format!("{:#}", Json::from(objects)).into_bytes()).await;
    }
}

impl KnownNetworks {
    /// The objects that there are.
    fn objects(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let object =
            |(name, known): (&Arc<str>, &Network)| Some((name.clone(), known.object.clone()?));
        self.networks.iter().filter_map(object).collect()
    }
}

fn entry(key: KeyValue) -> Option<(Arc<str>, Network)> {
    let network = key.key.strip_prefix(NETWORKS)?;
    let value = match key.value {
        Value::Network(value) => value,
        _ => {
            tracing::error!(network, "the network's key in the store cannot be read");
            NetworkValue::default()
        }
    };
    Some((network.into(), Network::new(network, Some(key.mod_revision), value)))
}

impl Central for NetworkCache {
    fn find(&self, network: &str) -> Found {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.networks.get(network) {
            Some(Network { object: Some(object), .. }) => Found::Object(object.clone()),
            _ if known.complete => Found::Nothing,
            _ => Found::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(network: &str, revision: u64, ipam: Option<&str>) -> KeyValue {
        let value = NetworkValue { ipam: ipam.map(Arc::from), geometry: vec![] };
        let (key, value) = (format!("networks/{network}"), Value::Network(value));
        KeyValue { key, value, mod_revision: Revision::new(revision).unwrap(), lease: None }
    }

    fn object(text: &str) -> Found {
        Found::Object(text.into())
    }

    #[test]
    fn reports_are_followed_and_outlive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("networks.json");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let networks = Arc::new(NetworkCache::open(file.clone()));
        assert_eq!(networks.find("a"), Found::Unknown);
        let (to, from) = mpsc::channel(8);
        let bounded = |work| tokio::time::timeout(Duration::from_secs(10), work);
        let followed = async {
            let follow = tokio::spawn(networks.clone().follow(from));
            let listed = vec![key("a", 3, Some(r#"{"x":1}"#)), key("b", 4, None)];
            to.send(Watched::Listed(listed)).await.unwrap();
            networks.listed().await;
            assert_eq!(networks.find("a"), object(r#"{"x":1}"#));
            assert_eq!(
                ["b", "c"].map(|name| networks.find(name)),
                [Found::Nothing, Found::Nothing]
            );
            to.send(Watched::Put(key("b", 5, Some(r#"{"y":2}"#)))).await.unwrap();
            to.send(Watched::Deleted("networks/a".to_owned())).await.unwrap();
            networks.seen("b", Revision::new(5)).await;
            networks.seen("a", None).await;
            assert_eq!(networks.find("a"), Found::Nothing);
            drop(to);
            follow.await.unwrap();
        };
        runtime.block_on(async { bounded(followed).await.expect("in time") });
        let next = NetworkCache::open(file.clone());
        assert_eq!(["a", "b"].map(|name| next.find(name)), [Found::Nothing, object(r#"{"y":2}"#)]);
        // The listing replaces everything that an earlier daemon left.
        assert!(next.learn(Watched::Listed(vec![])));
        assert_eq!(next.find("b"), Found::Nothing);
        std::fs::write(&file, "rubbish").unwrap();
        assert_eq!(NetworkCache::open(file).find("b"), Found::Unknown);
    }
}
