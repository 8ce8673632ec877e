//! Faults: each one breaks something, waits, and mends it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;

use super::callers::{addresses, call, post};
use super::history::What;
use super::link::Way;
use super::run::{Copy, Node, Run};
use super::settings::{LEASE_TTL, NODES};
use crate::common::{Client, Daemon, LEASEHOLD, Outcome, go_on, stop};

/// The longest pause between two faults of one thread.
const GAP_MAX_MS: u64 = 1_500;
/// The time within which a node is a member again.
const MEMBER_WITHIN: Duration = Duration::from_secs(60);
/// Longer than answers are on their way.
const ANSWERS_END: Duration = Duration::from_millis(300);
/// A backup that is older cannot pass for the present store: each node writes its key once a
/// minute.
const BACKUP_AGE_MIN: Duration = Duration::from_secs(70);
/// The time for which a restore of etcd may not be settled.
const SETTLED_WITHIN: Duration = Duration::from_secs(100);
/// The time for which a second daemon tries to serve under a node's name.
const USURPED_FOR: Duration = Duration::from_secs(8);

/// A kind of fault.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The time that it takes, at most.
    pub(super) least: Duration,
    /// No other fault happens meanwhile: the documents promise something only then.
    is_alone: bool,
    /// It does not fit into a short run.
    pub(super) is_long: bool,
    /// Does it; false if it could not.
    make: fn(&Run, &mut Rng) -> bool,
}

const fn short(name: &'static str, least: u64, make: fn(&Run, &mut Rng) -> bool) -> Fault {
    Fault { name, least: Duration::from_secs(least), is_alone: false, is_long: false, make }
}

const fn alone(name: &'static str, least: u64, make: fn(&Run, &mut Rng) -> bool) -> Fault {
    Fault { is_alone: true, ..short(name, least, make) }
}

const fn long(name: &'static str, least: u64, make: fn(&Run, &mut Rng) -> bool) -> Fault {
    Fault { is_long: true, ..alone(name, least, make) }
}

/// All kinds.
pub(super) static ALL: [Fault; 16] = [
    short("kill", 3, kill),
    short("bounce", 4, bounce),
    short("term", 8, term),
    short("pause", 12, pause),
    short("cut", 10, cut),
    short("mute", 10, mute),
    short("etcdkill", 12, etcd_kill),
    short("etcdpause", 12, etcd_pause),
    short("leader", 12, leader),
    short("disk", 12, disk),
    short("reboot", 4, reboot),
    alone("wipe", 15, wipe),
    alone("oldcopy", 15, old_copy),
    alone("usurp", 20, usurp),
    long("lostnode", 95, lost_node),
    long("restore", 90, restore),
];

/// Makes faults until it is time to mend everything.
pub(super) fn break_things(run: &Run, mut rng: Rng, until: Duration) {
    let left = || until.saturating_sub(run.history.now());
    while left() > Duration::ZERO && !run.is_over() {
        run.sleep(Duration::from_millis(rng.u64(50..GAP_MAX_MS)).min(left()));
        let fits: Vec<_> =
            run.settings.faults.iter().filter(|fault| fault.least < left()).collect();
        let Some(fault) = (!fits.is_empty()).then(|| fits[rng.usize(..fits.len())]) else {
            continue;
        };
        let done = if fault.is_alone {
            let _alone = run.alone.write().expect("the faults");
            fault.least < left() && (fault.make)(run, &mut rng)
        } else {
            let _among_others = run.alone.read().expect("the faults");
            (fault.make)(run, &mut rng)
        };
        if done {
            run.count(fault.name);
        }
    }
}

/// A node to whose process nothing else is done.
fn some_node<'a>(run: &'a Run, rng: &mut Rng) -> Option<(&'a Node, MutexGuard<'a, Daemon>)> {
    let first = rng.usize(..NODES);
    (0..NODES).find_map(|at| {
        let node = &run.nodes[(first + at) % NODES];
        let mut daemon = node.daemon.try_lock().ok()?;
        if let Some(status) = daemon.ended() {
            panic!("{} has ended by itself: {status}\n{}", node.name, daemon.log_tail());
        }
        Some((node, daemon))
    })
}

/// A time that is short, like a lease's, or longer than a lease lives.
fn some_time(rng: &mut Rng) -> Duration {
    Duration::from_millis(match rng.u8(..3) {
        0 => rng.u64(..500),
        1 => rng.u64(500..4_000),
        _ => rng.u64(5_500..9_000),
    })
}

