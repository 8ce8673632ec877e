//! The promises of every store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leasehold::core::ids::LeaseId;
use leasehold::core::txn::{Answer, KeyValue, Request, Span, StoreError, Txn, TxnOutcome, Watched};
use leasehold::store::embedded::Embedded;
use tempfile::TempDir;
use tokio::sync::mpsc::error::TryRecvError;

use super::{PATIENCE, Subject, absent, at, delete, delete_in, none_in, put, put_with, value};
use crate::common::etcd::Cluster;

/// Every check, on a fresh store each.
const CHECKS: [fn(&Subject); 12] = [
    a_transaction_is_carried_out_whole_or_not_at_all,
    revisions_rise_with_what_is_written_and_only_with_that,
    none_in_means_from_the_first_key_to_before_the_last,
    delete_in_means_from_the_first_key_to_before_the_last,
    one_of_many_wins,
    a_write_with_a_dead_lease_changes_nothing,
    a_lease_takes_its_keys_with_it_and_no_others,
    a_lease_that_is_not_kept_alive_ends,
    spans_are_read_at_one_revision_in_order_and_up_to_their_limit,
    keys_and_texts_are_found_page_by_page,
    a_watch_lists_and_reports_in_order,
    a_read_sees_what_was_answered_before,
];

fn a_transaction_is_carried_out_whole_or_not_at_all(store: &Subject) {
    let first = store.done(&[absent("sessions/a")], &[put("sessions/a", 1), put("sessions/ab", 2)]);
    let both = [absent("sessions/b"), absent("sessions/a")];
    assert_eq!(store.refused(&both, &[put("sessions/b", 1)]), first);
    assert_eq!(store.key("sessions/b"), None);
    let writes = [put("sessions/b", 3), delete("sessions/a"), delete("sessions/never")];
    let second = store.done(&[at("sessions/a", first), absent("sessions/b")], &writes);
    assert!(second > first);
    let all = store.read(&[Span::prefix("sessions/", 10)]).spans.remove(0);
    let all: Vec<_> = all.into_iter().map(|found| (found.key, found.mod_revision)).collect();
    assert_eq!(all, [("sessions/ab".to_owned(), first), ("sessions/b".to_owned(), second)]);
}

fn revisions_rise_with_what_is_written_and_only_with_that(store: &Subject) {
    let first = store.done(&[], &[put("sessions/a", 1)]);
    assert_eq!(store.done(&[at("sessions/a", first)], &[]), first);
    assert_eq!(store.refused(&[at("sessions/a", first.next())], &[]), first);
    assert_eq!(store.done(&[], &[delete("sessions/b")]), first);
    let second = store.done(&[], &[put("sessions/a", 1)]);
    assert!(second > first);
    assert_eq!(store.key("sessions/a").expect("a key").mod_revision, second);
    let third = store.done(&[], &[delete("sessions/a")]);
    assert!(third > second);
    // A key that is made again does not get its old revision back.
    assert!(store.done(&[absent("sessions/a")], &[put("sessions/a", 1)]) > third);
    store.refused(&[at("sessions/a", second)], &[put("sessions/a", 2)]);
}

fn keys_and_texts_are_found_page_by_page(store: &Subject) {
    let writes: Vec<_> = (1..=7).map(|at| put(&format!("sessions/{at}"), at)).collect();
    store.done(&[], &writes);
    let all: Vec<String> = (1..=7).map(|at| format!("sessions/{at}")).collect();
    for limit in [1, 3, 7, 100] {
        assert_eq!(store.keys(Span::prefix("sessions/", limit)), all, "{limit} in a page");
    }
    let (mut found, mut rest) = (Vec::new(), Some(Span::prefix("sessions/", 3)));
    while let Some(span) = rest {
        let page = store.with_texts(span, &["\"epoch\"", "\"lease\""]);
        found.extend(page.found.into_iter().map(|found| found.key));
        rest = page.rest;
    }
    assert_eq!(found, all, "all have both texts");
    let some = store.with_texts(Span::prefix("sessions/", 100), &["\"epoch\":6,"]);
    let some: Vec<&str> = some.found.iter().map(|found| found.key.as_str()).collect();
    assert!(some.contains(&"sessions/5"), "{some:?}");
}

