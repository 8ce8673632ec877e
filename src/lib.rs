//! Leasehold gives containers their IP addresses: a CNI IPAM plugin for a whole cluster. Each node
//! leases blocks of addresses from etcd ahead of demand and hands single addresses out from memory,
//! and writes every answer down before it gives it.
//!
//! `docs/install.md` says how to run it, `ARCHITECTURE.md` where every file is and which rules must
//! hold, `docs/protocol.md` how nodes agree, and `CONTRIBUTING.md` how to change it.
//!
//! # The map
//!
//! ```text
//!  container runtime                                    Prometheus, people
//!     | exec                                                |
//!     v                                                     |
//!  my-ipam                the plugin: passes on, decides nothing
//!     | HTTP/1.1 over a unix socket                         | HTTP over TCP, read-only
//!     v                                                     v
//!  api                    parse (cni), ask, answer; decides nothing
//!     |
//!     v  messages
//!  actors                 one host for every machine: a mailbox and a timer
//!     |
//!     v
//!  core::node             pure: which machine hears what, and what must be durable first
//!     +-- core::coordinator   every call: one at a time per attachment, all or nothing
//!     +-- core::range_set     one per pool of addresses: blocks, search, cooldown, demand
//!     +-- core::leaseholder   every change of ownership; messages, records
//!     |
//!     v  commits                                            v  requests
//!  journal                redb, group commit             store   etcd, or embedded
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`core`] | all decisions, pure: no IO, clock, randomness, async, logging or serde |
//! | [`actors`] | machines behind mailboxes, on the thread that serves the socket |
//! | [`events`] | what the machines report, in words and figures; the last of it, for readers |
//! | [`journal`], [`store`] | the durable memory of the node; the shared memory of the cluster |
//! | [`cni`] | the grammar of CNI: configurations, versions, results, error codes; pure |
//! | [`api`] | both listeners and their handlers |
//! | [`daemon`], [`config`] | start and stop in order; options |
//! | [`cli`] | the commands: clients of the socket, `demo`, `bench` |
//! | [`metrics`], [`limits`], [`clock`] | every metric; every limit and period; the only clock |
//! | `words` | sentences for the values with which the core says why something failed |
//! | `sim` (tests only) | whole clusters of the same machines against a model of etcd |
//!
//! Dependencies point one way: `bin -> cli -> daemon -> api -> actors -> {journal, store} -> core`.
//!
//! # Reading order
//!
//! 1. [`core::range`], [`core::block`] and [`core::search`]: the addresses that a configuration
//!    offers, those that a block has free, and which one is next.
//! 2. [`core::range_set`]: a machine, that is inputs with the time, and effects that somebody else
//!    carries out. All machines have this form.
//! 3. [`core::coordinator`]: the course of a call.
//! 4. `docs/protocol.md`, then [`core::leaseholder`]: the chain, and what a transaction compares.
//! 5. [`core::node`]: the messages between these three, and commits that carry what they release.
//! 6. [`actors`] and `sim`: the two hosts of the same machines.
//! 7. [`daemon`]: everything put together.
//!
//! # An ADD
//!
//! An ADD out of the node's own blocks, which needs no etcd. Everything from `api` to the journal
//! runs on one thread.
//!
//! ```text
//!  my-ipam        api         coordinator    range set      journal       leaseholder    etcd
//!     |  POST      |              |              |             |               |           |
//!     |----------->| parse        |              |             |               |           |
//!     |            |  Call        |              |             |               |           |
//!     |            |------------->| its turn in  |             |               |           |
//!     |            |              | the queue of its attachment               |           |
//!     |            |              |  Assign      |             |               |           |
//!     |            |              |------------->| next free   |               |           |
//!     |            |              |  Assigned    | address     |               |           |
//!     |            |              |<-------------|             |               |           |
//!     |            |              |  (once for each range set) |               |           |
//!     |            |              |  Commit: cursors, holding  |               |           |
//!     |            |              |--------------------------->| with others   |           |
//!     |            |              |              |  Committed  | (one group)   |           |
//!     |            |              |<---------------------------|               |           |
//!     |            |  Reply       |  now it is held: readers see it            |           |
//!     |            |<-------------|                            |               |           |
//!     |  result    |              |  PublishRecord             |               |           |
//!     |<-----------|              |------------------------------------------->|  record   |
//!     |            |              |              |             |               |---------->|
//! ```
//!
//! When few addresses are left, the range set asks ahead of need: it sends an order to the
//! leaseholder, which has its intent committed (rule 13), sends one transaction for everything that
//! waits, and says `Leased`. The block is in the journal before an address that is held in it (rule
//! 15). Only an ADD that comes before the block does waits for etcd.
//!
//! A DEL is the same in reverse: durable first (rule 12), then the addresses begin to cool.

pub mod actors;
pub mod api;
pub mod cli;
pub mod clock;
pub mod cni;
pub mod config;
pub mod core;
pub mod cri;
pub mod daemon;
pub mod events;
mod files;
mod identity;
pub mod journal;
pub mod limits;
pub mod metrics;
pub mod points;
#[cfg(test)]
mod sim;
pub mod store;
mod words;
