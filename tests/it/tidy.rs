//! Goal: the decisions of this repository about its own source hold: pure parts are pure,
//! dependencies point one way, numbers and clocks are in their places, files stay readable.
//!
//! Method: the tree is read as text, with comments and strings told apart from code. Each rule is
//! a function from files to complaints; next to its test over the tree, a planted violation shows
//! that it can fail.

mod circles;
mod documents;
mod layers;
mod rules;
mod source;

use std::collections::BTreeMap;

use source::{File, tree};

/// Fails with every complaint on a line of its own.
fn assert_none(rule: &str, complaints: &[String]) {
    let count = complaints.len();
    assert!(complaints.is_empty(), "{rule}: {count} complaints\n{}", complaints.join("\n"));
}

/// Runs a rule on one made-up file. It must give exactly one complaint, about this line.
fn assert_caught(
    rule: impl Fn(&[File]) -> Vec<String>,
    path: &str,
    text: &str,
    line: usize,
    word: &str,
) {
    let complaints = rule(&[File::new(path, text)]);
    assert_eq!(complaints.len(), 1, "{path} {text:?}: {complaints:?}");
    let place = format!("{path}:{line}: ");
    assert!(complaints[0].starts_with(&place), "not at {place}{complaints:?}");
    assert!(complaints[0].contains(word), "no {word:?} in {complaints:?}");
}

fn assert_fine(rule: impl Fn(&[File]) -> Vec<String>, path: &str, text: &str) {
    assert_none(text, &rule(&[File::new(path, text)]));
}

#[test]
fn the_core_is_pure() {
    assert_none("src/core is pure", &layers::core_is_pure(&tree()));
    let path = "src/core/x.rs";
    for (text, word) in [
        ("use std::fs;", "std::fs"),
        ("use std::collections::BTreeMap;\nuse std::{fmt, io::Read};", "std::io"),
        ("use std::net::{IpAddr,\n    TcpStream};", "TcpStream"),
        ("fn f() { std::thread::yield_now(); }", "std::thread"),
        ("use std::time::Instant;", "Instant"),
        ("use serde::Serialize;", "serde"),
        ("fn f() { tracing::info!(\"x\"); }", "tracing"),
        ("async fn f() {}", "async"),
        ("fn f() { let x = HashMap::new(); }", "HashMap::new"),
        ("fn f() { println!(\"x\"); }", "println!"),
        ("use crate::clock;", "crate::clock"),
        ("use super::super::store::value;", "crate::store"),
    ] {
        assert_caught(layers::core_is_pure, path, text, text.lines().count().min(2), word);
    }
    for text in [
        "use std::net::{IpAddr, Ipv4Addr};\nuse ipnet::IpNet;\nuse crate::limits;",
        "use std::time::Duration;\nuse super::address::Run;",
        "// use std::fs;\n/* async */ const X: &str = \"use tokio::spawn;\";",
        "#[cfg(test)]\nmod tests {\n    use proptest::prelude::*;\n    use std::fs;\n}",
    ] {
        assert_fine(layers::core_is_pure, path, text);
    }
    assert_fine(layers::core_is_pure, "src/api/x.rs", "use std::fs;");
}

#[test]
fn no_two_files_use_each_other() {
    assert_none("no two files use each other", &circles::no_circles(&tree()));
    let file = |path, text| File::new(path, text);
    let found = |a, b| circles::no_circles(&[a, b]);
    let complaints = found(
        file("src/core/a.rs", "use std::fmt;\nuse super::b::B;"),
        file("src/core/b/mod.rs", "fn f(a: crate::core::a::A) {}"),
    );
    assert_eq!(complaints, ["src/core/a.rs:2: crate::core::a and crate::core::b use each other"]);
    let complaints = found(
        file("src/my-ipam/src/a.rs", "use super::b;"),
        file("src/my-ipam/src/b.rs", "use crate::a::A;"),
    );
    assert_eq!(complaints, ["src/my-ipam/src/a.rs:1: my_ipam::a and my_ipam::b use each other"]);
    let one_way = [file("src/core/a.rs", "use super::b::B;"), file("src/core/b.rs", "")];
    assert_none("one way", &circles::no_circles(&one_way));
    let (whole, part) = (file("src/core/a.rs", "use self::b::B;"), "src/core/a/b.rs");
    assert_none("a module and its part", &found(whole, file(part, "use super::A;")));
    let test = "#[cfg(test)]\nmod tests {\n    use crate::core::b::B;\n}";
    let tested = found(file("src/core/a.rs", test), file("src/core/b.rs", "use super::a::A;"));
    assert_none("tests may use anything", &tested);
}

