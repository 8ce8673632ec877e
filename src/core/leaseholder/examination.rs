//! The part of a search that looks into the blocks of silent nodes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Forfeited;
use crate::core::address::Cidr;

/// The blocks of silent nodes that a search still has to look into.
#[derive(Default, Debug)]
pub(super) struct Examination {
    pub(super) left: VecDeque<(Arc<str>, Cidr)>,
    pub(super) reading: Option<(Arc<str>, Cidr)>,
    pub(super) reads: usize,
    /// The largest free part so far.
    pub(super) best: Option<Forfeited>,
}

impl Examination {
    pub(super) fn new(left: VecDeque<(Arc<str>, Cidr)>) -> Self {
        Self { left, ..Self::default() }
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }
}
