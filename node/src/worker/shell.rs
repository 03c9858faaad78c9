//! The worker as a program: one loop that steps the core, carries its effects out, and brings back what came of them.
//!
//! ```text
//!   link ---- news ---+                       +--> executor (a task for each thing asked; results come back)
//!   executor -results-+--> Worker::step --> effects --> outbox (the link sends)
//!   disk ---- saved --+                       +--> disk (one write at a time)
//!   clock ---- wake --+
//! ```
//!
//! What comes before what (see [`super`]): signals are given at once. What stands behind a `Persist` waits until a save that began
//! after it is durable. One save is under way at a time, and it holds everything that happened until it began, so that changes that
//! wait together share a write. A save that fails is tried again after a pause; meanwhile inputs are taken, what runs is watched
//! and signalled, and nothing starts and nothing is reported.
//!
//! Two effects never wait, although they may stand behind a `Persist`: heartbeats and health checks. Neither leaves anything behind that
//! a crash could contradict, and a full disk must not make a worker look dead that keeps its tasks alive. A hello does wait: it
//! names reports, whose numbers must not stand for two things.

use super::core::Worker;
use super::disk::{self, Disk};
use super::exchange::{Effect, Found, Input};
use super::executor::Executor;
use super::link::News;
use super::outbox::{Beat, Outbox};
use super::status::{Contact, Status, TaskStatus};
use super::words::{self, Assignment, FREE, Refusal};
use crate::rt::clock::{Deadline, Sleep};
use crate::rt::net::BoxFuture;
use crate::rt::{Clock, Mono, Tasks};
use crate::secrets::KeyPair;
use crate::types::TaskId;
use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Inputs that are taken between two looks at the disk: what waits together shares a write.
const TURN_LEN_MAX: usize = 256;
/// Least pause before the clock alone steps the core again.
const TICK_MIN: Duration = Duration::from_millis(1);

/// The worker's own time: it goes on from what the disk said.
#[derive(Clone)]
pub(super) struct Time {
    /// The clock.
    clock: Clock,
    /// When this life began, on the clock.
    since: Mono,
    /// What the worker's time was then, milliseconds.
    from_ms: u64,
}

impl Time {
    /// Time that is `from_ms` now.
    fn new(clock: &Clock, from_ms: u64) -> Self {
        Time {
            clock: clock.clone(),
            since: clock.now(),
            from_ms,
        }
    }

