//! Finds what an older `my-ipam` holds in the same etcd. It had no daemon, and wrote each address
//! into etcd by itself: `PREFIX/endpoints/SERVICE/ADDRESS`, with the value `HOST:CONTAINER:POD`.
//! Its containers go on, on all nodes, and Leasehold would hand their addresses out again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::cause::{NOT_IMPORTED, STORE};
use super::foreign::Asking;
use super::{AppState, EMBEDDED};
use crate::cni::error::{Code, Error};
use crate::core::attachment::AttachmentId;
use crate::core::keys::{ALLOCATIONS, allocation_address};
use crate::core::time::BootTime;
use crate::core::txn::{Answer, Request, Span, StoreError};
use crate::{clock, files, limits};

/// The places below which it had its keys.
const PLACES: [&str; 2] = ["/ipam-etcd-cni/endpoints/", "/neutron/endpoints/"];

/// The part of a key before the service.
const ENDPOINTS: &str = "/endpoints/";

/// An address that it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The service of its pod.
    pub service: String,
    /// The address.
    pub address: IpAddr,
    /// The host of its container.
    pub host: String,
    /// The container.
    pub container: String,
    /// The pod.
    pub pod: String,
}

/// Reads a key: the service and the address.
pub fn read_key(key: &str) -> Option<(&str, IpAddr)> {
    let (service, address) = key.split_once(ENDPOINTS)?.1.rsplit_once('/')?;
    Some((service, address.parse().ok()?))
}

/// Reads a value: host, container and pod.
fn read_value(value: &str) -> Option<[&str; 3]> {
    let mut parts = value.splitn(3, ':').filter(|part| !part.is_empty());
    Some([parts.next()?, parts.next()?, parts.next()?])
}

impl Endpoint {
    /// Reads a key and its value, if they are those of an address.
    pub fn read(key: &str, value: &str) -> Option<Self> {
        let (service, address) = read_key(key)?;
        let [host, container, pod] = read_value(value)?.map(str::to_owned);
        Some(Self { service: service.to_owned(), address, host, container, pod })
    }
}

/// The result of a look: what is there; none, if this user of etcd may not see it.
type Seen = Result<Option<Arc<[Endpoint]>>, StoreError>;

/// The networks for which nothing was left to be taken over. They are remembered in the state
/// directory: keys that nobody deletes afterwards must not count years later.
#[derive(Clone, Debug)]
pub struct Older {
    file: PathBuf,
    admitted: Arc<Mutex<BTreeSet<Arc<str>>>>,
    /// The last look, and its end. Calls that came before the end share it.
    last: Arc<tokio::sync::Mutex<Option<(BootTime, Seen)>>>,
}

impl Older {
    /// Reads which networks are admitted, if the file is there.
    pub fn open(file: PathBuf) -> Self {
        let text = files::read(&file, limits::ADMITTED_FILE_BYTES_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let admitted: BTreeSet<Arc<str>> = text.lines().map(Arc::from).collect();
        Self { file, admitted: Arc::new(Mutex::new(admitted)), last: Arc::default() }
    }

    /// Admits an ADD on a network if the older plugin holds none of its addresses that is not
    /// taken over, on any node, or if the ADD takes over just that.
    ///
    /// # Errors
    /// The ADD must wait until the addresses are taken over, or can be looked for: the cause, as
    /// metrics have it, and an error that names the command.
    pub async fn admit(
        &self,
        node: &AppState,
        add: &Asking<'_>,
    ) -> Result<(), (&'static str, Error)> {
        if node.about.store == EMBEDDED || self.is_admitted(add.pool) {
            return Ok(());
        }
        let waiting = match self.inspect(node).await {
            Ok(Some(all)) => not_taken_over(node, add, &all).await,
            Ok(None) => {
                tracing::warn!(
                    network = &**add.pool,
                    "etcd's user may not see whether a my-ipam without a daemon holds addresses in \
                     {PLACES:?}: if one does, import them first (leasehold import etcd-cni)"
                );
                self.admit_from_now_on(add.pool);
                return Ok(());
            }
            Err(error) => Err(error),
        };
        let waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => {
                let admitted = unseen(node, add.pool, &error).await;
                return admitted.map_err(|error| (STORE, error));
            }
        };
        let Some(first) = waiting.first() else {
            self.admit_from_now_on(add.pool);
            self.save().await;
            return Ok(());
        };
        let is_own = |at: &Endpoint| {
            add.id.container_id == at.container.as_str().into()
                && add.requested.contains(&at.address)
        };
        if waiting.iter().any(is_own) {
            return Ok(());
        }
        let Endpoint { address, container, host, .. } = first;
        let msg = format!(
            "a my-ipam without a daemon holds {} addresses of network {} in etcd, such as \
             {address} for container {container} on {host}, and they would be handed out again",
            waiting.len(),
            add.pool
        );
        let error = Error::new(Code::TryAgain, msg).with_details(
            "take them over on each of their hosts: leasehold import etcd-cni; delete the keys of \
             containers that are gone (etcdctl del)",
        );
        Err((NOT_IMPORTED, error))
    }