#[test]
fn etcd_leaves_out_what_has_not_the_text() {
    let etcd = Cluster::start(1);
    let store = Subject::etcd(etcd.options("/leasehold/v1"));
    let writes: Vec<_> = (1..=7).map(|at| put(&format!("sessions/{at}"), at)).collect();
    store.done(&[], &writes);
    let page = store.with_texts(Span::prefix("sessions/", 6), &["\"epoch\":6,"]);
    let found: Vec<&str> = page.found.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(found, ["sessions/5"]);
    let both = store.with_texts(Span::prefix("sessions/", 6), &["\"epoch\":6,", "\"epoch\":5,"]);
    assert!(both.found.is_empty(), "no value has both: {both:?}");
    assert!(page.rest.is_some(), "the rest is behind what was looked at, not what was found");
}

fn none_in_means_from_the_first_key_to_before_the_last(store: &Subject) {
    let none = [none_in("sessions/b", "sessions/d")];
    store.done(&none, &[put("sessions/a", 1), put("sessions/d", 1)]);
    store.done(&none, &[]);
    for inside in ["sessions/b", "sessions/bb", "sessions/c~"] {
        store.done(&[], &[put(inside, 1)]);
        store.refused(&none, &[put("sessions/e", 1)]);
        // The other conditions hold.
        store.refused(&[absent("sessions/e"), none[0].clone()], &[put("sessions/e", 1)]);
        store.done(&[], &[delete(inside)]);
    }
    store.done(&none, &[put("sessions/b", 1), put("sessions/c", 1)]);
    store.refused(&none, &[]);
    store.done(&[], &[delete("sessions/b")]);
    store.refused(&none, &[]);
    assert_eq!(store.key("sessions/e"), None);
}

fn delete_in_means_from_the_first_key_to_before_the_last(store: &Subject) {
    let keys = ["sessions/a", "sessions/b", "sessions/bb", "sessions/c~", "sessions/d"];
    let first = store.done(&[], &keys.map(|key| put(key, 1)));
    // A key deleted by itself too, and one put beside it.
    let range = delete_in("sessions/b", "sessions/d");
    let second = store.done(&[], &[range.clone(), delete("sessions/bb"), put("sessions/e", 2)]);
    assert!(second > first);
    let left = store.read(&[Span::prefix("sessions/", 10)]).spans.remove(0);
    let left: Vec<_> = left.into_iter().map(|found| found.key).collect();
    assert_eq!(left, ["sessions/a", "sessions/d", "sessions/e"]);
    assert_eq!(store.done(&[], std::slice::from_ref(&range)), second, "nothing was there");
    store.refused(&[absent("sessions/e")], &[delete_in("sessions/a", "sessions/f")]);
    assert!(store.key("sessions/e").is_some());
}

