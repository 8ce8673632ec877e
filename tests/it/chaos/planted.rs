//! The judge's own tests: histories with a planted fault, each of which it must find, and legal
//! histories of each kind, in which it must find nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::history::{Addresses, By, Container, Event, NodeAt, What};
use super::judge::{Judge, Kind};

const EXHAUSTED: u64 = 100;
const TRY_AGAIN: u64 = 11;
const IO: u64 = 5;

/// A history: an event each second.
struct Story {
    name: &'static str,
    events: Vec<What>,
    found: &'static [Kind],
}

fn story(name: &'static str, events: &[&[What]], found: &'static [Kind]) -> Story {
    Story { name, events: events.concat(), found }
}

fn ip(last: u8) -> Addresses {
    vec![IpAddr::V4(Ipv4Addr::new(10, 1, 0, last))]
}

fn add(it: Container, node: NodeAt, last: u8) -> Vec<What> {
    vec![What::Add(it, node), What::Added(it, ip(last))]
}

fn refused(it: Container, node: NodeAt, code: u64) -> Vec<What> {
    vec![What::Add(it, node), What::Refused(it, code)]
}

fn unanswered(it: Container, node: NodeAt) -> Vec<What> {
    vec![What::Add(it, node), What::AddLost(it)]
}

fn del(it: Container, by: By) -> Vec<What> {
    vec![What::Del(it), What::Deleted(it, by)]
}

/// A listing that was asked for at a second.
fn listed_at(asked: u64, node: NodeAt, held: &[(Container, u8)], last: bool) -> Vec<What> {
    let held: BTreeMap<_, _> = held.iter().map(|&(it, last)| (it, ip(last))).collect();
    vec![What::Listed { node, asked: Duration::from_secs(asked), held, last }]
}

/// A listing that was asked for after everything before it.
fn listed(node: NodeAt, held: &[(Container, u8)]) -> Vec<What> {
    listed_at(u64::MAX, node, held, true)
}

/// A node forgets what was answered from these seconds on; addresses cool for three seconds.
fn forgot(node: NodeAt, adds: u64, dels: u64) -> Vec<What> {
    let (adds, dels) = (Duration::from_secs(adds), Duration::from_secs(dels));
    let cooldown = Duration::from_secs(3);
    vec![What::Forgot { node, adds, dels, repeated_dels: Duration::ZERO, cooldown }]
}

fn remembered(node: NodeAt) -> Vec<What> {
    vec![What::Remembered(node)]
}

fn check(stories: &[Story]) {
    for Story { name, events, found } in stories {
        let mut judge = Judge::default();
        for (at, what) in (0..).zip(events) {
            let mut what = what.clone();
            if let What::Listed { asked, .. } = &mut what {
                *asked = (*asked).min(Duration::from_secs(at));
            }
            judge.hear(&Event { at: Duration::from_secs(at), what });
        }
        let kinds: Vec<Kind> = judge.violations().iter().map(|violation| violation.kind).collect();
        assert_eq!(kinds, *found, "{name}: {:#?}", judge.violations());
    }
}

#[test]
fn an_address_in_two_hands_is_found() {
    let (node_0, by) = (0, By::Socket);
    check(&[
        story("two nodes", &[&add(1, 0, 5), &add(2, 1, 5)], &[Kind::Twice]),
        story("one node", &[&add(1, 0, 5), &add(2, 0, 5)], &[Kind::Twice]),
        story(
            "before the DEL is sent",
            &[&add(1, 0, 5), &[What::Add(2, 1)], &[What::Added(2, ip(5))], &del(1, by)],
            &[Kind::Twice],
        ),
        story(
            "the answer to a repeated ADD",
            &[&add(1, 0, 5), &add(2, 1, 6), &add(2, 1, 5)],
            &[Kind::Lost, Kind::Twice],
        ),
        story("one after the other", &[&add(1, 0, 5), &del(1, by), &add(2, 1, 5)], &[]),
        story("after the DEL is sent", &[&add(1, 0, 5), &[What::Del(1)], &add(2, 1, 5)], &[]),
        story("a repeated ADD", &[&add(1, 0, 5), &add(1, 0, 5), &listed(node_0, &[(1, 5)])], &[]),
        story("nobody was answered", &[&unanswered(1, 0), &add(2, 1, 5)], &[]),
        story(
            "the containers were stopped",
            &[&add(1, 0, 5), &[What::Stopped(0)], &add(2, 1, 5)],
            &[],
        ),
        story(
            "those of another node",
            &[&add(1, 0, 5), &[What::Stopped(1)], &add(2, 1, 5)],
            &[Kind::Twice],
        ),
    ]);
}

