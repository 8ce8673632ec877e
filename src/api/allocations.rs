//! `/v1/allocations`: what this node holds, by address.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AppState, refuse};
use crate::actors::{HeldAddress, Index};
use crate::core::address::{Address, Family};
use crate::core::attachment::Holding;
use crate::core::container_id::ContainerId;
use crate::limits;

/// One allocation: one address of one attachment.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct AllocationRow {
    /// The node.
    #[serde(default)]
    pub node: String,
    /// The network.
    pub network: String,
    /// The network out of whose pool the address is: the same, unless the configuration leads to
    /// a central one of another name.
    pub pool: String,
    /// The address.
    pub address: String,
    /// The container.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// The pod's namespace, if the runtime named one.
    pub namespace: Option<String>,
    /// The pod's name, if the runtime named one.
    pub pod: Option<String>,
    /// The pod's stage.
    pub stage: Option<String>,
    /// The time since which it is held, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The sequence number of the holding: a release that names it cannot hit a later one.
    pub sequence: u64,
}

/// The filter that chooses the rows of a list.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Only this network.
    pub network: Option<String>,
    /// Only addresses out of this network's pool.
    pub pool: Option<String>,
    /// Only this address.
    pub address: Option<IpAddr>,
    /// Only this container.
    pub container_id: Option<String>,
    /// Only containers whose id begins like this.
    pub container_prefix: Option<String>,
    /// Only this node.
    pub node: Option<String>,
    /// Only pods of this namespace.
    pub namespace: Option<String>,
    /// Only this pod.
    pub pod: Option<String>,
    /// Only addresses of this block.
    pub block: Option<IpNet>,
    /// Only rows in whose address, container, namespace or pod (`namespace/pod`) this text is.
    pub search: Option<String>,
    /// Only rows after this one, `pool,address`: the last row of the page before.
    pub after: Option<String>,
    /// The number of rows to list, at most [`limits::ROWS_PER_PAGE_MAX`].
    pub limit: Option<usize>,
}

impl Filter {
    /// Returns the key after which the page begins. A network's name has no comma.
    pub(super) fn after(&self) -> Option<(&str, IpAddr)> {
        let (pool, address) = self.after.as_deref()?.split_once(',')?;
        Some((pool, address.parse().ok()?))
    }

    /// Returns the fault of the filter, if it has one.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let search = self.search.as_ref().map_or(0, String::len);
        if self.after.is_some() && self.after().is_none() {
            Some("after: give the pool and address of a row")
        } else if self.block.is_some() && self.pool.is_none() {
            Some("block: give the pool that it is of, too")
        } else if search > limits::SEARCH_BYTES_MAX {
            Some("search: give a shorter text")
        } else {
            None
        }
    }

    /// The key after which the rows of the block begin, or those of the page.
    fn begin(&self) -> Option<(&str, IpAddr)> {
        let before = |net: IpNet| {
            let family = Family::of(net.network());
            Some(family.address(Address::of(net.network()).previous()?))
        };
        let of_block = self.block.and_then(before).zip(self.pool.as_deref());
        of_block.map(|(before, pool)| (pool, before)).max(self.after())
    }

    /// True if an address is behind the last one of the block.
    fn is_past(&self, address: IpAddr) -> bool {
        self.block.is_some_and(|block| address > block.broadcast())
    }

    /// True if the text that is searched for is in one of these, or if none is.
    fn finds(&self, address: IpAddr, container: &str, namespace: &str, pod: &str) -> bool {
        let Some(text) = self.search.as_deref() else { return true };
        let has = |of: &str| of.contains(text);
        has(container)
            || has(namespace)
            || has(pod)
            || has(&address.to_string())
            || (text.contains('/') && has(&format!("{namespace}/{pod}")))
    }

    /// Texts that the record of every row has in it, as JSON: a record without one of them need
    /// not be decoded.
    pub(super) fn texts(&self) -> Vec<String> {
        let Self { container_id, container_prefix, node, namespace, pod, .. } = self;
        let whole = [container_id, container_prefix, node, namespace, pod];
        let whole = whole.into_iter().flatten().map(String::as_str);
        // `namespace/pod` is not in one piece.
        let pieces = self.search.as_deref().unwrap_or_default().split('/');
        let all = whole.chain(pieces).filter(|text| !text.is_empty());
        all.filter(|text| !text.contains(is_escaped)).map(str::to_owned).collect()
    }

    /// The number of rows of a page.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX).min(limits::ROWS_PER_PAGE_MAX)
    }

    /// Returns whether the row of an address is to be listed.
    pub(super) fn fits(&self, row: &AllocationRow, address: IpAddr) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let prefix = self.container_prefix.as_deref().unwrap_or_default();
        is(&self.network, &row.network)
            && is(&self.pool, &row.pool)
            && is(&self.container_id, &row.container_id)
            && is(&self.node, &row.node)
            && is(&self.namespace, row.namespace.as_deref().unwrap_or_default())
            && is(&self.pod, row.pod.as_deref().unwrap_or_default())
            && row.container_id.starts_with(prefix)
            && self.address.is_none_or(|wanted| wanted == address)
            && self.block.is_none_or(|block| block.contains(&address))
            && self.finds(
                address,
                &row.container_id,
                row.namespace.as_deref().unwrap_or_default(),
                row.pod.as_deref().unwrap_or_default(),
            )
    }

    /// Returns whether an address of a holding of this node is to be listed.
    fn fits_holding(&self, node: &str, holding: &Holding, address: IpAddr) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let scope = &holding.scope;
        let pod = holding.pod.as_deref();
        let container = |wanted: &String| holding.container_id == ContainerId::from(&**wanted);
        is(&self.network, &scope.network)
            && is(&self.pool, &scope.pool)
            && is(&self.node, node)
            && is(&self.namespace, pod.map_or("", |pod| &pod.namespace))
            && is(&self.pod, pod.map_or("", |pod| &pod.name))
            && self.after() < Some((&*scope.pool, address))
            && self.container_id.as_ref().is_none_or(container)
            && (self.container_prefix.as_ref())
                .is_none_or(|prefix| holding.container_id.starts_with(prefix))
            && self.block.is_none_or(|block| block.contains(&address))
            && (self.search.is_none()
                || self.finds(
                    address,
                    &holding.container_id.to_text(),
                    pod.map_or("", |pod| &pod.namespace),
                    pod.map_or("", |pod| &pod.name),
                ))
    }
}

