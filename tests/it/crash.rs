//! `kill -9` at every write.
//!
//! Goal: whatever moment the daemon dies at, after the restart every answered ADD is there, every
//! answered DEL is gone, nothing is held twice, and what was in flight is wholly there or wholly
//! not. Method: the real actors, journal and embedded store run on storage that records every
//! write, in one list with the calls and answers. A process that is killed leaves exactly what it
//! has written (the page cache survives), so the list is cut after each entry, the files are made
//! as they would be, and the node is restored from them and used.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold::actors::coordinator::{DescribeAll, Execute};
use leasehold::api::{About, Node, Phase};
use leasehold::cni::parse::parse;
use leasehold::cni::request::Body;
use leasehold::config::Config;
use leasehold::core::address::{Family, Run};
use leasehold::core::attachment::AttachmentId;
use leasehold::core::claim::{BLOCKS, block_key};
use leasehold::core::coordinator::{Add, Call, Del, Outcome, Which};
use leasehold::core::txn::{Txn, Write};
use leasehold::daemon;
use leasehold::journal::{Journal, Options};
use leasehold::store::ClusterStore as _;
use leasehold::store::embedded::Embedded;
use leasehold::store::file::Storage;
use leasehold::store::value::{BlockValue, encode};
use redb::StorageBackend;

/// The two files of a node.
const JOURNAL: usize = 0;
const STORE: usize = 1;

type Images = [Vec<u8>; 2];

#[derive(Clone, Debug)]
enum Entry {
    Write {
        file: usize,
        offset: usize,
        data: Vec<u8>,
    },
    SetLen {
        file: usize,
        len: usize,
    },
    /// The files are made; before that, a new file has another name and is not looked at.
    Made,
    Called(usize),
    Answered(usize, Answer),
}

impl Entry {
    fn brief(&self) -> String {
        match self {
            Self::Write { file, offset, data } => {
                format!("{} bytes at {offset} of file {file}", data.len())
            }
            other => format!("{other:?}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Answer {
    Added(Vec<IpAddr>),
    Ended,
    Failed,
}

type Log = Arc<Mutex<Vec<Entry>>>;

/// A file in memory that writes down what happens to it.
#[derive(Debug)]
struct Recorder {
    file: usize,
    bytes: Mutex<Vec<u8>>,
    log: Log,
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (file, len) = (self.file, usize::try_from(len).unwrap());
        self.bytes.lock().unwrap().resize(len, 0);
        self.log.lock().unwrap().push(Entry::SetLen { file, len });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (file, offset) = (self.file, usize::try_from(offset).unwrap());
        self.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        self.log.lock().unwrap().push(Entry::Write { file, offset, data: data.to_vec() });
        Ok(())
    }
}

fn config(cooldown: Duration) -> Config {
    Config {
        node: "n1".to_owned(),
        state_dir: "/nowhere".into(),
        socket: "/nowhere/socket".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        cooldown,
        fsync: false,
        keep_after_reboot: false,
        boot_id: "boot".to_owned(),
    }
}

/// Starts a node on these files; to be called inside an actix system.
async fn start(
    images: Images,
    log: &Log,
    cooldown: Duration,
) -> anyhow::Result<(Node, Arc<Embedded>)> {
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
        cooldown: u64::try_from(cooldown.as_millis()).unwrap(),
        now: leasehold::clock::boot_ms(),
    };
    let (journal, opened) =
        Journal::open_on(recorder(JOURNAL, journal), Path::new("journal"), &options)?;
    let store = Arc::new(Embedded::open_on(recorder(STORE, store))?);
    log.lock().unwrap().push(Entry::Made);
    let restored = daemon::restore(&config, journal, opened.state, store.clone(), 0).await?;
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle();
    let (_, phase) = tokio::sync::watch::channel(Phase::Serving);
    let about = About {
        node: "n1".to_owned(),
        version: String::new(),
        pid: 0,
        epoch: 1,
        state_dir: String::new(),
        listen: String::new(),
        store: String::new(),
        since_unix_ms: 0,
    };
    Ok((daemon::start(restored, &config, about, metrics, phase)?, store))
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
        sets: add.sets.into_iter().map(Arc::new).collect(),
        asked: add.asked,
        stage: add.stage,
        pod: None,
        netns: "/n".into(),
        started_at: None,
        at_unix_ms: 0,
    }))
}

