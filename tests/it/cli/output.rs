//! The forms of output: YAML says what JSON says, tables fit the terminal, and views end on a key.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::super::common::{Call, Daemon, LEASEHOLD, Options};
use super::{config, ends, leasehold, texts, two_families};

/// Commands whose JSON is compared, with the title of their section in `docs/json.md`.
const LISTS: [(&str, &[&str]); 11] = [
    ("status", &["status"]),
    ("networks", &["networks"]),
    ("allocations", &["allocations"]),
    ("blocks", &["blocks"]),
    ("history", &["history", "web-1"]),
    ("node list", &["node", "list"]),
    ("check", &["check"]),
    ("top", &["top"]),
    ("version", &["version"]),
    ("release", &["release", "--container", "c1", "--dry-run"]),
    ("network list", &["network", "list"]),
];

fn daemon() -> Daemon {
    let daemon = Daemon::start(&Options::default());
    for (container, network) in [("c1", "blue"), ("c2", "green")] {
        let mut call = Call::new("ADD", container, &two_families(network));
        call.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1".to_owned();
        daemon.client().call(&call).expect_result();
    }
    daemon
}

/// Figures that differ from one look to the next.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !["silenceMs", "recordLagMs", "atUnixMs", "lastWriteUnixMs"].contains(&&**name)
                    && !name.ends_with("PerSecond")
                    && !name.ends_with("Seconds")
            });
            fields.values_mut().for_each(|of| *of = without_times(of.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|of| *of = without_times(of.take())),
        _ => {}
    }
    value
}

#[test]
fn yaml_has_what_json_has() {
    let daemon = daemon();
    let socket = daemon.socket();
    for (_, args) in LISTS {
        let json = json_of(&socket, args);
        let (yaml, _) = texts(&leasehold(&socket, &[args, &["-o", "yaml"]].concat()));
        let read: Value = serde_saphyr::from_str(&yaml)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {yaml}"));
        assert_eq!(without_times(read), without_times(json), "{args:?}: {yaml}");
    }
    let yaml = ends(&socket, &["allocations", "--network", "nothing", "-o", "yaml"], 0);
    assert_eq!(yaml, "[]\n");
}

/// The JSON of a command, whether its news is good or bad.
fn json_of(socket: &Path, args: &[&str]) -> Value {
    let output = leasehold(socket, &[args, &["-o", "json"]].concat());
    let (stdout, stderr) = texts(&output);
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{args:?}: {stdout}{stderr}"))
}

/// The names of all fields in a document.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields_of) => {
            for (name, of) in fields_of {
                into.insert(name.clone());
                fields(of, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|of| fields(of, into)),
        _ => {}
    }
}

#[test]
fn the_document_has_every_field_of_json() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let document = fs::read_to_string(path).expect("docs/json.md");
    let daemon = daemon();
    for (title, args) in LISTS {
        let heading = format!("## {title}\n");
        let section = document.split_once(&heading).unwrap_or_else(|| panic!("no {heading}")).1;
        let section = section.split("\n## ").next().expect("a section");
        let mut found = BTreeSet::new();
        fields(&json_of(&daemon.socket(), args), &mut found);
        for name in found {
            assert!(section.contains(&format!("`{name}`")), "{title} lacks {name}");
        }
    }
}

#[test]
fn every_command_that_prints_json_is_in_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let document = fs::read_to_string(path).expect("docs/json.md");
    let titles: BTreeSet<String> =
        document.lines().filter_map(|line| line.strip_prefix("## ")).map(dashed).collect();
    let dir = tempfile::tempdir().expect("a directory");
    ends(&dir.path().join("no.sock"), &["man", dir.path().to_str().expect("a path")], 0);
    let mut printing = BTreeSet::new();
    for page in fs::read_dir(dir.path()).expect("the pages").flatten() {
        let name = page.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(page.path()).expect("a page");
        if let Some(name) = name.strip_prefix("leasehold-").and_then(|of| of.strip_suffix(".1"))
            && text.contains("\\-\\-output")
        {
            printing.insert(name.to_owned());
        }
    }
    assert_eq!(titles, printing, "the sections are the commands with -o");
}

