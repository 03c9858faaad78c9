//! Where a bug is planted in a run: around a node's world when it starts, and on its disk between two lives.

use super::door::Editor;
use super::hands::{Hand, Hands, Slip};
use super::platter::{self, Platter};
use super::talk::{Heard, Mumbler};
use super::wire::{Forger, Known};
use super::{Plant, Seedling};
use crate::clock::Clocks;
use crate::trace::{Level, Recorder};
use node::knobs::Knobs;
use node::rt::journal::{Event, JournalSink};
use node::rt::{Env, Journal, Net};
use node::types::Role;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use scenarios::Crash;
use simdisk::{CrashMode, Damage, Fault, OpKind, Rule};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A worker's file on its machine's disk; the temporary one's name begins alike.
const WORKER_FILE: &str = "worker/worker.state";
/// What is left of a file that is torn.
const TORN_BYTES: u64 = 40;

/// The planted bug of one run. A clone is the same.
#[derive(Clone)]
pub struct Ground {
    /// What is planted.
    plant: Plant,
    /// What a power loss leaves, when the bug's weather fixes it.
    crash_mode: Option<CrashMode>,
    /// Whether a worker's file is torn at each death, which is the bug's weather too.
    tears: bool,
    /// Sizes of the nodes' files.
    knobs: Knobs,
    /// Where it is told.
    recorder: Recorder,
    /// The nodes, by name.
    nodes: Arc<Mutex<BTreeMap<String, Spot>>>,
    /// Chance.
    rng: Arc<Mutex<ChaCha8Rng>>,
}

/// What is known of one node over its lives.
#[derive(Clone, Default)]
struct Spot {
    /// True while its life believes to lead.
    leads: Arc<AtomicBool>,
    /// What the proxies on its peers' wire know.
    wire: Arc<Mutex<Known>>,
    /// What the proxies of a worker know.
    talk: Arc<Mutex<Heard>>,
    /// How its last life ended, until the next begins.
    ended: Option<Crash>,
}

impl Ground {
    /// Ground for `seedling`.
    pub fn new(seedling: Seedling, knobs: &Knobs, recorder: &Recorder, rng: ChaCha8Rng) -> Self {
        Ground {
            plant: if seedling.alive {
                seedling.bug.plant
            } else {
                Plant::Nothing
            },
            crash_mode: seedling.bug.crash_mode,
            tears: seedling.bug.plant == Plant::Slipping(Slip::LeavesOrphans),
            knobs: knobs.clone(),
            recorder: recorder.clone(),
            nodes: Arc::default(),
            rng: Arc::new(Mutex::new(rng)),
        }
    }

    /// What a power loss leaves, if that is fixed.
    pub fn crash_mode(&self) -> Option<CrashMode> {
        self.crash_mode
    }

    /// The world of a life of `name` that begins.
    pub fn env(&self, name: &str, env: Env) -> Env {
        let spot = self.nodes().entry(name.to_owned()).or_default().clone();
        let forged = |forgery| Net::new(Forger::new(env.net.clone(), forgery, spot.wire.clone()));
        let edited = |edit| Net::new(Editor::new(env.net.clone(), edit, spot.leads.clone()));
        let net = match self.plant {
            Plant::Forged(forgery) => forged(forgery),
            Plant::Edited(edit) => edited(edit),
            _ => return env,
        };
        spot.leads.store(false, Ordering::Relaxed);
        let watch = RoleWatch {
            inner: env.journal.clone(),
            leads: spot.leads.clone(),
        };
        Env {
            net,
            journal: Journal::new(watch),
            ..env
        }
    }

