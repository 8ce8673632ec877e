//! The index follows the reports of the store, and tells what is new.

use super::*;
use crate::core::address::{AddressRange, Family};
use crate::core::ids::{Epoch, Link, Revision};
use crate::core::keys::block_key;
use crate::core::range::{Range, RangeSpec};
use crate::core::time::UnixTime;
use crate::core::value::{BlockValue, SessionValue};

fn block(net: &str, owner: &str, status: BlockStatus) -> KeyValue {
    let (net, family): (ipnet::IpNet, _) = (net.parse().unwrap(), Family::V4);
    let cidr = Cidr::of(net);
    let (owner, epoch, claim, since) = (owner.into(), None, Link::FIRST, UnixTime::EPOCH);
    let value = BlockValue { cidr, family, owner, epoch, claim, status, since };
    let key = block_key("net", family, cidr.first());
    KeyValue { key, value: Value::Block(value), mod_revision: Revision::FIRST, lease: None }
}

fn session(node: &str) -> KeyValue {
    let value = SessionValue { epoch: Epoch::FIRST, lease: LeaseId::new(7).unwrap() };
    let (key, value) = (format!("{SESSIONS}{node}"), Value::Session(value));
    KeyValue { key, value, mod_revision: Revision::FIRST, lease: None }
}

fn range(subnet: &str) -> Range {
    let (start, end, gateway) = (None, None, None);
    let (subnet, sandbox, smallflow) = (subnet.parse().unwrap(), vec![], vec![]);
    Range::new(RangeSpec { subnet, start, end, gateway, sandbox, smallflow }).unwrap()
}

#[test]
fn a_list_after_a_gap_tells_what_was_missed() {
    let mut known = PoolIndex::default();
    let (a, b) = (block("10.0.0.0/28", "a", BlockStatus::Active), "10.0.0.16/28");
    let texts = |news: News| news.into_iter().map(|event| event.text).collect::<Vec<_>>();
    let listed = vec![a.clone(), block(b, "a", BlockStatus::Spare)];
    assert_eq!(texts(known.learn_block(Watched::Listed(listed))), [""; 0], "it was so before");
    let now = vec![a.clone(), block(b, "b", BlockStatus::Active)];
    let news = texts(known.learn_block(Watched::Listed(now)));
    assert_eq!(news, ["b has block 10.0.0.16/28 of net from a"]);
    assert_eq!(texts(known.learn_block(Watched::Put(a.clone()))), [""; 0]);
    let news = texts(known.learn_block(Watched::Deleted(a.key)));
    assert_eq!(news, ["a gave block 10.0.0.0/28 of net back"]);
    assert_eq!(texts(known.learn_session(Watched::Listed(vec![session("a")]))), [""; 0]);
    let news = texts(known.learn_session(Watched::Listed(vec![session("b")])));
    assert_eq!(news, ["b joined: it has a session", "a left: its session ended"]);
}

/// Pieces follow each other without a gap.
#[tokio::test]
async fn everything_is_every_block_once() {
    let pools = Pools::default();
    let net = |number: usize| format!("10.{}.{}.0/28", number / 256, number % 256);
    let count = 2 * limits::BLOCKS_PER_LOOK_MAX;
    let mut keys: Vec<_> = (0..count).map(|at| block(&net(at), "a", BlockStatus::Active)).collect();
    keys.push(KeyValue { key: keys[0].key.replace("/net/", "/other/"), ..keys[0].clone() });
    pools.lock().learn_block(Watched::Listed(keys));
    let blocks = pools.everything().await.blocks;
    let shown: Vec<_> = blocks.iter().map(|of| (&*of.pool.network, of.cidr)).collect();
    let mut expected: Vec<_> =
        (0..count).map(|at| ("net", Cidr::of(net(at).parse().unwrap()))).collect();
    expected.push(("other", expected[0].1));
    assert_eq!(shown, expected);
}

