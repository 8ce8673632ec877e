//! Members that die or stand still: every answer is true, and every request that can be served is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leasehold::core::ids::{LeaseId, Revision};
use leasehold::core::txn::{Answer, Compare, Request, Span, StoreError, Txn, TxnOutcome, Write};
use leasehold::core::value::Value;
use leasehold::store::etcd::Options;

use super::{PATIENCE, Subject, at, large, put, value};
use crate::common::etcd::Cluster;

/// A short deadline, so that tests that run into it are short.
const DEADLINE: Duration = Duration::from_secs(1);

fn short(options: Options) -> Options {
    Options { request_deadline: DEADLINE, ..options }
}

/// A URL where nothing listens.
fn dead_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("its number"))
}

/// A member that does not lead.
fn follower(cluster: &Cluster) -> usize {
    (cluster.leader() + 1) % 3
}

/// Requests of every kind, none of which may fail.
fn serve(store: &Subject, requests: u64) {
    let lease = store.grant(60);
    for number in 0..requests {
        let revision = store.done(&[], &[put("sessions/a", number)]);
        assert_eq!(store.key("sessions/a").expect("a key").mod_revision, revision);
        if number % 20 == 0 {
            assert!(store.kept(lease).is_some());
        }
    }
    store.revoke(lease);
}

#[test]
fn dead_endpoints_fail_no_request() {
    let cluster = Cluster::start(1);
    let good = cluster.options("/test");
    let endpoints = vec![dead_endpoint(), dead_endpoint(), good.endpoints[0].clone()];
    let begun = Instant::now();
    serve(&Subject::etcd(Options { endpoints, ..good }), 200);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_dead_member_fails_no_request() {
    let mut cluster = Cluster::start(3);
    let mut options = cluster.options("/test");
    let dead = follower(&cluster);
    options.endpoints.swap(0, dead);
    let old = Subject::etcd(options.clone());
    serve(&old, 10);
    cluster.kill(dead);
    // The connection's end is noticed by now; earlier requests may be unknown.
    assert!(old.key("sessions/a").is_some());
    serve(&old, 200);
    serve(&Subject::etcd(options), 200);
}

#[test]
fn a_stopped_etcd_is_unknown_within_the_deadline_and_comes_back() {
    let cluster = Cluster::start(1);
    let store = Subject::etcd(short(cluster.options("/test")));
    let revision = store.done(&[], &[put("sessions/a", 1)]);
    let lease = store.grant(60);
    cluster.pause(0);
    let timed = |request: Request| {
        let begun = Instant::now();
        let answer = store.ask(request);
        let took = begun.elapsed();
        assert!(took >= DEADLINE && took < DEADLINE * 2, "{took:?}: {answer:?}");
        answer
    };
    let unknown = |answer: Result<Answer, StoreError>| match answer {
        Err(StoreError::Unknown(why)) => {
            assert!(why.contains(&cluster.endpoint(0)) && why.contains("no answer"), "{why}");
        }
        other => panic!("{other:?}"),
    };
    let (when, then) = (vec![at("sessions/a", revision)], vec![put("sessions/a", 2)]);
    unknown(timed(Request::Txn(Txn { when, then })));
    unknown(timed(Request::Grant(Duration::from_secs(60))));
    unknown(timed(Request::KeepAlive(lease)));
    unknown(timed(Request::Revoke(LeaseId::new(77).expect("a lease"))));
    assert!(matches!(timed(Request::Read(Vec::new())), Err(StoreError::Failed(_))));
    cluster.resume(0);
    let begun = Instant::now();
    while store.txn(&[], &[put("sessions/b", 1)]).is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(store.kept(lease).is_some());
}

#[test]
fn a_stopped_member_costs_one_request() {
    let cluster = Cluster::start(3);
    let mut options = short(cluster.options("/test"));
    let stopped = follower(&cluster);
    options.endpoints.swap(0, stopped);
    let store = Subject::etcd(options);
    let lease = store.grant(60);
    cluster.pause(stopped);
    let lost = store.txn(&[], &[put("sessions/a", 1)]);
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    let begun = Instant::now();
    serve(&store, 50);
    assert!(begun.elapsed() < PATIENCE);
    cluster.resume(stopped);
    assert!(store.kept(lease).is_some());
}

#[test]
fn a_read_and_a_keep_alive_go_around_a_stopped_member() {
    let cluster = Cluster::start(3);
    let mut options = short(cluster.options("/test"));
    let stopped = follower(&cluster);
    options.endpoints.swap(0, stopped);
    let store = Subject::etcd(options.clone());
    let lease = store.grant(60);
    store.done(&[], &[put("sessions/a", 1)]);
    let other = Subject::etcd(options);
    assert!(other.key("sessions/a").is_some());
    cluster.pause(stopped);
    assert!(store.kept(lease).is_some());
    assert!(other.key("sessions/a").is_some());
    cluster.resume(stopped);
}

/// One writer of one key, with its knowledge of the key, and the writes that may still land.
struct Chain<'a> {
    store: &'a Subject,
    revision: Option<Revision>,
    number: u64,
    /// The writes since `revision` that were carried out, or may have been.
    doubtful: BTreeSet<u64>,
    /// Done, failed, unknown.
    counts: [usize; 3],
}

const KEY: &str = "sessions/chain";

