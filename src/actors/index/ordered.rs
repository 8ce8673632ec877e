//! The holdings in order: by pool and address, as lists have them, and by container.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;
use std::sync::Arc;

use super::HeldAddress;
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::by_attachment::{ByAttachment, Key};
use crate::core::container_id::ContainerId;
use crate::limits;

/// The holdings.
#[derive(Default, Debug)]
pub(super) struct Ordered {
    pools: BTreeMap<Arc<str>, Pool>,
    containers: BTreeSet<ByAttachment>,
}

/// The holdings of a pool, by address. The two families have tables of their own, since an IPv4
/// address takes a quarter of the room.
#[derive(Default, Debug)]
struct Pool {
    v4: BTreeMap<Ipv4Addr, Arc<Holding>>,
    v6: BTreeMap<Ipv6Addr, Arc<Holding>>,
}

impl Pool {
    fn get(&self, address: IpAddr) -> Option<&Arc<Holding>> {
        match address {
            IpAddr::V4(address) => self.v4.get(&address),
            IpAddr::V6(address) => self.v6.get(&address),
        }
    }

    fn insert(&mut self, address: IpAddr, holding: Arc<Holding>) {
        match address {
            IpAddr::V4(address) => self.v4.insert(address, holding),
            IpAddr::V6(address) => self.v6.insert(address, holding),
        };
    }

    fn remove(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4.remove(&address),
            IpAddr::V6(address) => self.v6.remove(&address),
        };
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The addresses behind this one, in order.
    fn after(&self, after: Option<IpAddr>) -> impl Iterator<Item = HeldAddress> {
        use Bound::{Excluded, Unbounded};
        let (v4, v6) = match after {
            None => (Some(Unbounded), Unbounded),
            Some(IpAddr::V4(address)) => (Some(Excluded(address)), Unbounded),
            Some(IpAddr::V6(address)) => (None, Excluded(address)),
        };
        let v4 = v4.into_iter().flat_map(|from| self.v4.range((from, Unbounded)));
        let v6 = self.v6.range((v6, Unbounded));
        let v4 = v4.map(|(address, holding)| (IpAddr::V4(*address), holding.clone()));
        v4.chain(v6.map(|(address, holding)| (IpAddr::V6(*address), holding.clone())))
    }
}

/// All at once, which takes a fraction of the time, and of the memory, that one by one does. No two
/// holdings are of one attachment.
impl FromIterator<Arc<Holding>> for Ordered {
    fn from_iter<I: IntoIterator<Item = Arc<Holding>>>(holdings: I) -> Self {
        let mut pools: BTreeMap<Arc<str>, (Vec<_>, Vec<_>)> = BTreeMap::new();
        let mut containers = Vec::new();
        for holding in holdings {
            let (v4, v6) = pools.entry(holding.scope.pool.clone()).or_default();
            for address in holding.addresses.iter() {
                match *address {
                    IpAddr::V4(address) => v4.push((address, holding.clone())),
                    IpAddr::V6(address) => v6.push((address, holding.clone())),
                }
            }
            containers.push(ByAttachment(holding));
        }
        let pool = |(v4, v6): (Vec<_>, Vec<_>)| Pool {
            v4: v4.into_iter().collect(),
            v6: v6.into_iter().collect(),
        };
        Self {
            pools: pools.into_iter().map(|(name, of)| (name, pool(of))).collect(),
            containers: containers.into_iter().collect(),
        }
    }
}

impl Ordered {
    /// Adds a holding, in the place of an older one of its attachment.
    pub(super) fn insert(&mut self, holding: Arc<Holding>) {
        if let Some(before) = self.containers.replace(ByAttachment(holding.clone())) {
            self.remove_addresses(&before.0);
        }
        let name = &holding.scope.pool;
        if !self.pools.contains_key(name) {
            self.pools.insert(name.clone(), Pool::default());
        }
        if let Some(pool) = self.pools.get_mut(name) {
            holding.addresses.iter().for_each(|&address| pool.insert(address, holding.clone()));
        }
    }

    pub(super) fn remove(&mut self, holding: &Arc<Holding>) {
        if let Some(before) = self.containers.take(&ByAttachment(holding.clone())) {
            self.remove_addresses(&before.0);
        }
    }

    fn remove_addresses(&mut self, holding: &Arc<Holding>) {
        let name = &holding.scope.pool;
        let Some(pool) = self.pools.get_mut(name) else { return };
        for &address in holding.addresses.iter() {
            if pool.get(address).is_some_and(|there| Arc::ptr_eq(there, holding)) {
                pool.remove(address);
            }
        }
        if pool.is_empty() {
            self.pools.remove(name);
        }
    }

    pub(super) fn find(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        self.containers.get(id as &dyn Key).map(|found| found.0.clone())
    }

    /// Returns so many addresses at most, of one pool or of all.
    pub(super) fn piece(
        &self,
        pool: Option<&str>,
        after: Option<(&str, IpAddr)>,
        most: usize,
    ) -> Vec<HeldAddress> {
        let first = pool.max(after.map(|(pool, _)| pool)).unwrap_or_default();
        let pools = self.pools.range::<str, _>((Bound::Included(first), Bound::Unbounded));
        let wanted = pools.take_while(|(name, _)| pool.is_none_or(|pool| pool == &***name));
        let places = wanted.flat_map(|(name, pool)| {
            pool.after(after.filter(|(of, _)| *of == &**name).map(|(_, address)| address))
        });
        places.take(most).collect()
    }

    pub(super) fn of_address(&self, address: IpAddr) -> Vec<Arc<Holding>> {
        self.pools.values().filter_map(|pool| pool.get(address)).cloned().collect()
    }

    /// Returns so many holdings at most behind this one, up to a container.
    pub(super) fn containers(
        &self,
        after: &AttachmentId,
        end: Option<&ContainerId>,
    ) -> Vec<Arc<Holding>> {
        let from = Bound::Excluded(after as &dyn Key);
        let behind = self.containers.range::<dyn Key, _>((from, Bound::Unbounded));
        let wanted = behind.take_while(|held| end.is_none_or(|end| held.0.container_id < *end));
        wanted.take(limits::HOLDINGS_PER_LOCK_MAX).map(|held| held.0.clone()).collect()
    }
}
