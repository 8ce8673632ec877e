//! A node's disk: what outlives its daemon.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::plan::Plan;
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::journal::{JournalEntry, JournalState, NewBoot};
use crate::core::leaseholder::NodeIdentity;
use crate::core::node::{BootOptions, Booted, boot};
use crate::core::range_set::Settings;
use crate::core::time::{BootTime, StartTime, UnixTime};

/// The part of a node that outlives its daemon.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) name: Arc<str>,
    /// Tells directories of one name apart. It comes back with a lost state directory in the same
    /// boot, and is written so that a power cut does not lose it.
    pub(super) identity: Arc<str>,
    pub(super) boot: u64,
    /// The journal at the beginning of the boot.
    base: JournalState,
    /// The groups that were written since.
    pub(super) journal: Vec<Vec<JournalEntry>>,
    pub(super) settings: Settings,
    pub(super) await_records: bool,
    pub(super) offline_limit: Option<Duration>,
    pub(super) keep_after_reboot: bool,
    /// The next write fails, and every later one.
    pub(super) fails: bool,
    /// No daemon has started in this boot.
    pub(super) new_boot: bool,
    /// It lost its journal, or some of it, while its containers ran.
    pub(super) forgot: bool,
    /// Nothing was on it when it forgot.
    pub(super) is_new: bool,
}

impl Disk {
    /// Creates an empty disk.
    pub(super) fn new(name: Arc<str>, settings: Settings, plan: &Plan) -> Self {
        Self {
            identity: name.clone(),
            name,
            boot: 1,
            base: JournalState::default(),
            journal: vec![],
            settings,
            await_records: plan.await_records,
            offline_limit: plan.offline_limit,
            keep_after_reboot: plan.keep_after_reboot,
            fails: false,
            new_boot: true,
            forgot: false,
            is_new: false,
        }
    }

    /// Returns the state that the written groups make.
    pub(super) fn state(&self) -> JournalState {
        let mut state = self.base.clone();
        for entry in self.journal.iter().flatten() {
            state.apply(self.settings.cooldown, entry);
        }
        state
    }

    /// Returns the holdings in the journal.
    pub(super) fn held(&self) -> BTreeSet<(AttachmentId, IpAddr)> {
        let holdings = self.state().holdings.into_iter();
        let each = |holding: Arc<Holding>| {
            let addresses = holding.addresses.to_vec();
            addresses.into_iter().map(move |address| (holding.id(), address))
        };
        holdings.flat_map(each).collect()
    }

    /// Starts the machine again. A power cut may leave an older journal, of so many groups, or
    /// none.
    pub(super) fn reboot(&mut self, groups: Option<usize>) {
        self.boot += 1;
        self.new_boot = true;
        self.forgot &= self.keep_after_reboot;
        self.fails = false;
        match groups {
            Some(groups) => self.journal.truncate(groups),
            None => self.lose(),
        }
    }

    /// Loses all of the journal.
    pub(super) fn lose(&mut self) {
        (self.base, self.journal) = (JournalState::default(), vec![]);
    }

    /// Begins a boot at its first start: containers of the earlier boot are gone.
    fn begin_boot(&mut self, now: BootTime) {
        let mut state = self.state();
        let cooldown = self.settings.cooldown;
        state.begin_boot(NewBoot { keep_holdings: self.keep_after_reboot, cooldown, now });
        (self.base, self.journal) = (state, vec![]);
    }

    /// Returns the machines of its node, from what is on it; none if it fails to write that a boot
    /// has begun, or what the machines wrote. `torn`: that is on it nevertheless.
    pub(super) fn boot(&mut self, torn: bool, now: BootTime) -> Option<Booted> {
        if self.new_boot && (!self.fails || torn) {
            self.new_boot = false;
            self.begin_boot(now);
        }
        if self.new_boot {
            return None;
        }
        let identity = NodeIdentity {
            node: self.name.clone(),
            machine_id: Some(self.name.clone()),
            identity: Some(self.identity.clone()),
            boot_id: format!("{}", self.boot).into(),
            version: "sim".into(),
            since: UnixTime::EPOCH + now.since(BootTime::BOOT),
            ttl: Duration::from_secs(30),
            offline_limit: self.offline_limit,
            records_awaited: self.await_records,
            keeps_after_reboot: self.keep_after_reboot,
            records: true,
        };
        let options = BootOptions {
            identity,
            settings: self.settings,
            alone_since: StartTime::BOOT,
            booted_at: UnixTime::EPOCH,
        };
        let booted = boot(self.state(), options).unwrap_or_else(|error| panic!("{error}"));
        if !self.fails || torn {
            self.journal.push(booted.entries.clone());
        }
        (!self.fails).then_some(booted)
    }
}
