//! One leader's term: what it knows beside the log, what waits for what, and what is to be done next.
//!
//! Nothing here waits. Calls, ended errands and the time come in; answers go out at once, and errands are handed to the loop by
//! [`Reign::act`], at most one of a kind at a time but for hellos.

use super::errands::{self, Beat, Errand, Told, What};
use super::leases::Leases;
use super::meeting::{self, Greeting};
use super::sessions::{Sessions, Verdict, Witness, verdict};
use super::{Answer, Asked, Hands, leads, not_leader};
use crate::error::{Code, Error};
use crate::fleet::Fleet;
use crate::fleet::command::WorkerReports;
use crate::fleet::meeting::{Call, HelloCall, Reply};
use crate::knobs::Knobs;
use crate::metrics::Tally;
use crate::rt::{Event, Mono};
use crate::scheduler::model::Limits;
use crate::scheduler::{Moment, Reconciler};
use crate::types::{CONTROL_GROUP, Epoch, NodeId, Term, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The manager looks up this often within the bound of silence, if only to notice that it was held up.
const LOOKS: u32 = 6;

/// A worker that was silent for this part of the bound is taken into account when the first one has been silent for all of it.
const SUSPECT_PART: u32 = 2;

/// Time that goes on by more than this at once was set: it did not pass. The monotonic clock and a wall clock that is only being
/// steered part by less between two entries of a busy fleet.
const STEP_MS: u64 = 100;

/// What a leader has under way for itself, one of each at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Busy {
    /// It waits for what leaders before it committed.
    settling: bool,
    /// It asks whether it leads.
    confirming: bool,
    /// Reports are on their way.
    reporting: bool,
    /// A plan is.
    planning: bool,
    /// It judges the silent.
    judging: bool,
}

/// When the reconciler looks next.
#[derive(Debug)]
struct Pace {
    /// The fleet that it looked at last; none: it has not looked, or must again.
    seen: Option<u64>,
    /// Not before this.
    not_before: Mono,
    /// When it wants to look although nothing changed, milliseconds of the wall clock.
    wake_ms: Option<u64>,
    /// Whether its last plan is on its way or has only just been applied.
    had_changes: bool,
}

/// One leader's term.
pub(super) struct Reign {
    hands: Hands,
    term: Term,
    /// The fleet as applied.
    fleet: Arc<Fleet>,
    /// Whether all that leaders before it committed is applied.
    settled: bool,
    busy: Busy,
    /// When it looked last.
    looked: Mono,
    /// A moment of this reign, and the time that it was, milliseconds.
    time: (Mono, u64),
    /// Since when time has gone on by the monotonic clock alone, milliseconds.
    steady_since_ms: u64,
    sessions: Sessions,
    leases: Leases,
    /// Calls that came before it was settled.
    early: Vec<Asked>,
    /// Heartbeats that want a lease and wait for a confirmation.
    beats: Vec<Beat>,
    /// Those that have it, and wait for the plan that is on its way.
    confirmed: Vec<Beat>,
    /// Reports that wait for an entry, with their bytes.
    told: Vec<(Told, usize)>,
    /// The bytes of all of them.
    told_bytes: usize,
    /// When the oldest of them has waited long enough.
    told_until: Mono,
    /// Errands that were made and are handed to the loop next.
    made: Vec<Errand>,
    /// Hellos under way.
    hellos: usize,
    /// Those that wait for them, and since when: a thousand workers that begin at once are welcomed one after the other, not sent away.
    hellos_waiting: VecDeque<(Mono, HelloCall, Answer)>,
    reconciler: Reconciler,
    /// Tasks as they were counted last.
    tally: Tally,
    pace: Pace,
    /// The last entry whose events were counted.
    counted: u64,
    /// Silence is not judged again before this.
    judge_not_before: Mono,
    /// Who shall lead instead.
    heir: Option<NodeId>,
    /// Not again before this: it failed.
    retry_at: Mono,
    /// What went wrong and was told, by what was tried.
    troubles: BTreeMap<&'static str, Code>,
    /// When suspicion was told last, and how long the oldest task has waited.
    suspicion_told: Mono,
    /// When the oldest task that waits for a worker was made, as of the last pass, milliseconds; none waits: none.
    pending_since_ms: Option<u64>,
}

