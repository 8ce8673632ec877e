//! The allocations of all nodes, by the records in the cluster's store.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::allocations::{self, AllocationRow, Filter};
use super::cluster::{Refusal, Store};
use super::{AppState, EMBEDDED, refuse};
use crate::core::keys::{ALLOCATIONS, allocation_address, allocation_key};
use crate::core::txn::{KeyValue, Span, StoreError};
use crate::core::value::Value;
use crate::limits;

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/records", web::get().to(list));
}

async fn list(
    node: web::Data<AppState>,
    request: HttpRequest,
    filter: web::Query<Filter>,
) -> HttpResponse {
    if let Err(refusal) = node.listener.shows_details(&request) {
        return *refusal;
    }
    if node.about.store == EMBEDDED {
        // There is no other node, and nothing is recorded twice.
        return allocations::list(node, request, filter).await;
    }
    if filter.after.is_some() && filter.after().is_none() {
        return refuse(StatusCode::BAD_REQUEST, "after: give the pool and address of a row");
    }
    let (store, filter) = (Store::new(&node.store), filter.into_inner());
    node.lists.answer(async move { rows(&store, &filter).await.map_err(Refusal::from) }).await
}

/// A page of rows, in the order of the keys, which is by pool and address.
async fn rows(store: &Store, filter: &Filter) -> Result<Vec<AllocationRow>, StoreError> {
    let mut span = Span::prefix(ALLOCATIONS, limits::KEYS_PER_READ_MAX);
    if let Some((pool, address)) = filter.after() {
        // The first key behind that one.
        span.first = allocation_key(pool, address) + "\0";
    }
    let mut rows = Vec::new();
    loop {
        let page: Vec<KeyValue> =
            store.read(vec![span.clone()]).await?.spans.into_iter().flatten().collect();
        let rest = span.rest(&page);
        let of_page = page.iter().filter_map(row).filter(|row| filter.fits(row));
        rows.extend(of_page.take(filter.limit() - rows.len()));
        match rest {
            Some(rest) if rows.len() < filter.limit() => span = rest,
            _ => return Ok(rows),
        }
    }
}

fn row(key: &KeyValue) -> Option<AllocationRow> {
    let Value::Allocation(value) = &key.value else { return None };
    let (pool, _) = key.key.strip_prefix(ALLOCATIONS)?.rsplit_once('/')?;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(AllocationRow {
        node: value.node.to_string(),
        network: value.network.as_deref().unwrap_or(pool).to_owned(),
        pool: pool.to_owned(),
        address: allocation_address(&key.key)?.to_string(),
        container_id: value.container_id.to_string(),
        ifname: value.ifname.to_string(),
        namespace: text(&value.namespace),
        pod: text(&value.pod),
        stage: text(&value.stage),
        since_unix_ms: value.since.as_millis(),
        sequence: value.sequence.get(),
    })
}
