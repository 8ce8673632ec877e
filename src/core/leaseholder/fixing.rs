//! Agreement of all nodes on the block size of a range set: fixed by the first that uses it.

use super::{Effect, FixError, Leaseholder, OrderId, Pending};
use crate::core::Millis;
use crate::core::address::Run;
use crate::core::interval::Intervals;
use crate::core::keys::{Space, network_key};
use crate::core::range::Ranges;
use crate::core::txn::{
    Answer, Compare, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Write,
};
use crate::core::value::{Geometry, NetworkValue, Value};
use crate::limits;

/// An agreement being made.
#[derive(Debug)]
pub(super) struct Fix {
    space: Space,
    ranges: Vec<(u128, u128)>,
    block_log2: u8,
    explicit: bool,
    tries: u32,
    /// What is being written.
    attempt: Option<NetworkValue>,
}

impl Fix {
    pub(super) fn new(
        space: Space,
        ranges: Vec<(u128, u128)>,
        block_log2: u8,
        explicit: bool,
    ) -> Self {
        Self { space, ranges, block_log2, explicit, tries: 0, attempt: None }
    }
}

/// Intervals rounded to whole blocks.
fn rounded(ranges: &[(u128, u128)], block_log2: u8) -> Intervals {
    let mut whole = Intervals::default();
    for &(first, last) in ranges {
        whole.insert(Run::around(first, block_log2).start, Run::around(last, block_log2).end());
    }
    whole
}

/// What nodes agreed on before, with these ranges in it, and the block size of these ranges.
fn agree(known: &NetworkValue, fix: &Fix) -> Result<(NetworkValue, u8), FixError> {
    let mut agreed = Geometry {
        family: fix.space.family,
        block_log2: fix.block_log2,
        ranges: fix.ranges.clone(),
    };
    let mut fixed = None;
    let mut rest = known.geometry.clone();
    loop {
        let ours = rounded(&agreed.ranges, agreed.block_log2);
        let touches = |other: &Geometry| {
            other.family == agreed.family
                && rounded(&other.ranges, other.block_log2)
                    .iter()
                    .any(|(first, last)| ours.overlaps(first, last))
        };
        let Some(at) = rest.iter().position(touches) else { break };
        let other = rest.swap_remove(at);
        let size = *fixed.get_or_insert(other.block_log2);
        if size != other.block_log2 || (fix.explicit && size != fix.block_log2) {
            let configured = if fix.explicit { fix.block_log2 } else { size };
            return Err(FixError::Size { fixed: other.block_log2, configured });
        }
        agreed.block_log2 = size;
        let mut ranges = Intervals::default();
        for (first, last) in agreed.ranges.into_iter().chain(other.ranges) {
            ranges.insert(first, last);
        }
        agreed.ranges = ranges.iter().collect();
    }
    let block_log2 = agreed.block_log2;
    rest.push(agreed);
    rest.sort_unstable_by(|a, b| (a.family, &a.ranges).cmp(&(b.family, &b.ranges)));
    Ok((NetworkValue { ipam: known.ipam.clone(), geometry: rest }, block_log2))
}

/// Whether these range sets of a network go with the block sizes on which its nodes have agreed.
///
/// # Errors
/// The index of the first one that does not, and [`FixError::Size`].
pub fn block_sizes_fit(known: &NetworkValue, sets: &[Ranges]) -> Result<(), (usize, FixError)> {
    let mut known = known.clone();
    for (i, set) in sets.iter().enumerate() {
        let space = Space { network: "".into(), family: set.family() };
        let ranges = set.iter().map(|range| (range.start, range.end)).collect();
        let fix = Fix::new(space, ranges, set.usual_block_log2(), set.block_log2.is_some());
        known = agree(&known, &fix).map_err(|error| (i, error))?.0;
    }
    Ok(())
}

impl Leaseholder {
    pub(super) fn fix(&mut self, now: Millis, id: OrderId, fix: Fix) {
        if let Some(cause) = self.unable() {
            return self.effects.push_back(Effect::Fixed(id, Err(FixError::Failed(cause))));
        }
        self.watch_inbox(&fix.space.network);
        self.read_network(now, id, &fix);
        self.fixes.insert(id, fix);
    }

