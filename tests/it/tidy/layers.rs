//! The allowed dependencies between parts, and the packages that the core may use.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::source::File;

/// The packages that the core may use.
const CORE_PACKAGES: [&str; 1] = ["ipnet"];
/// The parts of `std` that reach outside of a pure function.
const IMPURE_STD: [&str; 10] =
    ["fs", "thread", "env", "process", "io", "os", "path", "backtrace", "arch", "random"];
/// The parts of `std::net` that are mere values.
const PURE_NET: [&str; 6] =
    ["IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError", "Ipv6MulticastScope", "self"];
/// The parts of `std::time` that are mere values.
const PURE_TIME: [&str; 1] = ["Duration"];
/// Other words that do not belong in a pure function: tasks, output, and maps in random order.
const IMPURE_WORDS: [&str; 13] = [
    "async ",
    "async{",
    ".await",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "thread_local!",
    "RandomState",
    "HashMap::new",
    "HashSet::new",
    "HashMap::with_capacity",
    "HashSet::with_capacity",
];

/// The other parts that each part may use. A part is a folder or a file right below `src`, and one
/// of them is the plugin's package; `my_ipam::note` is only that module of it.
const MAY_USE: [(&str, &[&str]); 24] = [
    ("bin", &["cli", "limits"]),
    (
        "cli",
        &[
            "daemon",
            "my_ipam::client",
            "config",
            "api",
            "files",
            "cni::central",
            "core",
            "metrics",
            "clock",
            "points",
            "limits",
        ],
    ),
    (
        "daemon",
        &[
            "api",
            "actors",
            "events",
            "store",
            "journal",
            "identity",
            "points",
            "metrics",
            "config",
            "core",
            "cri",
            "clock",
            "files",
            "limits",
            "my_ipam::note",
        ],
    ),
    (
        "api",
        &[
            "actors",
            "events",
            "cni",
            "core",
            "cri",
            "store",
            "journal::past",
            "metrics",
            "clock",
            "files",
            "points",
            "words",
            "limits",
        ],
    ),
    ("actors", &["events", "core", "store", "journal", "metrics", "clock", "points", "limits"]),
    ("events", &["core", "metrics", "clock", "limits"]),
    ("journal", &["core", "store::file", "clock", "files", "limits"]),
    ("identity", &["config", "files"]),
    ("store", &["core", "clock", "metrics", "files", "limits"]),
    ("metrics", &["core", "clock", "limits"]),
    ("cni", &["core", "limits", "my_ipam::scan"]),
    ("config", &["my_ipam::client", "journal::past", "files", "limits", "store::etcd"]),
    ("my_ipam", &[]),
    // A package of its own, which uses nothing of the daemon.
    ("leasehold_kube", &["my_ipam::client"]),
    ("clock", &["core", "limits"]),
    ("cri", &["limits"]),
    ("files", &[]),
    ("points", &[]),
    ("core", &["limits"]),
    ("sim", &["core", "limits"]),
    ("words", &["core", "limits"]),
    ("limits", &["my_ipam::limits"]),
    ("lib", &[]),
    ("main", &[]),
];

/// The source folder of the plugin's package.
pub(super) const PLUGIN_FOLDER: &str = "src/my-ipam/src/";
pub(super) const OF_PLUGIN: &str = "my_ipam::";

/// A path as it is used somewhere, from the root of its crate.
pub(super) struct Used {
    pub(super) line: usize,
    pub(super) path: String,
}

/// The core uses nothing that could make two runs differ.
pub(super) fn core_is_pure(files: &[File]) -> Vec<String> {
    let packages = packages();
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/core/")) {
        for Used { line, path } in used(file) {
            if let Some(what) = impure(&path, &packages) {
                complaints.push(file.complain(line, &format!("the core is pure: no {what}")));
            }
        }
        for (line, code) in file.product_lines() {
            for word in IMPURE_WORDS {
                if at_word_start(code, word) {
                    let word = word.trim();
                    complaints.push(file.complain(line, &format!("the core is pure: no {word}")));
                }
            }
        }
    }
    complaints
}

