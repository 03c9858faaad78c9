//! What is wrong with a specification, all of it at once, in words for whoever wrote it.
//!
//! Pure, and asked wherever a specification comes in: by the command line before it is sent, and by every manager before it takes
//! effect. Bounds are here too, so that no number of a specification can overflow a sum of times.

use super::Spec;
use super::spec::{Amounts, Health, HealthCheck};
use crate::scheduler::constraint::Constraint;
use std::collections::BTreeSet;

/// Most copies of a service.
pub const REPLICAS_MAX: u32 = 10_000;
/// Longest name of a service, volume or worker, characters.
pub const NAME_LEN_MAX: usize = 63;
/// Longest time that a specification may name, milliseconds: 366 days.
pub const TIME_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Most entries of a list in a specification: constraints, spread labels, volumes, ports, canary steps.
pub const LIST_LEN_MAX: usize = 64;

impl Spec {
    /// Nothing, or everything that is wrong, one sentence each.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        if let Err(fault) = name("the service's name", &self.name) {
            faults.push(fault);
        }
        self.check_program(&mut faults);
        self.check_amounts(&mut faults);
        self.check_times(&mut faults);
        if let Some(health) = &self.health {
            check_health(health, &mut faults);
        }
        self.check_update(&mut faults);
        self.check_placement(&mut faults);
        self.check_volumes(&mut faults);
        self.check_secrets(&mut faults);
        self.check_ports(&mut faults);
        if self.labels.keys().any(String::is_empty) {
            faults.push("`labels` has an empty name: name each, or leave it out".to_owned());
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults),
        }
    }

    fn check_program(&self, faults: &mut Vec<String>) {
        let mut fault = |text: &str| faults.push(text.to_owned());
        match &self.image {
            None if self.command.is_empty() => {
                fault("it has neither `image` nor `command`: say what is to run");
            }
            Some(image) if image.is_empty() || image.contains(char::is_whitespace) => {
                let image = image.escape_debug();
                fault(&format!(
                    "`image` is `{image}`: it must be a name without spaces, such as web:1 or registry.example/web:1"
                ));
            }
            _ => {}
        }
        if self.command.first().is_some_and(String::is_empty) {
            fault("`command` begins with an empty word: its first is the program");
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            fault("`command` has a zero byte: no program can be given one");
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                let key = key.escape_debug();
                fault(&format!(
                    "`env` has the name `{key}`: a name must not be empty or have `=`, and neither name nor value a zero byte"
                ));
                break;
            }
        }
        if self.working_dir.as_ref().is_some_and(|dir| dir.is_empty()) {
            fault("`working_dir` is empty: leave it out");
        }
    }

    fn check_amounts(&self, faults: &mut Vec<String>) {
        if self.replicas > REPLICAS_MAX {
            faults.push(format!(
                "`replicas` is {}: at most {REPLICAS_MAX}",
                self.replicas
            ));
        }
        let Amounts {
            cpu_milli,
            memory_bytes,
        } = self.resources.limits;
        let reserved = self.resources.reservations;
        if cpu_milli > 0 && reserved.cpu_milli > cpu_milli {
            faults.push(format!(
                "`resources.reservations.cpu_milli` is {}, above `resources.limits.cpu_milli` of {cpu_milli}: at most that",
                reserved.cpu_milli
            ));
        }
        if memory_bytes > 0 && reserved.memory_bytes > memory_bytes {
            faults.push(format!(
                "`resources.reservations.memory_bytes` is {}, above `resources.limits.memory_bytes` of {memory_bytes}: at most that",
                reserved.memory_bytes
            ));
        }
    }

    fn check_times(&self, faults: &mut Vec<String>) {
        let (restart, update) = (&self.restart, &self.update);
        for (what, ms) in [
            ("stop_grace_ms", self.stop_grace_ms),
            ("restart.delay_ms", restart.delay_ms),
            ("restart.delay_max_ms", restart.delay_max_ms),
            ("restart.window_ms", restart.window_ms),
            ("update.delay_ms", update.delay_ms),
            ("update.monitor_ms", update.monitor_ms),
            ("update.progress_ms", update.progress_ms),
            ("update.canary_window_ms", update.canary_window_ms),
        ] {
            not_too_long(what, ms, faults);
        }
        if restart.delay_max_ms < restart.delay_ms {
            faults.push(format!(
                "`restart.delay_max_ms` is {}, below `restart.delay_ms` of {}: it is the longest pause, so at least as long",
                restart.delay_max_ms, restart.delay_ms
            ));
        }
    }

    fn check_update(&self, faults: &mut Vec<String>) {
        let update = &self.update;
        let stands = update.surge_max == 0 && update.unavailable_max == 0;
        // With a single writer it is stop-first, which means one at least.
        if stands && !self.is_single_writer() {
            faults.push(
                "`update.surge_max` and `update.unavailable_max` are both 0: no rollout could begin; one of them must be 1 or more"
                    .to_owned(),
            );
        }
        if update.failures_max_percent > 100 {
            let percent = update.failures_max_percent;
            faults.push(format!(
                "`update.failures_max_percent` is {percent}: at most 100"
            ));
        }
        let steps = &update.canary_percent;
        let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
        let within = steps.iter().all(|step| (1..=100).contains(step));
        if !rising || !within {
            faults.push(format!(
                "`update.canary_percent` is {steps:?}: it must rise, from 1 to 100, such as [10, 50]"
            ));
        }
    }

    fn check_placement(&self, faults: &mut Vec<String>) {
        let placement = &self.placement;
        not_too_many("constraints", placement.constraints.len(), faults);
        not_too_many("spread", placement.spread.len(), faults);
        for text in &placement.constraints {
            if let Err(fault) = Constraint::parse(text) {
                faults.push(fault);
            }
        }
        let is_bad = |label: &String| label.is_empty() || label.contains(char::is_whitespace);
        if placement.spread.iter().any(is_bad) {
            faults.push(
                "`placement.spread` has a label that is empty or has spaces: name labels of workers, such as zone"
                    .to_owned(),
            );
        }
    }

    fn check_volumes(&self, faults: &mut Vec<String>) {
        not_too_many("volumes", self.volumes.len(), faults);
        let (mut names, mut targets) = (BTreeSet::new(), BTreeSet::new());
        for mount in &self.volumes {
            if let Err(fault) = name("the volume's name", &mount.volume) {
                faults.push(fault);
            }
            if !names.insert(&mount.volume) {
                faults.push(format!(
                    "volume `{}` is mounted twice: a task mounts it once",
                    mount.volume
                ));
            }
            let target = &mount.target;
            if !target.starts_with('/') || target.contains('\0') {
                faults.push(format!(
                    "volume `{}` has the target `{target}`: it must be a path from `/`",
                    mount.volume
                ));
            } else if !targets.insert(target) {
                faults.push(format!(
                    "two volumes have the target `{target}`: give each its own"
                ));
            }
        }
    }

    fn check_secrets(&self, faults: &mut Vec<String>) {
        not_too_many("secrets", self.secrets.len(), faults);
        let mut targets = BTreeSet::new();
        for mount in &self.secrets {
            let (name, target) = (mount.secret.escape_debug(), &mount.target);
            if let Err(fault) = secret_name(&mount.secret) {
                faults.push(fault);
            }
            if secret_name(target).is_err() {
                faults.push(format!(
                    "secret `{name}` has the target `{}`: it must be the name of a file, without `/`",
                    target.escape_debug()
                ));
            } else if !targets.insert(target) {
                faults.push(format!(
                    "two secrets have the target `{target}`: give each its own file"
                ));
            }
            if mount.mode & !0o777 != 0 || mount.mode & 0o400 == 0 {
                faults.push(format!(
                    "secret `{name}` has the mode {:o} (octal): its owner must read it, and 777 is the most",
                    mount.mode
                ));
            }
        }
    }

    fn check_ports(&self, faults: &mut Vec<String>) {
        not_too_many("ports", self.ports.len(), faults);
        let mut hosts = BTreeSet::new();
        for port in &self.ports {
            if port.host == 0 {
                faults.push("a port of the worker is 0: name one from 1 to 65535".to_owned());
            } else if !hosts.insert(port.host) {
                faults.push(format!(
                    "`ports` has port {} of the worker twice: name each once",
                    port.host
                ));
            }
        }
    }
}

