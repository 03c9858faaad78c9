//! Planted bugs: the test of the test. Each is a mistake that real systems have made; a simulator that does not find it within a
//! stated number of runs is too weak to be believed about anything else.
//!
//! No bug needs a hook in `node`: the node that runs is the one that ships, and the mistake is made around it, at the seams
//! that the simulator holds anyway (the disk's promises, the files between two lives, the wire, the clients' door; around a worker,
//! what runs its tasks and its talk with managers). [`Bug`] is data (`crew`: those of workers); `ground` plants it in a run; `platter`,
//! `wire`, `door`, `hands` and `talk` are the places; [`witness`] says which oracle spoke; [`search`] runs seeds until the right one
//! does, and then the same seed without the bug, which must be clean; [`command`] prints.
//!
//! Left out: mistakes inside a pure state machine that no seam shows (they have properties and fuzzers of their own).

pub mod command;
mod crew;
mod door;
mod ground;
mod hands;
mod platter;
pub mod search;
mod talk;
mod wire;
pub mod witness;

use crew::CREW_BUGS;
use door::Edit;
use hands::Slip;
use talk::Slur;
use wire::Forgery;

pub use ground::Ground;
pub use hands::Hand;
pub use witness::Witness;

use scenarios::{Expectation, Scenario};
use serde::{Deserialize, Serialize};
use simdisk::CrashMode;

/// What is done to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// Nothing.
    Nothing,
    /// The disk says that the log is synced and does nothing.
    LyingSync,
    /// After a power loss, promises that no entry followed are gone.
    LostPromise,
    /// After each death the vote of the term is gone.
    ForgottenVote,
    /// After a power loss the end of the log is gone.
    DroppedTail {
        /// How many entries.
        entries: usize,
    },
    /// After an orderly stop the last entries are applied once more.
    AppliedAgain,
    /// After each death a byte of an entry is another, with good checksums.
    UncheckedEntry,
    /// The node's clock runs too fast, by parts per million.
    HastyClock {
        /// By how much.
        ppm: i64,
    },
    /// Frames of its own on the peers' wire.
    Forged(Forgery),
    /// Edited requests and answers at the clients' door.
    Edited(Edit),
    /// Mistakes of what runs a worker's tasks.
    Slipping(Slip),
    /// Changed words between workers and managers.
    Mumbled(Slur),
    /// Nothing ends with a worker's process.
    Unguarded,
    /// A worker's disk says that its file is synced and does nothing.
    LyingSave,
    /// Workers' clocks run too slowly, by parts per million (a negative number).
    SlowWorker {
        /// By how much.
        ppm: i64,
    },
}

/// A planted bug.
#[derive(Debug)]
pub struct Bug {
    /// Name in commands.
    pub name: &'static str,
    /// The mistake, as a programmer would make it.
    pub words: &'static str,
    /// How it is made without touching the node.
    pub how: &'static str,
    /// What is done.
    plant: Plant,
    /// In which weather it is looked for: scenarios of the registry, or of [`weather`].
    pub scenarios: &'static [&'static str],
    /// Who should notice.
    pub witnesses: &'static [Witness],
    /// What a power loss leaves; none for what each crash draws.
    pub crash_mode: Option<CrashMode>,
}

/// A bug as a run gets it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(into = "SeedlingText", try_from = "SeedlingText")]
pub struct Seedling {
    /// The bug.
    pub bug: &'static Bug,
    /// False for a run in its weather without it.
    pub alive: bool,
}

/// A seedling as a plan has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedlingText {
    /// The bug's name.
    bug: String,
    /// See [`Seedling::alive`].
    alive: bool,
}

impl From<Seedling> for SeedlingText {
    fn from(seedling: Seedling) -> Self {
        SeedlingText {
            bug: seedling.bug.name.to_owned(),
            alive: seedling.alive,
        }
    }
}

impl TryFrom<SeedlingText> for Seedling {
    type Error = String;

    fn try_from(text: SeedlingText) -> Result<Self, String> {
        let bug = find(&text.bug).ok_or_else(|| format!("no bug is called '{}'", text.bug))?;
        Ok(Seedling {
            bug,
            alive: text.alive,
        })
    }
}

/// All planted bugs, the canary first: a run that must fail at once, or failures do not reach whoever asked.
pub fn all() -> impl Iterator<Item = &'static Bug> {
    BUGS.iter().chain(&CREW_BUGS)
}

