//! `leasehold demo`: it succeeds when everything is right, and fails when anything is wrong.

mod cluster;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::common::{LEASEHOLD, builds, copy_program, my_ipam, write_program};

/// A demo with a directory for temporary files of its own.
struct Demo {
    temporary: TempDir,
    program: PathBuf,
}

impl Demo {
    fn new(program: &Path) -> Self {
        let temporary = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        Self { temporary, program: program.to_owned() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("demo").args(args).env("TMPDIR", self.temporary.path());
        command.env_remove("CARGO").env_remove("CARGO_MANIFEST_DIR");
        // The settings of the shell must not matter.
        command.env("LEASEHOLD_STATE_DIR", "/nonexistent").env("LEASEHOLD_SOCKET", "/nonexistent");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the demo runs")
    }

    /// Runs the demo, which must end with this exit code, and returns its report.
    fn report(&self, containers: &str, code: i32) -> Value {
        let output = self.run(&["--once", "--containers", containers, "-o", "json"]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.temporary.path()).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A directory with the real `leasehold` and a script in the place of the plugin.
struct Beside {
    dir: TempDir,
}

impl Beside {
    fn new() -> Self {
        // In the target directory, so that a link is enough and no copy of 160 MB is needed.
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let beside = Self { dir };
        let program = beside.leasehold();
        if fs::hard_link(LEASEHOLD, &program).is_err() {
            copy_program(Path::new(LEASEHOLD), &program);
        }
        beside
    }

    /// `script` is the shell script for one call; `$REAL` is the real plugin.
    fn with_plugin(script: &str) -> Self {
        let beside = Self::new();
        write_script(&beside.dir.path().join("my-ipam"), script);
        beside
    }

    fn leasehold(&self) -> PathBuf {
        self.dir.path().join("leasehold")
    }
}

fn write_script(path: &Path, script: &str) {
    let text = format!("#!/bin/sh\nREAL={}\n{script}\n", my_ipam().display());
    write_program(path, &text);
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

fn wrong(report: &Value) -> String {
    report["wrong"].to_string()
}

#[test]
fn the_numbers_add_up() {
    let demo = Demo::new(Path::new(LEASEHOLD));
    let report = demo.report("200", 0);
    assert_eq!(report["ok"], true, "{report}");
    let steps = report["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 10);
    assert!(steps.iter().all(|step| step["ok"] == true), "{report}");
    let churn = &report["churn"];
    for calls in ["add", "del"] {
        assert_eq!(churn[calls]["calls"], 200, "{churn}");
        assert_eq!(churn[calls]["failures"], 0, "{churn}");
        let (p50, p99) = (churn[calls]["p50Ms"].as_f64(), churn[calls]["p99Ms"].as_f64());
        assert!(p50 > Some(0.0) && p50 <= p99, "{churn}");
    }
    // Every other container has one address, the others have two.
    assert_eq!(churn["addresses"], 300);
    assert_eq!(churn["duplicates"], 0);
    assert_eq!(churn["leftOver"], 0);
    demo.assert_nothing_left();
}

#[test]
fn a_person_sees_every_call_and_its_answer() {
    let target = &builds()[0].target;
    let demo = Demo::new(Path::new(LEASEHOLD));
    let output = demo.run(&["--once", "--containers", "20", "--callers", "2"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    let plugin = format!("plugin: my-ipam {}, {target}, static-PIE\n", env!("CARGO_PKG_VERSION"));
    for expected in [
        &plugin,
        "my-ipam < deploy/examples/my-ipam.as-printed.json",
        "line 21 column 3: trailing comma",
        "\"address\": \"10.10.1.22/16\"",
        "K8S_POD_NAME=pay-10-sandbox-84f8cc5d4b-8v4fw",
        "\"address\": \"10.10.1.20/16\"",
        "CNI_COMMAND=ADD CNI_CONTAINERID=example CNI_IFNAME=dummy0",
        "\"address\": \"203.0.113.2/24\"",
        "\"address\": \"2001:db8:1::2/64\"",
        "CHECK exists since cniVersion 0.4.0",
        "DUPLICATES",
        "everything was right",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(shown.lines().count() <= 100, "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours without a terminal");
    assert!(!shown.contains("FAILED"), "{shown}");
    demo.assert_nothing_left();
}

#[test]
fn it_stays_up_until_it_is_told_to_stop() {
    let demo = Demo::new(Path::new(LEASEHOLD));
    let mut child = demo
        .command(&["--containers", "8"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the demo runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut socket = None;
    for line in lines.by_ref().map(|line| line.expect("a line")) {
        if let Some((_, path)) = line.split_once("  export LEASEHOLD_SOCKET=") {
            socket = Some(path.to_owned());
        }
        if line.starts_with("Ctrl-C ends it") {
            break;
        }
    }
    let socket = socket.expect("a socket to try");
    let listed = Command::new(LEASEHOLD)
        .args(["allocations", "--socket", &socket])
        .output()
        .expect("leasehold runs");
    assert!(text(&listed).contains("demo-1"), "{}", text(&listed));
    kill_process(Pid::from_child(&child), Signal::INT).expect("SIGINT to the demo");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().expect("its end").code(), Some(0), "{rest:?}");
    assert!(UnixStream::connect(&socket).is_err());
    demo.assert_nothing_left();
}

#[test]
fn a_plugin_that_fails_is_noticed() {
    let beside = Beside::with_plugin("exit 3");
    let demo = Demo::new(&beside.leasehold());
    let output = demo.run(&["--once", "--containers", "4"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("FAILED") && shown.contains("ADDs that failed: 4"), "{shown}");
    demo.assert_nothing_left();
}

#[test]
fn an_address_given_out_twice_is_noticed() {
    // Right about everything but the churn, where it hands the same address to all containers.
    let beside = Beside::with_plugin(
        r#"case "$CNI_COMMAND $CNI_CONTAINERID" in
        "ADD batch-"*)
            "$REAL" | sed 's|"10\.[^"/]*/16"|"10.10.1.40/16"|; s|"172\.[^"/]*/24"|"10.10.1.40/16"|'
            ;;
        *) exec "$REAL" ;;
        esac"#,
    );
    let report = Demo::new(&beside.leasehold()).report("60", 1);
    assert!(report["churn"]["duplicates"].as_u64() > Some(0), "{report}");
    assert!(wrong(&report).contains("10.10.1.40/16 was given to container batch-"), "{report}");
    assert!(report["steps"].as_array().expect("steps").iter().all(|step| step["ok"] == true));
}

#[test]
fn an_address_that_is_never_given_back_is_noticed() {
    let beside = Beside::with_plugin(
        r#"[ "$CNI_COMMAND $CNI_CONTAINERID" = "DEL batch-7" ] && exit 0; exec "$REAL""#,
    );
    let report = Demo::new(&beside.leasehold()).report("20", 1);
    assert_eq!(report["churn"]["leftOver"], 2, "{report}");
    assert!(wrong(&report).contains("is still held by container batch-7"), "{report}");
}

#[test]
fn a_wrong_address_is_noticed() {
    let beside = Beside::with_plugin(r#""$REAL" | sed 's|10.10.1.20/16|10.10.1.30/16|'"#);
    let report = Demo::new(&beside.leasehold()).report("4", 1);
    assert!(wrong(&report).contains("10.10.1.30/16"), "{report}");
}

#[test]
fn a_daemon_that_dies_is_told_with_the_end_of_its_log() {
    let beside = Beside::with_plugin(
        r#"if [ "$CNI_CONTAINERID" = batch-5 ]; then
            kill -9 "$(cat "$(dirname "$LEASEHOLD_SOCKET")/../state/lock")"
        fi
        exec "$REAL""#,
    );
    let demo = Demo::new(&beside.leasehold());
    let output = demo.run(&["--once", "--containers", "20"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    assert!(shown.contains("the daemon ended (signal: 9") && shown.contains("serving"), "{shown}");
    demo.assert_nothing_left();
}

#[test]
fn without_a_plugin_it_says_how_to_build_it() {
    let beside = Beside::new();
    let demo = Demo::new(&beside.leasehold());
    let output = demo.run(&["--once"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("cargo build --release -p my-ipam"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    demo.assert_nothing_left();
}

/// The files that cargo leaves when it runs a program, with scripts as cargo and compiler.
struct RunByCargo {
    beside: Beside,
    demo: Demo,
}

impl RunByCargo {
    /// `musl` is true if the compiler can build for musl.
    fn new(musl: bool) -> Self {
        let beside = Beside::new();
        let dir = beside.dir.path();
        // As cargo lays it out: TARGET_DIR/PROFILE/leasehold.
        let place = dir.join("target").join("debug");
        fs::create_dir_all(&place).expect("a directory");
        fs::rename(beside.leasehold(), place.join("leasehold")).expect("leasehold in its place");
        let tag = "# This file is a cache directory tag created by cargo.";
        fs::write(dir.join("target").join("CACHEDIR.TAG"), tag).expect("a tag");
        let libraries = if musl { dir.join("target") } else { dir.join("nowhere") };
        write_script(&dir.join("rustc"), &format!("echo {}", libraries.display()));
        let demo = Demo::new(&place.join("leasehold"));
        Self { beside, demo }
    }

    /// The directory where cargo builds for a target, or without a named target.
    fn place(&self, target: Option<&str>) -> PathBuf {
        self.beside.dir.path().join("target").join(target.unwrap_or_default()).join("debug")
    }

    fn run(&self, cargo: &str) -> Output {
        let dir = self.beside.dir.path();
        write_script(&dir.join("cargo"), cargo);
        let mut command = self.demo.command(&["--once", "--containers", "2"]);
        command.env("CARGO", dir.join("cargo")).env("CARGO_MANIFEST_DIR", dir);
        command.output().expect("it runs")
    }

    /// Checks that the plugin is built with these arguments, into this place, and run.
    fn builds(&self, arguments: &str, place: &Path) {
        let place = place.display();
        let output =
            self.run(&format!(r#"echo "$@" in "$PWD" >&2; mkdir -p {place}; cp "$REAL" {place}"#));
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(0), "{shown}");
        let (dir, target) = (self.beside.dir.path().display(), self.place(None));
        let target = target.parent().expect("a directory").display();
        let built =
            format!("build -p my-ipam --profile dev --target-dir {target}{arguments} in {dir}\n");
        assert!(shown.contains(&built), "{built} in {shown}");
        self.demo.assert_nothing_left();
    }
}

#[test]
fn run_by_cargo_it_builds_the_plugin_first() {
    let cargo = RunByCargo::new(false);
    cargo.builds("", &cargo.place(None));

    let output = cargo.run("exit 101");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("cannot build the plugin"), "{}", text(&output));
    cargo.demo.assert_nothing_left();
}

#[test]
fn where_cargo_can_build_for_musl_it_does() {
    let cargo = RunByCargo::new(true);
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    cargo.builds(&format!(" --target {target}"), &cargo.place(Some(&target)));
}