fn check_health(health: &Health, faults: &mut Vec<String>) {
    for (what, ms) in [
        ("health.interval_ms", health.interval_ms),
        ("health.timeout_ms", health.timeout_ms),
    ] {
        if ms == 0 {
            faults.push(format!("`{what}` is 0: it must be 1 to {TIME_MS_MAX}"));
        }
        not_too_long(what, ms, faults);
    }
    not_too_long("health.start_period_ms", health.start_period_ms, faults);
    if health.retries == 0 {
        faults.push("`health.retries` is 0: it must be 1 or more".to_owned());
    }
    let fault = match &health.check {
        HealthCheck::Http { port: 0, .. } => {
            "`health.check.http.port` is 0: it must be 1 to 65535".to_owned()
        }
        HealthCheck::Tcp { port: 0 } => {
            "`health.check.tcp.port` is 0: it must be 1 to 65535".to_owned()
        }
        HealthCheck::Http { path, .. }
            if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control()) =>
        {
            let path = path.escape_debug();
            format!(
                "`health.check.http.path` is `{path}`: it must begin with `/` and have no control characters"
            )
        }
        HealthCheck::Exec { command } if command.first().is_none_or(String::is_empty) => {
            "`health.check.exec.command` names no program: its first word is one".to_owned()
        }
        _ => return,
    };
    faults.push(fault);
}