/// Those in the log, the store and the talk of managers with each other and with clients.
static BUGS: [Bug; 17] = [
    Bug {
        name: "canary",
        words: "nothing is wrong but the expectation",
        how: "the scenario expects less than one leader per term",
        plant: Plant::Nothing,
        scenarios: &["follower-crash"],
        witnesses: &[Witness::Canary],
        crash_mode: None,
    },
    Bug {
        name: "acknowledge-before-sync",
        words: "a write is acknowledged before the log is synced",
        how: "disk: syncs of the log say that all is well and do nothing; a power loss takes all that was not synced",
        plant: Plant::LyingSync,
        scenarios: &["power-loss"],
        witnesses: &[
            Witness::Durability,
            Witness::SameEntry,
            Witness::SameState,
            Witness::OneVote,
            Witness::OneLeader,
            Witness::Linearizable,
        ],
        crash_mode: Some(CrashMode::LoseAll),
    },
    Bug {
        name: "answer-before-write",
        words: "a follower acknowledges entries as they arrive and writes them later",
        how: "wire: each append is answered at once, on the follower's own connection to the leader",
        plant: Plant::Forged(Forgery::EarlyAnswer),
        scenarios: &["power-loss"],
        witnesses: &[Witness::Majority, Witness::Durability, Witness::SameEntry],
        crash_mode: None,
    },
    Bug {
        name: "skip-hard-state-sync",
        words: "term and vote are written and not synced, unless entries follow",
        how: "files: after a power loss the log is written again without the promises that no entry followed",
        plant: Plant::LostPromise,
        scenarios: &["dark-election"],
        witnesses: &[Witness::OneVote, Witness::OneLeader],
        crash_mode: None,
    },
    Bug {
        name: "forget-vote",
        words: "the vote of the term does not survive a restart",
        how: "files: after each death the log is written again with the term and without the vote",
        plant: Plant::ForgottenVote,
        scenarios: &["dark-election"],
        witnesses: &[Witness::OneVote, Witness::OneLeader],
        crash_mode: None,
    },
    Bug {
        name: "drop-tail",
        words: "recovery takes the end of the log for torn and cuts too much",
        how: "files: after a power loss the log is written again without its last three entries",
        plant: Plant::DroppedTail { entries: 3 },
        scenarios: &["power-loss"],
        witnesses: &[Witness::Durability, Witness::SameEntry, Witness::SameState],
        crash_mode: None,
    },
    Bug {
        name: "apply-twice",
        words: "after a restart entries are applied that the store had already seen",
        how: "files: after an orderly stop the closed store gets its last entries once more, by the node's own state machine",
        plant: Plant::AppliedAgain,
        scenarios: &["orderly-restarts"],
        witnesses: &[
            Witness::SameState,
            Witness::Linearizable,
            Witness::Durability,
        ],
        crash_mode: None,
    },
    Bug {
        name: "ignore-checksum",
        words: "the log is read without looking at its checksums, and a byte has rotted",
        how: "files: after each death the log is written again with one changed byte and good checksums",
        plant: Plant::UncheckedEntry,
        scenarios: &["follower-crash"],
        witnesses: &[Witness::SameEntry, Witness::SameState],
        crash_mode: None,
    },
    Bug {
        name: "deposed-leader-reads",
        words: "a leader answers linearizable reads without asking whether it still leads",
        how: "clients' door: while the node believes to lead, `consistency=local` is added to such requests",
        plant: Plant::Edited(Edit::Unasked),
        scenarios: &["sleeping-leader", "partition-heal"],
        witnesses: &[Witness::Linearizable],
        crash_mode: None,
    },
    Bug {
        name: "count-learner",
        words: "a learner's acknowledgement counts for the quorum",
        how: "wire: a node that came back as a learner repeats its acknowledgements under the id of the voter it was",
        plant: Plant::Forged(Forgery::OldVoice),
        scenarios: &["lost-disk"],
        witnesses: &[Witness::Majority, Witness::Durability, Witness::SameEntry],
        crash_mode: None,
    },
    Bug {
        name: "grant-two-votes",
        words: "a voter grants its vote to every candidate of the term whose log is complete",
        how: "wire: a refusal to a second candidate of the same term becomes a grant",
        plant: Plant::Forged(Forgery::TwoVotes),
        scenarios: &["rival-candidates"],
        witnesses: &[Witness::OneLeader],
        crash_mode: None,
    },
    Bug {
        name: "ignore-frame-checksum",
        words: "frames are read without looking at their checksums, and a byte has changed on the way",
        how: "wire: now and then a byte of an entry is changed on its way in, and the frame gets a good checksum",
        plant: Plant::Forged(Forgery::ChangedEntry),
        scenarios: &["follower-crash"],
        witnesses: &[Witness::SameEntry],
        crash_mode: None,
    },
    Bug {
        name: "ignore-session",
        words: "a write that is tried again is done again",
        how: "clients' door: the headers of the session are hidden from the node",
        plant: Plant::Edited(Edit::NoSession),
        scenarios: &["leader-crash", "power-loss"],
        witnesses: &[Witness::Sessions],
        crash_mode: None,
    },
    Bug {
        name: "claim-freshness",
        words: "a stale read says that it is fresh",
        how: "clients' door: the age in the answers becomes zero",
        plant: Plant::Edited(Edit::Young),
        scenarios: &["partition-heal"],
        witnesses: &[Witness::Freshness],
        crash_mode: None,
    },
    Bug {
        name: "skip-watch-event",
        words: "a watcher is not told every change",
        how: "clients' door: one change in fifty becomes a comment in the stream",
        plant: Plant::Edited(Edit::Silent),
        scenarios: &["follower-crash"],
        witnesses: &[Witness::Watches],
        crash_mode: None,
    },
    Bug {
        name: "hasty-leases",
        words: "a lease is counted in units that are too short",
        how: "clock: the nodes' clocks run a tenth too fast",
        plant: Plant::HastyClock { ppm: 100_000 },
        scenarios: &["short-leases"],
        witnesses: &[Witness::Leases],
        crash_mode: None,
    },
    Bug {
        name: "keep-tokens",
        words: "a manager's token that was revoked is good still",
        how: "clients' door: the wish to end a token becomes a look at all of them",
        plant: Plant::Edited(Edit::Kept),
        scenarios: &["add-a-manager"],
        witnesses: &[Witness::Admission],
        crash_mode: None,
    },
];

