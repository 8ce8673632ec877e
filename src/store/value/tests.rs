use super::*;
use crate::core::ids::{Epoch, Link, Sequence};
use crate::core::time::StartTime;
use proptest::prelude::*;

fn v4(text: &str) -> Address {
    Address::of(text.parse().unwrap())
}

/// A value with its key and its exact text, which operators see and other versions read.
type Pinned = (&'static str, Value, &'static str);

fn pinned_nodes() -> Vec<Pinned> {
    let node = NodeValue {
        epoch: Epoch::new(7).unwrap(),
        sequence: Link::new(12),
        machine_id: Some("4c4c".into()),
        identity: Some("0b9d6c0e".into()),
        first_epoch: Epoch::new(3),
        boot_id: "b-1".into(),
        version: "0.1.0".into(),
        since: UnixTime::from_millis(1_700_000_000_123),
        acknowledged: false,
        removed: None,
        forfeit: Some(Forfeit {
            after: Duration::from_secs(3_600),
            said: UnixTime::from_millis(1_700_000_000_124),
            taken: 2,
        }),
    };
    let removed = NodeValue {
        machine_id: None,
        identity: None,
        first_epoch: None,
        acknowledged: true,
        removed: Some(UnixTime::from_millis(0)),
        forfeit: None,
        ..node.clone()
    };
    let session =
        SessionValue { epoch: Epoch::new(7).unwrap(), lease: LeaseId::new(0x694d_8c2f).unwrap() };
    vec![
        (
            "nodes/n",
            Value::Node(node),
            concat!(
                r#"{"epoch":7,"sequence":12,"machineId":"4c4c","identity":"0b9d6c0e","#,
                r#""firstEpoch":3,"bootId":"b-1","#,
                r#""version":"0.1.0","since":"2023-11-14T22:13:20.123Z","#,
                r#""forfeit":{"afterSeconds":3600,"said":"2023-11-14T22:13:20.124Z","taken":2}}"#,
            ),
        ),
        (
            "nodes/n",
            Value::Node(removed),
            concat!(
                r#"{"epoch":7,"sequence":12,"bootId":"b-1","version":"0.1.0","#,
                r#""since":"2023-11-14T22:13:20.123Z","settled":true,"#,
                r#""removed":"1970-01-01T00:00:00.000Z"}"#,
            ),
        ),
        ("sessions/n", Value::Session(session), r#"{"epoch":7,"lease":"694d8c2f"}"#),
        (
            "restored",
            Value::Flag(UnixTime::from_millis(0)),
            r#"{"since":"1970-01-01T00:00:00.000Z"}"#,
        ),
        (
            "drains/n",
            Value::Flag(UnixTime::from_millis(0)),
            r#"{"since":"1970-01-01T00:00:00.000Z"}"#,
        ),
    ]
}

fn pinned_blocks() -> Vec<Pinned> {
    let geometry = Geometry {
        family: Family::V4,
        block_size: BlockSize::of_log2(6),
        ranges: vec![AddressRange::between(v4("10.1.0.1"), v4("10.1.255.254"))],
    };
    let ipam = Some(r#"{"type": "my-ipam"}"#.into());
    let network = NetworkValue { ipam, geometry: vec![geometry] };
    let block = BlockValue {
        cidr: Cidr::containing(v4("10.1.2.0"), BlockSize::of_log2(6)),
        family: Family::V4,
        owner: "node-1".into(),
        epoch: Epoch::new(7),
        claim: Link::new(12).unwrap(),
        status: BlockStatus::Active,
        since: UnixTime::from_millis(1_700_000_000_000),
    };
    let spare = BlockValue { status: BlockStatus::Spare, ..block.clone() };
    let quarantined = BlockValue {
        cidr: Cidr::containing(v4("2001:db8::"), BlockSize::of_log2(64)),
        family: Family::V6,
        status: BlockStatus::Quarantined,
        ..block.clone()
    };
    macro_rules! block {
        ($prefix:literal, $state:literal) => {
            concat!(
                r#"{"prefix":""#,
                $prefix,
                r#"","owner":"node-1","epoch":7,"claim":12,"state":""#,
                $state,
                r#"","since":"2023-11-14T22:13:20.000Z"}"#,
            )
        };
    }
    let key = "blocks/n/ipv4/010.001.002.000";
    vec![
        ("networks/n", Value::Network(NetworkValue::default()), "{}"),
        (
            "networks/n",
            Value::Network(network),
            concat!(
                r#"{"ipam":{"type": "my-ipam"},"geometry":[{"family":"ipv4","#,
                r#""blockSize":26,"ranges":[["10.1.0.1","10.1.255.254"]]}]}"#,
            ),
        ),
        (key, Value::Block(block), block!("10.1.2.0/26", "active")),
        (key, Value::Block(spare), block!("10.1.2.0/26", "spare")),
        ("blocks/n/ipv6/x", Value::Block(quarantined), block!("2001:db8::/64", "quarantined")),
    ]
}

fn pinned_messages() -> Vec<Pinned> {
    let message = |body| {
        Value::Message(Message {
            from: "a".into(),
            lease: LeaseId::new(0x694d).unwrap(),
            family: Family::V4,
            body,
        })
    };
    let wanted = vec![AddressRange::between(v4("10.1.2.3"), v4("10.1.2.5"))];
    let given = vec![Cidr::containing(v4("10.1.2.4"), BlockSize::of_log2(1))];
    macro_rules! message {
        ($says:literal) => {
            concat!(r#"{"from":"a","lease":"694d","family":"ipv4","says":"#, $says)
        };
    }
    vec![
        (
            "requests/n/b/a.1",
            message(MessageBody::Ask { wanted, even_cooling: true }),
            message!(r#""ask","wanted":[["10.1.2.3","10.1.2.5"]],"evenCooling":true}"#),
        ),
        (
            "requests/n/b/a.1",
            message(MessageBody::Given(given)),
            message!(r#""given","blocks":["10.1.2.4/31"]}"#),
        ),
        ("requests/n/b/a.1", message(MessageBody::Refused), message!(r#""refused"}"#)),
    ]
}

#[test]
fn every_kind_is_written_as_people_and_other_versions_read_it() {
    let pinned = [pinned_nodes(), pinned_blocks(), pinned_messages()];
    for (key, value, text) in pinned.into_iter().flatten() {
        assert_eq!(String::from_utf8(encode(&value)).unwrap(), text, "{key}");
        assert_eq!(decode(key, text.as_bytes()), value, "{key}");
        let newer = text.replacen('{', r#"{"newer":[1],"#, 1).replace(",}", "}");
        assert_eq!(decode(key, newer.as_bytes()), value, "{newer}");
    }
}

#[test]
fn an_allocation_is_written_without_what_it_has_not() {
    let mut allocation = AllocationValue {
        node: "node-1".into(),
        network: Some("n1".into()),
        container_id: "c1".into(),
        ifname: "eth0".into(),
        addresses: vec!["10.1.2.3".parse().unwrap(), "2001:db8::5".parse().unwrap()],
        namespace: "default".into(),
        pod: "web-0-sandbox-x".into(),
        stage: "sandbox".into(),
        netns: "/run/netns/a".into(),
        since: UnixTime::from_millis(1_700_000_000_000),
        started_at: Some(StartTime::from_nanos(99)),
        sequence: Sequence::new(5),
    };
    let text = |allocation: &AllocationValue| {
        let value = Value::Allocation(Box::new(allocation.clone()));
        let bytes = encode(&value);
        assert_eq!(decode("allocations/n/10.1.2.3", &bytes), value);
        String::from_utf8(bytes).unwrap()
    };
    let full = concat!(
        r#"{"node":"node-1","network":"n1","containerId":"c1","ifname":"eth0","#,
        r#""addresses":["10.1.2.3","2001:db8::5"],"namespace":"default","#,
        r#""pod":"web-0-sandbox-x","stage":"sandbox","netns":"/run/netns/a","#,
        r#""since":"2023-11-14T22:13:20.000Z","startedAt":99,"sequence":5}"#,
    );
    assert_eq!(text(&allocation), full);
    allocation = AllocationValue {
        network: None,
        namespace: "".into(),
        pod: "".into(),
        stage: "".into(),
        started_at: None,
        ..allocation
    };
    let bare = concat!(
        r#"{"node":"node-1","containerId":"c1","ifname":"eth0","#,
        r#""addresses":["10.1.2.3","2001:db8::5"],"netns":"/run/netns/a","#,
        r#""since":"2023-11-14T22:13:20.000Z","sequence":5}"#,
    );
    assert_eq!(text(&allocation), bare);
}

#[test]
fn what_cannot_be_read_says_why() {
    let block = |prefix: &str, state: &str, since: &str| {
        format!(
            concat!(
                r#"{{"prefix":"{}","owner":"n","epoch":1,"claim":1,"#,
                r#""state":"{}","since":"{}"}}"#
            ),
            prefix, state, since
        )
    };
    let good = "2023-11-14T22:13:20.000Z";
    let letter = |lease: &str, family: &str, wanted: &str| {
        format!(
            concat!(
                r#"{{"from":"a","lease":"{}","family":"{}","says":"ask","#,
                r#""wanted":{},"evenCooling":false}}"#
            ),
            lease, family, wanted
        )
    };
    let geometry = |size: u8| {
        format!(r#"{{"geometry":[{{"family":"ipv4","blockSize":{size},"ranges":[]}}]}}"#)
    };
    for (key, text, words) in [
        ("blocks/b", block("10.1.2.1/26", "active", good), ["prefix", "10.1.2.0/26"].as_slice()),
        ("blocks/b", block("10.1.2.0/33", "active", good), &["address", "column 23"]),
        ("blocks/b", block("10.1.2.0/26", "free", good), &["free", "spare"]),
        ("blocks/b", block("10.1.2.0/26", "active", "yesterday"), &["since"]),
        ("blocks/b", String::new(), &["EOF"]),
        ("blocks/b", "[]".to_owned(), &["expected struct"]),
        ("requests/r", letter("0", "ipv4", "[]"), &["lease"]),
        ("requests/r", letter("xyz", "ipv4", "[]"), &["lease", "xyz"]),
        ("requests/r", letter("1", "ipv5", "[]"), &["family", "ipv5"]),
        ("requests/r", letter("1", "ipv4", r#"[["::1","::2"]]"#), &["wanted", "::1", "ipv4"]),
        ("requests/r", letter("1", "ipv4", r#"[["10.0.0.2","10.0.0.1"]]"#), &["wanted", "order"]),
        ("networks/n", r#"{"ipam":"text"}"#.to_owned(), &["ipam", "object"]),
        ("networks/n", geometry(33), &["blockSize", "33"]),
        ("sessions/s", r#"{"epoch":-1,"lease":"1"}"#.to_owned(), &["-1"]),
        ("sessions/s", r#"{"epoch":0,"lease":"1"}"#.to_owned(), &["epoch", "0"]),
        ("other/o", "{}".to_owned(), &["does not know such a key"]),
    ] {
        let Value::Unreadable(why) = decode(key, text.as_bytes()) else { panic!("{text} is read") };
        for word in [key].iter().chain(words) {
            assert!(why.contains(word), "{why:?} has no {word:?}");
        }
        let again = encode(&Value::Unreadable(why));
        assert!(matches!(decode(key, &again), Value::Unreadable(_)));
    }
}

#[test]
fn an_ipam_object_that_is_none_is_not_lost() {
    let network = NetworkValue { ipam: Some("{broken".into()), geometry: Vec::new() };
    let bytes = encode(&Value::Network(network));
    assert_eq!(bytes, br#"{"ipam":"{broken"}"#);
    assert!(matches!(decode("networks/n", &bytes), Value::Unreadable(_)));
}

fn family_and_number() -> impl Strategy<Value = (Family, Address)> {
    prop_oneof![
        any::<u32>().prop_map(|number| (Family::V4, Address::new(u128::from(number)))),
        any::<u128>().prop_map(|number| (Family::V6, Address::new(number))),
    ]
}

fn any_run() -> impl Strategy<Value = (Family, Cidr)> {
    (family_and_number(), 0..=32_u8)
        .prop_map(|((family, at), log2)| (family, Cidr::containing(at, BlockSize::of_log2(log2))))
}

fn any_ranges() -> impl Strategy<Value = (Family, Vec<AddressRange>)> {
    let pair = |family| {
        let number = match family {
            Family::V4 => 0..=u128::from(u32::MAX),
            Family::V6 => 0..=u128::MAX,
        };
        (number.clone(), number)
            .prop_map(|(a, b)| AddressRange::between(Address::new(a), Address::new(b)))
    };
    prop_oneof![Just(Family::V4), Just(Family::V6)]
        .prop_flat_map(move |family| (Just(family), proptest::collection::vec(pair(family), 0..4)))
}

/// Milliseconds up to the year 9999, the last one that RFC 3339 has.
const MS: std::ops::Range<u64> = 0..253_402_300_800_000;

fn at_least_first(epoch: u64) -> Epoch {
    Epoch::new(epoch).unwrap_or(Epoch::FIRST)
}

fn any_network() -> impl Strategy<Value = (&'static str, Value)> {
    let text = ".{0,12}";
    (proptest::collection::vec((any_ranges(), 0..=32_u8), 0..3), text).prop_map(|(sets, text)| {
        let ipam = serde_json::json!({ "type": text }).to_string();
        let set = |((family, ranges), log2)| {
            let block_size = BlockSize::of_log2(log2);
            Geometry { family, block_size, ranges }
        };
        let geometry = sets.into_iter().map(set).collect();
        ("networks/n", Value::Network(NetworkValue { ipam: Some(ipam.into()), geometry }))
    })
}

fn any_value() -> impl Strategy<Value = (&'static str, Value)> {
    let text = || ".{0,12}";
    let lease = || (1..=i64::MAX).prop_map(|lease| LeaseId::new(lease).unwrap());
    let numbers = || (any::<u64>(), any::<u64>());
    let node = (numbers(), text(), MS, any::<bool>(), proptest::option::of(MS)).prop_map(
        |((epoch, sequence), text, since, settled, removed)| {
            let boot_id: Arc<str> = text.into();
            let (version, first_epoch) = (boot_id.clone(), Some(at_least_first(epoch)));
            let machine_id = (!boot_id.is_empty()).then(|| boot_id.clone());
            let identity = machine_id.clone();
            (
                "nodes/n",
                Value::Node(NodeValue {
                    epoch: at_least_first(epoch),
                    sequence: Link::new(sequence),
                    machine_id,
                    identity,
                    first_epoch,
                    boot_id,
                    version,
                    since: UnixTime::from_millis(since),
                    acknowledged: settled,
                    removed: removed.map(UnixTime::from_millis),
                    forfeit: removed.map(|said| Forfeit {
                        after: Duration::from_secs(since),
                        said: UnixTime::from_millis(said),
                        taken: 1,
                    }),
                }),
            )
        },
    );
    let session = (any::<u64>(), lease()).prop_map(|(epoch, lease)| {
        ("sessions/n", Value::Session(SessionValue { epoch: at_least_first(epoch), lease }))
    });
    let status = prop_oneof![
        Just(BlockStatus::Spare),
        Just(BlockStatus::Active),
        Just(BlockStatus::Quarantined),
        Just(BlockStatus::Parked),
    ];
    let block = (any_run(), text(), numbers(), status, MS).prop_map(
        |((family, cidr), owner, (epoch, claim), status, since)| {
            let owner = owner.into();
            (
                "blocks/n",
                Value::Block(BlockValue {
                    cidr,
                    family,
                    owner,
                    epoch: Epoch::new(epoch),
                    claim: Link::new(claim).unwrap_or(Link::FIRST),
                    status,
                    since: UnixTime::from_millis(since),
                }),
            )
        },
    );
    let ask = (any_ranges(), any::<bool>()).prop_map(|((family, wanted), even_cooling)| {
        (family, MessageBody::Ask { wanted, even_cooling })
    });
    let given = any_run().prop_map(|(family, cidr)| (family, MessageBody::Given(vec![cidr])));
    let message =
        (text(), lease(), prop_oneof![ask, given]).prop_map(|(from, lease, (family, body))| {
            let from = from.into();
            ("requests/n", Value::Message(Message { from, lease, family, body }))
        });
    prop_oneof![node, session, any_network(), block, message]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((key, value) in any_value()) {
        prop_assert_eq!(decode(key, &encode(&value)), value);
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        for kind in ["nodes", "sessions", "networks", "blocks", "requests", "allocations"] {
            let value = decode(&format!("{kind}/x"), &bytes);
            prop_assert!(matches!(value, Value::Unreadable(_) | Value::Network(_)));
        }
    }
}
