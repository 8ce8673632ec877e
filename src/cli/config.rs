//! `leasehold config check`: what is wrong, unknown or unwise in a file. It needs no daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, OutputArgs, printable};
use super::{input, serve};
use crate::api::inspect::{Weight, inspect, position};
use crate::config;
use crate::daemon;
use crate::limits;

/// The mark with which some editors begin a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The commands about configurations.
#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Say what is wrong, unknown or unwise in files
    #[command(after_help = examples())]
    Check(CheckArgs),
}

/// The options of `leasehold config check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// CNI configurations (.conf, .conflist), ipam objects for `network put`, or the daemon's file
    /// (.toml)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

fn examples() -> String {
    format!(
        "wrong: it does not work. unknown: a key without effect. unwise: it works, but hardly as\n\
         meant. Each remark has its file, line and column. No daemon is asked.\n\n\
         Examples:\n  \
         leasehold config check /etc/leasehold.toml /etc/cni/net.d/10-pods.conflist\n  \
         leasehold config check ipam.json -o json\n\n{}\n\
         Here 1 means: something is wrong or unknown.",
        super::EXIT_CODES
    )
}

/// One remark about a file.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Row {
    file: String,
    line: usize,
    column: usize,
    /// `wrong`, `unknown` or `unwise`.
    weight: String,
    text: String,
}

/// Runs a command about configurations.
pub(super) fn run(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Check(args) = command;
    let (mut rows, mut text) = (Vec::new(), String::new());
    for file in &args.files {
        let (subject, found) = check(file)?;
        let file = file.display().to_string();
        if found.is_empty() {
            text.push_str(&format!("{}: good: {subject}\n", printable(&file)));
        }
        for (line, column, weight, what) in found {
            let (name, what) = (printable(&file), printable(&what));
            text.push_str(&format!("{name}:{line}:{column}: {weight}: {what}\n"));
            let weight = weight.to_string();
            rows.push(Row { file: file.clone(), line, column, weight, text: what });
        }
    }
    output::show(args.output.form, &rows, || text)?;
    Ok(super::verdict(rows.iter().all(|row| row.weight == Weight::Unwise.to_string())))
}

type Found = Vec<(usize, usize, Weight, String)>;

fn check(file: &Path) -> anyhow::Result<(String, Found)> {
    let text = input::read_file(file, limits::BODY_BYTES_MAX)?;
    let (marked, text) = match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => (true, rest),
        None => (false, &*text),
    };
    let mut found = Found::new();
    if is_json(file, text) {
        if marked {
            let said = "the file begins with a byte order mark, which is no JSON: save it without";
            found.push((1, 1, Weight::Wrong, said.to_owned()));
        }
        let (subject, remarks) = inspect(text);
        found.extend(remarks.into_iter().map(|r| (r.line, r.column, r.weight, r.text)));
        return Ok((subject.to_string(), found));
    }
    let text = String::from_utf8_lossy(text);
    let mut checked = config::check_file(file, &text);
    let config = checked.config.take();
    let log = config.as_ref().and_then(|config| serve::wrong(&config.log));
    let token = config.as_ref().and_then(|config| daemon::token(config).err());
    for said in log.into_iter().chain(token.map(|error| format!("{error:#}"))) {
        checked.add(&text, said);
    }
    for fault in checked.faults {
        let (line, column) = position(text.as_bytes(), fault.offset);
        found.push((line, column, Weight::Wrong, fault.text));
    }
    found.sort();
    found.extend(checked.unwise.into_iter().map(|what| (1, 1, Weight::Unwise, what)));
    Ok(("the daemon's file".to_owned(), found))
}

/// Returns whether a file is to be JSON: by its name, else by its first character.
fn is_json(file: &Path, text: &[u8]) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("conf" | "conflist" | "json") => true,
        Some("toml") => false,
        _ => text.trim_ascii_start().first().is_some_and(|first| b"{[".contains(first)),
    }
}