#[test]
fn dependencies_point_one_way() {
    assert_none("dependencies point one way", &layers::one_way(&tree()));
    for (path, text, word) in [
        ("src/core/x.rs", "use crate::store::Embedded;", "core may not use store"),
        ("src/store/x.rs", "use crate::actors::journal;", "store may not use actors"),
        ("src/actors/x.rs", "fn f() { crate::api::x(); }", "actors may not use api"),
        ("src/api/x.rs", "use crate::{core, journal::Journal};", "api may not use journal"),
        ("src/my-ipam/src/x.rs", "use leasehold::cni::error::Code;", "my_ipam may not use cni"),
        ("src/core/x.rs", "use my_ipam::limits;", "core may not use my_ipam"),
        ("src/limits.rs", "use super::clock;", "limits may not use clock"),
        ("src/daemon.rs", "use my_ipam::run;", "daemon may not use my_ipam::run"),
        ("src/cni/x/y.rs", "use super::super::super::api;", "cni may not use api"),
        ("src/bin/x.rs", "use leasehold::core::Map;", "bin may not use core"),
        ("src/novelty.rs", "use crate::core::Map;", "novelty"),
    ] {
        assert_caught(layers::one_way, path, text, 1, word);
    }
    for (path, text) in [
        ("src/actors/x.rs", "use crate::core::{Map, range::Ranges};\nuse crate::{limits, clock};"),
        ("src/daemon.rs", "fn f() { my_ipam::note::directory(x); }"),
        ("src/my-ipam/src/x.rs", "use crate::limits::NOTES_MAX;\nuse super::client;"),
        ("src/core/range_set/x.rs", "use super::super::address::Run;\nuse super::Stats;"),
        ("src/core/x.rs", "#[cfg(test)]\nmod tests {\n    use crate::journal::Journal;\n}"),
    ] {
        assert_fine(layers::one_way, path, text);
    }
}

#[test]
fn files_functions_and_lines_are_short() {
    assert_none("short enough to read", &rules::short(&tree()));
    let long = |lines| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines));
    assert_caught(rules::short, "src/x.rs", &long(69), 1, "71 lines");
    assert_fine(rules::short, "src/x.rs", &long(68));
    let nested = format!("impl X {{\n    fn a() {{}}\n    {}}}\n", long(69));
    assert_caught(rules::short, "src/x.rs", &nested, 3, "f has 71 lines");
    let braces = format!("fn f() {{\n    let x = \"{{{{\"; // {{\n}}\n{}", "g!();\n".repeat(80));
    assert_fine(rules::short, "src/x.rs", &braces);
    assert_caught(rules::short, "src/x.rs", &"x!();\n".repeat(501), 501, "500");
    assert_fine(rules::short, "src/x.rs", &"x!();\n".repeat(500));
    assert_caught(rules::short, "tests/x.rs", &"x!();\n".repeat(501), 501, "500");
    assert_caught(rules::short, "src/x.rs", &format!("\n// {}", "é".repeat(98)), 2, "101");
    assert_fine(rules::short, "src/x.rs", &format!("// {}", "é".repeat(97)));
}

#[test]
fn one_word_has_one_meaning() {
    assert_none("words", &rules::words(&tree()));
    for text in [
        "let lease_address = 1;",
        "struct IpLease;",
        "fn leased_ips() {}",
        "/// Gives an address lease back.",
        "// a leased address",
        "let affinity = 1;",
        "/// After the cool-down.",
        "struct SetRecord;",
        "use super::set_record::SetId;",
        "    under_way: usize,",
        "fn note_free(&mut self) {}",
        "/// The pod's name, likewise.",
        "Err(\"it holds nothing any more\")",
    ] {
        assert_caught(rules::words, "src/x.rs", text, 1, "Vocabulary");
    }
    for text in [
        "let etcd_lease = lease;",
        "/// A node leases blocks.",
        "// a released address",
        "metrics::count_note(x)",
    ] {
        assert_fine(rules::words, "src/x.rs", text);
    }
}

#[test]
fn doc_comments_begin_with_sentences() {
    assert_none("sentences", &rules::sentences(&tree()));
    for text in ["/// What is held.", "    /// How often.", "//! Whose it is."] {
        assert_caught(rules::sentences, "src/x.rs", text, 1, "begins no sentence");
    }
    for text in ["/// Whatever.", "// What is held.", "/// It is known\n/// Where it is."] {
        assert_fine(rules::sentences, "tests/it/x.rs", text);
    }
}

