//! Random configurations, and random calls that fit them.
//!
//! Left out, because the two sides differ there on purpose: a start at the broadcast address, two
//! asked-for addresses in one set (the oracle takes either, by chance), addresses with a leading
//! zero byte, versions that the oracle does not know.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::random::Random;
use super::{Asks, Way};

/// The largest size of a case.
pub(super) struct Shape {
    pub(super) sets: u128,
    pub(super) ranges: u128,
    pub(super) steps: usize,
    pub(super) crashes: bool,
}

/// A configuration and the steps on it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) config: Value,
    pub(super) steps: Vec<Step>,
}

/// One call, or one accident.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Add { container: String, ifname: String, asks: Asks, way: Way },
    Del { container: String, ifname: String, way: Way },
    Check { container: String, ifname: String, way: Way },
    Crash,
}

/// A range with the bounds that host-local gives it.
#[derive(Clone, Copy, Debug)]
struct Range {
    v6: bool,
    base: u128,
    length: u8,
    start: u128,
    end: u128,
    /// The bounds that the configuration has explicitly.
    written: [bool; 2],
    gateway: Gateway,
}

#[derive(Clone, Copy, Debug)]
enum Gateway {
    Default,
    At(u128),
    Foreign,
}

impl Case {
    pub(super) fn generate(random: &mut Random, shape: &Shape) -> Self {
        let sets = ranges(random, shape);
        let several_of_a_family = [false, true]
            .iter()
            .any(|family| sets.iter().filter(|set| set[0].v6 == *family).count() > 1);
        let versions: &[&str] = if several_of_a_family {
            &["0.3.0", "0.3.1", "0.4.0", "1.0.0"]
        } else {
            &["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "0.4.0", "1.0.0", "1.0.0", "1.0.0"]
        };
        let config = json!({
            "cniVersion": random.pick(versions),
            "ipam": ipam(random, &sets),
        });
        let mut steps: Vec<Step> = (0..shape.steps).map(|_| step(random, &sets)).collect();
        if shape.crashes {
            for part in [2, 1] {
                steps.insert(shape.steps * part / 3, Step::Crash);
            }
        }
        Self { config, steps }
    }
}

/// Range sets that do not overlap.
fn ranges(random: &mut Random, shape: &Shape) -> Vec<Vec<Range>> {
    let mut number = 0;
    let mut sets: Vec<Vec<Range>> = Vec::new();
    for _ in 0..=random.below(shape.sets) {
        let v6 = random.one_in(3);
        let mut set: Vec<Range> = Vec::new();
        for _ in 0..=random.below(shape.ranges) {
            number += 1;
            let before = set.last_mut().or_else(|| sets.last_mut()?.last_mut());
            let split = before.filter(|before| before.v6 == v6 && random.one_in(4));
            let rest = split.and_then(|before| rest_of(random, before));
            set.push(rest.unwrap_or_else(|| range(random, v6, number)));
        }
        sets.push(set);
    }
    sets
}

/// Cuts a range in two and returns the second half: two ranges of one subnet.
fn rest_of(random: &mut Random, before: &mut Range) -> Option<Range> {
    let size = before.end - before.start;
    if size < 2 {
        return None;
    }
    let middle = before.start + random.below(size.min(8));
    let bits = if before.v6 { 128 } else { 32 } - before.length;
    if !before.v6 && middle + 1 == before.base + (1 << bits) - 1 {
        return None;
    }
    let rest = Range { start: middle + 1, written: [true, before.written[1]], ..*before };
    before.end = middle;
    before.written[1] = true;
    Some(rest)
}

/// A range in the subnet of the given number, small enough to be filled more often than not.
fn range(random: &mut Random, v6: bool, number: u128) -> Range {
    let length = if v6 {
        random.pick(&[64, 120, 126, 126])
    } else {
        random.pick(&[24, 25, 26, 27, 28, 28, 29, 29, 29, 30, 30])
    };
    let bits = if v6 { 128 - length } else { 32 - length };
    let size = 1_u128 << bits;
    let network = if v6 {
        (0x2001_0db8_u128 << 96) + (number << 64)
    } else {
        (10_u128 << 24) + (number << 8)
    };
    let base = network + random.below((256 / size).max(1)) * size;
    let last = base + size - 1;
    let default_end = if v6 { last } else { last - 1 };
    let mut range = Range {
        v6,
        base,
        length,
        start: base + 1,
        end: default_end,
        written: [false; 2],
        gateway: Gateway::Default,
    };
    if random.one_in(2) {
        range.written[0] = true;
        range.start = base + random.below(size.min(40) - 1);
    }
    if random.one_in(2) {
        range.written[1] = true;
        let room = last - range.start + 1;
        range.end = range.start + random.below(room.min(16));
    }
    range.gateway = match random.below(8) {
        0 | 1 => Gateway::At(range.start + random.below((range.end - range.start + 1).min(4))),
        2 => Gateway::At(base + random.below(size)),
        3 => Gateway::Foreign,
        _ => Gateway::Default,
    };
    range
}

fn ipam(random: &mut Random, sets: &[Vec<Range>]) -> Value {
    let mut ipam = Map::new();
    let mut written = sets;
    if sets[0].len() == 1 && random.one_in(3) {
        // The old form comes before `ranges`.
        ipam.extend(describe(&sets[0][0]));
        written = &sets[1..];
    }
    if !written.is_empty() {
        let list = |set: &Vec<Range>| set.iter().map(|it| Value::Object(describe(it))).collect();
        ipam.insert("ranges".to_owned(), written.iter().map(list).collect::<Vec<Value>>().into());
    }
    if random.one_in(3) {
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "2001:db8::/32", "gw": "2001:db8::9"}]);
        ipam.insert("routes".to_owned(), routes);
    }
    Value::Object(ipam)
}

