//! The states of a block in hand and of an address in it, and the moves of an address from one to
//! another.

use crate::core::address::Address;
use crate::core::time::BootTime;

/// The state of an address in a block in hand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AddressState {
    /// Nobody has it.
    Free,
    /// It was handed out.
    Allocated,
    /// It was released a short time ago. The inventory knows when.
    Cooling,
    /// It is on its way to another node.
    InTransfer,
}

impl AddressState {
    /// Every state, in the order of the variants.
    pub const ALL: [Self; 4] = [Self::Free, Self::Allocated, Self::Cooling, Self::InTransfer];
    /// The number of states.
    pub const COUNT: usize = Self::ALL.len();
}

/// The state of a block in hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockState {
    /// It is leased ahead of need: no address of it is handed out before it is active.
    Spare,
    /// Addresses are handed out of it.
    Active,
    /// It is on its way back: no address of it is handed out.
    Returning,
    /// The store says that it is not this node's: no address of it is handed out.
    Lost,
}

impl BlockState {
    /// The number of states.
    pub const COUNT: usize = Self::Lost as usize + 1;

    /// Returns the word in keys, labels and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spare => "spare",
            Self::Active => "active",
            Self::Returning => "returning",
            Self::Lost => "lost",
        }
    }
}

/// A change of the state of one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// The address is handed out.
    Allocate,
    /// The address is handed out before its cooldown is over.
    Reuse,
    /// The journal or the store says that the address was handed out.
    Hold,
    /// The holder has released the address at this time.
    Release(BootTime),
    /// The address was handed out, but nobody has seen it: it needs no cooldown.
    Undo,
    /// The cooldown of the address is over.
    Expire,
    /// The address goes to another node.
    Transfer,
    /// The address stays here after all.
    Return,
    /// An address that cooled when its transfer began stays here after all. Its cooldown begins
    /// again at this time.
    ReturnCooling(BootTime),
}

impl Move {
    /// Returns the state in which an address is after this move; `None` if the move does not begin
    /// in `from`. This is the table of moves.
    #[inline]
    pub const fn target(self, from: AddressState) -> Option<AddressState> {
        use AddressState::{Allocated, Cooling, Free, InTransfer};
        match (self, from) {
            (Self::Allocate, Free) => Some(Allocated),
            (Self::Reuse, Cooling) => Some(Allocated),
            (Self::Hold, Free | Cooling) => Some(Allocated),
            (Self::Release(_), Allocated) => Some(Cooling),
            (Self::Undo, Allocated) => Some(Free),
            (Self::Expire, Cooling) => Some(Free),
            (Self::Transfer, Free | Cooling) => Some(InTransfer),
            (Self::Return, InTransfer) => Some(Free),
            (Self::ReturnCooling(_), InTransfer) => Some(Cooling),
            _ => None,
        }
    }

    /// Returns whether the move may happen in a block of that state. Addresses are handed out of
    /// active blocks only, and go to others only out of blocks that are surely this node's.
    #[inline]
    pub const fn is_for(self, block: BlockState) -> bool {
        match self {
            Self::Allocate | Self::Reuse => matches!(block, BlockState::Active),
            Self::Transfer => matches!(block, BlockState::Active | BlockState::Spare),
            _ => true,
        }
    }

    /// Returns the time at which an address begins to cool with this move.
    pub(super) const fn cools_from(self) -> Option<BootTime> {
        match self {
            Self::Release(at) | Self::ReturnCooling(at) => Some(at),
            _ => None,
        }
    }
}

/// A move that was refused; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveError {
    /// The address is in no block in hand.
    NoBlock(Address),
    /// The move does not begin in the state of the address, or not in a block of that state.
    NoMove {
        /// The address.
        number: Address,
        /// Its state.
        state: AddressState,
        /// The state of its block.
        block: BlockState,
        /// The move.
        tried: Move,
    },
}