#[test]
fn nothing_panics_on_purpose() {
    assert_none("no panics outside of tests", &rules::no_panics(&tree()));
    for text in ["x.unwrap()", "x.expect(\"y\")", "todo!()", "panic!()", "dbg!(x)"] {
        let text = format!("fn f() {{\n    {text};\n}}");
        assert_caught(rules::no_panics, "src/x.rs", &text, 2, "error");
        assert_fine(rules::no_panics, "src/x.rs", &format!("#[cfg(test)]\nmod tests {{ {text} }}"));
    }
    assert_fine(rules::no_panics, "src/x.rs", "fn f() { x.unwrap_or(1); } // x.unwrap()");
}

#[test]
fn the_time_is_asked_for_in_few_places() {
    assert_none("clocks", &rules::clocks(&tree()));
    assert_caught(rules::clocks, "src/api/x.rs", "fn f() { Instant::now(); }", 1, "clock.rs");
    assert_caught(rules::clocks, "src/store/x.rs", "\nfn f() { SystemTime::now(); }", 2, "clock");
    assert_fine(rules::clocks, "src/clock.rs", "fn f() { SystemTime::now(); }");
}

#[test]
fn every_period_has_a_name_in_limits() {
    assert_none("periods", &rules::periods(&tree()));
    assert_caught(rules::periods, "src/api/x.rs", "f(Duration::from_secs(5));", 1, "limits.rs");
    assert_caught(rules::periods, "src/x.rs", "\nf(Duration::from_millis( 50));", 2, "limits");
    assert_fine(rules::periods, "src/x.rs", "f(Duration::from_millis(wait));");
    assert_fine(rules::periods, "src/limits.rs", "f(Duration::from_secs(5));");
    assert_fine(rules::periods, "src/my-ipam/src/limits.rs", "f(Duration::from_secs(5));");
    assert_caught(
        rules::periods,
        "src/my-ipam/src/x.rs",
        "f(Duration::from_secs(5));",
        1,
        "limits",
    );
}

#[test]
fn numbers_with_a_meaning_are_types() {
    assert_none("numbers are types", &rules::numbers_are_types(&tree()));
    for (text, word) in [
        ("pub type SetId = u32;", "another name"),
        ("fn f(wanted: &[(u128, u128)]) {}", "AddressRange"),
        ("struct X {\n    pub sequence: u64,", "sequence"),
        ("fn f(x: &X, started_at: Option<u64>) {}", "started_at"),
        ("    revision: u64,", "revision"),
        ("    ttl: Option<u64>,", "ttl"),
    ] {
        let line = text.lines().count();
        assert_caught(rules::numbers_are_types, "src/core/x.rs", text, line, word);
    }
    for text in [
        "type Rows = BTreeMap<u32, u64>;",
        "struct X {\n    next_sequence: Sequence,\n    revisions: u64,",
        "let (first, last): (Address, Address) = f(sequence);",
        "#[cfg(test)]\nmod tests {\n    fn f(sequence: u64) {}\n}",
    ] {
        assert_fine(rules::numbers_are_types, "src/core/x.rs", text);
    }
    assert_fine(rules::numbers_are_types, "src/journal/rows.rs", "started_at: Option<u64>,");
    assert_caught(rules::numbers_are_types, "src/api/x.rs", "type Id = u64;", 1, "name");
}

#[test]
fn metrics_are_registered_in_one_file() {
    assert_none("metrics", &rules::metrics(&tree()));
    for text in ["counter!(\"x\")", "metrics::gauge!(X)", "describe_histogram!(X, \"y\")"] {
        assert_caught(rules::metrics, "src/api/x.rs", text, 1, "src/metrics.rs");
        assert_fine(rules::metrics, "src/metrics.rs", text);
    }
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    assert_none("machines", &rules::machines(&tree()));
    for folder in ["work", "root", "home"] {
        let text = format!("see\n/{folder}/notes.md");
        assert_caught(rules::machines, "README.md", &text, 2, "path");
    }
    for text in ["https://x.org/home/", "/var/lib/leasehold", "src/root/x", "worked/work/x"] {
        assert_fine(rules::machines, "README.md", text);
    }
}

