//! Checks each member at start, so that an operator learns of a problem before it hurts.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::failure::Failure;
use super::plain::plain;
use super::{Cluster, Etcd};

/// The answer of one endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Its URL.
    pub endpoint: String,
    /// The server there, or the problem and its remedy.
    pub outcome: Result<Server, String>,
}

/// A member that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its version, such as `3.5.23`.
    pub version: String,
    /// The defect of this version, if it has one.
    pub warning: Option<String>,
}

/// The first version of each line whose leases keep their promises.
const SOUND: [(u64, u64, u64); 3] = [(3, 4, 38), (3, 5, 23), (3, 6, 5)];

impl Etcd {
    /// Asks every endpoint for its version, and checks that this user has the necessary
    /// permissions. Changes nothing.
    pub async fn probe(&self) -> Vec<Probe> {
        let probe = |at: usize| {
            let cluster = self.cluster.clone();
            self.runtime.spawn(async move { cluster.probe(at).await })
        };
        let probes: Vec<_> = (0..self.cluster.endpoints.len()).map(probe).collect();
        let mut outcomes = Vec::new();
        for (endpoint, probe) in self.cluster.options.endpoints.iter().zip(probes) {
            let outcome = probe.await.unwrap_or_else(|error| Err(error.to_string()));
            outcomes.push(Probe { endpoint: endpoint.clone(), outcome });
        }
        outcomes
    }
}

impl Cluster {
    async fn probe(&self, at: usize) -> Result<Server, String> {
        let endpoint = &self.endpoints[at];
        let plain = |failure: Failure| plain(&self.options, &failure);
        let status = endpoint.call(|mut client| async move { client.status().await });
        let version = status.await.map_err(plain)?.version().to_owned();
        // The condition on all our keys can never hold, so the write never happens. But etcd checks
        // that this user may read and write under the prefix, and that there is a leader.
        let (first, past) = (self.prefix.whole(""), self.prefix.past());
        let never = Compare::create_revision(first, CompareOp::Equal, i64::MAX).with_range(past);
        let write = TxnOp::put(self.prefix.whole("probe"), "", None);
        let never = Txn::new().when([never]).and_then([write]);
        let refused = endpoint.call(|client| {
            let (client, never) = (client.kv_client(), never.clone());
            async move { { client }.txn(never).await }
        });
        refused.await.map_err(plain)?;
        let warning = defect(&version);
        Ok(Server { version, warning })
    }
}

/// The defect of a version of etcd, if it has one.
fn defect(version: &str) -> Option<String> {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    let (Some(major), Some(minor), Some(patch)) = (next(), next(), next()) else {
        return Some(format!("etcd {version}: not a version number, so its defects are unknown"));
    };
    let found = (major, minor, patch);
    let sound = SOUND.iter().find(|&&(of, line, _)| (of, line) == (major, minor));
    let sound = sound.map_or(found >= SOUND[2], |&sound| found >= sound);
    (!sound).then(|| {
        format!(
            "etcd {version} can end the lease of a live node, and keep the lease of a dead one: no \
             address is given out twice, but spare blocks may be lost for a while. Use 3.4.38, \
             3.5.23, 3.6.5 or later"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_lease_defects_are_known() {
        for version in ["3.3.27", "3.4.37", "3.5.22", "3.6.4", "3.6.0-rc.1", "2.3.8"] {
            let warning = defect(version).unwrap();
            assert!(warning.contains(version) && warning.contains("3.5.23"), "{warning}");
        }
        for version in ["3.4.38", "3.5.23", "3.6.5", "3.6.15", "3.7.0", "4.0.0", "3.7.0-rc.0"] {
            assert_eq!(defect(version), None);
        }
        assert!(defect("unknown").is_some() && defect("").is_some());
    }
}
