//! The reference and the source have the same limits. Input at a limit is accepted, and input
//! beyond it is refused.

use leasehold::limits as source;
use serde_json::{Value, json};

use super::{World, honest};

const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// A number with commas between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn the_reference_has_the_limits_of_the_source() {
    let seconds = |limit: std::time::Duration| limit.as_secs();
    let (socket, tcp) = (source::CONNECTIONS_MAX, source::TCP_CONNECTIONS_MAX);
    let files = grouped(socket + tcp + source::FILES_KEPT);
    let places = format!(
        "{} on the socket, {} over TCP; fewer if the system gives fewer than {files} open files",
        grouped(socket),
        grouped(tcp),
    );
    let (waits, answer) = (seconds(source::ASSIGN_WAIT_MAX), seconds(source::ANSWER_WAIT_MAX));
    for (what, limit) in [
        ("request body", format!("{} MiB", source::BODY_BYTES_MAX >> 20)),
        ("calls in one array", grouped(source::CALLS_PER_ARRAY_MAX)),
        ("calls in progress on a node", grouped(source::CALLS_IN_FLIGHT_MAX)),
        ("open connections", places),
        (
            "time for a request's head, and then for its body",
            format!("{} s each", seconds(source::REQUEST_WAIT_MAX)),
        ),
        ("lists in progress on each listener", grouped(source::LISTS_IN_FLIGHT_MAX)),
        ("time that an ADD waits for a block", format!("{waits} s")),
        ("time that the plugin waits for an answer", format!("{answer} s")),
        ("range sets on a node", grouped(source::RANGE_SETS_MAX)),
        ("ranges in a configuration", grouped(source::RANGES_MAX)),
        ("addresses listed for a stage, per range", grouped(source::LISTED_MAX)),
        ("addresses in a block", grouped(1 << source::BLOCK_LOG2_MAX)),
        ("notes of DELs", grouped(source::NOTES_MAX)),
    ] {
        let row = format!("| {what} | {limit}");
        let found = REFERENCE.lines().any(|line| {
            let rest = line.strip_prefix(&row);
            rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
        });
        assert!(found, "docs/reference.md does not say {row:?}");
    }
}

/// An ADD on a network of its own, with these ranges.
fn add(network: &str, ranges: Value) -> Value {
    let mut call = honest("ADD");
    call["config"]["name"] = json!(network);
    call["config"]["ipam"]["ranges"] = ranges;
    call
}

/// A set of this number of ranges.
fn ranges(count: usize) -> Value {
    let range =
        |index: usize| json!({ "subnet": format!("10.{}.{}.0/24", index / 200, index % 200) });
    json!([(0..count).map(range).collect::<Vec<_>>()])
}

/// A range that lists this number of addresses.
fn listed(count: usize) -> Value {
    let address = |index: usize| format!("10.77.{}.{}", 16 + index / 256, index % 256);
    let addresses: Vec<String> = (0..count).map(address).collect();
    json!([[{ "subnet": "10.77.0.0/16", "sandbox": addresses }]])
}

#[test]
fn what_is_at_a_limit_is_taken_and_what_is_past_it_refused() {
    let mut world = World::new();
    let mut status = |body: &str| {
        let status = world.client.request("POST", "/v1/cni", body).status;
        world.end_all();
        status
    };
    let padded = |length: usize| {
        let call = honest("ADD").to_string();
        " ".repeat(length - call.len()) + &call
    };
    let array = |count: usize| json!(vec![honest("STATUS"); count]).to_string();
    let block = |prefix: u8| {
        let mut call = add("block", json!([[{ "subnet": "10.76.0.0/16" }]]));
        call["config"]["ipam"]["blockSize"] = json!(prefix);
        call.to_string()
    };
    let largest = 32 - source::BLOCK_LOG2_MAX;
    for (what, at, past) in [
        ("body", padded(source::BODY_BYTES_MAX), padded(source::BODY_BYTES_MAX + 1)),
        ("array", array(source::CALLS_PER_ARRAY_MAX), array(source::CALLS_PER_ARRAY_MAX + 1)),
        (
            "ranges",
            add("ranges", ranges(source::RANGES_MAX)).to_string(),
            add("ranges", ranges(source::RANGES_MAX + 1)).to_string(),
        ),
        (
            "listed",
            add("listed", listed(source::LISTED_MAX)).to_string(),
            add("listed", listed(source::LISTED_MAX + 1)).to_string(),
        ),
        ("block", block(largest), block(largest - 1)),
    ] {
        assert_eq!((status(&at), status(&past)), (200, 400), "{what} at its limit and past it");
    }
}
