//! Blocks of commands, run as they are written, in a machine of their own (`sandbox.sh`).

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::blocks::read_all;
use crate::common::LEASEHOLD;

/// The start of every walk.
const SANDBOX: &str = include_str!("sandbox.sh");
/// The functions that come before and after the commands of each.
const FUNCTIONS: &str = include_str!("walks.sh");
/// The longest time of a walk, in seconds.
const SECONDS_MAX: &str = "120";

/// One walk through a block.
#[derive(Debug)]
pub(super) struct Walk {
    /// The document.
    pub(super) page: &'static str,
    /// A part of the block.
    pub(super) block: &'static str,
    /// The name of its functions in `walks.sh`.
    pub(super) name: &'static str,
}

pub(super) const WALKS: &[Walk] = &[
    Walk { page: "docs/install.md", block: "release/leasehold install", name: "source" },
    Walk {
        page: "docs/install.md",
        block: "leasehold import host-local --dry-run     #",
        name: "host_local",
    },
    Walk { page: "docs/install.md", block: "leasehold import whereabouts", name: "whereabouts" },
    Walk { page: "docs/install.md", block: "leasehold import etcd-cni", name: "etcd_cni" },
    Walk { page: "docs/install.md", block: "leasehold serve --etcd", name: "cluster" },
    Walk { page: "docs/etcd.md", block: "deploy/etcd/role", name: "user" },
    Walk { page: "docs/etcd.md", block: "etcdctl compact", name: "compaction" },
    Walk { page: "docs/etcd.md", block: "etcdctl snapshot save", name: "backup" },
    Walk { page: "docs/etcd.md", block: "etcdctl snapshot restore", name: "restore" },
    Walk { page: "docs/lab.md", block: "deploy/lab/up", name: "lab" },
    Walk { page: "docs/operations.md", block: "curl --unix-socket", name: "call" },
    Walk { page: "docs/runtimes.md", block: "containerd.conflist", name: "containerd" },
    Walk { page: "docs/runtimes.md", block: "crio.conflist", name: "crio" },
    Walk { page: "docs/runtimes.md", block: "nerdctl.conflist", name: "nerdctl" },
    Walk { page: "docs/runtimes.md", block: "podman.conflist", name: "podman" },
    Walk { page: "docs/runtimes.md", block: "nomad.conflist", name: "nomad" },
];

/// The text of the first block of a page that is of this language and has this part.
fn block(page: &str, language: &str, part: &str) -> String {
    let blocks = read_all().into_iter();
    let mut blocks = blocks.filter(|block| block.page == page && block.language == language);
    let block = blocks.find(|block| block.text.contains(part));
    block.unwrap_or_else(|| panic!("{page}: no {language} block with {part:?}")).text
}

/// Runs a walk: what comes before, the commands as they are, and what must be true then.
pub(super) fn run(walk: &Walk, commands: &[&String], plugin: &Path) {
    let dir = TempDir::with_prefix("leasehold-walk-").expect("a directory");
    let programs = TempDir::with_prefix("leasehold-walk-").expect("a directory");
    for (name, program) in [("leasehold", Path::new(LEASEHOLD)), ("my-ipam", plugin)] {
        std::os::unix::fs::symlink(program, programs.path().join(name)).expect("a link");
    }
    let mut script = format!("{SANDBOX}\n{FUNCTIONS}\n");
    // What other blocks of the page have the reader write.
    for (name, page, language, part) in [
        ("configuration", "docs/etcd.md", "toml", "[etcd]"),
        ("options", "docs/etcd.md", "text", "--auto-compaction"),
    ] {
        let text = block(page, language, part);
        script.push_str(&format!("cat > \"$dir/{name}\" <<'END'\n{text}END\n"));
    }
    script.push_str(&format!("before_{}\n", walk.name));
    for command in commands {
        script.push_str(&format!("\necho '== the page has:' {}\n", quoted(command)));
        script.push_str(command);
        // It does not end by itself.
        if command.starts_with("leasehold serve") {
            script.push_str(" 2> /var/log/leasehold.log &");
        }
    }
    script.push_str(&format!("\necho '== and then:'\nafter_{}\n", walk.name));
    let output = Command::new("timeout")
        .args(["--kill-after", "5", SECONDS_MAX, "unshare", "--mount", "--net", "--pid"])
        .args(["--fork", "--kill-child", "--mount-proc", "bash", "-c"])
        .args([&script, "walk"])
        .arg(dir.path())
        .arg(env!("CARGO_MANIFEST_DIR"))
        .arg(programs.path())
        .output()
        .expect("unshare runs");
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let about = format!("{} ({})", walk.page, walk.name);
    assert!(output.status.success(), "{about}: {}\n{}\n{}", output.status, said[0], said[1]);
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