fn kill(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    run.history.fault(format!("kill -9 {}", node.name));
    daemon.kill9();
    run.sleep(Duration::from_millis(rng.u64(..2_000)));
    run.history.fault(format!("start {}", node.name));
    daemon.begin();
    true
}

/// Kills a daemon again and again while it starts.
fn bounce(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    run.history.fault(format!("kill -9 {}, again and again", node.name));
    for _ in 0..rng.u8(2..7) {
        daemon.kill9();
        daemon.begin();
        run.sleep(Duration::from_millis(rng.u64(..500)));
    }
    run.history.fault(format!("{} may start", node.name));
    true
}

fn term(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    run.history.fault(format!("SIGTERM to {}", node.name));
    daemon.terminate();
    run.history.fault(format!("{} has ended", node.name));
    run.sleep(Duration::from_millis(rng.u64(..3_000)));
    run.history.fault(format!("start {}", node.name));
    daemon.begin();
    true
}

fn pause(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, daemon)) = some_node(run, rng) else { return false };
    run.history.fault(format!("SIGSTOP to {}", node.name));
    stop(daemon.pid());
    run.sleep(some_time(rng));
    go_on(daemon.pid());
    run.history.fault(format!("SIGCONT to {}", node.name));
    true
}

fn cut(run: &Run, rng: &mut Rng) -> bool {
    disturb(run, rng, Way::Cut)
}

fn mute(run: &Run, rng: &mut Rng) -> bool {
    disturb(run, rng, Way::Mute)
}

/// Disturbs the way between a daemon and etcd.
fn disturb(run: &Run, rng: &mut Rng, way: Way) -> bool {
    let node = &run.nodes[rng.usize(..NODES)];
    let Ok(_wire) = node.wire.try_lock() else { return false };
    run.history.fault(format!("the way of {} to etcd: {way:?}", node.name));
    node.links.set(way);
    run.sleep(some_time(rng));
    if way == Way::Mute && rng.bool() {
        node.links.set(Way::Cut);
    }
    node.links.set(Way::Open);
    run.history.fault(format!("the way of {} to etcd is open", node.name));
    true
}

fn etcd_kill(run: &Run, rng: &mut Rng) -> bool {
    let Ok(mut etcd) = run.etcd.try_lock() else { return false };
    let all: Vec<usize> = (0..run.settings.members).collect();
    run.history.fault("kill -9 all of etcd".to_owned());
    all.iter().for_each(|&at| etcd.kill(at));
    run.sleep(some_time(rng));
    etcd.restart_all(&all);
    run.history.fault("etcd is back".to_owned());
    true
}

fn etcd_pause(run: &Run, rng: &mut Rng) -> bool {
    let Ok(etcd) = run.etcd.try_lock() else { return false };
    let at = rng.usize(..run.settings.members);
    run.history.fault(format!("SIGSTOP to member {at} of etcd"));
    etcd.pause(at);
    run.sleep(some_time(rng));
    etcd.resume(at);
    run.history.fault(format!("SIGCONT to member {at} of etcd"));
    true
}

fn leader(run: &Run, rng: &mut Rng) -> bool {
    let Ok(mut etcd) = run.etcd.try_lock() else { return false };
    let at = etcd.leader();
    run.history.fault(format!("kill -9 member {at} of etcd, the leader"));
    etcd.kill(at);
    run.sleep(some_time(rng));
    etcd.restart(at);
    run.history.fault(format!("member {at} of etcd is back"));
    true
}

/// A disk is full. When it has room again, the daemon goes on by itself, or somebody starts it; one
/// that starts on the full disk may refuse.
fn disk(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    let disk = node.disk.as_ref().expect("runs with this fault have small disks");
    run.history.fault(format!("the disk of {} is full", node.name));
    let ballast = disk.fill(0);
    run.sleep(some_time(rng));
    let is_killed = rng.bool();
    if is_killed {
        run.history.fault(format!("kill -9 {} on its full disk", node.name));
        daemon.kill9();
        daemon.begin();
        run.sleep(Duration::from_millis(rng.u64(..2_000)));
        daemon.kill9();
    }
    fs::remove_file(ballast).expect("room on the disk");
    run.history.fault(format!("the disk of {} has room", node.name));
    if is_killed {
        daemon.begin();
    }
    true
}