    /// Network and executor of a life of the worker `name` that begins.
    pub fn outfit(&self, name: &str, env: Env, executor: Hand) -> (Env, Hand) {
        match self.plant {
            Plant::Slipping(slip) => {
                let hands = Hands::new(executor, slip, name, &env);
                (env, Arc::new(hands))
            }
            // Guards that kill nothing know no lease either.
            Plant::Unguarded => {
                let hands = Hands::new(executor, Slip::EndlessLease, name, &env);
                (env, Arc::new(hands))
            }
            Plant::Mumbled(slur) => {
                let heard = self
                    .nodes()
                    .entry(name.to_owned())
                    .or_default()
                    .talk
                    .clone();
                let net = Net::new(Mumbler::new(env.net.clone(), slur, heard));
                (Env { net, ..env }, executor)
            }
            _ => (env, executor),
        }
    }

    /// Whether what is tied to a worker's process ends with it.
    pub fn has_guards(&self) -> bool {
        self.plant != Plant::Unguarded
    }

    /// The workers have joined and run what they shall; the part under faults begins.
    pub fn crew_begins(&self, workers: &[String], clocks: &Clocks) {
        for name in workers {
            match self.plant {
                Plant::LyingSave => {
                    self.tell(name, "saves without a sync from now on");
                    let lie = Rule::always(OpKind::Sync, WORKER_FILE, Fault::Lie);
                    simdisk::disk(name).inject(lie);
                }
                Plant::SlowWorker { ppm } => {
                    self.tell(name, "counts its time too slowly from now on");
                    clocks.set_drift(name, ppm);
                }
                _ => {}
            }
        }
    }

    /// The cluster has formed; the part under faults begins.
    pub fn begins(&self, names: &[String], clocks: &Clocks) {
        for name in names {
            match self.plant {
                Plant::LyingSync => {
                    self.tell(name, "acknowledges without a sync from now on");
                    simdisk::disk(name).inject(Rule::always(OpKind::Sync, "/wal/", Fault::Lie));
                }
                Plant::HastyClock { ppm } => {
                    self.tell(name, "counts its time too fast from now on");
                    clocks.set_drift(name, ppm);
                }
                _ => {}
            }
        }
    }

    /// A life of `name` has been ended.
    pub fn fell(&self, name: &str, how: Crash) {
        self.nodes().entry(name.to_owned()).or_default().ended = Some(how);
    }

    /// The next life of `name` is about to begin; its disk has power.
    pub fn rises(&self, name: &str) {
        let ended = self
            .nodes()
            .get_mut(name)
            .and_then(|spot| spot.ended.take());
        let Some(ended) = ended else { return };
        let torn = Damage::Truncate(TORN_BYTES);
        if self.tears && simdisk::disk(name).damage(WORKER_FILE, torn) {
            self.recorder
                .line(name, Level::Story, "its own file is TORN");
        }
        let platter = Platter::of(name, &self.knobs);
        let what = match (self.plant, ended) {
            (Plant::LostPromise, Crash::PowerLoss) => platter.edit(platter::lose_promises),
            (Plant::ForgottenVote, _) => platter.edit(platter::forget_vote),
            (Plant::DroppedTail { entries }, Crash::PowerLoss) => {
                platter.edit(|group| platter::drop_tail(group, entries))
            }
            (Plant::AppliedAgain, Crash::Stop) => platter.apply_again(),
            (Plant::UncheckedEntry, _) => {
                let draw = self.draw();
                platter.edit(|group| platter::flip_value(group, draw))
            }
            _ => None,
        };
        if let Some(what) = what {
            self.tell(name, &what);
        }
    }

    fn draw(&self) -> u64 {
        self.rng
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .random()
    }

    fn tell(&self, name: &str, what: &str) {
        self.recorder
            .line(name, Level::Story, format!("PLANTED: {what}"));
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Spot>> {
        self.nodes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A journal that also notes whether its node believes to lead.
struct RoleWatch {
    /// The journal.
    inner: Journal,
    /// True while it does.
    leads: Arc<AtomicBool>,
}

impl JournalSink for RoleWatch {
    fn record(&self, event: &Event) {
        if let Event::RoleChanged { role, .. } = event {
            self.leads.store(*role == Role::Leader, Ordering::Relaxed);
        }
        self.inner.record(event.clone());
    }
}
