//! Rules broken on purpose: the simulator runs with one of these and must notice. In a build that
//! is not for tests every switch is off for ever, and costs nothing.

/// A rule of the protocol, broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Claims don't compare that nothing overlaps them (rule 1).
    OverlapNotCompared,
    /// Changes of blocks don't compare the block's revision (rule 1).
    RevisionNotCompared,
    /// Ownership transactions don't compare the node's key (rules 1 and 6).
    EpochNotCompared,
    /// Addresses are handed out of a spare (rule 2).
    SpareIsActive,
    /// Active blocks hang on the node's lease (rule 3).
    ActiveOnLease,
    /// A transaction whose answer was lost counts as failed (rule 4).
    UnknownMeansFailed,
    /// What a watch reports is enough to hand out of it (rule 5).
    WatchDecides,
    /// Blocks of the journal are trusted whatever the store says (rule 11).
    TrustMemory,
    /// A DEL is answered, and the address free, before it is durable (rule 7).
    DelBeforeDurable,
    /// A release does not look at the sequence number (rule 8).
    SequenceIgnored,
    /// Blocks go back before the journal has it (rule 9).
    GiveBackBeforeJournal,
    /// A node whose journal is older than itself does not notice: what it does not know of its own
    /// it gives back.
    ForgetsUnnoticed,
    /// A node that forgot does not read from the records what is held.
    RecordsUnread,
    /// What is noted of an address is recorded whoever owns its block.
    RecordsOfOthers,
    /// A block is given to whoever asks although addresses in it are held (rule 10).
    GiveWhatIsHeld,
    /// The removal of a node leaves the node's key as it is, so that the node does not notice
    /// (rule 3).
    RemovalKeepsEpoch,
    /// The active blocks of a removed node are free at once (rule 3).
    RemovalFreesBlocks,
}

#[cfg(test)]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether that rule is broken.
#[cfg(test)]
pub fn broken(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Whether that rule is broken: never.
#[cfg(not(test))]
#[inline]
pub const fn broken(_: Mutant) -> bool {
    false
}

/// Breaks a rule on this thread, or none.
#[cfg(test)]
pub fn breaks(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}
