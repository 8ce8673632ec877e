//! The first hour of a node: what starts before what, what ready means, and what a configuration
//! says that is not carried out.

mod check;
mod forget;
mod import;
mod keys;
mod lists;
mod networks;
mod older;
mod ready;
mod robbed;
mod takeover;
