//! A hundred thousand allocations on a thousand nodes: what the map costs the daemon, and how
//! smooth it is in the browser. Times are printed and not judged: they are those of a busy machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold::core::address::{Address, AddressRange, BlockSize, Cidr, Family};
use leasehold::core::ids::{Epoch, LeaseId, Link, Sequence};
use leasehold::core::keys::{allocation_key, block_key, network_key, session_key};
use leasehold::core::time::UnixTime;
use leasehold::core::txn::Write;
use leasehold::core::value::{
    AllocationValue, BlockStatus, BlockValue, Geometry, NetworkValue, SessionValue, Value,
};
use serde_json::Value as Json;

use super::browser::PATIENCE;
use super::{Browser, keep_picture, open, set_of, text};
use crate::cluster::{add, metric, nodes, wide};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, poll};
use crate::etcd_store::Subject;

/// The nodes, and what each of them has.
const NODES: u32 = 1_000;
const BLOCKS_PER_NODE: u32 = 3;
const HELD_PER_NODE: u32 = 100;
const BLOCK: u32 = 64;
/// Reads of the node's own that may come between scrapes.
const READS_MAX: f64 = 20.0;
/// Writes in one transaction: what etcd allows.
const WRITES: usize = 128;

fn node(number: u32) -> Arc<str> {
    format!("node-{number:04}").into()
}

/// The addresses of the network: blocks come in the order in which nodes claimed them, with gaps.
fn block_start(number: u32) -> Address {
    Address::new(u128::from((10 << 24) + (number + number / 5 * 3) * BLOCK))
}

fn block(number: u32) -> Write {
    let (start, family) = (block_start(number), Family::V4);
    let size = BlockSize::of_log2(6);
    let value = BlockValue {
        cidr: Cidr::containing(start, size),
        family,
        owner: node(number % NODES),
        epoch: Some(Epoch::FIRST),
        claim: Link::FIRST,
        status: if number / NODES == 2 { BlockStatus::Spare } else { BlockStatus::Active },
        since: UnixTime::EPOCH,
    };
    Write::Put(block_key("pods", family, start), Value::Block(value), None)
}

/// The record of an allocation. Every node has its first block full and a part of its second.
fn record(number: u32) -> Write {
    let (of, at) = (number % NODES, number / NODES);
    let start = block_start(of + at / BLOCK * NODES);
    let address = Family::V4.address(start.plus(u128::from(at % BLOCK)));
    let value = AllocationValue {
        node: node(of),
        network: None,
        container_id: format!("{number:064x}").into(),
        ifname: "eth0".into(),
        addresses: vec![address],
        namespace: "shop".into(),
        pod: format!("cart-{number}").into(),
        stage: "".into(),
        netns: format!("/var/run/netns/cni-{number:036x}").into(),
        since: UnixTime::EPOCH,
        started_at: None,
        sequence: Sequence::new(u64::from(number) + 1),
    };
    Write::Put(allocation_key("pods", address), Value::Allocation(Box::new(value)), None)
}

fn session(number: u32) -> Write {
    let lease = LeaseId::new(i64::from(number) + 1).expect("a number from 1");
    let value = SessionValue { epoch: Epoch::FIRST, lease };
    Write::Put(session_key(&node(number)), Value::Session(value), None)
}

fn fill(etcd: &Cluster) {
    let store = Subject::etcd(etcd.options("/leasehold/v1"));
    let range = AddressRange::between(Address::new(10 << 24), Address::new((11 << 24) - 1));
    let geometry =
        Geometry { family: Family::V4, block_size: BlockSize::of_log2(6), ranges: vec![range] };
    let network = NetworkValue { ipam: None, geometry: vec![geometry] };
    let network = Write::Put(network_key("pods"), Value::Network(network), None);
    let mut writes = vec![network];
    writes.extend((0..NODES).map(session));
    writes.extend((0..NODES * BLOCKS_PER_NODE).map(block));
    writes.extend((0..NODES * HELD_PER_NODE).map(record));
    for writes in writes.chunks(WRITES) {
        store.done(&[], writes);
    }
}