/// True if a word is in the code, not as the end of a longer one; a method, not as the start of
/// one either.
fn at_word_start(code: &str, word: &str) -> bool {
    let of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| match word.starts_with('.') {
        true => !of_word(code[at + word.len()..].chars().next()),
        false => !of_word(code[..at].chars().next_back()),
    })
}

fn impure(path: &str, packages: &BTreeSet<String>) -> Option<String> {
    let mut parts = path.split("::");
    let (first, second, third) =
        (parts.next()?, parts.next().unwrap_or_default(), parts.next().unwrap_or("self"));
    let allowed = match first {
        "std" | "alloc" => match second {
            "net" => PURE_NET.contains(&third) && third != "self",
            "time" => PURE_TIME.contains(&third),
            part => !IMPURE_STD.contains(&part),
        },
        "crate" => ["core", "limits"].contains(&second),
        package => !packages.contains(package) || CORE_PACKAGES.contains(&package),
    };
    (!allowed).then(|| path.to_owned())
}

/// The names of all packages that Cargo.toml names, as they are in paths.
fn packages() -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("Cargo.toml");
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            names.insert(name.trim().replace('-', "_"));
        }
    }
    assert!(names.contains("serde") && names.contains("actix_web"), "{names:?}");
    names
}

/// Every use of another part is in the table.
pub(super) fn one_way(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && file.path.starts_with("src/")) {
        let part = &part(&file.path);
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| name == part) else {
            complaints.push(file.complain(1, &format!("{part} is in no row of MAY_USE: add one")));
            continue;
        };
        for Used { line, path } in used(file) {
            let target = path.strip_prefix("crate::").unwrap_or(&path);
            if target == path && !path.starts_with(OF_PLUGIN) {
                continue;
            }
            let name = target.split("::").next().unwrap_or_default();
            // A value of the crate's root (a macro, say) belongs to no part.
            let is_part = MAY_USE.iter().any(|(part, _)| *part == name);
            let reaches =
                |allowed: &&str| target == *allowed || target.starts_with(&format!("{allowed}::"));
            if is_part && name != *part && !may_use.iter().any(reaches) {
                let half = may_use.iter().any(|allowed| allowed.starts_with(&format!("{name}::")));
                let target = if half { target } else { name };
                let about = format!("{part} may not use {target}, only {}", may_use.join(", "));
                complaints.push(file.complain(line, &about));
            }
        }
    }
    complaints
}

fn part(path: &str) -> String {
    let path = path.strip_prefix("src/").unwrap_or(path);
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs").replace('-', "_")
}

/// Every path in the code that is not for tests: in `use`, taken apart, and anywhere else.
pub(super) fn used(file: &File) -> Vec<Used> {
    let mut found = Vec::new();
    let mut rest = file.code.clone();
    let statements: Vec<(usize, String)> = use_statements(&file.code);
    for (at, statement) in &statements {
        let mut paths = Vec::new();
        expand("", statement.trim_end_matches(';'), *at, &mut paths);
        found.extend(paths);
        // Taken apart already; blanks of the same length keep the lines.
        let blank: String = statement.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        rest.replace_range(*at..at + statement.len(), &blank);
    }
    found.extend(chains(&rest));
    found
        .into_iter()
        .filter_map(|(at, path)| {
            let line = file.line_of(at);
            let path = absolute(&path, &file.path);
            (!file.is_test(line)).then_some(Used { line, path })
        })
        .collect()
}