/// The machine ends with all of its containers, and starts again. Its journal may be torn.
fn reboot(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    let is_torn = rng.u8(..10) < 3;
    run.history.fault(format!("{} is rebooted (its journal is torn: {is_torn})", node.name));
    daemon.kill9();
    run.sleep(ANSWERS_END);
    node.next_boot();
    run.history.note(What::Rebooted(node.at));
    run.copies.lock().expect("the copies").retain(|copy| copy.node != node.at);
    if is_torn {
        tear(&daemon.state_dir().join("journal.redb"), rng);
    }
    run.sleep(Duration::from_millis(rng.u64(..2_000)));
    run.history.fault(format!("start {}", node.name));
    daemon.begin();
    true
}

/// Cuts a file off somewhere, if it is there: a daemon may have been killed in its first moments.
fn tear(path: &Path, rng: &mut Rng) {
    let Ok(file) = File::options().write(true).open(path) else { return };
    let length = file.metadata().expect("the file's length").len();
    file.set_len(rng.u64(..=length)).expect("a shorter file");
}

/// Waits until a node is a member, all records are written, and the watch of this run knows it.
fn await_recorded(run: &Run, node: &Node) -> bool {
    let begun = run.history.now();
    run.poll(MEMBER_WITHIN, || *node.recorded.lock().expect("a time") > begun)
}

/// The state directory is lost while etcd can be asked.
fn wipe(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    if run.history.now() < settling(run) || !await_recorded(run, node) {
        return false;
    }
    run.history.fault(format!("the state directory of {} is lost", node.name));
    end(&mut daemon, rng);
    empty(&daemon.state_dir());
    forget(run, node, None);
    run.sleep(Duration::from_millis(rng.u64(..3_000)));
    remember(run, node, &mut daemon)
}

/// The state directory goes back to a copy. The first time, the copy is made.
fn old_copy(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    if run.history.now() < settling(run) || !await_recorded(run, node) {
        return false;
    }
    let mut copies = run.copies.lock().expect("the copies");
    let Some(copy) = copies.iter().find(|copy| copy.node == node.at) else {
        let at = run.history.now();
        daemon.kill9();
        let dir = tempfile::TempDir::with_prefix("leasehold-copy-").expect("a directory");
        copy_all(&daemon.state_dir(), dir.path());
        copies.push(Copy { node: node.at, at, dir });
        run.history.fault(format!("kill -9 {}; its state directory is copied", node.name));
        daemon.begin();
        return false;
    };
    run.history.fault(format!("the state directory of {} goes back to its copy", node.name));
    end(&mut daemon, rng);
    empty(&daemon.state_dir());
    copy_all(copy.dir.path(), &daemon.state_dir());
    forget(run, node, Some(copy.at));
    remember(run, node, &mut daemon)
}

/// Removes all that is in a state directory, which may be a link to a disk.
pub(super) fn empty(state: &Path) {
    for entry in fs::read_dir(state).expect("a state directory") {
        fs::remove_file(entry.expect("an entry").path()).expect("the end of a file");
    }
}

fn copy_all(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([&from.join("."), to]).status().expect("cp");
    assert!(status.success(), "cp -a {from:?} {to:?}");
}

/// Until when a restore of etcd may not be settled.
fn settling(run: &Run) -> Duration {
    *run.settling.lock().expect("a time")
}

fn end(daemon: &mut Daemon, rng: &mut Rng) {
    if rng.u8(..10) < 3 {
        daemon.terminate();
    } else {
        daemon.kill9();
    }
}

/// Says what a node may have forgotten, and nothing else: `commit = "etcd"` leaves no lag while
/// etcd answers, but for a DEL that repeats one without an answer; an old copy does not know of
/// newer DELs.
fn forget(run: &Run, node: &Node, copied: Option<Duration>) {
    let recorded = *node.recorded.lock().expect("a time");
    let edge = if run.settings.awaits_records { run.history.now() } else { recorded };
    let since_copy = |edge: Duration| copied.unwrap_or(edge).min(edge);
    run.history.note(What::Forgot {
        node: node.at,
        adds: edge,
        dels: since_copy(edge),
        repeated_dels: since_copy(recorded),
        cooldown: run.settings.cooldown,
    });
}

/// Starts a daemon that forgot, and waits until it has joined.
fn remember(run: &Run, node: &Node, daemon: &mut Daemon) -> bool {
    run.history.fault(format!("start {}", node.name));
    daemon.begin();
    let pid = daemon.pid();
    let joined = || {
        node.status().is_ok_and(|status| {
            status["about"]["pid"] == pid && status["cluster"]["state"] == "member"
        })
    };
    let joins = run.poll(MEMBER_WITHIN, joined);
    assert!(joins || run.is_over(), "{} never joins\n{}", node.name, daemon.log_tail());
    run.history.note(What::Remembered(node.at));
    joins
}

