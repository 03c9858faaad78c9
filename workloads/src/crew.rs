//! What is measured of services, tasks and workers, from the ledger of what really ran and from looks at what managers show.
//!
//! Pure: no clock, no I/O. The same for a simulated run and for a live one.

use crate::calls::{self, Call};
use crate::check::tasks;
use crate::ledger::{DONE, KILLED, LEASE_ENDED, Run, STOPPED};
use crate::looks::{Look, Note, RESTLESS, wanted};
use crate::verdict::Judged;
use node::fleet::Fleet;
use node::scheduler::model::{Phase, Status};
use node::service::Spec;
use node::service::State;
use node::service::spec::Restart;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Names of the measures, in the order of the prose.
pub const MEASURES: [&str; 27] = [
    "worker_down_ms",
    "workers_down",
    "services_whole_ms",
    "services_whole_after_ms",
    "serving_short",
    "task_starts",
    "task_failures",
    "task_again_ms",
    "task_again_late_ms",
    "stop_ms",
    "drain_ms",
    "writers_at_once",
    "writers_forced_ms",
    "services_settled_ms",
    "calls_lost",
    "calls_lost_percent",
    "calls_tried_again_percent",
    "call_ms",
    "call_gap_ms",
    "calls_smooth_ms",
    "alerts",
    "alert_ms",
    "alert_cleared_ms",
    "slot_tasks",
    "starts_on_return",
    "rollouts_failed",
    "canary_watched_ms",
];

/// Longest time for assignments and reports of a handover on their way: a few round trips, and what gathers for an entry.
const WORDS_MAX: Duration = Duration::from_secs(5);

/// How exactly a worker knows how long a process ran.
const SEEN: Duration = Duration::from_secs(1);

/// How long after a step what it led to may still begin.
const ECHO: Duration = Duration::from_secs(5);

/// Longest pause before a task that ended runs again on its worker, with a moment to spare.
const AGAIN_MAX: Duration = Duration::from_secs(65);

/// What a run leaves behind for measures.
pub struct Evidence {
    /// What really ran.
    pub runs: Vec<Run>,
    /// Looks at services.
    pub looks: Vec<Look>,
    /// What happened once.
    pub notes: Vec<Note>,
    /// What became of users' calls.
    pub calls: Vec<Call>,
    /// The most tasks that one slot had or remembered.
    pub slot_tasks: usize,
    /// When the alert on waiting tasks was raised, and when it was cleared; none: nobody watched.
    pub alerts: Option<Vec<(Duration, bool)>>,
    /// What each service that there is in the end shall be.
    pub specs: BTreeMap<String, Arc<Spec>>,
    /// The part under faults: what is measured of no step is measured of this.
    pub storm: (Duration, Duration),
    /// When the run was over.
    pub end: Duration,
}

impl Evidence {
    /// One measure over a span, of the calls of one service if it is one of calls; none when there is nothing to measure.
    pub fn take(
        &self,
        measure: &str,
        service: Option<&str>,
        span: Option<(Duration, Duration)>,
    ) -> Option<f64> {
        let (begin, end) = span.unwrap_or(self.storm);
        let within = |at: Duration| at >= begin && at < end;
        match measure {
            "worker_down_ms" => Some(millis(self.down(begin).unwrap_or(self.end) - begin)),
            "workers_down" => {
                let down = self.notes.iter().filter(|note| {
                    matches!(note, Note::Worker { at, status: Status::Down, .. } if within(*at))
                });
                Some(down.count() as f64)
            }
            "services_whole_ms" => self.whole_from(begin).map(|at| millis(at - begin)),
            "services_whole_after_ms" => self.whole_at(end).map(|at| millis(at - end)),
            "serving_short" => Some(self.short(begin, end)),
            "task_starts" => {
                // What was begun because something was back was begun then, and not while it was away.
                let end = span.map_or(end, |(_, end)| end + ECHO);
                let begun = |run: &&Run| run.from >= begin && run.from < end;
                Some(self.runs.iter().filter(begun).count() as f64)
            }
            "task_failures" => {
                let failed = self.notes.iter().filter(|note| {
                    matches!(note, Note::Ended { at, state: State::Failed, .. } if within(*at))
                });
                Some(failed.count() as f64)
            }
            "task_again_ms" => self.again(begin, end),
            "task_again_late_ms" => self.again_late(begin, end),
            "stop_ms" => {
                let told = self.runs.iter().filter(|run| run.told.is_some_and(within));
                // What has not ended yet takes at least until now.
                let to = |run: &Run| run.to.unwrap_or(self.end);
                let spans = told.filter_map(|run| Some(millis(to(run).saturating_sub(run.told?))));
                spans.reduce(f64::max)
            }
            "drain_ms" => {
                let mut drained = self.notes.iter().filter_map(|note| match note {
                    Note::Drained { at, .. } if *at >= begin => Some(*at),
                    _ => None,
                });
                Some(millis(drained.next().unwrap_or(self.end) - begin))
            }
            of_calls if of_calls.starts_with("call") => {
                calls::take(&self.calls, of_calls, service, (begin, end))
            }
            "slot_tasks" => Some(self.slot_tasks as f64),
            "starts_on_return" => {
                let begun = |run: &&Run| run.from >= end && run.from < end + ECHO;
                Some(self.runs.iter().filter(begun).count() as f64)
            }
            "rollouts_failed" => {
                let failed = self.notes.iter().filter(|note| {
                    let Note::Rollout { at, phase, .. } = note else {
                        return false;
                    };
                    within(*at) && matches!(phase, Phase::Paused | Phase::RollingBack)
                });
                Some(failed.count() as f64)
            }
            "canary_watched_ms" => {
                let watched = self.notes.iter().filter_map(|note| match note {
                    Note::CanaryOver { at, watched, .. } if *at >= begin => Some(millis(*watched)),
                    _ => None,
                });
                watched.reduce(f64::min)
            }
            "alerts" => {
                let raised = self.alerts.as_ref()?.iter();
                Some(raised.filter(|(at, on)| *on && within(*at)).count() as f64)
            }
            "alert_ms" | "alert_cleared_ms" => {
                let wanted = measure == "alert_ms";
                let mut changes = self.alerts.as_ref()?.iter();
                let first = changes.find(|(at, on)| *at >= begin && *on == wanted);
                Some(millis(first.map_or(self.end, |(at, _)| *at) - begin))
            }
            _ => None,
        }
    }