fn describe(range: &Range) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, text: String| fields.insert(key.to_owned(), text.into());
    put("subnet", format!("{}/{}", text(range.v6, range.base), range.length));
    if range.written[0] {
        put("rangeStart", text(range.v6, range.start));
    }
    if range.written[1] {
        put("rangeEnd", text(range.v6, range.end));
    }
    match range.gateway {
        Gateway::Default => None,
        Gateway::At(address) => put("gateway", text(range.v6, address)),
        Gateway::Foreign => put("gateway", foreign(!range.v6).to_owned()),
    };
    fields
}

fn text(v6: bool, address: u128) -> String {
    if v6 {
        return Ipv6Addr::from_bits(address).to_string();
    }
    Ipv4Addr::from_bits(u32::try_from(address).expect("an address of IPv4")).to_string()
}

/// An address outside of all ranges.
const fn foreign(v6: bool) -> &'static str {
    if v6 { "2001:db9::7" } else { "203.0.113.7" }
}

fn step(random: &mut Random, sets: &[Vec<Range>]) -> Step {
    let container = format!("pod-{}", random.below(24));
    let ifname = random.pick(&["eth0", "eth0", "eth0", "net1"]).to_owned();
    let way = if random.one_in(4) { Way::Plugin } else { Way::Socket };
    match random.below(12) {
        0..=6 => {
            let asks = if random.one_in(2) { asks(random, sets) } else { Asks::default() };
            Step::Add { container, ifname, asks, way }
        }
        7..=10 => Step::Del { container, ifname, way },
        _ => Step::Check { container, ifname, way },
    }
}

/// Addresses to ask for: at most one of each set, and now and then one outside of all sets.
fn asks(random: &mut Random, sets: &[Vec<Range>]) -> Asks {
    let mut asks = Asks::default();
    for set in sets {
        let range = random.pick(set);
        let room = range.end - range.start + 1;
        let address = match random.below(12) {
            0 => range.start,
            1 | 2 => range.end,
            3..=6 => range.start + random.below(room),
            _ => range.end - random.below(room.min(6)),
        };
        if random.one_in(u128::try_from(sets.len()).expect("a number")) {
            let prefix =
                if random.one_in(3) { format!("/{}", range.length) } else { String::new() };
            ask(random, &mut asks, &format!("{}{prefix}", text(range.v6, address)));
        }
    }
    if random.one_in(20) {
        let v6 = random.one_in(2);
        ask(random, &mut asks, foreign(v6));
    }
    asks
}

/// Asks for one address in one of the three places, or in two of them.
fn ask(random: &mut Random, asks: &mut Asks, address: &str) {
    if random.one_in(2) && asks.environment.is_none() {
        asks.environment = Some(address.to_owned());
        if random.one_in(5) {
            asks.capability.push(address.to_owned());
        }
    } else if random.one_in(2) {
        asks.args.push(address.to_owned());
    } else {
        asks.capability.push(address.to_owned());
    }
}
