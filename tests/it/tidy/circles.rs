//! Files that use each other.
//!
//! A module and the files in its folder are one unit, which is split for readers: the module names
//! what is in its files, and they name the module's types. Between all other files uses point one
//! way.

use std::collections::{BTreeMap, BTreeSet};

use super::layers::{OF_PLUGIN, PLUGIN_FOLDER, Used, used};
use super::source::File;

/// The path of a file's module, from the root of its crate.
fn module(path: &str) -> Option<String> {
    let (root, path) = match path.strip_prefix(PLUGIN_FOLDER) {
        Some(path) => (OF_PLUGIN, path),
        None => ("crate::", path.strip_prefix("src/")?),
    };
    let path = path.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    Some(format!("{root}{}", path.replace('/', "::")))
}

/// True if the one module is in the other one.
fn is_in(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module that a path leads into: the longest beginning of it that is one.
fn target<'m>(path: &str, modules: &'m BTreeSet<String>) -> Option<&'m str> {
    let mut path = path;
    loop {
        if let Some(module) = modules.get(path) {
            return Some(module);
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// No two files use each other. The complaint is about the first use in one of them.
pub(super) fn no_circles(files: &[File]) -> Vec<String> {
    let modules: BTreeSet<String> = files.iter().filter_map(|file| module(&file.path)).collect();
    let mut uses: BTreeMap<(&str, &str), (&File, usize)> = BTreeMap::new();
    for file in files {
        let Some(own) = module(&file.path) else { continue };
        let Some(own) = modules.get(&own) else { continue };
        for Used { line, path } in used(file) {
            let Some(other) = target(&path, &modules) else { continue };
            if !is_in(own, other) && !is_in(other, own) {
                uses.entry((own, other)).or_insert((file, line));
            }
        }
    }
    let both = uses.iter().filter(|((a, b), _)| a < b && uses.contains_key(&(*b, *a)));
    let complaint = |((a, b), (file, line)): (&(&str, &str), &(&File, usize))| {
        file.complain(*line, &format!("{a} and {b} use each other"))
    };
    both.map(complaint).collect()
}
