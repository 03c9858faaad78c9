//! Which oracle speaks in a failure: a planted bug counts as found only when one of those that should notice it does.
//!
//! Failures are sentences; each oracle's begin or continue in words of its own, which are the table here. A failure that no
//! oracle of safety wrote (a bound of time, a panic, a cluster that does not come together) has no witness.

/// An oracle of safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// One leader per term.
    OneLeader,
    /// One vote per node and term.
    OneVote,
    /// A commit index never falls.
    CommitOrder,
    /// Each life applies index after index.
    ApplyOrder,
    /// The same entry at the same index everywhere.
    SameEntry,
    /// The same state at the same index everywhere.
    SameState,
    /// What is applied is on a majority's disks.
    Majority,
    /// The clients' history is linearizable.
    Linearizable,
    /// No acknowledged write is lost.
    Durability,
    /// Revisions grow as clients see them.
    Revisions,
    /// A write with a session happens once.
    Sessions,
    /// Stale reads are as old as they say.
    Freshness,
    /// Watchers miss nothing.
    Watches,
    /// Leases last as long as was paid for.
    Leases,
    /// The canary's own expectation.
    Canary,
    /// A volume has one writer at every moment.
    Writers,
    /// A single writer is there only while its worker has a lease.
    VolumeLease,
    /// Attempts of a task run one after the other, on one worker.
    OneAttempt,
    /// Two tasks of a slot are a handover, which ends.
    Slots,
    /// What runs on a machine fits into it.
    Room,
    /// What workers report is so.
    Truth,
    /// Everything is as it was asked for, some time after the storm.
    Whole,
    /// What is right is not begun anew.
    Untouched,
    /// As many tasks serve as were promised.
    Serving,
    /// A silent worker is marked down in time.
    DownInTime,
    /// A worker that lives is not marked down.
    FalseDown,
    /// What is told to stop has stopped in time.
    StopInTime,
    /// A drain ends.
    Drain,
    /// No secret lies anywhere in the clear.
    Sealed,
    /// Tasks have the secrets that they were given.
    Secrets,
    /// Nobody is a member by a token that is not good.
    Admission,
}

/// The words of each oracle.
const WORDS: [(Witness, &str); 39] = [
    (Witness::OneLeader, "two leaders in term"),
    (Witness::OneVote, " voted twice in term"),
    (Witness::CommitOrder, "commit index went back"),
    (Witness::ApplyOrder, " right after entry "),
    (Witness::SameEntry, "two different entries at index"),
    (Witness::SameState, "state differs at index"),
    (Witness::SameState, "installed a snapshot of index"),
    (Witness::SameState, "the nodes' final states differ"),
    (Witness::Majority, " was applied while only "),
    (Witness::Linearizable, "not linearizable: "),
    (Witness::Durability, "acknowledged_writes_lost: "),
    (Witness::Revisions, "revisions_out_of_order: "),
    (Witness::Sessions, "writes_done_twice: "),
    (Witness::Freshness, "stale_reads_unlabelled: "),
    (Witness::Watches, "watch_gaps: "),
    (Witness::Leases, "the lease of "),
    (Witness::Canary, "canary ("),
    (Witness::Writers, "writers_at_once: "),
    (Witness::Writers, "SingleWriter: "),
    (Witness::VolumeLease, "lease_outlived: "),
    (Witness::OneAttempt, "OneAttempt: "),
    (Witness::Slots, "SlotDoubled: "),
    (Witness::Room, "machine_overfull: "),
    (Witness::Truth, "ends_as_reported: "),
    (Witness::Whole, "services_whole: "),
    (Witness::Untouched, "services_stay: "),
    (Witness::Untouched, "W-S21 (Processes that were started"),
    (Witness::Untouched, "W-F38 (Processes that were started"),
    (Witness::Untouched, "W-F34 (Processes that were started"),
    (Witness::Serving, "T-13 (Serving"),
    (Witness::Serving, "T-13 (Tasks that failed"),
    (Witness::Serving, "W-S9 (Serving"),
    (Witness::DownInTime, "T-8 ("),
    (Witness::FalseDown, "W-F34 (Workers"),
    (Witness::StopInTime, "T-11 ("),
    (Witness::Drain, "T-14 ("),
    (Witness::Sealed, "secrets_in_clear: "),
    (Witness::Secrets, "secrets_right: "),
    (Witness::Admission, "token_not_good: "),
];

impl Witness {
    /// Who wrote `failure`; none when no oracle of safety did.
    pub fn of(failure: &str) -> Option<Witness> {
        // A panic may quote anything.
        if failure.starts_with("panic: ") {
            return None;
        }
        WORDS
            .iter()
            .find(|(_, words)| failure.contains(words))
            .map(|(witness, _)| *witness)
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Witness::OneLeader => "one leader per term",
            Witness::OneVote => "one vote per term",
            Witness::CommitOrder => "commit order",
            Witness::ApplyOrder => "apply order",
            Witness::SameEntry => "same entries",
            Witness::SameState => "same state",
            Witness::Majority => "on a majority's disks",
            Witness::Linearizable => "linearizability",
            Witness::Durability => "durability",
            Witness::Revisions => "revisions",
            Witness::Sessions => "sessions",
            Witness::Freshness => "freshness",
            Witness::Watches => "watches",
            Witness::Leases => "leases",
            Witness::Canary => "canary",
            Witness::Writers => "one writer of a volume",
            Witness::VolumeLease => "volumes' leases",
            Witness::OneAttempt => "one attempt at a time",
            Witness::Slots => "one task of a slot",
            Witness::Room => "room on machines",
            Witness::Truth => "ends as reported",
            Witness::Whole => "as asked for in the end",
            Witness::Untouched => "what is right stays",
            Witness::Serving => "enough tasks serve",
            Witness::DownInTime => "down in time",
            Witness::FalseDown => "down only if silent",
            Witness::StopInTime => "stopped in time",
            Witness::Drain => "a drain ends",
            Witness::Sealed => "secrets are sealed",
            Witness::Secrets => "the right secrets",
            Witness::Admission => "no member by a bad token",
        }
    }
}
