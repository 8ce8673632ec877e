//! The daemon and the admin commands.

fn main() -> std::process::ExitCode {
    leasehold::cli::main()
}
