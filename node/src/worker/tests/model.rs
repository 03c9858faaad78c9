//! A small world around a worker: managers, processes that begin and end, a disk, crashes. It judges at every step.

use super::{kind, timing};
use crate::service::{Desired, State};
use crate::types::{Incarnation, TaskId};
use crate::worker::core::Worker;
use crate::worker::disk::{self, Decoded};
use crate::worker::exchange::{Effect, Found, Input, Saved};
use crate::worker::report::Report;
use crate::worker::words::{self, Exit, FREE, Handle, Refusal, Signal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A thing that the world does: its kind, and two numbers that it takes as it likes.
pub(super) type Op = (u8, u16, u16);

/// What the worker has asked for and not yet heard of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pending {
    Prepare(TaskId),
    Launch(TaskId, u32, u64),
    Check(TaskId, u32, u32),
    Exit(TaskId, u32, Exit),
    Orphan(TaskId, u32),
}

/// How a world behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// Launches and ends are heard of at once, checks and volumes do not occur, and a worker that ends is saved before.
    pub(super) is_gentle: bool,
    /// Whether the worker really ends when an op says so.
    pub(super) crashes: bool,
}

/// What a world has seen: a test that judges nothing proves nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    pub(super) starts: u32,
    pub(super) restarts: u32,
    pub(super) writers: u32,
    pub(super) kills: u32,
    pub(super) lease_ends: u32,
    pub(super) found: u32,
}

impl Met {
    pub(super) fn add(&mut self, other: &Met) {
        self.starts += other.starts;
        self.restarts += other.restarts;
        self.writers += other.writers;
        self.kills += other.kills;
        self.lease_ends += other.lease_ends;
        self.found += other.found;
    }
}

/// The world.
pub(super) struct World {
    pub(super) manners: Manners,
    pub(super) worker: Worker,
    /// True time, and how far the worker's own is behind, milliseconds.
    pub(super) now_ms: u64,
    pub(super) behind_ms: u64,
    pub(super) disk: Vec<u8>,
    /// Living processes, and the volume that each writes to.
    pub(super) processes: BTreeMap<(TaskId, u32), (Handle, Option<String>)>,
    pub(super) born: u64,
    pub(super) pending: VecDeque<Pending>,
    /// What managers want, and their view of the worker.
    pub(super) wanted: BTreeMap<TaskId, (Desired, u16)>,
    pub(super) given: u64,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    /// Heartbeats sent in this session: number, true time, revision known then.
    pub(super) heartbeats: Vec<(u64, u64)>,
    pub(super) granted_until_ms: u64,
    /// Tasks that the worker durably knew not to run.
    pub(super) ended: BTreeSet<TaskId>,
    pub(super) attempts: BTreeMap<TaskId, u32>,
    pub(super) reports: BTreeMap<u64, Report>,
    pub(super) met: Met,
}

impl World {
    pub(super) fn new(manners: Manners) -> Self {
        let saved = Saved::empty(Incarnation(7));
        let disk = disk::encode(&saved);
        let (worker, effects) = Worker::resume(saved, Vec::new(), timing());
        let mut world = World {
            manners,
            worker,
            now_ms: 0,
            behind_ms: 0,
            disk,
            processes: BTreeMap::new(),
            born: 0,
            pending: VecDeque::new(),
            wanted: BTreeMap::new(),
            given: 0,
            epoch: 0,
            revision: 0,
            heartbeats: Vec::new(),
            granted_until_ms: 0,
            ended: BTreeSet::new(),
            attempts: BTreeMap::new(),
            reports: BTreeMap::new(),
            met: Met::default(),
        };
        world.carry_out(effects, usize::MAX);
        world.meet();
        world
    }

