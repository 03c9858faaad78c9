//! The grammar of orchestration: services, nodes, volumes, tokens, events.

use super::args::duration;
use crate::service::units::{bytes, cpu};
use clap::{ArgGroup, Args, Subcommand};
use std::time::Duration;

/// Where flags that describe a service stand in help.
const WHAT: &str = "What runs";
/// Where flags about room and place stand in help.
const PLACE: &str = "Where, and with how much";
/// Where flags about health and ends stand in help.
const LIFE: &str = "Health and ends";
/// Where flags about rollouts stand in help.
const ROLLOUT: &str = "Rollouts";

/// The service verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Service {
    /// Make a service, from a file or from flags
    #[command(after_help = "\
Examples:
  seaworthy service create web.toml --wait
  seaworthy service create compose.yaml
  seaworthy service create web --replicas 3 --env PORT=8080 -p 8080 -- ./web --quiet
  seaworthy service create db --volume data:/var/lib/db --restart always -- ./db

FILE is a specification in TOML, YAML or JSON, or a Compose file; - is standard input. Flags win over the file.")]
    Create(Box<Create>),
    /// List services
    #[command(visible_alias = "list")]
    Ls,
    /// Show a service with its specification
    Inspect {
        /// The service
        name: String,
    },
    /// List the tasks of a service, or all
    Ps {
        /// The service; without it, every task
        name: Option<String>,
        /// Ended tasks too
        #[arg(long, short)]
        all: bool,
    },
    /// Set the number of copies
    #[command(
        after_help = "Examples:\n  seaworthy service scale web 5\n  seaworthy service scale web=5 api=3 --wait"
    )]
    Scale(Scale),
    /// Change a service, by a file or by flags; a rollout begins if its tasks must change
    #[command(after_help = "\
Examples:
  seaworthy service update web --image web:2 --wait
  seaworthy service update web --env MODE=fast --env-rm DEBUG
  seaworthy service update web web.toml --expect-version 4

Lists that are given (-p, --volume, --secret, --constraint, --spread) take the place of the old ones. Nothing changes if somebody else
changed the service in between.")]
    Update(Box<Update>),
    /// Go back to the contents before
    Rollback {
        /// The service
        name: String,
        /// Waiting
        #[command(flatten)]
        wait: Wait,
    },
    /// Move copies, one at a time, until they are spread as well as they can be
    Rebalance {
        /// The service
        name: String,
        /// Waiting
        #[command(flatten)]
        wait: Wait,
    },
    /// Pause a running rollout
    Pause {
        /// The service
        name: String,
    },
    /// Continue a paused rollout
    Continue {
        /// The service
        name: String,
    },
    /// Print what its tasks write
    #[command(after_help = "\
Examples:
  seaworthy service logs web --follow
  seaworthy service logs web.1 --tail 20
  seaworthy service logs 17 --tail 20 --stream stderr
  seaworthy service logs web --since 10m

Any manager asks the workers. Lines of several tasks begin with service, slot and node.")]
    Logs(Logs),
    /// Tell why its tasks wait, moved or failed
    Explain(Explain),
    /// Tell what a file would do on which node, without doing it
    #[command(after_help = "Example:\n  seaworthy service plan web.toml")]
    Plan(Plan),
    /// Print a file as specifications of ours, and tell what a Compose file says that is not supported
    #[command(after_help = "Example:\n  seaworthy service convert compose.yaml > web.toml")]
    Convert {
        /// The file
        file: String,
        /// Drop the keys of a Compose file that mean nothing here, and tell which
        #[arg(long)]
        ignore_unsupported: bool,
    },
    /// Remove services; their tasks are stopped
    #[command(visible_alias = "delete")]
    Rm {
        /// The services
        #[arg(required = true)]
        names: Vec<String>,
        /// Waiting
        #[command(flatten)]
        wait: Wait,
    },
}

