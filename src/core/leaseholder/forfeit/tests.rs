//! A silent node forfeits its free addresses, and nothing else.

use std::time::Duration;

use super::*;
use crate::core::address::{BlockSize, Family};
use crate::core::ids::{Epoch, Link};
use crate::core::keys::allocation_key;

const NOW: UnixTime = UnixTime::EPOCH;
const AFTER: Duration = Duration::from_secs(3_600);

fn pool() -> PoolFamily {
    PoolFamily { network: "net".into(), family: Family::V4 }
}

fn key(key: String, value: Value) -> KeyValue {
    KeyValue { key, value, mod_revision: Revision::FIRST, lease: None }
}

/// Returns the keys of a block of sixteen addresses, of which these are recorded.
fn snapshot(forfeit: Option<Forfeit>, live: bool, recorded: &[u128]) -> Snapshot {
    let block = Cidr::containing(Address::new(16), BlockSize::of_log2(4));
    let node = NodeValue {
        epoch: Epoch::FIRST,
        sequence: None,
        machine_id: None,
        identity: None,
        first_epoch: None,
        boot_id: "boot".into(),
        version: "test".into(),
        since: NOW,
        acknowledged: true,
        removed: None,
        forfeit,
    };
    let value = BlockValue {
        cidr: block,
        family: Family::V4,
        owner: "silent".into(),
        epoch: Some(Epoch::FIRST),
        claim: Link::FIRST,
        status: BlockStatus::Active,
        since: NOW,
    };
    let record = |&at: &u128| {
        let at = Family::V4.address(Address::new(at));
        key(allocation_key("net", at), Value::Flag(NOW))
    };
    let session = live.then(|| key(session_key("silent"), Value::Flag(NOW)));
    let spans = vec![
        vec![key(node_key("silent"), Value::Node(node))],
        session.into_iter().collect(),
        vec![key(pool().block_key(block.first()), Value::Block(value))],
        recorded.iter().map(record).collect(),
    ];
    Snapshot { revision: Revision::FIRST, spans }
}

/// Returns the first address and the size of the part that is taken, if an address from 16 to 31
/// is wanted so long after the node's last word.
fn taken(since: Duration, snapshot: &Snapshot) -> Option<(u128, u128)> {
    let block = Cidr::containing(Address::new(16), BlockSize::of_log2(4));
    let wanted = [AddressRange::between(Address::new(17), Address::new(30))];
    let part = forfeited(&pool(), block, "silent", &wanted, NOW + since, snapshot)?.part;
    Some((part.first().get(), part.size().addresses()))
}

#[test]
fn the_largest_part_without_a_record_is_taken_after_the_silence_only() {
    let forfeit = Some(Forfeit { after: AFTER, said: NOW, taken: 0 });
    let (early, late) = (AFTER - Duration::from_millis(1), AFTER);
    assert_eq!(taken(early, &snapshot(forfeit, false, &[])), None);
    assert_eq!(taken(late, &snapshot(forfeit, false, &[])), Some((16, 16)));
    assert_eq!(taken(late, &snapshot(forfeit, false, &[20])), Some((24, 8)));
    assert_eq!(taken(late, &snapshot(forfeit, false, &[20, 26])), Some((28, 4)));
    let all: Vec<u128> = (16..32).collect();
    assert_eq!(taken(late, &snapshot(forfeit, false, &all)), None);
    assert_eq!(taken(late, &snapshot(forfeit, false, &all[1..])), None, "16 is not wanted");
    assert_eq!(taken(late, &snapshot(forfeit, true, &[])), None, "it has a session");
    assert_eq!(taken(late, &snapshot(None, false, &[])), None, "it never said so");
}