impl Reign {
    /// The first moment of `term`.
    pub(super) fn new(hands: Hands, term: Term) -> Self {
        let now = hands.clock.now();
        Reign {
            term,
            fleet: Arc::default(),
            settled: false,
            busy: Busy::default(),
            looked: now,
            time: (now, hands.clock.wall_ms()),
            steady_since_ms: 0,
            sessions: Sessions::new(unheard(&hands.knobs)),
            leases: Leases::new(hands.knobs.worker_lease, now),
            early: Vec::new(),
            beats: Vec::new(),
            confirmed: Vec::new(),
            told: Vec::new(),
            told_bytes: 0,
            told_until: now,
            made: Vec::new(),
            hellos: 0,
            hellos_waiting: VecDeque::new(),
            reconciler: Reconciler::default(),
            tally: Tally::default(),
            pace: Pace {
                seen: None,
                not_before: now,
                wake_ms: None,
                had_changes: false,
            },
            counted: 0,
            judge_not_before: now,
            heir: None,
            retry_at: now,
            troubles: BTreeMap::new(),
            suspicion_told: now,
            pending_since_ms: None,
            hands,
        }
    }

    /// Its term.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// It is over: whoever waits is sent away. What is on its way answers for itself.
    pub(super) fn end(self) {
        let hands = self.hands;
        let early = self.early.into_iter().map(|one| one.answer);
        let beats = self.beats.into_iter().chain(self.confirmed);
        let told = self.told.into_iter().map(|(told, _)| told.answer);
        let hellos = self.hellos_waiting.into_iter();
        let hellos = hellos.map(|(_, _, answer)| answer);
        let beats = beats.map(|beat| beat.answer);
        for answer in early.chain(beats).chain(told).chain(hellos) {
            answer(Err(not_leader(&hands)));
        }
        hands.metrics.forget_fleet();
    }

    /// Takes over the fleet as applied, and the time.
    pub(super) fn look(&mut self, fleet: Arc<Fleet>) {
        let now = self.now();
        let knobs = &self.hands.knobs;
        let longest = knobs.worker_down / LOOKS + 2 * knobs.worker_pace();
        let is_news = !(fleet.snapshot.workers).is_shared(&self.fleet.snapshot.workers);
        let expected_ms = self.time_ms(now);
        self.fleet = fleet;
        self.time = (now, self.time_ms(now));
        if !self.settled || self.time.1 > expected_ms.saturating_add(STEP_MS) {
            self.steady_since_ms = self.time.1;
        }
        if !self.settled {
            self.looked = now;
            return;
        }
        if now.since(self.looked) > longest && self.sessions.next(Duration::ZERO).is_some() {
            tracing::warn!(
                "this manager was held up for {:.1?}: workers count as heard just now",
                now.since(self.looked)
            );
            self.sessions.pardon(now);
        }
        self.looked = now;
        if is_news {
            self.sessions.follow(&self.fleet.snapshot, now);
        }
    }

