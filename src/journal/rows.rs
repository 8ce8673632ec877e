//! The rows of the journal's tables: JSON, so that a person can read them too.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::address::{Address, AddressRange, BlockSize, Cidr, Family};
use crate::core::attachment::{Holding, Netns, Pod, Scope};
use crate::core::ids::Sequence;
use crate::core::journal::Cooling;
use crate::core::keys::PoolFamily;
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::stage::Stage;
use crate::core::time::{BootTime, StartTime, UnixTime};

/// Network, family and first address.
pub(super) type BlockKey<'a> = (&'a str, &'a str, u128);

/// A holding without its key.
#[derive(Serialize, Deserialize)]
pub(super) struct HoldingRow<'a> {
    /// Absent: the attachment's own network.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(borrow)]
    pool: Option<Cow<'a, str>>,
    addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    since_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(borrow)]
    stage: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(borrow)]
    pod: Option<Cow<'a, str>>,
    #[serde(borrow)]
    netns: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns_inode: Option<NonZeroU32>,
}

#[derive(Serialize, Deserialize)]
struct SetRow<'a> {
    network: Cow<'a, str>,
    family: Cow<'a, str>,
    block_log2: u8,
    ranges: Vec<(IpAddr, IpAddr)>,
}

/// The key of a holding; `container` is the text of its container's id.
pub(super) fn key<'k>(
    holding: &'k Holding,
    container: &'k str,
) -> (u64, &'k str, &'k str, &'k str) {
    (holding.sequence.get(), &holding.scope.network, container, &holding.scope.ifname)
}

/// The row of a holding.
pub(super) fn holding(holding: &Holding) -> Vec<u8> {
    encode(&holding_row(holding))
}

/// The row of a holding, as a value.
pub(super) fn holding_row(holding: &Holding) -> HoldingRow<'_> {
    let (scope, pod) = (&holding.scope, holding.pod.as_deref());
    HoldingRow {
        pool: (scope.pool != scope.network).then(|| (&*scope.pool).into()),
        addresses: holding.addresses.to_vec(),
        started_at: holding.started_at.map(StartTime::as_nanos),
        since_unix_ms: holding.since.as_millis(),
        stage: holding.stage.map(|stage| stage.as_str().into()),
        namespace: pod.map(|pod| (*pod.namespace).into()),
        pod: pod.map(|pod| (*pod.name).into()),
        netns: (*holding.netns.path).into(),
        netns_inode: holding.netns.inode,
    }
}

/// A holding from its row.
pub(super) fn read_holding(key: (u64, &str, &str, &str), value: &[u8]) -> anyhow::Result<Holding> {
    holding_of(key, serde_json::from_slice(value)?)
}

/// A holding from its row, as a value.
pub(super) fn holding_of(
    (sequence, network, container_id, ifname): (u64, &str, &str, &str),
    row: HoldingRow<'_>,
) -> anyhow::Result<Holding> {
    let network: Arc<str> = network.into();
    let pool = row.pool.map_or_else(|| network.clone(), |pool| (&*pool).into());
    let pod = row.pod.map(|name| {
        Box::new(Pod {
            namespace: (&*row.namespace.unwrap_or_default()).into(),
            name: (&*name).into(),
        })
    });
    let stage = match row.stage {
        Some(word) => Some(Stage::parse(&word).ok_or(anyhow::anyhow!("unknown stage {word}"))?),
        None => None,
    };
    Ok(Holding {
        scope: Arc::new(Scope { network, ifname: ifname.into(), pool }),
        container_id: container_id.into(),
        addresses: row.addresses.into(),
        sequence: Sequence::new(sequence),
        started_at: row.started_at.map(StartTime::from_nanos),
        since: UnixTime::from_millis(row.since_unix_ms),
        stage,
        pod,
        netns: Netns { path: (&*row.netns).into(), inode: row.netns_inode },
    })
}

/// Time of release in milliseconds on the boot clock, range set, address.
pub(super) type CoolingRow = (u64, u32, u128);

/// The row of a cooling address.
pub(super) fn cooling((released, set, number): Cooling) -> CoolingRow {
    (released.as_millis(), set.get(), number.get())
}

/// A cooling address from its row.
pub(super) fn read_cooling((released, set, number): CoolingRow) -> Cooling {
    (BootTime::from_millis(released), SetId::new(set), Address::new(number))
}

/// In the value of a block: the store gave it to others.
const LOST: u8 = 0x80;

/// The key and the value of a block.
pub(super) fn block(pool: &PoolFamily, cidr: Cidr, lost: bool) -> (BlockKey<'_>, u8) {
    let key = (&*pool.network, pool.family.as_str(), cidr.first().get());
    (key, if lost { cidr.size().log2() | LOST } else { cidr.size().log2() })
}

/// The block around this address with this value, and whether it is lost.
pub(super) fn block_of(start: u128, value: u8) -> (Cidr, bool) {
    let size = BlockSize::of_log2(value & !LOST);
    (Cidr::containing(Address::new(start), size), value & LOST != 0)
}

/// A block from its row, and whether it is lost.
pub(super) fn read_block(
    (network, family, start): BlockKey<'_>,
    value: u8,
) -> anyhow::Result<(PoolFamily, Cidr, bool)> {
    let family = Family::parse(family).ok_or(anyhow::anyhow!("unknown family"))?;
    let (cidr, lost) = block_of(start, value);
    let sound = cidr.size() <= BlockSize::MAX && cidr.first().get() == start;
    anyhow::ensure!(sound, "impossible block");
    Ok((PoolFamily { network: network.into(), family }, cidr, lost))
}

/// The row of a range set.
pub(super) fn set(set: &SetIdentity) -> Vec<u8> {
    let address = |number| set.family.address(number);
    encode(&SetRow {
        network: (&*set.network).into(),
        family: set.family.as_str().into(),
        block_log2: set.block_size.log2(),
        ranges: set
            .ranges
            .iter()
            .map(|range| (address(range.first()), address(range.last())))
            .collect(),
    })
}

/// A range set from its row.
pub(super) fn read_set(id: SetId, value: &[u8]) -> anyhow::Result<SetIdentity> {
    let row: SetRow<'_> = serde_json::from_slice(value)?;
    let family = Family::parse(&row.family).ok_or(anyhow::anyhow!("unknown family"))?;
    let block_size = BlockSize::of_log2(row.block_log2);
    anyhow::ensure!(block_size <= BlockSize::MAX, "impossible block size");
    let range = |&(first, last): &(IpAddr, IpAddr)| {
        let range = AddressRange::new(Address::of(first), Address::of(last));
        range.ok_or_else(|| anyhow::anyhow!("range {first} to {last} is not in order"))
    };
    Ok(SetIdentity {
        id,
        network: (&*row.network).into(),
        family,
        block_size,
        ranges: row.ranges.iter().map(range).collect::<anyhow::Result<_>>()?,
    })
}

/// JSON of a row; rows have string keys and plain values, so nothing can go wrong.
pub(super) fn encode(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).unwrap_or_else(|_| unreachable!("a row is plain data"))
}
