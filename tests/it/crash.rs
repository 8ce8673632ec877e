//! `kill -9` at every write.
//!
//! Goal: the daemon may die at any moment. After the restart every answered ADD is there, every
//! answered DEL has ended its allocation, no address is held twice, and each call in flight took
//! effect wholly or not at all. Method: the real actors, journal and embedded store run on storage
//! that records every write, in one list with the calls and answers. A killed process leaves
//! exactly its writes (the page cache survives). So the list is cut after each entry, the files are
//! made from it, and the node is restored from them and used.

mod recorder;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold::api::{About, AppState, Phase};
use leasehold::cni::parse::parse;
use leasehold::cni::request::Body;
use leasehold::config::{BootFrom, Commit, Config};
use leasehold::core::address::{Address, BlockSize, Cidr, Family};
use leasehold::core::attachment::AttachmentId;
use leasehold::core::coordinator::{Add, Call, Del, HoldingSelector, Outcome};
use leasehold::core::ids::{Epoch, Link};
use leasehold::core::keys::{BLOCKS, RESTORED, block_key};
use leasehold::core::time::{StartTime, UnixTime};
use leasehold::core::txn::{self, Request, Span, Txn, Write};
use leasehold::core::value::{BlockStatus, BlockValue, Value};
use leasehold::daemon;
use leasehold::journal::{Journal, Options};
use leasehold::store::ClusterStore as _;
use leasehold::store::embedded::Embedded;
use leasehold::store::file::Storage;
use recorder::{Answer, Entry, Images, Log, Recorder};

/// The two files of a node.
const JOURNAL: usize = 0;
const STORE: usize = 1;

/// The number of checks whether node and store agree, and the time between them.
const AGREE_TRIES: usize = 1_000;
const AGREE_PAUSE: Duration = Duration::from_millis(2);

fn config(cooldown: Duration) -> Config {
    Config {
        node: "n1".to_owned(),
        file: None,
        node_is_given: true,
        state_dir: "/nowhere".into(),
        socket: "/nowhere/socket".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        listen_details: false,
        listen_token_file: None,
        listen_hosts: Vec::new(),
        cooldown,
        fsync: false,
        keep_after_reboot: false,
        boot_id: "boot".to_owned(),
        machine_id: "machine".to_owned(),
        lease_ttl: Duration::from_secs(30),
        offline_limit: None,
        sweep: None,
        status_fails_when_full: false,
        import_host_local: false,
        log: "info".to_owned(),
        boot_from: BootFrom::Kernel,
        forget_after: Duration::from_secs(600),
        history: Default::default(),
        warm_addresses: 32,
        commit: Commit::Journal,
        etcd: None,
    }
}

/// Starts a node on these files; to be called inside an actix system.
async fn start(
    images: Images,
    log: &Log,
    cooldown: Duration,
) -> anyhow::Result<(AppState, Arc<Embedded>)> {
    let [journal, store] = images;
    let recorder = |file, bytes| {
        let recorder = Recorder { file, bytes: Mutex::new(bytes), log: log.clone() };
        Storage::new(Box::new(recorder))
    };
    let config = config(cooldown);
    let options = Options {
        dir: "/nowhere".into(),
        fsync: false,
        keep_after_reboot: false,
        boot_id: "boot".to_owned(),
        cooldown,
        now: leasehold::clock::boot(),
        marker: None,
        still_there: None,
        history: Default::default(),
    };
    let (journal, opened) =
        Journal::open_on(recorder(JOURNAL, journal), Path::new("journal"), &options)?;
    let store = Arc::new(Embedded::open_on(recorder(STORE, store))?);
    log.lock().unwrap().push(Entry::Made);
    let state = daemon::rebuild(&config, "", journal, opened, store.clone(), StartTime::BOOT)?;
    let metrics = leasehold::metrics::Series::new()?;
    let (_, phase) = tokio::sync::watch::channel(Phase::Serving);
    let about = About {
        node: "n1".to_owned(),
        version: String::new(),
        commit: String::new(),
        pid: 0,
        epoch: Some(Epoch::FIRST),
        state_dir: String::new(),
        config: None,
        listen: String::new(),
        store: String::new(),
        since_unix_ms: 0,
    };
    let node = daemon::start(state, &config, about, metrics, phase)?;
    node.standing.clone().wait_for(|standing| standing.member).await?;
    Ok((node, store))
}

/// The blocks that the store says are the node's, as text.
async fn blocks_in_store(store: &Embedded) -> BTreeSet<String> {
    let span = Span::prefix(BLOCKS, usize::MAX);
    let answer = store.ask(Request::Read(vec![span])).await.unwrap();
    let txn::Answer::Read(snapshot) = answer else { panic!("{answer:?}") };
    let ours = snapshot.spans.into_iter().flatten().filter_map(|key| match key.value {
        Value::Block(block) if &*block.owner == "n1" => {
            let (network, _) = key.key[BLOCKS.len()..].split_once('/').unwrap();
            Some(format!("{network} {} {:?}", block.cidr.net(block.family), block.status))
        }
        Value::Block(_) => None,
        other => panic!("{other:?}"),
    });
    ours.collect()
}

