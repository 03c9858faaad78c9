//! The steps of a scenario: when, to whom, and what.

use super::Span;
use serde::{Deserialize, Serialize};

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, virtual seconds from the start of the part under faults.
    pub at_s: Span,
    /// Waits for this from `at_s` on, for a while; without it the step does not happen.
    #[serde(default)]
    pub when: Option<Moment>,
    /// Share of seeds in which it happens (0 to 1).
    #[serde(default = "always")]
    pub chance: f64,
    /// Name that expectations refer to.
    #[serde(default)]
    pub label: Option<String>,
    /// The sentence of the story.
    pub text: String,
    /// What happens.
    #[serde(rename = "do")]
    pub action: Action,
}

/// A moment of the cluster's own that a step can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A voter was removed, and the learner that takes its place is not promoted yet.
    VoterRemoved,
    /// The log lets a manager in by its token, and it is no member yet.
    ManagerAdmitted,
    /// A new manager is a learner, and no voter yet.
    ManagerLearns,
}

fn always() -> f64 {
    1.0
}

/// So little that only the log's ready segments can still be written.
fn crumbs() -> Span {
    Span {
        low: 64.0,
        high: 64.0,
    }
}

/// What happens in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Processes end and come back.
    Crash {
        /// Which nodes.
        who: Who,
        /// How; a seed chooses.
        how: Vec<Crash>,
        /// How long they are away, seconds.
        down_s: Span,
    },
    /// The network is cut.
    Partition {
        /// How; a seed chooses.
        cut: Vec<Cut>,
        /// In which directions; a seed chooses.
        flow: Vec<Flow>,
        /// For how long, seconds.
        for_s: Span,
    },
    /// Every disk operation (or every sync) waits.
    DiskStall {
        /// Whose disk.
        who: Who,
        /// For how long, seconds.
        for_s: Span,
    },
    /// The disk is slower by a factor.
    DiskSlow {
        /// Whose disk.
        who: Who,
        /// How much.
        factor: Span,
        /// For how long, seconds.
        for_s: Span,
    },
    /// The next sync of the log fails with EIO; the process is started again after a while.
    DiskSyncError {
        /// Whose disk.
        who: Who,
        /// How long until somebody starts the node again, seconds.
        down_s: Span,
    },
    /// The disk fills up, and is freed again.
    DiskFull {
        /// Whose disk.
        who: Who,
        /// How much of it is left, KiB.
        #[serde(default = "crumbs")]
        left_kb: Span,
        /// For how long, seconds.
        for_s: Span,
    },
    /// The node is stopped, its store directory is damaged or removed, and it is started.
    StoreDamage {
        /// Whose store.
        who: Who,
    },
    /// One bit of the log at rest flips while the node is down.
    LogRot {
        /// Whose log.
        who: Who,
        /// How long it is down, seconds.
        down_s: Span,
    },
    /// The node comes back with an empty disk.
    Wipe {
        /// Who.
        who: Who,
        /// How long it is away, seconds.
        down_s: Span,
    },
    /// Clocks drift apart.
    ClockDrift {
        /// Whose.
        who: Who,
        /// Parts per million, either sign.
        ppm: Span,
    },
    /// A wall clock jumps.
    ClockJump {
        /// Whose.
        who: Who,
        /// By how much, seconds, either sign.
        by_s: Span,
    },
    /// A wall clock stands still.
    ClockFreeze {
        /// Whose.
        who: Who,
        /// For how long, seconds.
        for_s: Span,
    },
    /// A process is stopped (SIGSTOP) and goes on.
    Pause {
        /// Who.
        who: Who,
        /// For how long, seconds.
        for_s: Span,
    },
    /// Leadership is handed over by the operator.
    Transfer,
    /// An operator's command, run by the production command line inside the simulation.
    Command {
        /// The line, without `seaworthy`.
        line: String,
        /// Exit code that is right at this moment.
        #[serde(default)]
        exit: Option<u8>,
    },
    /// Hosts hear nothing of others, and the others nothing of them; the rest of the network is whole.
    CutOff {
        /// Who is cut off.
        who: Who,
        /// From whom.
        from: Who,
        /// In which directions, the first side being `who`; a seed chooses.
        flow: Vec<Flow>,
        /// For how long, seconds.
        for_s: Span,
    },
    /// A machine's table of connections is full: nobody new gets in, and of those who are connected to it each keeps the oldest
    /// connection alone. What it opens itself is whole.
    TableFull {
        /// Whose.
        who: Who,
        /// For how long, seconds.
        for_s: Span,
    },
    /// What runs tasks on workers answers with errors; the tasks themselves go on.
    ExecutorFails {
        /// On which workers.
        who: Who,
        /// For how long, seconds.
        for_s: Span,
    },
    /// Something is wanted of the cluster: a command of orchestration, as the log has it.
    Order {
        /// The command; `the worker of NAME` stands for the name of that worker.
        command: toml::Table,
    },
    /// A manager that was not there before is started, with a token that an operator makes for it.
    AddManager {
        /// What it shows; a seed chooses.
        token: Vec<Shown>,
        /// How long it tries when that is not good, seconds.
        for_s: Span,
    },
    /// The machine of a manager is gone for good, and an operator removes the member.
    RemoveManager {
        /// Whose.
        who: Who,
    },
}

