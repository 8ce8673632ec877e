//! Containers that come and go on several nodes until told to stop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Book, address_of};
use crate::common::{Call, Client, Daemon, Outcome};

/// Calls in one array.
const STEP: usize = 8;
/// The pause after a daemon did not answer.
const PAUSE: Duration = Duration::from_millis(20);

/// A churn that runs.
pub(super) struct Churn {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Worker>>,
}

/// The result of a churn.
#[derive(Default)]
pub(super) struct Report {
    /// The number of ADDs that were answered with an address.
    pub(super) added: usize,
    /// The longest time in which a worker got no answer to its ADDs.
    pub(super) longest: Duration,
    /// Messages of ADDs that were refused.
    pub(super) refused: Vec<String>,
    /// DELs and CHECKs that were answered with an error.
    pub(super) failed: Vec<String>,
    /// The number of times that a daemon did not answer at all.
    pub(super) silent: usize,
}

struct Worker {
    name: String,
    config: Value,
    client: Client,
    book: Arc<Book>,
    held: VecDeque<(String, String)>,
    /// Containers whose ADD or DEL was not answered: a runtime sends the DEL again.
    owed: Vec<String>,
    serial: usize,
    last: Instant,
    report: Report,
}

impl Churn {
    /// Starts one worker for each daemon, each of which holds up to a number of addresses at once.
    /// The book is its own, or shared with others.
    pub(super) fn start(
        book: &Arc<Book>,
        daemons: &[Daemon],
        config: &Value,
        keep: usize,
        name: &str,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |(at, daemon): (usize, &Daemon)| {
            let (stop, config) = (stop.clone(), config.clone());
            let mut worker = Worker {
                name: format!("{name}-{at}"),
                config,
                client: daemon.client(),
                book: book.clone(),
                held: VecDeque::new(),
                owed: Vec::new(),
                serial: 0,
                last: Instant::now(),
                report: Report::default(),
            };
            thread::spawn(move || {
                worker.last = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    worker.step(keep);
                }
                worker
            })
        };
        let workers = daemons.iter().enumerate().map(spawn).collect();
        Self { stop, workers }
    }

    /// Ends the churn. Addresses that are held stay held, and owed DELs are sent. The daemons must
    /// run.
    pub(super) fn stop(self) -> (Report, Vec<Held>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        let mut held = Vec::new();
        for worker in self.workers {
            let mut worker = worker.join().expect("a worker of the churn");
            worker.pay();
            assert!(worker.owed.is_empty(), "DELs are not answered: {:?}", worker.owed);
            report.added += worker.report.added;
            report.longest = report.longest.max(worker.report.longest);
            report.silent += worker.report.silent;
            report.refused.append(&mut worker.report.refused);
            report.failed.append(&mut worker.report.failed);
            held.push(Held(worker));
        }
        (report, held)
    }
}

/// The containers that a worker still holds when the churn is over.
pub(super) struct Held(Worker);

impl Held {
    /// Ends every container.
    pub(super) fn end(mut self) {
        while !self.0.held.is_empty() {
            self.0.end_some();
        }
        self.0.pay();
        assert!(self.0.owed.is_empty(), "DELs are not answered: {:?}", self.0.owed);
        assert!(self.0.report.failed.is_empty(), "{:?}", self.0.report.failed);
    }
}

impl Worker {
    fn step(&mut self, keep: usize) {
        self.pay();
        if !self.owed.is_empty() {
            return thread::sleep(PAUSE);
        }
        if self.held.len() < keep {
            self.add_some();
        } else {
            self.check_some();
            self.end_some();
        }
        thread::sleep(Duration::from_millis(1));
    }

    fn call(&mut self, command: &'static str, containers: &[String]) -> Option<Vec<Outcome>> {
        let call = |container: &String| Call::new(command, container, &self.config);
        let calls: Vec<Call> = containers.iter().map(call).collect();
        match self.client.try_calls(&calls) {
            Ok(outcomes) => Some(outcomes),
            Err(_) => {
                self.report.silent += 1;
                None
            }
        }
    }

    fn add_some(&mut self) {
        let name = |number| format!("{}-{number}", self.name);
        let containers: Vec<String> = (self.serial..self.serial + STEP).map(name).collect();
        self.serial += STEP;
        let Some(outcomes) = self.call("ADD", &containers) else {
            return self.owed.extend(containers);
        };
        for (container, outcome) in containers.into_iter().zip(outcomes) {
            if !outcome.succeeded() {
                self.report.refused.push(format!("{outcome:?}"));
                continue;
            }
            let address = address_of(&outcome);
            self.book.added(&container, &address);
            self.held.push_back((container, address));
            self.report.added += 1;
            self.report.longest = self.report.longest.max(self.last.elapsed());
            self.last = Instant::now();
        }
    }

    /// Makes CHECKs with the result of the ADD.
    fn check_some(&mut self) {
        let check = |(container, address): &(String, String)| {
            let mut config = self.config.clone();
            config["prevResult"] =
                json!({ "cniVersion": "1.1.0", "ips": [{ "address": format!("{address}/16") }] });
            Call::new("CHECK", container, &config)
        };
        let calls: Vec<Call> = self.held.iter().take(2).map(check).collect();
        match self.client.try_calls(&calls) {
            Ok(outcomes) => self.fail("CHECK", outcomes),
            Err(_) => self.report.silent += 1,
        }
    }

    fn end_some(&mut self) {
        let some = STEP.min(self.held.len());
        for (container, address) in self.held.drain(..some) {
            self.book.ending(&address);
            self.owed.push(container);
        }
        self.pay();
    }

    /// Sends the DELs that are owed.
    fn pay(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed.is_empty() {
            return;
        }
        match self.call("DEL", &owed) {
            Some(outcomes) => self.fail("DEL", outcomes),
            None => self.owed = owed,
        }
    }

    fn fail(&mut self, command: &str, outcomes: Vec<Outcome>) {
        let failed = outcomes.into_iter().filter(|outcome| !outcome.succeeded());
        self.report.failed.extend(failed.map(|outcome| format!("{command}: {outcome:?}")));
    }
}