    /// The time, milliseconds.
    fn now_ms(&self) -> u64 {
        let passed = self.clock.now().since(self.since).as_millis();
        self.from_ms
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// When it will be `at_ms`, on the clock; the beginning of this life if that was later.
    fn at(&self, at_ms: u64) -> Mono {
        self.since
            .plus(Duration::from_millis(at_ms.saturating_sub(self.from_ms)))
    }

    /// When it will be `at_ms`, but not before the least pause.
    fn sleep_until(&self, at_ms: u64) -> Sleep {
        let soonest = self.clock.now().plus(TICK_MIN);
        self.clock.sleep_until(self.at(at_ms).max(soonest))
    }
}

/// What the loop is asked from outside.
pub(super) enum Ask {
    /// How it stands.
    Status(oneshot::Sender<Status>),
}

/// Where the loop's inputs come from.
pub(super) struct Inputs {
    /// What came of what the executor was asked.
    pub(super) results: mpsc::Receiver<Input>,
    /// What the link tells.
    pub(super) news: mpsc::Receiver<News>,
    /// Questions.
    pub(super) asks: mpsc::Receiver<Ask>,
}

/// What the loop works with.
pub(super) struct Surroundings {
    /// Time.
    pub(super) clock: Clock,
    /// Where the executor's work runs.
    pub(super) tasks: Tasks,
    /// What runs tasks.
    pub(super) executor: Arc<dyn Executor>,
    /// The worker's file.
    pub(super) disk: Disk,
    /// What managers shall hear.
    pub(super) outbox: Arc<Outbox>,
    /// Where the executor's results go.
    pub(super) results: mpsc::Sender<Input>,
    /// What opens its secrets.
    pub(super) pair: Arc<KeyPair>,
    /// Set when the worker shall stop.
    pub(super) stop: CancellationToken,
    /// The worker's name, for people.
    pub(super) name: String,
    /// Pause before what failed is tried again.
    pub(super) retry: Duration,
}

/// A save on its way to the disk.
struct Saving {
    /// The newest `Persist` that it makes good.
    number: u64,
    /// Ends when it is durable, or has failed.
    done: BoxFuture<'static, Result<(), disk::Error>>,
}

/// The loop's state.
struct Shell {
    /// The core.
    worker: Worker,
    /// Its time.
    time: Time,
    /// What it works with.
    around: Surroundings,
    /// Effects that wait, each for the `Persist` of this number.
    held: VecDeque<(u64, Effect)>,
    /// The newest `Persist` that was asked for.
    wanted: u64,
    /// The newest that is durable.
    durable: u64,
    /// The save under way.
    saving: Option<Saving>,
    /// When a failed save is tried again.
    retry: Deadline,
    /// Why the last save failed, if it did.
    unsaved: Option<String>,
    /// What the core refused last, until it is welcomed.
    refused: Option<String>,
    /// Where it stands with managers.
    contact: Contact,
    /// Orphans that are being ended.
    orphans: BTreeSet<(TaskId, u32)>,
    /// Until when guards let single writers live, milliseconds, as they heard it last.
    guarded_until_ms: u64,
}

/// What the loop wakes up for.
enum Event {
    /// The worker shall stop.
    Stop,
    /// A save has ended.
    Saved(Result<(), disk::Error>),
    /// Time has passed, or a failed save is tried again.
    Tick,
    /// The executor has a result.
    Result(Input),
    /// The link has news.
    News(News),
    /// Somebody asks.
    Ask(Ask),
}

/// Runs a worker until it is told to stop: asks the executor what runs, resumes, and goes round.
pub(super) async fn run(
    saved: super::exchange::Saved,
    timing: words::Timing,
    around: Surroundings,
    mut inputs: Inputs,
) {
    let Some(found) = look(&around, &mut inputs).await else {
        return; // Stopped before anything began.
    };
    let (worker, effects) = Worker::resume(saved, found.clone(), timing);
    let mut shell = Shell {
        time: Time::new(&around.clock, worker.time_ms()),
        retry: Deadline::new(&around.clock),
        worker,
        around,
        held: VecDeque::new(),
        wanted: 0,
        durable: 0,
        saving: None,
        unsaved: None,
        refused: None,
        contact: Contact::default(),
        orphans: BTreeSet::new(),
        guarded_until_ms: 0,
    };
    shell.watch(found);
    shell.take(effects);
    shell.go_round(&mut inputs).await;
    shell.settle().await;
}

/// What runs, as soon as the executor knows: before that nothing may be started. None when the worker shall stop.
async fn look(around: &Surroundings, inputs: &mut Inputs) -> Option<Vec<Found>> {
    let mut found = pin!(found(around));
    loop {
        tokio::select! {
            biased; // A worker that shall stop looks for nothing; questions are of no account here.
            () = around.stop.cancelled() => return None,
            found = &mut found => return Some(found),
            Some(ask) = inputs.asks.recv() => drop(ask), // Which says that nothing is known yet.
        }
    }
}

/// What runs. Asks again until the executor can say.
async fn found(around: &Surroundings) -> Vec<Found> {
    loop {
        match around.executor.found().await {
            Ok(found) => return found,
            Err(error) => tracing::error!(
                worker = around.name,
                error,
                "cannot tell what runs; nothing is started"
            ),
        }
        around.clock.sleep(around.retry).await;
    }
}

impl Shell {
    /// The loop.
    async fn go_round(&mut self, inputs: &mut Inputs) {
        loop {
            self.begin_save();
            match self.next(inputs).await {
                Event::Stop => return,
                Event::Saved(result) => {
                    if !self.saved(result) {
                        return;
                    }
                }
                Event::Tick => self.step(Input::Tick),
                Event::Result(input) => self.result(input),
                Event::News(news) => self.news(news),
                Event::Ask(ask) => self.answer(ask),
            }
            // What is there already goes into the same save.
            for _ in 0..TURN_LEN_MAX {
                let Ok(input) = inputs.results.try_recv() else {
                    break;
                };
                self.result(input);
            }
        }
    }