fn not_too_long(what: &str, ms: u64, faults: &mut Vec<String>) {
    if ms > TIME_MS_MAX {
        faults.push(format!("`{what}` is {ms}: at most {TIME_MS_MAX} (a year)"));
    }
}

fn not_too_many(what: &str, count: usize, faults: &mut Vec<String>) {
    if count > LIST_LEN_MAX {
        faults.push(format!(
            "`{what}` has {count} entries: at most {LIST_LEN_MAX}"
        ));
    }
}

/// Whether `text` is a name as services and volumes have it; `what` begins the sentence that says what is wrong.
pub fn name(what: &str, text: &str) -> Result<(), String> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = !text.starts_with('-') && !text.ends_with('-');
    if (1..=NAME_LEN_MAX).contains(&text.len()) && edge && text.chars().all(known) {
        return Ok(());
    }
    Err(format!(
        "{what} is `{}`: it must be 1 to {NAME_LEN_MAX} of a-z, 0-9 and -, with a letter or digit at both ends",
        text.escape_debug()
    ))
}

/// Whether `text` is a name as secrets have it. It becomes the name of a file.
pub fn secret_name(text: &str) -> Result<(), String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if (1..=NAME_LEN_MAX).contains(&text.len()) && begins && text.chars().all(known) {
        return Ok(());
    }
    Err(format!(
        "the secret's name is `{}`: it must be 1 to {NAME_LEN_MAX} letters, digits, `-`, `_` or `.`, the first a letter or digit",
        text.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::spec::{Mount, Port};

    fn faults(change: impl FnOnce(&mut Spec)) -> String {
        let mut spec = Spec::new("web", &["run"]);
        change(&mut spec);
        spec.check()
            .map_or_else(|all| all.join("; "), |()| String::new())
    }

    fn mount(volume: &str, target: &str) -> Mount {
        Mount {
            volume: volume.to_owned(),
            target: target.to_owned(),
            shared: false,
        }
    }

    #[test]
    fn a_plain_specification_is_right() {
        assert_eq!(faults(|_| ()), "");
        assert_eq!(faults(|spec| spec.name = "a".repeat(63)), "");
        assert_eq!(faults(|spec| spec.replicas = 0), "");
        assert_eq!(faults(|spec| spec.update.canary_percent = vec![1, 100]), "");
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["", "Web", "a.b", "-a", "a-", "ä", "a b", &"a".repeat(64)] {
            let says = faults(|spec| spec.name = name.to_owned());
            assert!(says.contains("1 to 63"), "{name}: {says}");
        }
    }

    #[test]
    fn each_fault_is_named() {
        type Change = fn(&mut Spec);
        let cases: [(Change, &str); 19] = [
            (|s| s.command.clear(), "neither `image` nor `command`"),
            (
                |s| s.image = Some("a b".to_owned()),
                "`image` is `a b`: it must be",
            ),
            (|s| s.command = vec![String::new()], "empty word"),
            (
                |s| drop(s.env.insert("a=b".to_owned(), String::new())),
                "`env`",
            ),
            (|s| s.replicas = 10_001, "at most 10000"),
            (|s| s.stop_grace_ms = u64::MAX, "`stop_grace_ms`"),
            (|s| s.restart.delay_max_ms = 1, "below `restart.delay_ms`"),
            (|s| s.update.surge_max = 0, "no rollout could begin"),
            (|s| s.update.failures_max_percent = 101, "at most 100"),
            (|s| s.update.canary_percent = vec![50, 50], "it must rise"),
            (|s| s.update.canary_percent = vec![0, 50], "from 1 to 100"),
            (
                |s| s.placement.constraints = vec!["a".to_owned()],
                "no == or !=",
            ),
            (
                |s| s.placement.spread = vec![String::new()],
                "`placement.spread`",
            ),
            (|s| s.volumes = vec![mount("A", "/a")], "volume's name"),
            (|s| s.volumes = vec![mount("a", "a")], "path from `/`"),
            (
                |s| s.volumes = vec![mount("a", "/a"), mount("a", "/b")],
                "twice",
            ),
            (
                |s| s.volumes = vec![mount("a", "/a"), mount("b", "/a")],
                "two volumes",
            ),
            (|s| s.ports = vec![Port { host: 0, target: 1 }], "is 0"),
            (
                |s| s.ports = vec![Port { host: 1, target: 1 }; 2],
                "port 1 of the worker twice",
            ),
        ];
        for (change, says) in cases {
            let found = faults(change);
            assert!(found.contains(says), "{says}: {found}");
        }
    }

    #[test]
    fn a_single_writer_needs_no_surge() {
        let says = faults(|spec| {
            spec.update.surge_max = 0;
            spec.volumes = vec![mount("data", "/data")];
        });
        assert_eq!(says, "");
    }

    #[test]
    fn everything_is_said_at_once() {
        let says = faults(|spec| {
            spec.name.clear();
            spec.command.clear();
        });
        assert!(says.contains("name") && says.contains("neither"), "{says}");
    }
}
