//! The daemon's configuration: flags win over `LEASEHOLD_*` variables, variables over the TOML
//! file, the file over the defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Deserialize;

pub use self::check::{Checked, Fault, check_file};
pub use self::etcd::EtcdArgs;
pub use self::sweep::{Sweep, SweepArgs};
use crate::files;
use crate::journal::past::Bounds;
use crate::limits;
use crate::store::etcd::Options;
use my_ipam::client::SOCKET_DEFAULT;
use times::{
    cooldown, forget_after, history_age, lease_ttl, offline_limit, parse, sweep as sweep_time,
    sweep_every,
};

mod check;
mod etcd;
#[cfg(test)]
mod shipped;
mod sweep;
mod times;

/// The configuration file that is read if none is named and this one is there.
pub const FILE_DEFAULT: &str = "/etc/leasehold.toml";

/// The options of `leasehold serve`.
#[derive(Args, Clone, Default, Debug)]
pub struct ServeArgs {
    /// TOML file with the options below in camelCase (stateDir = "...") [default:
    /// /etc/leasehold.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this node; unique in the cluster [default: the one that the state directory has, or
    /// the host name]
    #[arg(long, value_name = "NAME", env = "LEASEHOLD_NODE")]
    pub node: Option<String>,
    /// Directory of the journal and of the embedded store [default: /var/lib/leasehold]
    #[arg(long, value_name = "DIR", env = "LEASEHOLD_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Unix socket for the plugin and for admin commands [default: /run/leasehold/leasehold.sock]
    #[arg(long, value_name = "PATH", env = "LEASEHOLD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// TCP address for metrics and other reads [default: 127.0.0.1:9750]
    #[arg(long, value_name = "ADDR:PORT", env = "LEASEHOLD_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Show names of pods and containers to everybody over TCP [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_LISTEN_DETAILS", num_args = 0..=1,
          default_missing_value = "true")]
    pub listen_details: Option<bool>,
    /// File with a token; TCP clients that send it (Authorization: Bearer TOKEN) see the names of
    /// pods and containers
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_LISTEN_TOKEN_FILE")]
    pub listen_token_file: Option<PathBuf>,
    /// More host names that TCP clients may use for this daemon, beside localhost and the node's
    /// name; IP addresses always work [default: none]
    #[arg(long, value_name = "NAME,...", env = "LEASEHOLD_LISTEN_HOSTS", value_delimiter = ',')]
    pub listen_hosts: Option<Vec<String>>,
    /// Time for which a released address is not handed out again, such as 30s or 5m; 0s turns this
    /// off [default: 30s]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_COOLDOWN", value_parser = cooldown)]
    pub cooldown: Option<Duration>,
    /// Make each answer survive the death of the machine, not only of the daemon [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_FSYNC", num_args = 0..=1,
          default_missing_value = "true")]
    pub fsync: Option<bool>,
    /// Keep the addresses that containers held before a reboot; needs fsync [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_KEEP_AFTER_REBOOT", num_args = 0..=1,
          default_missing_value = "true")]
    pub keep_after_reboot: Option<bool>,
    /// The options about etcd
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Time after which a node that is gone loses its unused blocks: the TTL of its etcd lease
    /// [default: 30s]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_LEASE_TTL", value_parser = lease_ttl)]
    pub lease_ttl: Option<Duration>,
    /// Addresses to keep free for times when etcd cannot be reached [default: 32]
    #[arg(long, value_name = "NUMBER", env = "LEASEHOLD_WARM_ADDRESSES",
          value_parser = clap::value_parser!(u32).range(..=i64::from(limits::WARM_ADDRESSES_MAX)))]
    pub warm_addresses: Option<u32>,
    /// Place where an ADD is written before it is answered; etcd costs a round trip [default:
    /// journal]
    #[arg(long, value_name = "WHERE", env = "LEASEHOLD_COMMIT")]
    pub commit: Option<Commit>,
    /// Stop handing out addresses after this time without etcd; with commit = etcd, other nodes may
    /// take the free ones then [default: never]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_OFFLINE_LIMIT",
          value_parser = offline_limit)]
    pub offline_limit: Option<Duration>,
    /// The options about the sweep
    #[command(flatten)]
    pub sweep: SweepArgs,
    /// Let STATUS fail while every address of a network is taken, or none is in hand while etcd is
    /// away: runtimes then take the node out of service [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_STATUS_FAILS_WHEN_FULL", num_args = 0..=1,
          default_missing_value = "true")]
    pub status_fails_when_full: Option<bool>,
    /// Take over what host-local holds on this node at the first ADD of a network, instead of
    /// refusing it [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_IMPORT_HOST_LOCAL", num_args = 0..=1,
          default_missing_value = "true")]
    pub import_host_local: Option<bool>,
    /// Time after which a network that holds nothing on this node gives its last block back and is
    /// forgotten [default: 10m]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_FORGET_AFTER", value_parser = forget_after)]
    pub forget_after: Option<Duration>,
    /// Level of the log: error, warn, info, debug, or directives such as info,h2=debug [default:
    /// info]
    #[arg(long, value_name = "LEVEL", env = "LEASEHOLD_LOG")]
    pub log: Option<String>,
    /// Event that begins a new boot, which ends the addresses of all earlier containers: a start of
    /// the kernel, or with init also a new PID 1. Use init only on a node that is itself a
    /// container, and never for a daemon in a container of its own [default: kernel]
    #[arg(long, value_name = "WHAT", env = "LEASEHOLD_BOOT_FROM")]
    pub boot_from: Option<BootFrom>,
    /// Number of past holdings that this node keeps for `leasehold history`; 0: none
    /// [default: 20000]
    #[arg(long, value_name = "NUMBER", env = "LEASEHOLD_HISTORY_COUNT",
          value_parser = clap::value_parser!(u64).range(..=limits::PAST_COUNT_MAX))]
    pub history_count: Option<u64>,
    /// Time for which this node keeps past holdings [default: 7d]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_HISTORY_AGE", value_parser = history_age)]
    pub history_age: Option<Duration>,
    /// File that names the current boot
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_BOOT_ID_FILE", hide = true)]
    pub boot_id_file: Option<PathBuf>,
    /// File that names this machine
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_MACHINE_ID_FILE", hide = true)]
    pub machine_id_file: Option<PathBuf>,
}

