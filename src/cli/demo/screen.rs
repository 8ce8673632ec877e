//! The demo's output for people, from top to bottom.

use crate::cli::output;

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
    /// A silent screen shows nothing: a report takes its place.
    pub(super) fn new(silent: bool) -> Self {
        Self { silent, colours: output::has_colours() }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colours { format!("{style}{text}{PLAIN}") } else { text.to_owned() }
    }

    /// Prints text as it is.
    pub(super) fn text(&self, text: &str) -> anyhow::Result<()> {
        if self.silent { Ok(()) } else { output::print(text) }
    }

    /// Prints the title of a part.
    pub(super) fn title(&self, text: &str) -> anyhow::Result<()> {
        self.text(&format!("{}\n", self.paint(BOLD, text)))
    }

    /// Prints a command as a person would type it.
    pub(super) fn command(&self, text: &str) -> anyhow::Result<()> {
        self.text(&format!("  $ {text}\n"))
    }

    /// Prints the output of a program, byte for byte but for the indent.
    pub(super) fn printed(&self, text: &str) -> anyhow::Result<()> {
        let lines = text.lines().map(|line| format!("    {}\n", output::printable(line)));
        self.text(&self.paint(DIM, &lines.collect::<String>()))
    }

    /// Prints a result; the last word of the line is the verdict.
    pub(super) fn verdict(&self, ok: bool, text: &str) -> anyhow::Result<()> {
        let word = if ok { self.paint(GREEN, "ok") } else { self.paint(RED, "FAILED") };
        self.text(&format!("  {text}: {word}\n"))
    }

    /// Prints a fault.
    pub(super) fn wrong(&self, text: &str) -> anyhow::Result<()> {
        if self.silent {
            // The report has it too, but a fault after the report is shown nowhere else.
            eprintln!("leasehold: {}", output::printable(text));
            return Ok(());
        }
        self.text(&format!("  {} {}\n", self.paint(RED, "wrong:"), output::printable(text)))
    }
}
