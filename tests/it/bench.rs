//! `leasehold bench`: each mode works, and its counts are as promised. No time is asserted, because
//! the machine may do other work meanwhile.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{CNI_PLUGINS, LEASEHOLD, my_ipam, poll, require_plugins};

/// The time within which a benchmark must be running, or must end when it is told to.
const PATIENCE: Duration = Duration::from_secs(30);

/// A benchmark with a directory for temporary files of its own.
struct Bench {
    temporary: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { temporary: TempDir::with_prefix("leasehold-it-").expect("a temporary directory") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(LEASEHOLD);
        command.args(["bench", "--quick"]).args(args).env("TMPDIR", self.temporary.path());
        command.env_remove("CARGO").env_remove("CARGO_MANIFEST_DIR").env("CNI_PATH", CNI_PLUGINS);
        // The settings of the shell must not matter.
        command.env("LEASEHOLD_STATE_DIR", "/nonexistent").env("LEASEHOLD_SOCKET", "/nonexistent");
        command
    }

    /// Runs one mode for its report.
    fn report(&self, mode: &str) -> Value {
        let output = self.command(&["--mode", mode, "-o", "json"]).output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output));
        let report = serde_json::from_slice(&output.stdout);
        let report: Value = report.unwrap_or_else(|_| panic!("no JSON: {}", text(&output)));
        self.assert_nothing_left();
        assert_eq!(report["quick"], true);
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(report["skipped"], Value::Array(Vec::new()));
        for measurement in list(&report, "measurements") {
            assert_eq!(measurement["mode"], mode);
            let figure = |name: &str| measurement[name].as_f64().expect(name);
            let times = ["p50Us", "p99Us", "p999Us", "maxUs"].map(figure);
            assert!(times.is_sorted() && times[0] > 0.0, "{measurement}");
            assert!(figure("calls") > 0.0 && figure("perSecond") > 0.0, "{measurement}");
            assert!(figure("rounds") >= 1.0, "{measurement}");
        }
        for finding in list(&report, "findings") {
            assert_eq!(finding["mode"], mode);
            let figure = |name: &str| finding[name].as_f64();
            let [low, value, high] = ["low", "value", "high"].map(figure);
            assert!(low.is_some() && low <= value && value <= high, "{finding}");
            assert_eq!(finding["target"].is_null(), finding["met"].is_null(), "{finding}");
        }
        report
    }

    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.temporary.path()).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn text(output: &Output) -> String {
    format!("{output:?}")
}

fn list<'a>(report: &'a Value, name: &str) -> &'a Vec<Value> {
    report[name].as_array().unwrap_or_else(|| panic!("no list {name}: {report}"))
}

