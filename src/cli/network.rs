//! `leasehold network`: network configurations that the cluster's store keeps.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin::{self, AdminArgs, Refused};
use super::input;
use super::output::{self, Form, printable};
use crate::api::networks::{Change, Changed, NetworkRow};
use crate::api::zero::or_zero;
use crate::core::ids::Revision;
use crate::limits;

/// The most times that the editor opens when others keep changing the network meanwhile.
const EDITS_MAX: u32 = 5;

/// The commands about networks.
#[derive(Subcommand, Debug)]
pub(super) enum NetworkCommand {
    /// List the networks that the cluster's store knows
    #[command(after_help = list_examples())]
    List(ListArgs),
    /// Show the ipam object of a network
    #[command(after_help = get_examples())]
    Get(NameArgs),
    /// Store the ipam object of a network, in place of the present one
    #[command(after_help = put_examples())]
    Put(PutArgs),
    /// Change the ipam object of a network in your editor
    #[command(after_help = edit_examples())]
    Edit(NameArgs),
    /// Delete the ipam object of a network
    #[command(after_help = delete_examples())]
    Delete(DeleteArgs),
}

/// The options of `leasehold network list`.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// The options of the commands about one network.
#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// The network
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    network: String,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The options of `leasehold network put`.
#[derive(Args, Debug)]
pub(super) struct PutArgs {
    /// The network
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    network: String,
    /// File with the ipam object; -: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Store an object with keys that are not known, and so have no effect
    #[arg(long)]
    allow_unknown: bool,
    /// Store ranges that another network has too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The options of `leasehold network delete`.
#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The network
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    network: String,
    /// Delete it although containers hold addresses out of its pool
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The query of a change.
fn query(revision: Option<u64>, unknown: bool, force: bool) -> [(&'static str, Option<String>); 3] {
    let yes = |is: bool| is.then(|| "true".to_owned());
    [
        ("revision", revision.map(|revision| revision.to_string())),
        ("unknown", yes(unknown)),
        ("force", yes(force)),
    ]
}

fn help(about: &str, examples: &[&str]) -> String {
    let examples = examples.join("\n  leasehold network ");
    format!("{about}\n\nExamples:\n  leasehold network {examples}\n\n{}", super::EXIT_CODES)
}

/// The end of the help of `leasehold network`.
pub(super) fn examples() -> String {
    help(
        "A CNI file whose ipam has no ranges uses the ipam object kept here: the one that\n\
         ipam.network names; or, with \"networkFrom\": \"service\", the one of the pod's service;\n\
         or else the one of the network's name. Other fields of the CNI file win over fields kept\n\
         here. Every node uses a change at once. A container keeps an address outside of shrunk\n\
         ranges until its DEL.",
        &["put pods ipam.json", "edit pods", "list"],
    )
}

fn list_examples() -> String {
    help(
        "A network that is shown without ranges is configured in CNI files; the store has only\n\
         the block size on which its nodes agreed. JSON is the answer of GET /v1/networks.",
        &["list", "list -o json"],
    )
}

fn get_examples() -> String {
    help(
        "Prints the object as `leasehold network put` takes it; JSON has the network's revision\n\
         and block sizes too. Exit status 1: the network has no object.",
        &["get pods > ipam.json", "get pods -o json"],
    )
}

fn put_examples() -> String {
    help(
        "The file has the value of \"ipam\" in a network configuration, and is checked like it:\n\
         {\"ranges\": [[{\"subnet\": \"10.10.0.0/16\"}]]}. Errors name the field at fault.\n\
         A key that is not known, and addresses that another network has too, are refused unless\n\
         the options say otherwise.",
        &["put pods ipam.json", "get pods | sed s/10.10/10.20/ | leasehold network put pods -"],
    )
}

fn edit_examples() -> String {
    help(
        "Opens $VISUAL, else $EDITOR, else vi. If somebody else changes the network meanwhile,\n\
         their object is put in a file beside yours, and the editor opens again. To give up,\n\
         leave an empty text, or let the editor fail (:cq in vi).",
        &["edit pods", "edit pods -o json"],
    )
}

fn delete_examples() -> String {
    help(
        "CNI files that rely on the object are refused with code 7 from then on. Containers keep\n\
         their addresses, and the block size on which the nodes agreed stays. Exit status 1: the\n\
         network has no object, or containers hold addresses of it.",
        &["delete pods", "delete pods -o json"],
    )
}

/// Runs a command about networks.
pub(super) fn run(command: &NetworkCommand) -> anyhow::Result<ExitCode> {
    match command {
        NetworkCommand::List(args) => list(args),
        NetworkCommand::Get(args) => get(args),
        NetworkCommand::Put(args) => put(args),
        NetworkCommand::Edit(args) => edit(args),
        NetworkCommand::Delete(args) => {
            let at = admin::with_query(&path(&args.network), &query(None, false, args.force));
            let deleted = admin::delete(&args.admin.socket, &at);
            end(args.admin.output.form, deleted)
        }
    }
}

fn path(network: &str) -> String {
    format!("/v1/networks/{}", admin::encoded(network))
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let rows: Vec<NetworkRow> = admin::get(&args.admin.socket, "/v1/networks")?;
    output::show(args.admin.output.form, &rows, || match rows.is_empty() {
        true => "no network is known yet\n".to_owned(),
        false => table(&rows),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[NetworkRow]) -> String {
    let row = |row: &NetworkRow| {
        let size =
            |g: &crate::api::networks::GeometryRow| format!("/{} ({})", g.block_size, g.family);
        let sizes: Vec<String> = row.geometry.iter().map(size).collect();
        let ranges = match (&row.unreadable, &row.ipam) {
            (Some(_), _) => "unreadable".to_owned(),
            (None, Some(ipam)) => subnets(ipam).join(", "),
            (None, None) => "-".to_owned(),
        };
        let sizes = if sizes.is_empty() { "-".to_owned() } else { sizes.join(", ") };
        vec![printable(&row.network), printable(&ranges), sizes, row.revision.to_string()]
    };
    output::table(&["NETWORK", "RANGES", "BLOCKS", "REVISION"], rows.iter().map(row).collect())
}

/// Every subnet in an object, in order.
fn subnets(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(subnets).collect(),
        Value::Object(fields) => {
            let own = |(key, value): (&String, &Value)| match value.as_str() {
                Some(subnet) if key.eq_ignore_ascii_case("subnet") => vec![subnet.to_owned()],
                _ if key.eq_ignore_ascii_case("ranges") => subnets(value),
                _ => Vec::new(),
            };
            fields.iter().flat_map(own).collect()
        }
        _ => Vec::new(),
    }
}

fn get(args: &NameArgs) -> anyhow::Result<ExitCode> {
    let form = args.admin.output.form;
    let row = admin::news(admin::get::<NetworkRow>(&args.admin.socket, &path(&args.network)))?;
    match (row, form) {
        (Err(error), form) => return admin::bad_news(form, error),
        (Ok(row), Form::Json | Form::Yaml) => {
            output::show(form, &row, String::new)?;
            return Ok(super::verdict(row.ipam.is_some()));
        }
        (Ok(NetworkRow { ipam: Some(ipam), .. }), Form::Table) => output::print_json(&ipam)?,
        (Ok(row), Form::Table) => {
            let why = row.unreadable.unwrap_or_else(|| {
                format!("network {} has no central configuration", args.network)
            });
            return admin::bad_news(form, why);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn put(args: &PutArgs) -> anyhow::Result<ExitCode> {
    let object = read(&args.file)?;
    let query = query(None, args.allow_unknown, args.force);
    let at = admin::with_query(&path(&args.network), &query);
    let put = admin::put(&args.admin.socket, &at, &object);
    end(args.admin.output.form, put.with_context(|| args.file.display().to_string()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    input::read(file, limits::IPAM_BYTES_MAX)
}

/// Prints the change that was made.
fn end(form: Form, changed: anyhow::Result<Changed>) -> anyhow::Result<ExitCode> {
    match admin::news(changed)? {
        Err(error) => return admin::bad_news(form, error),
        Ok(changed) => {
            let done = match changed.outcome {
                Change::Created => "created",
                Change::Changed => "changed",
                Change::Unchanged => "unchanged",
                Change::Deleted => "deleted",
            };
            let text = format!("{done}: network {}\n", printable(&changed.network));
            output::show(form, &changed, || text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn edit(args: &NameArgs) -> anyhow::Result<ExitCode> {
    let (socket, form) = (&args.admin.socket, args.admin.output.form);
    let (mut revision, before) = read_object(socket, &args.network)?;
    let mut file = tempfile::Builder::new().prefix("leasehold-").suffix(".json").tempfile()?;
    let text = format!("{}\n", serde_json::to_string_pretty(&before)?);
    file.write_all(text.as_bytes())?;
    for round in 0..EDITS_MAX {
        open_editor(file.path())?;
        let edited = input::read_file(file.path(), limits::IPAM_BYTES_MAX)?;
        anyhow::ensure!(!edited.trim_ascii().is_empty(), "the text is empty: nothing was changed");
        if round == 0 && edited == text.as_bytes() {
            let network = args.network.clone();
            return end(form, Ok(Changed { network, outcome: Change::Unchanged, revision }));
        }
        let at = admin::with_query(
            &path(&args.network),
            &[("revision", Some(or_zero(revision).to_string()))],
        );
        match admin::put::<Changed>(socket, &at, &edited) {
            Ok(changed) => return end(form, Ok(changed)),
            Err(error) if error.downcast_ref().is_some_and(|r: &Refused| r.status == 409) => {
                let (now, theirs) = read_object(socket, &args.network)?;
                revision = now;
                let beside = file.path().with_extension("theirs.json");
                fs::write(&beside, serde_json::to_string_pretty(&theirs)?)?;
                eprintln!(
                    "leasehold: somebody else changed network {} meanwhile: their object is in {}; \
                     the editor opens yours again, and your text then replaces theirs",
                    args.network,
                    beside.display()
                );
            }
            Err(error) => return Err(keep(file, error)),
        }
    }
    Err(keep(file, anyhow::anyhow!("network {} keeps changing", args.network)))
}

/// The revision and the object of a network; without a key, none and an object to begin with.
fn read_object(socket: &Path, network: &str) -> anyhow::Result<(Option<Revision>, Value)> {
    let row = admin::news(admin::get::<NetworkRow>(socket, &path(network)))?;
    let (revision, ipam) = row.map_or((None, None), |row| (Revision::new(row.revision), row.ipam));
    Ok((revision, ipam.unwrap_or_else(|| json!({ "type": "my-ipam", "ranges": [] }))))
}

/// Keeps the text that was refused, and adds its path to the error.
fn keep(file: tempfile::NamedTempFile, error: anyhow::Error) -> anyhow::Error {
    match file.into_temp_path().keep() {
        Ok(path) => anyhow::anyhow!("{error:#}; your text is in {}", path.display()),
        Err(_) => error,
    }
}

fn open_editor(file: &Path) -> anyhow::Result<()> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // The variable may have options in it, as in other tools.
    let shell =
        Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    let status = shell.with_context(|| format!("editor {editor}"))?;
    anyhow::ensure!(status.success(), "editor {editor} ended with {status}: nothing was changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subnet_is_listed() {
        let ipam = json!({
            "subnet": "10.9.0.0/24",
            "ranges": [[{ "subnet": "10.1.0.0/24" }, { "Subnet": "10.2.0.0/24" }], [{ "x": 1 }]],
            "routes": [{ "dst": "10.3.0.0/24" }]
        });
        assert_eq!(subnets(&ipam), ["10.9.0.0/24", "10.1.0.0/24", "10.2.0.0/24"]);
    }
}
