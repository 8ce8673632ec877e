//! The plugin's program. It belongs to another package than these tests, so cargo does not build it
//! for them. This module builds it, once per run, for every installed target.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::LEASEHOLD;

/// The plugin, built for one target.
#[derive(Debug)]
pub(crate) struct Build {
    /// The target's triple.
    pub(crate) target: String,
    pub(crate) program: PathBuf,
}

/// Every build of the plugin, the preferred one first: for musl where that target is installed,
/// and for the target of these tests.
pub(crate) fn builds() -> &'static [Build] {
    static BUILDS: OnceLock<Vec<Build>> = OnceLock::new();
    BUILDS.get_or_init(|| {
        // TARGET_DIR/TRIPLE/PROFILE/leasehold
        let place: Vec<&Path> = Path::new(LEASEHOLD).ancestors().skip(1).take(3).collect();
        let name =
            |at: usize| place[at].file_name().and_then(|name| name.to_str()).expect("a name");
        let (profile, own, target_dir) = (name(0), name(1), place[2]);
        let musl = own.replace("-gnu", "-musl");
        let mut targets = vec![own];
        if musl != own && is_installed(&musl) {
            targets.insert(0, &musl);
        }
        targets.into_iter().map(|target| build(target_dir, target, profile)).collect()
    })
}

/// The preferred build of the plugin.
pub(crate) fn my_ipam() -> &'static Path {
    &builds()[0].program
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// True if the compiler can build programs for a target.
fn is_installed(target: &str) -> bool {
    let beside = Path::new(&cargo()).with_file_name("rustc");
    let rustc = if beside.is_file() { beside } else { "rustc".into() };
    let said = Command::new(rustc).args(["--print", "target-libdir", "--target", target]).output();
    let said = said.expect("rustc runs");
    said.status.success() && Path::new(String::from_utf8_lossy(&said.stdout).trim_end()).is_dir()
}

fn build(target_dir: &Path, target: &str, profile: &str) -> Build {
    let output = Command::new(cargo())
        .args(["build", "--locked", "--package", "my-ipam", "--target", target])
        .args(["--profile", if profile == "debug" { "dev" } else { profile }])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the plugin cannot be built for {target}:\n{said}");
    let program = target_dir.join(target).join(profile).join("my-ipam");
    assert!(program.is_file(), "cargo built no {}:\n{said}", program.display());
    Build { target: target.to_owned(), program }
}
