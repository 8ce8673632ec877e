//! Commands of an operator against a model of etcd, with other nodes, other operators and lost
//! answers between any two of their steps.

mod draining;
mod faults;
mod networks;
mod records;
mod removing;

use std::time::Duration;

use super::{Command, RemoveNode, RemoveNodeCommand, Step};
use crate::core::address::{Address, BlockSize, Cidr, Family};
use crate::core::ids::LeaseId;
use crate::core::ids::{Epoch, Link, Revision, Sequence};
use crate::core::keys::{BLOCKS, allocation_key, block_key, drain_key, node_key, session_key};
use crate::core::time::UnixTime;
use crate::core::txn::{
    Answer, Compare, KeyValue, Request, Span, StoreError, Txn, TxnOutcome, Write,
};
use crate::core::value::{
    AllocationValue, BlockStatus, BlockValue, NodeValue, SessionValue, Value,
};
use crate::sim::etcd::Etcd;

/// The fate of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// It is answered.
    None,
    /// It is not carried out, and the store says so.
    Failed,
    /// It is not carried out, and nobody knows.
    Dropped,
    /// It is carried out, and the answer is lost.
    Unanswered,
    /// The answer is lost, and it is carried out before the next transaction is.
    Late,
}

struct World {
    etcd: Etcd,
    now: u64,
    /// Every request so far.
    requests: Vec<Request>,
    late: Option<Request>,
}

impl World {
    fn new() -> Self {
        Self { etcd: Etcd::default(), now: 1_000_000, requests: Vec::new(), late: None }
    }

    fn ask(&mut self, request: Request) -> Result<Answer, StoreError> {
        self.etcd.ask(self.now, request)
    }

    fn txn(&mut self, when: Vec<Compare>, then: Vec<Write>) {
        let answer = self.ask(Request::Txn(Txn { when, then }));
        assert!(matches!(answer, Ok(Answer::Txn(TxnOutcome::Done(_)))), "{answer:?}");
    }

