//! The keys of a service.

use super::{Report, deploy, place, value};
use crate::service::Spec;
use crate::service::spec::{Health, HealthCheck, RestartCondition};
use crate::service::units::{bytes, cpu, time_ms};
use crate::service::yaml::{Key, Node, Value};
use std::collections::BTreeMap;

/// Keys that Compose has for a service and that mean nothing here, with the reason.
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[
    ("annotations", "use labels"),
    ("attach", "tasks are read by `service logs`"),
    ("blkio_config", "only processor and memory are limited"),
    ("build", "images are not built here: name one"),
    ("cap_add", "tasks have the worker's rights"),
    ("cap_drop", "tasks have the worker's rights"),
    ("cgroup", "tasks have control groups of their own"),
    ("cgroup_parent", "tasks have control groups of their own"),
    ("configs", "give the task files in another way"),
    ("container_name", "tasks are named by service and slot"),
    ("cpu_count", "use deploy.resources.limits.cpus"),
    ("cpu_percent", "use deploy.resources.limits.cpus"),
    ("cpu_period", "use deploy.resources.limits.cpus"),
    ("cpu_quota", "use deploy.resources.limits.cpus"),
    ("cpu_rt_period", "use deploy.resources.limits.cpus"),
    ("cpu_rt_runtime", "use deploy.resources.limits.cpus"),
    ("cpu_shares", "use deploy.resources"),
    ("cpuset", "tasks are not bound to processors"),
    ("credential_spec", "there are no credentials of this kind"),
    (
        "depends_on",
        "no order is kept: a service must bear that another is away",
    ),
    ("develop", "use it where you develop"),
    ("device_cgroup_rules", "tasks get no devices"),
    ("devices", "tasks get no devices"),
    ("dns", "tasks have the worker's network"),
    ("dns_opt", "tasks have the worker's network"),
    ("dns_search", "tasks have the worker's network"),
    ("domainname", "tasks have the worker's network"),
    ("env_file", "put the variables under `environment`"),
    ("expose", "tasks have the worker's network"),
    ("extends", "write it out, or use an anchor"),
    ("external_links", "there are no networks between tasks yet"),
    ("extra_hosts", "tasks have the worker's network"),
    ("gpus", "tasks get no devices"),
    ("group_add", "tasks have the worker's rights"),
    ("hostname", "tasks have the worker's network"),
    ("init", "the worker reaps what a task leaves behind"),
    ("ipc", "tasks have the worker's namespaces"),
    ("isolation", "tasks have the worker's namespaces"),
    ("label_file", "put the labels under `labels`"),
    ("links", "there are no networks between tasks yet"),
    ("logging", "output is kept by the worker, within bounds"),
    ("mac_address", "tasks have the worker's network"),
    ("mem_swappiness", "only processor and memory are limited"),
    ("memswap_limit", "only processor and memory are limited"),
    ("models", "there are none here"),
    ("network_mode", "tasks have the worker's network"),
    ("networks", "there are no networks between tasks yet"),
    ("oom_kill_disable", "a task above its limit is ended"),
    ("oom_score_adj", "a task above its limit is ended"),
    ("pid", "tasks have the worker's namespaces"),
    ("pids_limit", "only processor and memory are limited"),
    ("platform", "use a constraint: node.platform == linux/amd64"),
    ("post_start", "let the command do it"),
    ("pre_stop", "let the command do it when it is told to end"),
    ("privileged", "tasks have the worker's rights"),
    ("profiles", "write one file for each"),
    ("provider", "there are none here"),
    ("pull_policy", "an image is fetched when it is not there"),
    ("read_only", "a task may write where it has rights"),
    ("runtime", "the worker chooses it"),
    ("security_opt", "tasks have the worker's rights"),
    ("shm_size", "only processor and memory are limited"),
    ("stdin_open", "tasks read nothing"),
    ("storage_opt", "only processor and memory are limited"),
    ("sysctls", "tasks have the worker's namespaces"),
    ("tmpfs", "a task may write where it has rights"),
    ("tty", "tasks have no terminal"),
    ("ulimits", "only processor and memory are limited"),
    ("use_api_socket", "there is none here"),
    ("user", "tasks have the worker's rights"),
    ("userns_mode", "tasks have the worker's namespaces"),
    ("uts", "tasks have the worker's namespaces"),
    ("volumes_from", "name the volumes"),
];

