//! Requests and answers in etcd's form.

use etcd_client::{
    Compare as EtcdCompare, CompareOp, DeleteOptions, Error, GetOptions, KeyValue as EtcdKeyValue,
    KvClient, PutOptions, ResponseHeader, Txn as EtcdTxn, TxnOp, TxnResponse,
};

use crate::core::ids::{LeaseId, Revision};
use crate::core::txn::{Compare, KeyValue, Snapshot, Span, Txn, TxnOutcome, Write};
use crate::store::value::{decode, encode};

/// The prefix of every key in etcd; it ends in '/'.
pub(super) struct Prefix(String);

impl Prefix {
    pub(super) fn new(prefix: &str) -> Self {
        Self(format!("{prefix}/"))
    }

    /// The key in etcd.
    pub(super) fn whole(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// The end of our keys in etcd: the first key after all of them.
    pub(super) fn past(&self) -> String {
        // '0' comes right after '/'.
        format!("{}0", self.0.strip_suffix('/').unwrap_or(&self.0))
    }

    /// Our name of a key in etcd.
    pub(super) fn strip(&self, key: &[u8]) -> String {
        let key = key.strip_prefix(self.0.as_bytes()).unwrap_or(key);
        String::from_utf8_lossy(key).into_owned()
    }

    pub(super) fn key_value(&self, found: &EtcdKeyValue) -> Result<KeyValue, Error> {
        let key = self.strip(found.key());
        Ok(KeyValue {
            value: decode(&key, found.value()),
            key,
            mod_revision: revision(found.mod_revision())?,
            lease: LeaseId::new(found.lease()),
        })
    }

    pub(super) fn txn(&self, txn: &Txn) -> EtcdTxn {
        let when: Vec<_> = txn.when.iter().map(|compare| self.compare(compare)).collect();
        let then: Vec<_> = txn.then.iter().map(|write| self.write(write)).collect();
        if then.is_empty() {
            // A member answers a transaction without operations from its own state, which may be
            // old. With a read it first waits for everything that was answered before.
            let wait = [TxnOp::get(self.whole(""), Some(GetOptions::new().with_count_only()))];
            return EtcdTxn::new().when(when).and_then(wait.clone()).or_else(wait);
        }
        EtcdTxn::new().when(when).and_then(then)
    }

    fn compare(&self, compare: &Compare) -> EtcdCompare {
        match compare {
            Compare::At(key, revision) => {
                let revision = etcd_revision(*revision);
                EtcdCompare::mod_revision(self.whole(key), CompareOp::Equal, revision)
            }
            // To etcd, a key that does not exist was written at revision 0.
            Compare::Absent(key) => EtcdCompare::mod_revision(self.whole(key), CompareOp::Equal, 0),
            // No key was ever made at revision 0, so this holds only if the range has no keys.
            Compare::NoneIn(first, past) => {
                EtcdCompare::create_revision(self.whole(first), CompareOp::Equal, 0)
                    .with_range(self.whole(past))
            }
        }
    }

    fn write(&self, write: &Write) -> TxnOp {
        match write {
            Write::Put(key, value, lease) => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.get()));
                TxnOp::put(self.whole(key), encode(value), options)
            }
            Write::Delete(key) => TxnOp::delete(self.whole(key), None),
            Write::DeleteIn(first, past) => {
                let options = DeleteOptions::new().with_range(self.whole(past));
                TxnOp::delete(self.whole(first), Some(options))
            }
        }
    }

    /// Reads spans, all of them at one revision.
    ///
    /// This is not one transaction: etcd refuses every transaction, even of reads, once its disk
    /// quota is used up (seen with 3.5.1), and just then the caller must learn what was carried
    /// out.
    pub(super) async fn read(&self, mut kv: KvClient, spans: &[Span]) -> Result<Snapshot, Error> {
        let (mut read_at, mut found) = (None, Vec::with_capacity(spans.len()));
        for span in spans {
            // To etcd, 0 means no limit.
            let limit = i64::try_from(span.limit.max(1)).unwrap_or(0);
            let options = GetOptions::new().with_range(self.whole(&span.past)).with_limit(limit);
            let options = match read_at {
                None => options,
                // This member knows that revision: it answered the first span.
                Some(at) => options.with_revision(etcd_revision(at)).with_serializable(),
            };
            let got = kv.get(self.whole(&span.first), Some(options)).await?;
            if read_at.is_none() {
                read_at = Some(revision_of(got.header())?);
            }
            let keys = got.kvs().iter().take(span.limit);
            found.push(keys.map(|key| self.key_value(key)).collect::<Result<_, _>>()?);
        }
        let revision = match read_at {
            Some(revision) => revision,
            None => {
                let options = GetOptions::new().with_count_only();
                revision_of(kv.get(self.whole(""), Some(options)).await?.header())?
            }
        };
        Ok(Snapshot { revision, spans: found })
    }
}

pub(super) fn outcome(answer: &TxnResponse) -> Result<TxnOutcome, Error> {
    let revision = revision_of(answer.header())?;
    Ok(if answer.succeeded() { TxnOutcome::Done(revision) } else { TxnOutcome::Refused(revision) })
}

pub(super) fn revision_of(header: Option<&ResponseHeader>) -> Result<Revision, Error> {
    let header = header.ok_or_else(|| Error::Internal("an answer without a header".to_owned()))?;
    revision(header.revision())
}

fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

fn revision(number: i64) -> Result<Revision, Error> {
    let revision = u64::try_from(number).ok().and_then(Revision::new);
    revision.ok_or_else(|| Error::Internal(format!("an answer with revision {number}")))
}
