//! The commands of `leasehold`.

mod admin;
mod allocations;
mod bench;
mod blocks;
mod check;
mod child;
mod completion;
mod config;
mod demo;
mod drain;
mod gc;
mod history;
mod import;
mod input;
mod install;
mod live;
mod log;
mod network;
mod networks;
mod node;
mod output;
mod plan;
mod release;
mod serve;
mod status;
mod top;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// The meaning of the exit status, the same for every command.
const EXIT_CODES: &str = "Exit status: 0 success, 1 the answer is negative or reports a problem, \
                          2 wrong usage or no answer.";

/// IP addresses for the containers of a whole cluster
///
/// The daemon of a node (`leasehold serve`) hands out addresses to the CNI plugin `my-ipam`; the
/// other commands ask the running daemon over its unix socket.
#[derive(Parser)]
#[command(name = "leasehold", version, arg_required_else_help = true)]
#[command(after_help = format!("Start here:\n  leasehold demo\n\n{EXIT_CODES}"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon of this node
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::ServeCommand>),
    /// Show the daemon's identity, whether it serves, and how full each network is
    #[command(after_help = status::examples())]
    Status(status::StatusArgs),
    /// Watch this node at work: its networks, rates and times, live
    #[command(after_help = top::examples())]
    Top(top::TopArgs),
    /// Show how large each network is, and how full, in the whole cluster
    #[command(after_help = networks::examples())]
    Networks(networks::NetworksArgs),
    /// List the addresses that the containers of this node hold, or of all nodes
    #[command(after_help = allocations::examples())]
    Allocations(allocations::AllocationsArgs),
    /// Show who held an address, or what a pod held, and when, on all nodes
    #[command(after_help = history::examples())]
    History(history::HistoryArgs),
    /// List the blocks of addresses that this node holds, or all nodes
    #[command(after_help = blocks::examples())]
    Blocks(blocks::BlocksArgs),
    /// Release the addresses of a container when its runtime never will
    #[command(after_help = release::examples())]
    Release(release::ReleaseArgs),
    /// Look for leaks: containers that are gone, stale records, dead nodes, duplicates
    #[command(after_help = check::examples())]
    Check(check::CheckArgs),
    /// Release the leaks that a check found
    #[command(after_help = gc::examples())]
    Gc(gc::GcArgs),
    /// List the nodes of the cluster, drain one, or remove one
    #[command(subcommand, after_help = node::examples())]
    Node(node::NodeCommand),
    /// Drain this node: it refuses ADD and gives its blocks back, until --undo
    #[command(after_help = drain::local_examples())]
    Drain(drain::LocalArgs),
    /// Manage network configurations that the cluster's store keeps for all nodes
    #[command(subcommand, after_help = network::examples())]
    Network(network::NetworkCommand),
    /// Put the plugin, the daemon, its unit and its configuration in their places
    #[command(after_help = install::examples())]
    Install(install::InstallArgs),
    /// Plan a cluster: whether a configuration fits a number of nodes and containers
    #[command(after_help = plan::examples())]
    Plan(plan::PlanArgs),
    /// Check configuration files; this needs no daemon
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Take over the addresses that another plugin holds on this node
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Hand the addresses of this node over to another plugin
    #[command(subcommand)]
    Export(import::ExportCommand),
    /// See Leasehold work: its own daemon, real plugin calls, and a checked churn of containers
    #[command(after_help = demo::examples())]
    Demo(demo::DemoArgs),
    /// Measure the speed of a node, and of a cluster, on this machine
    #[command(after_help = bench::examples())]
    Bench(bench::BenchArgs),
    /// Show the version of this program and of the daemon, with the commits of their source
    #[command(after_help = version::examples())]
    Version(version::VersionArgs),
    /// Print the completion script for a shell
    #[command(after_help = completion::examples())]
    Completion(completion::CompletionArgs),
    /// Write the pages of the manual
    #[command(after_help = completion::man_examples())]
    Man(completion::ManArgs),
    /// Serve the echo that `bench` compares the API with
    #[command(hide = true)]
    BenchEcho(bench::EchoArgs),
}

/// The definition of the command line, for those who check commands without running them.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command line. The exit code is 0 for success, 1 if the answer is negative or reports a
/// problem, and 2 for wrong usage or if there is no answer.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Networks(args) => networks::run(&args),
        Command::Allocations(args) => allocations::run(&args),
        Command::History(args) => history::run(&args),
        Command::Blocks(args) => blocks::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Node(command) => node::run(&command),
        Command::Drain(args) => drain::run_local(&args),
        Command::Network(command) => network::run(&command),
        Command::Install(args) => install::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Import(command) => import::run_import(&command),
        Command::Export(command) => import::run_export(&command),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => completion::write_man(&args),
        Command::BenchEcho(args) => bench::serve_echo(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("leasehold: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The exit code of an answer.
fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
