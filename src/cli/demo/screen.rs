//! What a person reads, top to bottom.

use std::io::{self, IsTerminal as _};

use crate::cli::admin;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Standard output, with colours if it is a terminal.
#[derive(Debug)]
pub(super) struct Screen {
    silent: bool,
    colours: bool,
}

impl Screen {
    /// A silent one shows nothing: its place is taken by a report.
    pub(super) fn new(silent: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { silent, colours: wanted && io::stdout().is_terminal() }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colours { format!("{style}{text}{PLAIN}") } else { text.to_owned() }
    }

    /// Text as it is.
    pub(super) fn text(&self, text: &str) -> anyhow::Result<()> {
        if self.silent { Ok(()) } else { admin::print(text) }
    }

    /// The line above a part.
    pub(super) fn title(&self, text: &str) -> anyhow::Result<()> {
        self.text(&format!("{}\n", self.paint(BOLD, text)))
    }

    /// What a person would type.
    pub(super) fn command(&self, text: &str) -> anyhow::Result<()> {
        self.text(&format!("  $ {text}\n"))
    }

    /// What a program printed, byte for byte but for the indent.
    pub(super) fn printed(&self, text: &str) -> anyhow::Result<()> {
        let lines = text.lines().map(|line| format!("    {}\n", admin::printable(line)));
        self.text(&self.paint(DIM, &lines.collect::<String>()))
    }

    /// How it went: the last word of the line.
    pub(super) fn verdict(&self, ok: bool, text: &str) -> anyhow::Result<()> {
        let word = if ok { self.paint(GREEN, "ok") } else { self.paint(RED, "FAILED") };
        self.text(&format!("  {text}: {word}\n"))
    }

    /// Something that was wrong.
    pub(super) fn wrong(&self, text: &str) -> anyhow::Result<()> {
        if self.silent {
            // The report has it too, but what goes wrong after the report is told nowhere else.
            eprintln!("leasehold: {}", admin::printable(text));
            return Ok(());
        }
        self.text(&format!("  {} {}\n", self.paint(RED, "wrong:"), admin::printable(text)))
    }
}
