//! Operators who never rest: services are made, scaled, changed, rolled back and removed, and workers drained and activated; where
//! [`Churn::of_nodes`] says so also labelled, switched off and removed, and brought back, with their disks or without.
//!
//! [`Churn`] draws one thing after another and remembers what must be wanted of the cluster when all of them were done. It
//! knows nothing of how a cluster does it. Pure: chance comes in as an argument.

use node::fleet::{Command, Fleet};
use node::scheduler::model::{Availability, Status};
use node::service::Spec;
use node::service::spec::{Health, HealthCheck, Order};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Services at a time.
const SERVICES_MAX: usize = 4;
/// Copies of a service.
const COPIES_MAX: u32 = 5;
/// The label by which operators keep some services from a worker.
const LABEL: &str = "tier";
/// Its value there.
const SLOW: &str = "slow";

/// What was asked for so far.
#[derive(Clone, Debug, Default)]
pub struct Churn {
    /// What must be there.
    wanted: BTreeMap<String, Wanted>,
    /// What must not be there any more.
    removed: BTreeSet<String>,
    /// The worker that is drained now.
    drained: Option<String>,
    /// Number of the next service or version.
    next: u32,
    /// Whether workers come and go, too.
    of_nodes: bool,
    /// Workers with the label.
    labelled: BTreeSet<String>,
    /// Workers that were drained at some time.
    touched: BTreeSet<String>,
    /// Workers that were removed.
    gone: BTreeSet<String>,
}

/// What is wanted of a service.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    /// Its specification.
    spec: Spec,
    /// Whether the contents are known: after a rollback they depend on what was proven.
    is_known: bool,
}

/// One thing to ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// Whether the cluster may refuse it with good reason.
    pub may_be_refused: bool,
}

/// What an operator does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Gives a command.
    Command(Box<Command>),
    /// Waits until a drained worker is empty and removes it; one that never is empty stays ([`Churn::stays`]).
    Remove {
        /// Its name.
        name: String,
        /// Whether its process is stopped before. If not, it hears that it was removed, and stays out.
        off: bool,
    },
    /// Lets the machine of a worker that was removed in again, by a new token or as an empty one.
    Return {
        /// Its name.
        name: String,
        /// Whether its disk is empty.
        empty: bool,
    },
}

impl From<Command> for Step {
    fn from(command: Command) -> Self {
        Step {
            act: Act::Command(Box::new(command)),
            may_be_refused: false,
        }
    }
}

impl Churn {
    /// Operators who also let workers come and go.
    pub fn of_nodes() -> Self {
        Churn {
            of_nodes: true,
            ..Churn::default()
        }
    }

    /// The next thing to ask for; `workers` may be drained.
    pub fn next(&mut self, workers: &[String], rng: &mut impl Rng) -> Step {
        self.next += 1;
        let names: Vec<String> = self.wanted.keys().cloned().collect();
        let dice = rng.random_range(0..100);
        let name = (!names.is_empty()).then(|| names[rng.random_range(0..names.len())].clone());
        let command = match name {
            None => self.create(rng),
            Some(_) if dice < 20 && names.len() < SERVICES_MAX => self.create(rng),
            Some(name) if dice < 40 => self.scale(name, rng),
            Some(name) if dice < 65 => self.update(name, rng),
            Some(name) if dice < 72 => {
                if let Some(wanted) = self.wanted.get_mut(&name) {
                    wanted.is_known = false;
                }
                return Step {
                    act: Act::Command(Box::new(Command::ServiceRollBack { name })),
                    may_be_refused: true,
                };
            }
            Some(name) if dice < 80 => {
                self.wanted.remove(&name);
                self.removed.insert(name.clone());
                Command::ServiceRemove { name }
            }
            Some(_) if self.of_nodes => return self.tend(workers, rng),
            Some(_) => self.toggle(workers, rng),
        };
        command.into()
    }

    /// A worker that was to be removed was never empty: it stays, drained.
    pub fn stays(&mut self, name: &str) {
        self.gone.remove(name);
        self.drained = Some(name.to_owned());
    }

    /// What ends it: every worker is there, takes tasks again, and has no label of ours.
    pub fn last(&mut self) -> Vec<Step> {
        let gone = std::mem::take(&mut self.gone).into_iter();
        let back = gone.map(|name| Step {
            act: Act::Return { name, empty: false },
            may_be_refused: false,
        });
        let labelled = std::mem::take(&mut self.labelled).into_iter();
        let labels = labelled.map(|name| label(name, None));
        let active = self.touched.iter().cloned();
        let active = active.map(|name| set(name, Availability::Active));
        // One that was removed comes back without labels, and takes tasks: until then the cluster does not know it.
        let commands = labels.chain(active).map(|command| Step {
            act: Act::Command(Box::new(command)),
            may_be_refused: self.of_nodes,
        });
        let all = back.chain(commands).collect();
        self.drained = None;
        all
    }