/// The text after each `use`, up to and including the semicolon.
fn use_statements(code: &str) -> Vec<(usize, String)> {
    let starts = code.match_indices("use ").filter(|&(at, _)| {
        let before = code[..at].trim_end_matches(' ');
        before.is_empty()
            || before.ends_with(['\n', ';', '{', '}', ')', ']'])
            || before.ends_with("pub")
    });
    let statement = |(at, word): (usize, &str)| {
        let start = at + word.len();
        let end = start + code[start..].find(';')? + 1;
        Some((start, code[start..end].to_owned()))
    };
    starts.filter_map(statement).collect()
}

/// Takes a tree of `use` apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, at: usize, paths: &mut Vec<(usize, String)>) {
    let mut start = 0;
    let mut depth = 0_usize;
    let ends = tree.char_indices().chain([(tree.len(), ',')]);
    for (end, c) in ends.collect::<Vec<_>>() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = &tree[start..end];
                let skipped = item.len() - item.trim_start().len();
                branch(prefix, item.trim(), at + start + skipped, paths);
                start = end + 1;
            }
            _ => {}
        }
    }
}

fn branch(prefix: &str, item: &str, at: usize, paths: &mut Vec<(usize, String)>) {
    match item.split_once('{') {
        _ if item.is_empty() => {}
        Some((head, inside)) => {
            let prefix = format!("{prefix}{head}");
            let inside = inside.strip_suffix('}').unwrap_or(inside);
            expand(&prefix, inside, at + head.len() + 1, paths);
        }
        None => {
            let name = item.split(" as ").next().unwrap_or_default().trim();
            paths.push((at, format!("{prefix}{name}")));
        }
    }
}

/// Every `a::b::c` in code.
fn chains(code: &str) -> Vec<(usize, String)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut at = 0;
    for word in code.split_inclusive(|c| !is_part(c)) {
        let chain = word.trim_end_matches(|c| !is_part(c)).trim_end_matches(':');
        if chain.contains("::") && !chain.starts_with(':') {
            found.push((at, chain.to_owned()));
        }
        at += word.len();
    }
    found
}

/// The same path from the crate's root, where `self` and `super` say where it begins. The root of
/// the plugin's package has its name, seen from anywhere.
fn absolute(path: &str, file: &str) -> String {
    if let Some(file) = file.strip_prefix(PLUGIN_FOLDER) {
        let own = (!path.starts_with("leasehold::")).then(|| absolute(path, file));
        let own = own.as_deref().and_then(|path| path.strip_prefix("crate::"));
        return match (own, path.strip_prefix("leasehold::")) {
            (Some(own), _) => format!("{OF_PLUGIN}{own}"),
            (None, Some(path)) => format!("crate::{path}"),
            (None, None) => path.to_owned(),
        };
    }
    let mut module: Vec<&str> = file
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .split('/')
        .filter(|name| !["mod", "lib"].contains(name))
        .collect();
    if let Some(path) = path.strip_prefix("leasehold::") {
        return format!("crate::{path}");
    }
    let mut rest = path;
    let mut relative = false;
    while let Some(after) = rest.strip_prefix("super::") {
        module.pop();
        (rest, relative) = (after, true);
    }
    if let Some(after) = rest.strip_prefix("self::") {
        (rest, relative) = (after, true);
    }
    if !relative {
        return path.to_owned();
    }
    module.push(rest);
    format!("crate::{}", module.join("::"))
}

#[test]
fn paths_are_read_whole() {
    let text = "use a::{b, c::{d as e, f}};\npub(crate) use crate::g;\nfn h() { super::i::j(); }\n";
    let file = File::new("src/k/l.rs", text);
    let paths: Vec<(usize, String)> =
        used(&file).into_iter().map(|used| (used.line, used.path)).collect();
    let expected = [(1, "a::b"), (1, "a::c::d"), (1, "a::c::f"), (2, "crate::g")];
    let expected = expected.map(|(line, path)| (line, path.to_owned()));
    assert_eq!(paths[..4], expected);
    assert_eq!(paths[4..], [(3, "crate::k::i::j".to_owned())]);
}
