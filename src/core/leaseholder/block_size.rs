//! Agreement of all nodes on the block size of a range set: fixed by the first that uses it.

use super::{BlockSizeError, Effect, Leaseholder, Pending};
use crate::core::address::{AddressRange, BlockSize};
use crate::core::cause::Cause;
use crate::core::ids::OrderId;
use crate::core::interval::Intervals;
use crate::core::keys::{PoolFamily, network_key};
use crate::core::range::{Range, Ranges};
use crate::core::time::BootTime;
use crate::core::txn::{
    Answer, Compare, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Write,
};
use crate::core::value::{Geometry, NetworkValue, Value};
use crate::limits;

/// An agreement being made.
#[derive(Debug)]
pub(super) struct AgreeBlockSize {
    pool: PoolFamily,
    ranges: Vec<AddressRange>,
    block_size: BlockSize,
    explicit: bool,
    tries: u32,
    /// The value that is being written.
    attempt: Option<NetworkValue>,
}

impl AgreeBlockSize {
    pub(super) fn new(
        pool: PoolFamily,
        ranges: Vec<AddressRange>,
        block_size: BlockSize,
        explicit: bool,
    ) -> Self {
        Self { pool, ranges, block_size, explicit, tries: 0, attempt: None }
    }
}

/// The ranges with all of each block that they have a part of.
fn rounded(ranges: &[AddressRange], block_size: BlockSize) -> Intervals {
    let mut whole = Intervals::default();
    ranges.iter().for_each(|range| whole.insert(range.whole_blocks(block_size)));
    whole
}

/// Adds these ranges to what nodes agreed on before, and returns the result and the block size of
/// these ranges.
fn agree(
    known: &NetworkValue,
    agreement: &AgreeBlockSize,
) -> Result<(NetworkValue, BlockSize), BlockSizeError> {
    let mut agreed = Geometry {
        family: agreement.pool.family,
        block_size: agreement.block_size,
        ranges: agreement.ranges.clone(),
    };
    let mut size_before = None;
    let mut rest = known.geometry.clone();
    loop {
        let ours = rounded(&agreed.ranges, agreed.block_size);
        let touches = |other: &Geometry| {
            other.family == agreed.family
                && rounded(&other.ranges, other.block_size).iter().any(|range| ours.overlaps(range))
        };
        let Some(at) = rest.iter().position(touches) else { break };
        let other = rest.swap_remove(at);
        let size = *size_before.get_or_insert(other.block_size);
        if size != other.block_size || (agreement.explicit && size != agreement.block_size) {
            let configured = if agreement.explicit { agreement.block_size } else { size };
            return Err(BlockSizeError::Size { agreed: other.block_size, configured });
        }
        agreed.block_size = size;
        let mut ranges = Intervals::default();
        for range in agreed.ranges.into_iter().chain(other.ranges) {
            ranges.insert(range);
        }
        agreed.ranges = ranges.iter().collect();
    }
    let block_size = agreed.block_size;
    rest.push(agreed);
    rest.sort_unstable_by(|a, b| (a.family, &a.ranges).cmp(&(b.family, &b.ranges)));
    Ok((NetworkValue { ipam: known.ipam.clone(), geometry: rest }, block_size))
}

/// Returns whether these range sets of a network go with the block sizes on which its nodes have
/// agreed.
///
/// # Errors
/// The index of the first one that does not, and [`BlockSizeError::Size`].
pub fn block_sizes_fit(
    known: &NetworkValue,
    sets: &[Ranges],
) -> Result<(), (usize, BlockSizeError)> {
    let mut known = known.clone();
    for (i, set) in sets.iter().enumerate() {
        let pool = PoolFamily { network: "".into(), family: set.family() };
        let ranges = set.iter().map(Range::addresses).collect();
        let agreement =
            AgreeBlockSize::new(pool, ranges, set.usual_block_size(), set.block_size.is_some());
        known = agree(&known, &agreement).map_err(|error| (i, error))?.0;
    }
    Ok(())
}

impl Leaseholder {
    pub(super) fn agree_block_size(
        &mut self,
        now: BootTime,
        id: OrderId,
        agreement: AgreeBlockSize,
    ) {
        if let Some(cause) = self.unable() {
            return self
                .effects
                .push_back(Effect::BlockSizeAgreed(id, Err(BlockSizeError::Failed(cause))));
        }
        self.watch_inbox(&agreement.pool.network);
        self.read_network(now, id, &agreement);
        self.agreements.insert(id, agreement);
    }

    fn read_network(&mut self, now: BootTime, id: OrderId, agreement: &AgreeBlockSize) {
        let span = Span::key(&network_key(&agreement.pool.network));
        self.request(now, Pending::AgreeBlockSize(id), Request::Read(vec![span]));
    }

