use super::*;

const GRACE: u64 = 300;
const CONFIRM: u64 = 30;

fn at(seconds: u64) -> Now {
    Now { unix_ms: 1_000_000_000 + seconds * 1000, up: Duration::from_secs(seconds) }
}

fn rules() -> Rules {
    Rules {
        grace: Duration::from_secs(GRACE),
        confirm: Duration::from_secs(CONFIRM),
        allow_many: false,
    }
}

/// The object `uid` of the node `n<uid>` on the machine `m<uid>`.
fn node(uid: u32) -> NodeObject {
    NodeObject { uid: format!("u{uid}"), name: format!("n{uid}"), machine: format!("m{uid}") }
}

fn nodes(count: u32) -> Vec<NodeObject> {
    (0..count).map(node).collect()
}

fn ledger(count: u32) -> Ledger {
    let mut ledger = Ledger::new(rules(), BTreeMap::new());
    assert_eq!(ledger.list(nodes(count), at(0)), []);
    ledger
}

fn names(due: &[Due]) -> Vec<&str> {
    due.iter().map(|due| due.name.as_str()).collect()
}

fn name(uid: u32) -> String {
    format!("n{uid}")
}

#[test]
fn a_node_whose_object_is_deleted_is_due_after_the_grace() {
    let mut ledger = ledger(3);
    assert_eq!(ledger.disappear("u1", at(10)), [News::Missing(name(1))]);
    assert_eq!(ledger.due(at(10 + GRACE - 1)), []);
    let due = ledger.due(at(10 + GRACE));
    let NodeObject { uid, name, machine } = node(1);
    assert_eq!(due, [Due { uid: uid.clone(), name, machine }]);
    ledger.ended(&uid, &Ended::Gone, at(10 + GRACE));
    assert!(ledger.due(at(10_000)).is_empty() && !ledger.entries().contains_key(&uid));
}

#[test]
fn a_deletion_that_nobody_watched_is_found_by_the_list() {
    let entries = ledger(3).entries().clone();
    let mut later = Ledger::new(rules(), entries);
    // Without a list nobody knows anything.
    assert_eq!((later.due(at(9999)), later.doubt()), (vec![], Some(Doubt::Empty)));
    assert_eq!(later.list(nodes(2), at(10_000)), [News::Missing(name(2))]);
    assert_eq!(later.due(at(10_000 + GRACE - 1)), []);
    assert_eq!(names(&later.due(at(10_000 + GRACE))), ["n2"]);
}

#[test]
fn a_restart_neither_shortens_nor_lengthens_the_grace() {
    let mut before = ledger(3);
    before.disappear("u1", at(0));
    let entries = before.entries().clone();
    // The next instance starts at 200 s; its own clock starts at 0.
    let now = |seconds| Now { up: Duration::from_secs(seconds), ..at(200 + seconds) };
    let mut after = Ledger::new(rules(), entries);
    assert_eq!(after.list(vec![node(0), node(2)], now(0)), []);
    assert_eq!(after.due(now(99)), []);
    assert_eq!(names(&after.due(now(100))), ["n1"]);
}

#[test]
fn clocks_that_differ_do_not_make_a_node_due_at_once() {
    let mut before = ledger(3);
    before.disappear("u1", at(0));
    let entries = before.entries().clone();
    // This clock is a day ahead.
    let ahead = |seconds| Now { up: Duration::from_secs(seconds), ..at(86_400 + seconds) };
    let mut after = Ledger::new(rules(), entries.clone());
    after.list(vec![node(0), node(2)], ahead(0));
    assert_eq!(after.due(ahead(CONFIRM - 1)), []);
    assert_eq!(names(&after.due(ahead(CONFIRM))), ["n1"]);
    // This one is behind: the grace starts anew, and ends.
    let behind = |seconds: u64| Now { unix_ms: seconds * 1000, up: Duration::from_secs(seconds) };
    let mut after = Ledger::new(rules(), entries);
    after.list(vec![node(0), node(2)], behind(0));
    assert_eq!(after.due(behind(GRACE - 1)), []);
    assert_eq!(names(&after.due(behind(GRACE))), ["n1"]);
}