fn dashed(title: &str) -> String {
    title.replace(' ', "-")
}

#[test]
fn an_answer_is_shown_again_and_again() {
    let daemon = daemon();
    for watched in ["status", "check"] {
        let mut command = Command::new(LEASEHOLD);
        command.args([watched, "--watch=1", "-o", "yaml"]);
        command.env("LEASEHOLD_SOCKET", daemon.socket());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("leasehold runs");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let documents = lines.map_while(Result::ok).filter(|line| line == "---").take(2).count();
        assert_eq!(documents, 2, "{watched}");
        // Its reader is gone: it ends by itself, and well.
        assert_eq!(child.wait().expect("its end").code(), Some(0), "{watched}");
    }
    let refused = leasehold(&daemon.socket(), &["status", "--watch=0"]);
    let (_, error) = texts(&refused);
    assert!(refused.status.code() == Some(2) && error.contains("1..=3600"), "{error}");
}

/// Runs a command on a terminal of this size, with keys typed once it has drawn something. Returns
/// what it drew and its exit status.
fn on_a_terminal(socket: &Path, columns: u16, line: &str, keys: &str) -> (String, Option<i32>) {
    let program = format!("stty cols {columns} rows 24; exec {LEASEHOLD} {line}");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &program, "/dev/null"]);
    script.env("LEASEHOLD_SOCKET", socket).env("TERM", "xterm").env_remove("NO_COLOR");
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("`script` of util-linux");
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = child.stdout.take().expect("its output");
    let (mut drawn, mut piece) = (Vec::new(), [0; 4096]);
    let mut typed = keys.is_empty();
    while let Ok(count) = stdout.read(&mut piece)
        && count > 0
    {
        drawn.extend_from_slice(&piece[..count]);
        if !typed && String::from_utf8_lossy(&drawn).contains("q: quit") {
            stdin.write_all(keys.as_bytes()).expect("keys");
            typed = true;
        }
    }
    let status = child.wait().expect("its end");
    (String::from_utf8_lossy(&drawn).into_owned(), status.code())
}

#[test]
fn views_end_on_q_and_on_ctrl_c_and_leave_the_terminal_as_it_was() {
    let daemon = daemon();
    for line in ["top", "status --watch", "networks --watch=1", "node list --watch"] {
        for keys in ["q", "\u{3}"] {
            let (drawn, code) = on_a_terminal(&daemon.socket(), 100, line, keys);
            assert_eq!(code, Some(0), "{line}, {keys:?}: {drawn}");
            assert!(drawn.contains("\u{1b}[?1049h") && drawn.contains("\u{1b}[?1049l"), "{drawn}");
            assert!(drawn.contains("\u{1b}[?25h"), "the cursor is shown again: {drawn}");
        }
    }
    let (drawn, _) = on_a_terminal(&daemon.socket(), 100, "top", "q");
    assert!(drawn.contains("ADD") && drawn.contains("blue"), "{drawn}");
}

#[test]
fn tables_fit_the_terminal_and_have_colours_only_there() {
    let daemon = daemon();
    let long = config(&"n".repeat(60), "10.78.0.0/24");
    assert!(daemon.client().call(&Call::new("ADD", "c3", &long)).succeeded());
    for columns in [60, 100, 200] {
        let (drawn, code) = on_a_terminal(&daemon.socket(), columns, "networks", "");
        assert_eq!(code, Some(0), "{drawn}");
        assert!(drawn.contains('\u{1b}'), "colours: {drawn:?}");
        let plain = drawn.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |it| it.1));
        let plain: String = plain.collect();
        let widest = plain.lines().map(|line| line.trim_end().chars().count()).max();
        assert!(widest <= Some(columns.into()), "{columns}: {widest:?}: {plain}");
    }
    let piped = ends(&daemon.socket(), &["networks"], 0);
    assert!(!piped.contains('\u{1b}') && piped.contains(&"n".repeat(60)), "{piped}");
}
