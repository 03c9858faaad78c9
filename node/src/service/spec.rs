//! A service's specification, as people write it in TOML, YAML or JSON, and as the log keeps it.
//!
//! Every key that is not known is an error. What is left out has the default documented at its field; defaults are those
//! of Warren where it has one (spec/interfaces.md 1.1), so that an operator meets what he knows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an operator wants to be running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name, unique in the cluster: 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
    pub name: String,
    /// How many, and where.
    #[serde(default)]
    pub mode: Mode,
    /// Copies of a replicated service.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Image, for the container executor; none for the process executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Program and arguments; with an image, in place of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Directory to run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What a task may use, and what is set aside for it.
    #[serde(default)]
    pub resources: Resources,
    /// How its health is found out; none: a process that runs is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What happens when a task's process ends.
    #[serde(default)]
    pub restart: Restart,
    /// How a new version takes the place of the old one.
    #[serde(default)]
    pub update: Update,
    /// Time between being told to stop and being killed, milliseconds (T-11).
    #[serde(default = "stop_grace_ms")]
    pub stop_grace_ms: u64,
    /// Where tasks may run.
    #[serde(default)]
    pub placement: Placement,
    /// Volumes; each lies on one worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    /// Secrets, which tasks find as files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretMount>,
    /// Ports of the worker that a task needs for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// For people and tools; changing them starts no rollout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How many tasks a service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As many as `replicas` says.
    #[default]
    Replicated,
    /// One on each worker that fits.
    Global,
}

/// Resources of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Most it may use; the executor enforces it.
    #[serde(default)]
    pub limits: Amounts,
    /// Set aside on its worker; the scheduler never promises more than a worker has.
    #[serde(default)]
    pub reservations: Amounts,
}

/// Amounts of resources; zero: none set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Thousandths of a processor.
    #[serde(default)]
    pub cpu_milli: u64,
    /// Memory, bytes.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What is tried.
    pub check: HealthCheck,
    /// Between two tries, milliseconds.
    #[serde(default = "health_interval_ms")]
    pub interval_ms: u64,
    /// Longest time of one try, milliseconds.
    #[serde(default = "health_timeout_ms")]
    pub timeout_ms: u64,
    /// Failures in a row after which a running task is given up.
    #[serde(default = "health_retries")]
    pub retries: u32,
    /// Time after the start in which failures do not count, milliseconds.
    #[serde(default)]
    pub start_period_ms: u64,
}

/// One try of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum HealthCheck {
    /// `GET` on the worker's loopback; healthy below status 400.
    Http {
        /// Port.
        port: u16,
        /// Path, with the leading `/`.
        path: String,
    },
    /// A connection to the worker's loopback.
    Tcp {
        /// Port.
        port: u16,
    },
    /// A program; healthy when it ends with code 0.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// What happens when a task's process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// When it is started again on the same worker.
    #[serde(default)]
    pub condition: RestartCondition,
    /// First pause before that, milliseconds; it doubles with each restart within the window.
    #[serde(default = "restart_delay_ms")]
    pub delay_ms: u64,
    /// Longest pause, milliseconds.
    #[serde(default = "restart_delay_max_ms")]
    pub delay_max_ms: u64,
    /// Restarts within the window after which the task has failed and its slot gets another; zero: no bound.
    #[serde(default = "restart_attempts_max")]
    pub attempts_max: u32,
    /// A task that ran for this long is taken for sound again: the pause and the count begin anew, milliseconds.
    #[serde(default = "restart_window_ms")]
    pub window_ms: u64,
}

/// When a task's process is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never: an end is the task's end.
    Never,
    /// When it failed.
    OnFailure,
    /// Also when it ended with code 0.
    #[default]
    Always,
}

