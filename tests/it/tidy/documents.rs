//! Documents and citations: rules by number, documents by name, files and modules by path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::File;

/// The document with the table of rules, and the heading above the table.
const TABLE: (&str, &str) = ("ARCHITECTURE.md", "## Rules");
/// The document with a section for each rule, and the start of the sections' headings.
const SECTIONS: (&str, &str) = ("docs/protocol.md", "### ");
/// The file with the switches that break rules, and the line with which their list begins.
const SWITCHES: (&str, &str) = ("src/core/mutant.rs", "mutants! {");
/// Folders of files that documents name by their path.
const FOLDERS: [&str; 7] = ["src/", "tests/", "docs/", "benches/", "deploy/", ".cargo/", ".ci/"];
/// These tests name documents that are not there on purpose.
const THESE_TESTS: &str = "tests/it/tidy";

/// One row of the table of rules.
struct Row {
    line: usize,
    number: u32,
    modules: Vec<String>,
    switches: Vec<String>,
}

fn find<'a>(files: &'a [File], path: &str) -> Option<&'a File> {
    files.iter().find(|file| file.path == path)
}

/// The rows of the table of rules.
fn rows(files: &[File]) -> Vec<Row> {
    let (path, heading) = TABLE;
    let Some(file) = find(files, path) else { return vec![] };
    let lines = (1..).zip(file.text.lines()).skip_while(|(_, text)| *text != heading).skip(1);
    let row = |(line, text): (usize, &str)| {
        let cells: Vec<&str> = text.strip_prefix('|')?.split('|').map(str::trim).collect();
        let number = cells.first()?.parse().ok()?;
        let names = |at: usize| cells.get(at).map(|cell| quoted(cell)).unwrap_or_default();
        Some(Row { line, number, modules: names(2), switches: names(3) })
    };
    lines.take_while(|(_, text)| !text.starts_with("## ")).filter_map(row).collect()
}

/// Everything in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words before the number of a rule.
const RULES: [&str; 4] = ["rule", "rules", "Rule", "Rules"];

/// The numbers that a file cites after one of these words, each with its place. A citation may go
/// on in the next line of a comment.
fn citations(file: &File, kinds: &[&str]) -> Vec<(usize, u32)> {
    let words = file.text.lines().zip(1_usize..).flat_map(|(text, line)| {
        let text = text.trim_start().trim_start_matches(['/', '!']);
        text.split_whitespace().map(move |word| (line, word))
    });
    let words: Vec<(usize, &str)> = words.collect();
    let mut found = Vec::new();
    for (at, (_, word)) in words.iter().enumerate() {
        let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        if kinds.contains(&word) {
            found.extend(numbers(&words[at + 1..]));
        }
    }
    found
}

/// The numbers at the start of some words: `1`, `1, 2 and 6`, `12 to 15`.
fn numbers(words: &[(usize, &str)]) -> Vec<(usize, u32)> {
    let mut found: Vec<(usize, u32)> = Vec::new();
    let mut range = false;
    for &(line, word) in words {
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        let rest = &word[digits.len()..];
        match digits.parse() {
            Ok(number) => {
                let first = found.last().filter(|_| range).map_or(number, |(_, last)| last + 1);
                found.extend((first..=number).map(|number| (line, number)));
                range = false;
                if !rest.is_empty() && rest != "," {
                    break;
                }
            }
            Err(_) if word == "and" && !found.is_empty() => {}
            Err(_) if word == "to" && !found.is_empty() => range = true,
            Err(_) => break,
        }
    }
    found
}

/// Each rule that the source cites is in the table, and each row is cited.
pub(super) fn rules_are_cited(files: &[File]) -> Vec<String> {
    let rows = rows(files);
    let known: BTreeSet<u32> = rows.iter().map(|row| row.number).collect();
    let (table, _) = TABLE;
    let mut complaints = Vec::new();
    let mut cited = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_rust() && file.path.starts_with("src/")) {
        for (line, number) in citations(file, &RULES) {
            cited.insert(number);
            if !known.contains(&number) {
                complaints.push(file.complain(line, &format!("{table} has no rule {number}")));
            }
        }
    }
    for row in rows.iter().filter(|row| !cited.contains(&row.number)) {
        complaints.push(format!("{table}:{}: no file cites rule {}", row.line, row.number));
    }
    complaints
}

/// Each row of the table names a section, modules and switches that are there, and each section
/// and each switch is in the table.
pub(super) fn rules_are_whole(files: &[File]) -> Vec<String> {
    let (rows, (table, _)) = (rows(files), TABLE);
    let mut complaints = Vec::new();
    let (mut sections, mut switches) = (sections(files), switches(files));
    for row in &rows {
        let mut complain =
            |about: String| complaints.push(format!("{table}:{}: {about}", row.line));
        if sections.remove(&row.number).is_none() {
            complain(format!("{} has no section for rule {}", SECTIONS.0, row.number));
        }
        for module in row.modules.iter().filter(|module| !is_module(files, module)) {
            complain(format!("there is no module {module}"));
        }
    }
    for row in &rows {
        for switch in &row.switches {
            if !switches.contains_key(switch) {
                let about = format!("{} has no switch {switch}", SWITCHES.0);
                complaints.push(format!("{table}:{}: {about}", row.line));
            }
        }
    }
    switches.retain(|name, _| !rows.iter().any(|row| row.switches.contains(name)));
    for (number, line) in sections {
        complaints.push(format!("{}:{line}: {table} has no rule {number}", SECTIONS.0));
    }
    for (name, line) in switches {
        complaints.push(format!("{}:{line}: {table} does not name {name}", SWITCHES.0));
    }
    complaints
}

