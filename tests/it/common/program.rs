//! Programs that tests put somewhere and run.
//!
//! The kernel refuses to run a file that somebody has open for writing ("Text file busy"). If this
//! process wrote the file, a program that another test starts at that moment would have it open,
//! too, until it runs. So another process does the writing, and is gone when the file is run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program; everybody may run the copy.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let mut install = Command::new("install");
    let status = install.args(["-m", "755"]).args([from, to]).status().expect("install runs");
    assert!(status.success(), "cannot copy {} to {}", from.display(), to.display());
}

/// Writes a program that is text (a shell script with its `#!` line); everybody may run it.
pub(crate) fn write_program(path: &Path, text: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().expect("install runs");
    let mut pipe = install.stdin.take().expect("a pipe");
    pipe.write_all(text.as_bytes()).expect("the text is taken");
    drop(pipe);
    assert!(install.wait().expect("install ends").success(), "cannot write {}", path.display());
}
