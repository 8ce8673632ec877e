//! `leasehold install`: puts the programs and files of a node in their places, and takes them away.

mod conflist;
mod file;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use self::file::{Done, Wanted};
use super::child::interrupt::Interrupt;
use super::child::plugin;
use super::{input, output};
use crate::limits;
use my_ipam::client::SOCKET_DEFAULT;

/// The unit and the configuration file, as they are shipped.
const UNIT: &str = include_str!("../../../deploy/leasehold.service");
const CONFIG: &str = include_str!("../../../deploy/leasehold.toml");

/// The places of the files that are not an option.
const DAEMON_PLACE: &str = "/usr/local/bin/leasehold";
const UNIT_PLACE: &str = "/etc/systemd/system/leasehold.service";
const CONFIG_PLACE: &str = "/etc/leasehold.toml";

/// The name of the plugin's file: `ipam.type` of a network configuration.
const PLUGIN: &str = "my-ipam";

/// Permissions of programs and of files.
const PROGRAM_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// The options of `leasehold install`.
#[derive(Args, Debug)]
pub(super) struct InstallArgs {
    /// Install below this directory, which stands for the root of the node's file system
    #[arg(long, value_name = "DIR", default_value = "/")]
    to: PathBuf,
    /// Only these parts [default: plugin, daemon, unit and config, and conflist if it is given]
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Directory in which the runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin: PathBuf,
    /// The plugin's program [default: my-ipam beside this program]
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Network configuration to install once the daemon is ready
    #[arg(long, value_name = "FILE")]
    conflist: Option<PathBuf>,
    /// Directory in which the runtime looks for network configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    net_dir: PathBuf,
    /// Unix socket of the daemon that has to be ready
    #[arg(long, value_name = "PATH", env = "LEASEHOLD_SOCKET", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
    /// Time to wait for the daemon before the network configuration is installed
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = wait)]
    wait: Duration,
    /// Stay until SIGTERM, and put the network configuration back if it is lost; for a container
    #[arg(long, conflicts_with = "dry_run")]
    stay: bool,
    /// Take the parts away; a changed configuration and the state directory stay
    #[arg(long)]
    uninstall: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

/// The parts that can be installed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// The CNI plugin my-ipam
    Plugin,
    /// The program leasehold
    Daemon,
    /// The unit of systemd
    Unit,
    /// The configuration file of the daemon, with every option in a comment
    Config,
    /// The network configuration that --conflist names
    Conflist,
}

fn wait(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "Each file is replaced whole or not at all, and only if it differs. The daemon's\n\
         configuration is written only if there is none. Nothing is started or stopped.\n\n\
         Examples:\n  leasehold install --dry-run\n  leasehold install\n  \
         leasehold install --cni-bin /usr/lib/cni\n  \
         leasehold install --only conflist --conflist 10-pods.conflist\n  \
         leasehold install --uninstall\n\n{}",
        super::EXIT_CODES
    )
}

/// Runs the command.
pub(super) fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    let parts = args.parts();
    anyhow::ensure!(
        args.conflist.is_some() || !parts.contains(&Part::Conflist),
        "--only conflist needs --conflist FILE, the network configuration"
    );
    let interrupt = Interrupt::watch().context("cannot watch for signals")?;
    for &part in parts.iter().filter(|part| **part != Part::Conflist) {
        let (place, content, mode) = match part {
            Part::Plugin => (args.cni_bin.join(PLUGIN), args.plugin(&interrupt)?, PROGRAM_MODE),
            Part::Daemon => (DAEMON_PLACE.into(), args.daemon()?, PROGRAM_MODE),
            Part::Unit => (UNIT_PLACE.into(), UNIT.into(), FILE_MODE),
            Part::Config | Part::Conflist => (CONFIG_PLACE.into(), CONFIG.into(), FILE_MODE),
        };
        let path = args.place(&place);
        let is_peoples = part == Part::Config;
        args.carry_out(&Wanted { path: &path, content: &content, mode, is_peoples })?;
    }
    if let Some(conflist) = args.conflist.as_ref().filter(|_| parts.contains(&Part::Conflist)) {
        conflist::carry_out(args, conflist, &interrupt)?;
    }
    args.say_what_is_next(&parts)?;
    Ok(ExitCode::SUCCESS)
}