/// `service logs`.
#[derive(Clone, Debug, Args)]
pub struct Logs {
    /// A service, one of its slots (web.1), or the number of a task
    #[arg(value_name = "NAME|NAME.SLOT|TASK")]
    pub name: String,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with the last lines of each task, this many; 100 if nothing is said
    #[arg(long, value_name = "N", conflicts_with = "since")]
    pub tail: Option<u64>,
    /// Begin with what was written since so long ago (10m), and up to 5 s more
    #[arg(long, value_name = "TIME", value_parser = super::args::duration)]
    pub since: Option<Duration>,
    /// stdout or stderr; both if not said
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr"])]
    #[arg(hide_possible_values = true)]
    pub stream: Option<String>,
    /// Of ended tasks too
    #[arg(long, short)]
    pub all: bool,
}

/// `service explain`.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// The service
    pub name: String,
    /// Every task that is not forgotten, every event
    #[arg(long, short)]
    pub all: bool,
}

/// `service plan`.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// The file
    pub file: String,
    /// With this number of copies
    #[arg(long, short = 'n', value_name = "N")]
    pub replicas: Option<u32>,
    /// Drop the keys of a Compose file that mean nothing here, and tell which
    #[arg(long)]
    pub ignore_unsupported: bool,
}

/// `events`.
#[derive(Clone, Debug, Args)]
pub struct Events {
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Only of this service: name or id
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only of this node: name or id
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Only of this task
    #[arg(long, value_name = "ID", value_parser = task)]
    pub task: Option<u64>,
    /// Only after this entry
    #[arg(long, value_name = "INDEX")]
    pub after: Option<u64>,
    /// Most events to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
}

