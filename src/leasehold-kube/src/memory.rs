//! The ConfigMap in which the Node objects that were seen outlive this program.
//!
//! It has one line for each object, by its UID. Its annotation names the ConfigMap's own UID: a
//! copy in another cluster, as a backup restores it, has another UID, and is not believed. All the
//! objects that it names would be missing there.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;

use super::kubernetes::{Kubernetes, WriteError};
use super::ledger::Entry;

/// The annotation with the ConfigMap's own UID.
const OF: &str = "leasehold.example/memory-of";

/// The ConfigMap as it was read or written last.
#[derive(Debug)]
pub(crate) struct Memory {
    version: String,
    uid: String,
    entries: BTreeMap<String, Entry>,
}

impl Memory {
    /// Reads the ConfigMap, or makes it.
    ///
    /// # Errors
    /// The API server refuses, or another instance writes at the same time.
    pub(crate) async fn load(kubernetes: &Kubernetes) -> anyhow::Result<Self> {
        let found = match kubernetes.memory().await? {
            Some(found) => found,
            None => kubernetes
                .write_memory(None, BTreeMap::new(), BTreeMap::new())
                .await
                .map_err(unwritten)?,
        };
        Self::read(found)
    }

    fn read(found: ConfigMap) -> anyhow::Result<Self> {
        let version = found.metadata.resource_version.context("a ConfigMap without a version")?;
        let uid = found.metadata.uid.context("a ConfigMap without a UID")?;
        let of = found.metadata.annotations.and_then(|mut all| all.remove(OF));
        let data = found.data.unwrap_or_default();
        if of.as_ref() != Some(&uid) {
            if !data.is_empty() {
                tracing::warn!(
                    nodes = data.len(),
                    "the ConfigMap is a copy of another one: the nodes in it are not believed"
                );
            }
            return Ok(Self { version, uid, entries: BTreeMap::new() });
        }
        let mut entries = BTreeMap::new();
        for (key, text) in data {
            match serde_json::from_str(&text) {
                Ok(entry) => drop(entries.insert(key, entry)),
                // The node is not ended by this program then.
                Err(error) => tracing::warn!(%key, %error, "a line of the ConfigMap is dropped"),
            }
        }
        Ok(Self { version, uid, entries })
    }

    /// The entries as they are kept.
    pub(crate) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Keeps these entries, unless they are kept already.
    ///
    /// # Errors
    /// The API server refuses, or another instance has written since.
    pub(crate) async fn keep(
        &mut self,
        kubernetes: &Kubernetes,
        entries: &BTreeMap<String, Entry>,
    ) -> anyhow::Result<()> {
        if self.entries == *entries {
            return Ok(());
        }
        let mut data = BTreeMap::new();
        for (key, entry) in entries {
            data.insert(key.clone(), serde_json::to_string(entry)?);
        }
        let annotations = BTreeMap::from([(OF.to_owned(), self.uid.clone())]);
        let written = kubernetes.write_memory(Some(&self.version), data, annotations).await;
        let metadata = written.map_err(unwritten)?.metadata;
        self.version = metadata.resource_version.context("a ConfigMap without a version")?;
        self.entries.clone_from(entries);
        Ok(())
    }
}

fn unwritten(error: WriteError) -> anyhow::Error {
    match error {
        WriteError::Conflict => anyhow::anyhow!("another instance has written the ConfigMap"),
        WriteError::Other(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(uid: &str, of: &str) -> Memory {
        let map = json!({
            "metadata": { "resourceVersion": "5", "uid": uid, "annotations": { OF: of } },
            "data": {
                "u1": r#"{"name":"n1","machineId":"m1"}"#,
                "u2": json!({
                    "name": "n2", "machineId": "m2", "missingSinceUnixMs": 7,
                    "forgetFromUnixMs": 9,
                }).to_string(),
                "u3": "written by hand",
            },
        });
        Memory::read(serde_json::from_value(map).unwrap()).unwrap()
    }

    #[test]
    fn entries_are_read_and_what_cannot_be_read_is_dropped() {
        let entries = read("a", "a").entries;
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["u1", "u2"]);
        let expected = Entry {
            name: "n2".to_owned(),
            machine: "m2".to_owned(),
            missing_since_unix_ms: Some(7),
            forget_from_unix_ms: Some(9),
        };
        assert_eq!(entries["u2"], expected);
        let text = r#"{"name":"n1","machineId":"m1"}"#;
        assert_eq!(serde_json::to_string(&entries["u1"]).unwrap(), text);
    }

    #[test]
    fn a_copy_of_the_config_map_is_not_believed() {
        assert!(read("b", "a").entries.is_empty());
    }
}
