//! Micro-benchmarks of the stages of an ADD: `cargo bench`. The times of a whole ADD are in
//! `ARCHITECTURE.md`, "Speed".

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that cannot go on says why by panicking"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use leasehold::cni::parse;
use leasehold::core::address::{Address, BlockSize, Cidr, Family};
use leasehold::core::attachment::{Holding, Scope};
use leasehold::core::ids::{OperationId, Sequence};
use leasehold::core::journal::JournalEntry;
use leasehold::core::range::{Range, RangeSpec, Ranges};
use leasehold::core::range_set::{Assign, JournalledSet, RangeSet, Settings};
use leasehold::core::set_identity::SetId;
use leasehold::core::time::{BootTime, StartTime, UnixTime};
use leasehold::journal::{Journal, Options};

/// Blocks of 64 addresses of 10.0.0.0/16: all of it is in hand.
const BLOCKS: u128 = 1024;

/// The cooldown of addresses, in milliseconds.
const COOLDOWN: Duration = Duration::from_secs(1);

fn allowed() -> Arc<Ranges> {
    let spec = RangeSpec {
        subnet: "10.0.0.0/16".parse().unwrap(),
        start: None,
        end: None,
        gateway: None,
        sandbox: Vec::new(),
        smallflow: Vec::new(),
    };
    Arc::new(Ranges::new(vec![Range::new(spec).unwrap()], None).unwrap())
}

/// Assigns and releases one address, with as many taken.
fn core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("assign and release");
    for taken in [0u128, 10_000, 60_000] {
        let allowed = allowed();
        let cidr = |block: u128| {
            let first = Address::new(0x0a00_0000 + block * 64);
            Cidr::containing(first, BlockSize::of_log2(6))
        };
        let journalled = JournalledSet {
            blocks: (0..BLOCKS).map(cidr).collect(),
            allocated: (0..taken).map(|n| Address::new(0x0a00_0002 + n)).collect(),
            ..JournalledSet::default()
        };
        let (cooldown, forget_after) = (COOLDOWN, Duration::MAX);
        let settings = Settings { cooldown, min_free: 32, forget_after, seed: 0 };
        let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(6), settings);
        set.rebuild(journalled).unwrap();
        let mut now = BootTime::BOOT + COOLDOWN;
        group.bench_function(format!("{taken} taken"), |bencher| {
            bencher.iter(|| {
                now = now + Duration::from_millis(1);
                let allowed = allowed.clone();
                let request = Assign {
                    id: OperationId::FIRST,
                    set_index: 0,
                    allowed,
                    requested: None,
                    stage: None,
                };
                let number = set.assign(now, request).unwrap().unwrap();
                set.release(now, black_box(number));
            });
        });
    }
}

/// The body of a request as the plugin sends it.
fn parsing(criterion: &mut Criterion) {
    let body = concat!(
        r#"{"command":"ADD","containerId":"#,
        r#""0f2b8a5f3c0e4f6a9d7c1b2e3f405162738495a6b7c8d9eafb0c1d2e3f405162","#,
        r#""netns":"/var/run/netns/cni-5f3c0e4f","ifname":"eth0","#,
        r#""args":"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pay-1-sandbox-a","#,
        r#""path":"/opt/cni/bin","startedAt":123456789,"config":"#,
        "\n",
        r#"{"cniVersion":"1.0.0","name":"pods","type":"bridge","bridge":"pods0","#,
        r#""isGateway":true,"ipam":{"type":"my-ipam","ranges":[[{"subnet":"10.10.0.0/16","#,
        r#""rangeStart":"10.10.1.20","rangeEnd":"10.10.3.50"}],[{"subnet":"2001:db8:1::/64"}]],"#,
        r#""routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}"#,
        "\n}"
    );
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("an ADD", |bencher| {
        bencher.iter(|| parse::parse(black_box(body.as_bytes())).unwrap());
    });
}

/// One commit for a number of ADDs, with as many holdings in the journal; then their DELs, which
/// are not timed.
fn journal(criterion: &mut Criterion) {
    for held in [0, 60_000] {
        journal_with(criterion, held);
    }
}

fn journal_with(criterion: &mut Criterion, held: u64) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: dir.path().to_owned(),
        fsync: false,
        keep_after_reboot: false,
        boot_id: "bench".into(),
        cooldown: COOLDOWN,
        now: BootTime::BOOT,
        marker: None,
        still_there: None,
        history: Default::default(),
    };
    let (mut journal, _) = Journal::open(&options).unwrap();
    for first in (0..held).step_by(64) {
        let some: Vec<JournalEntry> = (first..held.min(first + 64)).flat_map(records).collect();
        journal.commit(&some).unwrap();
    }
    let journal = std::cell::RefCell::new(journal);
    let mut group = criterion.benchmark_group(format!("commit, {held} held"));
    for adds in [1u64, 16, 64] {
        group.throughput(Throughput::Elements(adds));
        group.bench_function(format!("{adds} ADDs"), |bencher| {
            let ended = || {
                let ended: Vec<JournalEntry> = (held..held + adds).map(end).collect();
                journal.borrow_mut().commit(&ended).unwrap();
                (held..held + adds).flat_map(records).collect::<Vec<JournalEntry>>()
            };
            let commit =
                |records: Vec<JournalEntry>| journal.borrow_mut().commit(&records).unwrap();
            bencher.iter_batched(ended, commit, BatchSize::PerIteration);
        });
    }
}

fn holding(number: u64) -> Holding {
    let scope = Scope { network: "pods".into(), ifname: "eth0".into(), pool: "pods".into() };
    Holding {
        scope: scope.into(),
        // In no order, as digests are.
        container_id: format!("{:064x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into(),
        addresses: vec![Family::V4.address(address(number))].into(),
        sequence: Sequence::new(number + 1),
        started_at: Some(StartTime::BOOT),
        since: UnixTime::EPOCH,
        stage: None,
        pod: None,
        netns: "/var/run/netns/cni-5f3c0e4f-1f0e-4b5e-9d8b-3a7c5d1e2f40".into(),
    }
}

fn address(number: u64) -> Address {
    Address::new(u128::from(0x0a00_0002 + number))
}

fn records(number: u64) -> [JournalEntry; 2] {
    let hold = JournalEntry::Hold(Arc::new(holding(number)));
    [JournalEntry::Cursor(SetId::FIRST, 0, address(number)), hold]
}

fn end(number: u64) -> JournalEntry {
    JournalEntry::End(Arc::new(holding(number)))
}

criterion_group!(benches, core, parsing, journal);
criterion_main!(benches);
