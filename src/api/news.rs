//! The meaning of the reports of the cluster's store, in words: who took which block, who came and
//! who went.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::core::address::Cidr;
use crate::core::keys::PoolFamily;
use crate::core::value::BlockStatus;
use crate::events::Happening;

/// A block as it was, or is: what it covers, whom it names, its state.
pub(super) type Was<'a> = (Cidr, &'a Arc<str>, BlockStatus);

/// The event in which a block became another one; nothing, if it is of no interest.
pub(super) fn of_block(
    pool: &PoolFamily,
    before: Option<Was<'_>>,
    after: Option<Was<'_>>,
) -> Option<Happening> {
    let net = |cidr: Cidr| cidr.net(pool.family).to_string();
    let network = &pool.network;
    let (kind, node, text) = match (before, after) {
        (None, Some((cidr, owner, status))) => match status {
            BlockStatus::Quarantined => quarantined(owner, &net(cidr), network),
            BlockStatus::Parked => parked(owner, &net(cidr), network),
            BlockStatus::Spare | BlockStatus::Active => {
                ("blockTaken", owner, format!("{owner} took block {} of {network}", net(cidr)))
            }
        },
        (Some((cidr, owner, status)), None) => match status {
            BlockStatus::Quarantined => (
                "blockFree",
                owner,
                format!("the quarantine of block {} of {network} ended", net(cidr)),
            ),
            BlockStatus::Parked => {
                ("blockFree", owner, format!("parked block {} of {network} is free", net(cidr)))
            }
            BlockStatus::Spare | BlockStatus::Active => (
                "blockGivenBack",
                owner,
                format!("{owner} gave block {} of {network} back", net(cidr)),
            ),
        },
        (Some((was, from, before)), Some((is, to, status))) => match status {
            BlockStatus::Quarantined if before != status => quarantined(to, &net(is), network),
            BlockStatus::Parked if before != status => parked(to, &net(is), network),
            _ if from != to => {
                ("blockGiven", to, format!("{to} has block {} of {network} from {from}", net(is)))
            }
            _ if was != is => (
                "blockGiven",
                to,
                format!(
                    "{to} gave a part of block {} of {network} away, and keeps {}",
                    net(was),
                    net(is)
                ),
            ),
            _ if before == BlockStatus::Parked => {
                ("blockTaken", to, format!("{to} took its block {} of {network} back", net(is)))
            }
            _ => return None,
        },
        (None, None) => return None,
    };
    let (node, network) = (Some(node.clone()), Some(network.clone()));
    Some(Happening { kind, node, network, text, of_block: true })
}

type Said<'a> = (&'static str, &'a Arc<str>, String);

fn quarantined<'a>(owner: &'a Arc<str>, net: &str, network: &str) -> Said<'a> {
    let text = format!("block {net} of {network} is in quarantine: {owner} was removed");
    ("blockQuarantined", owner, text)
}

fn parked<'a>(owner: &'a Arc<str>, net: &str, network: &str) -> Said<'a> {
    ("blockParked", owner, format!("{owner} stops and parked block {net} of {network}"))
}

/// The events in which nodes came and went: the differences between these sets of names.
pub(super) fn of_names(
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
    words: Words,
) -> Vec<Happening> {
    let event = |(kind, text): (&'static str, &'static str), name: &String| Happening {
        kind,
        node: Some(name.as_str().into()),
        network: None,
        text: format!("{name} {text}"),
        of_block: false,
    };
    let came = after.difference(before).map(|name| event(words.came, name));
    let went = before.difference(after).map(|name| event(words.went, name));
    came.chain(went).collect()
}

/// The kinds of two events, and what is said of the node: of one that comes, and of one that goes.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub(super) came: (&'static str, &'static str),
    pub(super) went: (&'static str, &'static str),
}

/// Of sessions.
pub(super) const SESSION: Words = Words {
    came: ("nodeJoined", "joined: it has a session"),
    went: ("nodeLeft", "left: its session ended"),
};

/// Of drains.
pub(super) const DRAIN: Words = Words {
    came: ("nodeDrained", "is drained by an operator"),
    went: ("nodeUndrained", "is not drained any longer"),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Family;

    #[test]
    fn each_change_of_a_block_has_its_words() {
        use BlockStatus::{Active, Parked, Quarantined, Spare};
        let pool = PoolFamily { network: "pods".into(), family: Family::V4 };
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let cidr = |net: &str| Cidr::of(net.parse().unwrap());
        let (whole, half) = (cidr("10.0.0.0/28"), cidr("10.0.0.0/29"));
        let cases = [
            (None, Some((whole, &a, Spare)), "blockTaken", "a took block 10.0.0.0/28 of pods"),
            (Some((whole, &a, Spare)), None, "blockGivenBack", "a gave block 10.0.0.0/28"),
            (Some((whole, &a, Active)), Some((whole, &a, Parked)), "blockParked", "a stops"),
            (Some((whole, &a, Parked)), Some((whole, &a, Spare)), "blockTaken", "back"),
            (Some((whole, &a, Parked)), Some((whole, &b, Spare)), "blockGiven", "b has block"),
            (Some((whole, &a, Parked)), None, "blockFree", "is free"),
            (
                Some((whole, &a, Active)),
                Some((whole, &a, Quarantined)),
                "blockQuarantined",
                "a was",
            ),
            (Some((whole, &a, Quarantined)), None, "blockFree", "ended"),
            (
                Some((whole, &a, Active)),
                Some((half, &a, Active)),
                "blockGiven",
                "keeps 10.0.0.0/29",
            ),
        ];
        for (before, after, kind, words) in cases {
            let event = of_block(&pool, before, after).unwrap();
            assert_eq!(event.kind, kind, "{}", event.text);
            assert!(event.text.contains(words), "{}", event.text);
        }
        let same = of_block(&pool, Some((whole, &a, Spare)), Some((whole, &a, Active)));
        assert_eq!(same, None, "that addresses are handed out of a spare is no news");
    }

    #[test]
    fn names_that_come_and_go_are_told() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let events = of_names(&set(&["a", "b"]), &set(&["b", "c"]), SESSION);
        let kinds: Vec<_> = events.iter().map(|event| (event.kind, &*event.text)).collect();
        assert_eq!(
            kinds,
            [
                ("nodeJoined", "c joined: it has a session"),
                ("nodeLeft", "a left: its session ended")
            ]
        );
    }
}
