//! Goal: no address is given twice and nothing answered is lost, whatever real processes suffer.
//!
//! Method: three daemons on an etcd of one or three members, which they reach through relays, and
//! callers that behave as a runtime does: calls without an answer are repeated, callers hang up,
//! DELs find no daemon. Meanwhile a seed draws faults (`faults.rs`): daemons are killed, stopped in
//! order, suspended and cut off, etcd too, disks become full, machines are rebooted, state
//! directories are lost or old copies, a second daemon takes a name, a machine is lost and removed,
//! etcd is set back to a backup. A judge (`judge.rs`) reads only what callers saw and what nodes
//! list; `planted.rs` tests it. What `docs/protocol.md` says that nobody can know is excused, for
//! the node and the time that it is about. In the end everything is mended: nodes hold what they
//! answered, all of it can be ended, the records are right, and every address can be had again.
//!
//! The test command runs for about a minute, with a new seed each time, which it prints. Processes
//! are not the simulator: the same seed draws the same faults, but seldom gives the same history.
//! For longer runs:
//!
//! ```text
//! LEASEHOLD_CHAOS_SECONDS=3600 cargo test --test it chaos::a_minute_of_faults -- --nocapture
//! LEASEHOLD_SEED=17 LEASEHOLD_CHAOS_FAULTS=kill,restore ...
//! ```
//!
//! Names of faults are those of the table in `faults.rs`; `none` is no fault. Those that take
//! minutes (`lostnode`, `restore`) are drawn in runs that are long enough.

mod callers;
mod end;
mod faults;
mod history;
mod judge;
mod link;
mod planted;
mod points;
mod recovery;
mod run;
mod settings;
mod teeth;

use run::Run;
use settings::Settings;

/// Nothing is given twice, lost, risen or left behind.
#[test]
fn a_minute_of_faults() {
    let settings = Settings::of_environment();
    println!("{settings}");
    let seed = settings.seed;
    let report = Run::go(settings);
    println!("{:.0?}: {:?}, faults {:?}", report.took, report.counts, report.faults);
    assert!(report.stories.is_empty(), "seed {seed}:\n{}", report.stories.join("\n"));
    assert!(report.counts.added > 0, "nothing was answered");
}