#[test]
fn an_object_that_is_there_again_is_not_missing() {
    let mut ledger = ledger(3);
    ledger.disappear("u1", at(0));
    assert_eq!(ledger.appear(node(1), at(100)), [News::Back(name(1))]);
    assert_eq!(ledger.due(at(9999)), []);
    ledger.disappear("u1", at(10_000));
    assert_eq!(ledger.due(at(10_000 + GRACE - 1)), [], "the grace starts anew");
    assert_eq!(names(&ledger.due(at(10_000 + GRACE))), ["n1"]);
}

#[test]
fn a_machine_that_registers_again_is_not_ended() {
    let mut ledger = ledger(3);
    ledger.disappear("u1", at(0));
    let again = NodeObject { uid: "new".to_owned(), ..node(1) };
    assert_eq!(ledger.appear(again, at(9999)), [News::Registered(name(1))]);
    assert_eq!(ledger.due(at(99_999)), []);
    assert!(!ledger.entries().contains_key("u1") && ledger.entries().contains_key("new"));
}

#[test]
fn another_machine_under_the_name_does_not_save_the_old_one() {
    let mut ledger = ledger(3);
    ledger.disappear("u1", at(0));
    let other = NodeObject { uid: "new".to_owned(), machine: "other".to_owned(), ..node(1) };
    assert_eq!(ledger.appear(other, at(1)), []);
    let due = ledger.due(at(GRACE));
    let expected = Due { uid: "u1".to_owned(), name: name(1), machine: "m1".to_owned() };
    assert_eq!(due, [expected], "by its own machine");
    ledger.ended("u1", &Ended::Gone, at(GRACE));
    assert!(ledger.entries().contains_key("new") && ledger.due(at(99_999)).is_empty());
}

#[test]
fn a_machine_that_lives_under_another_name_is_not_ended() {
    let mut ledger = ledger(3);
    ledger.disappear("u1", at(0));
    let renamed = NodeObject { uid: "new".to_owned(), name: "renamed".to_owned(), ..node(1) };
    ledger.appear(renamed, at(1));
    assert_eq!(ledger.due(at(99_999)), []);
    assert_eq!(ledger.renamed(), [("n1", "renamed")]);
    ledger.disappear("new", at(100_000));
    assert_eq!(names(&ledger.due(at(100_000 + GRACE))), ["renamed", "n1"]);
}

#[test]
fn an_empty_list_ends_nothing() {
    let mut ledger = ledger(3);
    assert_eq!(ledger.list(vec![], at(10)), []);
    assert_eq!((ledger.due(at(99_999)), ledger.doubt()), (vec![], Some(Doubt::Empty)));
    assert!(ledger.entries().values().all(|entry| entry.missing_since_unix_ms.is_none()));
    // Nor does an empty list after one was missing, nor the deletion of the last one.
    ledger.list(nodes(2), at(20));
    ledger.list(vec![], at(9999));
    assert_eq!(ledger.due(at(9999)), []);
    ledger.list(vec![node(0)], at(10_000));
    ledger.disappear("u0", at(10_001));
    assert_eq!(ledger.due(at(99_999)), []);
    // With a permission to end many, too.
    ledger.rules.allow_many = true;
    assert_eq!(ledger.due(at(99_999)), []);
}

#[test]
fn many_that_are_missing_at_once_wait_for_a_person() {
    let mut ledger = ledger(8);
    ledger.list(nodes(4), at(0));
    assert_eq!((ledger.doubt(), ledger.due(at(GRACE)).len()), (None, 4), "half of them");
    ledger.list(nodes(3), at(1));
    assert_eq!(ledger.doubt(), Some(Doubt::Many { missing: 5, remembered: 8 }));
    assert_eq!(ledger.due(at(99_999)), [], "more than half of them");
    assert!(!ledger.is_due("u7", at(99_999)));
    ledger.rules.allow_many = true;
    assert_eq!((ledger.doubt(), ledger.due(at(99_999)).len()), (None, 5));
    ledger.rules.allow_many = false;
    // Those that are removed count no longer.
    let quarantine = Duration::from_secs(3600);
    for uid in 3..6 {
        ledger.ended(&format!("u{uid}"), &Ended::Removed { quarantine }, at(9));
    }
    assert_eq!((ledger.doubt(), names(&ledger.due(at(40 + GRACE)))), (None, vec!["n6", "n7"]));
}

