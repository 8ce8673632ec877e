//! The tree as text, with comments and strings told apart from code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The root of the repository.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Folders that are not part of the source, for a tree without git.
const NOT_SOURCE: [&str; 2] = ["target", ".git"];

/// One file of text.
pub(super) struct File {
    /// The path from the root of the repository.
    pub(super) path: String,
    pub(super) text: String,
    /// The same, with blanks for comments and for the content of strings. Only for Rust.
    pub(super) code: String,
    /// The same, with blanks for all but comments. Of other files, the whole text.
    pub(super) comments: String,
    /// For each line, true if it is for tests only.
    in_test: Vec<bool>,
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = match path.ends_with(".rs") {
            true => code_and_comments(text),
            false => (String::new(), text.to_owned()),
        };
        let all = path.starts_with("tests/");
        let mut in_test = vec![all; text.lines().count() + 1];
        for (from, to) in test_items(&code) {
            in_test[from..=to].fill(true);
        }
        Self { path: path.to_owned(), text: text.to_owned(), code, comments, in_test }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// True if a line (from 1) is for tests only.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.in_test[line - 1]
    }

    /// The lines of code that are not for tests only, from 1.
    pub(super) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.code.lines());
        lines.filter(|&(line, _)| !self.is_test(line))
    }

    /// The line (from 1) of a place in the text.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// A complaint about a line.
    pub(super) fn complain(&self, line: usize, about: &str) -> String {
        format!("{}:{line}: {about}", self.path)
    }
}

/// Every text file of the repository: as git has it, new files included, or else as it is found.
pub(super) fn tree() -> Vec<File> {
    let mut paths = listed_by_git().unwrap_or_else(|| {
        let mut paths = Vec::new();
        walk(Path::new(ROOT), &mut paths);
        paths
    });
    paths.sort();
    let read = |path: String| {
        // Files that are not text, or that are deleted but still in git, are ignored here.
        let text = fs::read_to_string(Path::new(ROOT).join(&path)).ok()?;
        Some(File::new(&path, &text))
    };
    let mut files: Vec<File> = paths.into_iter().filter_map(read).collect();
    assert!(files.len() > 50, "only {} files found in {ROOT}", files.len());
    let test_modules: BTreeSet<String> = files.iter().flat_map(test_modules).collect();
    for file in &mut files {
        let stem = file.path.strip_suffix(".rs").unwrap_or_default();
        let inside = |module: &String| stem == module || stem.starts_with(&format!("{module}/"));
        if test_modules.iter().any(inside) {
            file.in_test.fill(true);
        }
    }
    files
}

fn listed_by_git() -> Option<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(ROOT)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let paths: Vec<String> =
        text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    (!paths.is_empty()).then_some(paths)
}

fn walk(dir: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !NOT_SOURCE.contains(&name.as_str()) {
            walk(&path, paths);
        } else if path.is_file() {
            let path = path.strip_prefix(ROOT).expect("a path in the repository");
            paths.push(path.to_string_lossy().into_owned());
        }
    }
}

/// Modules in files of their own that are for tests only, as paths without `.rs`.
fn test_modules(file: &File) -> Vec<String> {
    let path = file.path.strip_suffix(".rs").unwrap_or_default();
    let dir = ["mod", "lib", "main"]
        .iter()
        .find_map(|root| path.strip_suffix(root)?.strip_suffix('/'))
        .unwrap_or(path);
    let name = |item: &str| {
        let item = item.split_once("mod ")?.1;
        Some(format!("{dir}/{}", item.strip_suffix(';')?.trim()))
    };
    let items = file.code.split("#[cfg(test)]").skip(1);
    items.filter_map(|rest| name(&rest[..=rest.find([';', '{'])?])).collect()
}

/// The lines (from 0, both included) of each item after `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let line = |at: usize| code[..at].matches('\n').count();
    let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    let end = |at: usize| {
        let open = at + code[at..].find([';', '{'])?;
        if code.as_bytes()[open] == b';' { Some(open) } else { closing(code, open) }
    };
    starts.map(|at| (line(at), line(end(at).unwrap_or(code.len())))).collect()
}