    /// Does one thing.
    pub(super) fn act(&mut self, (what, a, b): Op) {
        match what % 16 {
            0 | 1 => self.pass(u64::from(a) % 3_000),
            2 => self.pass(u64::from(a) * 4),
            3..=5 => self.answer(a, b),
            6 if self.wanted.len() < 12 => {
                self.given += 1;
                let number = if self.manners.is_gentle { b / 8 * 8 } else { b };
                self.wanted
                    .insert(TaskId(self.given), (Desired::Run, number));
                self.assign();
            }
            7 => self.want_less(a, b),
            8 => self.end_process(a, b),
            9 | 10 => self.grant(u64::from(a % 40) * 1_000),
            11 => self.feed(Input::Disconnected),
            12 => self.meet(),
            13 => self.crash(a, b),
            14 => self.old_news(a, b),
            _ => self.feed(Input::Acknowledged {
                life: Incarnation(7),
                number: u64::from(b) % (self.reports.len() as u64 + 2),
            }),
        }
    }

    /// Time passes; the worker is stepped when it asks to be.
    fn pass(&mut self, span_ms: u64) {
        let end_ms = self.now_ms + span_ms;
        loop {
            let wake_ms = self
                .worker
                .wake_ms()
                .map(|wake_ms| wake_ms.saturating_add(self.behind_ms));
            match wake_ms.filter(|wake_ms| *wake_ms <= end_ms) {
                Some(wake_ms) => self.now_ms = wake_ms.max(self.now_ms + 1),
                None => self.now_ms = self.now_ms.max(end_ms),
            }
            self.feed(Input::Tick);
            if self.now_ms >= end_ms {
                return;
            }
        }
    }

    /// The worker takes an input.
    pub(super) fn feed(&mut self, input: Input) {
        let effects = self.worker.step(input, self.now_ms - self.behind_ms);
        self.carry_out(effects, usize::MAX);
        self.judge();
    }

    /// Carries out the first `count` effects.
    fn carry_out(&mut self, effects: Vec<Effect>, count: usize) {
        let mut persisted = !effects.contains(&Effect::Persist);
        for effect in effects.into_iter().take(count) {
            match effect {
                Effect::Persist => {
                    self.disk = disk::encode(self.worker.saved());
                    persisted = true;
                    let given_up = self
                        .worker
                        .tasks()
                        .filter(|task| task.assignment().desired > Desired::Run);
                    self.ended
                        .extend(given_up.map(|task| task.assignment().task));
                }
                Effect::Task(
                    task,
                    words::Effect::Signal {
                        attempt,
                        handle,
                        signal,
                    },
                ) => {
                    self.signal(task, attempt, &handle, signal);
                }
                Effect::Task(task, effect) => {
                    assert!(persisted, "what needs a durable task waits for it");
                    self.task_effect(task, effect);
                }
                Effect::EndOrphan { task, attempt } => {
                    self.processes.remove(&(task, attempt));
                    self.pending.push_back(Pending::Orphan(task, attempt));
                }
                Effect::Report(report) => {
                    assert!(persisted, "a report is on the disk before it is sent");
                    self.hear(report);
                }
                Effect::Heartbeat { number, .. } => self.heartbeats.push((number, self.now_ms)),
                Effect::Forget(task) => {
                    assert!(
                        !self.processes.keys().any(|key| key.0 == task),
                        "forgotten, and a process runs"
                    );
                }
                Effect::Hello(_) | Effect::Refused(_) => {}
            }
        }
        if self.manners.is_gentle {
            self.settle();
        }
    }

    /// In a gentle world what begins or ends is heard of at once.
    fn settle(&mut self) {
        let quick = |pending: &Pending| {
            matches!(
                pending,
                Pending::Launch(..) | Pending::Exit(..) | Pending::Orphan(..)
            )
        };
        while let Some(place) = self.pending.iter().position(quick) {
            let pending = self.pending.remove(place).unwrap();
            self.resolve(pending, 0);
        }
    }

    fn task_effect(&mut self, task: TaskId, effect: words::Effect) {
        match effect {
            words::Effect::Prepare => self.pending.push_back(Pending::Prepare(task)),
            words::Effect::Check { attempt, number } => {
                self.pending
                    .push_back(Pending::Check(task, attempt, number));
            }
            words::Effect::Start { attempt, until_ms } => {
                assert!(
                    !self.ended.contains(&task),
                    "{task} starts after it was told to end"
                );
                let before = self.attempts.insert(task, attempt);
                assert!(
                    before < Some(attempt),
                    "{task}: attempt {attempt} after {before:?}"
                );
                self.met.starts += 1;
                self.met.restarts += u32::from(attempt > 1);
                self.pending
                    .push_back(Pending::Launch(task, attempt, until_ms));
            }
            other => panic!("the core keeps {other:?} for itself"),
        }
    }

