//! `leasehold completion` and `leasehold man`: what shells and `man` know of the commands.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::generate;

use super::{Cli, output};

/// The options of `leasehold completion`.
#[derive(Args, Debug)]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// The shells that are known.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Shell {
    /// GNU Bash
    Bash,
    /// The Z shell
    Zsh,
    /// fish
    Fish,
}

/// The options of `leasehold man`.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Directory for the pages, which is made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// The end of the help of `leasehold completion`.
pub(super) fn examples() -> String {
    format!(
        "Prints a script for the shell.\n\n\
         Examples:\n  leasehold completion bash > /etc/bash_completion.d/leasehold\n  \
         leasehold completion fish > ~/.config/fish/completions/leasehold.fish\n\n{}",
        super::EXIT_CODES
    )
}

/// The end of the help of `leasehold man`.
pub(super) fn man_examples() -> String {
    format!(
        "Writes a page for the program and one for each command.\n\n\
         Examples:\n  leasehold man /usr/local/share/man/man1\n\n{}",
        super::EXIT_CODES
    )
}

/// Prints a completion script.
pub(super) fn run(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    match args.shell {
        Shell::Bash => generate(clap_complete::Shell::Bash, &mut command, "leasehold", &mut script),
        Shell::Zsh => generate(clap_complete::Shell::Zsh, &mut command, "leasehold", &mut script),
        Shell::Fish => generate(clap_complete::Shell::Fish, &mut command, "leasehold", &mut script),
    }
    output::print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages of the manual.
pub(super) fn write_man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let directory = args.directory.display().to_string();
    std::fs::create_dir_all(&args.directory).with_context(|| directory.clone())?;
    clap_mangen::generate_to(Cli::command(), &args.directory).context(directory)?;
    Ok(ExitCode::SUCCESS)
}