/// The blocks that the node has by itself, as text.
async fn blocks_in_hand(node: &AppState) -> BTreeSet<String> {
    let blocks = node.machines.blocks(None, None, usize::MAX).await;
    let text = blocks.iter().map(|block| {
        let state = match block.state.as_str() {
            "spare" => "Spare",
            "active" => "Active",
            other => other,
        };
        format!("{} {} {state}", block.pool.network, block.cidr.net(block.pool.family))
    });
    text.collect()
}

/// Waits until the node and the store have the same blocks. The error shows both lists.
async fn agree(node: &AppState, store: &Embedded) -> Result<(), String> {
    let mut tries = 0;
    loop {
        let (here, there) = (blocks_in_hand(node).await, blocks_in_store(store).await);
        if here == there {
            return Ok(());
        }
        if tries > AGREE_TRIES {
            return Err(format!("in hand {here:?}, in the store {there:?}"));
        }
        tries += 1;
        tokio::time::sleep(AGREE_PAUSE).await;
    }
}

/// A call by its body, as the plugin would send it.
fn add(network: &str, container: usize, ipam: &str, args: &str) -> Call {
    let body = format!(
        r#"{{"command":"ADD","containerId":"c{container}","netns":"/n","ifname":"eth0",
            "args":"{args}","path":"","config":{{"cniVersion":"1.0.0","name":"{network}",
            "ipam":{{"type":"my-ipam","ranges":{ipam}}}}}}}"#
    );
    let request = parse(body.as_bytes()).unwrap();
    let Body::Add(add) = request.body else { panic!("an ADD is an ADD") };
    Call::Add(Box::new(Add {
        id: attachment(network, container),
        pool: request.pool,
        sets: add.sets.into_iter().map(Arc::new).collect(),
        requested: add.requested,
        stage: add.stage,
        pod: None,
        netns: "/n".into(),
        started_at: None,
        waited_since: None,
        at: UnixTime::from_millis(0),
    }))
}

fn del(network: &str, container: usize) -> Call {
    let id = attachment(network, container);
    Call::Del(Del { id, selector: HoldingSelector::StartedBy(leasehold::clock::start()) })
}

fn attachment(network: &str, container: usize) -> AttachmentId {
    AttachmentId {
        network: network.into(),
        container_id: format!("c{container}").into(),
        ifname: "eth0".into(),
    }
}

const DUAL: &str = r#"[[{"subnet":"10.0.0.0/26"}],[{"subnet":"fd00::/120"}]]"#;
const TWO: &str = r#"[[{"subnet":"10.1.0.0/28"}],[{"subnet":"10.2.0.0/28"}]]"#;
/// Both sets of [`TWO`] in one: makes the node merge two range sets.
const ONE: &str = r#"[[{"subnet":"10.1.0.0/28"},{"subnet":"10.2.0.0/28"}]]"#;

/// Rounds of calls; those of one round run at once.
fn workload() -> Vec<Vec<Call>> {
    vec![
        (0..8).map(|c| add("dual", c, DUAL, "")).collect(),
        vec![del("dual", 1), del("dual", 3), add("dual", 9, DUAL, ""), add("two", 0, TWO, "")],
        // One asks for an address outside of all ranges: its other address must be undone.
        vec![
            add("dual", 10, DUAL, "IP=192.0.2.1"),
            add("dual", 3, DUAL, ""),
            add("two", 1, TWO, ""),
        ],
        // A DEL and an ADD of one attachment at once, and a repeated ADD.
        vec![del("dual", 0), add("dual", 0, DUAL, ""), add("dual", 2, DUAL, ""), del("two", 1)],
        vec![add("two", 2, ONE, ""), add("two", 3, ONE, ""), add("two", 4, TWO, "")],
        (10..24).map(|c| add("dual", c, DUAL, "")).collect(),
        (2..12).map(|c| del("dual", c)).chain([del("two", 0)]).collect(),
    ]
}

fn id_of(call: &Call) -> AttachmentId {
    match call {
        Call::Add(add) => add.id.clone(),
        Call::Del(del) => del.id.clone(),
        Call::Gc { .. } => panic!("no GC in the workload"),
    }
}

