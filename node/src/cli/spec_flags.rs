//! What flags say of a service, said to its specification.

use super::args_fleet::SpecFlags;
use super::exit::Error;
use crate::service::Spec;
use crate::service::spec::{
    Health, HealthCheck, Mode, OnFailure, Order, Port, Rebalance, RestartCondition,
};
use std::time::Duration;

/// Changes `spec` as `flags` say; what they do not name stays.
pub(super) fn apply(flags: &SpecFlags, spec: &mut Spec) -> Result<(), Error> {
    what(flags, spec);
    place(flags, spec);
    health(flags, spec)?;
    ends(flags, spec);
    rollout(flags, spec);
    Ok(())
}

fn what(flags: &SpecFlags, spec: &mut Spec) {
    if let Some(image) = &flags.image {
        spec.image = Some(image.clone());
    }
    set(&mut spec.replicas, flags.replicas);
    set(&mut spec.mode, flags.mode.as_deref().map(mode));
    if let Some(dir) = &flags.workdir {
        spec.working_dir = Some(dir.clone());
    }
    if !flags.command.is_empty() {
        spec.command.clone_from(&flags.command);
    }
    spec.env.extend(flags.env.iter().cloned());
    spec.env.retain(|key, _| !flags.env_rm.contains(key));
    spec.labels.extend(flags.label.iter().cloned());
    spec.labels.retain(|key, _| !flags.label_rm.contains(key));
}

fn place(flags: &SpecFlags, spec: &mut Spec) {
    if !flags.publish.is_empty() {
        let ports = flags.publish.iter();
        spec.ports = ports.map(|&(host, target)| Port { host, target }).collect();
    }
    replace(&mut spec.volumes, &flags.volume);
    replace(&mut spec.secrets, &flags.secret);
    replace(&mut spec.placement.constraints, &flags.constraint);
    replace(&mut spec.placement.spread, &flags.spread);
    set(
        &mut spec.placement.replicas_per_node_max,
        flags.max_per_node,
    );
    let rebalance = flags.rebalance.as_deref().map(|word| match word {
        "on-join" => Rebalance::OnJoin,
        _ => Rebalance::Manual,
    });
    set(&mut spec.placement.rebalance, rebalance);
    let resources = &mut spec.resources;
    set(&mut resources.reservations.cpu_milli, flags.reserve_cpu);
    set(
        &mut resources.reservations.memory_bytes,
        flags.reserve_memory,
    );
    set(&mut resources.limits.cpu_milli, flags.limit_cpu);
    set(&mut resources.limits.memory_bytes, flags.limit_memory);
}

fn health(flags: &SpecFlags, spec: &mut Spec) -> Result<(), Error> {
    if flags.no_health {
        spec.health = None;
    }
    if let Some(check) = check(flags)? {
        match &mut spec.health {
            Some(health) => health.check = check,
            None => spec.health = Some(Health::new(check)),
        }
    }
    let times = [
        flags.health_interval,
        flags.health_timeout,
        flags.health_start_period,
    ];
    let named = times.iter().any(Option::is_some) || flags.health_retries.is_some();
    match &mut spec.health {
        Some(health) => {
            set(&mut health.interval_ms, flags.health_interval.map(ms));
            set(&mut health.timeout_ms, flags.health_timeout.map(ms));
            set(
                &mut health.start_period_ms,
                flags.health_start_period.map(ms),
            );
            set(&mut health.retries, flags.health_retries);
            Ok(())
        }
        None if named => Err(Error::usage(
            "the service has no health check to which these numbers belong",
            "add --health-http, --health-tcp or --health-cmd",
        )),
        None => Ok(()),
    }
}

/// The check that the flags name.
fn check(flags: &SpecFlags) -> Result<Option<HealthCheck>, Error> {
    if let Some((port, path)) = flags.health_http.clone() {
        return Ok(Some(HealthCheck::Http { port, path }));
    }
    if let Some(port) = flags.health_tcp {
        return Ok(Some(HealthCheck::Tcp { port }));
    }
    let Some(line) = &flags.health_cmd else {
        return Ok(None);
    };
    let command: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        let hint = "name a program, such as --health-cmd \"./check --fast\"";
        return Err(Error::usage("--health-cmd is empty", hint));
    }
    Ok(Some(HealthCheck::Exec { command }))
}

fn ends(flags: &SpecFlags, spec: &mut Spec) {
    let condition = flags.restart.as_deref().map(|word| match word {
        "never" => RestartCondition::Never,
        "on-failure" => RestartCondition::OnFailure,
        _ => RestartCondition::Always,
    });
    set(&mut spec.restart.condition, condition);
    set(&mut spec.restart.delay_ms, flags.restart_delay.map(ms));
    set(&mut spec.restart.attempts_max, flags.restart_attempts);
    // A first pause above the longest one would make no sense.
    let delay_ms = spec.restart.delay_ms;
    spec.restart.delay_max_ms = spec.restart.delay_max_ms.max(delay_ms);
    set(&mut spec.stop_grace_ms, flags.stop_grace.map(ms));
}

fn rollout(flags: &SpecFlags, spec: &mut Spec) {
    let update = &mut spec.update;
    let order = flags.update_order.as_deref().map(|word| match word {
        "stop-first" => Order::StopFirst,
        _ => Order::StartFirst,
    });
    let on_failure = flags.update_on_failure.as_deref().map(|word| match word {
        "pause" => OnFailure::Pause,
        "continue" => OnFailure::Continue,
        _ => OnFailure::Rollback,
    });
    set(&mut update.order, order);
    set(&mut update.on_failure, on_failure);
    set(&mut update.surge_max, flags.update_surge);
    set(&mut update.unavailable_max, flags.update_unavailable);
    set(&mut update.delay_ms, flags.update_delay.map(ms));
    set(&mut update.monitor_ms, flags.update_monitor.map(ms));
    set(&mut update.failures_max_percent, flags.update_max_failures);
    replace(&mut update.canary_percent, &flags.update_canary);
}

fn mode(word: &str) -> Mode {
    match word {
        "global" => Mode::Global,
        _ => Mode::Replicated,
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn replace<T: Clone>(list: &mut Vec<T>, given: &[T]) {
    if !given.is_empty() {
        *list = given.to_vec();
    }
}

/// Whole milliseconds.
pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