/// What the flags say of a service.
#[derive(Clone, Debug, Default, Args)]
pub struct SpecFlags {
    /// Image to run; without it, a command of the worker's machine
    #[arg(long, value_name = "IMAGE", help_heading = WHAT)]
    pub image: Option<String>,
    /// Copies
    #[arg(long, short = 'n', value_name = "N", help_heading = WHAT)]
    pub replicas: Option<u32>,
    /// replicated (default) or global: one on each worker that fits
    #[arg(long, value_name = "MODE", value_parser = ["replicated", "global"], help_heading = WHAT)]
    #[arg(hide_possible_values = true)]
    pub mode: Option<String>,
    /// A variable of its environment; give it once for each
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair, help_heading = WHAT)]
    pub env: Vec<(String, String)>,
    /// Remove a variable
    #[arg(long, value_name = "KEY", help_heading = WHAT)]
    pub env_rm: Vec<String>,
    /// Directory to run in
    #[arg(long, value_name = "DIR", help_heading = WHAT)]
    pub workdir: Option<String>,
    /// A label, for people and tools
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair, help_heading = WHAT)]
    pub label: Vec<(String, String)>,
    /// Remove a label
    #[arg(long, value_name = "KEY", help_heading = WHAT)]
    pub label_rm: Vec<String>,
    /// A port of the worker that it needs, and the task's own if that is another
    #[arg(long, short, value_name = "PORT[:TARGET]", value_parser = port, help_heading = PLACE)]
    pub publish: Vec<(u16, u16)>,
    /// A volume with a single writer, or one that tasks on its worker share
    #[arg(long, value_name = "NAME:TARGET[:shared]", value_parser = mount, help_heading = PLACE)]
    pub volume: Vec<crate::service::spec::Mount>,
    /// A secret, which its tasks find as a file of that name, or of another
    #[arg(long, value_name = "NAME[:FILE]", value_parser = secret, help_heading = PLACE)]
    pub secret: Vec<crate::service::spec::SecretMount>,
    /// A rule for workers, such as "node.labels.zone == north"
    #[arg(long, value_name = "RULE", value_parser = constraint, help_heading = PLACE)]
    pub constraint: Vec<String>,
    /// A label over whose values copies are spread, such as zone; the most important first
    #[arg(long, value_name = "LABEL", help_heading = PLACE)]
    pub spread: Vec<String>,
    /// When running copies are moved for a better spread: manual (default) or on-join
    #[arg(long, value_name = "WHEN", value_parser = ["manual", "on-join"], help_heading = PLACE)]
    #[arg(hide_possible_values = true)]
    pub rebalance: Option<String>,
    /// Most copies on one worker; 0 is no bound
    #[arg(long, value_name = "N", help_heading = PLACE)]
    pub max_per_node: Option<u32>,
    /// Processors set aside, such as 0.5 or 250m
    #[arg(long, value_name = "CPUS", value_parser = cpu, help_heading = PLACE)]
    pub reserve_cpu: Option<u64>,
    /// Memory set aside, such as 256MiB
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = PLACE)]
    pub reserve_memory: Option<u64>,
    /// Most processors it may use
    #[arg(long, value_name = "CPUS", value_parser = cpu, help_heading = PLACE)]
    pub limit_cpu: Option<u64>,
    /// Most memory it may use
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = PLACE)]
    pub limit_memory: Option<u64>,
    /// Healthy while this answers below status 400
    #[arg(long, value_name = "PORT[/PATH]", value_parser = http, group = "check", help_heading = LIFE)]
    pub health_http: Option<(u16, String)>,
    /// Healthy while this port takes connections
    #[arg(long, value_name = "PORT", group = "check", help_heading = LIFE)]
    pub health_tcp: Option<u16>,
    /// Healthy while this ends with code 0; words are split at spaces
    #[arg(long, value_name = "COMMAND", group = "check", help_heading = LIFE)]
    pub health_cmd: Option<String>,
    /// No health check
    #[arg(long, group = "check", help_heading = LIFE)]
    pub no_health: bool,
    /// Pause between two checks
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = LIFE)]
    pub health_interval: Option<Duration>,
    /// Longest time of one check
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = LIFE)]
    pub health_timeout: Option<Duration>,
    /// Failures in a row until it is given up
    #[arg(long, value_name = "N", help_heading = LIFE)]
    pub health_retries: Option<u32>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = LIFE)]
    pub health_start_period: Option<Duration>,
    /// When it is started again: never, on-failure or always (default)
    #[arg(long, value_name = "WHEN", value_parser = ["never", "on-failure", "always"], help_heading = LIFE)]
    #[arg(hide_possible_values = true)]
    pub restart: Option<String>,
    /// First pause before that; it doubles
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = LIFE)]
    pub restart_delay: Option<Duration>,
    /// Restarts on one worker until the task has failed; 0 is no bound
    #[arg(long, value_name = "N", help_heading = LIFE)]
    pub restart_attempts: Option<u32>,
    /// Time between being told to stop and being killed
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = LIFE)]
    pub stop_grace: Option<Duration>,
    /// start-first (default) or stop-first
    #[arg(long, value_name = "ORDER", value_parser = ["start-first", "stop-first"], help_heading = ROLLOUT)]
    #[arg(hide_possible_values = true)]
    pub update_order: Option<String>,
    /// Tasks above the wanted number
    #[arg(long, value_name = "N", help_heading = ROLLOUT)]
    pub update_surge: Option<u32>,
    /// Tasks below the wanted number
    #[arg(long, value_name = "N", help_heading = ROLLOUT)]
    pub update_unavailable: Option<u32>,
    /// Pause between two steps
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = ROLLOUT)]
    pub update_delay: Option<Duration>,
    /// How long a new task must run to count as good
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = ROLLOUT)]
    pub update_monitor: Option<Duration>,
    /// Share of new tasks that may fail, percent
    #[arg(long, value_name = "PERCENT", help_heading = ROLLOUT)]
    pub update_max_failures: Option<u32>,
    /// What happens when more fail: pause, continue or rollback (default)
    #[arg(long, value_name = "WHAT", value_parser = ["pause", "continue", "rollback"], help_heading = ROLLOUT)]
    #[arg(hide_possible_values = true)]
    pub update_on_failure: Option<String>,
    /// Shares at which a rollout waits, percent, such as 5,25
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', help_heading = ROLLOUT)]
    pub update_canary: Vec<u32>,
    /// The program and its arguments; with an image, in place of its own
    #[arg(last = true, value_name = "COMMAND", help_heading = WHAT)]
    pub command: Vec<String>,
}

