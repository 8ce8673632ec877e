//! The fenced blocks of the documents, their commands, and the commands in sentences.

use std::fs;
use std::path::Path;

/// One fenced block.
#[derive(Debug)]
pub(super) struct Block {
    /// The document, from the root of the repository.
    pub(super) page: String,
    /// The line of its fence.
    pub(super) line: usize,
    pub(super) language: String,
    pub(super) text: String,
}

impl Block {
    /// The commands of a console block: what follows `$ `, with the lines that a quote goes on in.
    /// The output of commands is left out.
    pub(super) fn commands(&self) -> Vec<String> {
        let mut commands: Vec<String> = Vec::new();
        for line in self.text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push(command.to_owned());
            } else if let Some(last) = commands.last_mut().filter(|last| is_open(last)) {
                last.push('\n');
                last.push_str(line);
            }
        }
        commands
    }
}

/// True if a single quote is not closed. Comments have apostrophes.
fn is_open(command: &str) -> bool {
    let (code, _comment) = command.split_once(" #").unwrap_or((command, ""));
    code.matches('\'').count() % 2 == 1
}

/// The documents: name and text.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/decisions"] {
        for file in fs::read_dir(root.join(folder)).expect("a folder") {
            let name = file.expect("a file").file_name().into_string().expect("a name");
            names.extend(name.ends_with(".md").then(|| format!("{folder}/{name}")));
        }
    }
    let text = |name: &String| fs::read_to_string(root.join(name)).expect("a document");
    names.into_iter().map(|name| (name.clone(), text(&name))).collect()
}

/// Every fenced block.
pub(super) fn read_all() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (page, text) in documents() {
        let mut open: Option<Block> = None;
        for (line, text) in (1..).zip(text.lines()) {
            match (text.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => {
                    let (page, language) = (page.clone(), language.trim().to_owned());
                    open = Some(Block { page, line, language, text: String::new() });
                }
                (None, Some(block)) => {
                    block.text.push_str(text);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{page}: a block without an end");
    }
    blocks
}

/// The commands in sentences and tables, in backticks: page, line, command.
pub(super) fn in_sentences() -> Vec<(String, usize, String)> {
    let mut found = Vec::new();
    for (page, text) in documents() {
        let mut inside = false;
        for (line, text) in (1..).zip(text.lines()) {
            if text.starts_with("```") {
                inside = !inside;
            }
            let quoted = text.split('`').skip(1).step_by(2).filter(|_| !inside);
            let commands = quoted.filter(|text| text.starts_with("leasehold "));
            found.extend(commands.map(|text| (page.clone(), line, text.to_owned())));
        }
    }
    found
}

#[test]
fn blocks_and_commands_are_read_as_written() {
    let text = "$ one 'a\n b' c\nsaid\n$ two # it's so\n".to_owned();
    let block = Block { page: "x".into(), line: 1, language: "console".into(), text };
    assert_eq!(block.commands(), ["one 'a\n b' c", "two # it's so"]);
    assert!(read_all().len() > 25);
}