/// The place where an ADD is written before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum Commit {
    /// This node's journal; the record in etcd follows
    #[default]
    Journal,
    /// The journal and etcd
    Etcd,
}

/// The event that begins a new boot. When a boot ends, every container of the node ends too.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum BootFrom {
    /// The kernel
    #[default]
    Kernel,
    /// The kernel, or PID 1 as the daemon sees it
    Init,
}

/// The same options in the form of the file.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    node: Option<String>,
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    listen: Option<SocketAddr>,
    listen_details: Option<bool>,
    listen_token_file: Option<PathBuf>,
    listen_hosts: Option<Vec<String>>,
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
    cri: Option<String>,
    cri_grace: Option<String>,
    status_fails_when_full: Option<bool>,
    import_host_local: Option<bool>,
    forget_after: Option<String>,
    log: Option<String>,
    boot_from: Option<BootFrom>,
    history_count: Option<u64>,
    history_age: Option<String>,
    boot_id_file: Option<PathBuf>,
    machine_id_file: Option<PathBuf>,
}

/// The settings with which the daemon runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// This node's name.
    pub node: String,
    /// True if an option says it; otherwise it is the host name, and the state directory's counts.
    pub node_is_given: bool,
    /// The directory of journal and embedded store.
    pub state_dir: PathBuf,
    /// The unix socket.
    pub socket: PathBuf,
    /// The TCP listener.
    pub listen: SocketAddr,
    /// True if everybody sees names of pods and containers over TCP.
    pub listen_details: bool,
    /// The file with the token whose holder sees them.
    pub listen_token_file: Option<PathBuf>,
    /// More names by which TCP clients may ask.
    pub listen_hosts: Vec<String>,
    /// The cooldown of released addresses.
    pub cooldown: Duration,
    /// True if commits of the journal are synced.
    pub fsync: bool,
    /// True if holdings outlive a reboot.
    pub keep_after_reboot: bool,
    /// The connection to etcd; `None` means the embedded store.
    pub etcd: Option<Options>,
    /// The life of the node's etcd lease without a sign of the node; whole seconds.
    pub lease_ttl: Duration,
    /// The number of addresses that are kept free in active blocks.
    pub warm_addresses: u32,
    /// The place where an ADD is written before it is answered.
    pub commit: Commit,
    /// The time without etcd after which the node stops handing out addresses.
    pub offline_limit: Option<Duration>,
    /// The sweep for containers whose network namespace is gone, if it is on.
    pub sweep: Option<Sweep>,
    /// True if STATUS fails while every address is taken, or none is in hand without etcd.
    pub status_fails_when_full: bool,
    /// True if an ADD takes over what host-local holds instead of being refused.
    pub import_host_local: bool,
    /// The time after which a range set that holds nothing is forgotten.
    pub forget_after: Duration,
    /// The lines that are logged: a level, or directives by module.
    pub log: String,
    /// The event that begins a new boot.
    pub boot_from: BootFrom,
    /// The bounds of the past holdings that are kept.
    pub history: Bounds,
    /// The id of this boot.
    pub boot_id: String,
    /// The id of this machine; empty if it has none.
    pub machine_id: String,
}

