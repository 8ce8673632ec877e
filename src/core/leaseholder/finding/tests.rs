//! Blocks that a search takes, and blocks that it leaves.

use super::*;
use crate::core::address::Family;
use crate::core::ids::Link;
use crate::core::leaseholder::{NodeIdentity, Withheld};
use crate::core::time::UnixTime;

const NOW: BootTime = BootTime::BOOT;
const ID: OrderId = OrderId::FIRST;

fn pool() -> PoolFamily {
    PoolFamily { network: "net".into(), family: Family::V4 }
}

/// A node that has lost these blocks, and that searches for an address of this one.
fn searching(lost: &[Cidr], wanted: Cidr) -> Leaseholder {
    let identity = NodeIdentity::named("n");
    let lost = lost.iter().map(|&cidr| (pool(), cidr)).collect();
    let withheld = Withheld { lost, ..Withheld::default() };
    let mut node = Leaseholder::new(identity, (None, None), [], withheld, UnixTime::EPOCH);
    let find = Find {
        pool: pool(),
        wanted: vec![wanted.range()],
        even_cooling: true,
        seen: vec![],
        asked: BTreeSet::new(),
        reads: 0,
        owners: VecDeque::new(),
        gone: None,
        absent: BTreeSet::new(),
        examination: None,
        silent: None,
        round: 0,
        looking: vec![],
        open: BTreeMap::new(),
        until: None,
    };
    node.look_around(NOW, ID, find);
    node
}

/// Another node parked a block. If a block that was lost here is within it, the range set
/// cannot take it in: it is not taken, and goes back if that came in between (seed 5854).
#[test]
fn a_parked_block_around_a_lost_one_is_not_taken() {
    let parked = Cidr::containing(Address::new(8), BlockSize::of_log2(1));
    let snapshot = || {
        let value = Value::Block(BlockValue {
            cidr: parked,
            family: Family::V4,
            owner: "other".into(),
            epoch: None,
            claim: Link::FIRST,
            status: BlockStatus::Parked,
            since: UnixTime::EPOCH,
        });
        let key = pool().block_key(parked.first());
        let key = KeyValue { key, value, mod_revision: Revision::FIRST, lease: None };
        Snapshot { revision: Revision::FIRST, spans: vec![vec![key]] }
    };
    let lost = Cidr::one(Address::new(9));
    for (lost, expected) in [(&[][..], true), (&[lost][..], false)] {
        let mut node = searching(lost, parked);
        node.find_answered(NOW, ID, Ok(Answer::Read(snapshot())));
        let takes = node
            .queue
            .iter()
            .any(|(_, order)| matches!(order, Order::Take(_, cidr, _) if *cidr == parked));
        let is_nobody = |effect: &Effect| match effect {
            Effect::Found(ID, Found::Nobody { others, .. }) => others == &[parked],
            _ => false,
        };
        let nobody = node.effects.iter().any(is_nobody);
        assert_eq!((takes, nobody), (expected, !expected), "{lost:?}");
    }
    let mut node = searching(&[lost], parked);
    node.taken(NOW, Some(ID), (&pool(), parked), Revision::FIRST, Found::Taken(parked));
    assert_eq!(node.queue, [(None, Order::Drop(pool(), parked, Revision::FIRST))]);
    assert_eq!(node.find_owned(&pool(), parked), None);
}
