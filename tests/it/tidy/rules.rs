//! Rules about lines, words and places.

use super::source::{File, closing};

/// Lines of a file, and of a function.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 100;

/// The files that may ask for the time: the clock itself, the daemon's start, the times of answers
/// and commits, deadlines of clients, and commands that people run.
const CLOCK_FILES: [&str; 5] = [
    "src/clock.rs",
    "src/daemon.rs",
    "src/actors/journal.rs",
    "src/api/cni.rs",
    "src/leasehold-kube/src/times.rs",
];
const CLOCK_FOLDERS: [&str; 2] = ["src/my-ipam/", "src/cli/"];

/// The files that name limits and periods.
const LIMIT_FILES: [&str; 4] = [
    "src/limits.rs",
    "src/limits/history.rs",
    "src/my-ipam/src/limits.rs",
    "src/leasehold-kube/src/limits.rs",
];

/// Words for an address, none of which may go with "lease": a lease is etcd's, a node leases
/// blocks.
const ADDRESS_WORDS: [&str; 8] =
    ["address", "addresses", "addr", "addrs", "ip", "ips", "allocation", "allocations"];
const LEASE_WORDS: [&str; 3] = ["lease", "leases", "leased"];
/// Words that are not used here, in lower case, each with what is used in its place. Those with
/// another meaning in the vocabulary come back easily: a record is in etcd, only etcd is restored,
/// a note is a DEL's, and a run is no cidr.
const OTHER_WORDS: [(&str, &str); 40] = [
    ("leased address", "allocation"),
    ("address lease", "allocation"),
    ("lease an address", "allocate"),
    ("affinity", "owner"),
    ("cool-down", "cooldown"),
    ("cool_down", "cooldown"),
    ("setrecord", "SetIdentity"),
    ("set_record", "SetIdentity"),
    ("recoveredset", "JournalledSet"),
    ("restoreerror", "RebuildError"),
    ("move::restore", "Move::Hold"),
    ("daemon::restore", "rebuild"),
    ("fn restore(&mut self, journalled", "rebuild"),
    ("under_way", "in_flight"),
    ("at_gate", "at_barrier"),
    ("ended_max", "TOMBSTONES_MAX"),
    ("toleaseholder::place", "SubmitOrder"),
    ("place_aside", "submit_aside"),
    ("place_after", "submit_after"),
    ("struct told", "answer"),
    ("fn told(", "handle_answer"),
    ("fn heard(", "on_cluster_effect"),
    ("keep_told", "keep_informed"),
    ("fn note(", "add, observe or report"),
    ("fn note_", "add, observe or report"),
    ("/ notes that", "remembers that"),
    ("fn look(", "inspect or read"),
    ("tally", "counts"),
    ("of_runs", "of_ranges"),
    (".runs()", "ranges"),
    ("runs_of", "ranges_of"),
    ("asked: vec<ip", "requested"),
    ("enum fate", "outcome"),
    ("struct known ", "what is known"),
    ("struct seen ", "what was seen"),
    ("type place", "position"),
    ("likewise", "the same words again"),
    ("whoever", "a noun"),
    ("whatever", "a noun"),
    ("any more", "no longer"),
];

/// Words that begin half of a question.
const HALVES: [&str; 6] = ["What", "Who", "Whose", "Where", "Whether", "How"];

fn rust_in<'a>(files: &'a [File], folder: &'a str) -> impl Iterator<Item = &'a File> {
    files.iter().filter(move |file| file.is_rust() && file.path.starts_with(folder))
}

pub(super) fn short(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            let about =
                format!("the file has {lines} lines, {FILE_LINES_MAX} are allowed: divide it");
            complaints.push(file.complain(lines, &about));
        }
        for (line, text) in (1..).zip(file.text.lines()) {
            let chars = text.chars().count();
            if chars > LINE_CHARS_MAX {
                let about = format!("{chars} characters, {LINE_CHARS_MAX} are allowed");
                complaints.push(file.complain(line, &about));
            }
        }
        for (line, name, lines) in functions(file) {
            if lines > FUNCTION_LINES_MAX {
                let about = format!("{name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed");
                complaints.push(file.complain(line, &about));
            }
        }
    }
    complaints
}