#[test]
fn networks_overlap_where_their_blocks_do() {
    let pools = Pools::default();
    let of = |network: &str, net: &str| {
        let mut key = block(net, "a", BlockStatus::Active);
        key.key = key.key.replace("blocks/net/", &format!("blocks/{network}/"));
        key
    };
    let learn = |report| pools.lock().learn_block(report);
    assert_eq!(pools.overlaps(), 0);
    learn(Watched::Put(of("x", "10.0.0.0/24")));
    learn(Watched::Put(of("y", "10.0.1.0/24")));
    learn(Watched::Put(of("x", "10.0.2.0/24")));
    assert_eq!(pools.overlaps(), 0, "beside each other");
    let inner = of("z", "10.0.0.64/26");
    learn(Watched::Put(inner.clone()));
    learn(Watched::Put(of("z", "10.0.2.0/26")));
    assert_eq!(pools.overlaps(), 1, "x and z, in two places");
    learn(Watched::Put(of("y", "10.0.2.0/28")));
    assert_eq!(pools.overlaps(), 3, "each with each");
    learn(Watched::Deleted(inner.key));
    assert_eq!(pools.overlaps(), 3);
    learn(Watched::Listed(vec![of("x", "10.0.0.0/24")]));
    assert_eq!(pools.overlaps(), 0);
}

#[test]
fn figures_follow_every_report() {
    let pools = Pools::default();
    let at = |text: &str| Address::of(text.parse().unwrap());
    let between = |first, last| AddressRange::between(at(first), at(last));
    let offer = Offer::of_ranges(&[between("10.0.0.2", "10.0.0.254")]);
    let pool = PoolFamily { network: "net".into(), family: Family::V4 };
    let figures = || {
        let now = pools.figures(&pool, at("10.0.0.0"), &offer);
        now.map(|now| (now.unclaimed, now.gone, now.quarantined))
    };
    let nodes = || {
        let now = pools.nodes().unwrap();
        (now.live, now.gone.keys().map(ToString::to_string).collect::<Vec<_>>())
    };
    let learn = |report| pools.lock().learn_block(report);
    let sessions = |report| pools.lock().learn_session(report);
    assert_eq!(figures(), None);
    learn(Watched::Listed(vec![block("10.0.0.0/28", "a", BlockStatus::Active)]));
    assert_eq!(figures(), None, "sessions are not known yet");
    sessions(Watched::Listed(vec![session("a")]));
    assert_eq!(figures(), Some((253 - 14, 0, 0)));
    learn(Watched::Put(block("10.0.0.240/28", "b", BlockStatus::Spare)));
    assert_eq!((figures(), nodes()), (Some((253 - 29, 15, 0)), (1, vec!["b".to_owned()])));
    sessions(Watched::Put(session("b")));
    assert_eq!((figures(), nodes()), (Some((253 - 29, 0, 0)), (2, vec![])));
    // The state of a block changes, a block is divided, a node is removed.
    learn(Watched::Put(block("10.0.0.240/28", "b", BlockStatus::Active)));
    learn(Watched::Put(block("10.0.0.0/29", "a", BlockStatus::Active)));
    assert_eq!(figures(), Some((253 - 21, 0, 0)));
    let elsewhere = |me| pools.elsewhere(me, &pool, at("10.0.0.0"), &offer);
    assert_eq!([elsewhere("a"), elsewhere("b"), elsewhere("c")], [15, 6, 21]);
    sessions(Watched::Deleted(format!("{SESSIONS}b")));
    assert_eq!(elsewhere("c"), 6, "a node that is gone hands nothing out");
    assert_eq!(figures(), Some((253 - 21, 15, 0)));
    learn(Watched::Put(block("10.0.0.240/28", "b", BlockStatus::Quarantined)));
    assert_eq!((figures(), nodes()), (Some((253 - 21, 0, 15)), (1, vec![])));
    let ranges = Ranges::new(vec![range("10.0.0.0/24")], None).unwrap();
    let quarantined = || pools.quarantined(&"net".into(), &ranges);
    let expected = Quarantined { addresses: 15, node: "b".into(), lease: None };
    assert_eq!(quarantined(), Some(expected));
    let gone = block("10.0.0.240/28", "b", BlockStatus::Quarantined).key;
    learn(Watched::Deleted(gone));
    assert_eq!(quarantined(), None);
    assert_eq!(figures(), Some((253 - 6, 0, 0)));
    // Another offer, then a new list.
    let narrow = Offer::of_ranges(&[between("10.0.0.6", "10.0.0.9")]);
    assert_eq!(pools.figures(&pool, at("10.0.0.0"), &narrow).unwrap().unclaimed, 2);
    assert_eq!(figures(), Some((253 - 6, 0, 0)));
    learn(Watched::Listed(vec![]));
    assert_eq!(figures(), Some((253, 0, 0)));
}
