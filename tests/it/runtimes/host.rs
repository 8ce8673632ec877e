//! A machine of the test's own, made of namespaces, with a daemon of ours.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::common::{CNI_PLUGINS, Daemon, Options, my_ipam, poll, require_plugins};

/// The directory of plugins on the machine: Debian's, and ours.
pub(super) const PLUGINS: &str = "/opt/cni/bin";
/// The longest time of one command of a runtime, in seconds.
const COMMAND_LIMIT: &str = "120";
/// The time within which the machine must end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first process of the machine. No process outside sees its mounts, and it writes only to the
/// disk: `/etc`, `/opt` and `/var/lib` are overlays in memory. It ends when its standard input
/// does, so also when the test is killed. Then the kernel ends every other process of the machine,
/// and mounts and interfaces go with the last one. The shell collects orphans.
const INIT: &str = r#"
set -e
mount -t tmpfs run /run
mkdir -p /run/lock /run/netns
for dir in /etc /opt /var/lib; do
    over=/run/over$dir
    mkdir -p $over/upper $over/work
    mount -t overlay -o lowerdir=$dir,upperdir=$over/upper,workdir=$over/work overlay $dir
done
mkdir -p /opt/cni/bin /var/lib/cni /etc/cni/net.d
rm -rf /opt/cni/bin/* /etc/cni/net.d/*
ln -s "$CNI_PLUGINS"/* "$MY_IPAM" /opt/cni/bin/
mount --bind "$DISK/cni" /var/lib/cni
ip link set lo up
ip link add wire0 type veth peer name wire1
ip link set wire0 up
ip link set wire1 up
echo ready
cat
"#;

/// A machine with a daemon. The daemon is outside, as on a host whose containers are elsewhere.
pub(super) struct Host {
    pub(super) daemon: Daemon,
    /// The directory that outlives a reboot.
    disk: TempDir,
    name: String,
    init: Option<Child>,
    boots: u32,
}

impl Host {
    /// Starts a machine on which the programs can be run; a missing one is an error.
    pub(super) fn start(programs: &[(&str, &str)], mut options: Options) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(geteuid().is_root(), "namespaces need root: run this test as root");
        let plugins = ["bridge", "macvlan", "portmap", "firewall", "tuning", "loopback"];
        require_plugins(&plugins);
        for (program, package) in programs {
            assert!(on_path(program), "{program} is missing: install Debian's package {package}");
        }
        let disk = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        for directory in ["cni", "networks"] {
            fs::create_dir(disk.path().join(directory)).expect("a directory");
        }
        let boot = disk.path().join("boot-id").display().to_string();
        options.env.push(("LEASEHOLD_BOOT_ID_FILE".to_owned(), boot));
        let daemon = Daemon::prepare(&options);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("leasehold-it-{}-{number}", std::process::id());
        let mut host = Self { daemon, disk, name, init: None, boots: 0 };
        host.boot();
        host.daemon.restart();
        host
    }

    /// A path on the disk of the machine.
    pub(super) fn disk(&self, path: &str) -> PathBuf {
        self.disk.path().join(path)
    }

    /// The name of the control group in which containers of this machine must be.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    /// The process that stands for the machine's namespaces.
    pub(super) fn pid(&self) -> String {
        self.init.as_ref().expect("a machine that runs").id().to_string()
    }

    /// A command that runs a program on the machine until the machine ends.
    pub(super) fn service(&self, program: &[&str]) -> Command {
        let init = self.pid();
        let space = |flag: &str, kind: &str| format!("--{flag}=/proc/{init}/ns/{kind}");
        let mut command = Command::new("nsenter");
        command.args([space("mount", "mnt"), space("net", "net")]);
        command.arg(space("pid", "pid_for_children"));
        command.args(program).stdin(Stdio::null());
        command
    }

    /// A command that runs a program on the machine for a bounded time.
    pub(super) fn command(&self, program: &[&str]) -> Command {
        self.service(&[&["timeout", "--kill-after=5", COMMAND_LIMIT], program].concat())
    }

    /// Runs a program on the machine, to its end.
    pub(super) fn output(&self, program: &[&str]) -> Output {
        let output = self.command(program).output();
        output.unwrap_or_else(|error| panic!("cannot run nsenter (util-linux): {error}"))
    }

    /// Runs a program on the machine, which must succeed. Returns its output without the last line
    /// end.
    pub(super) fn run(&self, program: &[&str]) -> String {
        text_of(program, &self.output(program))
    }

    /// All processes of the machine end at once, unasked, and with them all of its network; so does
    /// the daemon. Only the disk is kept. Then it starts again, in another boot.
    pub(super) fn reboot(&mut self) {
        self.daemon.kill9();
        self.halt();
        self.boot();
        self.daemon.restart();
    }

    fn boot(&mut self) {
        self.boots += 1;
        let id = format!("00000000-0000-4000-8000-{:012}\n", self.boots);
        fs::write(self.disk("boot-id"), id).expect("a boot id");
        let errors = File::create(self.disk("init.log")).expect("a log");
        let spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let init = Command::new("unshare")
            .args(spaces)
            .args(["sh", "-c", INIT])
            .env("CNI_PLUGINS", CNI_PLUGINS)
            .env("MY_IPAM", my_ipam())
            .env("DISK", self.disk.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run unshare (util-linux): {error}"));
        let init = self.init.insert(init);
        let mut line = String::new();
        // It ends the pipe if it fails, so this does not wait for ever.
        let mut stdout = BufReader::new(init.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line of the first process");
        let log = fs::read_to_string(self.disk("init.log")).unwrap_or_default();
        assert_eq!(line, "ready\n", "the machine did not start: {log}");
    }

    /// Ends every process of the machine.
    fn halt(&mut self) {
        let Some(mut init) = self.init.take() else { return };
        drop(init.stdin.take());
        if !poll(PATIENCE, || init.try_wait().is_ok_and(|status| status.is_some())) {
            // `--kill-child` ends the others with it.
            let _ = init.kill();
            let _ = init.wait();
            eprintln!("the machine {} did not end by itself", self.name);
        }
        // Control groups have no namespace that ends them.
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
        for hierarchy in hierarchies.map(|entry| entry.path()).chain([root.to_owned()]) {
            let group = hierarchy.join(&self.name);
            if !poll(PATIENCE, || remove_groups(&group)) {
                eprintln!("the control group {} is left behind", group.display());
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.halt();
    }
}

/// The text of a program that must have succeeded.
pub(super) fn text_of(program: &[&str], output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {}: {stdout} {stderr}", output.status);
    stdout.trim_end().to_owned()
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Removes a control group with those in it. True if it is gone.
fn remove_groups(group: &Path) -> bool {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    for inner in groups {
        remove_groups(&inner.path());
    }
    let _ = fs::remove_dir(group);
    !group.exists()
}
