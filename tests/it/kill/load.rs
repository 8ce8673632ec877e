//! SIGKILL under load: six clients add and delete, alone and in arrays, on networks of one and two
//! range sets and of both families, one of them too small for all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Holder, Random, addresses_of, config, listed};
use crate::common::{Call, Client, Daemon, Options, Outcome, poll};

/// Clients at a time, each with containers of its own.
const CLIENTS: u64 = 6;
/// Containers of one client on one network.
const CONTAINERS: u64 = 20;
/// Calls in an array, at most.
const CALLS_MAX: u64 = 24;
/// Names, subnets of the range sets. The last one has 13 addresses for all clients.
const NETWORKS: [(&str, &[&str]); 4] = [
    ("one", &["10.20.0.0/22"]),
    ("both", &["10.21.0.0/22", "2001:db8:21::/112"]),
    ("six", &["2001:db8:22::/64"]),
    ("small", &["10.23.0.0/28"]),
];
/// The code of "no address is free".
const EXHAUSTED: u64 = 100;
/// The time within which enough calls must be answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client's knowledge of one of its attachments.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Gone,
    Held(Vec<String>),
    /// An ADD was sent, no answer came.
    Adding,
    /// A DEL was sent, no answer came.
    Deleting(Vec<String>),
}

/// The clients' knowledge of all their attachments.
type Book = BTreeMap<Holder, Fate>;

fn call(command: &'static str, (network, container): &Holder) -> Call {
    let known = NETWORKS.iter().find(|(name, _)| name == network);
    let (_, subnets) = known.expect("a network of this test");
    Call::new(command, container, &config(network, subnets))
}

/// Runs one client until the daemon is gone. Returns its knowledge of its attachments.
fn work(mut client: Client, mut random: Random, mut book: Book, answered: &AtomicU64) -> Book {
    let holders: Vec<Holder> = book.keys().cloned().collect();
    loop {
        let count = if random.one_in(3) { 1 + random.below(CALLS_MAX) } else { 1 };
        let mut chosen: BTreeMap<Holder, (Call, Fate)> = BTreeMap::new();
        for _ in 0..count {
            let at = usize::try_from(random.below(holders.len() as u64)).expect("an index");
            let holder = &holders[at];
            if chosen.contains_key(holder) {
                continue;
            }
            let before = book[holder].clone();
            let (command, during) = match &before {
                Fate::Gone => ("ADD", Fate::Adding),
                // The same ADD again, as a runtime does that lost the answer.
                Fate::Held(_) if random.one_in(4) => ("ADD", before.clone()),
                Fate::Held(held) => ("DEL", Fate::Deleting(held.clone())),
                other => panic!("{holder:?} was left in {other:?}"),
            };
            chosen.insert(holder.clone(), (call(command, holder), before));
            book.insert(holder.clone(), during);
        }
        let calls: Vec<Call> = chosen.values().map(|(call, _)| call.clone()).collect();
        let answers = match &calls[..] {
            [call] => client.try_call(call).map(|outcome| vec![outcome]),
            calls => client.try_calls(calls),
        };
        let Ok(answers) = answers else { return book };
        answered.fetch_add(answers.len() as u64, Ordering::Relaxed);
        for ((holder, (call, before)), outcome) in chosen.into_iter().zip(answers) {
            let now = match (call.command, &outcome) {
                ("DEL", Outcome::Done(None)) => Fate::Gone,
                ("ADD", Outcome::Done(Some(_))) => Fate::Held(addresses_of(&outcome)),
                ("ADD", Outcome::Refused(_)) if outcome.code() == Some(EXHAUSTED) => Fate::Gone,
                (command, outcome) => panic!("{command} of {holder:?}: {outcome:?}"),
            };
            if matches!(before, Fate::Held(_)) && now != Fate::Gone {
                assert_eq!(now, before, "the same ADD again of {holder:?}");
            }
            book.insert(holder, now);
        }
    }
}