/// A second daemon starts under a node's name, which may sleep for longer than its lease lives.
fn usurp(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, daemon)) = some_node(run, rng) else { return false };
    let sleeps = rng.bool();
    run.history.fault(format!("a second daemon named {} starts (sleeps: {sleeps})", node.name));
    if sleeps {
        stop(daemon.pid());
    }
    let options = run.settings.options(&node.name, &node.links.endpoints, node.boot.path());
    let mut second = Daemon::prepare(&options);
    second.begin();
    let mut client = Client::with_limit(second.socket(), Duration::from_secs(5));
    let mut try_adds = |time: Duration| {
        run.poll(time, || {
            let (container, network) = (run.new_container(), &run.networks[0]);
            run.history.note(What::Add(container, NODES));
            let answer = post(&mut client, &call("ADD", container, network));
            run.history.note(match answer {
                Some(Outcome::Done(Some(result))) => What::Added(container, addresses(&result)),
                Some(Outcome::Refused(_)) => What::Refused(container, 0),
                _ => What::AddLost(container),
            });
            run.sleep(Duration::from_millis(100));
            false
        })
    };
    try_adds(if sleeps { LEASE_TTL + USURPED_FOR } else { USURPED_FOR / 2 });
    if sleeps {
        go_on(daemon.pid());
        run.history.fault(format!("SIGCONT to {}", node.name));
    }
    try_adds(Duration::from_secs(2));
    second.kill9();
    run.history.note(What::Gone(NODES));
    true
}

/// A machine is lost and its node removed. It comes back with its old disk, its containers stopped.
fn lost_node(run: &Run, rng: &mut Rng) -> bool {
    let Some((node, mut daemon)) = some_node(run, rng) else { return false };
    if run.history.now() < settling(run) || !await_recorded(run, node) {
        return false;
    }
    run.history.fault(format!("{} is lost", node.name));
    daemon.kill9();
    run.sleep(ANSWERS_END);
    node.stops.fetch_add(1, Ordering::SeqCst);
    run.history.note(What::Stopped(node.at));
    run.copies.lock().expect("the copies").retain(|copy| copy.node != node.at);
    let other = &run.nodes[(node.at + 1) % NODES];
    let session = format!("/leasehold/v1/sessions/{}", node.name);
    let gone = || {
        let etcd = run.etcd.lock().expect("etcd");
        etcd.ctl(&["get", &session]).is_empty()
    };
    assert!(run.poll(MEMBER_WITHIN, gone), "the session of {} does not end", node.name);
    let mut remove = Command::new(LEASEHOLD);
    remove.args(["node", "remove", &node.name, "--yes", "--quarantine", "60s"]);
    let output = remove.env("LEASEHOLD_SOCKET", &other.socket).output().expect("leasehold runs");
    assert!(output.status.success() || run.is_over(), "{output:?}");
    run.history.fault(format!("{} is removed", node.name));
    let soon = rng.bool();
    run.sleep(Duration::from_secs(if soon { rng.u64(2..30) } else { rng.u64(62..72) }));
    run.history.fault(format!("{} is back", node.name));
    daemon.begin();
    true
}

/// All members come back from a backup that is older than a minute. The first time, it is made.
fn restore(run: &Run, _: &mut Rng) -> bool {
    let Ok(mut etcd) = run.etcd.try_lock() else { return false };
    let mut backup = run.backup.lock().expect("the backup");
    let Some((at, path)) = backup.clone() else {
        *backup = Some((run.history.now(), etcd.save()));
        return false;
    };
    if run.history.now() < (at + BACKUP_AGE_MIN).max(settling(run)) {
        return false;
    }
    // A daemon that never starts again after it could not say what it holds.
    for node in &run.nodes {
        if !run.poll(MEMBER_WITHIN, || node.is_member()) {
            return false;
        }
    }
    run.history.fault(format!("etcd goes back to {:.3}", at.as_secs_f64()));
    etcd.restore(&path);
    run.history.fault("etcd is back from its backup".to_owned());
    *backup = None;
    run.copies.lock().expect("the copies").clear();
    *run.settling.lock().expect("a time") = run.history.now() + SETTLED_WITHIN;
    true
}
