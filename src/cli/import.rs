//! `leasehold import` and `leasehold export host-local`: the addresses of running containers change
//! hands, and the containers notice nothing.

mod etcd_cni;
mod listed;
mod whereabouts;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};

use super::admin::{self, AdminArgs};
use super::allocations;
use super::input;
use super::output::{self, Form, printable};
use crate::api::allocations::{AllocationRow, Filter};
use crate::api::foreign::{self, Entry, Pod};
use crate::api::import::{ImportOutcome, Imported};
use crate::{files, limits};

use self::etcd_cni::EtcdCniArgs;
use self::whereabouts::WhereaboutsArgs;

/// The addresses to take over, by network, container and interface.
type Groups = BTreeMap<(String, String, String), Vec<Entry>>;

/// The place where runtimes look for network configurations.
const CONF_DIR: &str = "/etc/cni/net.d";

/// The commands that take over what another plugin holds.
#[derive(Subcommand, Debug)]
pub(super) enum ImportCommand {
    /// Take over the addresses that host-local holds on this node
    #[command(after_help = import_examples())]
    HostLocal(ImportArgs),
    /// Take over the addresses that whereabouts holds for this node's containers
    #[command(after_help = whereabouts::examples())]
    Whereabouts(WhereaboutsArgs),
    /// Take over the addresses that an older my-ipam, without a daemon, holds in etcd for this node
    #[command(after_help = etcd_cni::examples())]
    EtcdCni(EtcdCniArgs),
}

/// The commands that hand over to another plugin.
#[derive(Subcommand, Debug)]
pub(super) enum ExportCommand {
    /// Write the addresses that this node holds as host-local's files
    #[command(after_help = export_examples())]
    HostLocal(ExportArgs),
}

/// The options of `leasehold import host-local`.
#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Directory of host-local: one directory in it for each network
    #[arg(value_name = "DIR", default_value = foreign::DIR_DEFAULT)]
    dir: PathBuf,
    /// Directory with the network configurations, which have the ranges
    #[arg(long, value_name = "DIR", default_value = CONF_DIR)]
    conf_dir: PathBuf,
    /// Only this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only show what would be taken over
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The options of `leasehold export host-local`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Directory for the files, such as /var/lib/cni/networks
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

fn import_examples() -> String {
    format!(
        "Put the new configurations (\"type\": \"my-ipam\") into place first. Each running\n\
         container then keeps its addresses, and its DEL works. Files of an earlier boot are\n\
         passed over: their containers are gone. What was taken over is removed from the\n\
         directory. If one of them cannot be taken over, nothing is changed.\n\n\
         Examples:\n  leasehold import host-local --dry-run\n  \
         leasehold import host-local /var/lib/cni/networks --network pods\n\n{}",
        super::EXIT_CODES
    )
}

fn export_examples() -> String {
    format!(
        "The way back to host-local: stop the runtime, export, put the old configurations into\n\
         place, start the runtime. The daemon goes on holding the addresses. If a file of another\n\
         container is in the way, nothing is written.\n\n\
         Examples:\n  leasehold export host-local /var/lib/cni/networks --dry-run\n  \
         leasehold export host-local /var/lib/cni/networks\n\n{}",
        super::EXIT_CODES
    )
}

/// The outcome for the addresses of one container's interface.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Row {
    network: String,
    container_id: String,
    ifname: String,
    addresses: Vec<IpAddr>,
    /// `imported`, `wouldImport`, `held` (already), `exported`, `wouldExport` or `conflict`.
    outcome: &'static str,
    /// The reason for a conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Runs a command of `leasehold import`.
pub(super) fn run_import(command: &ImportCommand) -> anyhow::Result<ExitCode> {
    match command {
        ImportCommand::HostLocal(args) => {
            import(&groups(args)?, &args.conf_dir, args.dry_run, &args.admin)
        }
        ImportCommand::Whereabouts(args) => args.listed.import(&whereabouts::read(args)?),
        ImportCommand::EtcdCni(args) => args.listed.import(&etcd_cni::read(args)?),
    }
}

fn import(
    groups: &Groups,
    conf_dir: &Path,
    dry_run: bool,
    admin: &AdminArgs,
) -> anyhow::Result<ExitCode> {
    let mut rows: Vec<Row> = groups.iter().map(|(key, entries)| row(key, entries)).collect();
    let mut containers = Vec::with_capacity(rows.len());
    for (row, entries) in rows.iter_mut().zip(groups.values()) {
        match container(conf_dir, row, entries) {
            Ok(container) => containers.push(container),
            Err(error) => row.refuse(format!("{error:#}")),
        }
    }
    // All or nothing: everything is judged before anything is changed.
    let is_conflict = |row: &Row| row.outcome == "conflict";
    judge(&admin.socket, true, &containers, &mut rows)?;
    let conflicts = rows.iter().any(is_conflict);
    if !conflicts && !dry_run {
        judge(&admin.socket, false, &containers, &mut rows)?;
        if !rows.iter().any(is_conflict) {
            let files = groups.values().flatten().filter_map(|entry| entry.file.as_ref());
            for file in files {
                fs::remove_file(file).with_context(|| file.display().to_string())?;
            }
        }
    }
    show(admin.output.form, &rows, "nothing is left to take over")
}