/// A small repository with a rule that is kept, cited and described.
fn one_rule(changes: &[(&str, &str)]) -> Vec<File> {
    let table = "## Rules\n\n| rule | kept in | |\n| 7 | One place | `core::x` | `Broken` |\n";
    let switches = "mutants! {\n    /// So (rule 7).\n    Broken,\n}\n";
    let mut texts = BTreeMap::from([
        ("ARCHITECTURE.md", table),
        ("docs/protocol.md", "### 7. One place\n"),
        ("src/core/mutant.rs", switches),
        ("src/core/x.rs", ""),
    ]);
    texts.extend(changes.iter().copied());
    texts.into_iter().map(|(path, text)| File::new(path, text)).collect()
}

#[test]
fn rules_that_are_cited_are_written_down() {
    assert_none("rules are cited", &documents::rules_are_cited(&tree()));
    assert_none("rules are whole", &documents::rules_are_whole(&tree()));
    let both = |files: &[File]| {
        let mut complaints = documents::rules_are_cited(files);
        complaints.extend(documents::rules_are_whole(files));
        complaints
    };
    assert_none("one rule", &both(&one_rule(&[])));
    let table = "## Rules\n| 7 | One place | `core::y` | `Other` |\n";
    for (path, text, expected) in [
        ("src/core/x.rs", "/// See rule 8.", &["x.rs:1: ARCHITECTURE.md has no rule 8"][..]),
        ("src/core/mutant.rs", "", &["no file cites rule 7", "no switch Broken"]),
        ("docs/protocol.md", "", &["no section for rule 7"]),
        ("docs/protocol.md", "### 7. A\n### 9. B", &["protocol.md:2: ARCHITECTURE.md has no rule"]),
        ("ARCHITECTURE.md", table, &["no module core::y", "no switch Other", "not name Broken"]),
    ] {
        let complaints = both(&one_rule(&[(path, text)]));
        assert_eq!(complaints.len(), expected.len(), "{path}: {complaints:?}");
        for (complaint, expected) in complaints.iter().zip(expected) {
            assert!(complaint.contains(expected), "no {expected:?} in {complaint:?}");
        }
    }
}

#[test]
fn documents_that_are_cited_are_there() {
    assert_none("documents", &documents::documents_are_there(&tree()));
    assert_none("documents", &documents::no_design_is_cited(&tree()));
    let design = concat!("DES", "IGN");
    assert_caught(
        documents::no_design_is_cited,
        "src/x.rs",
        &format!("\n// {design} 4"),
        2,
        "rule",
    );
    assert_fine(documents::no_design_is_cited, "src/x.rs", "// by design; DESIGNS");
    for text in ["// So it is (promise 2).", "//! See promises 1.", "/// (promise\n/// 2)."] {
        let line = text.lines().count();
        assert_caught(documents::no_design_is_cited, "src/x.rs", text, line, "promise");
    }
    assert_fine(documents::no_design_is_cited, "src/x.rs", "// a promise; 2 of them");
    for (path, text) in [
        ("src/x.rs", "// see NOWHERE.md"),
        ("docs/x.md", "see [there](../y/NOWHERE.md#part)"),
        ("README.md", "see [there](docs/)"),
        ("README.md", "in `src/nowhere.rs`"),
        ("docs/x.md", "![a picture](images/nowhere.png)"),
        ("docs/x.md", "see `nowhere.rs`"),
        ("src/x.rs", "//! as `y/nowhere.rs` says"),
        ("src/x.rs", "let there = 1; // as `nowhere.rs` says"),
        ("tests/x.rs", "/// `/x.rs` and `rc/x.rs` are not there"),
    ] {
        let found = documents::documents_are_there(&[File::new(path, text)]);
        assert!(!found.is_empty() && found[0].contains("there"), "{text}: {found:?}");
    }
    for (path, text) in [
        ("README.md", "see README.md and [it](README.md#part)"),
        ("docs/x.md", "[this](x.md), [all](../docs), a file *.md, [far](https://x.org/y)"),
        ("src/a/x.rs", "// `a/x.rs`, `x.rs` and `src/a/x.rs`"),
        ("src/x.rs", "const PATH: &str = \"`nowhere.rs`\"; // `{name}.rs`"),
    ] {
        assert_fine(documents::documents_are_there, path, text);
    }
}

#[test]
fn nothing_is_left_for_later() {
    assert_none("left for later", &rules::left_for_later(&tree()));
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        assert_caught(rules::left_for_later, "src/x.rs", &format!("// {word}: later"), 1, "later");
    }
}
