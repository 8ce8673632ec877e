//! The table of the log's targets: each is a module that writes lines, and each module that does
//! is there.

use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "## Targets of the log\n";

/// The modules of the daemon that write lines, as targets.
fn modules(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        // Packages of their own have targets of their own.
        if path.is_dir() && !path.join("Cargo.toml").exists() {
            modules(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let levels = ["error", "warn", "info", "debug"];
            if levels.iter().any(|level| text.contains(&format!("tracing::{level}!("))) {
                found.push(target(&path));
            }
        }
    }
}

fn target(path: &Path) -> String {
    let inner = path.strip_prefix(source()).expect("a source").with_extension("");
    let names = inner.iter().map(|name| name.to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| name != "mod").collect();
    format!("leasehold::{}", names.join("::"))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn the_targets_of_the_log_are_documented_and_exist() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let document = fs::read_to_string(document).expect("docs/operations.md");
    let section = document.split_once(BEGIN).expect("the section").1;
    let section = section.split("\n## ").next().expect("its text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let listed: Vec<&str> =
        rows.flat_map(|row| row.split(", ")).map(|name| name.trim_matches('`')).collect();
    let mut writing = Vec::new();
    modules(&source(), &mut writing);
    assert!(writing.len() > 20 && listed.len() > 10, "{writing:?} {listed:?}");
    let is_below = |module: &str, target: &str| {
        module == target || module.strip_prefix(target).is_some_and(|rest| rest.starts_with("::"))
    };
    for target in &listed {
        let writes = writing.iter().any(|module| is_below(module, target));
        assert!(writes, "{target} is documented and writes nothing");
    }
    for module in &writing {
        let is_listed = listed.iter().any(|target| is_below(module, target));
        assert!(is_listed, "{module} writes lines and is in no row");
    }
}