    /// Answers a worker, at once or later.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { call, answer } = asked;
        match call {
            Call::Silences => {
                // What a leader knows that has only begun is nothing, and is told at once.
                let heartbeat = self.hands.knobs.worker_pace();
                let workers = self.sessions.silences(self.now(), heartbeat);
                answer(Ok(Reply::Silences { workers }));
            }
            call if !self.settled => match self.early.len() < self.hands.knobs.worker_calls_max {
                true => self.early.push(Asked { call, answer }),
                false => answer(Err(overloaded())),
            },
            Call::Hello(hello) => {
                let full = self.hellos >= self.hands.knobs.worker_hellos_max;
                match full && self.hellos_waiting.len() >= self.hands.knobs.worker_calls_max {
                    true => answer(Err(overloaded())),
                    false if full => {
                        let waits = (self.now(), *hello, answer);
                        self.hellos_waiting.push_back(waits);
                    }
                    false => self.hello(*hello, answer),
                }
            }
            Call::Beat {
                worker,
                number,
                epoch,
                revision: _,
                reports,
            } => self.beat(Beat {
                worker,
                number,
                epoch,
                reports,
                answer,
            }),
            Call::Report(reports) => self.report(reports, answer),
            Call::Heard { workers } => answer(Ok(self.hands.heard(&workers))),
        }
    }

    fn hello(&mut self, call: HelloCall, answer: Answer) {
        let now = self.now();
        let cluster = self.hands.status.borrow().cluster_id;
        match meeting::greet(call, cluster, &self.fleet, &self.leases, now) {
            Err(error) => answer(Err(error)),
            Ok(Greeting::Known { worker, epoch }) => {
                self.sessions.greeted(worker, now);
                answer(Ok(self.hands.welcome(worker, epoch)));
            }
            Ok(Greeting::Removed { worker, reason }) => {
                answer(Ok(Reply::Removed { worker, reason }));
            }
            Ok(Greeting::Propose(hello)) => {
                self.hellos += 1;
                let errand = errands::hello(self.hands.clone(), self.term, hello, answer);
                self.made.push(errand);
            }
        }
    }

    /// Takes up hellos that waited, while there is room. Whoever waited longer than workers do has gone to ask again.
    fn greet_next(&mut self, now: Mono) {
        while self.hellos < self.hands.knobs.worker_hellos_max {
            let Some((since, call, answer)) = self.hellos_waiting.pop_front() else {
                return;
            };
            match now.since(since) < self.hands.knobs.worker_call_timeout {
                true => self.hello(call, answer),
                false => answer(Err(overloaded())),
            }
        }
    }

    fn beat(&mut self, beat: Beat) {
        let now = self.now();
        self.hands.metrics.count_heartbeat();
        let (revision, is_known) = match meeting::session(&self.fleet, beat.worker, beat.epoch) {
            Ok(note) => (note.revision, beat.reports <= note.acknowledged),
            Err(over) => return (beat.answer)(Ok(*over)),
        };
        self.sessions.heard(beat.worker, now);
        if is_known {
            let now_ms = self.time_ms(now);
            self.sessions.knew(beat.worker, now_ms);
        }
        if !meeting::is_writer(&self.fleet, beat.worker) {
            let reply = self.hands.beaten(beat.number, beat.epoch, revision, 0);
            return (beat.answer)(Ok(reply));
        }
        match self.beats.len() + self.confirmed.len() < self.hands.knobs.worker_calls_max {
            true => self.beats.push(beat),
            false => (beat.answer)(Err(overloaded())),
        }
    }

    fn report(&mut self, reports: WorkerReports, answer: Answer) {
        let now = self.now();
        match meeting::session(&self.fleet, reports.worker, reports.epoch) {
            Ok(note) if note.life == reports.life && !reports.reports.is_empty() => {}
            Ok(_) => return answer(Ok(meeting::acknowledged(&self.fleet, &reports))),
            Err(over) => return answer(Ok(*over)),
        }
        self.sessions.heard_elsewhere(reports.worker, now);
        if self.told.len() >= self.hands.knobs.worker_calls_max {
            return answer(Err(overloaded()));
        }
        if self.told.is_empty() {
            self.told_until = now.plus(self.hands.knobs.report_gather);
        }
        let bytes = serde_json::to_vec(&reports).map_or(0, |json| json.len());
        self.told_bytes += bytes;
        self.told.push((Told { reports, answer }, bytes));
    }

    /// An errand of this term has ended.
    pub(super) fn finished(&mut self, what: What) {
        let now = self.now();
        match what {
            What::Settled(result) => {
                self.busy.settling = false;
                // Another leader may have answered; then this term is over, and the status says so.
                self.settled = self.is_well("take over", result);
                if self.settled {
                    self.counted = self.fleet.index;
                    self.sessions.follow(&self.fleet.snapshot, now);
                    let early = std::mem::take(&mut self.early);
                    early.into_iter().for_each(|asked| self.asked(asked));
                }
            }
            What::Confirmed(beats, result) => {
                self.busy.confirming = false;
                match result {
                    Ok(()) => self.confirmed.extend(beats),
                    Err(error) => beats
                        .into_iter()
                        .for_each(|beat| (beat.answer)(Err(error.clone()))),
                }
            }
            What::Greeted => {
                self.hellos -= 1;
                self.greet_next(now);
            }
            What::Reported => self.busy.reporting = false,
            What::Planned(result) => {
                self.busy.planning = false;
                if !self.is_well("apply a plan", result) {
                    self.pace.seen = None;
                    self.pace.not_before = self.retry_at;
                }
            }
            What::Marked(silent, result) => {
                self.busy.judging = false;
                if self.is_well("mark silent workers down", result) {
                    self.marked(&silent, now);
                }
                self.judge_not_before = now.plus(self.hands.knobs.manager_retry);
            }
            What::Doubted(silent, result) => {
                self.busy.judging = false;
                let (result, witnesses) = match result {
                    Ok(witnesses) => (Ok(()), witnesses),
                    Err(error) => (Err(error), Vec::new()),
                };
                if self.is_well("reach a majority before it marks workers down", result) {
                    self.judged(&silent, &witnesses);
                } else {
                    self.judge_not_before = self.retry_at;
                }
            }
            What::HandedOver(result) => {
                self.is_well(
                    "hand over leadership to a manager that hears more workers",
                    result,
                );
            }
        }
        if !self.busy.planning {
            self.grant();
        }
    }

    /// Notes whether something went well; trouble is told once per cause.
    fn is_well(&mut self, tried: &'static str, result: Result<(), Error>) -> bool {
        let Err(error) = result else {
            self.troubles.remove(tried);
            return true;
        };
        self.retry_at = self.now().plus(self.hands.knobs.manager_retry);
        if self.troubles.insert(tried, error.code) != Some(error.code) {
            tracing::warn!(%error, "this manager could not {tried}; it goes on trying");
        }
        false
    }

    /// Answers the heartbeats that were confirmed. The term is looked at after the confirmation: whoever deposed this leader would
    /// have answered the read in its stead.
    fn grant(&mut self) {
        if self.confirmed.is_empty() {
            return;
        }
        let fleet = self.hands.handle.fleet();
        let leads = leads(&self.hands.status.borrow()) == Some(self.term);
        for beat in std::mem::take(&mut self.confirmed) {
            if !leads {
                (beat.answer)(Err(not_leader(&self.hands)));
                continue;
            }
            let revision = match meeting::session(&fleet, beat.worker, beat.epoch) {
                Ok(note) => note.revision,
                Err(over) => {
                    (beat.answer)(Ok(*over));
                    continue;
                }
            };
            let lease_ms = self.hands.knobs.worker_lease.as_millis();
            let lease_ms = u64::try_from(lease_ms).unwrap_or(u64::MAX);
            let hands = &self.hands;
            let reply = hands.beaten(beat.number, beat.epoch, revision, lease_ms);
            (beat.answer)(Ok(reply));
            self.leases.granted(beat.worker, self.now());
        }
    }

    /// The witnesses have spoken about the `silent`.
    fn judged(&mut self, silent: &[(WorkerId, Epoch)], witnesses: &[Witness]) {
        let (now, bound) = (self.now(), self.hands.knobs.worker_down);
        // Some may have been heard meanwhile.
        let still: BTreeSet<_> = self.sessions.silent(now, bound).into_iter().collect();
        let silent: Vec<_> = silent
            .iter()
            .copied()
            .filter(|one| still.contains(one))
            .collect();
        let suspects = self.sessions.silent(now, bound / SUSPECT_PART).len();
        let heard = self.sessions.ready().len().saturating_sub(suspects);
        let Verdict { down, alive, heir } = verdict(&silent, heard, witnesses, bound);
        for (worker, ago) in &alive {
            let at = Mono(now.0.saturating_sub(*ago));
            self.sessions.heard_elsewhere(*worker, at);
        }
        self.hands.journal.record(Event::Doubted {
            silent: silent.len(),
            heard: alive.len(),
        });
        if let Some(to) = heir {
            self.hands.journal.record(Event::HandsOver {
                group: CONTROL_GROUP,
                to,
                reason: "it hears more workers than this leader".to_owned(),
            });
        }
        self.heir = heir;
        self.mark(down);
    }

    /// Marks workers down.
    fn mark(&mut self, silent: Vec<(WorkerId, Epoch)>) {
        if silent.is_empty() {
            return;
        }
        self.busy.judging = true;
        let errand = errands::mark(self.hands.clone(), self.term, silent);
        self.made.push(errand);
    }

    /// Workers were marked down.
    fn marked(&mut self, silent: &[(WorkerId, Epoch)], now: Mono) {
        self.sessions.marked(silent.len(), now);
        self.hands.metrics.count_downs(silent.len() as u64);
        for (worker, _) in silent {
            let found = self.fleet.snapshot.workers.get(worker);
            let name = found.map_or("", |worker| worker.name.as_str());
            let bound = self.hands.knobs.worker_down;
            tracing::warn!("worker {name} was silent for {bound:.1?} and was marked down");
        }
    }

    /// What is to be done now. Silence is judged only if `all_heard`, no call waiting.
    pub(super) fn act(&mut self, all_heard: bool) -> Vec<Errand> {
        let now = self.now();
        let mut errands = Vec::new();
        if !self.settled {
            if !self.busy.settling && now >= self.retry_at {
                self.busy.settling = true;
                errands.push(errands::settle(self.hands.clone(), self.term));
            }
            return errands;
        }
        if !self.busy.confirming && !self.beats.is_empty() {
            self.busy.confirming = true;
            let beats = std::mem::take(&mut self.beats);
            errands.push(errands::confirm(self.hands.clone(), self.term, beats));
        }
        if !self.busy.reporting && self.reports_due(now) {
            self.busy.reporting = true;
            let told = self.take_reports();
            errands.push(errands::report(self.hands.clone(), self.term, told));
        }
        if !self.busy.judging && all_heard && now >= self.judge_not_before {
            errands.extend(self.judge(now));
        }
        if let Some(heir) = self.heir.take() {
            errands.push(errands::hand_over(self.hands.clone(), self.term, heir));
        }
        if !self.busy.planning && self.pass_due(now).is_some_and(|due| now >= due) {
            errands.extend(self.pass(now));
        }
        self.tell_suspicion(now);
        errands.append(&mut self.made);
        errands
    }

    fn reports_due(&self, now: Mono) -> bool {
        let full = self.told_bytes >= self.hands.knobs.report_bytes_max;
        !self.told.is_empty() && (full || now >= self.told_until)
    }

    /// The oldest reports, as many as go into one entry.
    fn take_reports(&mut self) -> Vec<Told> {
        let mut bytes = 0;
        let mut fits = |(_, length): &(Told, usize)| {
            bytes += length;
            bytes <= self.hands.knobs.report_bytes_max
        };
        let count = self.told.iter().take_while(|one| fits(one)).count().max(1);
        let taken: Vec<_> = self.told.drain(..count).collect();
        self.told_bytes -= taken.iter().map(|(_, bytes)| bytes).sum::<usize>();
        taken.into_iter().map(|(told, _)| told).collect()
    }

    /// Marks whoever is silent, or asks first whether this manager is the one that is deaf.
    fn judge(&mut self, now: Mono) -> Option<Errand> {
        let bound = self.hands.knobs.worker_down;
        let silent = self.sessions.silent(now, bound);
        if silent.is_empty() {
            return None;
        }
        // A deaf leader misses its workers one by one: those that will be silent soon count as well.
        let suspects = self.sessions.silent(now, bound / SUSPECT_PART).len();
        if !self.sessions.is_mass(suspects, now, bound) {
            self.mark(silent);
            return None;
        }
        self.busy.judging = true;
        let ready = self.sessions.ready();
        Some(errands::doubt(self.hands.clone(), self.term, silent, ready))
    }

    /// When the reconciler shall look, if it shall.
    fn pass_due(&self, now: Mono) -> Option<Mono> {
        let not_before = self.pace.not_before;
        if self.pace.seen != Some(self.fleet.index) {
            return Some(not_before);
        }
        if self.pace.had_changes {
            // Nothing came of its last plan: it would propose the same at once.
            return Some(not_before.plus(self.hands.knobs.manager_retry));
        }
        let left = self.pace.wake_ms?.saturating_sub(self.time_ms(now));
        Some(not_before.max(now.plus(Duration::from_millis(left))))
    }

    /// The time as stamps tell it: at least the newest stamp, and from there on by the monotonic clock. A wall clock that is set back
    /// stops nothing. One that is set ahead is followed, so that people read the right time, but what had begun before then begins
    /// anew ([`Moment::steady_since_ms`]; crew-storm, seed 2033).
    fn time_ms(&self, now: Mono) -> u64 {
        let (since, from_ms) = self.time;
        let passed = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        from_ms.saturating_add(passed).max(self.fleet.newest_ms())
    }

    /// One pass of the reconciler.
    fn pass(&mut self, now: Mono) -> Option<Errand> {
        let moment = Moment {
            now_ms: self.time_ms(now),
            steady_since_ms: self.steady_since_ms,
            leases: self.leases.at(now),
            limits: Limits::default(),
            known_ms: Some(self.sessions.known_ms()),
        };
        let plan = self.reconciler.pass(&self.fleet.snapshot, &moment);
        let took = self.now().since(now);
        self.tell_fleet(took);
        // Never busy for more than half of the time.
        let pause = self.hands.knobs.reconcile_pause.max(took);
        self.pace = Pace {
            seen: Some(self.fleet.index),
            not_before: now.plus(took + pause),
            wake_ms: plan.wake_ms,
            had_changes: !plan.changes.is_empty(),
        };
        if plan.changes.is_empty() {
            return None;
        }
        self.busy.planning = true;
        Some(errands::plan(self.hands.clone(), self.term, plan.changes))
    }

    /// Counts a pass, what there is, and what has happened since the last one.
    fn tell_fleet(&mut self, took: Duration) {
        self.pending_since_ms = self.reconciler.pending_since_ms();
        let metrics = &self.hands.metrics;
        metrics.observe_pass(took, &self.fleet, &mut self.tally);
        for event in self.fleet.events.range((self.counted + 1, 0)..) {
            metrics.observe_event(event.1, &self.fleet);
        }
        self.counted = self.fleet.index;
    }

    fn tell_suspicion(&mut self, now: Mono) {
        if now.since(self.suspicion_told) >= self.hands.knobs.worker_heartbeat {
            self.suspicion_told = now;
            let phi = self.sessions.most_suspect(now).map_or(0.0, |(_, phi)| phi);
            self.hands.metrics.set_suspicion(phi);
            let since_ms = self.pending_since_ms;
            let age_ms = since_ms.map_or(0, |since_ms| self.time_ms(now).saturating_sub(since_ms));
            let age = Duration::from_millis(age_ms);
            self.hands.metrics.set_oldest_pending(age);
        }
    }

    /// Whether news of the fleet can wait for the next pass: this needs them for nothing else, and whoever asks is answered from the newest
    /// fleet all the same.
    pub(super) fn rests(&self, now: Mono) -> bool {
        self.settled && now < self.pace.not_before
    }

    /// When there is something to do although nothing else happens.
    pub(super) fn wake(&self) -> Option<Mono> {
        let now = self.now();
        if !self.settled {
            return (!self.busy.settling).then_some(self.retry_at);
        }
        let bound = self.hands.knobs.worker_down;
        let silent = self.sessions.next(bound);
        let all = [
            // While it watches somebody it looks up often enough to know that it was awake.
            silent.map(|_| now.plus(bound / LOOKS)),
            silent
                .filter(|_| !self.busy.judging)
                .map(|at| at.max(self.judge_not_before)),
            (!self.busy.reporting && !self.told.is_empty()).then_some(self.told_until),
            // An age grows although nothing happens.
            (self.pending_since_ms)
                .map(|_| self.suspicion_told.plus(self.hands.knobs.worker_heartbeat)),
            self.pass_due(now).filter(|_| !self.busy.planning),
            self.rests(now).then_some(self.pace.not_before),
        ];
        all.into_iter().flatten().min()
    }

    fn now(&self) -> Mono {
        self.hands.clock.now()
    }
}

/// How much longer than the bound a worker may be silent that this leader never heard. After an outage it may just have begun its longest
/// pause, if it was not told a pace in its process's life, and then ask managers that are dead.
fn unheard(knobs: &Knobs) -> Duration {
    let longest = knobs.worker_retry_max + 2 * knobs.worker_call_timeout;
    longest.saturating_sub(knobs.worker_down)
}

/// An errand of a term that is over has ended: heartbeats that it carried get no lease.
pub(super) fn late(hands: &Hands, what: What) {
    if let What::Confirmed(beats, _) = what {
        for beat in beats {
            (beat.answer)(Err(not_leader(hands)));
        }
    }
}

fn overloaded() -> Error {
    Error::new(
        Code::Overloaded,
        "too many workers wait for the leader's manager",
    )
    .hint("try again in a moment")
}
