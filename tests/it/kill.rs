//! Goal: a daemon that is killed at any moment loses no call that it answered, gives no address
//! twice, and leaves no call half done. A restart keeps the allocations, a reboot releases them.
//!
//! Method: the real daemon is killed with SIGKILL under load, started again on the same state, and
//! compared with the answers that its clients got. Reboots are made with a file of the test's own
//! in place of the kernel's boot id.

mod cooling;
mod damage;
mod init;
mod load;
mod machine;
mod many;
mod reboot;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::{Daemon, Outcome};

/// A network of some range sets, each one subnet.
fn config(name: &str, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    json!({
        "cniVersion": "1.1.0", "name": name, "ipam": { "type": "my-ipam", "ranges": ranges },
    })
}

/// The addresses of a result, in the order of the range sets.
fn addresses_of(outcome: &Outcome) -> Vec<String> {
    let ips = outcome.expect_result()["ips"].as_array().expect("addresses");
    let address = |ip: &Value| {
        let address = ip["address"].as_str().expect("an address");
        address.split('/').next().expect("an address").to_owned()
    };
    ips.iter().map(address).collect()
}

/// A network and a container.
type Holder = (String, String);

/// The daemon's list, by holder. No address may be held twice on one network.
fn listed(daemon: &Daemon) -> BTreeMap<Holder, Vec<String>> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut held: BTreeMap<Holder, Vec<String>> = BTreeMap::new();
    let mut holders: BTreeMap<(String, String), Holder> = BTreeMap::new();
    for row in daemon.allocations() {
        let holder = (text(&row["network"]), text(&row["containerId"]));
        let address = text(&row["address"]);
        let place = (holder.0.clone(), address.clone());
        if let Some(other) = holders.insert(place, holder.clone()) {
            panic!("{address} is held by {other:?} and by {holder:?}");
        }
        held.entry(holder).or_default().push(address);
    }
    held
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in so many times.
    const fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
