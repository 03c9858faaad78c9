//! The search for one order that explains all answers of a partition.
//!
//! After Wing and Gong, with Lowe's memory of configurations that led nowhere, and four
//! observations that make it nearly linear for a store that reports revisions:
//!
//! 1. *Writes come in revision order.* Of all writes whose revision is known, only the one with the
//!    smallest can be next.
//! 2. *What fits and changes nothing goes first.* A read that may be placed now and fits the state
//!    can be moved here from any later place in any order that works, so there is no alternative to
//!    try.
//! 3. *Unknown outcomes of equal effect are one class.* They stay available for ever, so only the
//!    earliest called is tried; and they are tried last, when nothing else explains the answers.
//! 4. *Having used fewer of them is never worse.* A configuration is given up if one that differs
//!    only in having more unknown outcomes left has already failed.
//!
//! What the answers rule out beforehand is in [`super::hints`].
//!
//! An operation may be placed when no unplaced operation with an answer returned before it was
//! called. Equal times count as overlap.
//!
//! Invariant: the search is a loop, not a recursion, so depth costs heap and not stack. It stops
//! after a given number of steps and then says so.

use std::collections::BTreeMap;

use super::hints::Hints;
use super::model::{Act, Live, Mark, State, Step, fold};
use super::partition::{Item, Partition};
use crate::history::Expect;

/// How a search ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An order exists.
    Found,
    /// No order exists.
    Stuck(Box<Stuck>),
    /// The step limit was reached.
    GaveUp,
}

/// The furthest that the search got.
#[derive(Debug)]
pub(super) struct Stuck {
    /// The operations placed, in order.
    pub(super) prefix: Vec<usize>,
    /// The operations that had to come next and could not.
    pub(super) blocked: Vec<usize>,
    /// What each key held then.
    pub(super) lives: Vec<Option<Live>>,
}

/// How the search treats writes whose outcome nobody knows and whose value nobody saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Tries only those that an answer can tell from none. What it finds is an order; what it does
    /// not find may exist.
    Hasty,
    /// Ignores their conditions, which leaves far fewer classes. What it finds may be no order; if
    /// it finds none, there is none.
    Lenient,
    /// Right both ways, but may take long.
    Exact,
}

/// Searches `partition`, at most `steps_max` placements and tries.
pub(super) fn search(partition: &Partition<'_>, mode: Mode, steps_max: u64) -> Outcome {
    let mut search = Search::new(partition, mode, steps_max);
    let found = search.run();
    match (found, search.best) {
        (Some(true), _) => Outcome::Found,
        (None, _) => Outcome::GaveUp,
        (Some(false), best) => Outcome::Stuck(Box::new(best)),
    }
}

/// The next kind of alternative to try at a frame.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Reads that would make a revision exact, by position in `reads`.
    Read(usize),
    /// The next write in revision order; whether its conditions hold, if its answer is unknown.
    Write(bool),
    /// An unknown outcome: its class, and whether its conditions hold.
    Guess(usize, bool),
    /// Nothing is left.
    Spent,
}

/// A place where the search may have to come back.
#[derive(Debug)]
struct Frame {
    mark: Mark,
    placed: usize,
    next_write: usize,
    first_deadline: usize,
    first_read: usize,
    phase: Phase,
    /// The class that the present alternative draws from.
    guessed: Option<usize>,
}

/// How many of each class were used: `(class, count)`, by class, without zeros.
type Usage = Vec<(usize, usize)>;

struct Search<'p> {
    partition: &'p Partition<'p>,
    /// Writes with a known revision, by revision.
    writes: Vec<usize>,
    /// Answered operations that wrote nothing, by call time.
    reads: Vec<usize>,
    /// Answered operations, by deadline.
    deadlines: Vec<usize>,
    /// Unknown outcomes of equal effect: what they do, and which they are by call time.
    classes: Vec<(Step, Vec<usize>)>,
    hints: Hints,
    state: State,
    done: Vec<bool>,
    placed: Vec<usize>,
    placed_print: u128,
    answered_left: usize,
    usage: Usage,
    /// Where the cursors stand: `writes`, `deadlines`, `reads`.
    next_write: usize,
    first_deadline: usize,
    first_read: usize,
    /// Configurations that led nowhere, with the smallest usages they failed with.
    failed: BTreeMap<(usize, u128, u128), Vec<Usage>>,
    best: Stuck,
    steps_left: u64,
}

