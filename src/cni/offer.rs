//! Says whether ranges have anything for an ordinary ADD.

use crate::core::range::Ranges;
use crate::limits;

/// Returns whether the ranges have an address for an ADD that asks for none and has no stage. Of
/// each range, at most as many addresses as are listed, and the gateway, are looked at in vain.
pub fn offers_any(set: &Ranges) -> bool {
    set.iter().any(|range| {
        let mut first = range.addresses().iter().take(limits::LISTED_MAX + 2);
        first.any(|at| range.offers(at, None))
    })
}