#[test]
fn an_add_that_is_lost_is_found() {
    let of = |it: Container, last: u8| [(it, last)];
    check(&[
        story("not listed", &[&add(1, 0, 5), &listed(0, &[])], &[Kind::Lost]),
        story("listed with another", &[&add(1, 0, 5), &listed(0, &of(1, 6))], &[Kind::Lost]),
        story("a repeated ADD differs", &[&add(1, 0, 5), &add(1, 0, 6)], &[Kind::Lost]),
        story(
            "a repeated ADD is refused",
            &[&add(1, 0, 5), &refused(1, 0, EXHAUSTED)],
            &[Kind::Lost],
        ),
        story(
            "a repeated ADD may succeed later",
            &[&add(1, 0, 5), &refused(1, 0, TRY_AGAIN), &listed(0, &of(1, 5))],
            &[],
        ),
        story(
            "lost after a repeated ADD without an answer",
            &[&add(1, 0, 5), &unanswered(1, 0), &listed(0, &[])],
            &[Kind::Lost],
        ),
        story("listed", &[&add(1, 0, 5), &listed(0, &of(1, 5)), &listed(1, &[])], &[]),
        story("asked before the answer", &[&add(1, 0, 5), &listed_at(1, 0, &[], false)], &[]),
        story("its DEL is under way", &[&add(1, 0, 5), &[What::Del(1)], &listed(0, &[])], &[]),
        story("nobody was answered", &[&unanswered(1, 0), &listed(0, &[])], &[]),
    ]);
}

#[test]
fn a_del_that_is_undone_is_found() {
    let (socket, plugin) = (By::Socket, By::Plugin);
    let held = [(1, 5)];
    check(&[
        story("risen", &[&add(1, 0, 5), &del(1, socket), &listed(0, &held)], &[Kind::Risen]),
        story(
            "of an ADD without an answer",
            &[&unanswered(1, 0), &del(1, socket), &listed(0, &held)],
            &[Kind::Risen],
        ),
        story(
            "of a note, in the end",
            &[&add(1, 0, 5), &del(1, plugin), &listed(0, &held)],
            &[Kind::Risen],
        ),
        story(
            "a note that is not acted on yet",
            &[&add(1, 0, 5), &del(1, plugin), &listed_at(9, 0, &held, false)],
            &[],
        ),
        story(
            "asked before",
            &[&add(1, 0, 5), &del(1, socket), &listed_at(2, 0, &held, false)],
            &[],
        ),
        story(
            "a DEL without an answer",
            &[&add(1, 0, 5), &[What::Del(1)], &listed(0, &held), &listed(0, &[])],
            &[],
        ),
        story(
            "a new ADD",
            &[&add(1, 0, 6), &del(1, socket), &add(1, 0, 5), &listed(0, &held)],
            &[],
        ),
        story(
            "a new ADD without an answer",
            &[&add(1, 0, 6), &del(1, socket), &unanswered(1, 0), &listed(0, &held)],
            &[],
        ),
    ]);
}

#[test]
fn a_stray_is_found() {
    let held = [(1, 5)];
    check(&[
        story("a stranger", &[&listed(0, &held)], &[Kind::Stray]),
        story("on another node", &[&add(1, 0, 5), &listed(1, &held)], &[Kind::Stray]),
        story("a failed ADD", &[&refused(1, 0, EXHAUSTED), &listed(0, &held)], &[Kind::Stray]),
        story("an ADD under way", &[&[What::Add(1, 0)], &listed(0, &held)], &[]),
        story(
            "a failed ADD of a container that was held when the node was asked",
            &[
                &add(1, 0, 5),
                &del(1, By::Socket),
                &refused(1, 0, EXHAUSTED),
                &listed_at(2, 0, &held, false),
            ],
            &[],
        ),
        story(
            "an ADD that failed while the node was asked",
            &[&refused(1, 0, EXHAUSTED), &listed_at(0, 0, &held, false)],
            &[],
        ),
        story("a failed journal", &[&refused(1, 0, IO), &listed(0, &held)], &[]),
    ]);
}

