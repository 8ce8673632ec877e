//! Suspends and resumes processes.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::poll;

/// The time within which the threads of a process must stop on a busy machine.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Suspends a process; its connections stay. Waits until all of its threads have stopped, because
/// the kernel carries the signal out at some time after it was sent.
pub(crate) fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    assert!(poll(STOP_MAX, || is_stopped(pid)), "process {pid} does not stop");
}

/// Resumes a suspended process.
pub(crate) fn go_on(pid: u32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("a signal");
}

/// True if the state of every thread is `T`, as the kernel says.
fn is_stopped(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    tasks.map(|task| task.expect("a thread").path().join("stat")).all(|stat| {
        // A thread that is gone counts as stopped.
        let stat = fs::read_to_string(stat).unwrap_or_else(|_| ") T".to_owned());
        stat.rsplit_once(')').is_some_and(|(_, after)| after.trim_start().starts_with('T'))
    })
}
