//! Reads of many keys of which little is needed: the keys alone, or the values in which texts are.
//! Values that are not needed are neither sent, if etcd can leave them out, nor decoded.

use etcd_client::{Client, GetOptions, GetResponse};

use super::{Again, Cluster, kv};
use crate::core::txn::{KeyValue, Span, StoreError};
use crate::store::Page;

impl Cluster {
    /// A page of keys without their values.
    pub(super) async fn keys(&self, span: &Span) -> Result<Page<String>, StoreError> {
        let got = self.get(span, true).await?;
        let keys = got.kvs().iter().take(span.limit);
        let found: Vec<String> = keys.map(|found| self.prefix.strip(found.key())).collect();
        Ok(Page { rest: self.rest(span, &got), found })
    }

    /// A page of the keys in whose values all of these texts are.
    pub(super) async fn with_texts(
        &self,
        span: &Span,
        texts: &[String],
    ) -> Result<Page<KeyValue>, StoreError> {
        let got = self.get(span, false).await?;
        let mut found = Vec::new();
        for key in got.kvs().iter().take(span.limit) {
            // What is not text cannot be read either, and is told of by those who decode it.
            let has_all = match std::str::from_utf8(key.value()) {
                Ok(value) => texts.iter().all(|text| value.contains(text.as_str())),
                Err(_) => true,
            };
            if has_all {
                let key = self.prefix.key_value(key);
                found.push(key.map_err(|error| StoreError::Failed(error.to_string().into()))?);
            }
        }
        Ok(Page { rest: self.rest(span, &got), found })
    }

    async fn get(&self, span: &Span, without_values: bool) -> Result<GetResponse, StoreError> {
        // To etcd, 0 means no limit.
        let limit = i64::try_from(span.limit.max(1)).unwrap_or(0);
        let (first, past) = (self.prefix.whole(&span.first), self.prefix.whole(&span.past));
        let mut options = GetOptions::new().with_range(past).with_limit(limit);
        if without_values {
            options = options.with_keys_only();
        }
        let get = |client: Client| {
            let (first, options) = (first.clone(), options.clone());
            async move { kv(&client).get(first, Some(options)).await }
        };
        self.ask(Again::Harmless, get).await
    }

    /// The part of the span behind an answer; none, if the answer has all of it.
    fn rest(&self, span: &Span, got: &GetResponse) -> Option<Span> {
        let last = got.kvs().last().filter(|_| got.kvs().len() >= span.limit)?;
        Some(Span { first: format!("{}\0", self.prefix.strip(last.key())), ..span.clone() })
    }
}
