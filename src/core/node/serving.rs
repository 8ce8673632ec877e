//! The answers of a node's machines to the question whether it can serve an ADD, taken together.

use crate::core::cause::Cause;
use crate::core::journal::JournalFailure;

/// The reason why an ADD cannot be served now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unable {
    /// The daemon stops.
    Stopping,
    /// The journal failed.
    Journal(JournalFailure),
    /// The range set with this index is new, and no block can be leased for it.
    NewSet(usize, Cause),
    /// The range set with this index can assign nothing.
    Set(usize, Cause),
}

/// The reason why a node as a whole cannot serve every ADD now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unready {
    /// The cause.
    pub cause: Cause,
    /// Addresses in hand can still be handed out.
    pub serves_in_hand: bool,
}

impl Unready {
    /// Returns the cause, unless ADDs can be served all the same; `free`: the numbers of free
    /// addresses in hand, by range set.
    pub fn unless_free(self, free: impl IntoIterator<Item = u64>) -> Option<Cause> {
        let serves = self.serves_in_hand && free.into_iter().any(|free| free > 0);
        (!serves).then_some(self.cause)
    }
}

/// Returns the index of the first range set of which every address is taken. `answers`: whether
/// each of them could assign an address; none, if it is not open. Then it was forgotten a moment
/// ago, and the next ADD opens it again.
///
/// # Errors
/// A range set could assign nothing for another reason.
pub fn first_full(
    answers: impl IntoIterator<Item = (usize, Option<Result<bool, Cause>>)>,
) -> Result<Option<usize>, Unable> {
    let mut full = None;
    for (index, answer) in answers {
        if !answer.unwrap_or(Ok(true)).map_err(|cause| Unable::Set(index, cause))? {
            full.get_or_insert(index);
        }
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_free_addresses_in_hand_serves_only_if_it_may() {
        let unready = |serves_in_hand| Unready { cause: Cause::NotJoined, serves_in_hand };
        assert_eq!(unready(true).unless_free([0, 3]), None);
        assert_eq!(unready(true).unless_free([0, 0]), Some(Cause::NotJoined));
        assert_eq!(unready(true).unless_free([]), Some(Cause::NotJoined));
        assert_eq!(unready(false).unless_free([3]), Some(Cause::NotJoined));
    }

    #[test]
    fn a_reason_of_this_node_comes_before_a_full_range() {
        let (open, full) = (Some(Ok(true)), Some(Ok(false)));
        let draining = Some(Err(Cause::Draining));
        let of =
            |answers: [Option<Result<bool, Cause>>; 3]| first_full(answers.into_iter().enumerate());
        assert_eq!(of([open.clone(), None, open.clone()]), Ok(None));
        assert_eq!(of([open.clone(), full.clone(), full.clone()]), Ok(Some(1)));
        assert_eq!(of([full, open, draining]), Err(Unable::Set(2, Cause::Draining)));
    }
}