    /// A manager hears a report.
    fn hear(&mut self, report: Report) {
        let number = report.number;
        self.met.lease_ends += u32::from(report.observation.message.contains("lease"));
        let same = self.reports.insert(number, report.clone());
        assert!(
            same.is_none_or(|same| same == report),
            "number {number} for two things"
        );
        let earlier = self
            .reports
            .range(..number)
            .rev()
            .find(|(_, earlier)| earlier.task == report.task);
        if let Some((_, earlier)) = earlier {
            let (from, to) = (earlier.observation.state, report.observation.state);
            assert!(
                from == to || from.may_become(to),
                "{} goes from {from} to {to}",
                report.task
            );
            assert!(earlier.observation.attempts <= report.observation.attempts);
        }
    }

    fn signal(&mut self, task: TaskId, attempt: u32, handle: &Handle, signal: Signal) {
        let Some((own, _)) = self.processes.get(&(task, attempt)) else {
            return;
        };
        assert_eq!(own, handle, "a signal goes to the attempt's own process");
        if signal == Signal::Kill {
            self.met.kills += 1;
            self.die(
                task,
                attempt,
                Exit {
                    signal: Some(9),
                    ..Exit::UNSEEN
                },
            );
        }
    }

    /// A process ends; the worker hears of it later.
    fn die(&mut self, task: TaskId, attempt: u32, exit: Exit) {
        if self.processes.remove(&(task, attempt)).is_some() {
            self.pending.push_back(Pending::Exit(task, attempt, exit));
        }
    }

    /// Something that the worker waits for comes.
    fn answer(&mut self, a: u16, b: u16) {
        if !self.pending.is_empty() {
            let place = usize::from(a) % self.pending.len();
            let pending = self.pending.remove(place).unwrap();
            self.resolve(pending, b);
        }
    }

    fn resolve(&mut self, pending: Pending, b: u16) {
        let refusal = |is_permanent| Refusal {
            is_permanent,
            message: "no".to_owned(),
        };
        let (task, input) = match pending {
            Pending::Prepare(task) => {
                let result = if b.is_multiple_of(5) && !self.manners.is_gentle {
                    Err(refusal(b.is_multiple_of(10)))
                } else {
                    Ok(())
                };
                (task, words::Input::Prepared(result))
            }
            Pending::Launch(task, attempt, until_ms) => {
                let late = until_ms != FREE && self.now_ms - self.behind_ms >= until_ms;
                let result = match late || (b % 7 == 1) {
                    true => Err(refusal(b % 14 == 1)),
                    false => Ok(self.spawn(task, attempt)),
                };
                (task, words::Input::Started { attempt, result })
            }
            Pending::Check(task, attempt, number) => {
                let healthy = !b.is_multiple_of(3);
                (
                    task,
                    words::Input::Checked {
                        attempt,
                        number,
                        healthy,
                    },
                )
            }
            Pending::Exit(task, attempt, exit) => (task, words::Input::Exited { attempt, exit }),
            Pending::Orphan(task, attempt) => {
                return self.feed(Input::OrphanGone { task, attempt });
            }
        };
        self.feed(Input::Task(task, input));
    }

    /// A process begins: the moment of truth for most promises.
    fn spawn(&mut self, task: TaskId, attempt: u32) -> Handle {
        let other = self.processes.keys().find(|key| key.0 == task);
        assert!(other.is_none(), "{task} has a process already: {other:?}");
        let spec = self
            .wanted
            .get(&task)
            .map(|(_, number)| kind(*number))
            .unwrap();
        let volume = spec.volumes.first().map(|mount| mount.volume.clone());
        if volume.is_some() {
            self.met.writers += 1;
            let same = self.processes.values().any(|(_, held)| *held == volume);
            assert!(!same, "{task}: two processes with volume {volume:?}");
        }
        self.born += 1;
        let handle = Handle(self.born.to_string());
        self.processes
            .insert((task, attempt), (handle.clone(), volume));
        handle
    }