impl File {
    /// The options of the file as arguments; and what is wrong with those that are left out.
    fn args(self) -> (ServeArgs, Vec<String>) {
        let mut faults = Vec::new();
        let mut at_most = |key: &str, given: Option<u64>, max: u64| {
            let kept = given.filter(|&number| number <= max);
            if let (None, Some(number)) = (kept, given) {
                faults.push(format!("{key}: at most {max} are allowed, not {number}"));
            }
            kept
        };
        let warm = self.warm_addresses.map(u64::from);
        let warm = at_most("warmAddresses", warm, limits::WARM_ADDRESSES_MAX.into());
        let history_count = at_most("historyCount", self.history_count, limits::PAST_COUNT_MAX);
        let (etcd, fault) = self.etcd.args();
        faults.extend(fault);
        let mut time = |key: &str, text: Option<String>, read: fn(&str) -> Result<_, String>| {
            let read = parse(key, text.as_deref(), read);
            read.map_err(|fault| faults.push(fault)).ok().flatten()
        };
        let args = ServeArgs {
            config: None,
            node: self.node,
            state_dir: self.state_dir,
            socket: self.socket,
            listen: self.listen,
            listen_details: self.listen_details,
            listen_token_file: self.listen_token_file,
            listen_hosts: self.listen_hosts,
            cooldown: time("cooldown", self.cooldown, cooldown),
            fsync: self.fsync,
            keep_after_reboot: self.keep_after_reboot,
            etcd,
            lease_ttl: time("leaseTtl", self.lease_ttl, lease_ttl),
            warm_addresses: warm.and_then(|number| u32::try_from(number).ok()),
            commit: self.commit,
            offline_limit: time("offlineLimit", self.offline_limit, offline_limit),
            sweep: SweepArgs {
                every: time("sweep", self.sweep, sweep_every),
                grace: time("sweepGrace", self.sweep_grace, sweep_time),
                cri: self.cri,
                cri_grace: time("criGrace", self.cri_grace, sweep_time),
            },
            status_fails_when_full: self.status_fails_when_full,
            import_host_local: self.import_host_local,
            forget_after: time("forgetAfter", self.forget_after, forget_after),
            log: self.log,
            boot_from: self.boot_from,
            history_count,
            history_age: time("historyAge", self.history_age, history_age),
            boot_id_file: self.boot_id_file,
            machine_id_file: self.machine_id_file,
        };
        (args, faults)
    }
}

impl Config {
    /// Merges flags, environment, file and defaults.
    ///
    /// # Errors
    /// An option is wrong; the error names its source and the allowed values.
    pub fn new(args: ServeArgs) -> anyhow::Result<Self> {
        let (path, file) = read_file(args.config.clone())?;
        let config = Self::unchecked(args, file, path)?;
        let faults = config.faults();
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
        Ok(config)
    }