    fn is_admitted(&self, pool: &Arc<str>) -> bool {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).contains(pool)
    }

    fn admit_from_now_on(&self, pool: &Arc<str>) {
        let mut all = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < limits::WARNED_NETWORKS_MAX {
            all.insert(pool.clone());
        }
    }

    async fn save(&self) {
        let lines = |all: &BTreeSet<Arc<str>>| -> String {
            all.iter().map(|network| format!("{network}\n")).collect()
        };
        let text = lines(&self.admitted.lock().unwrap_or_else(PoisonError::into_inner));
        files::remember(&self.file, text.into_bytes()).await;
    }

    /// Reads the addresses that the older plugin holds.
    async fn inspect(&self, node: &AppState) -> Seen {
        let came = clock::boot();
        let mut last = self.last.lock().await;
        if let Some((ended, seen)) = last.as_ref()
            && *ended >= came
        {
            return seen.clone();
        }
        let seen = read(node).await;
        *last = Some((clock::boot(), seen.clone()));
        seen
    }
}

async fn read(node: &AppState) -> Seen {
    let mut all = Vec::new();
    for place in PLACES {
        match node.store.foreign(place).await? {
            Some(keys) => {
                all.extend(keys.iter().filter_map(|(key, value)| Endpoint::read(key, value)));
            }
            None => return Ok(None),
        }
    }
    Ok(Some(all.into()))
}

/// The addresses in the ranges of an ADD that neither this node nor, by the records, any other
/// holds for the container.
async fn not_taken_over(
    node: &AppState,
    add: &Asking<'_>,
    all: &[Endpoint],
) -> Result<Vec<Endpoint>, StoreError> {
    let is_held = |at: &Endpoint| {
        let id = AttachmentId { container_id: at.container.as_str().into(), ..add.id.clone() };
        node.index.find(&id).is_some_and(|holding| holding.addresses.contains(&at.address))
    };
    let inside = |at: &Endpoint| add.sets.iter().any(|set| set.find_address(at.address).is_some());
    let mut waiting: Vec<Endpoint> =
        all.iter().filter(|at| inside(at) && !is_held(at)).cloned().collect();
    if !waiting.is_empty() {
        let recorded = recorded(node, add.pool).await?;
        waiting.retain(|at| !recorded.contains(&at.address));
    }
    Ok(waiting)
}

/// The addresses of a pool that have records.
pub(super) async fn recorded(node: &AppState, pool: &str) -> Result<BTreeSet<IpAddr>, StoreError> {
    let mut all = BTreeSet::new();
    let of_pool = format!("{ALLOCATIONS}{pool}/");
    let mut next = Some(Span::prefix(&of_pool, limits::KEYS_PER_READ_MAX));
    while let Some(span) = next {
        let Answer::Read(page) = node.store.ask(Request::Read(vec![span.clone()])).await? else {
            return Err(StoreError::OddAnswer);
        };
        let page: Vec<_> = page.spans.into_iter().flatten().collect();
        all.extend(page.iter().filter_map(|key| allocation_address(&key.key)));
        next = span.rest(&page);
    }
    Ok(all)
}

/// Decides on an ADD while etcd does not answer: a network that this node uses already has been
/// looked after.
async fn unseen(node: &AppState, pool: &Arc<str>, cause: &StoreError) -> Result<(), Error> {
    if node.machines.describe_sets().await.iter().any(|set| set.identity.network == *pool) {
        return Ok(());
    }
    let msg = format!(
        "cannot see whether a my-ipam without a daemon holds addresses of network {pool}: {cause}"
    );
    Err(Error::new(Code::TryAgain, msg)
        .with_details("see whether etcd can be reached: leasehold status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_its_value_is_an_address() {
        let found = Endpoint::read("/neutron/endpoints/pay/10.0.0.4", "h:c:pay-1-online-5:x");
        let expected = Endpoint {
            service: "pay".to_owned(),
            address: "10.0.0.4".parse().unwrap(),
            host: "h".to_owned(),
            container: "c".to_owned(),
            pod: "pay-1-online-5:x".to_owned(),
        };
        assert_eq!(found, Some(expected));
        for (key, value) in [
            ("/neutron/lock/pay", "h:c:p"),
            ("/neutron/endpoints/pay/10.0.0.300", "h:c:p"),
            ("/neutron/endpoints/10.0.0.4", "h:c:p"),
            ("/neutron/endpoints/pay/10.0.0.4", "h::p"),
            ("/neutron/endpoints/pay/10.0.0.4", "h:c"),
        ] {
            assert_eq!(Endpoint::read(key, value), None, "{key} {value}");
        }
    }

    #[tokio::test]
    async fn what_is_admitted_is_so_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("admitted");
        let older = Older::open(file.clone());
        let pods: Arc<str> = "pods".into();
        assert!(!older.is_admitted(&pods));
        older.admit_from_now_on(&pods);
        older.save().await;
        let again = Older::open(file);
        assert!(again.is_admitted(&pods) && !again.is_admitted(&"other".into()));
    }
}