/// Has the daemon judge the containers, or take them over; writes its answers down.
fn judge(
    socket: &Path,
    dry_run: bool,
    containers: &[Value],
    rows: &mut [Row],
) -> anyhow::Result<()> {
    let mut rows = rows.iter_mut().filter(|row| row.why.is_none());
    for some in containers.chunks(limits::IMPORTED_PER_REQUEST_MAX) {
        let body = json!({ "dryRun": dry_run, "containers": some });
        let answers: Vec<Imported> = admin::post(socket, "/v1/import", &body)?;
        for (answer, row) in answers.into_iter().zip(&mut rows) {
            row.outcome = match answer.outcome {
                ImportOutcome::Imported => "imported",
                ImportOutcome::WouldImport => "wouldImport",
                ImportOutcome::Held => "held",
                ImportOutcome::Conflict => "conflict",
            };
            row.why = answer.why;
        }
    }
    Ok(())
}

/// The entries of each network, container and interface, of this boot.
fn groups(args: &ImportArgs) -> anyhow::Result<Groups> {
    let mut groups = Groups::new();
    let listed = fs::read_dir(&args.dir).with_context(|| args.dir.display().to_string())?;
    for dir in listed {
        let dir = dir.with_context(|| args.dir.display().to_string())?;
        let network = dir.file_name().to_string_lossy().into_owned();
        let wanted = args.network.as_ref().is_none_or(|wanted| *wanted == network);
        if !wanted || !dir.path().is_dir() {
            continue;
        }
        let entries = foreign::read(&dir.path());
        for entry in entries.with_context(|| dir.path().display().to_string())? {
            if entry.of_this_boot {
                let key = (network.clone(), entry.container_id.clone(), entry.ifname.clone());
                groups.entry(key).or_default().push(entry);
            }
        }
    }
    Ok(groups)
}

fn row((network, container_id, ifname): &(String, String, String), entries: &[Entry]) -> Row {
    Row {
        network: network.clone(),
        container_id: container_id.clone(),
        ifname: ifname.clone(),
        addresses: entries.iter().map(|entry| entry.address).collect(),
        outcome: "wouldImport",
        why: None,
    }
}

impl Row {
    fn refuse(&mut self, why: String) {
        self.outcome = "conflict";
        self.why = Some(why);
    }
}

/// A container as the daemon takes it: an ADD that asks for its addresses, and its files.
fn container(conf_dir: &Path, row: &Row, entries: &[Entry]) -> anyhow::Result<Value> {
    let config = configuration(conf_dir, &row.network, &row.addresses)?;
    let pod = entries.iter().find_map(|entry| entry.pod.as_ref());
    let files: Vec<_> = entries.iter().filter_map(|entry| entry.file.as_ref()).collect();
    let add = json!({
        "command": "ADD", "containerId": row.container_id, "ifname": row.ifname,
        "netns": foreign::NETNS_UNKNOWN, "args": pod.map(Pod::cni_args), "config": config
    });
    Ok(json!({ "add": add, "files": files }))
}

/// The configuration of a network, with only those range sets that have one of the addresses; it
/// asks for these.
fn configuration(dir: &Path, network: &str, addresses: &[IpAddr]) -> anyhow::Result<Value> {
    let mut ipam = known_ipam_of(dir, network)?;
    let has = |range: &Value| {
        let subnet = subnet(range);
        subnet.is_some_and(|subnet| addresses.iter().any(|address| subnet.contains(address)))
    };
    if let Some(fields) = ipam.as_object_mut() {
        fields.insert("type".to_owned(), "my-ipam".into());
        // Without a range for any of them, the daemon says what is wrong.
        let known = fields.clone();
        if !has(&json!({ "subnet": fields.get("subnet") })) {
            fields.remove("subnet");
        }
        if let Some(Value::Array(sets)) = fields.get_mut("ranges") {
            sets.retain(|set| set.as_array().is_some_and(|set| set.iter().any(has)));
        }
        let is_left = |key: &str| fields.get(key).is_some_and(|of| *of != json!([]));
        if !is_left("subnet") && !is_left("ranges") {
            *fields = known;
        }
    }
    Ok(json!({
        "cniVersion": "1.0.0", "name": network, "ipam": ipam,
        "args": { "cni": { "ips": addresses } }
    }))
}

