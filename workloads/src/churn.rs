//! Operators who never rest: services are made, scaled, changed, rolled back and removed, and workers drained and activated.
//!
//! [`Churn`] draws one command after another and remembers what must be wanted of the cluster when all of them were taken. It
//! knows nothing of how a cluster does it. Pure: chance comes in as an argument.

use node::fleet::{Command, Fleet};
use node::scheduler::model::Availability;
use node::service::Spec;
use node::service::spec::{Health, HealthCheck, Order};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Services at a time.
const SERVICES_MAX: usize = 4;
/// Copies of a service.
const COPIES_MAX: u32 = 5;

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
    /// The command.
    pub command: Command,
    /// Whether the cluster may refuse it with good reason.
    pub may_be_refused: bool,
}

impl Churn {
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
                    command: Command::ServiceRollBack { name },
                    may_be_refused: true,
                };
            }
            Some(name) if dice < 80 => {
                self.wanted.remove(&name);
                self.removed.insert(name.clone());
                Command::ServiceRemove { name }
            }
            Some(_) => self.toggle(workers, rng),
        };
        Step {
            command,
            may_be_refused: false,
        }
    }

    /// What ends it: every worker takes tasks again.
    pub fn last(&mut self) -> Option<Command> {
        let name = self.drained.take()?;
        Some(set(name, Availability::Active))
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
        if let Some(command) = self.last() {
            return command;
        }
        let name = workers[rng.random_range(0..workers.len())].clone();
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

    /// In what `fleet` differs from what was asked for, in words.
    pub fn differences(&self, fleet: &Fleet) -> Vec<String> {
        let mut wrong = Vec::new();
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
            if is_lost(&step.command) {
                continue;
            }
            let at = At {
                index,
                term: Term(1),
                time_ms: index,
            };
            let taken = fleet.apply(&step.command, at).is_ok();
            // There are no workers here.
            let of_worker = matches!(step.command, Command::WorkerSet { .. });
            assert!(
                taken || step.may_be_refused || of_worker,
                "{:?}",
                step.command
            );
        }
        (churn, fleet)
    }

    #[test]
    fn a_cluster_that_does_as_it_is_told_is_as_wanted() {
        for seed in 0..50 {
            let (churn, fleet) = after(seed, 40, |_| false);
            let mut differences = churn.differences(&fleet);
            // It takes a leader's pass to forget a service, and there is none here.
            differences.retain(|one| !one.ends_with("was removed and is there"));
            assert!(differences.is_empty(), "seed {seed}: {differences:?}");
        }
    }

    #[test]
    fn an_order_that_was_lost_is_seen() {
        let (churn, fleet) = after(1, 1, |_| true);
        assert_eq!(churn.differences(&fleet).len(), 1);
    }
}