/// The contenders of a report, each once.
fn contenders(report: &Value) -> Vec<String> {
    let of = list(report, "measurements").iter();
    let mut names: Vec<String> =
        of.map(|one| one["contender"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// The value of the finding whose text begins with `what`.
fn found(report: &Value, what: &str) -> f64 {
    let mut of = list(report, "findings").iter();
    let finding = of.find(|one| one["what"].as_str().is_some_and(|text| text.starts_with(what)));
    let finding = finding.unwrap_or_else(|| panic!("nothing is said of {what}: {report:#}"));
    finding["value"].as_f64().expect("a figure")
}

#[test]
fn mode_plugin_runs_everybody_in_turn() {
    require_plugins(&["host-local"]);
    let plugin = my_ipam();
    let report = Bench::new().report("plugin");
    assert_eq!(contenders(&report), ["echo", "exec alone", "host-local", "leasehold"]);
    for what in [
        "ADD takes longer than an echo",
        "ADD faster than host-local, 0 taken",
        "DEL faster than host-local, 1000 taken",
        "calls per second against host-local, 8 callers",
        "calls per second against host-local, 32 callers",
    ] {
        assert!(found(&report, what) > 0.0, "{what}");
    }
    let size = fs::metadata(plugin).expect("the plugin").len() as f64 / f64::from(1 << 20);
    assert!((found(&report, "size of the plugin") - size).abs() < 1e-9);
}

#[test]
fn mode_socket_shares_commits_under_load() {
    let report = Bench::new().report("socket");
    assert_eq!(
        contenders(&report),
        ["echo", "leasehold", "leasehold, 0 taken", "leasehold, 1000 taken"]
    );
    let commits = found(&report, "journal commits per answer, 16 connections");
    println!("{commits} commits per answer");
    assert!(commits > 0.0 && commits < 1.0, "{commits} commits per answer");
    for what in ["rate against the echo's", "rate in arrays of 64", "kill -9 to the first"] {
        assert!(found(&report, what) > 0.0, "{what}");
    }
    assert!(found(&report, "memory of an allocation, 1000 taken") >= 0.0);
}

#[test]
fn mode_core_runs_alone() {
    let report = Bench::new().report("core");
    assert_eq!(contenders(&report), ["allocator, 0 taken", "allocator, 1000 taken"]);
    assert!(found(&report, "assign plus release, 1000 taken") > 0.0);
}

/// A burst of 10,000 costs a handful of block transactions, steady churn costs none, and no address
/// is stranded on a node of several.
#[test]
fn mode_cluster_counts_transactions() {
    let report = Bench::new().report("cluster");
    let burst = found(&report, "transactions of blocks per allocation, burst");
    let churn = found(&report, "transactions of blocks, steady churn");
    println!("{burst} per allocation in the burst, {churn} in the churn");
    assert!(burst > 0.0 && burst <= 0.002, "{burst} transactions of blocks per allocation");
    assert_eq!(churn, 0.0, "transactions of blocks in steady churn");
    assert_eq!(found(&report, "addresses handed out of 253"), 253.0);
}

/// Memory, open files and times are compared, of one daemon and of several.
#[test]
fn mode_soak_compares_rounds() {
    let report = Bench::new().report("soak");
    assert_eq!(contenders(&report), ["2 daemons"]);
    assert_eq!(list(&report, "measurements").len(), 4, "{report:#}");
    for what in ["resident", "open files", "p99"] {
        let what = format!("{what}, last round against the second");
        assert!(found(&report, &what) > 0.0, "{what}: {report:#}");
    }
    assert!(found(&report, "most open files") > 10.0, "the clients' connections count");
}

#[test]
fn a_cluster_without_etcd_is_skipped_and_said() {
    let bench = Bench::new();
    let args = ["--mode", "cluster", "--etcd-bin", "/nonexistent/etcd", "-o", "json"];
    let output = bench.command(&args).output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let skipped = list(&report, "skipped");
    assert!(skipped[0].as_str().is_some_and(|why| why.contains("--etcd-bin")), "{report}");
    bench.assert_nothing_left();
}

#[test]
fn a_plot_is_drawn_and_tables_are_printed() {
    let bench = Bench::new();
    let beside = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let file: PathBuf = beside.path().join("plot.svg");
    let args = ["--mode", "core", "--taken", "0", "--rounds", "1", "--plot"];
    let output = bench.command(&args).arg(&file).output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("P99.9") && shown.contains("TARGET"), "{shown}");
    let svg = fs::read_to_string(file).expect("the plot");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("allocator, 0 taken"), "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn an_interrupted_benchmark_ends_all_that_it_started() {
    let bench = Bench::new();
    let mut command = bench.command(&["--mode", "cluster", "--rounds", "1000"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it runs");
    let of_bench = bench.temporary.path().to_str().expect("UTF-8").to_owned();
    let up = poll(PATIENCE, || processes(&of_bench).len() >= 3);
    assert!(up, "etcd and two daemons are not up: {:?}", processes(&of_bench));
    kill_process(Pid::from_child(&child), Signal::INT).expect("SIGINT");
    let status = wait(&mut child);
    assert_eq!(status, Some(2), "it was interrupted");
    assert_eq!(processes(&of_bench), Vec::<String>::new(), "these still run");
    bench.assert_nothing_left();
}

fn wait(child: &mut Child) -> Option<i32> {
    let mut status = None;
    let ended = poll(PATIENCE, || {
        status = child.try_wait().expect("the state of the benchmark");
        status.is_some()
    });
    if !ended {
        child.kill().expect("SIGKILL to the benchmark");
        child.wait().expect("the end of the benchmark");
        panic!("it did not end within {PATIENCE:?} of SIGINT");
    }
    status.and_then(|status| status.code())
}

/// The command lines of the processes that have a path in their arguments.
fn processes(path: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(path)).collect()
}
