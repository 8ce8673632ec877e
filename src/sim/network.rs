//! The way between nodes and the store: late, lost, twice.

use super::trace_fmt;
use super::world::{Event, World};
use crate::core::ids::RequestId;
use crate::core::txn::{Request, Span, StoreError, Watched};

impl World {
    pub(super) fn send(&mut self, node: usize, life: u64, id: RequestId, request: Request) {
        self.say(|| format!("n{node} -> {id} {}", trace_fmt::request(&request)));
        let away = self.nodes[node].cut || self.etcd_down;
        let bad =
            !self.quiet && self.plan.bad_message > 0 && self.rng.u32(0..self.plan.bad_message) == 0;
        let failed = |cause: &str| Err(StoreError::Failed(cause.into()));
        let unknown = Err(StoreError::Unknown("deadline exceeded".into()));
        if away && self.rng.bool() {
            return self
                .after(2, Event::Answer { node, life, id, answer: failed("connection refused") });
        }
        if !away && !bad {
            let wait = self.rng.u64(0..5);
            return self.after(wait, Event::Arrive { node, life, id, request, answer: true });
        }
        // The daemon gives up after its deadline; the request may get there before or after that,
        // or never.
        self.after(3_000, Event::Answer { node, life, id, answer: unknown });
        match self.rng.u32(0..3) {
            0 => {}
            1 if !away => self.after(3, Event::Arrive { node, life, id, request, answer: false }),
            _ => {
                let wait = self.rng.u64(10..20_000);
                self.after(wait, Event::Arrive { node, life, id, request, answer: false });
            }
        }
    }

    pub(super) fn arrive(
        &mut self,
        node: usize,
        life: u64,
        id: RequestId,
        request: Request,
        answer: bool,
    ) {
        if self.etcd_down {
            if answer {
                let answer = Err(StoreError::Unknown("connection reset".into()));
                self.after(1, Event::Answer { node, life, id, answer });
            }
            return;
        }
        let result = self.ask_store(request);
        self.tell_watchers();
        if answer {
            let wait = self.rng.u64(0..5);
            // An answer may come twice.
            if !self.quiet && self.plan.bad_message > 0 && self.rng.u32(0..50) == 0 {
                let answer = result.clone();
                self.after(wait + 1, Event::Answer { node, life, id, answer });
            }
            self.after(wait, Event::Answer { node, life, id, answer: result });
        }
    }

    pub(super) fn tell_watchers(&mut self) {
        for change in self.etcd.take_changes() {
            let key = match &change {
                Watched::Put(key) => key.key.clone(),
                Watched::Deleted(key) => key.clone(),
                Watched::Listed(_) => continue,
            };
            if !key.starts_with("requests/") {
                continue; // nodes watch their messages only
            }
            for node in 0..self.nodes.len() {
                let watches = &self.nodes[node].watches;
                let Some(prefix) = watches.iter().find(|prefix| key.starts_with(*prefix)) else {
                    continue;
                };
                let prefix = prefix.clone();
                self.etcd.counters.events += 1;
                if self.nodes[node].cut {
                    continue; // listed anew when the connection is back
                }
                if !self.quiet && self.plan.bad_message > 0 && self.rng.u32(0..100) == 0 {
                    self.list(node, &prefix); // compacted
                    continue;
                }
                self.report(node, change.clone());
            }
        }
    }

    pub(super) fn report(&mut self, node: usize, watched: Watched) {
        let slow = !self.quiet && self.rng.u32(0..20) == 0;
        let wait = if slow { self.rng.u64(0..3_000) } else { self.rng.u64(0..5) };
        let at = (self.now + wait).max(self.nodes[node].last_report);
        self.nodes[node].last_report = at;
        let life = self.nodes[node].life;
        self.after(at - self.now, Event::Report { node, life, watched });
    }

    pub(super) fn list(&mut self, node: usize, prefix: &str) {
        let keys = self.etcd.read(&Span::prefix(prefix, usize::MAX));
        self.report(node, Watched::Listed(keys));
    }
}