/// Waiting for a service.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Wait {
    /// Wait until everything is as it shall be
    #[arg(long, short)]
    pub wait: bool,
    /// With --wait: how long
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
    #[arg(default_value = "120s")]
    pub wait_timeout: Duration,
}

/// Files that describe services.
#[derive(Clone, Debug, Default, Args)]
pub struct Files {
    /// The file, whatever its name looks like
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<String>,
    /// Drop the keys of a Compose file that mean nothing here, and tell which
    #[arg(long)]
    pub ignore_unsupported: bool,
}

/// `service create`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("source").args(["what", "file"]).required(true).multiple(true))]
pub struct Create {
    /// A file (.toml, .yaml, .yml, .json, -) or the new service's name
    #[arg(value_name = "FILE|NAME")]
    pub what: Option<String>,
    /// Files
    #[command(flatten)]
    pub files: Files,
    /// Waiting
    #[command(flatten)]
    pub wait: Wait,
    /// What it shall be
    #[command(flatten)]
    pub spec: SpecFlags,
}

/// `service update`.
#[derive(Clone, Debug, Args)]
pub struct Update {
    /// The service
    pub name: String,
    /// A file with its whole specification
    #[arg(value_name = "FILE", conflicts_with = "file")]
    pub what: Option<String>,
    /// Files
    #[command(flatten)]
    pub files: Files,
    /// Only if the service has this version
    #[arg(long, value_name = "N")]
    pub expect_version: Option<u64>,
    /// Waiting
    #[command(flatten)]
    pub wait: Wait,
    /// What it shall be
    #[command(flatten)]
    pub spec: SpecFlags,
}

/// `service scale`.
#[derive(Clone, Debug, Args)]
pub struct Scale {
    /// NAME N, or NAME=N for one or several
    #[arg(required = true, value_name = "NAME N|NAME=N")]
    pub what: Vec<String>,
    /// Waiting
    #[command(flatten)]
    pub wait: Wait,
}

/// The node verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Node {
    /// List nodes: managers and workers
    #[command(visible_alias = "list")]
    #[command(after_help = "\
HEARD is how long ago the leader heard of a worker, as it said when it was asked; - where no leader was to be asked. A worker is suspect
when it was silent for more than two heartbeats, or longer than is likely for it; after 30 s it is marked down.")]
    Ls,
    /// Show a node and its tasks
    Inspect {
        /// The node
        name: String,
    },
    /// Move a worker's tasks elsewhere, and give it no others
    Drain {
        /// The worker
        name: String,
        /// Waiting
        #[command(flatten)]
        wait: Wait,
    },
    /// Let a worker take tasks again
    Activate {
        /// The worker
        name: String,
    },
    /// Set what a worker shall be, as `drain` and `activate` do
    Update {
        /// The worker
        name: String,
        /// active or drain
        #[arg(long, value_name = "WORD", value_parser = ["active", "drain"])]
        availability: String,
    },
    /// Remove a worker that is down or has no tasks; it stays out
    #[command(after_help = "\
A worker that is removed while it runs ends its tasks and stays out, whatever token it has. To use its machine again: make a token
(seaworthy cluster token) and start it with that, or with an empty data directory.")]
    Rm {
        /// The worker
        name: String,
        /// Its machine is known to be dead: replace its tasks at once. If it lives on, tasks run twice, with volumes too
        #[arg(long)]
        force: bool,
    },
    /// Set labels (KEY=VALUE) or remove them (KEY-)
    #[command(after_help = "Example:\n  seaworthy node label w1 zone=north ssd=yes old-")]
    Label {
        /// The worker
        name: String,
        /// Labels
        #[arg(
            required = true,
            value_name = "KEY=VALUE|KEY-",
            allow_hyphen_values = true
        )]
        labels: Vec<String>,
    },
}

