//! `leasehold release`: an operator releases a container's addresses, by sequence number.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::admin::{self, AdminArgs};
use super::allocations;
use super::output::{self, printable};
use crate::api::allocations::{AllocationRow, Filter};
use crate::api::release::{Release, Released};

/// The options of `leasehold release`.
#[derive(Args, Debug)]
pub(super) struct ReleaseArgs {
    /// Release the attachment that holds this address, IPv4 or IPv6, without a prefix length
    #[arg(long, value_name = "IP", required_unless_present = "container")]
    address: Option<IpAddr>,
    /// Release the addresses of this container, by its full id
    #[arg(long, value_name = "ID", conflicts_with = "address")]
    container: Option<String>,
    /// Only this interface of the container, such as eth0 [default: all]
    #[arg(long, value_name = "NAME", conflicts_with = "address")]
    ifname: Option<String>,
    /// Only on this network, by the `name` in its configuration [default: all]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only if the sequence number is still this one, as `leasehold allocations` showed it
    /// [default: the present one]
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    /// Only show what would be released
    #[arg(long)]
    dry_run: bool,
    /// Release all attachments that match, even if more than one does
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "A released attachment (one interface of one container on one network) loses all its\n\
         addresses, of every family. First make sure that the container does not run: another\n\
         can get its addresses. An attachment that changed since it was looked up is skipped.\n\n\
         Examples:\n  leasehold release --address 10.10.1.22 --dry-run\n  \
         leasehold release --container web-1 --ifname eth0 --sequence 812\n\n{}\n\
         Here 1 means: nothing matched, or something was skipped.",
        super::EXIT_CODES
    )
}

/// The outcome for one attachment.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
enum ReleaseOutcome {
    /// Its addresses are free again (they cool first).
    Released,
    /// Its sequence number changed, or it is gone.
    Skipped,
    /// The daemon could not do it.
    Failed,
    /// A dry run.
    WouldRelease,
    /// More than one matched, and `--yes` was not given.
    Refused,
}

/// One attachment that matched.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Match {
    network: String,
    container_id: String,
    ifname: String,
    sequence: u64,
    addresses: Vec<String>,
    outcome: ReleaseOutcome,
    /// The reason, unless it was released.
    reason: Option<String>,
}

impl Match {
    fn end(&mut self, outcome: ReleaseOutcome, reason: String) {
        (self.outcome, self.reason) = (outcome, Some(reason));
    }
}

/// Releases the attachments that match. It succeeds if all of them were released.
pub(super) fn run(args: &ReleaseArgs) -> anyhow::Result<ExitCode> {
    let socket = &args.admin.socket;
    let mut matches = look_up(socket, args)?;
    let refuse = matches.len() > 1 && !args.yes && !args.dry_run;
    for found in &mut matches {
        match args.sequence {
            _ if refuse => found.outcome = ReleaseOutcome::Refused,
            Some(wanted) if wanted != found.sequence => {
                let why = format!("its sequence number is {}, not {wanted}", found.sequence);
                found.end(ReleaseOutcome::Skipped, why);
            }
            _ if args.dry_run => found.outcome = ReleaseOutcome::WouldRelease,
            _ => release(socket, found),
        }
    }
    output::show(args.admin.output.form, &matches, || show(&matches))?;
    anyhow::ensure!(
        !refuse,
        "{} attachments match and nothing was released: name one (--container, --ifname, \
         --network), or pass --yes to release all of them",
        matches.len()
    );
    let good = |found: &Match| {
        matches!(found.outcome, ReleaseOutcome::Released | ReleaseOutcome::WouldRelease)
    };
    Ok(super::verdict(!matches.is_empty() && matches.iter().all(good)))
}

/// The attachments that match, each with all its addresses.
fn look_up(socket: &Path, args: &ReleaseArgs) -> anyhow::Result<Vec<Match>> {
    let filter = Filter {
        network: args.network.clone(),
        address: args.address,
        container_id: args.container.clone(),
        ..Filter::default()
    };
    let mut matches = group(allocations::list(socket, &filter)?);
    if let Some(ifname) = &args.ifname {
        matches.retain(|found| found.ifname == *ifname);
    }
    if args.address.is_some() {
        // Found by one address: the others go with it, so they are shown.
        for found in &mut matches {
            let filter = Filter {
                network: Some(found.network.clone()),
                container_id: Some(found.container_id.clone()),
                ..Filter::default()
            };
            let all = group(allocations::list(socket, &filter)?);
            let same =
                |other: &Match| (&other.ifname, other.sequence) == (&found.ifname, found.sequence);
            if let Some(whole) = all.into_iter().find(same) {
                *found = whole;
            }
        }
    }
    Ok(matches)
}

fn group(rows: Vec<AllocationRow>) -> Vec<Match> {
    let mut matches: Vec<Match> = Vec::new();
    for row in rows {
        let AllocationRow { network, container_id, ifname, sequence, address, .. } = row;
        let same = |found: &&mut Match| {
            (&found.network, &found.container_id, &found.ifname, found.sequence)
                == (&network, &container_id, &ifname, sequence)
        };
        match matches.iter_mut().find(same) {
            Some(found) => found.addresses.push(address),
            None => matches.push(Match {
                addresses: vec![address],
                outcome: ReleaseOutcome::Skipped,
                reason: None,
                network,
                container_id,
                ifname,
                sequence,
            }),
        }
    }
    matches
}

fn release(socket: &Path, found: &mut Match) {
    let release = Release {
        network: found.network.clone(),
        container_id: found.container_id.clone(),
        ifname: found.ifname.clone(),
        sequence: found.sequence,
    };
    match admin::post(socket, "/v1/release", &release) {
        Ok(Released { released: true }) => found.outcome = ReleaseOutcome::Released,
        Ok(Released { released: false }) => {
            let why = "it changed since it was looked up: look again with `leasehold allocations`";
            found.end(ReleaseOutcome::Skipped, why.to_owned());
        }
        // Not an error of the whole command: the outcomes of the others must be shown too.
        Err(error) => found.end(ReleaseOutcome::Failed, format!("{error:#}")),
    }
}

fn show(matches: &[Match]) -> String {
    if matches.is_empty() {
        let hint = "it releases what this node holds; `leasehold allocations --all-nodes` names \
                    other nodes, and shortens container ids unless -o json is given";
        return format!("nothing matches, nothing was released ({hint})\n");
    }
    let mut text = String::new();
    for found in matches {
        let end = match found.outcome {
            ReleaseOutcome::Released => "released",
            ReleaseOutcome::Skipped => "skipped",
            ReleaseOutcome::Failed => "failed",
            ReleaseOutcome::WouldRelease => "would be released (dry run)",
            ReleaseOutcome::Refused => "matches",
        };
        let _ = write!(
            text,
            "{end}: container {}, interface {}, network {}, sequence {}: {}",
            printable(&found.container_id),
            printable(&found.ifname),
            found.network,
            found.sequence,
            found.addresses.join(" and "),
        );
        if found.addresses.len() > 1 {
            text.push_str(" (all of them)");
        }
        if let Some(reason) = &found.reason {
            let _ = write!(text, "; {reason}");
        }
        text.push('\n');
    }
    text
}