async fn run_and_record(log: &Log, cooldown: Duration) -> Vec<Call> {
    let (node, store) = start(Images::default(), log, cooldown).await.unwrap();
    let mut calls = Vec::new();
    for round in workload() {
        let mut answers = Vec::new();
        for call in round {
            let index = calls.len();
            calls.push(call.clone());
            log.lock().unwrap().push(Entry::Called(index));
            let (answer, log) = (node.machines.execute(call), log.clone());
            answers.push(actix_rt::spawn(async move {
                let answer = match answer.await {
                    Outcome::Added(holding) => Answer::Added(holding.addresses.to_vec()),
                    Outcome::Ended(_) => Answer::Ended,
                    Outcome::Failed(_) => Answer::Failed,
                };
                log.lock().unwrap().push(Entry::Answered(index, answer));
            }));
        }
        for answer in answers {
            answer.await.unwrap();
        }
    }
    agree(&node, &store).await.unwrap();
    calls
}

/// The states of an attachment that are allowed after a crash: each a set of addresses, empty for
/// none; or, for an ADD in flight, any addresses in the right number.
#[derive(Clone, Default, Debug)]
struct Allowed {
    exactly: BTreeSet<Vec<IpAddr>>,
    any_of_length: Option<usize>,
}

/// The states that are allowed after a cut, by attachment.
fn promised(calls: &[Call], log: &[Entry]) -> BTreeMap<AttachmentId, Allowed> {
    let mut open: BTreeMap<AttachmentId, Vec<usize>> = BTreeMap::new();
    let mut allowed: BTreeMap<AttachmentId, Allowed> = BTreeMap::new();
    for entry in log {
        let (index, answer) = match entry {
            Entry::Called(index) => {
                let id = id_of(&calls[*index]);
                open.entry(id.clone()).or_default().push(*index);
                let allowed = allowed.entry(id).or_insert_with(|| Allowed {
                    exactly: BTreeSet::from([vec![]]),
                    any_of_length: None,
                });
                match &calls[*index] {
                    Call::Add(add) => allowed.any_of_length = Some(add.sets.len()),
                    _ => drop(allowed.exactly.insert(vec![])),
                }
                continue;
            }
            Entry::Answered(index, answer) => (*index, answer),
            _ => continue,
        };
        let id = id_of(&calls[index]);
        let pending = open.get_mut(&id).unwrap();
        pending.retain(|&open| open != index);
        let known = allowed.get_mut(&id).unwrap();
        let now = match answer {
            Answer::Added(addresses) => addresses.clone(),
            Answer::Ended => vec![],
            Answer::Failed => continue,
        };
        // Calls of one attachment are carried out one after the other: with none in flight, the
        // last answer counts.
        known.exactly = BTreeSet::from([now]);
        let adding = pending.iter().find_map(|&index| match &calls[index] {
            Call::Add(add) => Some(add.sets.len()),
            _ => None,
        });
        known.any_of_length = adding;
        if pending.iter().any(|&index| matches!(calls[index], Call::Del(_))) {
            known.exactly.insert(vec![]);
        }
    }
    allowed
}

/// Ends the time for which no new block is claimed because the store went back in time, as its
/// lease does later.
async fn everybody_has_said_what_he_holds(store: &Embedded) {
    let mark = vec![Span::key(RESTORED)];
    let answer = store.ask(Request::Read(mark)).await.unwrap();
    let txn::Answer::Read(snapshot) = answer else { panic!("{answer:?}") };
    assert_eq!(snapshot.spans[0].len(), 1, "that the store went back is written into it");
    let then = vec![Write::Delete(RESTORED.to_owned())];
    store.ask(Request::Txn(Txn { when: vec![], then })).await.unwrap();
}

async fn check_cut(cut: usize, calls: &[Call], log: &[Entry], images: Images, cooldown: Duration) {
    let store_lost = images[STORE].is_empty();
    let last: Vec<String> = log[cut.saturating_sub(3)..cut].iter().map(Entry::brief).collect();
    let context = || format!("cut {cut}, after {}", last.join(", "));
    let node = start(images, &Log::default(), cooldown).await;
    let (node, store) = node.unwrap_or_else(|error| panic!("{error:#}: {}", context()));
    // The node has exactly the blocks that the store records for it: blocks leased for requests
    // that died are given back, and blocks that the store lost are claimed again.
    let agreed = agree(&node, &store).await;
    agreed.unwrap_or_else(|error| panic!("blocks stranded, or not ours: {error}: {}", context()));
    let mut held: BTreeMap<AttachmentId, Vec<IpAddr>> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for holding in node.index.all() {
        for address in holding.addresses.iter() {
            let fresh = taken.insert((holding.scope.network.clone(), *address));
            assert!(fresh, "{address} is held twice: {}", context());
        }
        held.insert(holding.id(), holding.addresses.to_vec());
    }
    for (id, allowed) in promised(calls, &log[..cut]) {
        let found = held.remove(&id).unwrap_or_default();
        let whole = allowed.any_of_length == Some(found.len());
        assert!(
            allowed.exactly.contains(&found) || whole,
            "{id:?} holds {found:?}, {allowed:?} was promised: {}",
            context()
        );
    }
    assert!(held.is_empty(), "{held:?} hold something without an ADD: {}", context());
    // And the node works: a new container gets addresses that no other container holds.
    if store_lost {
        everybody_has_said_what_he_holds(&store).await;
    }
    let answer = node.machines.execute(add("dual", 99, DUAL, "")).await;
    let Outcome::Added(holding) = answer else { panic!("{answer:?}: {}", context()) };
    for address in holding.addresses.iter() {
        let fresh = taken.insert((holding.scope.network.clone(), *address));
        assert!(fresh, "{address} is handed out twice: {}", context());
    }
    node.machines.shutdown().await;
}