#[test]
fn two_of_two_may_go_together() {
    let mut ledger = ledger(3);
    ledger.list(nodes(1), at(0));
    assert_eq!(names(&ledger.due(at(GRACE))), ["n1", "n2"]);
}

#[test]
fn a_node_without_a_machine_id_is_forgotten_and_not_ended() {
    let mut ledger = ledger(2);
    let nameless = NodeObject { machine: String::new(), ..node(7) };
    ledger.appear(nameless.clone(), at(0));
    assert_eq!(ledger.disappear("u7", at(1)), [News::Nameless(name(7))]);
    assert!(ledger.due(at(99_999)).is_empty() && !ledger.entries().contains_key("u7"));
    // An id that was known is not unlearned.
    ledger.appear(NodeObject { machine: String::new(), ..node(1) }, at(2));
    ledger.disappear("u1", at(3));
    assert_eq!(ledger.due(at(3 + GRACE))[0].machine, "m1");
}

#[test]
fn a_node_that_runs_is_tried_again_ever_more_seldom() {
    let mut ledger = ledger(3);
    ledger.disappear("u1", at(0));
    let mut tries = Vec::new();
    for second in GRACE..GRACE + 3600 {
        if ledger.is_due("u1", at(second)) {
            tries.push(second - GRACE);
            ledger.ended("u1", &Ended::Later("it runs".to_owned()), at(second));
        }
    }
    assert_eq!(tries[..6], [0, 30, 90, 210, 450, 930]);
    assert!(tries[6..].windows(2).all(|pair| pair[1] - pair[0] == 600), "{tries:?}");
}

#[test]
fn a_removed_node_is_asked_about_once_more_after_its_quarantine() {
    let mut ledger = ledger(3);
    ledger.disappear("u1", at(0));
    let quarantine = Duration::from_secs(300);
    ledger.ended("u1", &Ended::Removed { quarantine }, at(GRACE));
    assert!(ledger.entries()["u1"].forget_from_unix_ms.is_some());
    let again = GRACE + 300 + limits::FORGET_AFTER.as_secs();
    assert_eq!((ledger.due(at(again - 1)), ledger.due(at(again)).len()), (vec![], 1));
    // The next leader does not ask earlier either.
    let mut next = Ledger::new(rules(), ledger.entries().clone());
    next.list(vec![node(0), node(2)], at(GRACE + 1));
    assert_eq!((next.due(at(again - 1)), next.due(at(again)).len()), (vec![], 1));
    ledger.ended("u1", &Ended::Gone, at(again));
    assert!(!ledger.entries().contains_key("u1"));
}

#[test]
fn a_removed_machine_that_registers_again_is_a_node_like_others() {
    let mut ledger = ledger(3);
    ledger.disappear("u1", at(0));
    ledger.ended("u1", &Ended::Removed { quarantine: Duration::ZERO }, at(GRACE));
    ledger.appear(node(1), at(GRACE + 1));
    assert_eq!(ledger.due(at(99_999)), []);
    assert!(ledger.entries()["u1"].forget_from_unix_ms.is_none());
}

#[test]
fn an_hour_without_the_api_server_ends_nobody_too_early() {
    let mut ledger = ledger(5);
    ledger.disappear("u1", at(10));
    // For an hour there is no list. Meanwhile n1 registers again, n2 is deleted, and n3 is
    // replaced by another machine.
    let other = NodeObject { uid: "v3".to_owned(), machine: "other".to_owned(), ..node(3) };
    let again = NodeObject { uid: "v1".to_owned(), ..node(1) };
    let news = ledger.list(vec![node(0), again, other, node(4)], at(3600));
    assert_eq!(
        news,
        [News::Registered(name(1)), News::Missing(name(2)), News::Missing(name(3))],
        "each grace begins when the object is first found missing"
    );
    assert_eq!(ledger.due(at(3600 + GRACE - 1)), []);
    let due = ledger.due(at(3600 + GRACE));
    let machines: Vec<&str> = due.iter().map(|due| due.machine.as_str()).collect();
    assert_eq!(machines, ["m2", "m3"]);
}
