//! A running daemon: the machines of a node behind mailboxes that are served in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;

use super::disk::Disk;
use crate::core::address::Address;
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::block::{Block, BlockState};
use crate::core::coordinator::{Call, Outcome};
use crate::core::ids::{CallId, RequestId};
use crate::core::journal::JournalEntry;
use crate::core::journal::JournalFailure;
use crate::core::leaseholder::Leaseholder;
use crate::core::node::{
    Booted, CoordinatorMachine, Event, Group, JournalMachine, LeaseholderMachine, Machine, Message,
    Output, RangeSetMachine, Standing, ToCoordinator, ToJournal, ToLeaseholder, ToRangeSet,
};
use crate::core::set_identity::SetId;
use crate::core::time::BootTime;
use crate::core::txn::{Answer, Request, StoreError, Watched};

/// Something that a daemon wants of the world.
#[derive(Debug)]
pub(super) enum Wish {
    Store(RequestId, Request),
    Watch(String),
    Reply(CallId, Outcome),
    /// Write the group that waits for the disk.
    Write,
    /// It has stopped in order.
    Stopped,
}

/// A daemon that runs.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) coordinator: CoordinatorMachine,
    leaseholder: LeaseholderMachine,
    pub(super) sets: BTreeMap<SetId, RangeSetMachine>,
    journal: JournalMachine,
    /// The group that the disk is at work on.
    writing: Option<Group>,
    mail: Mail,
    /// The holdings as readers see them.
    shown: BTreeMap<AttachmentId, Arc<Holding>>,
    pub(super) wishes: Vec<Wish>,
    pub(super) went_back: bool,
    pub(super) lost: usize,
    pub(super) forgotten: u64,
}

/// The mailboxes.
#[derive(Default, Debug)]
struct Mail {
    coordinator: VecDeque<ToCoordinator>,
    leaseholder: VecDeque<ToLeaseholder>,
    journal: VecDeque<ToJournal>,
    sets: BTreeMap<SetId, VecDeque<ToRangeSet>>,
}

/// A mailbox that is not empty.
#[derive(Clone, Copy)]
enum Mailbox {
    Coordinator,
    Leaseholder,
    Journal,
    Set(SetId),
}

impl Mail {
    /// Returns a mailbox that is not empty, any of them.
    fn any(&self, rng: &mut Rng) -> Option<Mailbox> {
        let fixed = [
            (!self.coordinator.is_empty()).then_some(Mailbox::Coordinator),
            (!self.leaseholder.is_empty()).then_some(Mailbox::Leaseholder),
            (!self.journal.is_empty()).then_some(Mailbox::Journal),
        ];
        let sets = self.sets.iter().filter(|(_, mail)| !mail.is_empty());
        let full =
            || fixed.iter().copied().flatten().chain(sets.clone().map(|(id, _)| Mailbox::Set(*id)));
        match full().count() {
            0 => None,
            1 => full().next(),
            count => full().nth(rng.usize(0..count)),
        }
    }
}

impl Daemon {
    /// Starts on a disk, with a journal that writes so many commits at once at most. If the disk
    /// fails there is no daemon; `torn`: the disk then has what it failed to write nevertheless.
    pub(super) fn start(
        disk: &mut Disk,
        group_max: usize,
        torn: bool,
        now: BootTime,
    ) -> Option<Self> {
        let Booted { coordinator, leaseholder, .. } = disk.boot(torn, now)?;
        let shown = coordinator.held().all().map(|held| (held.id(), held.clone())).collect();
        let mut daemon = Self {
            coordinator,
            leaseholder,
            sets: BTreeMap::new(),
            journal: JournalMachine::new(group_max),
            writing: None,
            mail: Mail::default(),
            shown,
            wishes: Vec::new(),
            went_back: false,
            lost: 0,
            forgotten: 0,
        };
        daemon.coordinator.start(now);
        daemon.drain_coordinator(now);
        daemon.leaseholder.start(now);
        daemon.drain_leaseholder(now);
        Some(daemon)
    }

    pub(super) fn leaseholder(&self) -> &Leaseholder {
        self.leaseholder.core()
    }

    pub(super) fn standing(&self) -> &Standing {
        self.leaseholder.standing()
    }

    pub(super) fn is_member(&self) -> bool {
        self.leaseholder.standing().epoch.is_some()
    }

    pub(super) fn call(&mut self, id: CallId, call: Call) {
        self.mail.coordinator.push_back(ToCoordinator::Call(id, call));
    }