#[test]
fn a_thousand_nodes_are_one_picture() {
    let etcd = Cluster::start(1);
    fill(&etcd);
    let daemon = nodes(&etcd, 1, &["--listen-details"]).remove(0);
    let timed = |path: &str| {
        let began = Instant::now();
        let reply = daemon.over_tcp("GET", path, "");
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        (began.elapsed(), reply.body)
    };
    // On a busy machine the first count may not end in time.
    let (mut first, mut body, mut map) = (Duration::ZERO, String::new(), Json::Null);
    let counted = poll(PATIENCE, || {
        (first, body) = timed("/v1/map");
        map = serde_json::from_str(&body).expect("JSON");
        map["countedUnixMs"].is_u64()
    });
    assert!(counted, "{}", map["cause"]);
    let set = set_of(&map, "pods");
    assert_eq!(set["used"], NODES * HELD_PER_NODE);
    assert_eq!(map["nodes"].as_array().map(Vec::len), Some(NODES as usize + 1));
    assert_eq!(set["blocks"].as_array().map(Vec::len), Some((NODES * BLOCKS_PER_NODE) as usize));
    // The next one who looks costs no other count for a while.
    let (again, body_again) = timed("/v1/map");
    let again_map: Json = serde_json::from_str(&body_again).expect("JSON");
    assert_eq!(again_map["countedUnixMs"], map["countedUnixMs"]);
    let rest = map["nextMs"].as_u64().expect("a time");
    let (search, found) = timed("/v1/records?search=cart-99999&limit=50");
    assert_eq!(found.matches("\"pod\"").count(), 1, "{found}");
    println!(
        "/v1/map: {} bytes, counted and made in {first:?}, made again after {rest} ms, meanwhile \
         answered in {again:?}; a pod is found in {search:?}",
        body.len()
    );
    scrapes_list_nothing(&daemon);
    in_the_browser(&daemon);
}

/// A scrape asks etcd for nothing, however many records there are, and has the figures of a network
/// that this node does not use. To list all records takes a hundred reads.
fn scrapes_list_nothing(daemon: &Daemon) {
    add(daemon, "scraped", &wide()).expect_result();
    let reads = || metric(daemon, "leasehold_etcd_requests_total", &["operation=\"read\""]);
    let before = reads();
    let taken = f64::from(NODES * BLOCKS_PER_NODE * BLOCK);
    let unclaimed = || {
        metric(daemon, "leasehold_pool_unclaimed_addresses", &["network=\"pods\"", "=\"10.0.0.0\""])
    };
    for _ in 0..2 {
        assert_eq!(unclaimed(), f64::from(1 << 24) - taken);
    }
    let more = reads() - before;
    assert!(more <= READS_MAX, "{more} reads for three scrapes");
}

fn in_the_browser(daemon: &Daemon) {
    let mut browser = Browser::start();
    open(&mut browser, daemon);
    let held = text(&mut browser, "[data-figure='Held']");
    assert!(held.starts_with("100,000 of "), "{held}");
    keep_picture(&mut browser, "thousand-nodes");
    let shown = browser.ask(
        "import('/page/data.js').then(async ({ known, tell }) => { \
         const text = JSON.stringify(known.map); const began = performance.now(); \
         known.map = JSON.parse(text); tell('map'); \
         await new Promise((done) => requestAnimationFrame(() => setTimeout(done))); \
         return performance.now() - began; })",
    );
    let frames = |browser: &mut Browser, moving: &str| {
        let script = format!(
            "import('/page/map.js').then(async (map) => {{ \
             const canvas = document.getElementById('map'); map.fit(); const times = []; \
             const drag = (kind, x) => canvas.dispatchEvent(new PointerEvent(kind, \
               {{ pointerId: 9, clientX: x, clientY: 400, bubbles: true }})); \
             let last = performance.now(); \
             for (let at = 0; at < 120; at++) {{ {moving}; \
               await new Promise((done) => requestAnimationFrame(done)); \
               const now = performance.now(); times.push(now - last); last = now; }} \
             times.sort((a, b) => a - b); \
             return [60, 114, 119].map((at) => times[at].toFixed(1)).join(' / '); }})"
        );
        browser.ask(&script).as_str().expect("times").to_owned()
    };
    let zooming = frames(&mut browser, "map.zoom(at < 60 ? 1.06 : 1 / 1.06)");
    let panning = frames(
        &mut browser,
        "if (at === 0) { map.zoom(3); drag('pointerdown', 400); } \
         drag('pointermove', 400 + at * 4); \
         if (at === 119) drag('pointerup', 880)",
    );
    println!(
        "from JSON to picture: {:.0} ms; frames in ms (median / 95 % / longest): \
         zooming {zooming}, panning {panning}",
        shown.as_f64().expect("a time")
    );
    assert_eq!(browser.complaints(&daemon.listen().to_string()), [""; 0]);
}