fn is_module(files: &[File], module: &str) -> bool {
    let path = format!("src/{}", module.replace("::", "/"));
    [".rs", "/mod.rs"].iter().any(|end| find(files, &format!("{path}{end}")).is_some())
}

/// The numbers of the sections, and their lines.
fn sections(files: &[File]) -> BTreeMap<u32, usize> {
    let (path, heading) = SECTIONS;
    let lines = find(files, path).map_or("", |file| &file.text).lines();
    let number = |text: &str| text.strip_prefix(heading)?.split_once('.')?.0.parse().ok();
    (1..).zip(lines).filter_map(|(line, text)| Some((number(text)?, line))).collect()
}

/// The names of the switches, and their lines.
fn switches(files: &[File]) -> BTreeMap<String, usize> {
    let (path, start) = SWITCHES;
    let lines = find(files, path).map_or("", |file| &file.code).lines();
    let inside = (1..).zip(lines).skip_while(|(_, text)| *text != start).skip(1);
    let inside = inside.take_while(|(_, text)| *text != "}");
    let name = |text: &str| text.trim().strip_suffix(',').map(str::to_owned);
    inside.filter_map(|(line, text)| Some((name(text)?, line))).collect()
}

/// Every document that is named is in the repository, and every file that a document names.
pub(super) fn documents_are_there(files: &[File]) -> Vec<String> {
    let part = |c: char| c.is_alphanumeric() || "._-/".contains(c);
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !file.path.starts_with(THESE_TESTS)) {
        for (line, (text, comment)) in (1..).zip(file.text.lines().zip(file.comments.lines())) {
            for name in text.split(|c| !part(c)).map(|name| name.trim_end_matches('.')) {
                let document = name.strip_suffix(".md").is_some_and(|stem| !stem.is_empty());
                if (document || is_named_file(file, name)) && !is_there(files, file, name) {
                    complaints.push(file.complain(line, &format!("there is no {name}")));
                }
            }
            for name in quoted(comment).iter().filter(|name| is_source_file(name)) {
                if !ends_some_path(files, name) {
                    complaints.push(file.complain(line, &format!("there is no {name}")));
                }
            }
            for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let target = target.split('#').next().unwrap_or_default();
                let here = file.path.ends_with(".md") && !target.contains(':');
                if here && !target.is_empty() && !is_there(files, file, target) {
                    complaints.push(file.complain(line, &format!("a link to {target}: not there")));
                }
            }
        }
    }
    complaints
}

/// True when a document names a file by its whole path.
fn is_named_file(file: &File, name: &str) -> bool {
    let ends = [".rs", ".sh", ".toml", ".json", ".service"];
    file.path.ends_with(".md")
        && FOLDERS.iter().any(|folder| name.starts_with(folder))
        && ends.iter().any(|end| name.ends_with(end))
}

/// True for the name of a file of Rust, with folders before it or without.
fn is_source_file(name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || "._-/".contains(c);
    name.strip_suffix(".rs").is_some_and(|stem| !stem.is_empty() && stem.chars().all(part))
}

/// True when some file has this name, with the last of its folders or without.
fn ends_some_path(files: &[File], name: &str) -> bool {
    let ends = |path: &str| path.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'));
    !name.starts_with('/') && files.iter().any(|file| file.path == name || ends(&file.path))
}

/// True when a name leads to a file or a folder, from the root or from the file that names it.
fn is_there(files: &[File], from: &File, name: &str) -> bool {
    let mut folder: Vec<&str> = from.path.split('/').collect();
    folder.pop();
    for part in name.split('/') {
        match part {
            ".." => drop(folder.pop()),
            "." | "" => {}
            part => folder.push(part),
        }
    }
    let paths = [folder.join("/"), name.trim_end_matches('/').to_owned()];
    let installed = Path::new(name).is_absolute();
    // The tree has texts only.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = name.ends_with(".png") && root.join(&paths[0]).is_file();
    installed
        || picture
        || paths.iter().any(|path| {
            let inside = format!("{path}/");
            files.iter().any(|file| file.path == *path || file.path.starts_with(&inside))
        })
}

/// No file cites a design that is not in the repository, or the number of a promise: rules have
/// numbers, and promises have none.
pub(super) fn no_design_is_cited(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !file.path.starts_with(THESE_TESTS)) {
        for (line, _) in citations(file, &["promise", "promises", "Promise", "Promises"]) {
            complaints.push(file.complain(line, "a promise has no number: cite the rule"));
        }
        for (line, text) in (1..).zip(file.text.lines()) {
            let mut words = text.split(|c: char| !c.is_alphanumeric());
            if words.any(|word| word == concat!("DES", "IGN")) {
                let about = "a document that is not in the repository: cite the rule";
                complaints.push(file.complain(line, about));
            }
        }
    }
    complaints
}

#[test]
fn citations_are_read_whole() {
    for (text, expected) in [
        ("/// So it is (rule 4).", &[(1, 4)][..]),
        ("//! rules 1, 2, 4, 6 and 11).", &[(1, 1), (1, 2), (1, 4), (1, 6), (1, 11)]),
        ("// As rule\n    // 12 says", &[(2, 12)]),
        ("//! (rules 12 to\n//! 14, and others)", &[(1, 12), (2, 13), (2, 14)]),
        ("// (rules 3 and\n// 5): x", &[(1, 3), (2, 5)]),
        ("// A rule of 3, a ruler 4", &[]),
    ] {
        assert_eq!(citations(&File::new("src/x.rs", text), &RULES), expected, "{text}");
    }
}