    /// When the first worker was marked down from `begin` on.
    fn down(&self, begin: Duration) -> Option<Duration> {
        let mut down = self.notes.iter().filter_map(|note| match note {
            Note::Worker {
                at,
                status: Status::Down,
                ..
            } if *at >= begin => Some(*at),
            _ => None,
        });
        down.next()
    }

    /// From when on, not before `begin`, all services were whole for the first time: at once, if nothing was ever missing.
    fn whole_from<'a>(&'a self, begin: Duration) -> Option<Duration> {
        let mut broken: BTreeSet<&str> = BTreeSet::new();
        let (earlier, later): (Vec<&Look>, Vec<&Look>) =
            self.looks.iter().partition(|look| look.at < begin);
        let note = |broken: &mut BTreeSet<&'a str>, look: &'a Look| match look.is_whole() {
            true => drop(broken.remove(look.service.as_str())),
            false => drop(broken.insert(&look.service)),
        };
        earlier.into_iter().for_each(|look| note(&mut broken, look));
        let mut was_broken = !broken.is_empty();
        let mut since = begin;
        for look in later {
            // Several looks of one moment are one change.
            if was_broken && broken.is_empty() && look.at > since {
                return Some(since);
            }
            note(&mut broken, look);
            was_broken |= !broken.is_empty();
            since = look.at;
        }
        match (broken.is_empty(), was_broken) {
            (true, true) => Some(since),
            (true, false) => Some(begin),
            (false, _) => None,
        }
    }

    /// The first moment, not before `begin`, at which all services are whole.
    fn whole_at(&self, begin: Duration) -> Option<Duration> {
        let mut broken: BTreeSet<&str> = BTreeSet::new();
        let mut since = begin;
        for look in &self.looks {
            // Several looks of one moment are one change.
            if look.at > begin && look.at > since && broken.is_empty() {
                return Some(since);
            }
            match look.is_whole() {
                true => drop(broken.remove(look.service.as_str())),
                false => drop(broken.insert(&look.service)),
            }
            since = since.max(look.at);
        }
        broken.is_empty().then_some(since)
    }

    /// How many processes were missing at the worst moment of a span: below what is wanted less what may be unavailable.
    fn short(&self, begin: Duration, end: Duration) -> f64 {
        let names: BTreeSet<&str> = self
            .looks
            .iter()
            .map(|look| look.service.as_str())
            .collect();
        let mut worst = 0;
        for name in names {
            let serving = tasks::serving(&self.runs, name, self.end);
            let mine: Vec<&Look> = self
                .looks
                .iter()
                .filter(|look| look.service == name)
                .collect();
            let moments = serving.iter().map(|(at, _)| *at);
            let moments = moments
                .chain([begin])
                .filter(|at| *at >= begin && *at < end);
            for at in moments {
                let many = serving
                    .iter()
                    .rev()
                    .find(|(from, _)| *from <= at)
                    .map_or(0, |(_, many)| *many);
                let look = mine.iter().rev().find(|look| look.at <= at);
                let least = look.map_or(0, |look| look.wanted.saturating_sub(look.unavailable_max));
                worst = worst.max(i64::try_from(least).unwrap_or(i64::MAX) - many);
            }
        }
        worst as f64
    }

    /// The longest time from an end that nobody asked for to the next attempt of the same task.
    fn again(&self, begin: Duration, end: Duration) -> Option<f64> {
        let mut longest = None;
        for run in &self.runs {
            let Some(ended) = run
                .to
                .filter(|to| run.told.is_none() && *to >= begin && *to < end)
            else {
                continue;
            };
            let mut next = self
                .runs
                .iter()
                .filter(|next| next.task == run.task && next.attempt > run.attempt);
            if let Some(next) = next.next() {
                let took = millis(next.from.saturating_sub(ended));
                longest = Some(longest.map_or(took, |known: f64| known.max(took)));
            }
        }
        longest
    }

    /// The longest time from the moment at which a task's next attempt was due, by its policy and when the last one had ended by
    /// itself, until that attempt began.
    fn again_late(&self, begin: Duration, end: Duration) -> Option<f64> {
        let mut of_task: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
        for run in &self.runs {
            of_task.entry(run.task).or_default().push(run);
        }
        let mut longest = None;
        for runs in of_task.values() {
            let Some(policy) = self.specs.get(&runs[0].service).map(|spec| &spec.restart) else {
                continue;
            };
            let mut restarts = 0;
            for (run, next) in runs.iter().zip(&runs[1..]) {
                let Some(ended) = run.to else { break };
                // Its worker saw it run a little shorter or longer: near the window either pause is right.
                let window = Duration::from_millis(policy.window_ms);
                if ended - run.from >= window + SEEN {
                    restarts = 0;
                }
                let due = ended + pause(policy, restarts);
                // Attempts that could not be started ended too, and nobody saw when.
                let is_next = next.attempt == run.attempt + 1;
                if is_next && run.told.is_none() && ended >= begin && ended < end {
                    let late = millis(next.from.saturating_sub(due));
                    longest = Some(longest.map_or(late, |known: f64| known.max(late)));
                }
                restarts += next.attempt - run.attempt;
            }
        }
        longest
    }
}

