//! `/v1/map`: every range set of the cluster with its blocks, their owners and their fill, for the
//! page at `/`.
//!
//! Blocks, sessions and drains are known from watches. What is held in the blocks of other nodes is
//! counted in the records of the cluster's store, which are all read for it: once for all who look,
//! and so seldom that it takes a small part of the time ([`limits::MAP_REST`]).

mod count;

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use self::count::Counted;
use super::cluster::Refusal;
use super::lists::Whole;
use super::pools::PlacedBlock;
use super::sets::{KnownSet, Sets};
use super::{AppState, EMBEDDED, guard};
use crate::actors::BlockFigures;
use crate::core::address::{Address, AddressRange, Family};
use crate::core::block::BlockState;
use crate::core::keys::PoolFamily;
use crate::core::value::BlockStatus;
use crate::{clock, limits};

pub use self::count::Counts;

/// The address map.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Map {
    /// The node that answers.
    pub node: String,
    /// The version of its daemon.
    pub version: String,
    /// True if the node shares its pools with others, through etcd.
    pub shared: bool,
    /// The time of this answer, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The time at which the records of other nodes' allocations were counted, in milliseconds
    /// since 1970; null: they could not be read yet.
    pub counted_unix_ms: Option<u64>,
    /// The reason why the cluster's store cannot be asked now, if it cannot.
    pub cause: Option<String>,
    /// The time after which the next answer may say something else, in milliseconds.
    pub next_ms: u64,
    /// The nodes that have a session or blocks, by name.
    pub nodes: Vec<MapNode>,
    /// The range sets, by network, family and address.
    pub sets: Vec<MapSet>,
}

/// A node.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct MapNode {
    /// Its name.
    pub node: String,
    /// True if it has a session: its daemon runs and reaches the store.
    pub live: bool,
    /// True if an operator drains it.
    pub draining: bool,
}

/// A range set.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct MapSet {
    /// The network out of whose pool the addresses are.
    pub network: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// First and last address of each range.
    pub ranges: Vec<(String, String)>,
    /// Addresses in a block of the usual size.
    pub block_size: u64,
    /// Addresses that can ever be handed out.
    pub size: u128,
    /// True if gateways are known and not counted in the size.
    pub exact: bool,
    /// Addresses that containers hold, on all nodes; null: not known.
    pub used: Option<u64>,
    /// The blocks that somebody has, by address.
    pub blocks: Vec<MapBlock>,
}

/// A block, as an array, since there may be thousands: the prefix; the place of its owner among
/// [`Map::nodes`]; `spare`, `active`, `quarantined` or `parked`; the addresses that containers hold
/// in it (null: not known); the addresses of it that can ever be handed out; and the addresses that
/// cool (null: the block is another node's, which alone knows).
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct MapBlock(pub String, pub usize, pub String, pub Option<u64>, pub u64, pub Option<u64>);

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/map", web::get().to(show));
}

async fn show(node: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    let work = AppState::clone(&node);
    let rest = node.counts.rest();
    let map = async move { Ok::<_, Refusal>(map(&work).await) };
    let mut answer = node.lists.answer_whole_after(Whole::Map, rest, map).await;
    answer.headers_mut().insert(guard::NAMES, node.listener.names(&request));
    answer
}

async fn map(node: &AppState) -> Map {
    let mut known = node.pools.everything().await;
    let local = node.machines.describe_sets().await;
    let in_hand = node.machines.blocks(None, None, usize::MAX).await;
    let shared = node.about.store != EMBEDDED;
    if !known.listed {
        // The store was not reached yet: what this node has in hand is all that is known.
        known.blocks = in_hand.iter().map(|block| placed(node, block)).collect();
    }
    let own = in_hand.iter().map(own_figures).collect();
    let (sets, counted) = count::count(node, &local, own, &known.blocks).await;
    let mut names: Vec<Arc<str>> = known.blocks.iter().map(|block| block.owner.clone()).collect();
    names.extend(known.sessions.iter().map(|name| Arc::from(&**name)));
    names.sort_unstable();
    names.dedup();
    let row = |name: &Arc<str>| MapNode {
        node: name.to_string(),
        live: known.sessions.contains(&**name) || !shared,
        draining: known.draining.contains(&**name),
    };
    Map {
        node: node.about.node.clone(),
        version: node.about.version.clone(),
        shared,
        at_unix_ms: clock::unix().as_millis(),
        counted_unix_ms: counted.at.map(|at| at.as_millis()),
        cause: counted.cause.clone().or_else(|| stalled(node)),
        next_ms: u64::try_from(node.counts.rest().max(limits::WHOLE_AGE_MAX).as_millis())
            .unwrap_or(u64::MAX),
        nodes: names.iter().map(row).collect(),
        sets: rows(&sets, &known.blocks, &names, &counted),
    }
}

/// A block in hand, as the store would have it.
fn placed(node: &AppState, block: &BlockFigures) -> PlacedBlock {
    let status = match block.state {
        BlockState::Spare => BlockStatus::Spare,
        BlockState::Active | BlockState::Returning | BlockState::Lost => BlockStatus::Active,
    };
    let owner = node.about.node.as_str().into();
    PlacedBlock { pool: block.pool.clone(), cidr: block.cidr, owner, status }
}

/// The place of a block in hand, the addresses that are held in it, and those that cool.
fn own_figures(block: &BlockFigures) -> ((PoolFamily, Address), (u64, u64)) {
    let all = 1_u64 << block.cidr.size().log2();
    let (free, cooling) = (u64::from(block.free), u64::from(block.cooling));
    let held = all.saturating_sub(free).saturating_sub(cooling);
    ((block.pool.clone(), block.cidr.first()), (held, cooling))
}

fn stalled(node: &AppState) -> Option<String> {
    let standing = node.standing.borrow();
    standing.halted.as_ref().or(standing.stalled.as_ref()).map(ToString::to_string)
}

/// The range sets with their blocks.
fn rows(sets: &Sets, blocks: &[PlacedBlock], names: &[Arc<str>], counted: &Counted) -> Vec<MapSet> {
    let row = |(set, used): (&KnownSet, &Option<u64>)| MapSet {
        network: set.pool.network.to_string(),
        family: set.pool.family.to_string(),
        ranges: ranges(set.pool.family, set.offer.ranges()),
        block_size: 1 << set.block_size.log2(),
        size: set.offer.size(),
        exact: set.offer.is_whole(),
        used: *used,
        blocks: Vec::new(),
    };
    let mut rows: Vec<MapSet> = sets.all().iter().zip(&counted.used).map(row).collect();
    for block in blocks {
        let Some(at) = sets.of_block(block) else { continue };
        let usable = sets.all()[at].offer.count_in(block.cidr);
        let (used, cooling) = counted.of(block);
        rows[at].blocks.push(MapBlock(
            block.cidr.net(block.pool.family).to_string(),
            names.binary_search(&block.owner).unwrap_or_default(),
            word(block.status).to_owned(),
            used,
            u64::try_from(usable).unwrap_or(u64::MAX),
            cooling,
        ));
    }
    rows
}

fn ranges(family: Family, ranges: &[AddressRange]) -> Vec<(String, String)> {
    let text = |address| family.address(address).to_string();
    ranges.iter().map(|range| (text(range.first()), text(range.last()))).collect()
}

fn word(status: BlockStatus) -> &'static str {
    match status {
        BlockStatus::Spare => "spare",
        BlockStatus::Active => "active",
        BlockStatus::Quarantined => "quarantined",
        BlockStatus::Parked => "parked",
    }
}