/// How a new version takes the place of the old one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Which goes first. A service with a single-writer volume is always stop-first.
    #[serde(default)]
    pub order: Order,
    /// Tasks above the wanted number, for start-first.
    #[serde(default = "one")]
    pub surge_max: u32,
    /// Tasks below the wanted number. At least one of the two is above zero.
    #[serde(default)]
    pub unavailable_max: u32,
    /// Pause between two steps, milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// How long a new task must run before it counts as good, milliseconds.
    #[serde(default = "monitor_ms")]
    pub monitor_ms: u64,
    /// Longest time from assignment until it runs, milliseconds.
    #[serde(default = "progress_ms")]
    pub progress_ms: u64,
    /// Share of the new tasks that may fail, percent.
    #[serde(default = "failures_max_percent")]
    pub failures_max_percent: u32,
    /// What happens when more fail.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Shares of the tasks at which a rollout waits for `canary_window_ms`, percent, rising; empty: no canary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary_percent: Vec<u32>,
    /// How long it waits there, milliseconds.
    #[serde(default = "canary_window_ms")]
    pub canary_window_ms: u64,
}

/// Which of two tasks of a slot goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The new one runs before the old one stops.
    #[default]
    StartFirst,
    /// The old one has ended before the new one starts.
    StopFirst,
}

/// What a rollout does when too many tasks of the new version fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It stops where it is and waits for a person.
    Pause,
    /// It goes on.
    Continue,
    /// It goes back to the version before.
    #[default]
    Rollback,
}

/// Where tasks may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Rules that all must hold: `node.labels.KEY == VALUE`, `node.name != VALUE`, `node.platform == linux/amd64`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Labels over whose values copies are spread, the most important first: `zone`, `rack`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<String>,
    /// Most copies on one worker; zero: no bound.
    #[serde(default)]
    pub replicas_per_node_max: u32,
    /// When running copies are moved for a better spread.
    #[serde(default)]
    pub rebalance: Rebalance,
}

/// When running copies are moved for a better spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rebalance {
    /// When a person asks for it.
    #[default]
    Manual,
    /// Also when a worker joins or comes back (moby/moby#24103).
    OnJoin,
}

/// A volume in a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The volume.
    pub volume: String,
    /// Where the task finds it.
    pub target: String,
    /// Whether several tasks may have it at once (all on its worker); otherwise it has a single writer (U-9).
    #[serde(default)]
    pub shared: bool,
}

/// A secret in a task: a name alone, or with the file that it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SecretWords")]
pub struct SecretMount {
    /// The secret.
    pub secret: String,
    /// Name of the file in the directory of the task's secrets; the secret's own when not said.
    pub target: String,
    /// Mode of the file: 0400 when not said.
    pub mode: u32,
}

impl SecretMount {
    /// The secret under its own name, readable by its owner alone.
    pub fn new(secret: impl Into<String>) -> Self {
        let secret = secret.into();
        SecretMount {
            target: secret.clone(),
            secret,
            mode: SECRET_MODE,
        }
    }
}

/// A secret's file is for its owner to read.
const SECRET_MODE: u32 = 0o400;

/// How people write a secret in a task.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a secret is a name, or a table with `secret` and perhaps `target` and `mode`"
)]
enum SecretWords {
    Name(String),
    Whole(SecretTable),
}

/// The long way.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretTable {
    secret: String,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    mode: Option<u32>,
}

impl From<SecretWords> for SecretMount {
    fn from(words: SecretWords) -> Self {
        match words {
            SecretWords::Name(name) => SecretMount::new(name),
            SecretWords::Whole(table) => SecretMount {
                target: table.target.unwrap_or_else(|| table.secret.clone()),
                mode: table.mode.unwrap_or(SECRET_MODE),
                secret: table.secret,
            },
        }
    }
}

/// A port of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Port on the worker.
    pub host: u16,
    /// Port in the task; the same when zero.
    #[serde(default)]
    pub target: u16,
}

