//! The daemon's configuration: flags win over `LEASEHOLD_*`, these over the TOML file, that over
//! the defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Deserialize;

pub use self::etcd::EtcdArgs;
use crate::limits;
use crate::store::etcd::Options;
use my_ipam::client::SOCKET_DEFAULT;

mod etcd;

/// The options of `leasehold serve`.
#[derive(Args, Clone, Default, Debug)]
pub struct ServeArgs {
    /// TOML file with the options below in camelCase (stateDir = "...")
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this node; unique in the cluster [default: the host name]
    #[arg(long, value_name = "NAME", env = "LEASEHOLD_NODE")]
    pub node: Option<String>,
    /// Where the journal and the embedded store are kept [default: /var/lib/leasehold]
    #[arg(long, value_name = "DIR", env = "LEASEHOLD_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Unix socket for the plugin and for admin commands [default: /run/leasehold/leasehold.sock]
    #[arg(long, value_name = "PATH", env = "LEASEHOLD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// TCP address for metrics and other reads [default: 127.0.0.1:9750]
    #[arg(long, value_name = "ADDR:PORT", env = "LEASEHOLD_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// How long a released address is not handed out again, such as 30s or 5m; 0s: not at all
    /// [default: 30s]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_COOLDOWN", value_parser = cooldown)]
    pub cooldown: Option<Duration>,
    /// Make each answer survive the death of the machine, not only of the daemon [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_FSYNC", num_args = 0..=1,
          default_missing_value = "true")]
    pub fsync: Option<bool>,
    /// Keep what containers held before a reboot; needs fsync [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_KEEP_AFTER_REBOOT", num_args = 0..=1,
          default_missing_value = "true")]
    pub keep_after_reboot: Option<bool>,
    /// Where etcd is and who we are to it
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// How long this node's unused blocks stay its own without a sign of it [default: 30s]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_LEASE_TTL", value_parser = lease_ttl)]
    pub lease_ttl: Option<Duration>,
    /// Addresses to keep free for when etcd cannot be reached [default: 32]
    #[arg(long, value_name = "NUMBER", env = "LEASEHOLD_WARM_ADDRESSES",
          value_parser = clap::value_parser!(u32).range(..=i64::from(limits::WARM_ADDRESSES_MAX)))]
    pub warm_addresses: Option<u32>,
    /// Where an ADD must be written before it is answered; etcd costs a round trip [default:
    /// journal]
    #[arg(long, value_name = "WHERE", env = "LEASEHOLD_COMMIT")]
    pub commit: Option<Commit>,
    /// Stop handing out after so long without etcd [default: never]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_OFFLINE_LIMIT",
          value_parser = offline_limit)]
    pub offline_limit: Option<Duration>,
    /// How often to release what containers hold whose network namespace is gone, such as 30s
    /// [default: never]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_SWEEP", value_parser = sweep)]
    pub sweep: Option<Duration>,
    /// For how long it must have been gone; needs sweep [default: 1m]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_SWEEP_GRACE", value_parser = sweep)]
    pub sweep_grace: Option<Duration>,
    /// File that names the current boot
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_BOOT_ID_FILE", hide = true)]
    pub boot_id_file: Option<PathBuf>,
    /// File that names this machine
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_MACHINE_ID_FILE", hide = true)]
    pub machine_id_file: Option<PathBuf>,
}

/// Where an ADD is written before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum Commit {
    /// In this node's journal; its record in etcd follows.
    #[default]
    Journal,
    /// In etcd too.
    Etcd,
}

/// When what containers hold whose network namespace is gone is released.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// How often their namespaces are looked for.
    pub every: Duration,
    /// For how long one must have been gone.
    pub grace: Duration,
}

