//! The settings of a run: the seed draws them, and the environment may choose.

use std::env;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use serde_json::{Value, json};

use super::faults::{ALL, Fault};
use crate::common::Options;

/// The time for which faults are drawn if the environment says nothing: with start and end the run
/// takes about a minute.
const SECONDS: u64 = 40;
/// The TTL of a node's lease.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(5);
/// The number of daemons.
pub(super) const NODES: usize = 3;

/// The settings of a run.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) seed: u64,
    /// The time for which faults are drawn.
    pub(super) time: Duration,
    pub(super) faults: Vec<&'static Fault>,
    /// The rule that the daemons break, by the name of its switch.
    pub(super) mutant: Option<String>,
    /// The members of etcd.
    pub(super) members: usize,
    pub(super) cooldown: Duration,
    /// ADD and DEL wait for their records in etcd.
    pub(super) awaits_records: bool,
    /// Addresses of the network that every container wants one of.
    pub(super) tight: u8,
    block_size: u8,
    args: Vec<String>,
}

impl Settings {
    /// Settings of the environment: `LEASEHOLD_SEED`, `LEASEHOLD_CHAOS_SECONDS`,
    /// `LEASEHOLD_CHAOS_FAULTS` and `LEASEHOLD_MUTANT`.
    pub(super) fn of_environment() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        let seed = variable("LEASEHOLD_SEED").unwrap_or(u64::from(clock.subsec_nanos()));
        let seconds = variable("LEASEHOLD_CHAOS_SECONDS").unwrap_or(SECONDS);
        let names: Option<String> = variable("LEASEHOLD_CHAOS_FAULTS");
        let names = names.as_deref().unwrap_or("");
        Self::new(seed, Duration::from_secs(seconds), names, variable("LEASEHOLD_MUTANT"))
    }

    /// Settings of a seed. `faults` has names, separated by commas: `none` for none, and nothing
    /// for all that fit into the time.
    pub(super) fn new(seed: u64, time: Duration, faults: &str, mutant: Option<String>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut draw = |from: &[u64]| from[rng.usize(..from.len())];
        let members = usize::try_from(draw(&[1, 3])).expect("a few");
        let cooldown = Duration::from_millis(draw(&[0, 500, 1_000, 3_000]));
        let awaits_records = draw(&[0, 0, 0, 1]) == 1;
        let tight = u8::try_from(draw(&[24, 36, 60])).expect("a few");
        let block_size = u8::try_from(draw(&[28, 29, 30])).expect("a size");
        let warm = draw(&[4, 8, 16]);
        let deadline = draw(&[1, 2, 5]);
        let commit = if awaits_records { "etcd" } else { "journal" };
        let args = format!(
            "--lease-ttl {}s --commit {commit} --warm-addresses {warm} \
             --etcd-request-deadline {deadline}s",
            LEASE_TTL.as_secs()
        );
        let args = args.split(' ').map(str::to_owned).collect();
        let faults = chosen(faults, time);
        Self {
            seed,
            time,
            faults,
            mutant,
            members,
            cooldown,
            awaits_records,
            tight,
            block_size,
            args,
        }
    }

    /// True if the disks of state directories become full.
    pub(super) fn fills_disks(&self) -> bool {
        self.faults.iter().any(|fault| fault.name == "disk")
    }

    /// The options of a node's daemon that reaches etcd by these URLs, on a machine whose boot has
    /// its id in a file.
    pub(super) fn options(&self, node: &str, endpoints: &[String], boot: &Path) -> Options {
        let own = ["--node", node, "--etcd", &endpoints.join(",")].map(str::to_owned);
        let args = own.into_iter().chain(self.args.iter().cloned()).collect();
        let cooldown =
            ("LEASEHOLD_COOLDOWN".to_owned(), format!("{}ms", self.cooldown.as_millis()));
        let boot = ("LEASEHOLD_BOOT_ID_FILE".to_owned(), boot.display().to_string());
        let mutant = self.mutant.iter().map(|name| ("LEASEHOLD_MUTANT".to_owned(), name.clone()));
        Options {
            env: [cooldown, boot].into_iter().chain(mutant).collect(),
            args,
            ..Options::default()
        }
    }

    /// The networks: one that has an address for each container that wants one, and one of two
    /// families.
    pub(super) fn networks(&self) -> [Value; 2] {
        let last = 9 + self.tight;
        let tight = json!({
            "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10",
            "rangeEnd": format!("10.1.0.{last}"),
        });
        let old = json!({
            "subnet": "10.2.0.0/24", "rangeStart": "10.2.0.16", "rangeEnd": "10.2.0.79",
        });
        let new =
            json!({ "subnet": "fd02::/112", "rangeStart": "fd02::10", "rangeEnd": "fd02::4f" });
        let network = |name: &str, ranges: Value| {
            let (size, size6) = (self.block_size, self.block_size + 96);
            json!({ "cniVersion": "1.1.0", "name": name, "ipam": {
                "type": "my-ipam", "ranges": ranges, "blockSize": size, "blockSize6": size6,
            }})
        };
        [network("tight", json!([[tight]])), network("dual", json!([[old], [new]]))]
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<&str> = self.faults.iter().map(|fault| fault.name).collect();
        let Self { seed, time, members, cooldown, tight, block_size, .. } = self;
        write!(
            to,
            "seed {seed}: faults for {time:?} out of {}; {members} members of etcd, cooldown \
             {cooldown:?}, {tight} addresses in blocks of /{block_size}, {}",
            faults.join(","),
            self.args.join(" ")
        )?;
        self.mutant.iter().try_for_each(|name| write!(to, "; broken: {name}"))
    }
}

/// The faults of these names that fit into the time.
fn chosen(names: &str, time: Duration) -> Vec<&'static Fault> {
    if names.is_empty() {
        return ALL.iter().filter(|fault| !fault.is_long || time >= fault.least * 2).collect();
    }
    let find = |name: &str| {
        let known = || ALL.iter().map(|fault| fault.name).collect::<Vec<_>>().join(", ");
        let found = ALL.iter().find(|fault| fault.name == name);
        found.unwrap_or_else(|| panic!("LEASEHOLD_CHAOS_FAULTS: {name}: known are {}", known()))
    };
    names.split(',').filter(|name| *name != "none").map(find).collect()
}

/// A variable of the environment.
fn variable<T: FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}
