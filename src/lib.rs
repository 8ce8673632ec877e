//! Leasehold gives containers their IP addresses: see `README.md` for what it is and
//! `ARCHITECTURE.md` for the map of this crate.

pub mod actors;
pub mod api;
pub mod cli;
pub mod clock;
pub mod cni;
pub mod config;
pub mod core;
pub mod daemon;
pub mod journal;
pub mod limits;
pub mod metrics;
#[cfg(test)]
mod sim;
pub mod store;
