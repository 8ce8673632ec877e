//! Reads what another program has in the same etcd.

use etcd_client::{Client, Error, GetOptions};

use super::{Again, Cluster, kv};
use crate::core::txn::StoreError;
use crate::limits;

/// gRPC's code for what a user may not do.
const PERMISSION_DENIED: i32 = 7;

/// A page of keys with their values; none, if our user may not read them.
type Page = Option<Vec<(String, String)>>;

impl Cluster {
    /// All keys with a prefix that ends in '/', with their values, in order.
    pub(super) async fn foreign(&self, prefix: &str) -> Result<Page, StoreError> {
        let past = format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix));
        let (mut all, mut next) = (Vec::new(), prefix.to_owned());
        loop {
            let (first, past) = (&next, &past);
            let read = |client| page(client, first.clone(), past.clone());
            let Some(mut keys) = self.ask(Again::Harmless, read).await? else { return Ok(None) };
            let full = keys.len() >= limits::KEYS_PER_READ_MAX;
            all.append(&mut keys);
            if all.len() > limits::FOREIGN_FILES_MAX {
                let said = format!("too many keys below {prefix}");
                return Err(StoreError::Failed(said.into()));
            }
            match all.last() {
                Some((last, _)) if full => next = format!("{last}\0"),
                _ => return Ok(Some(all)),
            }
        }
    }
}

async fn page(client: Client, first: String, past: String) -> Result<Page, Error> {
    let limit = i64::try_from(limits::KEYS_PER_READ_MAX).unwrap_or(0);
    let options = GetOptions::new().with_range(past).with_limit(limit);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match kv(&client).get(first, Some(options)).await {
        Ok(got) => {
            let keys = got.kvs().iter().map(|found| (text(found.key()), text(found.value())));
            Ok(Some(keys.collect()))
        }
        Err(Error::GRpcStatus(status)) if status.code() as i32 == PERMISSION_DENIED => Ok(None),
        Err(error) => Err(error),
    }
}
