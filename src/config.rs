//! The daemon's configuration: flags win over `LEASEHOLD_*`, these over the TOML file, that over
//! the defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use crate::client::SOCKET_DEFAULT;
use crate::limits;

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
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_COOLDOWN", value_parser = duration)]
    pub cooldown: Option<Duration>,
    /// Make each answer survive the death of the machine, not only of the daemon [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_FSYNC", num_args = 0..=1,
          default_missing_value = "true")]
    pub fsync: Option<bool>,
    /// Keep what containers held before a reboot; needs fsync [default: false]
    #[arg(long, value_name = "BOOL", env = "LEASEHOLD_KEEP_AFTER_REBOOT", num_args = 0..=1,
          default_missing_value = "true")]
    pub keep_after_reboot: Option<bool>,
    /// File that names the current boot
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_BOOT_ID_FILE", hide = true)]
    pub boot_id_file: Option<PathBuf>,
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
    boot_id_file: Option<PathBuf>,
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
    /// The id of this boot.
    pub boot_id: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > limits::COOLDOWN_MAX {
        return Err(format!(
            "at most {} is allowed",
            humantime::format_duration(limits::COOLDOWN_MAX)
        ));
    }
    Ok(duration)
}

impl Config {
    /// Puts flags, environment, file and defaults together.
    ///
    /// # Errors
    /// Which option of which source is wrong, and what it may be.
    pub fn new(args: ServeArgs) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let cooldown = match file.cooldown.as_deref().map(duration).transpose() {
            Ok(cooldown) => args.cooldown.or(cooldown).unwrap_or(limits::COOLDOWN),
            Err(error) => {
                let path = args.config.unwrap_or_default();
                anyhow::bail!("configuration file {}: cooldown: {error}", path.display())
            }
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
        let config = Self {
            node,
            state_dir: args.state_dir.or(file.state_dir).unwrap_or("/var/lib/leasehold".into()),
            socket: args.socket.or(file.socket).unwrap_or(SOCKET_DEFAULT.into()),
            listen: args.listen.or(file.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9750))),
            cooldown,
            fsync: args.fsync.or(file.fsync).unwrap_or(false),
            keep_after_reboot: args.keep_after_reboot.or(file.keep_after_reboot).unwrap_or(false),
            boot_id: boot_id.trim().to_owned(),
        };
        anyhow::ensure!(
            config.fsync || !config.keep_after_reboot,
            "keepAfterReboot needs fsync: without it the journal may not survive a power cut"
        );
        Ok(config)
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("configuration file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
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
