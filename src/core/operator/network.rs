//! Storing the configuration of a network, or deleting it.
//!
//! Unless it is forced, a configuration is refused whose addresses another network has too, and
//! the configuration of a network in use is not deleted. These two are looks, which nothing holds
//! until the write: they keep an operator from a mistake. The write compares the network's key.

use std::sync::Arc;

use super::{Command, Step, first};
use crate::core::address::{AddressRange, Family};
use crate::core::ids::Revision;
use crate::core::keys::{ALLOCATIONS, NETWORKS, network_key};
use crate::core::leaseholder::{BlockSizeError, block_sizes_fit};
use crate::core::range::{Range, Ranges};
use crate::core::time::UnixTime;
use crate::core::txn::{
    Answer, Compare, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Write,
};
use crate::core::value::{Geometry, NetworkValue, Value};
use crate::limits;

/// Reads stored configurations for the core, which knows no JSON.
#[derive(Clone, Copy, Debug)]
pub struct ObjectReader {
    /// Returns the addresses of a configuration; none of one that cannot be read.
    pub ranges: fn(&str) -> Vec<(Family, AddressRange)>,
    /// Returns whether two configurations say the same.
    pub same: fn(&str, &str) -> bool,
}

/// A configuration that is to be stored.
#[derive(Clone, Debug)]
pub struct NetworkObject {
    /// The text that is stored.
    pub text: Arc<str>,
    /// Its range sets.
    pub sets: Vec<Ranges>,
}

/// The revision that a network's key must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Any, or none.
    Any,
    /// This one; none: there must be no key.
    Exactly(Option<Revision>),
}

/// The command to change the configuration of a network.
#[derive(Clone, Debug)]
pub struct ChangeNetworkCommand {
    /// The network.
    pub network: Arc<str>,
    /// Its configuration from now on; none: it is deleted.
    pub object: Option<NetworkObject>,
    /// The revision that the network's key must have.
    pub expected: Expected,
    /// Change it although addresses are another network's too, or the network is in use.
    pub force: bool,
    /// Containers of the node that carries this out hold addresses of the network.
    pub used_here: bool,
}

/// The effect of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkChange {
    /// The network has a configuration now, and had none.
    Created,
    /// It has another one.
    Changed,
    /// It has had just this one.
    Unchanged,
    /// It no longer has one.
    Deleted,
}

/// A network after a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangedNetwork {
    /// The effect.
    pub change: NetworkChange,
    /// The revision of its key; none: it has no key.
    pub revision: Option<Revision>,
}

/// The reason why a network's configuration was not changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangeNetworkError {
    /// Other networks have addresses of these ranges too: a range, and the network.
    Overlaps(Vec<(Range, Arc<str>)>),
    /// Containers hold addresses of the network.
    InUse,
    /// There is no configuration to delete.
    Absent,
    /// The key has another revision than the expected one; none: there is no key.
    Moved(Option<Revision>),
    /// The value of the key cannot be read.
    Unreadable,
    /// The range set with this index does not go with the block sizes on which nodes have agreed.
    BlockSize(usize, BlockSizeError),
    /// Others changed the network between look and transaction at each of
    /// [`limits::CHANGE_TRIES_MAX`] tries.
    Busy,
    /// The store did not answer as it should; if it was asked for the change, that may have been
    /// carried out.
    Store(StoreError),
}

#[derive(Clone, Debug)]
enum NetworkPhase {
    /// The networks are read, page by page.
    Comparing(Span),
    /// The first record of the network is read.
    Using,
    Reading,
    /// The change is being written; if it is done, this is the effect, and the key is gone.
    Writing(NetworkChange, bool),
}

/// The change of a network's configuration: see the module.
#[derive(Clone, Debug)]
pub struct ChangeNetwork {
    command: ChangeNetworkCommand,
    reader: ObjectReader,
    phase: NetworkPhase,
    overlaps: Vec<(Range, Arc<str>)>,
    tries: u32,
    /// The effect of a transaction whose answer was lost.
    lost: Option<NetworkChange>,
}

type End = Result<ChangedNetwork, ChangeNetworkError>;

impl Command for ChangeNetwork {
    type End = End;

    fn start(&mut self, _: UnixTime) -> Step<End> {
        match (&self.command.object, self.command.force) {
            (_, true) => self.read(),
            (Some(_), false) => self.compare(Span::prefix(NETWORKS, limits::KEYS_PER_READ_MAX)),
            (None, false) if self.command.used_here => fail(ChangeNetworkError::InUse),
            (None, false) => {
                self.phase = NetworkPhase::Using;
                let records = format!("{ALLOCATIONS}{}/", self.command.network);
                Step::Ask(Request::Read(vec![Span::prefix(&records, 1)]))
            }
        }
    }

    fn answered(&mut self, answer: Result<Answer, StoreError>) -> Step<End> {
        match (self.phase.clone(), answer) {
            (NetworkPhase::Comparing(span), Ok(Answer::Read(snapshot))) => {
                self.compared(&span, &snapshot)
            }
            (NetworkPhase::Using, Ok(Answer::Read(snapshot))) => match first(&snapshot) {
                Some(_) => fail(ChangeNetworkError::InUse),
                None => self.read(),
            },
            (NetworkPhase::Reading, Ok(Answer::Read(snapshot))) => self.decide(first(&snapshot)),
            (NetworkPhase::Writing(change, gone), Ok(Answer::Txn(TxnOutcome::Done(revision)))) => {
                done(change, (!gone).then_some(revision))
            }
            (NetworkPhase::Writing(..), Ok(Answer::Txn(TxnOutcome::Refused(_)))) => self.read(),
            (NetworkPhase::Writing(change, _), Err(StoreError::Unknown(_))) => {
                self.lost = Some(change);
                self.read()
            }
            (_, Err(StoreError::Failed(why))) if self.lost.is_some() => {
                fail(ChangeNetworkError::Store(StoreError::Unknown(why)))
            }
            (_, Err(error)) => fail(ChangeNetworkError::Store(error)),
            (_, Ok(_)) => fail(ChangeNetworkError::Store(StoreError::OddAnswer)),
        }
    }
}