/// The file's form of the same.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    node: Option<String>,
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    listen: Option<SocketAddr>,
    cooldown: Option<String>,
    fsync: Option<bool>,
    keep_after_reboot: Option<bool>,
    #[serde(default)]
    etcd: etcd::File,
    lease_ttl: Option<String>,
    warm_addresses: Option<u32>,
    commit: Option<Commit>,
    offline_limit: Option<String>,
    sweep: Option<String>,
    sweep_grace: Option<String>,
    boot_id_file: Option<PathBuf>,
    machine_id_file: Option<PathBuf>,
}

/// What the daemon runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// The directory of journal and embedded store.
    pub state_dir: PathBuf,
    /// The unix socket.
    pub socket: PathBuf,
    /// The TCP listener.
    pub listen: SocketAddr,
    /// The cooldown of released addresses.
    pub cooldown: Duration,
    /// Whether commits of the journal are synced.
    pub fsync: bool,
    /// Whether holdings outlive a reboot.
    pub keep_after_reboot: bool,
    /// How to reach etcd; without it, the embedded store.
    pub etcd: Option<Options>,
    /// The life of the node's etcd lease without a sign of the node; whole seconds.
    pub lease_ttl: Duration,
    /// How many addresses are kept free in active blocks.
    pub warm_addresses: u32,
    /// Where an ADD is written before it is answered.
    pub commit: Commit,
    /// After how long without etcd nothing is handed out any more.
    pub offline_limit: Option<Duration>,
    /// How it releases what containers hold whose network namespace is gone, if at all.
    pub sweep: Option<Sweep>,
    /// The id of this boot.
    pub boot_id: String,
    /// The id of this machine; empty if it has none.
    pub machine_id: String,
}

/// A time that people write, within limits.
fn between(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let show = humantime::format_duration;
    if duration < min {
        return Err(format!("at least {} is needed", show(min)));
    }
    if duration > max {
        return Err(format!("at most {} is allowed", show(max)));
    }
    Ok(duration)
}

fn cooldown(text: &str) -> Result<Duration, String> {
    between(text, Duration::ZERO, limits::COOLDOWN_MAX)
}

fn lease_ttl(text: &str) -> Result<Duration, String> {
    let ttl = between(text, limits::LEASE_TTL_MIN, limits::LEASE_TTL_MAX)?;
    // etcd counts in seconds.
    if ttl.subsec_nanos() == 0 { Ok(ttl) } else { Err("whole seconds are needed".to_owned()) }
}

fn offline_limit(text: &str) -> Result<Duration, String> {
    between(text, limits::OFFLINE_LIMIT_MIN, limits::OFFLINE_LIMIT_MAX)
}

fn sweep(text: &str) -> Result<Duration, String> {
    between(text, limits::SWEEP_MIN, limits::SWEEP_MAX)
}

/// A time from the file.
fn parse(
    field: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<Duration, String>,
) -> Result<Option<Duration>, String> {
    text.map(parse).transpose().map_err(|error| format!("{field}: {error}"))
}

impl File {
    /// The same as arguments.
    fn args(self) -> Result<ServeArgs, String> {
        if let Some(number) = self.warm_addresses.filter(|&n| n > limits::WARM_ADDRESSES_MAX) {
            let max = limits::WARM_ADDRESSES_MAX;
            return Err(format!("warmAddresses: at most {max} are allowed, not {number}"));
        }
        Ok(ServeArgs {
            config: None,
            node: self.node,
            state_dir: self.state_dir,
            socket: self.socket,
            listen: self.listen,
            cooldown: parse("cooldown", self.cooldown.as_deref(), cooldown)?,
            fsync: self.fsync,
            keep_after_reboot: self.keep_after_reboot,
            etcd: self.etcd.args()?,
            lease_ttl: parse("leaseTtl", self.lease_ttl.as_deref(), lease_ttl)?,
            warm_addresses: self.warm_addresses,
            commit: self.commit,
            offline_limit: parse("offlineLimit", self.offline_limit.as_deref(), offline_limit)?,
            sweep: parse("sweep", self.sweep.as_deref(), sweep)?,
            sweep_grace: parse("sweepGrace", self.sweep_grace.as_deref(), sweep)?,
            boot_id_file: self.boot_id_file,
            machine_id_file: self.machine_id_file,
        })
    }
}

