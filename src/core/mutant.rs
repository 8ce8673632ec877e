//! Rules broken on purpose: the simulator runs with one of these and must notice, and so must the
//! runs of real daemons in `tests/it/chaos`, which have a debug build break one. In a release build
//! every switch is off for ever, and costs nothing.

/// Declares the rules, and lists all of them.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule of the protocol, broken.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            #[cfg(any(test, debug_assertions))]
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

mutants! {
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
    /// A transaction counts as failed if its last attempt has failed, although the answer to an
    /// earlier one was lost (rule 4).
    RetryEndsUnknown,
    /// The report of a watch is enough to hand out of a block (rule 5).
    WatchDecides,
    /// Blocks of the journal are trusted even if the store says otherwise (rule 11).
    TrustMemory,
    /// The address of a DEL is free before the DEL is durable (rule 7).
    DelBeforeDurable,
    /// A release does not look at the sequence number (rule 8).
    SequenceIgnored,
    /// Blocks go back although the journal has not forgotten them (rule 9). Merely to order it too
    /// early would be harmless: the transaction waits for its own entry, which comes later.
    GiveBackBeforeJournal,
    /// A part of a block goes to another node although the journal has not forgotten it (rule 9).
    TransferBeforeJournal,
    /// A transaction is sent before the journal knows of it (rule 13).
    IntentBeforeDurable,
    /// A transaction gets the number of an earlier one that was not carried out (rule 13).
    LinkUsedAgain,
    /// Calls are answered while the journal still has to write their entries (rule 12).
    AnsweredBeforeDurable,
    /// A failed commit counts as a good one (rule 14).
    FailedCommitIsGood,
    /// Addresses are handed out of a block that is not in the journal (rule 15).
    BlockNotJournalled,
    /// Messages about blocks of range sets that become one are not held back (rule 16).
    MergeNotHeldBack,
    /// A journal of an earlier boot is trusted before the store has confirmed it (rule 17).
    UnconfirmedTrusted,
    /// A journal counts as confirmed before it knows which blocks were lost (rule 17).
    ConfirmedEarly,
    /// A range set keeps spares of a lease that is gone (rule 18).
    LostLeaseSparesKept,
    /// A node goes on handing out when it has not reached the store for `offlineLimit` (rule 19).
    OfflineLimitIgnored,
    /// The records of addresses that leave a node stay behind, or are written after that (rule 20).
    RecordsLeftBehind,
    /// A failed renewal of a holding ends the holding (rule 21).
    UndoEndsMore,
    /// A node whose journal is older than itself does not notice: what it does not know of its own
    /// it gives back (rule 23).
    ForgetsUnnoticed,
    /// A node that forgot does not read from the records what is held (rule 23).
    RecordsUnread,
    /// A record is written by a node that does not own its block (rule 22).
    RecordsOfOthers,
    /// The answer of another node is taken in each time that it is reported (rule 33).
    AnswerTakenTwice,
    /// A search that did not ask for addresses that cool counts for a request that would take one
    /// (rule 27).
    RefusalShared,
    /// A DEL that was answered before the node has joined is not in the journal (rule 28).
    EarlyDelForgotten,
    /// With `commit = "etcd"`, a DEL is answered while its record is in the store (rule 29).
    EndNotAwaited,
    /// Blocks that a node had lost before a restore of the store are its own again on the restored
    /// store's word (rule 26).
    RestoredTrusted,
    /// A block is given to the node that asks although addresses in it are held (rule 10).
    GiveWhatIsHeld,
    /// A node takes a block in which nothing is recorded from one that has no session: it may live,
    /// cut off, and hand addresses out (rule 3).
    SilentIsGone,
    /// A node says that it forfeits its free addresses before all that is held is recorded (rule
    /// 34).
    ForfeitsUnrecorded,
    /// A free part of a silent node's block is taken without writing the node's key: what the node
    /// has sent may land after that (rule 34).
    ForfeitNotFenced,
    /// A daemon that no longer waits for its records hands out of blocks of which the store says
    /// that others may have what is not recorded (rule 34).
    ForfeitForgotten,
    /// The removal of a node leaves the node's key as it is, so that the node does not notice
    /// (rule 3).
    RemovalKeepsEpoch,
    /// The active blocks of a removed node are free at once (rule 3).
    RemovalFreesBlocks,
    /// A node claims while a restore of the store is being settled (rule 24).
    ClaimsWhileRestored,
    /// Another state directory gets the blocks of a node with its name (rule 30).
    NameInherits,
    /// A stopping daemon parks blocks although its journal still says that it may hand out of them
    /// (rule 31).
    ParkBeforeJournal,
    /// A range set is forgotten although calls are on their way to it (rule 32).
    ForgottenUnheard,
}

#[cfg(test)]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Returns whether that rule is broken.
#[cfg(test)]
pub fn broken(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Breaks a rule on this thread, or none.
#[cfg(test)]
pub fn breaks(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// The rule that a daemon breaks.
#[cfg(all(debug_assertions, not(test)))]
static BROKEN: std::sync::OnceLock<Mutant> = std::sync::OnceLock::new();

/// Returns whether that rule is broken.
#[cfg(all(debug_assertions, not(test)))]
pub fn broken(mutant: Mutant) -> bool {
    BROKEN.get() == Some(&mutant)
}

/// Breaks the rule of this name in this process, for ever. False if there is no such switch.
#[cfg(all(debug_assertions, not(test)))]
pub fn breaks(name: &str) -> bool {
    let of = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    of.is_some_and(|mutant| BROKEN.set(*mutant).is_ok())
}

/// Returns whether that rule is broken: never.
#[cfg(not(any(test, debug_assertions)))]
#[inline]
pub const fn broken(_: Mutant) -> bool {
    false
}
