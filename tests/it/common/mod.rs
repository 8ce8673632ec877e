//! The harness: a daemon of the test's own, a client for its socket, and CNI calls through the
//! plugin or the socket.
//!
//! Every daemon lives in a temporary directory of its own, so tests run in parallel. No function
//! here sleeps for a guessed time: they poll up to a limit, beyond which the test fails with the
//! end of the daemon's log.

mod call;
mod client;
pub(crate) mod etcd;
mod inspect;
mod passing;
mod plugin;
mod program;
mod stop;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use call::{Call, Outcome};
pub(crate) use client::{Client, Reply};
pub(crate) use inspect::{get_tcp, next_reply, post, reply_of};
pub(crate) use passing::Passing;
pub(crate) use plugin::{builds, my_ipam};
pub(crate) use program::{copy_program, write_program};
pub(crate) use stop::{go_on, stop};

/// The daemon under test.
pub(crate) const LEASEHOLD: &str = env!("CARGO_BIN_EXE_leasehold");
/// The directory of host-local and the main plugins in Debian's `containernetworking-plugins`.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// The time within which a daemon must become ready, or end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);
/// The lines of the daemon's log that a failed test shows.
const LOG_TAIL_LINES: usize = 40;

/// The settings with which a daemon starts.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The value of `LEASEHOLD_COOLDOWN`. Zero makes the order of addresses that of host-local.
    pub(crate) cooldown: &'static str,
    /// More variables of the environment.
    pub(crate) env: Vec<(String, String)>,
    /// More arguments, after those that place the daemon in its directory.
    pub(crate) args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { cooldown: "0s", env: Vec::new(), args: Vec::new() }
    }
}

/// A running daemon with a directory of its own. It is killed when it goes out of scope.
pub(crate) struct Daemon {
    dir: TempDir,
    options: Options,
    child: Option<Child>,
}

impl Daemon {
    /// Starts a daemon in a new directory and waits until it is ready.
    pub(crate) fn start(options: &Options) -> Self {
        // Now, so that nothing waits for cargo later, in the middle of what it is about.
        builds();
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let mut daemon = Self { dir, options: options.clone(), child: None };
        daemon.launch();
        daemon
    }

    /// Ends the daemon if it runs, and starts it again on the same state.
    pub(crate) fn restart(&mut self) {
        if self.child.is_some() {
            self.terminate();
        }
        self.launch();
    }

    /// Has the next start use these settings.
    pub(crate) fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Kills the daemon on the spot, as the kernel would when memory runs out.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        child.kill().expect("SIGKILL to the daemon");
        child.wait().expect("the end of the daemon");
    }

    /// Asks the daemon to end and waits for it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running daemon");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("SIGTERM to the daemon");
        let mut status = None;
        let ended = poll(PATIENCE, || {
            status = child.try_wait().expect("the state of the daemon");
            status.is_some()
        });
        if !ended {
            child.kill().expect("SIGKILL to the daemon");
            child.wait().expect("the end of the daemon");
            panic!("the daemon did not end within {PATIENCE:?} of SIGTERM\n{}", self.log_tail());
        }
        status.expect("an exit status")
    }

    /// The path of the daemon's unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run").join("leasehold.sock")
    }

    /// A new client of the daemon's socket.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Makes a configuration name the plugin and this daemon's socket.
    pub(crate) fn adopt(&self, config: &mut Value) {
        if let Some(ipam) = config.get_mut("ipam").and_then(Value::as_object_mut) {
            ipam.insert("type".into(), "my-ipam".into());
            ipam.insert("socket".into(), self.socket().to_string_lossy().into());
        }
    }

    /// Runs the plugin, as a main plugin does.
    pub(crate) fn plugin(&self, call: &Call) -> Outcome {
        let mut call = call.clone();
        self.adopt(&mut call.config);
        Outcome::of_process(&self.plugin_raw(&call.environment(), &call.config.to_string()))
    }

    /// Runs the plugin with any environment and any bytes on its standard input.
    pub(crate) fn plugin_raw(&self, environment: &[(&str, &str)], stdin: &str) -> Output {
        let socket = self.socket();
        let mut environment = environment.to_vec();
        environment.push(("LEASEHOLD_SOCKET", socket.to_str().expect("a path in UTF-8")));
        run(my_ipam(), &environment, stdin)
    }

    /// The last lines of the daemon's log, for messages.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("the end of the daemon's log:\n{}", tail.join("\n"))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    fn spawn(&self) -> Child {
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the daemon's log");
        // Not the file of the machine on which the tests run.
        let own = self.options.env.iter().any(|(name, _)| name == "LEASEHOLD_CONFIG");
        let none = (!own).then_some(["--config", "/dev/null"]);
        Command::new(LEASEHOLD)
            .arg("serve")
            .args(none.into_iter().flatten())
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .arg("--socket")
            .arg(self.socket())
            .args(["--listen", "127.0.0.1:0"])
            .args(&self.options.args)
            .env("LEASEHOLD_COOLDOWN", self.options.cooldown)
            .envs(self.options.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {LEASEHOLD}: {error}"))
    }

    fn launch(&mut self) {
        let child = self.spawn();
        let child = self.child.insert(child);
        let mut early_end = None;
        let mut client = Client::new(self.dir.path().join("run").join("leasehold.sock"));
        let answered = poll(PATIENCE, || {
            early_end = child.try_wait().expect("the state of the daemon");
            early_end.is_some()
                || client
                    .try_request("GET", "/v1/status", "")
                    .is_ok_and(|reply| has_begun(&reply.body))
        });
        if let Some(status) = early_end {
            panic!("the daemon ended before it was ready: {status}\n{}", self.log_tail());
        }
        assert!(answered, "the daemon was not ready within {PATIENCE:?}\n{}", self.log_tail());
    }
}

/// Returns whether a daemon with this status has acted on its notes and takes calls. It need not be
/// ready: without etcd it may not be able to serve any ADD.
pub(crate) fn has_begun(status: &str) -> bool {
    status.contains("\"state\":") && !status.contains("\"state\":\"starting\"")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// Runs a program with exactly the given CNI variables and standard input, to its end.
pub(crate) fn run(program: &Path, environment: &[(&str, &str)], stdin: &str) -> Output {
    let mut command = Command::new(program);
    for variable in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
        command.env_remove(variable);
    }
    // Where no daemon listens, a test would wait for one.
    command.env_remove("CNI_PATH").env("LEASEHOLD_WAIT_SECONDS", "0");
    command.envs(environment.iter().copied());
    feed(command, stdin)
}

/// Runs a command with the given standard input, to its end.
pub(crate) fn feed(command: Command, stdin: &str) -> Output {
    feed_bytes(command, stdin.as_bytes())
}

/// Runs a command with any bytes on its standard input, to its end.
pub(crate) fn feed_bytes(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut pipe = child.stdin.take().expect("a pipe to the program");
    // A program that ends without reading closes the pipe; its exit status shows the rest.
    let _ = pipe.write_all(stdin);
    drop(pipe);
    child.wait_with_output().expect("the output of the program")
}

/// Fails with a clear message if the plugins of Debian's package are missing.
pub(crate) fn require_plugins(names: &[&str]) {
    for name in names {
        let path = Path::new(CNI_PLUGINS).join(name);
        assert!(
            path.is_file(),
            "{} is missing: install Debian's package containernetworking-plugins",
            path.display()
        );
    }
}

/// Asks again and again until the answer is yes or the time is over. True if it was yes.
pub(crate) fn poll(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if ready() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