impl InstallArgs {
    fn parts(&self) -> Vec<Part> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let mut parts = vec![Part::Plugin, Part::Daemon, Part::Unit, Part::Config];
        parts.extend(self.conflist.is_some().then_some(Part::Conflist));
        parts
    }

    /// A path of the node, below `--to`.
    fn place(&self, path: &Path) -> PathBuf {
        self.to.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The program of the plugin. What is only taken away need not be there.
    fn plugin(&self, interrupt: &Interrupt) -> anyhow::Result<Vec<u8>> {
        if self.uninstall {
            return Ok(Vec::new());
        }
        let program = match &self.plugin {
            Some(program) => program.clone(),
            None => plugin::find(interrupt)?.program,
        };
        input::read_file(&program, limits::PROGRAM_BYTES_MAX).context("cannot read the plugin")
    }

    /// This program, also if its file was replaced meanwhile.
    fn daemon(&self) -> anyhow::Result<Vec<u8>> {
        if self.uninstall {
            return Ok(Vec::new());
        }
        fs::read("/proc/self/exe").context("cannot read this program (/proc/self/exe)")
    }

    /// Installs one file or takes it away, and says so.
    fn carry_out(&self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        let path = wanted.path.display();
        let done = match self.uninstall {
            true => wanted.take_away(self.dry_run),
            false => wanted.put(self.dry_run),
        };
        let done = done.with_context(|| {
            let what = if self.uninstall { "remove" } else { "install" };
            format!("cannot {what} {path}; root can, or name another directory with --to")
        })?;
        let would = if self.dry_run { "would be " } else { "" };
        output::print(&match done {
            Done::Installed => format!("{would}installed  {path}\n"),
            Done::Unchanged => format!("unchanged  {path}\n"),
            Done::Kept => {
                format!("kept       {path}: its content is not the one that is shipped\n")
            }
            Done::Removed => format!("{would}removed  {path}\n"),
            Done::Absent => format!("absent     {path}\n"),
        })
    }

    fn say_what_is_next(&self, parts: &[Part]) -> anyhow::Result<()> {
        let host = self.to == Path::new("/") && parts.contains(&Part::Unit) && !self.dry_run;
        if !host {
            return Ok(());
        }
        output::print(match self.uninstall {
            true => {
                "next: systemctl disable --now leasehold; the addresses that were handed out stay \
                 written down in /var/lib/leasehold\n"
            }
            false => "next: systemctl daemon-reload && systemctl enable --now leasehold\n",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_node_is_below_the_root_that_is_given() {
        let args = |to: &str| InstallArgs {
            to: to.into(),
            only: vec![],
            cni_bin: "/opt/cni/bin".into(),
            plugin: None,
            conflist: None,
            net_dir: "/etc/cni/net.d".into(),
            socket: SOCKET_DEFAULT.into(),
            wait: Duration::ZERO,
            stay: false,
            uninstall: false,
            dry_run: false,
        };
        for (to, path, place) in [
            ("/", "/opt/cni/bin", "/opt/cni/bin"),
            ("/host", "/opt/cni/bin", "/host/opt/cni/bin"),
            ("root", "etc", "root/etc"),
        ] {
            assert_eq!(args(to).place(Path::new(path)), Path::new(place));
        }
        assert!(!args("/").parts().contains(&Part::Conflist));
        let with = InstallArgs { conflist: Some("f".into()), ..args("/") };
        assert!(with.parts().contains(&Part::Conflist));
    }
}
