//! The keys of the cluster's store.

use std::net::IpAddr;
use std::sync::Arc;

use super::address::{Address, Family};
use super::ids::QuestionNumber;

/// The prefix of all node keys.
pub const NODES: &str = "nodes/";

/// The prefix of all session keys.
pub const SESSIONS: &str = "sessions/";

/// The prefix of all network keys.
pub const NETWORKS: &str = "networks/";

/// The prefix of all records.
pub const ALLOCATIONS: &str = "allocations/";

/// The prefix of all drain keys.
pub const DRAINS: &str = "drains/";

/// The prefix of the questions of operators that a node passes on to the others.
pub const ASKED: &str = "asked/";

/// Returns the prefix of the answers to such a question, one of each node.
pub fn answers_prefix(question: &str) -> String {
    format!("told/{question}/")
}

/// Present while new claims wait, because the store went back in time.
pub const RESTORED: &str = "restored";

/// Returns the key of a node.
pub fn node_key(node: &str) -> String {
    format!("{NODES}{node}")
}

/// Returns the key of a node's session.
pub fn session_key(node: &str) -> String {
    format!("{SESSIONS}{node}")
}

/// Returns the key that is present while an operator wants a node to give its blocks back.
pub fn drain_key(node: &str) -> String {
    format!("{DRAINS}{node}")
}

/// Returns the key that keeps, for a while, what a node was when an operator made the cluster
/// forget it.
pub fn forgotten_key(node: &str) -> String {
    format!("forgotten/{node}")
}

/// Returns the key of a network.
pub fn network_key(network: &str) -> String {
    format!("{NETWORKS}{network}")
}

/// Returns the prefix of the messages to a node about a network.
pub fn inbox(network: &str, node: &str) -> String {
    format!("requests/{network}/{node}/")
}

/// Returns the key of a question; numbers are the asker's.
pub fn question_key(network: &str, to: &str, from: &str, number: QuestionNumber) -> String {
    format!("{}{from}.{number}", inbox(network, to))
}

/// Returns the key of the answer to a question with that number.
pub fn answer_key(network: &str, to: &str, from: &str, number: QuestionNumber) -> String {
    format!("{}.answer", question_key(network, to, from, number))
}

/// Returns the number of the question with this key.
pub fn question_number(key: &str) -> Option<QuestionNumber> {
    key.rsplit_once('.')?.1.parse().ok().map(QuestionNumber::new)
}

/// Returns the network of the messages under a key or prefix of them.
pub fn message_network(key: &str) -> Option<&str> {
    key.strip_prefix("requests/")?.split_once('/').map(|(network, _)| network)
}

/// Returns the key of the record of an allocation.
pub fn allocation_key(network: &str, address: IpAddr) -> String {
    format!("{ALLOCATIONS}{network}/{}", wide(address))
}

/// Returns the address of the record with this key.
pub fn allocation_address(key: &str) -> Option<IpAddr> {
    narrow(key.strip_prefix(ALLOCATIONS)?.rsplit_once('/')?.1)
}

/// Returns the pool and the address of the record with this key.
pub fn allocation_place(key: &str) -> Option<(&str, IpAddr)> {
    let (pool, _) = key.strip_prefix(ALLOCATIONS)?.rsplit_once('/')?;
    Some((pool, allocation_address(key)?))
}

/// The addresses of one family on one network: what blocks are cut from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolFamily {
    /// The network.
    pub network: Arc<str>,
    /// The family.
    pub family: Family,
}

impl PoolFamily {
    /// Returns the key of the block that starts there.
    pub fn block_key(&self, start: Address) -> String {
        block_key(&self.network, self.family, start)
    }
}

/// The prefix of all block keys.
pub const BLOCKS: &str = "blocks/";

/// Returns the key of a block: `blocks/<network>/<family>/<start>`. Starts are written at full
/// width, so that the order of keys is the order of addresses.
pub fn block_key(network: &str, family: Family, start: Address) -> String {
    format!("{BLOCKS}{network}/{family}/{}", wide(family.address(start)))
}

/// Returns what a block key names, or `None` if it is not a block key.
pub fn parse_block_key(key: &str) -> Option<(&str, Family, Address)> {
    let (rest, start) = key.strip_prefix(BLOCKS)?.rsplit_once('/')?;
    let (network, family) = rest.rsplit_once('/')?;
    let family = Family::parse(family)?;
    let start = narrow(start)?;
    (Family::of(start) == family).then(|| (network, family, Address::of(start)))
}

/// Returns an address with every digit: `010.001.002.008`, `2001:0db8:0000:...:0010`.
fn wide(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{a:03}.{b:03}.{c:03}.{d:03}")
        }
        IpAddr::V6(v6) => {
            let groups: Vec<String> = v6.segments().iter().map(|g| format!("{g:04x}")).collect();
            groups.join(":")
        }
    }
}

/// Reads the text that [`wide`] writes.
fn narrow(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let bytes: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
    Some(IpAddr::from(<[u8; 4]>::try_from(bytes?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_keys_sort_like_addresses_and_read_back() {
        let v4 = |text: &str| block_key("pod-net", Family::V4, Address::of(text.parse().unwrap()));
        assert_eq!(v4("10.1.2.8"), "blocks/pod-net/ipv4/010.001.002.008");
        assert!(v4("9.255.255.255") < v4("10.0.0.0") && v4("10.0.2.0") < v4("10.0.10.0"));
        for address in ["10.1.2.8", "2001:db8::10", "::", "255.255.255.255"] {
            let address: IpAddr = address.parse().unwrap();
            let (family, start) = (Family::of(address), Address::of(address));
            let key = block_key("n", family, start);
            assert_eq!(parse_block_key(&key), Some(("n", family, start)), "{key}");
            assert_eq!(allocation_address(&allocation_key("n", address)), Some(address));
        }
        for key in ["blocks/n/ipv4/::", "blocks/n/ipv4/1.2.3", "nodes/a", "blocks/n", "blocks/"] {
            assert_eq!(parse_block_key(key), None, "{key}");
        }
    }
}