/// The specification of each service.
pub fn specs(fleet: &Fleet) -> BTreeMap<String, Arc<Spec>> {
    let services = fleet.snapshot.services.values();
    let specs = services.map(|service| Arc::clone(&service.current.spec));
    specs.map(|spec| (spec.name.clone(), spec)).collect()
}

/// The pause that a policy asks for after so many restarts.
fn pause(policy: &Restart, restarts: u32) -> Duration {
    let doubled = 1_u64.checked_shl(restarts).unwrap_or(u64::MAX);
    let ms = policy.delay_ms.saturating_mul(doubled);
    Duration::from_millis(ms.min(policy.delay_max_ms))
}

/// How long a handover within a slot may take when nothing is broken (docs/orchestration.md, section 3): until the newer process is
/// ready and has run for the monitor time, and the grace of the older; and the words about it have to go round.
fn handover_max(specs: &BTreeMap<String, Arc<Spec>>, newer: &Run) -> Duration {
    // One that was removed meanwhile had ordinary times.
    let default = Arc::new(Spec::new("", &[]));
    let spec = specs.get(&newer.service).unwrap_or(&default);
    let told = Duration::from_millis(spec.update.monitor_ms + spec.stop_grace_ms);
    newer.ready_after + told + WORDS_MAX
}

/// Judges what really ran. Faults and what they led to excuse doubled slots within `excused`.
pub fn judge(evidence: &Evidence, excused: &[(Duration, Duration)]) -> Judged {
    let writers = tasks::writers(&evidence.runs, evidence.end);
    let mut judged = Judged::default();
    let at_once = (writers.len() + 1) as f64;
    judged
        .measures
        .insert("writers_at_once".to_owned(), at_once);
    if let Some(forced) = tasks::forced(&evidence.runs, evidence.end) {
        let probe = "a volume had two writers after a worker was removed by force";
        judged.probes.push(probe);
        let measure = "writers_forced_ms".to_owned();
        judged.measures.insert(measure, millis(forced));
    }
    let attempts = tasks::attempts(&evidence.runs, evidence.end);
    let bound = |newer: &Run| handover_max(&evidence.specs, newer);
    let doubles = tasks::doubles(&evidence.runs, bound, excused, evidence.end);
    let findings = writers.into_iter().chain(attempts).chain(doubles);
    judged.failures.extend(findings.map(|one| one.to_string()));
    let notes = evidence.notes.iter();
    judged
        .failures
        .extend(notes.filter_map(|note| untrue(note, &evidence.runs)));
    if evidence.runs.iter().any(|run| run.attempt > 1) {
        judged.probes.push("a task was started again on its worker");
    }
    if evidence.runs.iter().any(|run| run.why == KILLED) {
        judged.probes.push("a task was killed");
    }
    if evidence.runs.iter().any(|run| run.why == LEASE_ENDED) {
        let probe = "a guard killed a task whose worker stood still";
        judged.probes.push(probe);
    }
    judged
}

