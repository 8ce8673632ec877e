//! One call of the plugin, as a container runtime makes it: exec, environment, stdin, stdout.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::cli::child::interrupt::Interrupt;
use crate::limits::ANSWER_WAIT_MAX;

/// The longest time that the plugin may run: its wait for the daemon, and a little.
const RUN_WAIT_MAX: Duration = ANSWER_WAIT_MAX.saturating_add(Duration::from_secs(5));

/// The time that the demo waits for output before it checks for an interrupt.
const LOOK: Duration = Duration::from_millis(100);

/// The time that a process that closed its output is polled before the poll becomes a slow one:
/// the kernel needs microseconds from there to the exit.
const EXIT_SPIN: Duration = Duration::from_millis(2);

/// The most output that is read, in bytes; a result has about 300.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// The variables that are the same in every call: those of the usual example. An IPAM plugin
/// touches neither the network namespace nor the other plugins.
pub(super) const SHARED: [(&str, &str); 2] = [("CNI_NETNS", "/dev/null"), ("CNI_PATH", ".")];

/// The content of a call.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) command: &'static str,
    pub(super) container: &'a str,
    pub(super) ifname: &'a str,
    pub(super) args: &'a str,
    pub(super) config: &'a str,
}

impl Call<'_> {
    /// The variables of the call, without [`SHARED`].
    pub(super) fn environment(&self) -> Vec<(&'static str, &str)> {
        let mut environment = vec![
            ("CNI_COMMAND", self.command),
            ("CNI_CONTAINERID", self.container),
            ("CNI_IFNAME", self.ifname),
        ];
        if !self.args.is_empty() {
            environment.push(("CNI_ARGS", self.args));
        }
        environment
    }
}

/// The result of a call.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) stdout: String,
    pub(super) status: ExitStatus,
    /// From exec to exit.
    pub(super) took: Duration,
}

impl Run {
    /// The output as JSON; null if it is not JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_default()
    }

    /// `Ok` for exit status 0, otherwise the plugin's complaint.
    pub(super) fn succeeded(&self) -> Result<(), String> {
        if self.status.success() {
            return Ok(());
        }
        let json = self.json();
        let (code, msg) = (json["code"].as_u64(), json["msg"].as_str());
        Err(match (code, msg) {
            (Some(code), Some(msg)) => format!("{}, code {code}: {msg}", self.status),
            _ => {
                format!("{}, and its output is not an error object: {:?}", self.status, self.stdout)
            }
        })
    }

    /// The addresses of a result, in order, each with its prefix length.
    pub(super) fn addresses(&self) -> Vec<String> {
        let json = self.json();
        let ips = json["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        ips.iter().filter_map(|ip| ip["address"].as_str().map(str::to_owned)).collect()
    }
}

/// The plugin's program, and the daemon that it asks.
#[derive(Debug)]
pub(super) struct Plugin {
    program: PathBuf,
    socket: PathBuf,
    interrupt: Interrupt,
}

impl Plugin {
    pub(super) fn new(program: PathBuf, socket: PathBuf, interrupt: Interrupt) -> Self {
        Self { program, socket, interrupt }
    }

    /// The daemon's socket.
    pub(super) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// The signals that may end the demo.
    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Runs the plugin to its end.
    ///
    /// # Errors
    /// It cannot be run, does not end in time, or the demo was interrupted meanwhile.
    pub(super) fn run(&self, call: &Call<'_>) -> anyhow::Result<Run> {
        let name = || format!("{} {}", self.program.display(), call.command);
        let began = Instant::now();
        // A socket instead of a pipe: its reads can be given a limit.
        let (ours, theirs) = UnixStream::pair().context("cannot make a pipe to the plugin")?;
        let mut child = self.spawn(call, theirs.into()).with_context(name)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that ends without reading says more by its end than this error would.
            let _ = stdin.write_all(call.config.as_bytes());
        }
        let deadline = began + RUN_WAIT_MAX;
        let ended = self
            .read_all(&ours, deadline)
            .and_then(|stdout| Ok((stdout, self.wait(&mut child, deadline)?)));
        let took = began.elapsed();
        if ended.is_err() {
            // The whole group: what the plugin started must not outlive the demo either.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
        let (stdout, status) = ended.with_context(name)?;
        Ok(Run { stdout, status, took })
    }

    fn spawn(&self, call: &Call<'_>, stdout: OwnedFd) -> io::Result<Child> {
        // The command holds its end of the socket: it has to be gone before the reading starts.
        Command::new(&self.program)
            .env_clear()
            .envs(SHARED)
            .envs(call.environment())
            .env("LEASEHOLD_SOCKET", &self.socket)
            // A group of its own: Ctrl-C is for the demo, and calls that run end in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
    }

    fn read_all(&self, stdout: &UnixStream, deadline: Instant) -> anyhow::Result<String> {
        stdout.set_read_timeout(Some(LOOK))?;
        let mut stdout = stdout.take(OUTPUT_BYTES_MAX);
        let mut bytes = Vec::new();
        while let Err(error) = stdout.read_to_end(&mut bytes) {
            anyhow::ensure!(error.kind() == io::ErrorKind::WouldBlock, error);
            self.go_on_until(deadline)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn wait(&self, child: &mut Child, deadline: Instant) -> anyhow::Result<ExitStatus> {
        let closed = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if closed.elapsed() < EXIT_SPIN {
                std::thread::yield_now();
            } else {
                std::thread::sleep(EXIT_SPIN);
                self.go_on_until(deadline)?;
            }
        }
    }

    fn go_on_until(&self, deadline: Instant) -> anyhow::Result<()> {
        self.interrupt.check()?;
        anyhow::ensure!(Instant::now() < deadline, "it did not end within {RUN_WAIT_MAX:?}");
        Ok(())
    }
}
