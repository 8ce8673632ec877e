//! One CNI call: from the JSON body of a request to a typed [`request::Request`], and from an
//! outcome to the text that the plugin prints.
//!
//! What is accepted and what comes back is host-local's, with the CNI specification 1.1 where the
//! two pull apart. Everything here is pure: no IO, no clock, no state.

mod args;
pub mod central;
mod envelope;
pub mod error;
#[cfg(test)]
mod fuzz;
mod ip;
mod json;
mod json_cursor;
mod negotiate;
mod netconf;
pub mod parse;
mod print;
mod range_set_parser;
pub mod request;
pub mod resolv;
pub mod result;
mod upkeep;
#[cfg(test)]
mod vectors;
pub mod version;
