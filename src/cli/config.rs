//! `leasehold config check`: what is wrong, unknown or unwise in a file. It needs no daemon.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, OutputArgs, printable};
use crate::api::inspect::{Weight, inspect, position};
use crate::config;
use crate::limits;

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
    let mut text = Vec::new();
    let read = fs::File::open(file)
        .and_then(|open| open.take(limits::BODY_BYTES_MAX as u64).read_to_end(&mut text));
    read.with_context(|| file.display().to_string())?;
    let is_json = text.trim_ascii_start().first().is_some_and(|first| b"{[".contains(first));
    if is_json && file.extension().is_none_or(|is| is != "toml") {
        let (subject, remarks) = inspect(&text);
        let row = |r: crate::api::inspect::Remark| (r.line, r.column, r.weight, r.text);
        return Ok((subject.to_string(), remarks.into_iter().map(row).collect()));
    }
    let text = String::from_utf8_lossy(&text);
    let found = match config::check_file(file, &text) {
        Ok(unwise) => unwise.into_iter().map(|what| (1, 1, Weight::Unwise, what)).collect(),
        Err(fault) => {
            let (line, column) = position(text.as_bytes(), fault.offset);
            vec![(line, column, Weight::Wrong, fault.text)]
        }
    };
    Ok(("the daemon's file".to_owned(), found))
}