fn one_of_many_wins(store: &Subject) {
    let bid = |number| {
        let then = vec![put("sessions/a", number), put(&format!("sessions/b{number}"), number)];
        Request::Txn(Txn { when: vec![absent("sessions/a")], then })
    };
    let bids: Vec<_> = (0..20).map(|number| store.store.ask(bid(number))).collect();
    let mut won = 0;
    for bid in bids {
        match store.runtime.block_on(bid) {
            Ok(Answer::Txn(TxnOutcome::Done(_))) => won += 1,
            Ok(Answer::Txn(TxnOutcome::Refused(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(store.read(&[Span::prefix("sessions/", 100)]).spans[0].len(), 2);
}

fn a_write_with_a_dead_lease_changes_nothing(store: &Subject) {
    let (dead, live) = (store.grant(60), store.grant(60));
    assert_ne!(dead, live);
    store.revoke(dead);
    let first = store.done(&[], &[put("sessions/a", 1)]);
    let writes = [
        put("sessions/a", 2),
        put_with("sessions/b", 2, live),
        put_with("sessions/c", 2, dead),
        delete("sessions/a"),
    ];
    // etcd takes no two writes of one key: the third alone is wrong, before it and after it.
    for writes in [&writes[..3], &writes[1..]] {
        assert_eq!(store.txn(&[at("sessions/a", first)], writes), Err(StoreError::LeaseGone));
    }
    assert_eq!(
        store.txn(&[], &[put_with("sessions/c", 1, LeaseId::new(77).expect("a lease"))]),
        Err(StoreError::LeaseGone)
    );
    // Conditions come first: if one does not hold, the transaction is refused, even with a bad
    // write.
    assert_eq!(store.refused(&[at("sessions/a", first.next())], &writes[1..]), first);
    let left = store.read(&[Span::prefix("sessions/", 10)]);
    assert_eq!((left.revision, left.spans[0].len()), (first, 1));
}

fn a_lease_takes_its_keys_with_it_and_no_others(store: &Subject) {
    let (lease, other) = (store.grant(60), store.grant(60));
    assert!(store.kept(lease).expect("a life") >= 60);
    let keys = [
        put_with("sessions/a", 1, lease),
        put_with("sessions/b", 1, other),
        put_with("sessions/c", 1, lease),
        put_with("sessions/d", 1, lease),
        put("sessions/e", 1),
    ];
    store.done(&[], &keys);
    assert_eq!(store.key("sessions/a").expect("a key").lease, Some(lease));
    // A write without the lease, or with another, takes a key off it.
    let last = store.done(&[], &[put("sessions/c", 2), put_with("sessions/d", 2, other)]);
    assert_eq!(store.key("sessions/c").expect("a key").lease, None);
    store.revoke(lease);
    let left = store.read(&[Span::prefix("sessions/", 10)]);
    assert!(left.revision > last);
    let left: Vec<_> = left.spans[0].iter().map(|found| (&*found.key, found.lease)).collect();
    let expected = [
        ("sessions/b", Some(other)),
        ("sessions/c", None),
        ("sessions/d", Some(other)),
        ("sessions/e", None),
    ];
    assert_eq!(left, expected);
    assert_eq!(store.kept(lease), None);
    store.revoke(lease);
    assert!(store.kept(other).is_some());
}

fn a_lease_that_is_not_kept_alive_ends(store: &Subject) {
    let seconds = 3;
    let (lease, kept) = (store.grant(seconds), store.grant(seconds));
    let long = store.grant(600);
    let began = Instant::now();
    let keys = [put_with("sessions/a", 1, lease), put_with("sessions/b", 1, kept)];
    store.done(&[], &keys);
    let left = store.left(long).expect("a life");
    assert!((500..=600).contains(&left), "{left} s");
    assert!(store.left(lease).expect("a life") <= seconds);
    let mut watch = store.watch("sessions/");
    assert!(matches!(store.next(&mut watch), Watched::Listed(keys) if keys.len() == 2));
    let report = loop {
        match watch.try_recv() {
            Ok(report) => break report,
            Err(error) => assert_eq!(error, TryRecvError::Empty),
        }
        assert!(began.elapsed() < PATIENCE, "the lease does not end");
        assert!(store.kept(kept).is_some(), "it was kept alive");
        let pause = Duration::from_millis(200);
        store.runtime.block_on(async { tokio::time::sleep(pause).await });
    };
    assert_eq!(report, Watched::Deleted("sessions/a".to_owned()));
    assert!(began.elapsed() >= Duration::from_secs(seconds), "{:?}", began.elapsed());
    assert_eq!((store.left(lease), store.kept(lease)), (None, None));
    assert_eq!(store.txn(&[], &[put_with("sessions/c", 1, lease)]), Err(StoreError::LeaseGone));
    assert_eq!(store.key("sessions/b").expect("a key").lease, Some(kept));
}

fn spans_are_read_at_one_revision_in_order_and_up_to_their_limit(store: &Subject) {
    let empty = store.read(&[]);
    assert!(empty.spans.is_empty());
    let keys: Vec<String> = (0..30).map(|number| format!("sessions/{number:02}")).collect();
    let writes: Vec<_> = keys.iter().zip(0..).map(|(key, number)| put(key, number)).collect();
    let revision = store.done(&[], &writes);
    assert_eq!(store.read(&[]).revision, revision);
    assert!(revision > empty.revision);
    store.done(&[], &[put("sessions0", 1), put("session", 1), put("nodes/a", 1)]);
    let within = Span { first: keys[3].clone(), past: keys[6].clone(), limit: 10 };
    let spans = [
        Span::prefix("sessions/", 100),
        Span::prefix("sessions/", 7),
        Span::key("sessions/05"),
        Span::key("sessions/none"),
        within,
        Span { limit: 0, ..Span::prefix("sessions/", 1) },
        Span::prefix("sessions/", usize::MAX),
    ];
    let read = store.read(&spans);
    assert_eq!(read.revision, revision.next());
    let found = |at: usize| -> Vec<_> { read.spans[at].iter().map(|kv| kv.key.clone()).collect() };
    assert_eq!(found(0), keys);
    assert_eq!(found(1), keys[..7]);
    assert_eq!(found(2), keys[5..6]);
    assert!(found(3).is_empty() && found(5).is_empty());
    assert_eq!(found(4), keys[3..6]);
    assert_eq!(found(6), keys);
    let (key, lease) = (keys[5].clone(), None);
    let fifth = KeyValue { key, value: value(5), mod_revision: revision, lease };
    assert_eq!(read.spans[2], [fifth]);
}

fn a_watch_lists_and_reports_in_order(store: &Subject) {
    let lease = store.grant(60);
    store.done(&[], &[put_with("sessions/a", 1, lease), put("nodes/a", 1)]);
    let mut watch = store.watch("sessions/");
    let Watched::Listed(listed) = store.next(&mut watch) else { panic!("no list") };
    let listed: Vec<_> = listed.iter().map(|found| (&*found.key, found.lease)).collect();
    assert_eq!(listed, [("sessions/a", Some(lease))]);
    let put_of = |key: &str, number, mod_revision, lease| {
        Watched::Put(KeyValue { key: key.to_owned(), value: value(number), mod_revision, lease })
    };
    let first = store.done(&[], &[put("sessions/b", 1), put("nodes/b", 1), put("sessions0", 1)]);
    let second = store.done(&[], &[put("sessions/b", 2), delete("nodes/b")]);
    store.refused(&[at("sessions/b", first)], &[put("sessions/b", 3)]);
    store.done(&[], &[delete("sessions/b")]);
    store.revoke(lease);
    let third = store.done(&[], &[put("sessions/c", 1)]);
    for expected in [
        put_of("sessions/b", 1, first, None),
        put_of("sessions/b", 2, second, None),
        Watched::Deleted("sessions/b".to_owned()),
        Watched::Deleted("sessions/a".to_owned()),
        put_of("sessions/c", 1, third, None),
    ] {
        assert_eq!(store.next(&mut watch), expected);
    }
}

fn a_read_sees_what_was_answered_before(store: &Subject) {
    for number in 0..50 {
        let revision = store.done(&[], &[put("sessions/a", number)]);
        let found = store.key("sessions/a").expect("a key");
        assert_eq!((found.value, found.mod_revision), (value(number), revision));
    }
}

fn check_on(cluster: &Cluster) {
    for (number, check) in CHECKS.into_iter().enumerate() {
        check(&Subject::etcd(cluster.options(&format!("/test/{number}"))));
    }
}

#[test]
fn one_etcd_keeps_the_contract() {
    check_on(&Cluster::start(1));
}

#[test]
fn three_etcds_keep_the_contract() {
    check_on(&Cluster::start(3));
}

#[test]
fn the_embedded_store_keeps_the_contract() {
    for check in CHECKS {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        check(&Subject::new(Embedded::open(&dir.path().join("cluster.redb")).expect("a store")));
    }
}

#[test]
fn the_embedded_store_ends_the_leases_of_an_earlier_process() {
    let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let open = || Subject::new(Embedded::open(&dir.path().join("cluster.redb")).expect("a store"));
    let store = open();
    let old = store.grant(60);
    let last = store.done(&[], &[put_with("sessions/a", 1, old), put("sessions/b", 1)]);
    drop(store);
    let store = open();
    let left = store.read(&[Span::prefix("sessions/", 10)]);
    assert!(left.revision > last);
    let left: Vec<_> = left.spans[0].iter().map(|found| &*found.key).collect();
    assert_eq!(left, ["sessions/b"]);
    assert_eq!(store.kept(old), None);
    assert_eq!(store.txn(&[], &[put_with("sessions/a", 2, old)]), Err(StoreError::LeaseGone));
    assert!(store.grant(60) > old);
}

#[test]
fn spans_are_of_one_revision_while_others_write() {
    let cluster = Cluster::start(1);
    let (store, writer) =
        (Subject::etcd(cluster.options("/test")), Subject::etcd(cluster.options("/test")));
    // Both keys always have one number.
    let both = |number| writer.done(&[], &[put("sessions/a", number), put("sessions/b", number)]);
    both(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut number = 0;
            // Bounded, so that a fault elsewhere is a failure and not a hang.
            while !stop.load(Ordering::Relaxed) && number < 20_000 {
                number += 1;
                both(number);
            }
            number
        });
        let spans = [Span::key("sessions/a"), Span::key("sessions/b")];
        let reads: Vec<_> = (0..200).map(|_| store.read(&spans)).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(writing.join().expect("a writer") > 10);
        let mut seen = BTreeSet::new();
        for read in reads {
            let [a, b] = [0, 1].map(|at: usize| &read.spans[at][0]);
            assert_eq!((&a.value, a.mod_revision), (&b.value, b.mod_revision));
            assert!(a.mod_revision <= read.revision);
            seen.insert(a.mod_revision);
        }
        assert!(seen.len() > 10);
    });
}