impl Chain<'_> {
    fn step(&mut self) {
        self.number += 1;
        match self
            .store
            .txn(&[Compare::unchanged(KEY.to_owned(), self.revision)], &[put(KEY, self.number)])
        {
            Ok(TxnOutcome::Done(revision)) => {
                assert!(Some(revision) > self.revision);
                self.revision = Some(revision);
                self.doubtful.clear();
                self.counts[0] += 1;
            }
            // Another value was written: it must be a write whose outcome was unknown.
            Ok(TxnOutcome::Refused(_)) => self.look(true),
            Err(StoreError::Failed(_)) => self.counts[1] += 1,
            Err(StoreError::Unknown(_)) => {
                self.counts[2] += 1;
                self.doubtful.insert(self.number);
                self.look(false);
            }
            Err(StoreError::LeaseGone) => panic!("there is no lease"),
            Err(StoreError::OddAnswer) => panic!("an answer of another kind"),
        }
    }

    fn look(&mut self, changed: bool) {
        let begun = Instant::now();
        let found = loop {
            match self.store.ask(Request::Read(vec![Span::key(KEY)])) {
                Ok(Answer::Read(mut read)) => break read.spans.remove(0).pop(),
                other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        let revision = found.as_ref().map(|found| found.mod_revision);
        if revision == self.revision {
            assert!(!changed, "refused although nothing changed");
            return;
        }
        let Some(Value::Session(session)) = found.map(|found| found.value) else {
            panic!("the key is gone");
        };
        let doubtful = self.doubtful.contains(&(session.epoch.get() - 1));
        assert!(doubtful, "{} was carried out, but taken for failed", session.epoch);
        self.revision = revision;
        self.doubtful.clear();
    }
}

#[test]
fn what_failed_was_never_carried_out() {
    let mut cluster = Cluster::start(3);
    let store = Subject::etcd(short(cluster.options("/test")));
    let stop = AtomicBool::new(false);
    let (done, unknown) = thread::scope(|scope| {
        let chain = scope.spawn(|| {
            let counts = [0; 3];
            let doubtful = BTreeSet::new();
            let mut chain = Chain { store: &store, revision: None, number: 0, doubtful, counts };
            // Bounded, so that a fault elsewhere is a failure and not a hang.
            let begun = Instant::now();
            while !stop.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE * 5 {
                chain.step();
            }
            let [done, _, unknown] = chain.counts;
            (done, unknown)
        });
        let pause = || thread::sleep(Duration::from_millis(400));
        pause();
        for _ in 0..2 {
            let leader = cluster.leader();
            cluster.kill(leader);
            pause();
            cluster.restart(leader);
            let leader = cluster.leader();
            cluster.pause(leader);
            thread::sleep(DEADLINE * 2);
            cluster.resume(leader);
            pause();
        }
        // Most of them: nothing can be carried out until one is back.
        cluster.kill(0);
        cluster.kill(1);
        pause();
        cluster.restart_all(&[0, 1]);
        pause();
        stop.store(true, Ordering::Relaxed);
        chain.join().expect("a chain without a contradiction")
    });
    assert!(done > 100 && unknown > 0, "{done} done, {unknown} unknown");
    let last = store.key(KEY).expect("a key");
    assert_ne!(last.value, value(0));
}

#[test]
fn what_timed_out_inside_etcd_is_unknown() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let options = Options {
        endpoints: vec![cluster.endpoint(leader)],
        // Longer than etcd itself waits for its members: seven seconds.
        request_deadline: PATIENCE,
        ..cluster.options("/test")
    };
    let store = Subject::etcd(options);
    store.done(&[], &[put("sessions/a", 1)]);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|&at| cluster.pause(at));
    let begun = Instant::now();
    match store.txn(&[], &[put("sessions/a", 2)]) {
        Err(StoreError::Unknown(why)) => assert!(why.contains("etcdserver"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < PATIENCE);
    // Usually it is carried out once the others go on.
    others.iter().for_each(|&at| cluster.resume(at));
    let found = loop {
        match store.ask(Request::Read(vec![Span::key("sessions/a")])) {
            Ok(Answer::Read(mut read)) => break read.spans.remove(0).remove(0),
            other => assert!(begun.elapsed() < PATIENCE * 2, "{other:?}"),
        }
    };
    assert!([value(1), value(2)].contains(&found.value), "{found:?}");
}

#[test]
fn what_filled_the_disk_is_not_taken_for_failed() {
    let cluster = Cluster::start_small(4 << 20);
    let store = Subject::etcd(cluster.options("/test"));
    let session = |number: usize| format!("sessions/{number:04}");
    let (mut asked, mut out_of_space) = (0, 0);
    while out_of_space == 0 {
        // Many at once: several find the last room free, and one of them gets it.
        let txn = |number| {
            let large = Write::Put(format!("nodes/{number:04}"), large(0, 50_000), None);
            let then = vec![large, put(&session(number), 1)];
            store.store.ask(Request::Txn(Txn { when: Vec::new(), then }))
        };
        let answers: Vec<_> = (asked..asked + 32).map(txn).collect();
        for (answer, number) in answers.into_iter().zip(asked..) {
            let answer = store.runtime.block_on(answer);
            let there = store.key(&session(number)).is_some();
            match answer {
                Ok(Answer::Txn(TxnOutcome::Done(_))) => assert!(there, "{number}"),
                Err(StoreError::Unknown(why)) => {
                    assert!(why.contains("disk quota"), "{why}");
                    out_of_space += 1;
                }
                other => panic!("{other:?}, and the key is there: {there}"),
            }
        }
        asked += 32;
        assert!(asked < 2_000);
    }
}
