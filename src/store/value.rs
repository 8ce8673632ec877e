//! The values of the store's keys: JSON that a person can read.

use serde::{Deserialize, Serialize};

use crate::clock::rfc3339;
use crate::core::address::{Family, Run};

/// The value of `nodes/<node>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct NodeValue {
    /// Raised at each start of the node's daemon.
    pub epoch: u64,
    /// The boot during which it started.
    pub boot_id: String,
    /// The daemon's version.
    pub version: String,
    /// When it started, in RFC 3339.
    pub since: String,
}

/// The value of `blocks/<network>/<family>/<start>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct BlockValue {
    /// What it covers, as CIDR.
    pub prefix: ipnet::IpNet,
    /// The node that holds it.
    pub owner: String,
    /// The owner's epoch when it was claimed.
    pub epoch: u64,
    /// `active`.
    pub state: String,
    /// Since when, in RFC 3339.
    pub since: String,
}

impl BlockValue {
    /// A block claimed now.
    pub fn active(run: Run, family: Family, owner: &str, epoch: u64, unix_ms: u64) -> Self {
        let (prefix, owner, state) = (run.net(family), owner.to_owned(), "active".to_owned());
        Self { prefix, owner, epoch, state, since: rfc3339(unix_ms) }
    }
}

/// JSON of a value.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("a value is plain data"))
}
