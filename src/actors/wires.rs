//! The wires between the machines of a node and to everything outside: the only place where their
//! outputs are carried out.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::handle::NodeHandle;
use super::host::{Deliver, Host, Stop};
use super::index::Index;
use super::journal::JournalActor;
use super::report;
use crate::core::Map;
use crate::core::coordinator::Outcome;
use crate::core::node::{Message, Output, ToLeaseholder};
use crate::core::txn::Request;
use crate::metrics;
use crate::store::ClusterStore;

/// What outputs are carried out with. All of it lives on the actors' thread.
pub struct Wires {
    node: NodeHandle,
    journal: Addr<JournalActor>,
    store: Arc<dyn ClusterStore>,
    index: Arc<Index>,
    replies: RefCell<Map<u64, oneshot::Sender<Outcome>>>,
    next_call: Cell<u64>,
    stopped: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Wires {
    pub(super) fn new(
        node: NodeHandle,
        journal: Addr<JournalActor>,
        store: Arc<dyn ClusterStore>,
        index: Arc<Index>,
    ) -> Rc<Self> {
        Rc::new(Self {
            node,
            journal,
            store,
            index,
            replies: RefCell::default(),
            next_call: Cell::new(1),
            stopped: RefCell::default(),
        })
    }

    /// The number of a new call, whose answer goes there.
    pub(super) fn new_call(&self, reply: oneshot::Sender<Outcome>) -> u64 {
        let id = self.next_call.get();
        self.next_call.set(id + 1);
        self.replies.borrow_mut().insert(id, reply);
        id
    }

    /// Tells the sender when the node has stopped.
    pub(super) fn when_stopped(&self, sender: oneshot::Sender<()>) {
        self.stopped.borrow_mut().push(sender);
    }

    /// Delivers messages, in order.
    pub(super) fn deliver(&self, messages: Vec<Message>) {
        messages.into_iter().for_each(|message| self.send(message));
    }

    fn send(&self, message: Message) {
        // The order of what is sent to one actor is the order in which it takes it, and nothing
        // that is sent here is refused.
        match message {
            Message::Coordinator(input) => self.node.coordinator().do_send(Deliver(input)),
            Message::Leaseholder(input) => self.node.leaseholder().do_send(Deliver(input)),
            Message::RangeSet(set, input) => {
                if let Some(set) = self.node.set(set) {
                    set.do_send(Deliver(input));
                }
            }
        }
    }

    /// Carries out one output.
    pub(super) fn carry_out(self: &Rc<Self>, output: Output) {
        match output {
            Output::Send(message) => self.send(message),
            Output::Commit(commit) => self.journal.do_send(Deliver(commit)),
            Output::Store(id, request) => self.ask(id, request),
            Output::Watch(prefix) => self.watch(prefix),
            Output::Reply(call, outcome) => {
                if let Some(reply) = self.replies.borrow_mut().remove(&call) {
                    // A caller that is gone: what it was given is found by its DEL or by GC.
                    let _ = reply.send(outcome);
                }
            }
            Output::Held(holding) => self.index.insert(holding),
            Output::Ended(holding) => self.index.remove(&holding),
            Output::Open(id, machine) => {
                let record = machine.record();
                let display = metrics::RangeSet::new(&record.network, record.family);
                let host = Host::new(*machine, self.clone(), display);
                self.node.open(id, host.start());
            }
            Output::Close(id) => {
                if let Some(set) = self.node.close(id) {
                    set.do_send(Stop);
                }
            }
            Output::Report(event) => report::tell(&self.index, &event),
            Output::Stopped => {
                for sender in self.stopped.take() {
                    let _ = sender.send(());
                }
            }
        }
    }

    fn ask(&self, id: u64, request: Request) {
        let (answer, leaseholder) = (self.store.ask(request), self.node.leaseholder().clone());
        actix_rt::spawn(async move {
            leaseholder.do_send(Deliver(ToLeaseholder::Answered(id, answer.await)));
        });
    }

    fn watch(&self, prefix: String) {
        let (mut reports, leaseholder) =
            (self.store.watch(prefix), self.node.leaseholder().clone());
        actix_rt::spawn(async move {
            while let Some(report) = reports.recv().await {
                leaseholder.do_send(Deliver(ToLeaseholder::Observed(report)));
            }
        });
    }
}
