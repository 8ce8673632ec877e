//! The judge reads what clients saw, and says which promise is broken. It knows nothing of daemons.
//!
//! An address is in a container's hand from the answer of its ADD to the call of its DEL. A call
//! without an answer may have been carried out or not, so both are right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::history::{Addresses, By, Container, Event, NodeAt, What};

/// A failure of the journal: whether the call counts is known after a restart.
const IO: u64 = 5;
/// The same call may succeed later.
const TRY_AGAIN: u64 = 11;

/// A promise that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Two containers have one address in hand.
    Twice,
    /// An answered ADD is undone.
    Lost,
    /// An answered DEL is undone.
    Risen,
    /// A node holds something for a container that never had it or is not its own.
    Stray,
}

/// A broken promise, with those whom it concerns.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) at: Duration,
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) containers: Vec<Container>,
    pub(super) address: Option<IpAddr>,
}

impl fmt::Display for Violation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:.3} {:?}: {}", self.at.as_secs_f64(), self.kind, self.text)
    }
}

/// The state of one container, as far as it is known.
#[derive(Default, Debug)]
struct Known {
    node: NodeAt,
    /// The addresses that it has in hand, and the time since which it has them.
    hand: Option<(Addresses, Duration)>,
    /// An ADD or a DEL may have been carried out, and nobody was told.
    unsure: bool,
    /// Calls of ADD that are under way.
    open: u32,
    /// The number of DELs that were sent since its last ADD.
    dels: u32,
    /// When a DEL was answered last, or an ADD failed: until then it may be listed.
    freed: Duration,
    /// When its last DEL was answered; `None` after the next ADD.
    ended: Option<(Duration, By)>,
    /// Its answered ADD may be undone since its node forgot; then its addresses may be another's
    /// from this time on.
    may_be_lost: Option<Duration>,
    /// Its answered DEL may be undone, since its node forgot.
    may_rise: bool,
}

/// The state of all containers, as far as it is known, and the promises that are broken.
#[derive(Default, Debug)]
pub(super) struct Judge {
    known: BTreeMap<Container, Known>,
    hands: BTreeMap<IpAddr, BTreeSet<Container>>,
    /// Nodes that do not know yet what they forgot.
    forgetful: BTreeSet<NodeAt>,
    violations: Vec<Violation>,
}

impl Judge {
    pub(super) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Returns the addresses that containers have in hand.
    pub(super) fn held(&self) -> Vec<(Container, NodeAt, Addresses)> {
        let held = |(&it, known): (&Container, &Known)| {
            known.hand.as_ref().map(|(addresses, _)| (it, known.node, addresses.clone()))
        };
        self.known.iter().filter_map(held).collect()
    }

    /// Takes the next event. Times never go back.
    pub(super) fn hear(&mut self, event: &Event) {
        let at = event.at;
        match &event.what {
            What::Add(it, node) => {
                let known = self.known.entry(*it).or_default();
                (known.node, known.dels) = (*node, 0);
                known.open += 1;
                // A note may not have been acted on yet.
                known.unsure |= known.ended.is_some_and(|(_, by)| by == By::Plugin);
                known.ended = None;
            }
            What::Added(it, addresses) => self.added(at, *it, addresses),
            What::Refused(it, code) => self.refused(at, *it, *code),
            What::AddLost(it) => {
                let known = self.known(*it);
                known.open = known.open.saturating_sub(1);
                known.unsure = true;
            }
            What::Del(it) => {
                self.put_down(*it);
                let known = self.known(*it);
                (known.unsure, known.dels) = (true, known.dels + 1);
            }
            What::Deleted(it, by) => {
                let known = self.known(*it);
                (known.ended, known.freed) = (Some((at, *by)), at);
                (known.unsure, known.may_rise) = (false, false);
            }
            What::Listed { node, asked, held, last } => {
                self.listed(at, *node, *asked, held, *last);
            }
            What::Forgot { node, adds, dels, repeated_dels, cooldown } => {
                self.forgot(*node, *adds, (*dels, *repeated_dels), at + *cooldown);
            }
            What::Remembered(node) => {
                self.forgetful.remove(node);
            }
            What::Stopped(node) => self.stopped(*node),
            What::Rebooted(node) => self.rebooted(at, *node),
            What::Gone(node) => {
                self.stopped(*node);
                self.known.retain(|_, known| known.node != *node);
            }
            What::Fault(_) => {}
        }
    }

