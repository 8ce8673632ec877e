//! Stopping a process where it stands.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::poll;

/// How long the threads of a process may take to stop on a busy machine.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Stops a process; its connections stay. When this returns none of its threads runs any more: the
/// signal alone is carried out at some time after it was sent.
pub(crate) fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    assert!(poll(STOP_MAX, || is_stopped(pid)), "process {pid} does not stop");
}

/// Lets a stopped process go on.
pub(crate) fn go_on(pid: u32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("a signal");
}

/// Whether the state of every thread is `T`, as the kernel says.
fn is_stopped(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    tasks.map(|task| task.expect("a thread").path().join("stat")).all(|stat| {
        // A thread that is gone runs no more.
        let stat = fs::read_to_string(stat).unwrap_or_else(|_| ") T".to_owned());
        stat.rsplit_once(')').is_some_and(|(_, after)| after.trim_start().starts_with('T'))
    })
}
