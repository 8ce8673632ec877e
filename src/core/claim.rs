//! Block keys, and the transactions that change who holds a block.
//!
//! Every change compares what it rests on (DESIGN: "every change of ownership is one Txn"): a
//! claim that nothing overlaps it, a give-back the revision of the key; both the node's epoch.

use std::net::IpAddr;

use super::address::{Family, Run, number};
use super::txn::{Compare, Txn, Write};

/// The key of a node.
pub fn node_key(node: &str) -> String {
    format!("nodes/{node}")
}

/// The prefix of all block keys.
pub const BLOCKS: &str = "blocks/";

/// The key of a block: `blocks/<network>/<family>/<start>`. Starts are written at full width, so
/// that the order of keys is the order of addresses.
pub fn block_key(network: &str, family: Family, start: u128) -> String {
    format!("{BLOCKS}{network}/{family}/{}", wide(family.address(start)))
}

/// What a block key names, or nothing if it is none.
pub fn parse_block_key(key: &str) -> Option<(&str, Family, u128)> {
    let (rest, start) = key.strip_prefix(BLOCKS)?.rsplit_once('/')?;
    let (network, family) = rest.rsplit_once('/')?;
    let family = Family::parse(family)?;
    let start: IpAddr = match family {
        Family::V4 => {
            let bytes = start.split('.').map(|part| part.parse().ok());
            let bytes: Option<Vec<u8>> = bytes.collect();
            IpAddr::from(<[u8; 4]>::try_from(bytes?).ok()?)
        }
        Family::V6 => start.parse().ok()?,
    };
    (Family::of(start) == family).then(|| (network, family, number(start)))
}

/// An address with every digit: `010.001.002.008`, `2001:0db8:0000:...:0010`.
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

/// Who changes the ownership of blocks: every transaction compares that it still is the node's
/// newest daemon.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The node's name.
    pub node: String,
    /// The revision of the node's key, written by this daemon at its start.
    pub revision: u64,
}

impl Owner {
    fn compare(&self) -> Compare {
        Compare::ModRevision(node_key(&self.node), self.revision)
    }

    /// Claims blocks: none of them may overlap an existing one. Blocks of one range set are of its
    /// usual size or parts of such, so what overlaps a run begins inside it.
    pub fn claim(&self, network: &str, family: Family, runs: &[(Run, Vec<u8>)]) -> Txn {
        let mut txn = Txn { when: vec![self.compare()], then: Vec::new() };
        for (run, value) in runs {
            let key = block_key(network, family, run.start);
            // '~' sorts after every digit, so the last address itself is included.
            let past = format!("{}~", block_key(network, family, run.end()));
            txn.when.push(Compare::NoneIn(key.clone(), past));
            txn.then.push(Write::Put(key, value.clone()));
        }
        txn
    }

    /// Gives blocks back, each at the revision at which we hold it.
    pub fn give_back(&self, network: &str, family: Family, blocks: &[(Run, u64)]) -> Txn {
        let mut txn = Txn { when: vec![self.compare()], then: Vec::new() };
        for (run, revision) in blocks {
            let key = block_key(network, family, run.start);
            txn.when.push(Compare::ModRevision(key.clone(), *revision));
            txn.then.push(Write::Delete(key));
        }
        txn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_keys_sort_like_addresses_and_read_back() {
        let v4 = |text: &str| block_key("pod-net", Family::V4, number(text.parse().unwrap()));
        assert_eq!(v4("10.1.2.8"), "blocks/pod-net/ipv4/010.001.002.008");
        assert!(v4("9.255.255.255") < v4("10.0.0.0") && v4("10.0.2.0") < v4("10.0.10.0"));
        for address in ["10.1.2.8", "2001:db8::10", "::", "255.255.255.255"] {
            let address: IpAddr = address.parse().unwrap();
            let (family, start) = (Family::of(address), number(address));
            let key = block_key("n", family, start);
            assert_eq!(parse_block_key(&key), Some(("n", family, start)), "{key}");
        }
        for key in ["blocks/n/ipv4/::", "blocks/n/ipv4/1.2.3", "nodes/a", "blocks/n", "blocks/"] {
            assert_eq!(parse_block_key(key), None, "{key}");
        }
    }
}