/// What is wrong with an end that managers heard of: a task is complete only if its last process ended well.
fn untrue(note: &Note, runs: &[Run]) -> Option<String> {
    let Note::Ended {
        task,
        service,
        state: State::Complete,
        ..
    } = note
    else {
        return None;
    };
    let last = runs.iter().rev().find(|run| run.task == *task);
    let why = last.map_or("never began", |run| run.why.as_str());
    let well = [DONE, STOPPED].contains(&why);
    (!well).then(|| {
        format!("ends_as_reported: task {task} of {service} is said to be complete, and it {why}")
    })
}

/// Everything that is not as it shall be at `now`, in words: services, processes that nobody wants or that are missing, and workers that
/// run (not `is_off`) and are not ready. Restless services may be as they like.
pub fn unsettled(
    fleet: &Fleet,
    runs: &[Run],
    now: Duration,
    is_off: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut wrong = unwhole(fleet);
    for run in runs.iter().filter(|run| run.to.is_none()) {
        let task = fleet.snapshot.tasks.get(&run.task);
        if task.is_none_or(|task| !task.is_live()) && !is_restless(fleet, &run.service) {
            wrong.push(format!(
                "task {} of {} runs on {} and nobody wants it",
                run.task, run.service, run.host
            ));
        }
    }
    let tasks = fleet.snapshot.tasks.values();
    for task in tasks.filter(|task| task.is_available()) {
        let mine = || runs.iter().filter(|run| run.task == task.id);
        let is_there = mine().any(|run| run.to.is_none());
        let ended = mine().filter_map(|run| run.to).max();
        let is_pausing = ended.is_some_and(|ended| now.saturating_sub(ended) < AGAIN_MAX);
        let service = fleet.snapshot.services.get(&task.service);
        let name = service.map_or("", |service| service.current.spec.name.as_str());
        if !(is_there || is_pausing && is_restless(fleet, name)) {
            wrong.push(format!("task {} is said to run and does not", task.id));
        }
    }
    for worker in fleet.snapshot.workers.values() {
        if worker.status != Status::Ready && !is_off(&worker.name) {
            let (name, status) = (&worker.name, worker.status);
            wrong.push(format!("the worker of {name} runs and is {status:?}"));
        }
    }
    wrong
}

/// The first of `begun` that began although all was well, in words.
pub fn needless(fleet: &Fleet, begun: &[Run]) -> Option<String> {
    let run = begun.iter().find(|run| !is_restless(fleet, &run.service))?;
    Some(format!(
        "task {}.{} of {} began on {} although all was well",
        run.task, run.attempt, run.service, run.host
    ))
}

/// Whether a service's tasks come and go by what they are.
fn is_restless(fleet: &Fleet, service: &str) -> bool {
    let service = fleet.service(service);
    service.is_some_and(|service| service.current.spec.labels.contains_key(RESTLESS))
}

/// Services that are not as they shall be, in words; restless ones may be as they like.
fn unwhole(fleet: &Fleet) -> Vec<String> {
    let mut wrong = Vec::new();
    let services = fleet.snapshot.services.values();
    for service in services.filter(|service| !service.current.spec.labels.contains_key(RESTLESS)) {
        let spec = &service.current.spec;
        let mine = || fleet.snapshot.tasks.of_service(service.id);
        let serving = || mine().filter(|task| task.is_available());
        let slots: BTreeSet<u64> = serving().map(|task| task.slot).collect();
        let wanted = wanted(fleet, service);
        let phase = service.rollout.phase;
        let moving = matches!(phase, Phase::Running | Phase::RollingBack);
        let live = mine().filter(|task| !task.state.is_end()).count();
        let old = serving()
            .filter(|task| task.version != service.current.contents)
            .count();
        let paused = phase == Phase::Paused;
        if service.removing
            || slots.len() != wanted
            || moving
            || live != wanted
            || (old > 0 && !paused)
        {
            let states: Vec<String> = mine()
                .filter(|task| !task.state.is_end())
                .map(|task| {
                    format!(
                        "{} slot {} {} {:?}{}",
                        task.id,
                        task.slot,
                        task.state,
                        task.desired,
                        if task.lost_ms.is_some() { " lost" } else { "" }
                    )
                })
                .collect();
            wrong.push(format!(
                "{}: {} of {wanted} serve, rollout {phase:?}, {old} old, removing {}: {}",
                spec.name,
                slots.len(),
                service.removing,
                states.join(", ")
            ));
        }
    }
    wrong
}

/// Milliseconds.
fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