/// The volume verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Volume {
    /// Make a volume
    Create {
        /// Its name
        name: String,
        /// The worker where it lies; without it, where its first task goes
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls,
    /// Show a volume: where it lies, who uses it
    Inspect {
        /// The volume
        name: String,
    },
    /// Forget a volume that nothing uses; its contents stay on their node
    Rm {
        /// The volume
        name: String,
    },
}

/// The token verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Token {
    /// Make a token; its text is shown once
    Create {
        /// What joins with it: worker or manager
        #[arg(long, value_name = "ROLE", default_value = "worker", value_parser = ["worker", "manager"])]
        #[arg(hide_possible_values = true)]
        role: String,
        /// How long it is good
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
        ttl: Duration,
    },
    /// List tokens, without their texts
    #[command(visible_alias = "list")]
    Ls,
    /// End a token; who joined with it stays
    Rm {
        /// The token
        id: u64,
    },
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("\"{text}\" is not KEY=VALUE")),
    }
}

/// The number of a task.
fn task(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is no task's number: `service ps` shows them; --service NAME tells of a service")
    })
}

/// `PORT` or `PORT:TARGET`; a target of zero is the same port.
fn port(text: &str) -> Result<(u16, u16), String> {
    let (host, target) = match text.split_once(':') {
        Some((host, target)) => (host, Some(target)),
        None => (text, None),
    };
    let number = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!("\"{text}\" is not a port: 1 to 65535")),
        Ok(port) => Ok(port),
    };
    Ok((number(host)?, target.map(number).transpose()?.unwrap_or(0)))
}

/// `NAME:TARGET` or `NAME:TARGET:shared`.
fn mount(text: &str) -> Result<crate::service::spec::Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (volume, target, shared) = match parts[..] {
        [volume, target] => (volume, target, false),
        [volume, target, "shared"] => (volume, target, true),
        _ => {
            return Err(format!(
                "\"{text}\" is not NAME:TARGET or NAME:TARGET:shared"
            ));
        }
    };
    if volume.is_empty() || target.is_empty() {
        return Err(format!("\"{text}\" lacks the volume's name or its target"));
    }
    Ok(crate::service::spec::Mount {
        volume: volume.to_owned(),
        target: target.to_owned(),
        shared,
    })
}

/// `NAME` or `NAME:FILE`.
fn secret(text: &str) -> Result<crate::service::spec::SecretMount, String> {
    let (name, target) = text.split_once(':').unwrap_or((text, text));
    crate::service::check::secret_name(name)?;
    let mut mount = crate::service::spec::SecretMount::new(name);
    target.clone_into(&mut mount.target);
    Ok(mount)
}

/// A rule that can be read.
fn constraint(text: &str) -> Result<String, String> {
    crate::scheduler::constraint::Constraint::parse(text).map(|rule| rule.to_string())
}

/// `PORT` or `PORT/PATH`.
fn http(text: &str) -> Result<(u16, String), String> {
    let (number, path) = match text.split_once('/') {
        Some((number, path)) => (number, format!("/{path}")),
        None => (text, "/".to_owned()),
    };
    let number = number.trim_start_matches(':');
    match number.parse() {
        Ok(0) | Err(_) => Err(format!(
            "\"{text}\" is not PORT or PORT/PATH, such as 8080/health"
        )),
        Ok(port) => Ok((port, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_mounts_and_checks_are_read_or_refused() {
        assert_eq!(port("80"), Ok((80, 0)));
        assert_eq!(port("80:8080"), Ok((80, 8080)));
        assert!(port("0").is_err() && port("a:1").is_err() && port("70000").is_err());
        assert!(mount("data:/d").is_ok_and(|mount| !mount.shared));
        assert!(mount("data:/d:shared").is_ok_and(|mount| mount.shared));
        assert!(mount("data").is_err() && mount(":/d").is_err() && mount("a:b:ro").is_err());
        assert_eq!(http("8080/a/b"), Ok((8080, "/a/b".to_owned())));
        assert_eq!(http("8080"), Ok((8080, "/".to_owned())));
        assert!(http("/health").is_err());
    }
}