    pub(super) fn agreement_answered(
        &mut self,
        now: BootTime,
        id: OrderId,
        answer: Result<Answer, StoreError>,
    ) {
        let Some(mut agreement) = self.agreements.remove(&id) else { return };
        let result = match answer {
            Ok(Answer::Read(snapshot)) => self.agree(now, id, &mut agreement, &snapshot),
            Ok(Answer::Txn(TxnOutcome::Done(revision))) => {
                let network = agreement.attempt.take().unwrap_or_default();
                self.networks
                    .insert(agreement.pool.network.clone(), (Some(revision), network.clone()));
                agree(&network, &agreement).map(|(_, block_size)| Some(block_size))
            }
            Err(error @ StoreError::Failed(_)) => Err(BlockSizeError::Failed(Cause::Store(error))),
            // The result is unknown, so the value is read again; a late write is refused, since it
            // compares.
            _ if agreement.tries < limits::FIX_TRIES_MAX => {
                agreement.tries += 1;
                self.read_network(now, id, &agreement);
                Ok(None)
            }
            _ => Err(BlockSizeError::Failed(Cause::NetworkChanging)),
        };
        match result {
            Ok(Some(block_size)) => {
                self.effects.push_back(Effect::BlockSizeAgreed(id, Ok(block_size)));
            }
            Ok(None) => drop(self.agreements.insert(id, agreement)),
            Err(error) => self.effects.push_back(Effect::BlockSizeAgreed(id, Err(error))),
        }
    }

    fn agree(
        &mut self,
        now: BootTime,
        id: OrderId,
        agreement: &mut AgreeBlockSize,
        snapshot: &Snapshot,
    ) -> Result<Option<BlockSize>, BlockSizeError> {
        let key = snapshot.spans.first().and_then(|keys| keys.first());
        let revision = key.map(|key| key.mod_revision);
        let known = match key.map(|key| &key.value) {
            None => NetworkValue::default(),
            Some(Value::Network(network)) => network.clone(),
            Some(_) => {
                let key = network_key(&agreement.pool.network);
                return Err(BlockSizeError::Failed(Cause::UnreadableValue(key.into())));
            }
        };
        let (agreed, block_size) = agree(&known, agreement)?;
        if agreed == known {
            self.networks.insert(agreement.pool.network.clone(), (revision, known));
            return Ok(Some(block_size));
        }
        let key = network_key(&agreement.pool.network);
        let when = vec![Compare::unchanged(key.clone(), revision)];
        let then = vec![Write::Put(key, Value::Network(agreed.clone()), None)];
        agreement.attempt = Some(agreed);
        self.request(now, Pending::AgreeBlockSize(id), Request::Txn(Txn { when, then }));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::{Address, Family};

    fn range(first: u128, last: u128) -> AddressRange {
        AddressRange::between(Address::new(first), Address::new(last))
    }

    fn agreement((first, last): (u128, u128), log2: u8, explicit: bool) -> AgreeBlockSize {
        let pool = PoolFamily { network: "net".into(), family: Family::V4 };
        let size = BlockSize::of_log2(log2);
        AgreeBlockSize::new(pool, vec![range(first, last)], size, explicit)
    }

    #[test]
    fn the_first_use_fixes_the_size_and_what_touches_it_follows() {
        let none = NetworkValue::default();
        let of = BlockSize::of_log2;
        let (known, size) = agree(&none, &agreement((1, 254), 2, false)).unwrap();
        assert_eq!(size, of(2));
        // The same again changes nothing; another part of it has the same size.
        assert_eq!(agree(&known, &agreement((1, 254), 2, false)).unwrap(), (known.clone(), of(2)));
        let (wider, size) = agree(&known, &agreement((100, 600), 4, false)).unwrap();
        assert_eq!((size, &wider.geometry[0].ranges[..]), (of(2), &[range(1, 600)][..]));
        let refused = agree(&known, &agreement((100, 600), 4, true));
        assert_eq!(refused, Err(BlockSizeError::Size { agreed: of(2), configured: of(4) }));
        // Ranges that touch no known range set agree on a size of their own; ranges that touch two
        // of them are refused.
        let (both, size) = agree(&known, &agreement((1000, 9000), 6, false)).unwrap();
        assert_eq!((size, both.geometry.len()), (of(6), 2));
        assert!(agree(&both, &agreement((200, 2000), 5, false)).is_err());
        // Touching begins at the edge of whole blocks.
        assert_eq!(agree(&both, &agreement((256, 300), 3, false)).unwrap().1, of(3));
        assert_eq!(agree(&both, &agreement((255, 300), 3, false)).unwrap().1, of(2));
    }
}
