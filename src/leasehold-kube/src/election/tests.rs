use super::*;

const DURATION: Duration = Duration::from_secs(15);

fn lease(version: &str, holder: &str) -> LeaseState {
    LeaseState {
        version: version.to_owned(),
        holder: holder.to_owned(),
        duration: DURATION,
        transitions: 3,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn write(version: &str, transitions: i32) -> Step {
    Step::Write { version: version.to_owned(), transitions }
}

#[test]
fn the_first_instance_makes_the_lease_and_renews_it() {
    let mut me = Election::new("a".to_owned(), DURATION);
    assert_eq!(me.decide(None, at(0)), Step::Create);
    assert_eq!(me.held_until(), None);
    me.written(at(1));
    assert_eq!(me.held_until(), Some(at(16)));
    assert_eq!(me.decide(Some(&lease("1", "a")), at(6)), write("1", 3));
    me.written(at(6));
    assert_eq!(me.held_until(), Some(at(21)));
}

#[test]
fn a_lease_that_changes_is_never_taken() {
    let mut me = Election::new("b".to_owned(), DURATION);
    for second in 0..100 {
        let version = (second / 14).to_string();
        assert_eq!(me.decide(Some(&lease(&version, "a")), at(second)), Step::Wait, "{second}");
    }
}

#[test]
fn a_lease_is_taken_after_its_duration_by_the_clock_of_the_observer() {
    let mut me = Election::new("b".to_owned(), DURATION);
    // This instance started now: it cannot know since when the Lease is as it is.
    assert_eq!(me.decide(Some(&lease("7", "a")), at(1000)), Step::Wait);
    assert_eq!(me.decide(Some(&lease("7", "a")), at(1014)), Step::Wait);
    assert_eq!(me.decide(Some(&lease("7", "a")), at(1015)), write("7", 4));
    // Another one was faster.
    me.refused();
    assert_eq!(me.held_until(), None);
    assert_eq!(me.decide(Some(&lease("8", "c")), at(1016)), Step::Wait);
    assert_eq!(me.decide(Some(&lease("8", "c")), at(1030)), Step::Wait);
    assert_eq!(me.decide(Some(&lease("8", "c")), at(1031)), write("8", 4));
}

#[test]
fn a_lease_that_was_given_up_is_taken_at_once() {
    let mut me = Election::new("b".to_owned(), DURATION);
    assert_eq!(me.decide(Some(&lease("7", "")), at(0)), write("7", 4));
}

#[test]
fn a_leader_that_finds_another_one_stops_at_once() {
    let mut me = Election::new("a".to_owned(), DURATION);
    me.written(at(0));
    assert_eq!(me.decide(Some(&lease("9", "b")), at(5)), Step::Wait);
    assert_eq!(me.held_until(), None);
    // A renewal that is refused says the same.
    me.written(at(5));
    assert_eq!(me.decide(Some(&lease("10", "a")), at(6)), write("10", 3));
    me.refused();
    assert_eq!(me.held_until(), None);
    // Its Lease was deleted: it leads again only once it has written another one.
    me.written(at(6));
    assert_eq!(me.decide(None, at(7)), Step::Create);
    assert_eq!(me.held_until(), None);
}

#[test]
fn the_time_of_others_is_bounded() {
    let mut me = Election::new("b".to_owned(), DURATION);
    let long = LeaseState { duration: Duration::MAX, ..lease("1", "a") };
    assert_eq!(me.decide(Some(&long), at(0)), Step::Wait);
    assert_eq!(me.decide(Some(&long), limits::LEASE_MAX), write("1", 4));
}
