//! Integration tests: the built programs, driven from outside as a container runtime drives them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says why by panicking; helpers are tests too"
)]

mod bad_input;
mod bench;
mod chaos;
mod cli;
mod cluster;
mod cluster_admin;
mod common;
mod contract;
mod crash;
mod crowd;
mod demo;
mod deploy;
mod docs;
mod etcd_store;
mod first_hour;
mod fuzz;
mod history;
mod host_local;
mod install;
mod kill;
mod leaks;
mod main_plugins;
mod metrics;
mod node;
mod page;
mod plugin;
mod protoc;
mod runtimes;
mod store;
mod tcp;
mod tidy;
mod upgrade;
