//! Tells the program the commit of its source: `LEASEHOLD_SOURCE_COMMIT`, if the build has it, or
//! the one that git names for a release build. Other builds do not ask, so that a commit builds
//! nothing anew.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LEASEHOLD_SOURCE_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("LEASEHOLD_SOURCE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if is_release { of_git() } else { None });
    println!("cargo::rustc-env=LEASEHOLD_SOURCE_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit of the work tree, and `-dirty` if it has changes.
fn of_git() -> Option<String> {
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if dirty { format!("{commit}-dirty") } else { commit })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