impl Spec {
    /// A service of `name` with every default, running `command`.
    pub fn new(name: impl Into<String>, command: &[&str]) -> Self {
        Spec {
            name: name.into(),
            mode: Mode::default(),
            replicas: one(),
            image: None,
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::new(),
            working_dir: None,
            resources: Resources::default(),
            health: None,
            restart: Restart::default(),
            update: Update::default(),
            stop_grace_ms: stop_grace_ms(),
            placement: Placement::default(),
            volumes: Vec::new(),
            secrets: Vec::new(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Whether two tasks of one slot may never run at once, whatever the update policy says (U-9).
    pub fn is_single_writer(&self) -> bool {
        self.volumes.iter().any(|mount| !mount.shared)
    }

    /// Whether going from `self` to `other` needs new tasks: more than labels, copies and policies changed.
    pub fn needs_rollout(&self, other: &Spec) -> bool {
        let run = |spec: &Spec| Spec {
            mode: Mode::default(),
            replicas: 1,
            update: Update::default(),
            labels: BTreeMap::new(),
            placement: Placement {
                rebalance: Rebalance::default(),
                ..spec.placement.clone()
            },
            ..spec.clone()
        };
        run(self) != run(other)
    }
}

impl Health {
    /// A health check with every default.
    pub fn new(check: HealthCheck) -> Self {
        Health {
            check,
            interval_ms: health_interval_ms(),
            timeout_ms: health_timeout_ms(),
            retries: health_retries(),
            start_period_ms: 0,
        }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Restart {
            condition: RestartCondition::default(),
            delay_ms: restart_delay_ms(),
            delay_max_ms: restart_delay_max_ms(),
            attempts_max: restart_attempts_max(),
            window_ms: restart_window_ms(),
        }
    }
}

impl Default for Update {
    fn default() -> Self {
        Update {
            order: Order::default(),
            surge_max: one(),
            unavailable_max: 0,
            delay_ms: 0,
            monitor_ms: monitor_ms(),
            progress_ms: progress_ms(),
            failures_max_percent: failures_max_percent(),
            on_failure: OnFailure::default(),
            canary_percent: Vec::new(),
            canary_window_ms: canary_window_ms(),
        }
    }
}

fn one() -> u32 {
    1
}

/// W-K14.
fn stop_grace_ms() -> u64 {
    10_000
}

fn health_interval_ms() -> u64 {
    30_000
}

fn health_timeout_ms() -> u64 {
    10_000
}

fn health_retries() -> u32 {
    3
}

fn restart_delay_ms() -> u64 {
    1_000
}

fn restart_delay_max_ms() -> u64 {
    60_000
}

fn restart_attempts_max() -> u32 {
    5
}

fn restart_window_ms() -> u64 {
    120_000
}

fn monitor_ms() -> u64 {
    5_000
}

fn progress_ms() -> u64 {
    120_000
}

/// Warren's threshold.
fn failures_max_percent() -> u32 {
    10
}

/// Warren's window: five minutes.
fn canary_window_ms() -> u64 {
    300_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_file_gets_every_default() {
        let spec: Spec = toml::from_str("name = 'web'\ncommand = ['sleep', '1']\n").unwrap();
        assert_eq!(spec, Spec::new("web", &["sleep", "1"]));
    }

    #[test]
    fn json_and_back_is_the_same() {
        let mut spec = Spec::new("web", &["a"]);
        spec.health = Some(Health {
            check: HealthCheck::Http {
                port: 80,
                path: "/health".to_owned(),
            },
            interval_ms: 1,
            timeout_ms: 2,
            retries: 3,
            start_period_ms: 4,
        });
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = toml::from_str::<Spec>("name = 'web'\nreplica = 3\n").unwrap_err();
        assert!(error.to_string().contains("replica"), "{error}");
    }

    #[test]
    fn labels_and_copies_need_no_rollout_and_a_command_does() {
        let old = Spec::new("web", &["a"]);
        let mut new = old.clone();
        new.replicas = 7;
        new.labels.insert("a".to_owned(), "b".to_owned());
        assert!(!old.needs_rollout(&new));
        new.command.push("b".to_owned());
        assert!(old.needs_rollout(&new));
    }
}
