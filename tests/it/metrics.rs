//! Goal: what operators see is true. Capacity agrees with the cluster's store to the address; every
//! metric that anything names is exported, and every exported one is documented.
//!
//! Method: real daemons on a real etcd, Debian's promtool for the formats, and documents,
//! dashboards and rules that are made from one source: `LEASEHOLD_WRITE=1 cargo test --test it --
//! metrics::generated` writes them, and without the variable they are compared.

mod bad_day;
mod capacity;
mod dashboards;
mod live;
mod names;
mod rules;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::common::feed;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Checks that a file is what its source makes, or writes it.
fn generated(path: &str, text: &str) {
    let place = root().join(path);
    if std::env::var_os("LEASEHOLD_WRITE").is_some() {
        fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
        return fs::write(&place, text).expect("a written file");
    }
    let found = fs::read_to_string(&place).unwrap_or_default();
    assert!(
        found == text,
        "{path} is not what its source makes: run \
         `LEASEHOLD_WRITE=1 cargo test --test it -- metrics::generated`"
    );
}

/// Runs promtool, which must succeed. Returns its output.
fn promtool(args: &[&str], stdin: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = feed(command, stdin);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "promtool {args:?} (Debian's package prometheus): {said}");
    said
}
