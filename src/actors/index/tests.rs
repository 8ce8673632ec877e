use std::net::Ipv4Addr;

use super::*;
use crate::core::attachment::Scope;

/// A holding out of a pool. Its container's id has 64 digits, like those of runtimes.
pub(crate) fn holding(pool: &str, number: u32, addresses: &[IpAddr]) -> Arc<Holding> {
    let container = format!("{number:08x}{:0>56}", "");
    let scope = Scope { network: pool.into(), ifname: "eth0".into(), pool: pool.into() };
    let scope = Arc::new(scope);
    Arc::new(Holding { scope, ..Holding::plain(&container, addresses.to_vec()) })
}

/// An index with so many holdings in a pool, the first of them of address 10.0.0.0.
pub(crate) fn filled(count: u32) -> Index {
    Index::new((0..count).map(|at| holding("pods", at, &[v4(at)])))
}

fn v4(at: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + at).into()
}

fn addresses(index: &Index, pool: Option<&str>, after: Option<(&str, IpAddr)>) -> Vec<IpAddr> {
    index.by_address(pool, after).flatten().map(|(address, _)| address).collect()
}

#[test]
fn lists_are_by_pool_and_address_and_go_on_behind_any_row() {
    let v6: IpAddr = "fd00::1".parse().unwrap();
    let index = Index::new([
        holding("b", 1, &[v4(7), v6]),
        holding("a", 2, &[v4(9)]),
        holding("b", 3, &[v4(3)]),
        holding("c", 4, &[v4(7)]),
    ]);
    assert_eq!(addresses(&index, None, None), [v4(9), v4(3), v4(7), v6, v4(7)]);
    assert_eq!(addresses(&index, Some("b"), None), [v4(3), v4(7), v6]);
    assert_eq!(addresses(&index, Some("bb"), None), [] as [IpAddr; 0]);
    assert_eq!(addresses(&index, None, Some(("b", v4(3)))), [v4(7), v6, v4(7)]);
    assert_eq!(addresses(&index, None, Some(("b", v6))), [v4(7)]);
    assert_eq!(addresses(&index, None, Some(("bb", v4(0)))), [v4(7)], "no such pool, or not now");
    assert_eq!(addresses(&index, Some("b"), Some(("a", v6))), [v4(3), v4(7), v6]);
    assert_eq!(addresses(&index, Some("b"), Some(("c", v4(0)))), [] as [IpAddr; 0]);
    assert_eq!(index.of_address(v4(7)).len(), 2, "one for each pool");
    assert!(index.uses_pool("c") && !index.uses_pool("d"));
}

#[test]
fn a_long_list_comes_in_pieces_and_misses_nothing() {
    let count = u32::try_from(limits::HOLDINGS_PER_LOCK_MAX).unwrap() * 3 + 7;
    let index = filled(count);
    let pieces: Vec<usize> = index.by_address(None, None).map(|piece| piece.len()).collect();
    assert_eq!(pieces, [256, 256, 256, 7]);
    assert!(addresses(&index, None, None).into_iter().eq((0..count).map(v4)));
    assert_eq!(index.all().len(), count as usize);
}

#[test]
fn containers_are_found_by_the_beginning_of_their_ids() {
    let text = |id: &str, at| {
        Arc::new(Holding { container_id: id.into(), ..(*holding("pods", 0, &[v4(at)])).clone() })
    };
    let index = filled(1_000);
    for (id, at) in [("web", 2_000), ("web-1", 2_001), ("00000000", 2_002), ("zz", 2_003)] {
        index.insert(text(id, at));
    }
    let found = |prefix: &str| index.by_container(prefix).flatten().count();
    let whole = format!("{:08x}{:0>56}", 7, "");
    assert_eq!([found(&whole), found("00000007"), found("0000001")], [1, 1, 16]);
    // Ids of 64 digits and others, which are kept apart.
    assert_eq!([found("web"), found("00000000"), found("zz"), found("x")], [2, 2, 1, 0]);
    assert_eq!(found(""), 1_004);
}

#[test]
fn a_repeated_add_replaces_and_an_end_removes() {
    let index = Index::new([holding("pods", 1, &[v4(1)])]);
    index.insert(holding("pods", 1, &[v4(2)]));
    assert_eq!(addresses(&index, None, None), [v4(2)]);
    // Of two holdings of one address, which a fault would make, both are seen by container.
    index.insert(holding("pods", 2, &[v4(2)]));
    assert_eq!((index.all().len(), addresses(&index, None, None).len()), (2, 1));
    index.remove(&holding("pods", 1, &[v4(2)]));
    assert_eq!(addresses(&index, None, None), [v4(2)], "that of the other one stays");
    index.remove(&holding("pods", 2, &[v4(2)]));
    assert_eq!((index.len(), index.all().len(), index.uses_pool("pods")), (0, 0, false));
}

/// The system may stop a reader while it has the lock. If a change waited for it, this test would
/// never end.
#[test]
fn a_change_waits_for_no_reader_and_every_later_one_sees_it() {
    let index = filled(3);
    let reader = index.read();
    for at in 10..100 {
        index.insert(holding("pods", at, &[v4(at)]));
    }
    index.remove(&holding("pods", 10, &[v4(10)]));
    drop(reader);
    assert_eq!(index.all().len(), 92);
    assert_eq!((index.of_address(v4(99)).len(), index.of_address(v4(10)).len()), (1, 0));
}

/// Calls take in what readers kept from being taken in, a few changes each, so that the queue does
/// not grow while nobody reads.
#[test]
fn the_queue_of_changes_gets_empty_without_a_reader() {
    let index = filled(0);
    let reader = index.read();
    (0..80).for_each(|at| index.insert(holding("pods", at, &[v4(at)])));
    drop(reader);
    (80..100).for_each(|at| index.insert(holding("pods", at, &[v4(at)])));
    let fed = index.ordered.lock().unwrap();
    assert_eq!(fed.changes.try_iter().count(), 0);
}
