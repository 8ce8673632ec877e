//! Transactions on the cluster's store, in etcd's terms: keys with revisions, compared and written
//! in one step.

/// A condition on the store. A transaction is carried out only if all of its conditions hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key was last written at this revision; 0: it does not exist.
    ModRevision(String, u64),
    /// No key from the first (included) to the second (excluded) exists.
    NoneIn(String, String),
}

/// A write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Sets a key to a value.
    Put(String, Vec<u8>),
    /// Deletes a key; that it does not exist is no error.
    Delete(String),
}

/// Conditions and what to write if they hold.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Txn {
    /// All must hold.
    pub when: Vec<Compare>,
    /// Carried out together, or not at all.
    pub then: Vec<Write>,
}

/// How a transaction ended that the store answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxnOutcome {
    /// All conditions held; everything was written at this revision.
    Done(u64),
    /// A condition did not hold; nothing was written.
    Refused,
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision of the key's last write.
    pub mod_revision: u64,
}