/// Returns whether JSON may have a character in another form.
fn is_escaped(character: char) -> bool {
    character == '"' || character == '\\' || character.is_control() || !character.is_ascii()
}

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/allocations", web::get().to(list));
}

pub(super) async fn list(
    node: web::Data<AppState>,
    request: HttpRequest,
    filter: web::Query<Filter>,
) -> HttpResponse {
    if let Err(refusal) = node.listener.shows_details(&request) {
        return *refusal;
    }
    if let Some(fault) = filter.fault() {
        return refuse(StatusCode::BAD_REQUEST, fault);
    }
    let (index, filter) = (node.index.clone(), filter.into_inner());
    let own = node.about.node.clone();
    node.lists.answer(async move { Ok(page(&own, &index, &filter).await.rows) }).await
}

/// A page of rows, and the number of addresses that were looked at for it.
struct Page {
    rows: Vec<AllocationRow>,
    looked_at: usize,
}

/// A page of rows, by pool and address, which no two have: what is released between two pages
/// moves no other row. An address or a container is looked up; otherwise the addresses are looked
/// at in order, until the page is full. Others on the same thread have their turn in between.
async fn page(node: &str, index: &Index, filter: &Filter) -> Page {
    let mut page = Page { rows: Vec::new(), looked_at: 0 };
    let container = filter.container_id.as_deref().or(filter.container_prefix.as_deref());
    if let Some(address) = filter.address {
        let held = index.of_address(address);
        page.add(node, held.iter().map(|holding| (address, holding)), filter);
    } else if let Some(container) = container.filter(|container| !container.is_empty()) {
        let mut places: Vec<HeldAddress> = Vec::new();
        for piece in index.by_container(container) {
            for holding in piece {
                places.extend(holding.addresses.iter().map(|&address| (address, holding.clone())));
            }
            tokio::task::yield_now().await;
        }
        places.sort_unstable_by(|(a, of), (b, other)| {
            (&of.scope.pool, a).cmp(&(&other.scope.pool, b))
        });
        page.add(node, places.iter().map(|(address, holding)| (*address, holding)), filter);
    } else {
        for piece in index.by_address(filter.pool.as_deref(), filter.begin()) {
            page.add(node, piece.iter().map(|(address, holding)| (*address, holding)), filter);
            let past = piece.last().is_some_and(|(address, _)| filter.is_past(*address));
            if past || page.rows.len() >= filter.limit() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    page
}

impl Page {
    /// Adds the rows of these addresses that fit, as long as there is room.
    fn add<'a>(
        &mut self,
        node: &str,
        places: impl Iterator<Item = (IpAddr, &'a Arc<Holding>)>,
        filter: &Filter,
    ) {
        for (address, holding) in places {
            if self.rows.len() >= filter.limit() {
                return;
            }
            self.looked_at += 1;
            if filter.fits_holding(node, holding, address) {
                self.rows.push(row(node, holding, address));
            }
        }
    }
}

fn row(node: &str, holding: &Holding, address: IpAddr) -> AllocationRow {
    let pod = holding.pod.as_deref();
    let namespace = pod.map(|pod| pod.namespace.to_string());
    AllocationRow {
        node: node.to_owned(),
        network: holding.scope.network.to_string(),
        pool: holding.scope.pool.to_string(),
        address: address.to_string(),
        container_id: holding.container_id.to_string(),
        ifname: holding.scope.ifname.to_string(),
        namespace: namespace.filter(|namespace| !namespace.is_empty()),
        pod: pod.map(|pod| pod.name.to_string()),
        stage: holding.stage.map(|stage| stage.to_string()),
        since_unix_ms: holding.since.as_millis(),
        sequence: holding.sequence.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::filled_index;
    use crate::core::ids::Sequence;
    use crate::core::time::UnixTime;
    use crate::core::value::{AllocationValue, Value};
    use crate::store::value::encode;

    const HELD: u32 = 5_000;

    async fn looked_at(index: &Index, filter: Filter) -> (usize, usize) {
        let page = page("n", index, &filter).await;
        (page.rows.len(), page.looked_at)
    }

    /// The cost of a page depends on its length, not on the number of holdings.
    #[tokio::test]
    async fn a_page_looks_at_what_it_lists_and_at_little_more() {
        let index = filled_index(HELD);
        let all = Filter::default;
        let address: IpAddr = "10.0.0.77".parse().unwrap();
        let id = index.of_address(address)[0].container_id.to_string();
        let one = Filter { limit: Some(1), ..all() };
        assert_eq!(looked_at(&index, one).await, (1, 1));
        let behind = Filter { limit: Some(5), after: Some("pods,10.0.1.0".into()), ..all() };
        assert_eq!(looked_at(&index, behind).await, (5, 5));
        let address = Filter { address: Some(address), ..all() };
        assert_eq!(looked_at(&index, address).await, (1, 1));
        let container = Filter { container_id: Some(id.clone()), ..all() };
        assert_eq!(looked_at(&index, container).await, (1, 1));
        let prefix = Filter { container_prefix: Some(id[..8].to_owned()), ..all() };
        assert_eq!(looked_at(&index, prefix).await, (1, 1));
        let other = Filter { pool: Some("none".into()), ..all() };
        assert_eq!(looked_at(&index, other).await, (0, 0));
        let pod = Filter { pod: Some("none".into()), ..all() };
        assert_eq!(looked_at(&index, pod).await, (0, HELD as usize), "a pod is searched for");
    }

    /// A record that fits has all of them, be its match in a pod, a container or an address.
    #[test]
    fn the_texts_of_a_filter_are_in_the_record_of_every_row_that_fits() {
        let value = AllocationValue {
            node: "node-1".into(),
            network: None,
            container_id: "c0ffee".into(),
            ifname: "eth0".into(),
            addresses: vec!["10.0.0.77".parse().unwrap()],
            namespace: "shop".into(),
            pod: "cart-\"é\"".into(),
            stage: "".into(),
            netns: "/n".into(),
            since: UnixTime::EPOCH,
            started_at: None,
            sequence: Sequence::new(1),
        };
        let record = String::from_utf8(encode(&Value::Allocation(Box::new(value)))).unwrap();
        let search = |text: &str| Filter { search: Some(text.into()), ..Filter::default() };
        for text in ["0.77", "ffee", "hop/ca", "shop/", "/", "cart", "\"é", "-\"", "op"] {
            let filter = search(text);
            let (pod, address) = ("cart-\"é\"", "10.0.0.77".parse().unwrap());
            assert!(filter.finds(address, "c0ffee", "shop", pod), "{text}");
            let texts = filter.texts();
            assert!(texts.iter().all(|text| record.contains(text.as_str())), "{texts:?}: {record}");
        }
        let pod = Filter { pod: Some("cart-9".into()), node: Some("n".into()), ..search("shop/c") };
        assert_eq!(pod.texts(), ["n", "cart-9", "shop", "c"]);
    }

    #[tokio::test]
    async fn filters_go_together() {
        let index = filled_index(HELD);
        let address: IpAddr = "10.0.0.77".parse().unwrap();
        let filter = |node: &str, prefix: &str, address| Filter {
            node: Some(node.into()),
            container_prefix: Some(prefix.into()),
            address,
            ..Filter::default()
        };
        for (filter, found) in [
            (filter("n", "0000004d", Some(address)), 1),
            (filter("m", "0000004d", Some(address)), 0),
            (filter("n", "0000004e", Some(address)), 0),
            (filter("n", "0000004", None), 16),
            (filter("n", "", None), HELD as usize),
        ] {
            assert_eq!(page("n", &index, &filter).await.rows.len(), found, "{filter:?}");
        }
    }
}
