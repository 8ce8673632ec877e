//! The output of commands: a table for people, which fits the terminal, and two forms for programs.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use serde::Serialize;

/// The option that every command with an answer has.
#[derive(Args, Clone, Debug)]
pub(super) struct OutputArgs {
    /// Form of the output: a table for people, JSON or YAML for programs
    #[arg(short = 'o', long = "output", value_name = "FORM", default_value = "table")]
    pub(super) form: Form,
}

/// The form of an answer.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// For people
    Table,
    /// For programs: one JSON document on stdout
    Json,
    /// For programs: one YAML document on stdout, with the same fields
    Yaml,
}

/// The states whose colour says at a glance that something is good, on its way, or wrong.
const COLOURS: [(Color, &[&str]); 3] = [
    (Color::Green, &["live", "serving", "member", "active"]),
    (Color::Yellow, &["draining", "removed", "returning", "quarantined", "cooling", "parked"]),
    (Color::Red, &["gone", "lost", "broken", "exhausted", "conflict", "unreadable"]),
];

/// Prints an answer in a form.
///
/// # Errors
/// It cannot be written down in this form, or cannot be printed.
pub(super) fn show(
    form: Form,
    value: &impl Serialize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    print(&text(form, value, table)?)
}

/// Returns an answer in a form.
///
/// # Errors
/// It cannot be written down in this form.
pub(super) fn text(
    form: Form,
    value: &impl Serialize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<String> {
    match form {
        Form::Table => Ok(table()),
        Form::Json => json(value),
        Form::Yaml => {
            let mut text = serde_saphyr::to_string(value).context("cannot write YAML")?;
            if !text.ends_with('\n') {
                text.push('\n');
            }
            Ok(text)
        }
    }
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints text to stdout. A reader that stopped reading (`| head`) is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_on(text).map(drop)
}

/// Prints text to stdout. Returns false if its reader has gone away.
pub(super) fn print_on(text: &str) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot print the answer"),
    }
}

/// Prints one JSON document.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&json(value)?)
}

/// True if stdout is a terminal whose user wants colours.
pub(super) fn has_colours() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|of| of != "dumb")
}

/// A table without lines, as other tools of this kind print it. On a terminal it is no wider than
/// that: long cells go on in the next line.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = match io::stdout().is_terminal() {
        true => crossterm::terminal::size().ok().map(|(columns, _)| columns),
        false => None,
    };
    laid_out(header, rows, width, has_colours())
}

fn laid_out(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>, colours: bool) -> String {
    let needed: usize = header.iter().map(|name| name.len() + 2).sum();
    if width.is_some_and(|width| needed > usize::from(width)) {
        return one_below_the_other(header, rows, width, colours);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if colours {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if let Some(width) = width.filter(|width| *width > 0) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>()));
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        // No heading is broken in the middle of a word.
        let least = u16::try_from(name.len() + 2).unwrap_or(u16::MAX);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// A table for a terminal on which not even its header has room: each row becomes a table of two
/// columns.
fn one_below_the_other(
    header: &[&str],
    rows: Vec<Vec<String>>,
    width: Option<u16>,
    colours: bool,
) -> String {
    let row = |row: Vec<String>| {
        let pairs = header.iter().zip(row).map(|(name, cell)| vec![(*name).to_owned(), cell]);
        laid_out(&["", ""], pairs.collect(), width, colours)
    };
    rows.into_iter().map(row).collect()
}

fn cell(text: String) -> Cell {
    let word = text.split(',').next().unwrap_or_default();
    let colour = COLOURS.iter().find(|(_, words)| words.contains(&word)).map(|(colour, _)| *colour);
    let cell = Cell::new(text);
    match colour {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// Text from outside (a pod's name is any text), with control characters escaped, so that a
/// terminal may show it.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mä\n"), "a\\u{1b}[31mä\\n");
    }

    fn rows() -> Vec<Vec<String>> {
        vec![vec!["a".to_owned(), String::new()], vec!["gone".to_owned(), "e".into()]]
    }

    #[test]
    fn a_table_has_no_lines_and_no_trailing_blanks() {
        assert_eq!(laid_out(&["X", "Y"], rows(), None, false), "X     Y\na\ngone  e\n");
    }

    #[test]
    fn a_table_is_no_wider_than_the_terminal() {
        let long = vec![vec!["one two three four five six seven".to_owned(); 3]];
        for width in [30, 40, 60, 80] {
            let text = laid_out(&["FIRST", "SECOND", "THIRD"], long.clone(), Some(width), false);
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width.into()), "{width}: {text}");
            let words = text.split_whitespace().filter(|word| *word == "seven").count();
            assert_eq!(words, 3, "nothing is cut off: {text}");
        }
        let narrow = laid_out(&["FIRST", "SECOND", "THIRD"], rows(), Some(15), false);
        assert!(narrow.contains("SECOND"), "{narrow}");
        let wide = laid_out(&["FIRST", "SECOND", "THIRD"], long, None, false);
        assert_eq!(wide.lines().count(), 2, "{wide}");
    }

    #[test]
    fn colours_are_on_a_terminal_only() {
        let plain = laid_out(&["X", "Y"], rows(), Some(80), false);
        assert!(!plain.contains('\u{1b}'), "{plain}");
        let coloured = laid_out(&["X", "Y"], rows(), Some(80), true);
        assert!(coloured.contains("\u{1b}[38;5;9mgone"), "{coloured:?}");
    }

    #[test]
    fn yaml_has_what_json_has() {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            block_size: u128,
            pod: Option<String>,
            text: &'static str,
            list: Vec<&'static str>,
        }
        let list = vec!["10.0.0.0-10.0.0.9", "on"];
        let row = Row { block_size: u128::MAX, pod: None, text: "no", list };
        let yaml = text(Form::Yaml, &[row], String::new).unwrap();
        let expected = "- blockSize: 340282366920938463463374607431768211455\n  pod: null\n  \
                        text: \"no\"\n  list:\n  - 10.0.0.0-10.0.0.9\n  - \"on\"\n";
        assert_eq!(yaml, expected);
    }
}