    /// Something with a worker.
    fn tend(&mut self, workers: &[String], rng: &mut impl Rng) -> Step {
        let name = workers[rng.random_range(0..workers.len())].clone();
        let dice = rng.random_range(0..100);
        if let Some(name) = self.gone.first().cloned().filter(|_| dice < 40) {
            self.gone.remove(&name);
            return Step {
                act: Act::Return {
                    name,
                    empty: rng.random_bool(0.5),
                },
                may_be_refused: false,
            };
        }
        let may_go = self.gone.len() + 1 < workers.len();
        if let Some(name) = self.drained.clone().filter(|_| dice < 70 && may_go) {
            let off = rng.random_bool(0.6);
            self.drained = None;
            self.gone.insert(name.clone());
            return Step {
                act: Act::Remove { name, off },
                may_be_refused: false,
            };
        }
        let command = match self.gone.contains(&name) || dice % 2 == 0 {
            true => self.toggle(workers, rng),
            false if self.labelled.remove(&name) => label(name, None),
            false => {
                self.labelled.insert(name.clone());
                label(name, Some(SLOW))
            }
        };
        // A worker that was just removed may not have joined again.
        Step {
            act: Act::Command(Box::new(command)),
            may_be_refused: true,
        }
    }

    /// A new service, under a name that was never used.
    fn create(&mut self, rng: &mut impl Rng) -> Command {
        let spec = self.spec(format!("s{}", self.next), rng);
        let wanted = Wanted {
            spec: spec.clone(),
            is_known: true,
        };
        self.wanted.insert(spec.name.clone(), wanted);
        Command::ServiceCreate { spec }
    }

    /// Another number of copies.
    fn scale(&mut self, name: String, rng: &mut impl Rng) -> Command {
        let replicas = rng.random_range(0..=COPIES_MAX);
        if let Some(wanted) = self.wanted.get_mut(&name) {
            wanted.spec.replicas = replicas;
        }
        Command::ServiceScale { name, replicas }
    }

    /// Another version.
    fn update(&mut self, name: String, rng: &mut impl Rng) -> Command {
        let spec = self.spec(name.clone(), rng);
        let wanted = Wanted {
            spec: spec.clone(),
            is_known: true,
        };
        self.wanted.insert(name.clone(), wanted);
        Command::ServiceUpdate {
            name,
            spec,
            expect_version: None,
        }
    }

    /// Drains a worker, or activates the one that is drained.
    fn toggle(&mut self, workers: &[String], rng: &mut impl Rng) -> Command {
        if let Some(name) = self.drained.take() {
            return set(name, Availability::Active);
        }
        let there = workers.iter().filter(|name| !self.gone.contains(*name));
        let there: Vec<&String> = there.collect();
        let name = there[rng.random_range(0..there.len())].clone();
        self.touched.insert(name.clone());
        self.drained = Some(name.clone());
        set(name, Availability::Drain)
    }

    /// A specification whose contents were never there before.
    fn spec(&self, name: String, rng: &mut impl Rng) -> Spec {
        let slow = format!("{}ms", rng.random_range(0..3_000));
        let tag = format!("t{}", self.next);
        let mut spec = Spec::new(name, &["sim", "slow-start", &slow, "tag", &tag]);
        spec.replicas = rng.random_range(1..=COPIES_MAX);
        spec.stop_grace_ms = rng.random_range(1_000..5_000);
        spec.update.monitor_ms = rng.random_range(500..3_000);
        if rng.random_bool(0.5) {
            spec.update.order = Order::StopFirst;
            spec.update.unavailable_max = rng.random_range(0..=2);
        }
        if self.of_nodes && rng.random_bool(0.3) {
            let rule = format!("node.labels.{LABEL} != {SLOW}");
            spec.placement.constraints.push(rule);
        }
        if rng.random_bool(0.5) {
            spec.health = Some(Health {
                check: HealthCheck::Tcp { port: 80 },
                interval_ms: 2_000,
                timeout_ms: 1_000,
                retries: 5,
                start_period_ms: 5_000,
            });
        }
        spec
    }

