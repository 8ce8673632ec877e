//! Files that people write, looked through without a daemon: for the commands, which do not know
//! CNI themselves.

pub use crate::cni::inspect::{Remark, Weight, inspect};
pub use crate::cni::position::position;