fn del(network: &str, container: usize) -> Call {
    let id = attachment(network, container);
    Call::Del(Del { id, which: Which::StartedBy(leasehold::clock::boot_ns()) })
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
        // One asks for an address in no range: its other address must be undone.
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
    let (node, _) = start(Images::default(), log, cooldown).await.unwrap();
    let mut calls = Vec::new();
    for round in workload() {
        let mut answers = Vec::new();
        for call in round {
            let index = calls.len();
            calls.push(call.clone());
            log.lock().unwrap().push(Entry::Called(index));
            let (answer, log) = (node.coordinator.send(Execute(call)), log.clone());
            answers.push(actix_rt::spawn(async move {
                let answer = match answer.await.unwrap() {
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
    calls
}

/// What may be found of an attachment after a crash: each a set of addresses, empty for nothing;
/// or, for an ADD in flight, any addresses of the right number.
#[derive(Clone, Default, Debug)]
struct Allowed {
    exactly: BTreeSet<Vec<IpAddr>>,
    any_of_length: Option<usize>,
}

/// What was promised up to a cut, by attachment.
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
        // last answer is what holds.
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

async fn check_cut(cut: usize, calls: &[Call], log: &[Entry], images: Images, cooldown: Duration) {
    let last: Vec<String> = log[cut.saturating_sub(3)..cut].iter().map(Entry::brief).collect();
    let context = || format!("cut {cut}, after {}", last.join(", "));
    let node = start(images, &Log::default(), cooldown).await;
    let (node, store) = node.unwrap_or_else(|error| panic!("{error:#}: {}", context()));
    // Every block that the store says is ours is in hand: a claim that nobody waited for any more
    // was given back.
    let in_hand = node.coordinator.send(DescribeAll).await.unwrap();
    let in_hand: u64 = in_hand.iter().map(|set| set.stats.active).sum();
    let ours = store.range(BLOCKS.to_owned()).await.unwrap();
    assert_eq!(in_hand, ours.len() as u64, "blocks are stranded: {}", context());
    let mut held: BTreeMap<AttachmentId, Vec<IpAddr>> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for holding in node.index.all() {
        for address in holding.addresses.iter() {
            let fresh = taken.insert((holding.id.network.clone(), *address));
            assert!(fresh, "{address} is held twice: {}", context());
        }
        held.insert(holding.id.clone(), holding.addresses.to_vec());
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
    // And the node works: a new container gets addresses that nobody holds.
    let answer = node.coordinator.send(Execute(add("dual", 99, DUAL, ""))).await.unwrap();
    let Outcome::Added(holding) = answer else { panic!("{answer:?}: {}", context()) };
    for address in holding.addresses.iter() {
        let fresh = taken.insert((holding.id.network.clone(), *address));
        assert!(fresh, "{address} is handed out twice: {}", context());
    }
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

/// A daemon may die between a claim and the journal's note of its range set: nothing was handed
/// out of that block, and nobody would ever ask for it again.
#[test]
fn a_block_that_was_claimed_for_nobody_is_given_back() {
    actix_rt::System::new().block_on(async {
        let recorder = |file, log: &Log| {
            let bytes = Mutex::default();
            Storage::new(Box::new(Recorder { file, bytes, log: log.clone() }))
        };
        let log = Log::default();
        let store = Embedded::open_on(recorder(STORE, &log)).unwrap();
        let run = Run::around(0x0a00_0000, 4);
        for owner in ["n1", "another"] {
            let value = encode(&BlockValue::active(run, Family::V4, owner, 1, 0));
            let key = block_key(owner, Family::V4, run.start);
            let then = vec![Write::Put(key, value)];
            store.txn(Txn { when: vec![], then }).await.unwrap();
        }
        drop(store);
        let mut images = Images::default();
        log.lock().unwrap().iter().for_each(|entry| apply(entry, &mut images));
        let (_, store) = start(images, &Log::default(), Duration::ZERO).await.unwrap();
        let left: Vec<String> =
            store.range(BLOCKS.to_owned()).await.unwrap().into_iter().map(|key| key.key).collect();
        assert_eq!(left, [block_key("another", Family::V4, run.start)], "its own, and no other's");
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