/// Checks that no answered call is lost, and no other call is half done. The outcomes of calls in
/// flight are written to the book.
fn wait_until_agreed(daemon: &Daemon, book: &mut Book, context: &str) {
    let mut listed = listed(daemon);
    for (holder, fate) in &mut *book {
        let there = listed.remove(holder);
        let whole = NETWORKS.iter().find(|(name, _)| *name == holder.0).map(|(_, sets)| sets.len());
        let right = match (&*fate, &there) {
            (Fate::Gone | Fate::Adding | Fate::Deleting(_), None) => true,
            (Fate::Held(held) | Fate::Deleting(held), Some(there)) => held == there,
            (Fate::Adding, Some(there)) => Some(there.len()) == whole,
            (Fate::Held(_), None) | (Fate::Gone, Some(_)) => false,
        };
        assert!(right, "{context}: {holder:?} is {fate:?} and listed with {there:?}");
        *fate = there.map_or(Fate::Gone, Fate::Held);
    }
    assert!(listed.is_empty(), "{context}: nobody asked for {listed:?}");
}

/// Checks that memory, journal and metrics agree.
fn agree(daemon: &Daemon, book: &Book, context: &str) {
    let held = |fate: &&Fate| matches!(fate, Fate::Held(_));
    let status = daemon.client().get("/v1/status");
    assert_eq!(status["attachments"], book.values().filter(held).count(), "{context}: {status}");
    let sum = |sets: &serde_json::Value| {
        let sets = sets.as_array().expect("range sets").iter();
        sets.map(|set| set["allocated"].as_u64().expect("a figure")).sum::<u64>()
    };
    let addresses: usize =
        book.values().map(|fate| if let Fate::Held(held) = fate { held.len() } else { 0 }).sum();
    assert_eq!(sum(&status["rangeSets"]), addresses as u64, "{context}: {status}");
    let mut client = daemon.client();
    for (holder, fate) in book {
        if let Fate::Held(held) = fate {
            let again = client.call(&call("ADD", holder));
            assert_eq!(addresses_of(&again), *held, "{context}: the same ADD again of {holder:?}");
        }
    }
}

fn books() -> Vec<Book> {
    let book = |client| {
        let mut book = Book::new();
        for (network, _) in NETWORKS {
            for number in 0..CONTAINERS {
                let container = format!("client-{client}-container-{number}");
                book.insert((network.to_owned(), container), Fate::Gone);
            }
        }
        book
    };
    (0..CLIENTS).map(book).collect()
}

/// Kills the daemon several times, each time after a random number of answers.
fn kill_under_load(arguments: &[&str], seed: u64, kills: u64, answers_max: u64) {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let mut daemon = Daemon::start(&Options { args, ..Options::default() });
    let mut books = books();
    let mut total = 0;
    for round in 1..=kills {
        let context = format!("seed {seed}, kill {round}");
        let answered = AtomicU64::new(0);
        let until = 1 + random.below(answers_max);
        books = std::thread::scope(|scope| {
            let start = |book| {
                let (client, random) = (daemon.client(), Random::new(random.next()));
                let answered = &answered;
                scope.spawn(move || work(client, random, book, answered))
            };
            let clients: Vec<_> = books.drain(..).map(start).collect();
            let enough = poll(PATIENCE, || answered.load(Ordering::Relaxed) >= until);
            daemon.kill9();
            assert!(enough, "{context}: {until} answers did not come in {PATIENCE:?}");
            let end = |client: std::thread::ScopedJoinHandle<'_, Book>| match client.join() {
                Ok(book) => book,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            clients.into_iter().map(end).collect()
        });
        total += answered.load(Ordering::Relaxed);
        // Now and then it is killed while it starts, too.
        if random.one_in(3) {
            daemon.start_and_kill(Duration::from_micros(random.below(20_000)));
        }
        daemon.restart();
        let mut book: Book = books.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        wait_until_agreed(&daemon, &mut book, &context);
        agree(&daemon, &book, &context);
        for own in &mut books {
            for (holder, fate) in own {
                *fate = book[holder].clone();
            }
        }
    }
    println!("{kills} kills among {total} answered calls");
}

#[test]
fn what_was_answered_survives_sigkill_under_load() {
    kill_under_load(&[], 20_260_727, 16, 3000);
}

#[test]
fn what_was_answered_survives_sigkill_under_load_with_fsync() {
    kill_under_load(&["--fsync"], 4711, 8, 1000);
}