    fn known(&mut self, it: Container) -> &mut Known {
        self.known.entry(it).or_default()
    }

    fn added(&mut self, at: Duration, it: Container, addresses: &Addresses) {
        let known = self.known(it);
        known.open = known.open.saturating_sub(1);
        // It answers a call from before a DEL that is under way or answered.
        if known.ended.is_some() {
            return;
        }
        let node = known.node;
        if let Some((before, _)) = known.hand.clone() {
            if before == *addresses {
                return;
            }
            if known.may_be_lost.is_none() {
                let text = format!(
                    "container {it} on node-{node} had {before:?}, and its repeated ADD is \
                     answered with {addresses:?}"
                );
                self.say(at, Kind::Lost, text, &[it], before.first().copied());
            }
            self.put_down(it);
        }
        let known = self.known(it);
        (known.hand, known.may_be_lost) = (Some((addresses.clone(), at)), None);
        (known.unsure, known.may_rise) = (false, false);
        for &address in addresses {
            self.take(at, it, address);
        }
    }

    /// A container takes an address, which nobody else may have.
    fn take(&mut self, at: Duration, it: Container, address: IpAddr) {
        let hands = self.hands.entry(address).or_default();
        let others: Vec<Container> = hands.iter().copied().filter(|&other| other != it).collect();
        hands.insert(it);
        let node = self.known(it).node;
        for other in others {
            let other_known = self.known(other);
            if other_known.may_be_lost.is_some_and(|since| at >= since) {
                continue;
            }
            let of = other_known.node;
            let text = format!(
                "{address} is in the hands of container {other} (node-{of}) and of container {it} \
                 (node-{node})"
            );
            self.say(at, Kind::Twice, text, &[other, it], Some(address));
        }
    }

    fn refused(&mut self, at: Duration, it: Container, code: u64) {
        let known = self.known(it);
        known.open = known.open.saturating_sub(1);
        known.unsure |= code == IO;
        known.freed = at;
        let (node, stays) = (known.node, matches!(code, IO | TRY_AGAIN));
        if let Some((before, _)) = known.hand.clone().filter(|_| !stays) {
            if known.may_be_lost.is_none() && !self.forgetful.contains(&node) {
                let text = format!(
                    "container {it} on node-{node} has {before:?}, and its repeated ADD fails \
                     with {code}"
                );
                self.say(at, Kind::Lost, text, &[it], before.first().copied());
            }
            self.put_down(it);
            self.known(it).unsure = true;
        }
    }

    /// A container uses its addresses no longer.
    fn put_down(&mut self, it: Container) {
        let Some((addresses, _)) = self.known(it).hand.take() else { return };
        for address in addresses {
            if let Some(hands) = self.hands.get_mut(&address) {
                hands.remove(&it);
            }
        }
    }

    fn forgot(
        &mut self,
        node: NodeAt,
        adds: Duration,
        (dels, repeated_dels): (Duration, Duration),
        cool: Duration,
    ) {
        self.forgetful.insert(node);
        for known in self.known.values_mut().filter(|known| known.node == node) {
            if known.hand.as_ref().is_some_and(|(_, since)| *since >= adds) {
                known.may_be_lost = Some(cool);
            }
            let dels = if known.dels > 1 { repeated_dels } else { dels };
            known.may_rise |= known.ended.is_some_and(|(ended, _)| ended >= dels);
        }
    }