#[test]
fn a_node_that_forgot_is_excused_as_far_as_the_documents_say_and_not_further() {
    let (held, by) = ([(1, 5)], By::Socket);
    check(&[
        story(
            "lost within the lag",
            &[&add(1, 0, 5), &forgot(0, 1, 1), &remembered(0), &listed(0, &[])],
            &[],
        ),
        story(
            "lost from before the lag",
            &[&add(1, 0, 5), &forgot(0, 2, 2), &remembered(0), &listed(0, &[])],
            &[Kind::Lost],
        ),
        story(
            "given on after it has cooled",
            &[&add(1, 0, 5), &forgot(0, 1, 1), &remembered(0), &[What::Del(9)], &add(2, 1, 5)],
            &[],
        ),
        story(
            "given on before it has cooled",
            &[&add(1, 0, 5), &forgot(0, 1, 1), &add(2, 1, 5)],
            &[Kind::Twice],
        ),
        story(
            "risen within the lag",
            &[&add(1, 0, 5), &del(1, by), &forgot(0, 3, 3), &remembered(0), &listed(0, &held)],
            &[],
        ),
        story(
            "risen from before the lag",
            &[&add(1, 0, 5), &del(1, by), &forgot(0, 4, 4), &remembered(0), &listed(0, &held)],
            &[Kind::Risen],
        ),
        story(
            "a DEL that was sent twice, risen from before the lag",
            &[
                &add(1, 0, 5),
                &[What::Del(1)],
                &del(1, by),
                &forgot(0, 9, 9),
                &remembered(0),
                &listed(0, &held),
            ],
            &[],
        ),
        story(
            "a DEL after the loss",
            &[&add(1, 0, 5), &forgot(0, 0, 0), &remembered(0), &del(1, by), &listed(0, &held)],
            &[Kind::Risen],
        ),
        story("not asked yet", &[&add(1, 0, 5), &forgot(0, 9, 9), &listed(0, &[])], &[]),
        story(
            "an excuse ends when the node has it again",
            &[&add(1, 0, 5), &forgot(0, 1, 1), &remembered(0), &listed(0, &held), &listed(0, &[])],
            &[Kind::Lost],
        ),
        story(
            "of another node",
            &[&add(1, 0, 5), &forgot(1, 0, 0), &remembered(1), &listed(0, &[])],
            &[Kind::Lost],
        ),
    ]);
}

#[test]
fn a_reboot_ends_what_is_held_and_excuses_nothing_else() {
    let (held, reboot) = ([(1, 5)], [What::Rebooted(0)]);
    check(&[
        story("given on", &[&add(1, 0, 5), &reboot, &add(2, 1, 5)], &[]),
        story("not listed", &[&add(1, 0, 5), &reboot, &listed(0, &[])], &[]),
        story("kept", &[&add(1, 0, 5), &reboot, &listed(0, &held)], &[Kind::Risen]),
        story(
            "an ADD without an answer is carried out no more",
            &[&unanswered(1, 0), &reboot, &listed(0, &held)],
            &[Kind::Risen],
        ),
        story(
            "an ADD that is under way reaches the next boot",
            &[&[What::Add(1, 0)], &reboot, &listed(0, &held)],
            &[],
        ),
        story("added again", &[&add(1, 0, 5), &reboot, &add(1, 0, 6), &listed(0, &[(1, 6)])], &[]),
        story("lost after it", &[&reboot, &add(1, 0, 5), &listed(0, &[])], &[Kind::Lost]),
        story(
            "of another node",
            &[&add(1, 0, 5), &[What::Rebooted(1)], &listed(0, &[])],
            &[Kind::Lost],
        ),
    ]);
}