fn apply(entry: &Entry, images: &mut Images) {
    match entry {
        Entry::Write { file, offset, data } => {
            images[*file][*offset..*offset + data.len()].copy_from_slice(data);
        }
        Entry::SetLen { file, len } => images[*file].resize(*len, 0),
        Entry::Made | Entry::Called(_) | Entry::Answered(..) => {}
    }
}

fn die_everywhere(cooldown: Duration) {
    actix_rt::System::new().block_on(async {
        let log = Log::default();
        let calls = run_and_record(&log, cooldown).await;
        let log = log.lock().unwrap().clone();
        let failed = |entry: &Entry| matches!(entry, Entry::Answered(_, Answer::Failed));
        assert_eq!(log.iter().filter(|entry| failed(entry)).count(), 1, "as the workload means it");
        let mut images = Images::default();
        let made = log.iter().position(|entry| matches!(entry, Entry::Made)).unwrap();
        for cut in 0..=log.len() {
            if cut > made {
                check_cut(cut, &calls, &log, images.clone(), cooldown).await;
            }
            if let Some(entry) = log.get(cut) {
                apply(entry, &mut images);
            }
        }
        println!("{} calls, killed at {} moments", calls.len(), log.len() + 1);
    });
}

#[test]
fn killed_at_any_write_the_node_keeps_its_promises() {
    die_everywhere(Duration::ZERO);
}

#[test]
fn killed_at_any_write_the_node_keeps_its_promises_with_a_cooldown() {
    die_everywhere(Duration::from_secs(30));
}

/// A daemon may die between a claim and the journal entry of its range set. No address of that
/// block was handed out, and no request would ever ask for it again.
#[test]
fn a_block_that_was_claimed_for_nobody_is_given_back() {
    actix_rt::System::new().block_on(async {
        let recorder = |file, log: &Log| {
            let bytes = Mutex::default();
            Storage::new(Box::new(Recorder { file, bytes, log: log.clone() }))
        };
        let log = Log::default();
        let store = Embedded::open_on(recorder(STORE, &log)).unwrap();
        let run = Cidr::containing(Address::new(0x0a00_0000), BlockSize::of_log2(4));
        let mut then = Vec::new();
        for owner in ["n1", "another"] {
            let value = BlockValue {
                cidr: run,
                family: Family::V4,
                owner: owner.into(),
                epoch: Some(Epoch::FIRST),
                claim: Link::FIRST,
                status: BlockStatus::Active,
                since: UnixTime::from_millis(0),
            };
            let key = block_key(owner, Family::V4, run.first());
            then.push(Write::Put(key, Value::Block(value), None));
        }
        store.ask(Request::Txn(Txn { when: vec![], then })).await.unwrap();
        drop(store);
        let mut images = Images::default();
        log.lock().unwrap().iter().for_each(|entry| apply(entry, &mut images));
        let (node, store) = start(images, &Log::default(), Duration::ZERO).await.unwrap();
        agree(&node, &store).await.unwrap();
        assert_eq!(blocks_in_store(&store).await, BTreeSet::new());
        let span = Span::key(&block_key("another", Family::V4, run.first()));
        let answer = store.ask(Request::Read(vec![span])).await.unwrap();
        let txn::Answer::Read(snapshot) = answer else { panic!("{answer:?}") };
        assert_eq!(snapshot.spans[0].len(), 1, "its own are given back, and no other's");
    });
}

/// The embedded store is another file than the journal, and may be lost alone.
#[test]
fn when_the_store_is_lost_blocks_are_claimed_around_what_is_held() {
    actix_rt::System::new().block_on(async {
        let log = Log::default();
        let calls = run_and_record(&log, Duration::ZERO).await;
        let log = log.lock().unwrap().clone();
        let mut images = Images::default();
        log.iter().for_each(|entry| apply(entry, &mut images));
        images[STORE].clear();
        check_cut(log.len(), &calls, &log, images, Duration::ZERO).await;
    });
}