    fn read_network(&mut self, now: Millis, id: OrderId, fix: &Fix) {
        let span = Span::key(&network_key(&fix.space.network));
        self.request(now, Pending::Fix(id), Request::Read(vec![span]));
    }

    pub(super) fn fix_answered(
        &mut self,
        now: Millis,
        id: OrderId,
        answer: Result<Answer, StoreError>,
    ) {
        let Some(mut fix) = self.fixes.remove(&id) else { return };
        let result = match answer {
            Ok(Answer::Read(snapshot)) => self.agree(now, id, &mut fix, &snapshot),
            Ok(Answer::Txn(TxnOutcome::Done(revision))) => {
                let network = fix.attempt.take().unwrap_or_default();
                self.networks.insert(fix.space.network.clone(), (revision, network.clone()));
                agree(&network, &fix).map(|(_, block_log2)| Some(block_log2))
            }
            Err(StoreError::Failed(cause)) => Err(FixError::Failed(cause)),
            // Whatever came of it is read again: a late one is refused, since it compares.
            _ if fix.tries < limits::FIX_TRIES_MAX => {
                fix.tries += 1;
                self.read_network(now, id, &fix);
                Ok(None)
            }
            _ => Err(FixError::Failed("the network's key in the store keeps changing".into())),
        };
        match result {
            Ok(Some(block_log2)) => self.effects.push_back(Effect::Fixed(id, Ok(block_log2))),
            Ok(None) => drop(self.fixes.insert(id, fix)),
            Err(error) => self.effects.push_back(Effect::Fixed(id, Err(error))),
        }
    }

    fn agree(
        &mut self,
        now: Millis,
        id: OrderId,
        fix: &mut Fix,
        snapshot: &Snapshot,
    ) -> Result<Option<u8>, FixError> {
        let key = snapshot.spans.first().and_then(|keys| keys.first());
        let revision = key.map_or(0, |key| key.mod_revision);
        let known = match key.map(|key| &key.value) {
            None => NetworkValue::default(),
            Some(Value::Network(network)) => network.clone(),
            Some(_) => {
                let key = network_key(&fix.space.network);
                let cause = format!("the value of {key} in the store cannot be read");
                return Err(FixError::Failed(cause.into()));
            }
        };
        let (agreed, block_log2) = agree(&known, fix)?;
        if agreed == known {
            self.networks.insert(fix.space.network.clone(), (revision, known));
            return Ok(Some(block_log2));
        }
        let key = network_key(&fix.space.network);
        let when = vec![Compare::ModRevision(key.clone(), revision)];
        let then = vec![Write::Put(key, Value::Network(agreed.clone()), None)];
        fix.attempt = Some(agreed);
        self.request(now, Pending::Fix(id), Request::Txn(Txn { when, then }));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Family;

    fn fix(ranges: &[(u128, u128)], block_log2: u8, explicit: bool) -> Fix {
        let space = Space { network: "net".into(), family: Family::V4 };
        Fix::new(space, ranges.to_vec(), block_log2, explicit)
    }

    #[test]
    fn the_first_use_fixes_the_size_and_what_touches_it_follows() {
        let none = NetworkValue::default();
        let (known, size) = agree(&none, &fix(&[(1, 254)], 2, false)).unwrap();
        assert_eq!(size, 2);
        // The same again changes nothing; another part of it has the same size.
        assert_eq!(agree(&known, &fix(&[(1, 254)], 2, false)).unwrap(), (known.clone(), 2));
        let (wider, size) = agree(&known, &fix(&[(100, 600)], 4, false)).unwrap();
        assert_eq!((size, &wider.geometry[0].ranges[..]), (2, &[(1, 600)][..]));
        let refused = agree(&known, &fix(&[(100, 600)], 4, true));
        assert_eq!(refused, Err(FixError::Size { fixed: 2, configured: 4 }));
        // What does not touch it has its own; what touches both is refused.
        let (both, size) = agree(&known, &fix(&[(1000, 9000)], 6, false)).unwrap();
        assert_eq!((size, both.geometry.len()), (6, 2));
        assert!(agree(&both, &fix(&[(200, 2000)], 5, false)).is_err());
        // Touching begins at the edge of whole blocks.
        assert_eq!(agree(&both, &fix(&[(256, 300)], 3, false)).unwrap().1, 3);
        assert_eq!(agree(&both, &fix(&[(255, 300)], 3, false)).unwrap().1, 2);
    }
}
