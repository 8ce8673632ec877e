//! The wires between the machines of a node and to everything outside: the only place where their
//! outputs are carried out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::handle::NodeHandle;
use super::host::{Deliver, Host, Outlet, Reply, Stop};
use super::index::Index;
use super::journal::Disk;
use crate::core::Map;
use crate::core::ids::{CallId, RequestId};
use crate::core::keys::{ALLOCATIONS, PoolFamily, SESSIONS};
use crate::core::node::{Event, Message, Output, RangeSetMachine, ToJournal, ToLeaseholder};
use crate::core::txn::{Request, Write};
use crate::events::{self, Recent};
use crate::metrics;
use crate::points::{self, Point};
use crate::store::ClusterStore;

/// The places at which readers see what the machines say.
pub(super) struct Readers {
    pub(super) index: Arc<Index>,
    pub(super) recent: Arc<Recent>,
}

/// The means by which outputs are carried out. All of them live on the actors' thread.
pub struct Wires {
    node: NodeHandle,
    disk: Rc<Disk>,
    store: Arc<dyn ClusterStore>,
    readers: Readers,
    replies: RefCell<Map<CallId, Reply>>,
    /// Those of these calls that waited for a block.
    waited: RefCell<BTreeSet<CallId>>,
    next_call: Cell<CallId>,
    stopped: RefCell<Vec<oneshot::Sender<()>>>,
    /// A reference to itself, for the actors that it opens.
    own: Weak<Self>,
}

impl Wires {
    pub(super) fn new(
        node: NodeHandle,
        disk: Disk,
        store: Arc<dyn ClusterStore>,
        readers: Readers,
    ) -> Rc<Self> {
        Rc::new_cyclic(|own| Self {
            node,
            disk: Rc::new(disk),
            store,
            readers,
            replies: RefCell::default(),
            waited: RefCell::default(),
            next_call: Cell::new(CallId::FIRST),
            stopped: RefCell::default(),
            own: own.clone(),
        })
    }

    fn send(&self, message: Message) {
        // The order of what is sent to one actor is the order in which it takes it, and nothing
        // that is sent here is refused.
        match message {
            Message::Coordinator(input) => self.node.coordinator().do_send(Deliver(input)),
            Message::Leaseholder(input) => self.node.leaseholder().do_send(Deliver(input)),
            Message::Journal(input) => self.node.journal().do_send(Deliver(input)),
            Message::RangeSet(set, input) => self.node.send_set(set, input),
        }
    }

    fn ask(&self, id: RequestId, request: Request) {
        let point = point_of(&request);
        let (answer, leaseholder) = (self.store.ask(request), self.node.leaseholder().clone());
        actix_rt::spawn(async move {
            let answer = answer.await;
            if let (Some(point), Ok(_)) = (point, &answer) {
                points::pass(point);
            }
            leaseholder.do_send(Deliver(ToLeaseholder::Answered(id, answer)));
        });
    }

    fn call_journal(&self) {
        let journal = self.node.journal().clone();
        actix_rt::spawn(async move {
            // Tasks that yield go on when all others have run and all that came in on any
            // connection by now is read. The second time, that has passed the other actors and is
            // in the journal's mailbox. With one yield, calls that come together stay apart for
            // ever, in groups that take turns.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            journal.do_send(Deliver(ToJournal::Write));
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

    fn open(&self, machine: RangeSetMachine) {
        let Some(own) = self.own.upgrade() else { return };
        let (identity, id) = (machine.identity(), machine.identity().id);
        let display = metrics::RangeSet::new(&identity.network, identity.family);
        let pool = PoolFamily { network: identity.network.clone(), family: identity.family };
        self.node.open(id, pool, Host::new(machine, own, display).start());
    }
}

/// The point that is passed when the store has answered a request.
fn point_of(request: &Request) -> Option<Point> {
    match request {
        Request::Txn(txn) => {
            let registers =
                |write: &Write| matches!(write, Write::Put(key, ..) if key.starts_with(SESSIONS));
            Some(if txn.then.iter().any(registers) {
                Point::Joining
            } else {
                Point::TransactionDone
            })
        }
        Request::Read(spans) => {
            let of_records = spans.first().is_some_and(|span| span.first.starts_with(ALLOCATIONS));
            of_records.then_some(Point::Remembering)
        }
        _ => None,
    }
}

impl Outlet for Wires {
    fn carry_out(&self, output: Output) {
        match output {
            Output::Send(message) => self.send(message),
            Output::CallJournal => self.call_journal(),
            Output::Write(group) => self.disk.write(group),
            Output::CloseJournal => self.disk.close(),
            Output::Store(id, request) => self.ask(id, request),
            Output::Watch(prefix) => self.watch(prefix),
            Output::Reply(call, outcome) => {
                let waited = self.waited.borrow_mut().remove(&call);
                if let Some(reply) = self.replies.borrow_mut().remove(&call) {
                    // A caller that is gone: what it was given is found by its DEL or by GC.
                    let _ = reply.send((outcome, waited));
                }
            }
            Output::Held(holding) => self.readers.index.insert(holding),
            Output::Ended(holding) => self.readers.index.remove(&holding),
            Output::Open { identity, set, lease_losses } => {
                self.open(RangeSetMachine::new(identity, *set, lease_losses));
            }
            Output::Close(id) => {
                if let Some(set) = self.node.close(id) {
                    set.do_send(Stop);
                }
            }
            Output::Broken(cause) => self.readers.index.break_down(cause),
            Output::Report(event) => {
                if let Event::CallWaited(call) = &*event {
                    self.waited.borrow_mut().insert(*call);
                }
                events::tell(&self.readers.recent, &event);
            }
            Output::Stopped => {
                for sender in self.stopped.take() {
                    let _ = sender.send(());
                }
            }
        }
    }

    fn new_call(&self, reply: Reply) -> CallId {
        let id = self.next_call.get();
        self.next_call.set(id.next());
        self.replies.borrow_mut().insert(id, reply);
        id
    }

    fn when_stopped(&self, sender: oneshot::Sender<()>) {
        self.stopped.borrow_mut().push(sender);
    }
}