    /// Waits for what comes next.
    async fn next(&mut self, inputs: &mut Inputs) -> Event {
        let wake = self
            .worker
            .wake_ms()
            .map(|at_ms| self.time.sleep_until(at_ms));
        let (saving, retry) = (&mut self.saving, &mut self.retry);
        tokio::select! {
            biased; // The end first; then what others wait for behind it, and time, on which leases hang; then the world.
            () = self.around.stop.cancelled() => Event::Stop,
            result = done(saving) => Event::Saved(result),
            () = passed(wake) => Event::Tick,
            () = retry.passed() => Event::Tick,
            Some(input) = inputs.results.recv() => Event::Result(input),
            Some(news) = inputs.news.recv() => Event::News(news),
            Some(ask) = inputs.asks.recv() => Event::Ask(ask),
        }
    }

    /// Steps the core.
    fn step(&mut self, input: Input) {
        let effects = self.worker.step(input, self.time.now_ms());
        self.take(effects);
    }

    /// The executor has a result.
    fn result(&mut self, input: Input) {
        if let Input::OrphanGone { task, attempt } = &input {
            self.orphans.remove(&(*task, *attempt));
        }
        self.step(input);
    }

    /// The link has news.
    fn news(&mut self, news: News) {
        match news {
            News::Connected { manager } => {
                self.contact.manager = Some(manager);
                self.step(Input::Connected);
            }
            News::Disconnected { reason } => {
                self.contact.lost(reason);
                self.step(Input::Disconnected);
            }
            News::Input(input) => {
                if matches!(input, Input::Removed { .. }) {
                    self.contact.is_removed = true;
                }
                if matches!(input, Input::Welcome { .. }) {
                    tracing::info!(
                        worker = self.around.name,
                        manager = self.contact.manager,
                        "welcomed"
                    );
                    self.refused = None;
                    self.contact.welcomed();
                }
                self.step(input);
            }
        }
    }

    /// Carries out what waits for nothing, and holds the rest back.
    fn take(&mut self, effects: Vec<Effect>) {
        self.tell_guards();
        self.wanted += u64::from(effects.contains(&Effect::Persist));
        for effect in effects {
            let at_once = self.durable == self.wanted || is_free(&effect);
            match effect {
                Effect::Persist => {}
                effect if at_once => self.carry_out(effect),
                effect => self.hold(effect),
            }
        }
    }

    /// Guards hear of another end of the lease before anything is started that needs it.
    fn tell_guards(&mut self) {
        let until_ms = self.worker.guarded_until_ms();
        if until_ms != self.guarded_until_ms {
            self.guarded_until_ms = until_ms;
            self.around.executor.lease(self.time.at(until_ms));
        }
    }

    /// Holds an effect back until what was asked for is durable. A hello, or a report of the same task, that waits already is older and
    /// not needed any more: however long the disk takes nothing, a bounded number waits.
    fn hold(&mut self, effect: Effect) {
        let replaces = |held: &Effect| match (held, &effect) {
            (Effect::Hello(_), Effect::Hello(_)) => true,
            (Effect::Report(older), Effect::Report(newer)) => older.task == newer.task,
            _ => false,
        };
        self.held.retain(|(_, held)| !replaces(held));
        self.held.push_back((self.wanted, effect));
    }

    /// Begins to save if there is something to save and nothing in the way.
    fn begin_save(&mut self) {
        if self.saving.is_none() && self.durable < self.wanted && !self.retry.is_set() {
            self.saving = Some(Saving {
                number: self.wanted,
                done: self
                    .around
                    .disk
                    .save_first(self.worker.saved(), self.around.executor.make_room()),
            });
        }
    }

