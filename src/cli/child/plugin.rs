//! Finds the plugin's program, or builds it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::interrupt::Interrupt;

/// The plugin's file name.
const PLUGIN: &str = "my-ipam";

/// The time between two looks at a running build.
const LOOK: Duration = Duration::from_millis(20);

/// Finds the plugin. Builds it first if cargo runs this program (`cargo run` builds one binary
/// only).
///
/// # Errors
/// It cannot be built, or is not there.
pub(in crate::cli) fn find(interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let this = env::current_exe().context("cannot find out where this program is")?;
    let beside = this.parent().context("this program is in no directory")?.join(PLUGIN);
    if let Some(build) = Build::of(&this, env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR")) {
        build.run(interrupt)?;
    }
    anyhow::ensure!(
        beside.is_file(),
        "the plugin {} is missing: build it with `cargo build --release --bin {PLUGIN}`, or put \
         it beside this program",
        beside.display()
    );
    Ok(beside)
}

/// A build of the plugin like that of this program: same profile, same target, same place.
#[derive(PartialEq, Eq, Debug)]
struct Build {
    cargo: OsString,
    manifest_dir: OsString,
    target_dir: PathBuf,
    /// The target triple, if the build names one.
    target: Option<OsString>,
    profile: OsString,
}

impl Build {
    /// Returns `None` if cargo does not run this program, or if the program is not where cargo
    /// puts programs: `TARGET_DIR/[TRIPLE/]PROFILE`.
    fn of(this: &Path, cargo: Option<OsString>, manifest_dir: Option<OsString>) -> Option<Self> {
        let (cargo, manifest_dir) = (cargo?, manifest_dir?);
        let place = this.parent()?;
        let tagged: Vec<&Path> = place.ancestors().skip(1).take(2).filter(is_cargos).collect();
        let target_dir = *tagged.last()?;
        let triple = place.parent().filter(|parent| *parent != target_dir);
        let profile = match place.file_name()? {
            name if name == OsStr::new("debug") => OsStr::new("dev"),
            name => name,
        };
        Some(Self {
            cargo,
            manifest_dir,
            target_dir: target_dir.to_owned(),
            target: triple.and_then(Path::file_name).map(OsStr::to_owned),
            profile: profile.to_owned(),
        })
    }

    fn run(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let mut command = Command::new(&self.cargo);
        command.args(["build", "--bin", PLUGIN, "--profile"]).arg(&self.profile);
        command.arg("--target-dir").arg(&self.target_dir);
        if let Some(target) = &self.target {
            command.arg("--target").arg(target);
        }
        // `cargo run` sets these variables for its program. Build scripts of dependencies (ring's)
        // take them for a change of their own environment, and everything that depends on them is
        // built again, twice: here, and by the next `cargo build`.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"].iter().any(|own| text.starts_with(own))
            {
                command.env_remove(&name);
            }
        }
        let failed = || format!("cannot build the plugin with {}", self.cargo.display());
        // Its progress goes to stderr, as that of `cargo run` did.
        command.current_dir(&self.manifest_dir);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut cargo = command.spawn().with_context(failed)?;
        loop {
            if let Some(status) = cargo.try_wait().with_context(failed)? {
                interrupt.check()?;
                anyhow::ensure!(status.success(), "{}: {status}", failed());
                return Ok(());
            }
            if interrupt.wait(LOOK) {
                let _ = cargo.kill();
                let _ = cargo.wait();
                anyhow::bail!("interrupted while the plugin was built");
            }
        }
    }
}

/// True if cargo marked a directory as one of its own for artifacts.
fn is_cargos(dir: &&Path) -> bool {
    fs::read_to_string(dir.join("CACHEDIR.TAG")).is_ok_and(|tag| tag.contains("cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build_of(dir: &Path, below: &str) -> Option<Build> {
        let this = dir.join(below).join("leasehold");
        Build::of(&this, Some("cargo".into()), Some("/src".into()))
    }

    #[test]
    fn the_build_is_that_of_this_program() {
        let dir = tempfile::tempdir().unwrap();
        let tag = "# This file is a cache directory tag created by cargo.";
        let target = dir.path().join("target");
        fs::create_dir_all(target.join("triple/release")).unwrap();
        fs::write(target.join("CACHEDIR.TAG"), tag).unwrap();

        let plain = build_of(dir.path(), "target/debug").unwrap();
        assert_eq!((plain.target, plain.profile), (None, "dev".into()));
        assert_eq!(plain.target_dir, target);

        let with_triple = build_of(dir.path(), "target/triple/release").unwrap();
        fs::write(target.join("triple/CACHEDIR.TAG"), tag).unwrap();
        assert_eq!(build_of(dir.path(), "target/triple/release").unwrap(), with_triple);
        let Build { target_dir, target: triple, profile, .. } = with_triple;
        assert_eq!((target_dir, profile), (target, "release".into()));
        assert_eq!(triple, Some("triple".into()));
    }

    #[test]
    fn an_installed_program_builds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(build_of(dir.path(), "usr/bin"), None);
        assert_eq!(Build::of(Path::new("/usr/bin/leasehold"), None, None), None);
    }
}
