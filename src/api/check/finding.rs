//! The findings of a check, in a form for programs.

use serde::{Deserialize, Serialize};

use crate::core::attachment::Holding;
use crate::limits;

/// The kind of a fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// An attachment of this node holds addresses, and its network namespace is not there.
    NamespaceGone,
    /// An attachment of this node was not named by the runtime's GC, and its namespace is there.
    NotNamedByGc,
    /// A record in the cluster's store is of nothing that anybody holds.
    RecordWithoutAllocation,
    /// This node holds an address, and its record is missing or is another one's.
    AllocationWithoutRecord,
    /// Blocks belong to a node that has no session.
    BlocksOfDeadNode,
    /// An address is held twice, or may be.
    Duplicate,
    /// A key of the cluster's store cannot be understood.
    Unreadable,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::NamespaceGone,
        Self::NotNamedByGc,
        Self::RecordWithoutAllocation,
        Self::AllocationWithoutRecord,
        Self::BlocksOfDeadNode,
        Self::Duplicate,
        Self::Unreadable,
    ];

    /// Its word, the same in tables, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NamespaceGone => "namespaceGone",
            Self::NotNamedByGc => "notNamedByGc",
            Self::RecordWithoutAllocation => "recordWithoutAllocation",
            Self::AllocationWithoutRecord => "allocationWithoutRecord",
            Self::BlocksOfDeadNode => "blocksOfDeadNode",
            Self::Duplicate => "duplicate",
            Self::Unreadable => "unreadable",
        }
    }

    /// Returns whether the node that such a finding names is the one that can end it.
    pub(super) fn is_of_its_node(self) -> bool {
        match self {
            Self::NamespaceGone
            | Self::NotNamedByGc
            | Self::RecordWithoutAllocation
            | Self::AllocationWithoutRecord => true,
            Self::BlocksOfDeadNode | Self::Duplicate | Self::Unreadable => false,
        }
    }

    /// Returns whether such a finding comes from the cluster's store.
    pub(super) fn is_of_the_store(self) -> bool {
        !matches!(self, Self::NamespaceGone | Self::NotNamedByGc)
    }

    /// Returns whether such a finding may only mean that a record has not been written yet.
    pub(super) fn is_of_a_record(self) -> bool {
        matches!(self, Self::RecordWithoutAllocation | Self::AllocationWithoutRecord)
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The kind of the fault.
    pub kind: Kind,
    /// The node that holds it, or that the store names.
    pub node: String,
    /// The network of the attachment; of blocks, their own.
    pub network: String,
    /// The network out of whose pool the addresses are.
    pub pool: String,
    /// The addresses, or the blocks as prefixes; at most [`limits::NAMED_PER_FINDING_MAX`].
    pub addresses: Vec<String>,
    /// The number of the addresses or blocks, with those that are not named.
    pub count: usize,
    /// The container, of an attachment.
    pub container_id: Option<String>,
    /// Its interface.
    pub ifname: Option<String>,
    /// The sequence number of the holding: a holding that has another one now is not released.
    pub sequence: Option<u64>,
    /// The path of its network namespace.
    pub netns: Option<String>,
    /// The pod's name, if the runtime named one.
    pub pod: Option<String>,
    /// The time since which it is held; of a dead node, the time of the last thing it is known to
    /// have written. In milliseconds since 1970.
    pub since_unix_ms: Option<u64>,
    /// The key in the cluster's store that it is about.
    pub key: Option<String>,
    /// The revision of that key: a key that has another one now is not deleted.
    pub revision: Option<u64>,
    /// True if it is beyond doubt. A finding that is not is released by force only.
    pub certain: bool,
    /// A sentence that says what was seen.
    pub why: String,
    /// The remedy.
    pub remedy: String,
}

impl Finding {
    /// A finding that is about a node, and says nothing yet.
    pub(super) fn new(kind: Kind, node: &str, pool: &str) -> Self {
        Self {
            kind,
            node: node.to_owned(),
            network: pool.to_owned(),
            pool: pool.to_owned(),
            addresses: Vec::new(),
            count: 0,
            container_id: None,
            ifname: None,
            sequence: None,
            netns: None,
            pod: None,
            since_unix_ms: None,
            key: None,
            revision: None,
            certain: true,
            why: String::new(),
            remedy: String::new(),
        }
    }

    /// A finding about what an attachment holds.
    pub(super) fn of_holding(kind: Kind, node: &str, holding: &Holding) -> Self {
        let addresses = holding.addresses.iter().map(ToString::to_string).collect();
        Self {
            network: holding.scope.network.to_string(),
            container_id: Some(holding.container_id.to_string()),
            ifname: Some(holding.scope.ifname.to_string()),
            sequence: Some(holding.sequence.get()),
            pod: holding.pod.as_ref().map(|pod| pod.name.to_string()),
            since_unix_ms: Some(holding.since.as_millis()),
            ..Self::new(kind, node, &holding.scope.pool)
        }
        .names(addresses)
    }

    /// Names addresses or blocks.
    pub(super) fn names(mut self, mut addresses: Vec<String>) -> Self {
        self.count = addresses.len();
        addresses.truncate(limits::NAMED_PER_FINDING_MAX);
        Self { addresses, ..self }
    }

    /// Says what was seen, and what to do.
    pub(super) fn says(self, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into(), ..self }
    }

    /// Returns what must be the same when it is found again.
    pub(super) fn identity(&self) -> impl Eq + std::hash::Hash + use<> {
        // A dead node's blocks may become fewer.
        let blocks = self.kind == Kind::BlocksOfDeadNode;
        let addresses = if blocks { Vec::new() } else { self.addresses.clone() };
        let names = [&self.node, &self.network, &self.pool].map(String::clone);
        let attachment = (self.container_id.clone(), self.ifname.clone(), self.sequence);
        (self.kind, names, addresses, attachment, self.key.clone(), self.revision)
    }
}

/// The number of things that a check looked at.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct LookedAt {
    /// Attachments of this node.
    pub attachments: usize,
    /// Attachments with a network namespace.
    pub namespaces: usize,
    /// Records in the cluster's store.
    pub records: usize,
    /// Blocks in the cluster's store.
    pub blocks: usize,
    /// Nodes in the cluster's store.
    pub nodes: usize,
}

/// The findings of a check.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The node that looked.
    pub node: String,
    /// The time of the check, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// True if everything was looked at, and nothing found.
    pub clean: bool,
    /// The findings, at most [`limits::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// The number of findings beyond those.
    pub left_off: usize,
    /// A sentence for each thing that could not be judged: what it is, why, and what to do.
    pub unchecked: Vec<String>,
    /// The number of things that were looked at.
    pub looked_at: LookedAt,
}

impl Report {
    pub(super) fn new(node: &str, at_unix_ms: u64) -> Self {
        Self {
            node: node.to_owned(),
            at_unix_ms,
            clean: false,
            findings: Vec::new(),
            left_off: 0,
            unchecked: Vec::new(),
            looked_at: LookedAt::default(),
        }
    }

    /// Returns the report as it is given: in order, and with so many findings at most.
    pub(super) fn end(mut self, max: usize) -> Self {
        self.findings.sort_by(|a, b| {
            let key = |found: &Finding| (found.kind, found.node.clone(), found.pool.clone());
            key(a).cmp(&key(b)).then_with(|| a.addresses.cmp(&b.addresses))
        });
        self.clean = self.findings.len() + self.left_off == 0 && self.unchecked.is_empty();
        self.left_off += self.findings.len().saturating_sub(max);
        self.findings.truncate(max);
        self
    }
}
