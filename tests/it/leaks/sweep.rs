//! The sweep, which an operator may turn off.

use std::time::{Duration, Instant};

use super::{Namespace, PATIENCE, add_in, added, config, holders, metric};
use crate::common::{Daemon, Options, poll};

/// The interval of the sweep, and the time for which a namespace must have been gone.
const SWEEP: [&str; 4] = ["--sweep", "1s", "--sweep-grace", "2s"];
/// The grace, less the time between two looks at the clock.
const GRACE_MIN: Duration = Duration::from_millis(1_900);
/// The time in which nothing must happen: twice the time that the sweep would take.
pub(super) const QUIET: Duration = Duration::from_secs(7);

pub(super) fn sweeping() -> Daemon {
    let args = SWEEP.map(str::to_owned).to_vec();
    Daemon::start(&Options { args, ..Options::default() })
}

#[test]
fn a_sweep_releases_what_was_gone_for_its_grace_time_and_nothing_else() {
    let daemon = sweeping();
    let pods = config("pods");
    let (gone, stays) = (Namespace::new(), Namespace::new());
    added(&add_in(&daemon, "gone", &gone.path(), &pods));
    added(&add_in(&daemon, "stays", &stays.path(), &pods));
    let unseen = std::path::Path::new("/run/netns/leasehold-of-another-mount-namespace");
    added(&add_in(&daemon, "unseen", unseen, &pods));
    drop(gone);
    let began = Instant::now();
    let swept = poll(PATIENCE, || !holders(&daemon).contains(&"gone".to_owned()));
    assert!(swept, "{:?}\n{}", holders(&daemon), daemon.log_tail());
    assert!(began.elapsed() >= GRACE_MIN, "swept after {:?}", began.elapsed());
    assert_eq!(holders(&daemon), ["stays", "unseen"]);
    assert!((metric(&daemon, "leasehold_swept_total{result=\"released\"}") - 1.0).abs() < 0.1);
    let log = daemon.log();
    assert!(log.contains("its network namespace is gone and no DEL came"), "{log}");
}

/// The sweep comes out of turn before anything is called exhausted.
#[test]
fn what_leaked_is_released_before_an_add_is_told_that_nothing_is_free() {
    let args = ["--sweep", "1h", "--sweep-grace", "1s"].map(str::to_owned).to_vec();
    let daemon = Daemon::start(&Options { args, ..Options::default() });
    let mut small = config("small");
    small["ipam"]["ranges"][0][0]["subnet"] = "10.61.0.0/29".into();
    let stays = Namespace::new();
    added(&add_in(&daemon, "stays", &stays.path(), &small));
    for leak in 0..4 {
        let gone = Namespace::new();
        added(&add_in(&daemon, &format!("leak-{leak}"), &gone.path(), &small));
    }
    let full = add_in(&daemon, "next", &stays.path(), &small);
    assert_eq!(full.code(), Some(100), "their grace is not over: {full:?}");
    assert!(format!("{full:?}").contains("leasehold check"), "{full:?}");
    let works = || add_in(&daemon, "next", &stays.path(), &small).succeeded();
    assert!(poll(PATIENCE, works), "{}", daemon.log_tail());
    assert!(holders(&daemon).contains(&"stays".to_owned()));
}

#[test]
fn without_a_sweep_nothing_is_released() {
    let args = ["--sweep", "0s"].map(str::to_owned).to_vec();
    let daemon = Daemon::start(&Options { args, ..Options::default() });
    let (gone, stays) = (Namespace::new(), Namespace::new());
    added(&add_in(&daemon, "gone", &gone.path(), &config("pods")));
    added(&add_in(&daemon, "stays", &stays.path(), &config("pods")));
    drop(gone);
    assert!(!poll(QUIET, || holders(&daemon).len() < 2), "{}", daemon.log_tail());
}

#[test]
fn a_sweep_is_configured_within_limits() {
    for (args, word) in [
        (&["--sweep", "0s", "--sweep-grace", "2s"][..], "sweepGrace needs sweep"),
        (&["--sweep", "10ms"], "it must be at least 1s"),
        (&["--sweep", "1s", "--sweep-grace", "2days"], "it must be at most 1day"),
    ] {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut daemon = Daemon::prepare(&Options { args, ..Options::default() });
        let (code, said) = daemon.refusal();
        assert!(code == 2 && said.contains(word), "{code}: {said}");
    }
}