impl ChangeNetwork {
    /// Prepares a change.
    pub fn new(command: ChangeNetworkCommand, reader: ObjectReader) -> Self {
        let (phase, overlaps, tries, lost) = (NetworkPhase::Reading, vec![], 0, None);
        Self { command, reader, phase, overlaps, tries, lost }
    }

    fn compare(&mut self, span: Span) -> Step<End> {
        self.phase = NetworkPhase::Comparing(span.clone());
        Step::Ask(Request::Read(vec![span]))
    }

    /// Each network has a pool of its own, so a shared address would be handed out in both.
    fn compared(&mut self, span: &Span, snapshot: &Snapshot) -> Step<End> {
        let page = snapshot.spans.first().map_or(&[][..], Vec::as_slice);
        for key in page {
            let Some(other) = key.key.strip_prefix(NETWORKS) else { continue };
            let Value::Network(value) = &key.value else { continue };
            if *other != *self.command.network
                && let Some(range) = self.shared(value)
            {
                self.overlaps.push((range, other.into()));
            }
        }
        match span.rest(page) {
            Some(rest) => self.compare(rest),
            None if self.overlaps.is_empty() => self.read(),
            None => fail(ChangeNetworkError::Overlaps(std::mem::take(&mut self.overlaps))),
        }
    }

    /// Returns a range of the new configuration that another network has an address of.
    fn shared(&self, other: &NetworkValue) -> Option<Range> {
        let mut others = other.ipam.as_deref().map(self.reader.ranges).unwrap_or_default();
        if others.is_empty() {
            // Without a configuration, what nodes have agreed on is all that is known.
            let of = |geometry: &Geometry| {
                let family = geometry.family;
                geometry.ranges.iter().map(move |&range| (family, range)).collect::<Vec<_>>()
            };
            others = other.geometry.iter().flat_map(of).collect();
        }
        let mut ranges = self
            .command
            .object
            .iter()
            .flat_map(|object| object.sets.iter())
            .flat_map(|set| set.iter());
        let meets = |range: &&Range| {
            others
                .iter()
                .any(|&(family, other)| family == range.family() && other.meets(range.addresses()))
        };
        ranges.find(meets).cloned()
    }

    fn read(&mut self) -> Step<End> {
        if self.tries == limits::CHANGE_TRIES_MAX {
            return fail(ChangeNetworkError::Busy);
        }
        self.tries += 1;
        self.phase = NetworkPhase::Reading;
        Step::Ask(Request::Read(vec![Span::key(&network_key(&self.command.network))]))
    }

    fn decide(&mut self, key: Option<&KeyValue>) -> Step<End> {
        let revision = key.map(|key| key.mod_revision);
        let known = match key.map(|key| &key.value) {
            None => NetworkValue::default(),
            Some(Value::Network(known)) => known.clone(),
            Some(_) => return fail(ChangeNetworkError::Unreadable),
        };
        let object = self.command.object.as_ref();
        let change = match (object, known.ipam.as_deref()) {
            (Some(object), Some(before)) if (self.reader.same)(&object.text, before) => {
                NetworkChange::Unchanged
            }
            (Some(_), Some(_)) => NetworkChange::Changed,
            (Some(_), None) => NetworkChange::Created,
            (None, Some(_)) => NetworkChange::Deleted,
            (None, None) => {
                return match self.lost {
                    Some(change) => done(change, revision),
                    None => fail(ChangeNetworkError::Absent),
                };
            }
        };
        if change == NetworkChange::Unchanged
            && let Some(lost) = self.lost
        {
            return done(lost, revision);
        }
        if let Expected::Exactly(expected) = self.command.expected
            && expected != revision
        {
            return fail(ChangeNetworkError::Moved(revision));
        }
        if change == NetworkChange::Unchanged {
            return done(change, revision);
        }
        let fits = object.map_or(Ok(()), |object| block_sizes_fit(&known, &object.sets));
        if let Err((index, error)) = fits {
            return fail(ChangeNetworkError::BlockSize(index, error));
        }
        // The block sizes stay: blocks are cut by them.
        let value = NetworkValue { ipam: object.map(|object| object.text.clone()), ..known };
        self.write(change, revision, value)
    }

    fn write(
        &mut self,
        change: NetworkChange,
        revision: Option<Revision>,
        value: NetworkValue,
    ) -> Step<End> {
        let key = network_key(&self.command.network);
        let gone = value == NetworkValue::default();
        let when = vec![Compare::unchanged(key.clone(), revision)];
        let then = vec![match gone {
            true => Write::Delete(key),
            false => Write::Put(key, Value::Network(value), None),
        }];
        self.phase = NetworkPhase::Writing(change, gone);
        Step::Ask(Request::Txn(Txn { when, then }))
    }
}

fn fail(error: ChangeNetworkError) -> Step<End> {
    Step::Done(Err(error))
}

fn done(change: NetworkChange, revision: Option<Revision>) -> Step<End> {
    Step::Done(Ok(ChangedNetwork { change, revision }))
}