/// The token that a new manager shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// A good one.
    Good,
    /// One that was revoked.
    Revoked,
    /// One by which workers join.
    OfWorkers,
    /// One that nobody made.
    Nobodys,
}

/// Which nodes a step is about; decided when it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// The leader of that moment (any node if there is none).
    Leader,
    /// One follower.
    Follower,
    /// One node.
    Any,
    /// As many as the cluster survives.
    Minority,
    /// The leader and as many followers as make a majority with it.
    Majority,
    /// All managers.
    All,
    /// The manager that came last by a token; nobody if none did.
    Newest,
    /// The worker of this number: `worker w2`.
    Worker(u32),
    /// One worker: `any worker`.
    AnyWorker,
    /// As many workers as are less than half of them, at least one: `some workers`.
    SomeWorkers,
    /// Every worker: `all workers`.
    AllWorkers,
    /// A worker that has a task of this service (any worker if none has): `the worker of NAME`.
    WorkerOf(String),
    /// The leader with less than half of the workers: `the leader and some workers`.
    LeaderSide,
    /// A follower with less than half of the workers: `a follower and some workers`.
    FollowerSide,
    /// Whoever else there is: `everybody else`.
    Everybody,
    /// Managers and workers of a rack, dealt over three by their numbers: `rack 1`.
    Rack(u32),
    /// All managers, as if they stood in that rack, and its workers: `the managers and rack 1`.
    ManagersAndRack(u32),
}

impl TryFrom<String> for Who {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |text: &str, before: &str| text.strip_prefix(before)?.parse().ok();
        Ok(match text.as_str() {
            "leader" => Who::Leader,
            "follower" => Who::Follower,
            "any" => Who::Any,
            "minority" => Who::Minority,
            "majority" => Who::Majority,
            "all" => Who::All,
            "newest" => Who::Newest,
            "any worker" => Who::AnyWorker,
            "some workers" => Who::SomeWorkers,
            "all workers" => Who::AllWorkers,
            "the leader and some workers" => Who::LeaderSide,
            "a follower and some workers" => Who::FollowerSide,
            "everybody else" => Who::Everybody,
            other => {
                let numbered = number(other, "worker w").map(Who::Worker);
                let racks = number(other, "the managers and rack ").map(Who::ManagersAndRack);
                let rack = number(other, "rack ").map(Who::Rack);
                let service = other.strip_prefix("the worker of ");
                let service = service.map(|service| Who::WorkerOf(service.to_owned()));
                return numbered.or(racks).or(rack).or(service).ok_or_else(|| {
                    format!(
                        "{other:?} names nobody: leader, follower, any, minority, majority, all, newest, worker wN, \
                         any worker, some workers, all workers, the worker of SERVICE, the leader and some workers, \
                         a follower and some workers, everybody else, rack N, the managers and rack N"
                    )
                });
            }
        })
    }
}

impl From<Who> for String {
    fn from(who: Who) -> String {
        match who {
            Who::Leader => "leader".to_owned(),
            Who::Follower => "follower".to_owned(),
            Who::Any => "any".to_owned(),
            Who::Minority => "minority".to_owned(),
            Who::Majority => "majority".to_owned(),
            Who::All => "all".to_owned(),
            Who::Newest => "newest".to_owned(),
            Who::Worker(number) => format!("worker w{number}"),
            Who::AnyWorker => "any worker".to_owned(),
            Who::SomeWorkers => "some workers".to_owned(),
            Who::AllWorkers => "all workers".to_owned(),
            Who::LeaderSide => "the leader and some workers".to_owned(),
            Who::FollowerSide => "a follower and some workers".to_owned(),
            Who::Everybody => "everybody else".to_owned(),
            Who::WorkerOf(service) => format!("the worker of {service}"),
            Who::Rack(number) => format!("rack {number}"),
            Who::ManagersAndRack(number) => format!("the managers and rack {number}"),
        }
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crash {
    /// The machine loses power: what was not synced is lost, torn or reordered; peers hear nothing.
    PowerLoss,
    /// `kill -9`: the page cache survives, connections are reset.
    Kill,
    /// SIGTERM: an orderly stop.
    Stop,
}

/// Where the network is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// The leader alone on one side.
    LeaderAlone,
    /// The leader with a minority.
    LeaderInMinority,
    /// The leader with the majority.
    LeaderInMajority,
    /// Random halves.
    Random,
    /// Each node alone.
    Shattered,
}

/// In which directions a cut holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Both.
    Symmetric,
    /// The first side cannot send to the second.
    Outbound,
    /// The first side cannot hear the second.
    Inbound,
}