impl<'p> Search<'p> {
    fn new(partition: &'p Partition<'p>, mode: Mode, steps_max: u64) -> Self {
        let items = &partition.items;
        let select = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
            (0..items.len()).filter(|item| wanted(*item)).collect()
        };
        let mut writes = select(&|item| items[item].revision.is_some());
        writes.sort_by_key(|item| (items[*item].revision, *item));
        let reads = select(&|item| items[item].answer.is_some() && items[item].revision.is_none());
        let mut deadlines = select(&|item| items[item].answer.is_some());
        deadlines.sort_by_key(|item| (items[*item].deadline_ns, *item));
        let mut classes: BTreeMap<Step, Vec<usize>> = BTreeMap::new();
        for item in select(&|item| items[item].answer.is_none() && items[item].revision.is_none()) {
            classes
                .entry(guessed_step(&items[item].step, mode))
                .or_default()
                .push(item);
        }
        let hints = Hints::of(partition, classes.keys(), mode == Mode::Hasty);
        let state = State::empty(partition.keys.len());
        Self {
            answered_left: deadlines.len(),
            writes,
            reads,
            deadlines,
            // Those with the narrowest conditions first: the others can still be of use elsewhere.
            classes: classes.into_iter().rev().collect(),
            hints,
            state,
            done: vec![false; items.len()],
            placed: Vec::new(),
            placed_print: 0,
            usage: Usage::new(),
            next_write: 0,
            first_deadline: 0,
            first_read: 0,
            failed: BTreeMap::new(),
            best: Stuck {
                prefix: Vec::new(),
                blocked: Vec::new(),
                lives: Vec::new(),
            },
            steps_left: steps_max,
            partition,
        }
    }

    /// Whether an order exists; `None` if the steps ran out.
    fn run(&mut self) -> Option<bool> {
        let mut frames = Vec::new();
        self.enter(&mut frames);
        while self.answered_left > 0 {
            let Some(frame) = frames.last_mut() else {
                return Some(false);
            };
            self.restore(frame);
            if self.try_next(frame)? {
                self.enter(&mut frames);
            } else if matches!(frame.phase, Phase::Spent) {
                self.give_up();
                frames.pop();
            }
        }
        Some(true)
    }

    /// Places all that needs no choice; then opens a frame, unless this configuration is known to
    /// lead nowhere.
    fn enter(&mut self, frames: &mut Vec<Frame>) {
        self.settle();
        if self.answered_left > 0 && self.is_known_to_fail() {
            self.note_best();
            return;
        }
        frames.push(Frame {
            mark: self.state.mark(),
            placed: self.placed.len(),
            next_write: self.next_write,
            first_deadline: self.first_deadline,
            first_read: self.first_read,
            phase: Phase::Read(self.first_read),
            guessed: None,
        });
    }

    /// Undoes the alternative that was tried last at `frame`.
    fn restore(&mut self, frame: &mut Frame) {
        self.state.rollback(frame.mark);
        while self.placed.len() > frame.placed {
            let item = self.placed.pop().expect("the length was just compared");
            self.done[item] = false;
            self.count(item, usize::wrapping_add);
        }
        self.next_write = frame.next_write;
        self.first_deadline = frame.first_deadline;
        self.first_read = frame.first_read;
        if let Some(class) = frame.guessed.take() {
            self.unuse(class);
        }
    }

    /// Tries the next alternative. Whether it was placed; `None` if the steps ran out.
    fn try_next(&mut self, frame: &mut Frame) -> Option<bool> {
        loop {
            self.steps_left = self.steps_left.checked_sub(1)?;
            let phase = frame.phase;
            let placed = match phase {
                Phase::Read(at) => match self.pending_read(at) {
                    Some(at) => {
                        frame.phase = Phase::Read(at + 1);
                        self.place_answered(self.reads[at])
                    }
                    None => {
                        frame.phase = Phase::Write(true);
                        false
                    }
                },
                Phase::Write(succeeded) => {
                    let more = succeeded && self.next_write_is_unanswered();
                    frame.phase = if more {
                        Phase::Write(false)
                    } else {
                        Phase::Guess(0, true)
                    };
                    self.place_write(succeeded)
                }
                Phase::Guess(class, succeeded) if class < self.classes.len() => {
                    frame.phase = if succeeded {
                        Phase::Guess(class, false)
                    } else {
                        Phase::Guess(class + 1, true)
                    };
                    let placed = self.place_guess(class, succeeded);
                    frame.guessed = placed.then_some(class);
                    placed
                }
                Phase::Guess(..) | Phase::Spent => {
                    frame.phase = Phase::Spent;
                    return Some(false);
                }
            };
            if placed {
                return Some(true);
            }
        }
    }

    /// Places every read that fits as the state is, until none does.
    fn settle(&mut self) {
        loop {
            let before = self.placed.len();
            let horizon = self.horizon();
            let mut at = self.first_read;
            while let Some(&item) = self.reads.get(at) {
                if self.partition.items[item].call_ns > horizon {
                    break;
                }
                if !self.done[item] && self.fits_unchanged(item) {
                    self.place(item);
                }
                at += 1;
            }
            while self
                .reads
                .get(self.first_read)
                .is_some_and(|item| self.done[*item])
            {
                self.first_read += 1;
            }
            if self.placed.len() == before {
                return;
            }
        }
    }

    /// The latest time at which an operation that may be next can have been called, in nanoseconds.
    fn horizon(&mut self) -> u64 {
        while let Some(&item) = self.deadlines.get(self.first_deadline) {
            if !self.done[item] {
                return self.partition.items[item].deadline_ns;
            }
            self.first_deadline += 1;
        }
        u64::MAX
    }

    fn fits_unchanged(&mut self, item: usize) -> bool {
        let mark = self.state.mark();
        let fits = self.apply_answered(item);
        let unchanged = self.state.mark() == mark;
        self.state.rollback(mark);
        fits && unchanged
    }

    /// The next read from position `at` on that is not placed. There is none to choose from if all
    /// revisions are exact: then a read that fits has been placed already.
    fn pending_read(&mut self, mut at: usize) -> Option<usize> {
        if !self.state.has_open() {
            return None;
        }
        let horizon = self.horizon();
        loop {
            let &item = self.reads.get(at)?;
            if self.partition.items[item].call_ns > horizon {
                return None;
            }
            if !self.done[item] {
                return Some(at);
            }
            at += 1;
        }
    }

    fn next_write_is_unanswered(&self) -> bool {
        let next = self.writes.get(self.next_write);
        next.is_some_and(|item| self.partition.items[*item].answer.is_none())
    }

    fn place_write(&mut self, succeeded: bool) -> bool {
        let Some(&item) = self.writes.get(self.next_write) else {
            return false;
        };
        if self.partition.items[item].answer.is_some() {
            if !self.place_answered(item) {
                return false;
            }
        } else if !self.place_unanswered(item, succeeded) {
            return false;
        }
        self.next_write += 1;
        true
    }

    fn place_guess(&mut self, class: usize, succeeded: bool) -> bool {
        let Some(&item) = self.classes[class].1.get(self.used(class)) else {
            return false;
        };
        let mark = self.state.mark();
        let fits = self.may_be_next(item)
            && !self.is_idle_delete(class)
            && self.apply_guess(class, succeeded)
            && self.is_worthwhile(class, succeeded);
        if fits {
            self.use_one(class);
        }
        self.place_if(item, fits, mark)
    }

    fn apply_guess(&mut self, class: usize, succeeded: bool) -> bool {
        let (step, _) = &self.classes[class];
        readers_done(&self.hints, &self.state, &self.done, step.branch(succeeded))
            && self.state.guess(step, succeeded, None)
    }

    /// A delete right behind an unseen put makes that put one that nobody can tell from none.
    fn is_idle_delete(&self, class: usize) -> bool {
        let ([Act::Delete(key)], [(_, Expect::Any)] | []) = (
            &self.classes[class].0.then[..],
            &self.classes[class].0.compares[..],
        ) else {
            return false;
        };
        let last = self.placed.last().map(|item| &self.partition.items[*item]);
        last.is_some_and(|last| {
            let unseen = last.answer.is_none() && last.revision.is_none();
            unseen && matches!(last.step.then[..], [Act::Put(put, _)] if put == *key)
        })
    }

    fn is_worthwhile(&self, class: usize, succeeded: bool) -> bool {
        let next = self.writes.get(self.next_write);
        let next = next.and_then(|item| self.partition.items[*item].revision);
        let acts = self.classes[class].0.branch(succeeded);
        let idle = matches!(acts, [Act::Put(key, _)] if self.hints.is_idle_put(&self.state, *key));
        !idle
            && acts
                .iter()
                .all(|act| self.hints.viable(&self.state, act.key(), next))
    }

    fn place_answered(&mut self, item: usize) -> bool {
        let mark = self.state.mark();
        let fits = self.may_be_next(item) && self.apply_answered(item);
        self.place_if(item, fits, mark)
    }

    fn place_unanswered(&mut self, item: usize, succeeded: bool) -> bool {
        let mark = self.state.mark();
        let Item { step, revision, .. } = &self.partition.items[item];
        let fits = self.may_be_next(item)
            && readers_done(&self.hints, &self.state, &self.done, step.branch(succeeded))
            && self.state.guess(step, succeeded, *revision);
        self.place_if(item, fits, mark)
    }

    fn place_if(&mut self, item: usize, fits: bool, mark: Mark) -> bool {
        if fits {
            self.place(item);
        } else {
            self.state.rollback(mark);
        }
        fits
    }

    fn may_be_next(&mut self, item: usize) -> bool {
        self.partition.items[item].call_ns <= self.horizon()
    }

    fn apply_answered(&mut self, item: usize) -> bool {
        let Item {
            step,
            answer,
            revision,
            ..
        } = &self.partition.items[item];
        let answer = answer
            .as_ref()
            .expect("only answered operations are applied as answered");
        self.state.answer(step, answer, *revision)
    }

    fn place(&mut self, item: usize) {
        self.done[item] = true;
        self.placed.push(item);
        self.count(item, usize::wrapping_sub);
    }

    /// Keeps the number of answered operations left, and the fingerprint of the set of reads
    /// placed. (Writes are told by `next_write`, guesses by `usage`.)
    fn count(&mut self, item: usize, change: fn(usize, usize) -> usize) {
        let answered = self.partition.items[item].answer.is_some();
        self.answered_left = change(self.answered_left, usize::from(answered));
        if answered && self.partition.items[item].revision.is_none() {
            self.placed_print ^= fold(&[item as u64]);
        }
    }

    fn key(&self) -> (usize, u128, u128) {
        (self.next_write, self.placed_print, self.state.print())
    }

    fn is_known_to_fail(&self) -> bool {
        let failed = self.failed.get(&self.key());
        failed.is_some_and(|usages| usages.iter().any(|usage| covers(&self.usage, usage)))
    }

    /// All alternatives of the present configuration have failed.
    fn give_up(&mut self) {
        self.note_best();
        let usages = self.failed.entry(self.key()).or_default();
        usages.retain(|usage| !covers(usage, &self.usage));
        usages.push(self.usage.clone());
    }

    fn note_best(&mut self) {
        if self.placed.len() <= self.best.prefix.len() && !self.best.blocked.is_empty() {
            return;
        }
        let horizon = self.horizon();
        let items = &self.partition.items;
        let blocked = self.deadlines.iter().copied();
        let blocked = blocked.filter(|item| !self.done[*item] && items[*item].call_ns <= horizon);
        self.best.blocked = blocked.collect();
        self.best.prefix.clone_from(&self.placed);
        self.best.lives = (0..self.partition.keys.len())
            .map(|key| self.state.live(key).copied())
            .collect();
    }

    fn used(&self, class: usize) -> usize {
        match self.usage.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(at) => self.usage[at].1,
            Err(_) => 0,
        }
    }

    fn use_one(&mut self, class: usize) {
        match self.usage.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(at) => self.usage[at].1 += 1,
            Err(at) => self.usage.insert(at, (class, 1)),
        }
    }

    fn unuse(&mut self, class: usize) {
        let at = self.usage.binary_search_by_key(&class, |(class, _)| *class);
        let at = at.expect("a class was used before it is given back");
        self.usage[at].1 -= 1;
        if self.usage[at].1 == 0 {
            self.usage.remove(at);
        }
    }
}

fn guessed_step(step: &Step, mode: Mode) -> Step {
    let single = step
        .otherwise
        .iter()
        .all(|act| matches!(act, Act::Version(_)));
    match mode {
        Mode::Lenient if single => Step {
            compares: Vec::new(),
            ..step.clone()
        },
        _ => step.clone(),
    }
}

/// Whether nobody is left who must see what `acts` are about to replace.
fn readers_done(hints: &Hints, state: &State, done: &[bool], acts: &[Act]) -> bool {
    let replaces = |act: &&Act| matches!(act, Act::Put(..) | Act::Delete(_));
    acts.iter().filter(replaces).all(|act| {
        hints
            .readers(state, act.key())
            .iter()
            .all(|item| done[*item])
    })
}

/// Whether `usage` used at least as many of each class as `less`.
fn covers(usage: &Usage, less: &Usage) -> bool {
    let mut rest = usage.iter();
    less.iter().all(|(class, count)| {
        rest.find(|(other, _)| other >= class)
            .is_some_and(|(other, n)| other == class && n >= count)
    })
}