/// The place of the brace that closes the one at `open`.
pub(super) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Rust with blanks for comments and for the content of strings and characters, and Rust with
/// blanks for all but comments; both of the same length, with the same lines.
fn code_and_comments(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut comments: Vec<u8> =
        bytes.iter().map(|&byte| if byte == b'\n' { byte } else { b' ' }).collect();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => at + text[at..].find('\n').unwrap_or(text.len() - at),
            [b'/', b'*', ..] => comment_end(bytes, at),
            [b'"', ..] => string_end(bytes, at),
            [b'r', b'"' | b'#', ..] if !in_word(bytes, at) => raw_string_end(text, at),
            [b'\'', ..] => character_end(text, at),
            _ => at + 1,
        };
        if matches!(&bytes[at..end], [b'/', b'/' | b'*', ..]) {
            comments[at..end].copy_from_slice(&bytes[at..end]);
        }
        if end > at + 1 {
            for byte in &mut code[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end;
    }
    let text = |bytes| String::from_utf8(bytes).expect("blanks in place of whole characters");
    (text(code), text(comments))
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| bytes[before]);
    // `br"..."` and `cr"..."` begin with a letter that belongs to the string.
    before.is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        && !matches!(before, Some(b'b' | b'c'))
}

fn comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => {
                (at, depth) = (at + 2, depth - 1);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"..."` or `r#"..."#`; a raw name such as `r#type` ends at once.
fn raw_string_end(text: &str, start: usize) -> usize {
    let hashes = text[start + 1..].bytes().take_while(|&byte| byte == b'#').count();
    if text.as_bytes().get(start + 1 + hashes) != Some(&b'"') {
        return start + 1;
    }
    let body = start + 2 + hashes;
    let close = format!("\"{}", "#".repeat(hashes));
    text[body..].find(&close).map_or(text.len(), |at| body + at + close.len())
}

/// The end of `'x'` or `'\n'`; a lifetime ends at once.
fn character_end(text: &str, start: usize) -> usize {
    let mut rest = text[start + 1..].char_indices();
    match rest.next() {
        Some((_, '\\')) => {
            let close = text[start + 3..].find('\'');
            close.map_or(start + 1, |at| start + 3 + at + 1)
        }
        Some(_) if matches!(rest.clone().next(), Some((_, '\''))) => {
            let (at, _) = rest.next().unwrap_or_default();
            start + 1 + at + 1
        }
        _ => start + 1,
    }
}

#[test]
fn comments_and_strings_are_no_code() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("b\"c", 'd', '\'', '{')"#, "f(      ,    ,     ,    )"),
        (r##"f(r#"a"b"#, br"c\")"##, "f(        , b     )"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("let r#type = 'é';", "let r#type =     ;"),
        ("\"a\nb\"", "  \n  "),
    ] {
        assert_eq!(code_and_comments(text).0, expected, "{text}");
    }
}

#[test]
fn comments_are_known() {
    for (text, expected) in [
        ("a // b\nc", "  // b\n "),
        ("a /* b /* c */ d */ e", "  /* b /* c */ d */  "),
        ("f(\"// b\") / 2 //! é", "              //! é"),
    ] {
        assert_eq!(code_and_comments(text).1, expected, "{text}");
    }
}

#[test]
fn what_is_for_tests_only_is_known() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
    let file = File::new("src/x.rs", text);
    let lines: Vec<usize> = file.product_lines().map(|(line, _)| line).collect();
    assert_eq!(lines, [1, 6]);
    let file = File::new("src/x/mod.rs", "#[cfg(test)]\nmod vectors;\nfn a() {}\n");
    assert_eq!(test_modules(&file), ["src/x/vectors"]);
    assert_eq!(file.product_lines().map(|(line, _)| line).collect::<Vec<_>>(), [3]);
    let file = File::new("src/y.rs", "#[cfg(test)]\n#[path = \"z.rs\"]\npub(crate) mod deep;\n");
    assert_eq!(test_modules(&file), ["src/y/deep"]);
}
