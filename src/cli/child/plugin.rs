//! Finds the plugin's program, or builds it, and describes it.

mod elf;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::interrupt::Interrupt;

/// The plugin's package and its file's name.
const PLUGIN: &str = "my-ipam";

/// The time between two looks at a running program.
const LOOK: Duration = Duration::from_millis(20);

/// The time within which a plugin must print its version.
const VERSION_WAIT_MAX: Duration = Duration::from_secs(5);

/// The plugin that a command runs.
#[derive(Debug)]
pub(in crate::cli) struct Found {
    pub(in crate::cli) program: PathBuf,
    /// Its name, version and target, and how it is linked, for people.
    pub(in crate::cli) about: String,
}

/// Finds the plugin. Builds it first if cargo runs this program: for musl if cargo's compiler can,
/// else for the target of this program.
///
/// # Errors
/// It cannot be built, or is not there.
pub(in crate::cli) fn find(interrupt: &Interrupt) -> anyhow::Result<Found> {
    let this = env::current_exe().context("cannot find out where this program is")?;
    let place = BuildDir::of(&this);
    let cargo = env::var_os("CARGO").zip(env::var_os("CARGO_MANIFEST_DIR"));
    let program = match (&place, cargo) {
        (Some(place), Some((cargo, manifest_dir))) => {
            place.build(&cargo, Path::new(&manifest_dir), interrupt)?
        }
        _ => {
            let musl = place.as_ref().and_then(|place| Some(place.program(Some(&place.musl()?))));
            let beside = this.with_file_name(PLUGIN);
            musl.filter(|path| path.is_file()).unwrap_or(beside)
        }
    };
    anyhow::ensure!(
        program.is_file(),
        "the plugin {} is missing: build it with `cargo build --release -p {PLUGIN}`, or put it \
         beside this program",
        program.display()
    );
    let about = about(&program, interrupt)?;
    Ok(Found { program, about })
}

/// The description of a plugin: its own version text, and the kind of its file.
fn about(program: &Path, interrupt: &Interrupt) -> anyhow::Result<String> {
    let failed = || format!("cannot run {}", program.display());
    let mut command = Command::new(program);
    command.arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let child = command.stdout(Stdio::piped()).spawn().with_context(failed)?;
    // A line is far less than a pipe holds, so it can be read after the end.
    let (mut child, _) = end_of(child, Some(VERSION_WAIT_MAX), interrupt).with_context(failed)?;
    let said = child.stdout.take().map(std::io::read_to_string).transpose().unwrap_or_default();
    let said = said.unwrap_or_default();
    let version = match said.strip_suffix('\n') {
        Some(line) if line.starts_with(PLUGIN) && !line.contains('\n') => line,
        _ => return Ok(format!("{} (it does not print its version)", program.display())),
    };
    let linked = elf::linked(program).with_context(failed)?;
    Ok(format!("{version}, {linked}"))
}

/// Waits for the end of a child. Kills it if it lasts too long, or after an interrupt.
fn end_of(
    mut child: Child,
    wait: Option<Duration>,
    interrupt: &Interrupt,
) -> anyhow::Result<(Child, ExitStatus)> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            interrupt.check()?;
            return Ok((child, status));
        }
        let late = wait.is_some_and(|wait| began.elapsed() > wait);
        if interrupt.wait(LOOK) || late {
            let _ = child.kill();
            let _ = child.wait();
            interrupt.check()?;
            anyhow::bail!("it did not end within {wait:?}");
        }
    }
}

/// The place where cargo put this program: `TARGET_DIR/[TRIPLE/]PROFILE`.
#[derive(PartialEq, Eq, Debug)]
struct BuildDir {
    target_dir: PathBuf,
    /// The target triple, if the build named one.
    triple: Option<OsString>,
    /// The name of the profile's directory.
    profile: OsString,
}

impl BuildDir {
    /// Returns `None` if the program is not where cargo puts programs.
    fn of(this: &Path) -> Option<Self> {
        let place = this.parent()?;
        let tagged: Vec<&Path> = place.ancestors().skip(1).take(2).filter(is_cargos).collect();
        let target_dir = *tagged.last()?;
        let triple = place.parent().filter(|parent| *parent != target_dir);
        Some(Self {
            target_dir: target_dir.to_owned(),
            triple: triple.and_then(Path::file_name).map(OsStr::to_owned),
            profile: place.file_name()?.to_owned(),
        })
    }

