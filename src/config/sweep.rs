//! The part of the configuration about the sweep, which releases the addresses of containers that
//! are gone without a DEL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::times::{sweep, sweep_every};
use crate::limits;

/// The options of `leasehold serve` about the sweep.
#[derive(Args, Clone, Default, Debug)]
pub struct SweepArgs {
    /// Interval at which to release addresses of containers whose network namespace is gone; 0s
    /// turns this off [default: 30s]
    #[arg(id = "sweep", long = "sweep", value_name = "TIME", env = "LEASEHOLD_SWEEP",
          value_parser = sweep_every)]
    pub every: Option<Duration>,
    /// Time for which the namespace must have been gone; needs sweep [default: 2m]
    #[arg(id = "sweep_grace", long = "sweep-grace", value_name = "TIME",
          env = "LEASEHOLD_SWEEP_GRACE", value_parser = sweep)]
    pub grace: Option<Duration>,
    /// Socket of the container runtime (CRI), such as unix:///run/containerd/containerd.sock: the
    /// sweep also releases addresses of pods that the runtime does not know
    #[arg(long, value_name = "SOCKET", env = "LEASEHOLD_CRI")]
    pub cri: Option<String>,
    /// Time for which the runtime must not have known the pod; needs cri [default: 10m]
    #[arg(long, value_name = "TIME", env = "LEASEHOLD_CRI_GRACE", value_parser = sweep)]
    pub cri_grace: Option<Duration>,
}

/// The sweep.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The time between two sweeps.
    pub every: Duration,
    /// The time for which a namespace must have been gone.
    pub grace: Duration,
    /// The socket of the container runtime that is asked for its pods, if it is, and the time for
    /// which it must not have known one.
    pub cri: Option<(PathBuf, Duration)>,
}

impl SweepArgs {
    /// These options, or else the others.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            every: self.every.or(other.every),
            grace: self.grace.or(other.grace),
            cri: self.cri.or(other.cri),
            cri_grace: self.cri_grace.or(other.cri_grace),
        }
    }

    /// The sweep, if it is on.
    ///
    /// # Errors
    /// An option needs another one, or the socket is none.
    pub(super) fn options(self) -> anyhow::Result<Option<Sweep>> {
        let every = self.every.unwrap_or(limits::SWEEP);
        for (name, given) in [("sweepGrace", self.grace.is_some()), ("cri", self.cri.is_some())] {
            anyhow::ensure!(
                !every.is_zero() || !given,
                "{name} needs sweep, which is off: give an interval (--sweep), or leave {name} out"
            );
        }
        anyhow::ensure!(
            self.cri.is_some() || self.cri_grace.is_none(),
            "criGrace needs cri: name the socket of the container runtime (--cri), or leave \
             criGrace out"
        );
        let grace = self.grace.unwrap_or(limits::SWEEP_GRACE);
        let cri_grace = self.cri_grace.unwrap_or(limits::CRI_GRACE);
        let cri = self.cri.as_deref().map(socket_of).transpose()?;
        let cri = cri.map(|socket| (socket, cri_grace));
        Ok((!every.is_zero()).then_some(Sweep { every, grace, cri }))
    }
}

/// The path of a socket, as kubelet has it in its options, or alone.
fn socket_of(text: &str) -> anyhow::Result<PathBuf> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    let path = Some(Path::new(path)).filter(|path| path.is_absolute());
    path.map(Path::to_path_buf).with_context(|| {
        format!(
            "cri: {text:?} is no unix socket: give its absolute path, such as \
             unix:///run/containerd/containerd.sock"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_url_or_a_path() {
        let path = PathBuf::from("/run/crio/crio.sock");
        assert_eq!(socket_of("unix:///run/crio/crio.sock").unwrap(), path);
        assert_eq!(socket_of("/run/crio/crio.sock").unwrap(), path);
        for wrong in ["", "unix://", "run/crio.sock", "unix://run/crio.sock", "tcp://127.0.0.1:1"] {
            let error = socket_of(wrong).unwrap_err().to_string();
            assert!(error.contains("is no unix socket"), "{wrong}: {error}");
        }
    }
}