    /// A save has ended. False when the disk is gone for good.
    fn saved(&mut self, result: Result<(), disk::Error>) -> bool {
        let Some(Saving { number, .. }) = self.saving.take() else {
            return true;
        };
        match result {
            Ok(()) => {
                if self.unsaved.take().is_some() {
                    tracing::info!(worker = self.around.name, "its state is written again");
                }
                self.durable = number;
                while let Some((_, effect)) = self.held.pop_front_if(|(needs, _)| *needs <= number)
                {
                    self.carry_out(effect);
                }
            }
            Err(disk::Error::Closed(closed)) => {
                tracing::error!(worker = self.around.name, %closed, "cannot go on");
                return false;
            }
            Err(error) => {
                let error = error.to_string();
                if self.unsaved.as_ref() != Some(&error) {
                    tracing::error!(
                        worker = self.around.name,
                        error,
                        "its state is not written: nothing is started or reported until it is"
                    );
                }
                self.unsaved = Some(error);
                self.retry.set_once(self.around.retry);
            }
        }
        true
    }

    /// Does one thing.
    fn carry_out(&mut self, effect: Effect) {
        let around = &self.around;
        match effect {
            Effect::Persist => {}
            Effect::Task(id, effect) => self.task(id, effect),
            Effect::EndOrphan { task, attempt } => {
                if self.orphans.insert((task, attempt)) {
                    let ended = around.executor.end_orphan(task, attempt);
                    around.report(async move {
                        ended.await;
                        Input::OrphanGone { task, attempt }
                    });
                }
            }
            Effect::Hello(hello) => around.outbox.hello(hello),
            Effect::Report(report) => around.outbox.report(report),
            Effect::Heartbeat {
                number,
                epoch,
                revision,
                reports,
            } => around.outbox.beat(Beat {
                number,
                epoch,
                revision,
                reports,
            }),
            Effect::Forget(task) => around.tasks.spawn(around.executor.forget(task)),
            Effect::Refused(why) => {
                tracing::error!(worker = around.name, why, "refused");
                around.outbox.refuse(why.clone());
                self.refused = Some(why);
            }
        }
    }

    /// Does one thing for a task.
    fn task(&self, id: TaskId, effect: words::Effect) {
        let around = &self.around;
        if let words::Effect::Signal { handle, signal, .. } = &effect {
            return around.executor.signal(handle, *signal);
        }
        let Some(task) = self.worker.task(id) else {
            return; // It ended and was forgotten while this was held back.
        };
        let assignment = Arc::new(task.assignment().clone());
        match effect {
            words::Effect::Prepare => {
                let prepared = around.executor.prepare(assignment);
                around
                    .report(async move { Input::Task(id, words::Input::Prepared(prepared.await)) });
            }
            words::Effect::Start { attempt, until_ms } => {
                let may_start = match task.shall_end() {
                    true => Err("it was told to stop before it could start"),
                    false => Ok(until_ms),
                };
                self.start(assignment, attempt, may_start);
            }
            words::Effect::Check { attempt, number } => {
                let checked = around.executor.check(assignment, attempt);
                around.report(async move {
                    let healthy = checked.await;
                    let checked = words::Input::Checked {
                        attempt,
                        number,
                        healthy,
                    };
                    Input::Task(id, checked)
                });
            }
            // The first was done above; the core keeps the others for itself.
            words::Effect::Signal { .. }
            | words::Effect::Persist
            | words::Effect::Report(_)
            | words::Effect::Forget => {}
        }
    }