    /// Merges the options without a look at whether they go together.
    fn unchecked(args: ServeArgs, file: ServeArgs, path: Option<PathBuf>) -> anyhow::Result<Self> {
        let given = args.node.or(file.node);
        let node_is_given = given.is_some();
        let node = given
            .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
        let boot_id_file = (args.boot_id_file.or(file.boot_id_file))
            .unwrap_or_else(|| "/proc/sys/kernel/random/boot_id".into());
        let boot_id = read_id(&boot_id_file)
            .with_context(|| format!("cannot read the boot id from {}", boot_id_file.display()))?;
        // A machine without an id is never mistaken for another one.
        let machine_id_file = (args.machine_id_file.or(file.machine_id_file))
            .unwrap_or_else(|| "/etc/machine-id".into());
        let machine_id = read_id(&machine_id_file).unwrap_or_default();
        let past =
            (args.history_count.or(file.history_count), args.history_age.or(file.history_age));
        Ok(Self {
            file: path,
            node,
            node_is_given,
            state_dir: args.state_dir.or(file.state_dir).unwrap_or("/var/lib/leasehold".into()),
            socket: args.socket.or(file.socket).unwrap_or(SOCKET_DEFAULT.into()),
            listen: args.listen.or(file.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9750))),
            listen_details: args.listen_details.or(file.listen_details).unwrap_or(false),
            listen_token_file: args.listen_token_file.or(file.listen_token_file),
            listen_hosts: args.listen_hosts.or(file.listen_hosts).unwrap_or_default(),
            cooldown: args.cooldown.or(file.cooldown).unwrap_or(limits::COOLDOWN),
            fsync: args.fsync.or(file.fsync).unwrap_or(false),
            keep_after_reboot: args.keep_after_reboot.or(file.keep_after_reboot).unwrap_or(false),
            etcd: args.etcd.or(file.etcd).options()?,
            lease_ttl: args.lease_ttl.or(file.lease_ttl).unwrap_or(limits::LEASE_TTL),
            warm_addresses: (args.warm_addresses.or(file.warm_addresses))
                .unwrap_or(limits::WARM_ADDRESSES),
            commit: args.commit.or(file.commit).unwrap_or_default(),
            offline_limit: args.offline_limit.or(file.offline_limit),
            sweep: args.sweep.or(file.sweep).options()?,
            status_fails_when_full: (args.status_fails_when_full)
                .or(file.status_fails_when_full)
                .unwrap_or(false),
            import_host_local: (args.import_host_local.or(file.import_host_local)).unwrap_or(false),
            forget_after: (args.forget_after.or(file.forget_after)).unwrap_or(limits::FORGET_AFTER),
            log: args.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            boot_from: args.boot_from.or(file.boot_from).unwrap_or_default(),
            history: Bounds::new(past.0, past.1),
            boot_id: boot_id.trim().to_owned(),
            machine_id: machine_id.trim().to_owned(),
        })
    }

    /// Says what is wrong with options, alone or together.
    fn faults(&self) -> Vec<String> {
        let alone = self.etcd.is_none();
        let together = [
            (
                self.keep_after_reboot && !self.fsync,
                "keepAfterReboot needs fsync: without it the journal may not survive a power cut",
            ),
            (
                alone && self.commit != Commit::Journal,
                "commit = etcd needs etcd: give its URLs (--etcd), or leave commit out",
            ),
            (
                alone && self.offline_limit.is_some(),
                "offlineLimit needs etcd: give its URLs (--etcd), or leave offlineLimit out",
            ),
        ];
        let wrong = together.into_iter().filter(|(is_wrong, _)| *is_wrong);
        let mut faults: Vec<String> =
            check_node(&self.node).err().iter().map(ToString::to_string).collect();
        faults.extend(check_hosts(&self.listen_hosts).err().map(|fault| fault.to_string()));
        faults.extend(wrong.map(|(_, said)| said.to_owned()));
        faults
    }
}

/// Reads an id of this boot or machine.
fn read_id(path: &Path) -> std::io::Result<String> {
    let text = files::read_foreign(path, limits::BOOT_ID_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads the file that is named, or the default one if it is there. A default file that cannot be
/// read is an error: without its options the node would hand out the addresses of others.
fn read_file(named: Option<PathBuf>) -> anyhow::Result<(Option<PathBuf>, ServeArgs)> {
    let is_named = named.is_some();
    let path = named.unwrap_or_else(|| FILE_DEFAULT.into());
    // The usual name of an empty file.
    if path == Path::new("/dev/null") {
        return Ok((Some(path), ServeArgs::default()));
    }
    // A pipe would have the start wait for ever.
    let text = match files::read_foreign(&path, limits::CONFIG_BYTES_MAX) {
        Err(error) if !is_named && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((None, ServeArgs::default()));
        }
        text => text.with_context(|| format!("configuration file {}", path.display()))?,
    };
    let args = parse_file(&path, &String::from_utf8_lossy(&text))?;
    Ok((Some(path), args))
}

fn parse_file(path: &Path, text: &str) -> anyhow::Result<ServeArgs> {
    let named = || format!("configuration file {}", path.display());
    let file: File = toml::from_str(text).with_context(named)?;
    let (args, faults) = file.args();
    anyhow::ensure!(faults.is_empty(), "{}: {}", named(), faults.join("; "));
    Ok(args)
}

/// A host is a name alone, as clients send it.
fn check_hosts(hosts: &[String]) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    for host in hosts {
        anyhow::ensure!(
            !host.is_empty() && host.chars().all(good),
            "listenHosts: {host:?} is not a host name: give names alone, without scheme and port"
        );
    }
    Ok(())
}

/// A node's name is part of keys in the cluster's store.
fn check_node(name: &str) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    anyhow::ensure!(
        !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && name.chars().all(good),
        "invalid node name {name:?}: use letters, digits, '.', '-' and '_', at most {} of them \
         (--node)",
        limits::NAME_BYTES_MAX
    );
    Ok(())
}