    pub(super) fn stop(&mut self) {
        self.mail.coordinator.push_back(ToCoordinator::Shutdown);
    }

    pub(super) fn answered(&mut self, id: RequestId, answer: Result<Answer, StoreError>) {
        self.mail.leaseholder.push_back(ToLeaseholder::Answered(id, answer));
    }

    pub(super) fn observed(&mut self, watched: Watched) {
        self.mail.leaseholder.push_back(ToLeaseholder::Observed(watched));
    }

    /// Returns the commits that are not durable yet, in order.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = &Vec<JournalEntry>> {
        let on_the_way = self.mail.journal.iter().filter_map(|message| match message {
            ToJournal::Commit(commit) => Some(&commit.entries),
            ToJournal::Write | ToJournal::Written(_) => None,
        });
        let writing = self.writing.iter().map(|group| &group.entries);
        writing.chain(self.journal.waiting()).chain(on_the_way)
    }

    /// Has the disk write its group. `failure`: why that fails, if it does, and whether the group
    /// is on the disk nevertheless.
    pub(super) fn write(&mut self, disk: &mut Disk, failure: Option<(&str, bool)>) {
        let Some(group) = self.writing.take() else { return };
        let (result, durable) = match failure {
            None => (Ok(()), true),
            Some((cause, durable)) => (Err(JournalFailure::Storage(cause.into())), durable),
        };
        if durable {
            disk.journal.push(group.entries);
        }
        self.mail.journal.push_back(ToJournal::Written(result));
    }

    pub(super) fn timeout(&mut self, now: BootTime) {
        let is_due = |due: Option<BootTime>| due.is_some_and(|due| due <= now);
        if is_due(self.leaseholder.poll_timeout()) {
            self.leaseholder.handle_timeout(now);
            self.drain_leaseholder(now);
        }
        for id in self.sets.keys().copied().collect::<Vec<_>>() {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            if is_due(set.poll_timeout()) {
                set.handle_timeout(now);
                self.drain_set(now, id);
            }
        }
        if is_due(self.coordinator.poll_timeout()) {
            self.coordinator.handle_timeout(now);
            self.drain_coordinator(now);
        }
        if is_due(self.journal.poll_timeout()) {
            self.journal.handle_timeout(now);
            self.drain_journal(now);
        }
    }

    pub(super) fn due(&self) -> Option<BootTime> {
        let sets = self.sets.values().filter_map(Machine::poll_timeout);
        sets.chain(self.leaseholder.poll_timeout())
            .chain(self.coordinator.poll_timeout())
            .chain(self.journal.poll_timeout())
            .min()
    }

    pub(super) fn has_mail(&self) -> bool {
        let Mail { coordinator, leaseholder, journal, sets } = &self.mail;
        !coordinator.is_empty()
            || !leaseholder.is_empty()
            || !journal.is_empty()
            || sets.values().any(|mail| !mail.is_empty())
    }

    /// Serves mailboxes in any order, until all are empty; or, one time in `pause` messages, stops
    /// in between (0: never).
    pub(super) fn serve(&mut self, now: BootTime, rng: &mut Rng, pause: u32) {
        for turn in 0.. {
            assert!(turn < 200_000, "the machines are busy for ever");
            if pause > 0 && rng.u32(0..pause) == 0 {
                return;
            }
            match self.mail.any(rng) {
                None => return self.check(),
                Some(mailbox) => self.serve_one(now, mailbox),
            }
        }
    }

    fn serve_one(&mut self, now: BootTime, mailbox: Mailbox) {
        match mailbox {
            Mailbox::Coordinator => {
                if let Some(input) = self.mail.coordinator.pop_front() {
                    self.coordinator.handle(now, input);
                    self.drain_coordinator(now);
                }
            }
            Mailbox::Leaseholder => {
                if let Some(input) = self.mail.leaseholder.pop_front() {
                    self.leaseholder.handle(now, input);
                    self.drain_leaseholder(now);
                }
            }
            Mailbox::Journal => {
                if let Some(input) = self.mail.journal.pop_front() {
                    self.journal.handle(now, input);
                    self.drain_journal(now);
                }
            }
            Mailbox::Set(id) => {
                let input = self.mail.sets.get_mut(&id).and_then(VecDeque::pop_front);
                if let (Some(input), Some(set)) = (input, self.sets.get_mut(&id)) {
                    set.handle(now, input);
                    self.drain_set(now, id);
                }
            }
        }
    }

    fn drain_coordinator(&mut self, now: BootTime) {
        while let Some(output) = self.coordinator.poll_output() {
            self.carry_out(now, output);
        }
    }

    fn drain_leaseholder(&mut self, now: BootTime) {
        while let Some(output) = self.leaseholder.poll_output() {
            self.carry_out(now, output);
        }
    }

    fn drain_journal(&mut self, now: BootTime) {
        while let Some(output) = self.journal.poll_output() {
            self.carry_out(now, output);
        }
    }

    fn drain_set(&mut self, now: BootTime, id: SetId) {
        while let Some(output) = self.sets.get_mut(&id).and_then(Machine::poll_output) {
            self.carry_out(now, output);
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Coordinator(input) => self.mail.coordinator.push_back(input),
            Message::Leaseholder(input) => self.mail.leaseholder.push_back(input),
            Message::Journal(input) => self.mail.journal.push_back(input),
            Message::RangeSet(id, input) => {
                if let Some(mail) = self.mail.sets.get_mut(&id) {
                    mail.push_back(input);
                }
            }
        }
    }

    fn carry_out(&mut self, now: BootTime, output: Output) {
        match output {
            Output::Send(message) => self.deliver(message),
            Output::CallJournal => self.mail.journal.push_back(ToJournal::Write),
            Output::Write(group) => {
                assert!(self.writing.is_none(), "a group is written while another one is");
                self.writing = Some(group);
                self.wishes.push(Wish::Write);
            }
            Output::CloseJournal | Output::Broken(_) => {}
            Output::Store(id, request) => self.wishes.push(Wish::Store(id, request)),
            Output::Watch(prefix) => self.wishes.push(Wish::Watch(prefix)),
            Output::Reply(call, outcome) => self.wishes.push(Wish::Reply(call, outcome)),
            Output::Held(holding) => drop(self.shown.insert(holding.id(), holding)),
            Output::Ended(holding) => drop(self.shown.remove(&holding.id())),
            Output::Open { identity, set, lease_losses } => {
                let id = identity.id;
                let mut machine = RangeSetMachine::new(identity, *set, lease_losses);
                machine.start(now);
                self.sets.insert(id, machine);
                self.mail.sets.insert(id, VecDeque::new());
                self.drain_set(now, id);
            }
            Output::Close(id) => {
                self.sets.remove(&id);
                self.mail.sets.remove(&id);
            }
            Output::Report(event) => match *event {
                Event::WentBack => self.went_back = true,
                Event::Forgotten { .. } => self.forgotten += 1,
                Event::Lost(_, cidrs) => self.lost += cidrs.len(),
                _ => {}
            },
            Output::Stopped => self.wishes.push(Wish::Stopped),
        }
    }

    /// Asserts, now that every mailbox is empty, that every held address is taken in a block in
    /// hand, and that readers see it.
    fn check(&self) {
        for set in self.sets.values() {
            set.check_invariants();
        }
        self.check_spares();
        let held = self.coordinator.held();
        assert_eq!(held.len(), self.shown.len(), "readers see what is held");
        if held.len() > 500 {
            return; // a burst: it would take longer than the burst
        }
        for holding in held.all() {
            let shown = self.shown.get(&holding.id());
            assert_eq!(shown.map(|shown| shown.sequence), Some(holding.sequence));
            for &address in holding.addresses.iter() {
                let number = Address::of(address);
                let mut blocks = self.sets.values().flat_map(RangeSetMachine::blocks);
                let block = blocks.find(|block| block.cidr().contains(number));
                let taken = block.is_some_and(|b| b.is_taken(number) && !b.is_cooling(number));
                assert!(taken, "{address} is held by {} in {block:?}", holding.container_id);
            }
        }
    }

    /// Asserts that a node that waits for nothing takes no block for a spare that it does not have.
    fn check_spares(&self) {
        let asking = self.sets.values().any(RangeSetMachine::is_asking);
        if !self.leaseholder().is_idle() || asking || self.coordinator.is_merging() {
            return;
        }
        let spare = |block: &&Block| block.state() == BlockState::Spare;
        let known = self.sets.values().flat_map(|set| {
            let family = set.identity().family;
            set.blocks().filter(spare).map(move |block| (family, block.cidr()))
        });
        let known: BTreeSet<_> = known.collect();
        let stored: BTreeSet<_> =
            self.leaseholder().blocks().map(|(pool, cidr, _)| (pool.family, cidr)).collect();
        let gone: Vec<_> = known.difference(&stored).collect();
        assert!(gone.is_empty(), "spares of a lease that is gone: {gone:?}");
    }
}