    fn grant(&mut self, seconds: u64) -> LeaseId {
        match self.ask(Request::Grant(Duration::from_secs(seconds))) {
            Ok(Answer::Granted(lease, _)) => lease,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the seconds that a lease has left; nothing: it is gone.
    fn left(&mut self, lease: LeaseId) -> Option<u64> {
        match self.ask(Request::TimeLeft(lease)) {
            Ok(Answer::Left(left)) => left.map(|left| left.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    /// Returns the current leases.
    fn leases(&mut self) -> Vec<LeaseId> {
        let all: Vec<LeaseId> = (1..200).filter_map(LeaseId::new).collect();
        all.into_iter().filter(|&lease| self.left(lease).is_some()).collect()
    }

    fn key(&self, key: &str) -> Option<KeyValue> {
        self.etcd.read(&Span::key(key)).pop()
    }

    fn node(&self, node: &str) -> Option<NodeValue> {
        match self.key(&node_key(node))?.value {
            Value::Node(node) => Some(node),
            other => panic!("{other:?}"),
        }
    }

    fn revision(&self, key: &str) -> Option<Revision> {
        self.key(key).map(|key| key.mod_revision)
    }

    /// Returns the blocks of a node: where they start, their state and their lease.
    fn blocks(&self, node: &str) -> Vec<(u128, BlockStatus, Option<LeaseId>)> {
        let keys = self.etcd.read(&Span::prefix(BLOCKS, usize::MAX));
        let of = |key: KeyValue| match key.value {
            Value::Block(block) if &*block.owner == node => {
                Some((block.cidr.first().get(), block.status, key.lease))
            }
            _ => None,
        };
        keys.into_iter().filter_map(of).collect()
    }

    fn records(&self, node: &str) -> usize {
        let keys = self.etcd.read(&Span::prefix("allocations/", usize::MAX));
        let is_of =
            |key: &&KeyValue| matches!(&key.value, Value::Allocation(of) if &*of.node == node);
        keys.iter().filter(is_of).count()
    }

    /// Lets the node's daemon join, or join again, and take back what is in quarantine.
    fn join(&mut self, node: &str) {
        self.join_as(node, "m");
    }

    /// Does the same as [`World::join`], on a certain machine.
    fn join_as(&mut self, node: &str, machine: &str) {
        let lease = self.grant(30);
        let known = self.node(node);
        let value = NodeValue {
            epoch: known.as_ref().map_or(Epoch::FIRST, |known| known.epoch.next()),
            sequence: Some(Link::after(known.and_then(|known| known.sequence))),
            machine_id: Some(machine.into()),
            identity: Some("i".into()),
            first_epoch: None,
            boot_id: "b".into(),
            version: "1".into(),
            since: UnixTime::from_millis(500),
            acknowledged: true,
            removed: None,
            forfeit: None,
        };
        let session = Value::Session(SessionValue { epoch: value.epoch, lease });
        let then = vec![
            Write::Put(node_key(node), Value::Node(value), None),
            Write::Put(session_key(node), session, Some(lease)),
        ];
        self.txn(vec![], then);
        for (start, status, _) in self.blocks(node) {
            if status == BlockStatus::Quarantined {
                self.claim(node, start, BlockStatus::Active);
            }
        }
    }

    /// Lets the node's daemon die, and its lease run out.
    fn dies(&mut self, node: &str) {
        if let Some(Value::Session(session)) = self.key(&session_key(node)).map(|key| key.value) {
            assert_eq!(self.ask(Request::Revoke(session.lease)), Ok(Answer::Revoked));
        }
    }

    /// Carries out one transaction of a node about one of its blocks: as every such, it changes its
    /// key.
    fn claim(&mut self, node: &str, start: u128, status: BlockStatus) {
        let Some(mut value) = self.node(node) else { panic!("no node {node}") };
        value.sequence = Some(Link::after(value.sequence));
        let at = Compare::unchanged(node_key(node), self.revision(&node_key(node)));
        let block = block(node, start, status);
        let then = vec![
            Write::Put(node_key(node), Value::Node(value), None),
            Write::Put(
                block_key("net", Family::V4, Address::new(start)),
                Value::Block(block),
                None,
            ),
        ];
        self.txn(vec![at], then);
    }

    /// Adds blocks of a node, as if it had claimed them.
    fn hold(&mut self, node: &str, starts: impl IntoIterator<Item = u128>, status: BlockStatus) {
        let put = |start| {
            let block = Value::Block(block(node, start, status));
            Write::Put(block_key("net", Family::V4, Address::new(start)), block, None)
        };
        let writes: Vec<Write> = starts.into_iter().map(put).collect();
        writes.chunks(100).for_each(|writes| self.txn(vec![], writes.to_vec()));
    }

    fn record(&mut self, node: &str, address: u128) {
        let address = Family::V4.address(Address::new(address));
        let value = AllocationValue {
            node: node.into(),
            network: None,
            container_id: "c".into(),
            ifname: "eth0".into(),
            addresses: vec![address],
            namespace: "".into(),
            pod: "".into(),
            stage: "".into(),
            netns: "".into(),
            since: UnixTime::from_millis(700),
            started_at: None,
            sequence: Sequence::FIRST,
        };
        let value = Value::Allocation(Box::new(value));
        self.txn(vec![], vec![Write::Put(allocation_key("net", address), value, None)]);
    }

    /// Creates a dead node `n` with blocks for two transactions, two spares and three records,
    /// which was being drained; and a live one.
    fn with_dead_node() -> Self {
        let mut world = Self::new();
        world.join("other");
        world.hold("other", [0], BlockStatus::Active);
        world.record("other", 1);
        world.join("n");
        world.hold("n", (0..130).map(|i| 800 + 8 * i), BlockStatus::Active);
        world.hold("n", [8, 16], BlockStatus::Spare);
        (0..3).for_each(|i| world.record("n", 800 + i));
        let drain = Write::Put(drain_key("n"), Value::Flag(UnixTime::from_millis(1)), None);
        world.txn(vec![], vec![drain]);
        world.dies("n");
        world
    }

    fn carry_out(&mut self, request: Request, fault: Fault) -> Result<Answer, StoreError> {
        self.requests.push(request.clone());
        if let (Request::Txn(_), Some(late)) = (&request, self.late.take()) {
            let _ = self.ask(late);
        }
        let lost = || Err(StoreError::Unknown("lost".into()));
        match fault {
            Fault::None => self.ask(request),
            Fault::Failed => Err(StoreError::Failed("down".into())),
            Fault::Dropped => lost(),
            Fault::Unanswered => {
                let _ = self.ask(request);
                lost()
            }
            Fault::Late => {
                self.late = Some(request);
                lost()
            }
        }
    }

    /// Runs a command to its end. `disturb` comes before each of its steps, counted from 0.
    fn run_with<C: Command>(
        &mut self,
        mut command: C,
        mut disturb: impl FnMut(&mut Self, usize, &Request) -> Fault,
    ) -> C::End {
        let mut step = command.start(UnixTime::from_millis(self.now));
        for number in 0.. {
            let request = match step {
                Step::Done(end) => return end,
                Step::Ask(request) => request,
            };
            assert!(number < 1_000, "it never ends: {request:?}");
            let fault = disturb(self, number, &request);
            step = command.answered(self.carry_out(request, fault));
        }
        unreachable!()
    }

    fn run<C: Command>(&mut self, command: C) -> C::End {
        self.run_with(command, |_, _, _| Fault::None)
    }
}

fn block(node: &str, start: u128, status: BlockStatus) -> BlockValue {
    BlockValue {
        cidr: Cidr::containing(Address::new(start), BlockSize::of_log2(3)),
        family: Family::V4,
        owner: node.into(),
        epoch: Some(Epoch::FIRST),
        claim: Link::FIRST,
        status,
        since: UnixTime::from_millis(600),
    }
}

/// Returns the removal of `n` by another node.
fn command() -> RemoveNodeCommand {
    RemoveNodeCommand {
        node: "n".into(),
        incarnation: None,
        local: false,
        force: false,
        quarantine: None,
        dry_run: false,
    }
}

fn removal() -> RemoveNode {
    RemoveNode::new(command())
}

fn forced() -> RemoveNode {
    RemoveNode::new(RemoveNodeCommand { force: true, ..command() })
}

fn is_txn(request: &Request) -> bool {
    matches!(request, Request::Txn(_))
}