    /// Starts an attempt, unless it may not or it is too late for it, and waits for its end.
    fn start(
        &self,
        assignment: Arc<Assignment>,
        attempt: u32,
        may_start: Result<u64, &'static str>,
    ) {
        let (executor, results) = (self.around.executor.clone(), self.around.results.clone());
        let (time, id) = (self.time.clone(), assignment.task);
        let worker = self.worker.saved().identity().worker;
        let secrets = super::secrets::open(&self.around.pair, worker, &assignment);
        self.around.tasks.spawn(async move {
            let may_start = may_start.and_then(|until_ms| {
                let in_time = until_ms == FREE || time.now_ms() < until_ms;
                in_time
                    .then_some(())
                    .ok_or("its lease ended before it could start")
            });
            let result = match may_start {
                Ok(()) => match secrets {
                    Ok(secrets) => executor.start(assignment, attempt, secrets).await,
                    Err(refusal) => Err(refusal),
                },
                Err(why) => Err(Refusal {
                    is_permanent: false,
                    message: why.to_owned(),
                }),
            };
            let handle = result.as_ref().ok().cloned();
            let started = words::Input::Started { attempt, result };
            if results.send(Input::Task(id, started)).await.is_err() {
                return; // The loop is gone: whoever comes after it finds the process.
            }
            let Some(handle) = handle else { return };
            let exit = executor.wait(id, attempt, handle).await;
            let exited = Input::Task(id, words::Input::Exited { attempt, exit });
            results.send(exited).await.ok(); // As above.
        });
    }

    /// Waits for the ends of the processes that were taken up.
    fn watch(&self, found: Vec<Found>) {
        for Found {
            task,
            attempt,
            handle,
        } in found
        {
            let known = self.worker.task(task);
            if known.is_some_and(|known| known.owns(attempt, &handle)) {
                let ended = self.around.executor.wait(task, attempt, handle);
                self.around.report(async move {
                    let exit = ended.await;
                    Input::Task(task, words::Input::Exited { attempt, exit })
                });
            }
        }
    }

    /// The end: what was saved last is as new as it can be.
    async fn settle(&mut self) {
        if let Some(Saving { done, .. }) = self.saving.take() {
            done.await.ok(); // The next one says the same and more.
        }
        self.worker.step(Input::Tick, self.time.now_ms());
        if let Err(error) = self.around.disk.save(self.worker.saved()).await {
            tracing::warn!(worker = self.around.name, %error, "its last state is not written");
        }
    }

    /// Answers a question.
    fn answer(&self, ask: Ask) {
        let Ask::Status(reply) = ask;
        let now_ms = self.time.now_ms();
        let status = Status {
            name: self.around.name.clone(),
            identity: self.worker.saved().identity(),
            epoch: self.worker.saved().epoch(),
            revision: self.worker.saved().revision(),
            contact: self.contact.clone(),
            lease_left_ms: self.worker.lease_until_ms().saturating_sub(now_ms),
            reports_waiting: self.worker.reports().count(),
            effects_held: self.held.len(),
            unsaved: self.unsaved.clone(),
            refused: self.refused.clone(),
            tasks: self.worker.tasks().map(TaskStatus::of).collect(),
        };
        // Whoever asked may have gone.
        drop(reply.send(status));
    }
}

impl Surroundings {
    /// Runs `work` beside the loop; its output is the loop's next input.
    fn report(&self, work: impl Future<Output = Input> + Send + 'static) {
        let results = self.results.clone();
        self.tasks.spawn(async move {
            // A loop that is gone needs no input.
            results.send(work.await).await.ok();
        });
    }
}

/// Whether an effect waits for no save (see the top of this file).
fn is_free(effect: &Effect) -> bool {
    match effect {
        Effect::Task(_, words::Effect::Signal { .. } | words::Effect::Check { .. }) => true,
        Effect::EndOrphan { .. } | Effect::Heartbeat { .. } | Effect::Refused(_) => true,
        Effect::Task(..)
        | Effect::Persist
        | Effect::Hello(_)
        | Effect::Report(_)
        | Effect::Forget(_) => false,
    }
}

/// The result of the save under way; never while there is none.
async fn done(saving: &mut Option<Saving>) -> Result<(), disk::Error> {
    match saving {
        Some(saving) => saving.done.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Ends with `sleep`; never without one.
async fn passed(sleep: Option<Sleep>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}
