//! The admin commands, as a person or a script runs them.

mod fake;
mod figures;
mod output;
mod targets;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::common::{Call, Daemon, LEASEHOLD, Options};
use fake::Fake;

/// Every command, with the options that its help must name.
const COMMANDS: [(&str, &[&str]); 6] = [
    (
        "serve",
        &[
            "--config",
            "--node",
            "--state-dir",
            "--socket",
            "--listen",
            "--cooldown",
            "--fsync",
            "--keep-after-reboot",
            "LEASEHOLD_SOCKET",
            "LEASEHOLD_LOG",
            "/run/leasehold/leasehold.sock",
            "127.0.0.1:9750",
            "30s",
        ],
    ),
    ("status", &["--socket", "--output", "-o", "LEASEHOLD_SOCKET", "table", "json"]),
    (
        "allocations",
        &["--network", "--address", "--container", "--socket", "--output", "LEASEHOLD_SOCKET"],
    ),
    (
        "release",
        &[
            "--address",
            "--container",
            "--ifname",
            "--network",
            "--sequence",
            "--dry-run",
            "--yes",
            "--socket",
            "--output",
            "all its",
        ],
    ),
    (
        "install",
        &[
            "--to",
            "--only",
            "--cni-bin",
            "--plugin",
            "--conflist",
            "--net-dir",
            "--wait",
            "--stay",
            "--uninstall",
            "--dry-run",
            "/opt/cni/bin",
            "/etc/cni/net.d",
        ],
    ),
    ("demo", &["--once", "--containers", "--callers", "--seconds", "--output", "4000", "Ctrl-C"]),
];

fn config(network: &str, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": network,
        "ipam": { "type": "my-ipam", "ranges": [[{ "subnet": subnet }]] }
    })
}

fn two_families(network: &str) -> Value {
    let mut config = config(network, "10.77.0.0/24");
    config["ipam"]["ranges"] = json!([[{ "subnet": "10.77.0.0/24" }], [{ "subnet": "fd77::/64" }]]);
    config
}

fn leasehold(socket: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(LEASEHOLD);
    command.args(args).env("LEASEHOLD_SOCKET", socket).output().expect("leasehold runs")
}

/// Runs a command that must end with a code. Returns its standard output.
fn ends(socket: &Path, args: &[&str], code: i32) -> String {
    let output = leasehold(socket, args);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    if code != 2 {
        assert_eq!(stderr, "", "{args:?}: an answer goes to stdout");
    }
    stdout
}

/// Runs a command that must end with a code and print one JSON document.
fn ends_json(socket: &Path, args: &[&str], code: i32) -> Value {
    let stdout = ends(socket, &[args, &["-o", "json"]].concat(), code);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"))
}

/// Runs a command that cannot do its work. Returns its one line on standard error.
fn fails(socket: &Path, args: &[&str]) -> String {
    let output = leasehold(socket, args);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stdout}{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    stderr
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The words of the line of a table that has `word` in it.
fn line_with<'a>(table: &'a str, word: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.contains(word));
    line.unwrap_or_else(|| panic!("no {word} in {table}")).split_whitespace().collect()
}

fn add(daemon: &Daemon, container: &str, config: &Value) {
    let mut call = Call::new("ADD", container, config);
    call.args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pod-of-{container}");
    let added = daemon.client().call(&call);
    assert!(added.succeeded(), "{added:?}");
}

#[test]
fn every_help_names_every_option_and_an_example() {
    let nowhere = Path::new("/nonexistent");
    let overview = ends(nowhere, &["--help"], 0);
    for (command, options) in COMMANDS {
        assert!(overview.contains(command), "{command} in {overview}");
        for form in ["--help", "-h"] {
            let help = ends(nowhere, &[command, form], 0);
            for option in options {
                assert!(help.contains(option), "{option} in {help}");
            }
            assert!(help.contains(&format!("\n  leasehold {command}")), "an example in {help}");
        }
    }
}

/// The unit file is not run here, but its command line must at least be understood.
#[test]
fn the_service_unit_starts_a_command_that_exists() {
    let unit = include_str!("../../deploy/leasehold.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/leasehold"), "where docs/install.md puts it");
    let words: Vec<&str> = words.chain(["--help"]).collect();
    ends(Path::new("/nonexistent"), &words, 0);
}