/// Every function with a body: its line, its name, its lines.
fn functions(file: &File) -> Vec<(usize, String, usize)> {
    let code = &file.code;
    let starts = code.match_indices("fn ").filter(|&(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    });
    let function = |(at, _): (usize, &str)| {
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // A type such as `fn(u8)` has no name, a declaration no body.
        let open = at + code[at..].find(['{', ';'])?;
        let close = if code.as_bytes()[open] == b'{' { closing(code, open)? } else { return None };
        let lines = code[at..close].matches('\n').count() + 1;
        (!name.is_empty()).then(|| (file.line_of(at), name, lines))
    };
    starts.filter_map(function).collect()
}

pub(super) fn words(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust_in(files, "src/") {
        for (line, text) in (1..).zip(file.text.lines()) {
            let lower = text.to_lowercase();
            let named = lease_of_an_address(text).map(|name| (name, "allocation"));
            let phrase = OTHER_WORDS.iter().find(|(word, _)| has_word(&lower, word));
            let phrase = phrase.map(|&(word, right)| (word.to_owned(), right));
            if let Some((word, right)) = named.or(phrase) {
                let about =
                    format!("{word:?}: the word is {right:?} (CONTRIBUTING.md, Vocabulary)");
                complaints.push(file.complain(line, &about));
            }
        }
    }
    complaints
}

/// A doc comment begins with a sentence, or with a thing; not with half of a question.
pub(super) fn sentences(files: &[File]) -> Vec<String> {
    let said = |text: &str| {
        let text = text.trim_start();
        text.strip_prefix("///").or(text.strip_prefix("//!")).map(|said| said.trim().to_owned())
    };
    let mut complaints = Vec::new();
    for file in ["src/", "tests/", "benches/"].iter().flat_map(|folder| rust_in(files, folder)) {
        let mut before = None;
        for (line, text) in (1..).zip(file.text.lines()) {
            let comment = said(text);
            let word = comment.as_deref().filter(|_| before.is_none());
            let word = word.and_then(|comment| comment.split(' ').next());
            if let Some(word) = word.filter(|word| HALVES.contains(word)) {
                complaints.push(file.complain(line, &format!("{word} begins no sentence")));
            }
            before = comment;
        }
    }
    complaints
}

/// True if some words are in a line, not as the end of a longer word: "released address" is fine.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(char::is_alphanumeric))
}

/// A name that has "lease" and an address in it, such as `IpLease` or `lease_address`.
fn lease_of_an_address(text: &str) -> Option<String> {
    let names = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    let bad = |name: &&str| {
        let words = words_of(name);
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        has(&LEASE_WORDS) && has(&ADDRESS_WORDS)
    };
    names.into_iter().find(bad).map(str::to_owned)
}

/// The words of a name in either case: `IpLease` and `ip_lease` are "ip" and "lease".
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words
}

pub(super) fn no_panics(files: &[File]) -> Vec<String> {
    const WORDS: [&str; 6] =
        [".unwrap()", ".expect(", "todo!(", "unimplemented!(", "panic!(", "dbg!("];
    in_product(files, "src/", &WORDS, |_| false, "give a typed error instead")
}

pub(super) fn clocks(files: &[File]) -> Vec<String> {
    let may = |path: &str| {
        CLOCK_FILES.contains(&path) || CLOCK_FOLDERS.iter().any(|folder| path.starts_with(folder))
    };
    let words = ["Instant::now", "SystemTime::now"];
    in_product(files, "src/", &words, may, "the time comes from src/clock.rs, or as an argument")
}

pub(super) fn metrics(files: &[File]) -> Vec<String> {
    let words = ["counter!(", "gauge!(", "histogram!("];
    in_product(files, "src/", &words, |path| path == "src/metrics.rs", "only in src/metrics.rs")
}