    /// The triple of the same machine with musl, or `None` if there is none.
    fn musl(&self) -> Option<OsString> {
        let triple = match &self.triple {
            Some(triple) => triple.to_str()?.replace("-gnu", "-musl"),
            None => format!("{}-unknown-linux-musl", env::consts::ARCH),
        };
        triple.contains("-musl").then(|| triple.into())
    }

    /// The path of the plugin if it was built for that target.
    fn program(&self, triple: Option<&OsStr>) -> PathBuf {
        let mut path = self.target_dir.clone();
        path.extend(triple);
        path.join(&self.profile).join(PLUGIN)
    }

    /// Builds the plugin with the profile of this program. Returns its path.
    fn build(
        &self,
        cargo: &OsStr,
        manifest_dir: &Path,
        interrupt: &Interrupt,
    ) -> anyhow::Result<PathBuf> {
        let musl = self.musl().filter(|triple| is_installed(cargo, triple));
        let triple = musl.as_deref().or(self.triple.as_deref());
        let mut command = Command::new(cargo);
        command.args(["build", "-p", PLUGIN, "--profile"]);
        command.arg(if self.profile == "debug" { OsStr::new("dev") } else { &self.profile });
        command.arg("--target-dir").arg(&self.target_dir);
        if let Some(triple) = triple {
            command.arg("--target").arg(triple);
        }
        let failed = || format!("cannot build the plugin with {}", cargo.display());
        // Its progress goes to stderr, as that of `cargo run` did.
        command.current_dir(manifest_dir).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(failed)?;
        let (_, status) = end_of(child, None, interrupt).with_context(failed)?;
        anyhow::ensure!(status.success(), "{}: {status}", failed());
        Ok(self.program(triple))
    }
}

/// True if cargo's compiler can build programs for a target.
fn is_installed(cargo: &OsStr, triple: &OsStr) -> bool {
    let beside = Path::new(cargo).with_file_name("rustc");
    let rustc = if beside.is_file() { beside } else { "rustc".into() };
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target"]).arg(triple).stdin(Stdio::null());
    command.output().is_ok_and(|said| {
        let path = String::from_utf8_lossy(&said.stdout);
        said.status.success() && Path::new(path.trim_end()).is_dir()
    })
}

/// True if cargo uses a directory for artifacts. It tags only those that it made itself, but writes
/// what it knows of the compiler into every target directory.
fn is_cargos(dir: &&Path) -> bool {
    let tag = fs::read_to_string(dir.join("CACHEDIR.TAG"));
    tag.is_ok_and(|tag| tag.contains("cargo")) || dir.join(".rustc_info.json").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_says_how_this_program_was_built() {
        let dir = tempfile::tempdir().unwrap();
        let tag = "# This file is a cache directory tag created by cargo.";
        let target = dir.path().join("target");
        fs::create_dir_all(target.join("x86_64-unknown-linux-gnu/release")).unwrap();
        fs::write(target.join("CACHEDIR.TAG"), tag).unwrap();
        let of = |below: &str| BuildDir::of(&dir.path().join(below).join("leasehold"));

        let plain = of("target/debug").unwrap();
        assert_eq!((&plain.triple, &plain.profile), (&None, &"debug".into()));
        assert_eq!(plain.target_dir, target);
        assert_eq!(plain.program(None), target.join("debug/my-ipam"));
        let musl = plain.musl().unwrap().into_string().unwrap();
        assert_eq!(musl, format!("{}-unknown-linux-musl", env::consts::ARCH));
        assert_eq!(plain.program(Some(OsStr::new("t"))), target.join("t/debug/my-ipam"));

        // A target directory that was there before cargo has no tag.
        fs::remove_file(target.join("CACHEDIR.TAG")).unwrap();
        assert_eq!(of("target/debug"), None);
        fs::write(target.join(".rustc_info.json"), "{}").unwrap();
        assert_eq!(of("target/debug"), Some(plain));

        let with_triple = of("target/x86_64-unknown-linux-gnu/release").unwrap();
        fs::write(target.join("x86_64-unknown-linux-gnu/CACHEDIR.TAG"), tag).unwrap();
        assert_eq!(of("target/x86_64-unknown-linux-gnu/release").unwrap(), with_triple);
        assert_eq!(
            (&with_triple.target_dir, with_triple.profile.to_str()),
            (&target, Some("release"))
        );
        assert_eq!(with_triple.musl(), Some("x86_64-unknown-linux-musl".into()));
        assert_eq!(BuildDir { triple: Some("a-b-darwin".into()), ..with_triple }.musl(), None);

        assert_eq!(of("usr/bin"), None);
        assert_eq!(BuildDir::of(Path::new("/usr/bin/leasehold")), None);
    }
}