#[test]
fn wrong_usage_ends_with_2() {
    let nowhere = Path::new("/nonexistent");
    for args in [
        &[][..],
        &["no-such-command"],
        &["status", "-o", "yaml"],
        &["allocations", "--address", "10.0.0.0/24"],
        &["release"],
        &["release", "--address", "10.0.0.2", "--container", "c"],
        &["release", "--container", "c", "--sequence", "-1"],
        &["demo", "--callers", "0"],
        &["demo", "--seconds", "1", "--containers", "1"],
    ] {
        let stdout = ends(nowhere, args, 2);
        assert_eq!(stdout, "", "{args:?}");
    }
}

#[test]
fn without_a_daemon_one_sentence_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("no.sock");
    for args in [&["status"][..], &["allocations"], &["release", "--container", "c"]] {
        let error = fails(&socket, args);
        for word in [socket.to_str().unwrap(), "leasehold serve", "--socket", "LEASEHOLD_SOCKET"] {
            assert!(error.contains(word), "{word} in {error}");
        }
    }
    // The option wins over the variable.
    let error = fails(&socket, &["status", "--socket", "/nonexistent/x.sock"]);
    assert!(error.contains("/nonexistent/x.sock"), "{error}");
}

#[test]
fn status_shows_the_node_and_its_range_sets() {
    let daemon =
        Daemon::start(&Options { args: vec!["--node".into(), "n-7".into()], ..Options::default() });
    let socket = daemon.socket();
    let empty = ends(&socket, &["status"], 0);
    assert!(empty.contains("no network is in use on this node yet"), "{empty}");

    add(&daemon, "c1", &two_families("blue"));
    add(&daemon, "c2", &config("green", "10.77.0.0/25"));
    let table = ends(&socket, &["status"], 0);
    assert_eq!(line_with(&table, "node"), ["node", "n-7"]);
    assert_eq!(line_with(&table, "state "), ["state", "serving"]);
    assert_eq!(line_with(&table, "attachments"), ["attachments", "2"]);
    let header = ["NETWORK", "FAMILY", "BLOCKS", "BLOCK", "SIZE", "ALLOCATED", "COOLING", "FREE"];
    assert_eq!(line_with(&table, "NETWORK"), header);
    let ipv6 = line_with(&table, "ipv6");
    assert_eq!((ipv6[0], ipv6[4]), ("blue", "1"));
    let warning = table.lines().find(|line| line.starts_with("warning: ")).expect(&table);
    assert!(warning.contains("blue") && warning.contains("green"), "{warning}");

    let json = ends_json(&socket, &["status"], 0);
    assert_eq!(json["about"]["node"], "n-7");
    assert_eq!(json["state"], "serving");
    assert_eq!(json["rangeSets"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["overlaps"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_status_of_a_broken_journal_is_bad_news() {
    let fake = Fake::serve(|_, path| match path {
        "/v1/status" => (
            200,
            json!({
                "about": {
                    "node": "n", "version": "0", "pid": 1, "epoch": 1, "stateDir": "/s",
                    "listen": "127.0.0.1:9", "store": "embedded", "sinceUnixMs": 0
                },
                "state": "broken", "cause": "the journal failed: disk full", "attachments": 0,
                "cluster": {
                    "state": "member", "cause": null, "alone": true, "lease": "1",
                    "silenceMs": 0, "lostBlocks": 0, "recordsWaiting": 0, "recordLagMs": 0
                },
                "rangeSets": [], "overlaps": []
            }),
        ),
        _ => (404, json!({ "error": "no such page" })),
    });
    let table = ends(fake.socket(), &["status"], 1);
    assert!(table.contains("the journal failed: disk full"), "{table}");
    assert_eq!(ends_json(fake.socket(), &["status"], 1)["state"], "broken");
}

#[test]
fn an_answer_that_is_no_answer_is_told_in_one_line() {
    let refusing = Fake::serve(|_, _| (503, json!({ "error": "the daemon stops" })));
    let error = fails(refusing.socket(), &["status"]);
    assert!(error.contains("503") && error.contains("the daemon stops"), "{error}");

    let other = Fake::serve(|_, _| (200, json!({ "hello": "I am\nanother service" })));
    for command in ["status", "allocations"] {
        let error = fails(other.socket(), &[command]);
        assert!(error.contains("cannot decode the answer"), "{error}");
    }
}

#[test]
fn allocations_are_listed_and_filtered() {
    let daemon = Daemon::start(&Options::default());
    let socket = daemon.socket();
    let none = "no allocation of this node matches (--all-nodes looks at the others, too)\n";
    assert_eq!(ends(&socket, &["allocations"], 0), none);
    assert_eq!(ends_json(&socket, &["allocations"], 0), json!([]));

    let long = "0123456789abcdef0123456789abcdef";
    add(&daemon, long, &two_families("blue"));
    add(&daemon, "c2", &config("green", "10.88.0.0/24"));
    let table = ends(&socket, &["allocations"], 0);
    assert_eq!(table.lines().count(), 4, "{table}");
    let line = line_with(&table, "10.77.0.2");
    let pod = format!("pod-of-{long}");
    assert_eq!(line[..7], ["blue", "10.77.0.2", "0123456789ab", "eth0", "shop", &pod, "-"]);
    assert!(line[7].ends_with('Z') && humantime::parse_rfc3339(line[7]).is_ok(), "{line:?}");

    for (args, addresses) in [
        (&[][..], &["10.77.0.2", "fd77::2", "10.88.0.2"][..]),
        (&["--network", "blue"], &["10.77.0.2", "fd77::2"]),
        (&["--network", "no such&network"], &[]),
        (&["--address", "fd77:0::2"], &["fd77::2"]),
        (&["--container", "c2"], &["10.88.0.2"]),
        (&["--container", long, "--address", "10.77.0.2"], &["10.77.0.2"]),
        (&["--container", "0123456789ab"], &["10.77.0.2", "fd77::2"]),
        (&["--container", "123456789ab"], &[]),
    ] {
        let rows = ends_json(&socket, &[&["allocations"], args].concat(), 0);
        let rows = rows.as_array().expect("an array");
        let found: Vec<&str> = rows.iter().filter_map(|row| row["address"].as_str()).collect();
        assert_eq!(found, addresses, "{args:?}");
        for row in rows.iter().filter(|row| row["network"] == "blue") {
            assert_eq!(row["containerId"], long);
            assert_eq!(row["pod"], pod);
            assert!(row["sinceUnixMs"].is_u64() && row["sequence"].is_u64(), "{row}");
        }
    }
}

#[test]
fn a_list_is_read_page_by_page() {
    const ROWS: usize = 10_000;
    let fake = Fake::serve(|_, path| {
        let field = |name: &str| path.split_once(name)?.1.split('&').next();
        let limit: usize = field("limit=").and_then(|limit| limit.parse().ok()).expect(path);
        // The row after the one that `after=n,10.0.X.Y` names, or the first one.
        let first = field("after=n%2c10.0.").map_or(0, |address| {
            let (high, low) = address.split_once('.').expect(path);
            let number = |text: &str| text.parse::<usize>().expect(path);
            number(high) * 256 + number(low) + 1
        });
        let row = |n: usize| {
            json!({
                "network": "n", "pool": "n", "address": format!("10.0.{}.{}", n / 256, n % 256),
                "containerId": format!("c{n}"), "ifname": "eth0", "namespace": null, "pod": null,
                "stage": null, "sinceUnixMs": 0, "sequence": n
            })
        };
        (200, (first..ROWS.min(first + limit)).map(row).collect())
    });
    let rows = ends_json(fake.socket(), &["allocations"], 0);
    let rows = rows.as_array().expect("an array");
    assert_eq!(rows.len(), ROWS);
    assert!(rows.iter().enumerate().all(|(n, row)| row["sequence"] == n));
}

#[test]
fn a_release_takes_all_addresses_of_an_attachment() {
    let daemon = Daemon::start(&Options::default());
    let socket = daemon.socket();
    add(&daemon, "c1", &two_families("blue"));
    add(&daemon, "c2", &two_families("blue"));

    // A dry run shows and does nothing; the other family is shown too.
    let args = ["release", "--address", "10.77.0.2"];
    let shown = ends(&socket, &[&args[..], &["--dry-run"]].concat(), 0);
    assert!(shown.starts_with("would be released"), "{shown}");
    assert!(shown.contains("10.77.0.2 and fd77::2 (all of them)"), "{shown}");
    assert_eq!(ends_json(&socket, &["allocations"], 0).as_array().map(Vec::len), Some(4));

    let shown = ends(&socket, &args, 0);
    assert!(shown.starts_with("released: container c1, interface eth0, network blue"), "{shown}");
    let rows = ends_json(&socket, &["allocations"], 0);
    let left: Vec<_> = rows.as_array().expect("rows").iter().map(|row| &row["address"]).collect();
    assert_eq!(left, ["10.77.0.3", "fd77::3"]);

    // Nothing is left to release: the command ends with 1.
    let nothing = ends(&socket, &args, 1);
    assert!(nothing.contains("nothing was released"), "{nothing}");
    assert_eq!(ends_json(&socket, &args, 1), json!([]));

    let json = ends_json(&socket, &["release", "--container", "c2", "--network", "blue"], 0);
    assert_eq!(json[0]["outcome"], "released");
    assert_eq!(json[0]["containerId"], "c2");
    assert_eq!(json[0]["addresses"], json!(["10.77.0.3", "fd77::3"]));
    assert_eq!(ends_json(&socket, &["allocations"], 0), json!([]));
}

#[test]
fn more_than_one_attachment_is_released_only_on_yes() {
    let daemon = Daemon::start(&Options::default());
    let socket = daemon.socket();
    let config = config("blue", "10.77.0.0/24");
    for ifname in ["eth0", "eth1", "eth2"] {
        let mut call = Call::new("ADD", "c1", &config);
        call.ifname = ifname.to_owned();
        assert!(daemon.client().call(&call).succeeded());
    }
    let all = ["release", "--container", "c1"];
    let error = fails(&socket, &all);
    assert!(error.contains("3 attachments match") && error.contains("--yes"), "{error}");
    let json = ends_json(&socket, &all, 2);
    assert!(json.as_array().expect("all").iter().all(|one| one["outcome"] == "refused"));
    assert_eq!(ends_json(&socket, &["allocations"], 0).as_array().map(Vec::len), Some(3));

    // One of them can be named.
    ends(&socket, &["release", "--container", "c1", "--ifname", "eth1"], 0);
    assert_eq!(ends_json(&socket, &["allocations"], 0).as_array().map(Vec::len), Some(2));
    let shown = ends(&socket, &["release", "--container", "c1", "--yes"], 0);
    assert_eq!(shown.matches("released: ").count(), 2, "{shown}");
    assert_eq!(ends_json(&socket, &["allocations"], 0), json!([]));
}

#[test]
fn a_stale_sequence_number_is_skipped() {
    let daemon = Daemon::start(&Options::default());
    let socket = daemon.socket();
    let config = config("blue", "10.77.0.0/24");
    add(&daemon, "c1", &config);
    let sequence = |json: &Value| json[0]["sequence"].as_u64().expect("a sequence number");
    let before = sequence(&ends_json(&socket, &["allocations"], 0));
    assert!(daemon.client().call(&Call::new("DEL", "c1", &config)).succeeded());
    add(&daemon, "c1", &config);

    let stale = before.to_string();
    let args = ["release", "--container", "c1", "--sequence", &stale];
    let shown = ends(&socket, &args, 1);
    assert!(shown.starts_with("skipped: ") && shown.contains(&format!("not {before}")), "{shown}");
    let json = ends_json(&socket, &args, 1);
    assert_eq!(json[0]["outcome"], "skipped");

    let now = sequence(&ends_json(&socket, &["allocations"], 0)).to_string();
    assert_ne!(now, stale);
    ends(&socket, &["release", "--container", "c1", "--sequence", &now], 0);
    assert_eq!(ends_json(&socket, &["allocations"], 0), json!([]));
}

#[test]
fn what_changes_between_look_and_release_is_skipped() {
    let row = json!([{
        "network": "n", "pool": "n", "address": "10.0.0.2", "containerId": "c", "ifname": "eth0",
        "namespace": null, "pod": null, "stage": null, "sinceUnixMs": 0, "sequence": 5
    }]);
    let fake = Fake::serve(move |_, path| match path {
        "/v1/release" => (200, json!({ "released": false })),
        _ => (200, row.clone()),
    });
    let shown = ends(fake.socket(), &["release", "--container", "c"], 1);
    assert!(shown.starts_with("skipped: ") && shown.contains("it changed"), "{shown}");
}