/// The bug called `name`.
pub fn find(name: &str) -> Option<&'static Bug> {
    all().find(|bug| bug.name == name)
}

/// Weather that only planted bugs need: where a bug would be rare elsewhere, this is where it shows.
const WEATHER: [&str; 14] = [
    include_str!("weather/dark-election.toml"),
    include_str!("weather/orderly-restarts.toml"),
    include_str!("weather/sleeping-leader.toml"),
    include_str!("weather/lost-disk.toml"),
    include_str!("weather/rival-candidates.toml"),
    include_str!("weather/short-leases.toml"),
    include_str!("weather/lonely-writer.toml"),
    include_str!("weather/new-writer.toml"),
    include_str!("weather/dead-writer.toml"),
    include_str!("weather/torn-worker-file.toml"),
    include_str!("weather/sleeping-worker.toml"),
    include_str!("weather/sleeping-writer.toml"),
    include_str!("weather/short-dark.toml"),
    include_str!("weather/quick-restarts.toml"),
];

/// The weather called `name`.
pub fn weather(name: &str) -> Option<Scenario> {
    let own = WEATHER
        .iter()
        .map(|text| Scenario::parse(text).expect("our own weather is sound"));
    own.into_iter()
        .find(|one| one.name == name)
        .or_else(|| scenarios::find(name))
}

impl Bug {
    /// The scenarios it is looked for in.
    pub fn weather(&self) -> Vec<Scenario> {
        let found = self
            .scenarios
            .iter()
            .map(|name| weather(name).expect("the table is sound"));
        found
            .map(|mut scenario| {
                if self.witnesses.contains(&Witness::Canary) {
                    scenario.expect.push(wrong_expectation());
                }
                scenario
            })
            .collect()
    }
}

/// An expectation that no run meets.
fn wrong_expectation() -> Expectation {
    Expectation {
        id: "canary".to_owned(),
        measure: "leaders_per_term".to_owned(),
        after: None,
        service: None,
        profile: None,
        max: Some(0.0),
        min: None,
        median_max: None,
        unit: "leaders".to_owned(),
        text: "no leader at all".to_owned(),
        runbook: None,
    }
}