    fn end_process(&mut self, a: u16, b: u16) {
        let keys: Vec<_> = self.processes.keys().copied().collect();
        if !keys.is_empty() {
            let (task, attempt) = keys[usize::from(a) % keys.len()];
            let code = Some(i32::from(b % 2));
            self.die(
                task,
                attempt,
                Exit {
                    code,
                    ..Exit::UNSEEN
                },
            );
            self.settle_if_gentle();
        }
    }

    fn settle_if_gentle(&mut self) {
        if self.manners.is_gentle {
            self.settle();
        }
    }

    /// The worker's process ends and comes back: after a half of its last effects, with what was durable, and with the processes
    /// that are there. Those with a single writer have died with it.
    fn crash(&mut self, a: u16, b: u16) {
        if self.manners.is_gentle {
            self.disk = disk::encode(self.worker.saved());
            // What was asked for tasks that have ended is not asked again; the rest is, in the order of tasks.
            let lives = |id: &TaskId| {
                (self.worker.task(*id)).is_some_and(|task| !task.observation().state.is_end())
            };
            let asked = self
                .pending
                .iter()
                .filter(|pending| matches!(pending, Pending::Prepare(id) if lives(id)));
            let mut asked: Vec<_> = asked.cloned().collect();
            asked.sort_by_key(|pending| match pending {
                Pending::Prepare(id) => *id,
                _ => TaskId(0),
            });
            self.pending = asked.into();
        } else {
            let effects = self.worker.step(Input::Tick, self.now_ms - self.behind_ms);
            self.carry_out(effects, usize::from(a % 4));
            self.processes.retain(|_, (_, volume)| volume.is_none());
            self.now_ms += u64::from(b);
            // Launches on their way are in the operating system's hands: some processes begin after all.
            let begun = std::mem::take(&mut self.pending);
            for pending in begun {
                if let Pending::Launch(task, attempt, FREE) = pending
                    && attempt.is_multiple_of(2)
                {
                    self.spawn(task, attempt);
                }
            }
        }
        if self.manners.crashes {
            let Decoded::Good(saved) = disk::decode(&self.disk) else {
                panic!("what was written can be read");
            };
            if !self.manners.is_gentle {
                self.behind_ms = self.now_ms - saved.time_ms;
            }
            let found = self
                .processes
                .iter()
                .map(|((task, attempt), (handle, _))| Found {
                    task: *task,
                    attempt: *attempt,
                    handle: handle.clone(),
                });
            let (worker, effects) = Worker::resume(*saved, found.collect(), timing());
            self.met.found += self.processes.len() as u32;
            let asked: Vec<_> = self.pending.drain(..).collect();
            self.worker = worker;
            self.carry_out(effects, usize::MAX);
            assert!(
                !self.manners.is_gentle || asked.len() == self.pending.len(),
                "asked again for the same"
            );
        }
        self.judge();
        self.meet();
    }

    /// What must hold at every moment.
    fn judge(&self) {
        for ((task, attempt), (_, volume)) in &self.processes {
            let in_time = volume.is_none() || self.now_ms < self.granted_until_ms;
            assert!(
                in_time,
                "{task}.{attempt} writes to {volume:?} after its lease"
            );
        }
        for task in self.worker.tasks() {
            let state = task.observation().state;
            let id = task.assignment().task;
            let alive = self.processes.keys().filter(|key| key.0 == id).count();
            assert!(alive <= 1, "{id} has {alive} processes");
            assert!(
                !state.is_end() || !task.is_live(),
                "{id} ended and has a process"
            );
            assert_ne!(state, State::Pending);
        }
        assert!(
            self.worker.reports().count() <= self.given as usize,
            "one report a task at most"
        );
    }
}
