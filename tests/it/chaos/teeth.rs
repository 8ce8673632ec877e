//! Rules that daemons break on purpose (`src/core/mutant.rs`): the runner must notice.

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use super::run::Run;
use super::settings::Settings;

/// A rule to break, and the runs that must notice.
struct Tooth {
    switch: &'static str,
    /// The faults that bring it to light.
    faults: &'static str,
    /// The time of one run.
    seconds: u64,
    /// It is noticed within so many runs.
    runs: u64,
    /// It is noticed so soon that every run of the tests tries it.
    is_quick: bool,
}

const fn tooth(switch: &'static str, faults: &'static str, seconds: u64, runs: u64) -> Tooth {
    Tooth { switch, faults, seconds, runs, is_quick: false }
}

const fn quick(switch: &'static str, faults: &'static str, seconds: u64, runs: u64) -> Tooth {
    Tooth { is_quick: true, ..tooth(switch, faults, seconds, runs) }
}

/// The rules whose breach real daemons show. The others need a moment that the simulator finds.
const TEETH: [Tooth; 14] = [
    quick("OverlapNotCompared", "none", 15, 2),
    quick("SpareIsActive", "pause", 20, 2),
    quick("ForgetsUnnoticed", "wipe", 25, 2),
    tooth("ActiveOnLease", "pause,cut", 25, 2),
    tooth("UnknownMeansFailed", "mute,cut", 20, 2),
    tooth("WatchDecides", "cut,bounce", 20, 3),
    tooth("GiveWhatIsHeld", "none", 15, 2),
    tooth("SilentIsGone", "cut,pause", 25, 4),
    tooth("IntentBeforeDurable", "oldcopy,kill", 30, 2),
    tooth("BlockNotJournalled", "kill", 15, 2),
    tooth("NameInherits", "usurp", 25, 4),
    tooth("RecordsUnread", "wipe", 25, 2),
    tooth("UndoEndsMore", "mute,etcdpause,cut", 25, 4),
    tooth("FailedCommitIsGood", "disk", 25, 2),
];

impl Tooth {
    /// Says how it was noticed, if it was.
    fn bites(&self) -> Result<String, String> {
        let begun = Instant::now();
        for seed in 1..=self.runs {
            let time = Duration::from_secs(self.seconds);
            let settings = Settings::new(seed, time, self.faults, Some(self.switch.to_owned()));
            // The end of a run looks at more than the judge does, and panics.
            let found = match catch_unwind(|| Run::go(settings).stories.first().cloned()) {
                Ok(found) => found,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    Some(text.unwrap_or_else(|| "a check of the end".to_owned()))
                }
            };
            if let Some(found) = found {
                let cause = found.lines().next().unwrap_or_default();
                let took = begun.elapsed();
                return Ok(format!("{}: run {seed}, {took:.0?}: {cause:.150}", self.switch));
            }
        }
        Err(format!("{} is not noticed in {} runs", self.switch, self.runs))
    }
}

fn check(teeth: impl Iterator<Item = &'static Tooth>) {
    // Everything is there, and where no rule is broken nothing is found.
    let whole = Run::go(Settings::new(1, Duration::from_secs(5), "none", None));
    assert!(whole.stories.is_empty(), "{}", whole.stories.join("\n"));
    let mut missed = Vec::new();
    for tooth in teeth {
        match tooth.bites() {
            Ok(how) => println!("{how}"),
            Err(missing) => missed.push(missing),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Those that are noticed quickly.
#[test]
fn broken_rules_are_noticed_on_real_daemons() {
    check(TEETH.iter().filter(|tooth| tooth.is_quick));
}

/// All of them. `LEASEHOLD_MUTANT` names the only one to break.
#[test]
#[ignore = "it takes half an hour"]
fn every_broken_rule_of_the_table_is_noticed_on_real_daemons() {
    let only = std::env::var("LEASEHOLD_MUTANT").ok();
    check(TEETH.iter().filter(|tooth| only.as_ref().is_none_or(|only| only == tooth.switch)));
}
