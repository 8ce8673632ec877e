//! Integration tests: the built programs, driven from outside as a container runtime drives them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says why by panicking; helpers are tests too"
)]

mod common;
mod host_local;
mod main_plugins;
