//! One CNI call: from the JSON body of a request to a typed [`request::Request`], and from an
//! outcome to the text that the plugin prints.
//!
//! The accepted input and the output are host-local's. Where host-local and the CNI specification
//! 1.1 disagree, the specification wins. Everything here is pure: no IO, no clock, no state.

mod args;
pub mod central;
mod cuts;
mod envelope;
pub mod error;
mod faults;
#[cfg(test)]
mod fuzz;
mod gc;
pub mod inspect;
mod ip;
mod json;
mod json_cursor;
mod namespaces;
mod negotiate;
mod netconf;
pub mod offer;
pub mod parse;
pub mod position;
mod prev_result;
mod print;
mod range_set_parser;
pub mod request;
pub mod resolv;
pub mod result;
mod salvage;
pub mod unknown;
#[cfg(test)]
mod vectors;
pub mod version;