/// Meanings that have types of their own in the core, by the names of fields and parameters.
const TYPED: [&str; 18] = [
    "address",
    "block_size",
    "claim",
    "cursor",
    "epoch",
    "intended",
    "lease",
    "lease_losses",
    "merges",
    "operation",
    "quarantine",
    "received",
    "requested",
    "revision",
    "sequence",
    "seconds",
    "started_at",
    "ttl",
];
const INTEGERS: [&str; 8] = ["u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64"];

/// A number with a meaning of its own is a type: no other name for an integer anywhere, and in the
/// core no integer where a type is due.
pub(super) fn numbers_are_types(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust_in(files, "src/") {
        for (line, code) in file.product_lines() {
            let alias = code.split_once("type ").and_then(|(_, rest)| rest.split_once(" = "));
            if alias.is_some_and(|(_, to)| INTEGERS.contains(&to.trim_end_matches(';'))) {
                complaints.push(file.complain(line, "another name for an integer: make it a type"));
            }
        }
    }
    for file in rust_in(files, "src/core/") {
        for (line, code) in file.product_lines() {
            if code.contains("(u128, u128)") {
                complaints.push(file.complain(line, "a pair of u128: it is an AddressRange"));
            }
            let typed = TYPED.iter().filter(|name| is_integer(code, name));
            let about = |name| format!("{name} is an integer: it has a type of its own");
            complaints.extend(typed.map(|name| file.complain(line, &about(name))));
        }
    }
    complaints
}

/// True if a line declares something of that name as an integer, or as an `Option` of one.
fn is_integer(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}: ")).any(|(at, found)| {
        let part = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let of = &code[at + found.len()..];
        let of = of.strip_prefix("Option<").unwrap_or(of);
        let word = of.split(|c: char| !c.is_alphanumeric()).next();
        !part && word.is_some_and(|word| INTEGERS.contains(&word))
    })
}

/// Complaints about words in code that is not for tests.
fn in_product(
    files: &[File],
    folder: &str,
    words: &[&str],
    may: impl Fn(&str) -> bool,
    about: &str,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust_in(files, folder).filter(|file| !may(&file.path)) {
        for (line, code) in file.product_lines() {
            for word in words.iter().filter(|word| code.contains(**word)) {
                complaints.push(file.complain(line, &format!("{word}: {about}")));
            }
        }
    }
    complaints
}

pub(super) fn periods(files: &[File]) -> Vec<String> {
    let may = |path: &str| {
        let folders = ["src/cli/", "src/limits/"];
        LIMIT_FILES.contains(&path) || folders.iter().any(|folder| path.starts_with(folder))
    };
    let mut complaints = Vec::new();
    for file in rust_in(files, "src/").filter(|file| !may(&file.path)) {
        for (line, code) in file.product_lines() {
            // A computed number is a conversion, a written number is a limit.
            let written = code.split("Duration::from_").skip(1).any(|rest| {
                let argument = rest.split_once('(').map(|(_, argument)| argument.trim_start());
                argument.is_some_and(|argument| argument.starts_with(|c: char| c.is_ascii_digit()))
            });
            if written {
                complaints.push(file.complain(line, "a period: give it a name in src/limits.rs"));
            }
        }
    }
    complaints
}

pub(super) fn machines(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (line, text) in (1..).zip(file.text.lines()) {
            for folder in ["work", "root", "home"] {
                let path = format!("/{folder}/");
                let absolute = |&(at, _): &(usize, &str)| {
                    let before = text[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-~}".contains(c))
                };
                if text.match_indices(&path).any(|place| absolute(&place)) {
                    let about = "an absolute path of somebody's machine".to_owned();
                    complaints.push(file.complain(line, &about));
                }
            }
        }
    }
    complaints
}

pub(super) fn left_for_later(files: &[File]) -> Vec<String> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut complaints = Vec::new();
    for file in files {
        for (line, text) in (1..).zip(file.text.lines()) {
            let mut names = text.split(|c: char| !c.is_alphanumeric());
            if names.any(|name| words.contains(&name)) {
                complaints.push(file.complain(line, "left for later: do it, or leave it out"));
            }
        }
    }
    complaints
}