impl Config {
    /// Puts flags, environment, file and defaults together.
    ///
    /// # Errors
    /// Which option of which source is wrong, and what it may be.
    pub fn new(args: ServeArgs) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => ServeArgs::default(),
        };
        let node = match args.node.or(file.node) {
            Some(node) => node,
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        check_node(&node)?;
        let boot_id_file = (args.boot_id_file.or(file.boot_id_file))
            .unwrap_or_else(|| "/proc/sys/kernel/random/boot_id".into());
        let boot_id = std::fs::read_to_string(&boot_id_file)
            .with_context(|| format!("boot id in {}", boot_id_file.display()))?;
        // A machine without an id is taken for no other one.
        let machine_id_file = (args.machine_id_file.or(file.machine_id_file))
            .unwrap_or_else(|| "/etc/machine-id".into());
        let machine_id = std::fs::read_to_string(&machine_id_file).unwrap_or_default();
        let (every, grace) = (args.sweep.or(file.sweep), args.sweep_grace.or(file.sweep_grace));
        anyhow::ensure!(
            every.is_some() || grace.is_none(),
            "sweepGrace needs sweep: say how often (--sweep), or leave sweepGrace out"
        );
        let grace = grace.unwrap_or(limits::SWEEP_GRACE);
        let config = Self {
            node,
            state_dir: args.state_dir.or(file.state_dir).unwrap_or("/var/lib/leasehold".into()),
            socket: args.socket.or(file.socket).unwrap_or(SOCKET_DEFAULT.into()),
            listen: args.listen.or(file.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9750))),
            cooldown: args.cooldown.or(file.cooldown).unwrap_or(limits::COOLDOWN),
            fsync: args.fsync.or(file.fsync).unwrap_or(false),
            keep_after_reboot: args.keep_after_reboot.or(file.keep_after_reboot).unwrap_or(false),
            etcd: args.etcd.or(file.etcd).options()?,
            lease_ttl: args.lease_ttl.or(file.lease_ttl).unwrap_or(limits::LEASE_TTL),
            warm_addresses: (args.warm_addresses.or(file.warm_addresses))
                .unwrap_or(limits::WARM_ADDRESSES),
            commit: args.commit.or(file.commit).unwrap_or_default(),
            offline_limit: args.offline_limit.or(file.offline_limit),
            sweep: every.map(|every| Sweep { every, grace }),
            boot_id: boot_id.trim().to_owned(),
            machine_id: machine_id.trim().to_owned(),
        };
        anyhow::ensure!(
            config.fsync || !config.keep_after_reboot,
            "keepAfterReboot needs fsync: without it the journal may not survive a power cut"
        );
        anyhow::ensure!(
            config.etcd.is_some() || config.commit == Commit::Journal,
            "commit = etcd needs etcd: say where it is (--etcd), or leave commit out"
        );
        anyhow::ensure!(
            config.etcd.is_some() || config.offline_limit.is_none(),
            "offlineLimit needs etcd: say where it is (--etcd), or leave offlineLimit out"
        );
        Ok(config)
    }
}

fn read(path: &Path) -> anyhow::Result<ServeArgs> {
    let named = || format!("configuration file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    let file: File = toml::from_str(&text).with_context(named)?;
    file.args().map_err(|error| anyhow::anyhow!("{}: {error}", named()))
}

/// A node's name is part of keys in the cluster's store.
fn check_node(name: &str) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    anyhow::ensure!(
        !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && name.chars().all(good),
        "node name {name:?}: use letters, digits, '.', '-' and '_', at most {} of them (--node)",
        limits::NAME_BYTES_MAX
    );
    Ok(())
}
