//! The commands and blocks that no test of the documents runs, each with the reason, and who tries
//! it in another way.

/// The start of a command, and the reason.
pub(super) const NOT_RUN: &[(&str, &str)] = &[
    ("cargo build", "these tests are given what cargo built"),
    ("cargo run --release -- demo", "tests/it/demo.rs runs the demo"),
    ("cargo run --release -- bench", "tests/it/bench.rs runs each mode of it"),
    ("rustup target add", "tests/run adds the target, and tests the plugin for it"),
    ("tests/run", "it runs these tests"),
    ("$EDITOR", "a person edits the file"),
    (
        "systemctl",
        "needs systemd; tests/it/deploy.rs runs what the unit says, and tests/deploy \
                   asks systemd-analyze about it",
    ),
    ("deploy/release out", "tests/deploy builds a release, and reads all of it"),
    ("apt install ./out", "tests/deploy installs the package into a root of its own"),
    ("deploy/image/root", "tests/deploy makes the root, runs it and builds the image twice"),
    ("podman build", "tests/deploy builds the image twice"),
    ("podman run", "needs an image; tests/it/runtimes/podman.rs runs podman with one of its own"),
    ("nerdctl run", "needs nerdctl and an image"),
    ("crictl", "needs crictl; tests/it/runtimes/cri.rs asks containerd in its place"),
    ("nomad job run", "needs Nomad and an image"),
    (
        "etcdctl user add root",
        "asks for a password on a terminal; the walk and tests/deploy give \
                               it otherwise",
    ),
    // tests/kubernetes.py reads these commands: it renders what they apply, and looks for the
    // objects that they name.
    ("kubectl", "needs a control plane; tests/kubernetes.py tries what can be tried without one"),
    ("kubeadm init", "needs a machine of its own"),
    ("helm install", "needs a control plane; tests/kubernetes.py renders it"),
    ("k3s server", "needs k3s"),
];

/// A block that is no command and no configuration of ours: the page, a part of it, the reason.
pub(super) const PLAIN: &[(&str, &str, &str)] = &[
    ("README.md", "runtime ──exec──>", "a picture"),
    ("docs/protocol.md", "intend 42", "a picture"),
    ("docs/protocol.md", "claim ahead", "a picture"),
    (
        "docs/etcd.md",
        "--auto-compaction-mode=periodic",
        "the walk through the compaction, in \
                                                         tests/it/docs.rs, starts etcd with it",
    ),
];