/// Reads one service.
pub(super) fn read(
    name: &Key,
    node: &Node,
    (volumes, secrets): (&BTreeMap<String, String>, &BTreeMap<String, String>),
    report: &mut Report,
) -> Spec {
    let mut reading = Reading {
        path: format!("services.{}", name.name),
        spec: Spec::new(&*name.name, &[]),
        entrypoint: Vec::new(),
        volumes,
        secrets,
        report,
    };
    let fields = reading.report.map(&reading.path, node);
    let is_deploy = |field: &&(Key, Node)| field.0.name == "deploy";
    for (key, node) in fields.iter().filter(|field| !is_deploy(field)) {
        reading.key(key, node, fields);
    }
    // It wins over what stands beside it.
    if let Some((_, node)) = fields.iter().find(is_deploy) {
        let path = format!("{}.deploy", reading.path);
        deploy::read(&path, node, &mut reading.spec, reading.report);
    }
    reading.finish(name.line)
}

/// A service that is being read.
struct Reading<'a> {
    /// Its place in the file.
    path: String,
    /// What is known so far.
    spec: Spec,
    /// What stands before the command.
    entrypoint: Vec<String>,
    /// Volumes of the file.
    volumes: &'a BTreeMap<String, String>,
    /// Secrets of the file.
    secrets: &'a BTreeMap<String, String>,
    /// What was found.
    report: &'a mut Report,
}

impl Reading<'_> {
    fn key(&mut self, key: &Key, node: &Node, fields: &[(Key, Node)]) {
        let path = format!("{}.{}", self.path, key.name);
        let (spec, report) = (&mut self.spec, &mut *self.report);
        match key.name.as_str() {
            "image" => spec.image = Some(report.text(&path, node)),
            "command" => spec.command = value::command(&path, node, report),
            "entrypoint" => self.entrypoint = value::command(&path, node, report),
            "environment" => {
                let bare = "takes its value from the shell: write the value";
                spec.env = value::pairs(&path, node, Some(bare), report);
            }
            "labels" => spec.labels.extend(value::pairs(&path, node, None, report)),
            "working_dir" => spec.working_dir = Some(report.text(&path, node)),
            "ports" => {
                for item in report.list(&path, node) {
                    spec.ports.extend(place::port(&path, item, report));
                }
            }
            "volumes" => {
                for item in report.list(&path, node) {
                    let mount = place::mount(&path, item, self.volumes, report);
                    spec.volumes.extend(mount);
                }
            }
            "secrets" => {
                for item in report.list(&path, node) {
                    let mount = super::secrets::mount(&path, item, self.secrets, report);
                    spec.secrets.extend(mount);
                }
            }
            "healthcheck" => spec.health = health(&path, node, report),
            "restart" if has(fields, "deploy", "restart_policy") => {
                report.note(key.line, &path, "deploy.restart_policy stands in its place");
            }
            "restart" => restart(&path, node, spec, report),
            "stop_signal" if matches!(node.text(), Some("SIGTERM" | "TERM" | "15")) => {}
            "stop_signal" => {
                report.unsupported(key.line, &path, "a task is told to end by SIGTERM");
            }
            _ => self.amount(&path, key, node),
        }
    }

    /// Keys that are one number; and all others.
    fn amount(&mut self, path: &str, key: &Key, node: &Node) {
        let (spec, report) = (&mut self.spec, &mut *self.report);
        let resources = &mut spec.resources;
        match key.name.as_str() {
            "stop_grace_period" => {
                let grace = report.parsed(path, node, time_ms);
                spec.stop_grace_ms = grace.unwrap_or(spec.stop_grace_ms);
            }
            "scale" => spec.replicas = report.number(path, node).unwrap_or(spec.replicas),
            "cpus" => resources.limits.cpu_milli = report.parsed(path, node, cpu).unwrap_or(0),
            "mem_limit" => {
                resources.limits.memory_bytes = report.parsed(path, node, bytes).unwrap_or(0);
            }
            "mem_reservation" => {
                let set_aside = report.parsed(path, node, bytes);
                resources.reservations.memory_bytes = set_aside.unwrap_or(0);
            }
            other if other.starts_with("x-") => {}
            other => match UNSUPPORTED.iter().find(|(name, _)| *name == other) {
                Some((_, why)) => report.unsupported(key.line, path, why),
                None => report.unknown(key, path),
            },
        }
    }

    /// Puts entrypoint and command together: here a command is the whole program.
    fn finish(self, line: usize) -> Spec {
        let mut spec = self.spec;
        let entrypoint = self.entrypoint;
        let parts = (
            spec.image.is_some(),
            entrypoint.is_empty(),
            spec.command.is_empty(),
        );
        match parts {
            (true, true, false) => {
                let why = "`command` takes the place of the image's whole program, its entrypoint included";
                self.report.note(line, &self.path, why);
            }
            (false, true, true) => {
                let why = "has no image, and no command to run without one";
                self.report.wrong(line, &self.path, why);
            }
            _ => {}
        }
        let command = std::mem::take(&mut spec.command);
        spec.command = entrypoint.into_iter().chain(command).collect();
        spec
    }
}

