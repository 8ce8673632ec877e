//! The commands of `leasehold`.

mod admin;
mod allocations;
mod bench;
mod blocks;
mod check;
mod child;
mod demo;
mod drain;
mod gc;
mod network;
mod node;
mod release;
mod serve;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ServeArgs;

/// What every command's exit status means.
const EXIT_CODES: &str = "Exit status: 0 good, 1 the answer is bad news, 2 wrong usage or nothing \
                          could be asked.";

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
    Serve(Box<ServeArgs>),
    /// Show who the daemon is, whether it serves, and how full each network is
    #[command(after_help = status::examples())]
    Status(status::StatusArgs),
    /// List which container of this node holds which address
    #[command(after_help = allocations::examples())]
    Allocations(allocations::AllocationsArgs),
    /// List the blocks of addresses that this node holds
    #[command(after_help = blocks::examples())]
    Blocks(blocks::BlocksArgs),
    /// Take a container's addresses back when its runtime never will
    #[command(after_help = release::examples())]
    Release(release::ReleaseArgs),
    /// Look for leaks: containers that are gone, records of nothing, dead nodes, duplicates
    #[command(after_help = check::examples())]
    Check(check::CheckArgs),
    /// Release what a check found
    #[command(after_help = gc::examples())]
    Gc(gc::GcArgs),
    /// List the nodes of the cluster, or take one out of it
    #[command(subcommand, after_help = node::examples())]
    Node(node::NodeCommand),
    /// Have this node give its blocks back: refuse ADD until that is undone
    #[command(after_help = drain::local_examples())]
    Drain(drain::LocalArgs),
    /// Keep configurations of networks in the cluster's store, for all nodes
    #[command(subcommand, after_help = network::examples())]
    Network(network::NetworkCommand),
    /// See it work: a daemon of its own, real plugin calls, and a checked churn of containers
    #[command(after_help = demo::examples())]
    Demo(demo::DemoArgs),
    /// Measure the speed of this machine as a node, and of a cluster on it
    #[command(after_help = bench::examples())]
    Bench(bench::BenchArgs),
    /// What `bench` compares the API with
    #[command(hide = true)]
    BenchEcho(bench::EchoArgs),
}

/// Runs the command line; the exit code is 0 for good, 1 when the answer is bad news, 2 for wrong
/// usage or when nothing could be asked.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Allocations(args) => allocations::run(&args),
        Command::Blocks(args) => blocks::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Node(command) => node::run(&command),
        Command::Drain(args) => drain::run_local(&args),
        Command::Network(command) => network::run(&command),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
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
