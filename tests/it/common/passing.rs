//! Network namespaces that end with a process.

use std::process::{Child, Command, Stdio};

/// A network namespace that is there as long as this is.
pub(crate) struct Passing(Child);

impl Passing {
    pub(crate) fn start() -> Self {
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("3600").stdin(Stdio::null()).spawn().expect("sleep");
        Self(child)
    }

    /// Its path.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
