//! The overseer: looks at every fleet that every manager shows, judges it at once, and keeps what measures need.
//!
//! It follows each manager's fleet as the manager's own door does, so it may miss some between two looks, and sees none that was not
//! applied. Managers at the same entry must have the same fleet.

use crate::trace::{Level, Recorder};
use node::fleet::Fleet;
use node::types::TaskId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use workloads::check;
use workloads::looks::{Look, Looks, Note};

/// What is known.
#[derive(Default)]
struct Seen {
    /// The last fleet of each manager.
    last: BTreeMap<String, Arc<Fleet>>,
    /// The newest of all, and what was worth a note on the way to it.
    looks: Looks,
    /// How many notes have been told as probes.
    told: usize,
}

/// Looks at fleets. A clone is the same.
#[derive(Clone)]
pub struct Overseer {
    /// Where wrongs are told.
    recorder: Recorder,
    /// What is known.
    seen: Arc<Mutex<Seen>>,
}

impl Overseer {
    /// One who has seen nothing.
    pub fn new(recorder: Recorder) -> Self {
        Overseer {
            recorder,
            seen: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The newest fleet that any manager showed.
    pub fn newest(&self) -> Arc<Fleet> {
        Arc::clone(&self.lock().looks.newest)
    }

    /// All looks at services so far.
    pub fn looks(&self) -> Vec<Look> {
        self.lock().looks.looks.clone()
    }

    /// The most tasks that one slot had or remembered so far.
    pub fn slot_tasks(&self) -> usize {
        self.lock().looks.slot_tasks
    }

    /// What happened so far.
    pub fn notes(&self) -> Vec<Note> {
        self.lock().looks.notes.clone()
    }

    /// Follows the fleet of one life of `manager`.
    pub async fn follow(self, manager: String, mut fleets: watch::Receiver<Arc<Fleet>>) {
        loop {
            let fleet = Arc::clone(&fleets.borrow_and_update());
            self.see(&manager, fleet);
            if fleets.changed().await.is_err() {
                return;
            }
        }
    }

    /// A manager shows a fleet.
    fn see(&self, manager: &str, fleet: Arc<Fleet>) {
        let mut wrongs = Vec::new();
        let mut lines = Vec::new();
        let mut seen = self.lock();
        for (other, theirs) in &seen.last {
            if other != manager && theirs.index == fleet.index && !is_equal(theirs, &fleet) {
                wrongs.push(format!(
                    "fleets_differ: {manager} and {other} differ at entry {}: {}",
                    fleet.index,
                    difference(theirs, &fleet)
                ));
            }
        }
        // What was right when another manager showed it is not looked at again.
        if fleet.index > seen.looks.newest.index {
            wrongs.extend(check::fleet::fleet(&fleet).iter().map(ToString::to_string));
        }
        if let Some(before) = seen.last.insert(manager.to_owned(), Arc::clone(&fleet)) {
            wrongs.extend(
                check::fleet::steps(&before, &fleet)
                    .iter()
                    .map(ToString::to_string),
            );
        }
        if fleet.index > seen.looks.newest.index {
            let old = seen.looks.take(self.recorder.now(), &fleet);
            let news = fleet.events.range((old.index + 1, 0)..);
            lines.extend(news.map(|(_, event)| format!("{}: {}", event.kind, event.message)));
        }
        let news = seen.looks.notes.iter().skip(seen.told);
        let probes: BTreeSet<&'static str> = news.filter_map(Note::probe).collect();
        seen.told = seen.looks.notes.len();
        drop(seen);
        for probe in probes {
            self.recorder.sometimes(probe);
        }
        for line in lines {
            self.recorder.line("fleet", Level::Story, line);
        }
        for wrong in wrongs {
            self.recorder.fail(wrong);
        }
    }
}

/// Whether two fleets of the same entry are the same, but for what was not written yet.
fn is_equal(one: &Fleet, other: &Fleet) -> bool {
    one.snapshot == other.snapshot
        && one.notes == other.notes
        && one.workers == other.workers
        && one.services == other.services
        && one.specs == other.specs
        && one.tokens == other.tokens
        && one.events == other.events
}

/// The first difference, for a person.
fn difference(one: &Fleet, other: &Fleet) -> String {
    let tasks: BTreeSet<TaskId> = one
        .snapshot
        .tasks
        .keys()
        .chain(other.snapshot.tasks.keys())
        .copied()
        .collect();
    for id in tasks {
        let (left, right) = (one.snapshot.tasks.get(&id), other.snapshot.tasks.get(&id));
        if left != right {
            return format!("task {id} is {left:?} here and {right:?} there");
        }
    }
    if one.snapshot.workers != other.snapshot.workers {
        return format!(
            "workers {:?} here and {:?} there",
            one.snapshot.workers, other.snapshot.workers
        );
    }
    if one.snapshot.services != other.snapshot.services {
        return "services".to_owned();
    }
    if one.events != other.events {
        return format!(
            "{} events here and {} there",
            one.events.len(),
            other.events.len()
        );
    }
    "notes, specifications or tokens".to_owned()
}
