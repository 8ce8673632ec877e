//! What the tables keep, and what they do not.

use super::*;
use crate::core::attachment::{AttachmentId, Holding};

fn options(dir: &Path, cooldown: Millis) -> Options {
    Options {
        dir: dir.to_owned(),
        fsync: false,
        keep_after_reboot: false,
        boot_id: "boot".to_owned(),
        cooldown,
        now: 0,
    }
}

fn hold(sequence: u64) -> Record {
    let id =
        AttachmentId { network: "net".into(), container_id: "c".into(), ifname: "eth0".into() };
    let holding = Holding {
        id,
        addresses: vec!["10.0.0.2".parse().unwrap()].into(),
        sequence,
        started_at: None,
        since_unix_ms: 0,
        stage: None,
        pod: None,
    };
    Record::Hold(Arc::new(holding), "".into())
}

#[test]
fn what_has_cooled_off_leaves_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), 100);
    let (mut journal, _) = Journal::open(&options).unwrap();
    for at in 0..1_000 {
        journal.commit(&[Record::Cool(1, u128::from(at), at)]).unwrap();
    }
    drop(journal);
    let (_, opened) = Journal::open(&options).unwrap();
    let times: Vec<Millis> = opened.state.cooling.iter().map(|&(_, _, at)| at).collect();
    assert!(times.len() <= 110, "{} rows for a cooldown of 100", times.len());
    assert!((900..1_000).all(|at| times.contains(&at)), "what still cools is there");
}

#[test]
fn sequence_numbers_rise_over_restarts_also_when_nothing_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), 0);
    let mut last = 0;
    for _ in 0..3 {
        let (mut journal, opened) = Journal::open(&options).unwrap();
        let next = opened.state.next_sequence;
        assert!(next > last, "{next} was given before");
        for sequence in next..next + 10 {
            let held = hold(sequence);
            let Record::Hold(holding, _) = &held else { panic!() };
            let end = Record::End(holding.id.clone());
            journal.commit(&[held.clone(), end]).unwrap();
            last = sequence;
        }
    }
}
