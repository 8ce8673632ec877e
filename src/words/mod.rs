//! Words for the values of the core: for callers, for the log and for `status`. The core itself
//! has no sentence for people; all that it says of a failure is a value.

mod call;
mod cause;
mod journal;
pub(crate) mod machine;
mod range;
