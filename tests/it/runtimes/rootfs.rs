//! The content of containers: one busybox (Debian's package busybox-static), and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::host::Host;
use crate::common::copy_program;

/// The program that is in every container under each of the names.
const BUSYBOX: &str = "/bin/busybox";
const NAMES: [&str; 7] = ["sh", "sleep", "ip", "ping", "httpd", "echo", "pause"];
/// The name of the image.
pub(super) const IMAGE: &str = "leasehold.test/busybox:1";

/// Makes the root directory of containers on the machine's disk. All containers can use it at once:
/// the files that runtimes put into it are there already.
pub(super) fn make(host: &Host) -> PathBuf {
    let root = host.disk("rootfs");
    for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/passwd", "etc/group"] {
        fs::write(root.join(file), "").expect("a file");
    }
    fs::write(root.join("index.html"), "served\n").expect("a file");
    let busybox = Path::new(BUSYBOX);
    assert!(busybox.exists(), "{BUSYBOX} is missing: install Debian's package busybox-static");
    copy_program(busybox, &root.join("bin/busybox"));
    for name in NAMES {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    root
}

/// Packs the root directory into an image, in the form that `docker save` writes.
pub(super) fn image(host: &Host, root: &Path) -> PathBuf {
    let parts = host.disk("image");
    fs::create_dir(&parts).expect("a directory");
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let (parts_text, archive) = (text(&parts), host.disk("image.tar"));
    let layer = text(&parts.join("layer.tar"));
    host.run(&["tar", "-cf", &layer, "-C", &text(root), "."]);
    let digest = host.run(&["sha256sum", &layer]);
    let digest = digest.split(' ').next().expect("a digest");
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(parts.join("config.json"), config.to_string()).expect("a file");
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(parts.join("manifest.json"), manifest.to_string()).expect("a file");
    host.run(&["tar", "-cf", &text(&archive), "-C", &parts_text, "."]);
    archive
}