    fn stopped(&mut self, node: NodeAt) {
        let of = self.known.iter().filter(|(_, known)| known.node == node);
        for it in of.map(|(&it, _)| it).collect::<Vec<_>>() {
            self.put_down(it);
            self.known(it).unsure |= self.known[&it].ended.is_none();
        }
    }

    /// Ends what containers of the earlier boot held, as if each had had a DEL, which was answered.
    /// A call that is under way may reach the daemon of the next boot.
    fn rebooted(&mut self, at: Duration, node: NodeAt) {
        self.stopped(node);
        for known in self.known.values_mut().filter(|known| known.node == node) {
            (known.ended, known.freed) = (Some((at, By::Socket)), at);
            (known.unsure, known.may_rise) = (known.open > 0, false);
        }
    }

    fn listed(
        &mut self,
        at: Duration,
        node: NodeAt,
        asked: Duration,
        held: &BTreeMap<Container, Addresses>,
        last: bool,
    ) {
        if self.forgetful.contains(&node) {
            return;
        }
        let mut lost = Vec::new();
        for (&it, known) in self.known.iter_mut().filter(|(_, known)| known.node == node) {
            // What an excuse allowed has not happened.
            known.may_rise &= held.contains_key(&it);
            let Some((addresses, since)) = &known.hand else { continue };
            if held.get(&it).is_some_and(|there| same(there, addresses)) {
                known.may_be_lost = None;
            } else if *since < asked {
                lost.push((it, addresses.clone(), known.may_be_lost));
            }
        }
        for (it, addresses, may_be_lost) in lost {
            if may_be_lost.is_none() {
                let there = held.get(&it);
                let text = format!(
                    "container {it} was answered {addresses:?} on node-{node}, which lists \
                     {there:?}"
                );
                self.say(at, Kind::Lost, text, &[it], addresses.first().copied());
            }
            // One loss is said once.
            self.put_down(it);
            self.known(it).unsure = true;
        }
        for (&it, addresses) in held {
            self.one_listed(at, node, asked, (it, addresses), last);
        }
    }

    /// A node lists one container.
    fn one_listed(
        &mut self,
        at: Duration,
        node: NodeAt,
        asked: Duration,
        (it, addresses): (Container, &Addresses),
        last: bool,
    ) {
        let address = addresses.first().copied();
        let text = |why: &str| format!("node-{node} lists {addresses:?} of container {it}{why}");
        let Some(known) = self.known.get(&it) else {
            return self.say(at, Kind::Stray, text(", which nobody knows"), &[it], address);
        };
        if known.node != node {
            let why = format!(", which is on node-{}", known.node);
            return self.say(at, Kind::Stray, text(&why), &[it], address);
        }
        if known.hand.is_some() || known.open > 0 || known.unsure || known.may_rise {
            return;
        }
        match known.ended {
            // Its daemon acts on a note within seconds.
            Some((_, By::Plugin)) if !last => {}
            Some((ended, _)) if ended < asked => {
                let why = format!(", whose DEL was answered at {:.3}", ended.as_secs_f64());
                self.say(at, Kind::Risen, text(&why), &[it], address);
            }
            Some(_) => {}
            // It was held when the node was asked, or an ADD was under way that then failed.
            None if known.freed >= asked => {}
            None => self.say(at, Kind::Stray, text(", whose ADD failed"), &[it], address),
        }
    }

    fn say(
        &mut self,
        at: Duration,
        kind: Kind,
        text: String,
        containers: &[Container],
        address: Option<IpAddr>,
    ) {
        let containers = containers.to_vec();
        self.violations.push(Violation { at, kind, text, containers, address });
    }
}

/// True if two answers have the same addresses, in whatever order.
fn same(one: &Addresses, other: &Addresses) -> bool {
    let set = |addresses: &Addresses| addresses.iter().copied().collect::<BTreeSet<_>>();
    set(one) == set(other)
}