/// Whether a map has a map with a key.
fn has(fields: &[(Key, Node)], outer: &str, inner: &str) -> bool {
    let found = fields.iter().find(|(key, _)| key.name == outer);
    match found.map(|(_, node)| &node.value) {
        Some(Value::Map(fields)) => fields.iter().any(|(key, _)| key.name == inner),
        _ => false,
    }
}

fn restart(path: &str, node: &Node, spec: &mut Spec, report: &mut Report) {
    let text = report.text(path, node);
    let (word, count) = text.split_once(':').unwrap_or((&text, ""));
    spec.restart.condition = match word {
        "no" => RestartCondition::Never,
        "always" => RestartCondition::Always,
        "unless-stopped" => {
            report.note(node.line, path, "taken as always");
            RestartCondition::Always
        }
        "on-failure" => RestartCondition::OnFailure,
        _ => {
            let why = "takes no, always, on-failure[:N] or unless-stopped";
            return report.wrong(node.line, path, why);
        }
    };
    if !count.is_empty() {
        match count.parse() {
            Ok(count) => spec.restart.attempts_max = count,
            Err(_) => report.wrong(node.line, path, "the number of restarts is no number"),
        }
    }
}

fn health(path: &str, node: &Node, report: &mut Report) -> Option<Health> {
    let mut test = None;
    let mut disabled = false;
    let mut health = Health::new(HealthCheck::Exec {
        command: Vec::new(),
    });
    let fields = report.map(path, node);
    for (key, node) in fields {
        let path = format!("{path}.{}", key.name);
        match key.name.as_str() {
            "test" => test = Some(check(&path, node, report)),
            "interval" => keep(&mut health.interval_ms, report.parsed(&path, node, time_ms)),
            "timeout" => keep(&mut health.timeout_ms, report.parsed(&path, node, time_ms)),
            "start_period" => {
                let period = report.parsed(&path, node, time_ms);
                keep(&mut health.start_period_ms, period);
            }
            "retries" => keep(&mut health.retries, report.number(&path, node)),
            "disable" => disabled = node.switch().unwrap_or(true),
            "start_interval" => {
                let why = "checks come fast by themselves until the first succeeds";
                report.unsupported(key.line, &path, why);
            }
            other if other.starts_with("x-") => {}
            _ => report.unknown(key, &path),
        }
    }
    if test.is_none() && !disabled {
        let why = "a check of the image's own: write its `test`";
        report.unsupported(node.line, path, why);
    }
    health.check = HealthCheck::Exec {
        command: test.flatten().filter(|_| !disabled)?,
    };
    Some(health)
}

fn keep<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// The command of `test`; nothing for `NONE`, and for what is wrong.
fn check(path: &str, node: &Node, report: &mut Report) -> Option<Vec<String>> {
    let shell = |line: &str| ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    let Value::List(items) = &node.value else {
        let line = report.text(path, node);
        return Some(shell(&line));
    };
    let words: Vec<String> = items.iter().map(|item| report.text(path, item)).collect();
    match words.first().map(String::as_str) {
        Some("NONE") => None,
        Some("CMD") if words.len() > 1 => Some(words[1..].to_vec()),
        Some("CMD-SHELL") if words.len() == 2 => Some(shell(&words[1])),
        _ => {
            let why = "begins with NONE, CMD and words, or CMD-SHELL and one line";
            report.wrong(node.line, path, why);
            None
        }
    }
}