    /// In what `fleet` differs from what was asked for, in words; `workers` shall be there.
    pub fn differences(&self, fleet: &Fleet, workers: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        for name in workers {
            let worker = fleet.worker(name);
            let is_well = worker.is_some_and(|worker| {
                worker.status == Status::Ready
                    && worker.availability == Availability::Active
                    && !worker.labels.contains_key(LABEL)
            });
            if !is_well {
                wrong.push(format!(
                    "worker {name} shall be ready, active and without the label {LABEL}; it is {worker:?}"
                ));
            }
        }
        for (name, wanted) in &self.wanted {
            let Some(service) = fleet.service(name) else {
                wrong.push(format!("service {name} is not there"));
                continue;
            };
            let has = &service.current.spec;
            if has.replicas != wanted.spec.replicas {
                wrong.push(format!(
                    "service {name} has {} copies, {} were asked for",
                    has.replicas, wanted.spec.replicas
                ));
            }
            if wanted.is_known && has.command != wanted.spec.command {
                wrong.push(format!(
                    "service {name} runs {:?}, {:?} was asked for",
                    has.command, wanted.spec.command
                ));
            }
        }
        let left = self
            .removed
            .iter()
            .filter(|name| fleet.service(name).is_some());
        wrong.extend(left.map(|name| format!("service {name} was removed and is there")));
        wrong
    }
}

/// Wants something of a worker.
fn set(name: String, availability: Availability) -> Command {
    Command::WorkerSet {
        name,
        availability: Some(availability),
        labels: BTreeMap::new(),
    }
}

/// Gives a worker the label, or takes it away.
fn label(name: String, value: Option<&str>) -> Command {
    Command::WorkerSet {
        name,
        availability: None,
        labels: BTreeMap::from([(LABEL.to_owned(), value.map(str::to_owned))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::fleet::apply::At;
    use node::types::Term;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// A fleet to which the first `many` steps of `seed` were applied, but for those that `is_lost` names.
    fn after(seed: u64, many: u64, is_lost: impl Fn(&Command) -> bool) -> (Churn, Fleet) {
        let (mut churn, mut fleet) = (Churn::default(), Fleet::default());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for index in 1..=many {
            let step = churn.next(&["w1".to_owned()], &mut rng);
            let Act::Command(command) = step.act else {
                panic!("workers do not come and go here: {step:?}");
            };
            if is_lost(&command) {
                continue;
            }
            let at = At {
                index,
                term: Term(1),
                time_ms: index,
            };
            let taken = fleet.apply(&command, at).is_ok();
            // There are no workers here.
            let of_worker = matches!(*command, Command::WorkerSet { .. });
            assert!(taken || step.may_be_refused || of_worker, "{command:?}");
        }
        (churn, fleet)
    }

    #[test]
    fn a_cluster_that_does_as_it_is_told_is_as_wanted() {
        for seed in 0..50 {
            let (churn, fleet) = after(seed, 40, |_| false);
            let mut differences = churn.differences(&fleet, &[]);
            // It takes a leader's pass to forget a service, and there is none here.
            differences.retain(|one| !one.ends_with("was removed and is there"));
            assert!(differences.is_empty(), "seed {seed}: {differences:?}");
        }
    }

    #[test]
    fn an_order_that_was_lost_is_seen() {
        let (churn, fleet) = after(1, 1, |_| true);
        assert_eq!(churn.differences(&fleet, &[]).len(), 1);
        let missing = churn.differences(&fleet, &["w1".to_owned()]);
        assert_eq!(missing.len(), 2, "{missing:?}");
    }

    #[test]
    fn workers_come_and_go_and_all_are_back_in_the_end() {
        let workers: Vec<String> = (1..=3).map(|number| format!("w{number}")).collect();
        let (mut removed, mut labelled) = (0, 0);
        for seed in 0..20 {
            let mut churn = Churn::of_nodes();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut off: BTreeSet<String> = BTreeSet::new();
            let take = |off: &mut BTreeSet<String>, act: &Act| match act {
                Act::Remove { name, .. } => {
                    assert!(off.insert(name.clone()), "{name} was gone already");
                }
                Act::Return { name, .. } => assert!(off.remove(name), "{name} was there"),
                _ => {}
            };
            for _ in 0..200 {
                let act = churn.next(&workers, &mut rng).act;
                removed += u32::from(matches!(act, Act::Remove { .. }));
                if let Act::Command(command) = &act
                    && let Command::WorkerSet { labels, .. } = &**command
                {
                    labelled += u32::from(!labels.is_empty());
                }
                take(&mut off, &act);
                assert!(off.len() < workers.len(), "nobody is left");
            }
            churn
                .last()
                .iter()
                .for_each(|step| take(&mut off, &step.act));
            assert!(off.is_empty(), "{off:?}");
        }
        assert!(removed > 20 && labelled > 20, "{removed} {labelled}");
    }
}
