//! Imports from a list that the operator made of what another plugin holds in a store of the whole
//! cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use serde_json::Value;

use super::{CONF_DIR, Groups};
use crate::api::foreign::Entry;
use crate::api::networks::NetworkRow;
use crate::cli::admin::{self, AdminArgs};
use crate::cli::input;
use crate::limits;

/// The options of each import from a list.
#[derive(Args, Debug)]
pub(in crate::cli) struct ListedArgs {
    /// Network of Leasehold that takes the addresses over; what is outside of its ranges is passed
    /// over
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Interface of addresses for which the list names none
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    pub(super) ifname: String,
    /// Directory with the network configurations, which have the ranges
    #[arg(long, value_name = "DIR", default_value = CONF_DIR)]
    conf_dir: PathBuf,
    /// Only show what would be taken over
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// A list: the addresses of containers, and whether each is of this node.
pub(super) struct List {
    /// The file, for messages.
    pub(super) from: PathBuf,
    /// The addresses, each with true if its container is one of this node.
    pub(super) entries: Vec<(Entry, bool)>,
}

impl ListedArgs {
    /// Takes over what the list has for this node's containers and in the network's ranges.
    pub(super) fn import(&self, list: &List) -> anyhow::Result<ExitCode> {
        let subnets = self.subnets()?;
        let inside = |entry: &Entry| {
            subnets.is_empty() || subnets.iter().any(|subnet| subnet.contains(&entry.address))
        };
        let mut groups = Groups::new();
        let mut known = 0_usize;
        for (entry, is_here) in list.entries.iter().filter(|(entry, _)| inside(entry)) {
            known += 1;
            if *is_here {
                let (container, ifname) = (entry.container_id.clone(), entry.ifname.clone());
                let key = (self.network.clone(), container, ifname);
                groups.entry(key).or_default().push(entry.clone());
            }
        }
        anyhow::ensure!(
            known > 0,
            "no address in {} is in the ranges of network {}: see whether --network and --conf-dir \
             are right",
            list.from.display(),
            self.network
        );
        super::import(&groups, &self.conf_dir, self.dry_run, &self.admin)
    }

    /// The subnets of the network; none, if each pod's service names a central configuration.
    fn subnets(&self) -> anyhow::Result<Vec<IpNet>> {
        let ipam = super::known_ipam_of(&self.conf_dir, &self.network)?;
        let own = super::subnets(&ipam);
        if !own.is_empty() || ipam["networkFrom"].is_string() {
            return Ok(own);
        }
        let central = ipam["network"].as_str().unwrap_or(&self.network);
        let path = format!("/v1/networks/{}", admin::encoded(central));
        let row: NetworkRow = admin::get(&self.admin.socket, &path)?;
        let central: Option<Value> = row.ipam.and_then(|ipam| serde_json::to_value(ipam).ok());
        let central = central.with_context(|| {
            format!("network {} has no ranges, here or in its central configuration", self.network)
        })?;
        Ok(super::subnets(&central))
    }
}

/// Reads a file, or standard input if it is `-`.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let text = input::read(path, limits::IMPORT_BYTES_MAX)?;
    String::from_utf8(text).with_context(|| format!("{} is not text", path.display()))
}

/// Reads a file of JSON.
pub(super) fn read_json(path: &Path) -> anyhow::Result<Value> {
    serde_json::from_str(&read(path)?).with_context(|| format!("{} is not JSON", path.display()))
}