fn subnet(range: &Value) -> Option<IpNet> {
    range["subnet"].as_str()?.parse().ok()
}

/// The subnets of all ranges of an `ipam`.
fn subnets(ipam: &Value) -> Vec<IpNet> {
    let sets = ipam["ranges"].as_array().into_iter().flatten();
    let ranges = sets.filter_map(Value::as_array).flatten();
    ranges.chain([ipam]).filter_map(subnet).collect()
}

/// The `ipam` of a network; there must be one.
fn known_ipam_of(dir: &Path, network: &str) -> anyhow::Result<Value> {
    ipam_of(dir, network)?.with_context(|| {
        format!(
            "no configuration of network {network} in {}: name the directory with --conf-dir",
            dir.display()
        )
    })
}

/// The `ipam` of a network in the first file of a directory that has it.
fn ipam_of(dir: &Path, network: &str) -> anyhow::Result<Option<Value>> {
    let listed = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut files: Vec<PathBuf> = listed.filter_map(|file| Some(file.ok()?.path())).collect();
    files.sort();
    let is_conf = |file: &PathBuf| {
        file.extension().is_some_and(|is| is == "conf" || is == "conflist" || is == "json")
    };
    for file in files.into_iter().filter(is_conf) {
        let text = input::read_file(&file, limits::BODY_BYTES_MAX)?;
        // Another network's file may be as wrong as it likes.
        let Ok(config) = serde_json::from_slice::<Value>(&text) else { continue };
        if config["name"] != network {
            continue;
        }
        let plugins = config["plugins"].as_array().cloned().unwrap_or_else(|| vec![config.clone()]);
        if let Some(ipam) = plugins.iter().map(|plugin| &plugin["ipam"]).find(|i| i.is_object()) {
            return Ok(Some(ipam.clone()));
        }
    }
    Ok(None)
}

/// Runs a command of `leasehold export`.
pub(super) fn run_export(command: &ExportCommand) -> anyhow::Result<ExitCode> {
    let ExportCommand::HostLocal(args) = command;
    let wanted = |row: &AllocationRow| args.network.as_ref().is_none_or(|of| *of == row.network);
    let held: Vec<AllocationRow> = allocations::list(&args.admin.socket, &Filter::default())?
        .into_iter()
        .filter(wanted)
        .collect();
    let mut rows = Vec::with_capacity(held.len());
    for row in &held {
        let address: IpAddr = row.address.parse().context("an address of the daemon")?;
        let file = args.dir.join(&row.network).join(&row.address);
        let (outcome, why) = match files::read_foreign(&file, limits::FOREIGN_FILE_BYTES_MAX) {
            Ok(there) if there != content(row).as_bytes() => {
                ("conflict", Some(format!("{} is of another container", file.display())))
            }
            Ok(_) => ("held", None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => ("wouldExport", None),
            Err(error) => ("conflict", Some(format!("{}: {error}", file.display()))),
        };
        rows.push(Row {
            network: row.network.clone(),
            container_id: row.container_id.clone(),
            ifname: row.ifname.clone(),
            addresses: vec![address],
            outcome,
            why,
        });
    }
    let conflicts = rows.iter().any(|row| row.outcome == "conflict");
    if !conflicts && !args.dry_run {
        for (row, held) in rows.iter_mut().zip(&held) {
            if row.outcome == "wouldExport" {
                write(&args.dir.join(&held.network), held)?;
                row.outcome = "exported";
            }
        }
    }
    show(args.admin.output.form, &rows, "this node holds no address")
}

/// The content of host-local's file.
fn content(row: &AllocationRow) -> String {
    format!("{}\r\n{}", row.container_id, row.ifname)
}

fn write(dir: &Path, row: &AllocationRow) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let path = dir.join(&row.address);
    let file = fs::File::options().write(true).create_new(true).mode(0o644).open(&path);
    file.and_then(|mut file| file.write_all(content(row).as_bytes()))
        .with_context(|| path.display().to_string())
}

fn show(form: Form, rows: &[Row], nothing: &str) -> anyhow::Result<ExitCode> {
    output::show(form, &rows, || {
        let cells = |row: &Row| {
            let addresses: Vec<String> = row.addresses.iter().map(IpAddr::to_string).collect();
            let texts = [
                &row.network,
                &row.container_id,
                &row.ifname,
                &addresses.join(","),
                row.outcome,
                row.why.as_deref().unwrap_or_default(),
            ];
            texts.map(printable).to_vec()
        };
        let header = ["NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "OUTCOME", "WHY"];
        match rows.is_empty() {
            true => format!("{nothing}\n"),
            false => output::table(&header, rows.iter().map(cells).collect()),
        }
    })?;
    Ok(super::verdict(rows.iter().all(|row| row.outcome != "conflict")))
}
