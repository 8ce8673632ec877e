//! The written form of the store's values: JSON that a person can read with `etcdctl get`.
//!
//! Fields that this version does not know are skipped, so that a newer version may add some.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::{parse_rfc3339, rfc3339};
use crate::core::address::{Address, AddressRange, BlockSize, Cidr, Family};
use crate::core::ids::{Epoch, LeaseId, Link, Sequence};
use crate::core::time::{StartTime, UnixTime};
use crate::core::value::{
    AllocationValue, BlockStatus, BlockValue, Forfeit, Geometry, Message, MessageBody,
    NetworkValue, NodeValue, SessionValue, Value,
};

#[cfg(test)]
mod tests;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    epoch: u64,
    sequence: u64,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    machine_id: String,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    identity: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    first_epoch: u64,
    boot_id: String,
    version: String,
    since: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "settled")]
    acknowledged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forfeit: Option<ForfeitTerms>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForfeitTerms {
    after_seconds: u64,
    said: String,
    taken: u32,
}

#[derive(Serialize, Deserialize)]
struct Session {
    epoch: u64,
    /// In hexadecimal, as `etcdctl lease list` prints it.
    lease: String,
}

#[derive(Serialize, Deserialize)]
struct Flag {
    since: String,
}

#[derive(Serialize, Deserialize)]
struct Network {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipam: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    geometry: Vec<RangeSet>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeSet {
    family: String,
    /// A prefix length, as in a network's configuration.
    block_size: u8,
    ranges: Vec<(IpAddr, IpAddr)>,
}

#[derive(Serialize, Deserialize)]
struct Block {
    prefix: IpNet,
    owner: String,
    epoch: u64,
    claim: u64,
    state: Status,
    since: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Spare,
    Active,
    Quarantined,
    Parked,
}

#[derive(Serialize, Deserialize)]
struct Letter {
    from: String,
    lease: String,
    family: String,
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Body {
    Ask { wanted: Vec<(IpAddr, IpAddr)>, even_cooling: bool },
    Given { blocks: Vec<IpNet> },
    Refused,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Allocation {
    node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    container_id: String,
    ifname: String,
    addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    namespace: String,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pod: String,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    stage: String,
    netns: String,
    since: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    sequence: u64,
}

/// A value as JSON. An unreadable value is written as a string; no readable value is a string, so
/// it stays unreadable.
pub fn encode(value: &Value) -> Vec<u8> {
    match value {
        Value::Node(node) => json(&Node::from(node)),
        Value::Session(SessionValue { epoch, lease }) => {
            json(&Session { epoch: epoch.get(), lease: hex(*lease) })
        }
        Value::Network(network) => json(&Network::from(network)),
        Value::Block(block) => json(&Block::from(block)),
        Value::Message(message) => json(&Letter::from(message)),
        Value::Allocation(allocation) => json(&Allocation::from(&**allocation)),
        Value::Flag(since) => json(&Flag { since: rfc3339(*since) }),
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Unreadable(why) => json(&format!("unreadable: {why}")),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("a value is plain data"))
}

/// The value of a key. [`Value::Unreadable`] has the fault and its place.
pub fn decode(key: &str, bytes: &[u8]) -> Value {
    let read = match key.split_once('/').map_or(key, |(kind, _)| kind) {
        "nodes" | "forgotten" => parse::<Node>(bytes).and_then(|node| node.value()),
        "sessions" => parse::<Session>(bytes).and_then(|session| session.value()),
        "networks" => parse::<Network>(bytes).and_then(|network| network.value()),
        "blocks" => parse::<Block>(bytes).and_then(|block| block.value()),
        "requests" => parse::<Letter>(bytes).and_then(|letter| letter.value()),
        "allocations" => parse::<Allocation>(bytes).and_then(|allocation| allocation.value()),
        "asked" | "told" => text(bytes),
        "drains" | "restored" => parse::<Flag>(bytes).and_then(|flag| flag.value()),
        _ => Err("this version does not know such a key".to_owned()),
    };
    read.unwrap_or_else(|why| Value::Unreadable(format!("{key}: {why}").into()))
}

/// A text that is an object or an array of JSON, which its reader knows.
fn text(bytes: &[u8]) -> Result<Value, String> {
    let json: &RawValue = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match json.get().starts_with(['{', '[']) {
        true => Ok(Value::Text(json.get().into())),
        false => Err("it is neither an object nor an array".to_owned()),
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

impl From<&NodeValue> for Node {
    fn from(node: &NodeValue) -> Self {
        Self {
            epoch: node.epoch.get(),
            sequence: node.sequence.map_or(0, Link::get),
            machine_id: node.machine_id.as_deref().unwrap_or_default().to_owned(),
            identity: node.identity.as_deref().unwrap_or_default().to_owned(),
            first_epoch: node.first_epoch.map_or(0, Epoch::get),
            boot_id: node.boot_id.to_string(),
            version: node.version.to_string(),
            since: rfc3339(node.since),
            acknowledged: node.acknowledged,
            removed: node.removed.map(rfc3339),
            forfeit: node.forfeit.map(|Forfeit { after, said, taken }| ForfeitTerms {
                after_seconds: after.as_secs(),
                said: rfc3339(said),
                taken,
            }),
        }
    }
}

/// A text that is left out in the written form if there is none.
fn unless_empty(text: String) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

impl Node {
    fn value(self) -> Result<Value, String> {
        Ok(Value::Node(NodeValue {
            epoch: epoch(self.epoch)?,
            sequence: Link::new(self.sequence),
            machine_id: unless_empty(self.machine_id),
            identity: unless_empty(self.identity),
            first_epoch: Epoch::new(self.first_epoch),
            boot_id: self.boot_id.into(),
            version: self.version.into(),
            since: time("since", &self.since)?,
            acknowledged: self.acknowledged,
            removed: match self.removed {
                Some(removed) => Some(time("removed", &removed)?),
                None => None,
            },
            forfeit: self.forfeit.map(ForfeitTerms::value).transpose()?,
        }))
    }
}

impl ForfeitTerms {
    fn value(self) -> Result<Forfeit, String> {
        let after = Duration::from_secs(self.after_seconds);
        Ok(Forfeit { after, said: time("said", &self.said)?, taken: self.taken })
    }
}

impl Flag {
    fn value(self) -> Result<Value, String> {
        Ok(Value::Flag(time("since", &self.since)?))
    }
}

impl Session {
    fn value(self) -> Result<Value, String> {
        Ok(Value::Session(SessionValue { epoch: epoch(self.epoch)?, lease: lease(&self.lease)? }))
    }
}

impl From<&NetworkValue> for Network {
    fn from(network: &NetworkValue) -> Self {
        let range_set = |geometry: &Geometry| RangeSet {
            family: geometry.family.to_string(),
            block_size: geometry.block_size.prefix(geometry.family),
            ranges: pairs(geometry.family, &geometry.ranges),
        };
        Self {
            ipam: network.ipam.as_deref().map(raw),
            geometry: network.geometry.iter().map(range_set).collect(),
        }
    }
}

/// The text as it is. A text that is not JSON is written as a string, which is unreadable; that is
/// better than losing it.
fn raw(text: &str) -> Box<RawValue> {
    let string = || serde_json::value::to_raw_value(text);
    RawValue::from_string(text.to_owned())
        .or_else(|_| string())
        .unwrap_or_else(|_| unreachable!("a string is plain data"))
}

impl Network {
    fn value(self) -> Result<Value, String> {
        let ipam = match self.ipam {
            Some(ipam) if ipam.get().starts_with('{') => Some(ipam.get().into()),
            Some(_) => return Err("ipam must be an object".to_owned()),
            None => None,
        };
        let geometry = self.geometry.into_iter().map(RangeSet::value).collect::<Result<_, _>>()?;
        Ok(Value::Network(NetworkValue { ipam, geometry }))
    }
}

impl RangeSet {
    fn value(self) -> Result<Geometry, String> {
        let family = family(&self.family)?;
        let block_size = BlockSize::of_prefix(family, self.block_size);
        let block_size = block_size.ok_or_else(|| {
            format!("blockSize: {} is not a prefix length of {family}", self.block_size)
        })?;
        Ok(Geometry { family, block_size, ranges: numbers("ranges", family, &self.ranges)? })
    }
}

impl From<&BlockValue> for Block {
    fn from(block: &BlockValue) -> Self {
        Self {
            prefix: block.cidr.net(block.family),
            owner: block.owner.to_string(),
            epoch: block.epoch.map_or(0, Epoch::get),
            claim: block.claim.get(),
            state: match block.status {
                BlockStatus::Spare => Status::Spare,
                BlockStatus::Active => Status::Active,
                BlockStatus::Quarantined => Status::Quarantined,
                BlockStatus::Parked => Status::Parked,
            },
            since: rfc3339(block.since),
        }
    }
}

impl Block {
    fn value(self) -> Result<Value, String> {
        let family = Family::of(self.prefix.addr());
        Ok(Value::Block(BlockValue {
            cidr: run("prefix", family, self.prefix)?,
            family,
            owner: self.owner.into(),
            epoch: Epoch::new(self.epoch),
            claim: link(self.claim)?,
            status: match self.state {
                Status::Spare => BlockStatus::Spare,
                Status::Active => BlockStatus::Active,
                Status::Quarantined => BlockStatus::Quarantined,
                Status::Parked => BlockStatus::Parked,
            },
            since: time("since", &self.since)?,
        }))
    }
}

impl From<&Message> for Letter {
    fn from(message: &Message) -> Self {
        let family = message.family;
        Self {
            from: message.from.to_string(),
            lease: hex(message.lease),
            family: family.to_string(),
            body: match &message.body {
                MessageBody::Ask { wanted, even_cooling } => {
                    Body::Ask { wanted: pairs(family, wanted), even_cooling: *even_cooling }
                }
                MessageBody::Given(cidrs) => {
                    Body::Given { blocks: cidrs.iter().map(|cidr| cidr.net(family)).collect() }
                }
                MessageBody::Refused => Body::Refused,
            },
        }
    }
}

impl Letter {
    fn value(self) -> Result<Value, String> {
        let family = family(&self.family)?;
        Ok(Value::Message(Message {
            from: self.from.into(),
            lease: lease(&self.lease)?,
            family,
            body: match self.body {
                Body::Ask { wanted, even_cooling } => {
                    MessageBody::Ask { wanted: numbers("wanted", family, &wanted)?, even_cooling }
                }
                Body::Given { blocks } => {
                    let cidrs = blocks.into_iter().map(|net| run("blocks", family, net));
                    MessageBody::Given(cidrs.collect::<Result<_, _>>()?)
                }
                Body::Refused => MessageBody::Refused,
            },
        }))
    }
}

impl From<&AllocationValue> for Allocation {
    fn from(allocation: &AllocationValue) -> Self {
        Self {
            node: allocation.node.to_string(),
            network: allocation.network.as_ref().map(ToString::to_string),
            container_id: allocation.container_id.to_string(),
            ifname: allocation.ifname.to_string(),
            addresses: allocation.addresses.clone(),
            namespace: allocation.namespace.to_string(),
            pod: allocation.pod.to_string(),
            stage: allocation.stage.to_string(),
            netns: allocation.netns.to_string(),
            since: rfc3339(allocation.since),
            started_at: allocation.started_at.map(StartTime::as_nanos),
            sequence: allocation.sequence.get(),
        }
    }
}

impl Allocation {
    fn value(self) -> Result<Value, String> {
        Ok(Value::Allocation(Box::new(AllocationValue {
            node: self.node.into(),
            network: self.network.map(Into::into),
            container_id: self.container_id.into(),
            ifname: self.ifname.into(),
            addresses: self.addresses,
            namespace: self.namespace.into(),
            pod: self.pod.into(),
            stage: self.stage.into(),
            netns: self.netns.into(),
            since: time("since", &self.since)?,
            started_at: self.started_at.map(StartTime::from_nanos),
            sequence: Sequence::new(self.sequence),
        })))
    }
}

fn hex(lease: LeaseId) -> String {
    format!("{lease:x}")
}

fn lease(text: &str) -> Result<LeaseId, String> {
    let lease = i64::from_str_radix(text, 16).ok().and_then(LeaseId::new);
    lease.ok_or_else(|| format!("lease: {text:?} is not a lease in hexadecimal"))
}

fn epoch(number: u64) -> Result<Epoch, String> {
    Epoch::new(number).ok_or_else(|| "epoch: 0 is not an epoch, they count from 1".to_owned())
}

fn link(claim: u64) -> Result<Link, String> {
    Link::new(claim)
        .ok_or_else(|| "claim: 0 is not a link of a chain, they count from 1".to_owned())
}

fn family(text: &str) -> Result<Family, String> {
    Family::parse(text).ok_or_else(|| format!("family: {text:?} is neither ipv4 nor ipv6"))
}

fn time(field: &str, text: &str) -> Result<UnixTime, String> {
    parse_rfc3339(text).map_err(|error| format!("{field}: {error}"))
}

/// A prefix of a family. Host bits mean that somebody wrote the value by hand and made a mistake.
fn run(field: &str, family: Family, net: IpNet) -> Result<Cidr, String> {
    if Family::of(net.addr()) != family {
        return Err(format!("{field}: {net} is not {family}"));
    }
    if net.addr() != net.network() {
        return Err(format!("{field}: {net} has host bits; the prefix is {}", net.trunc()));
    }
    Ok(Cidr::of(net))
}

fn pairs(family: Family, ranges: &[AddressRange]) -> Vec<(IpAddr, IpAddr)> {
    let pair = |range: &AddressRange| (family.address(range.first()), family.address(range.last()));
    ranges.iter().map(pair).collect()
}

fn numbers(
    field: &str,
    family: Family,
    ranges: &[(IpAddr, IpAddr)],
) -> Result<Vec<AddressRange>, String> {
    let numbers = |&(first, last): &(IpAddr, IpAddr)| {
        let of_family = Family::of(first) == family && Family::of(last) == family;
        let range = AddressRange::new(Address::of(first), Address::of(last));
        let wrong =
            || format!("{field}: {first} to {last} is not a range of {family} addresses in order");
        range.filter(|_| of_family).ok_or_else(wrong)
    };
    ranges.iter().map(numbers).collect()
}
