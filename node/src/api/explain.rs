//! Why the tasks of a service are as they are: where they wait, how they ended, what happened to them.

use super::call::{Call, json};
use super::fleet_wire::{ServiceInfo, TaskInfo, worker_name};
use super::services::{find, read, tasks_of};
use super::story_wire::{EventInfo, ExplainAnswer, TaskExplained, Unfit};
use crate::error::Error;
use crate::fleet::Fleet;
use crate::scheduler::model::{Leases, Moment, Phase, Service, Task};
use crate::scheduler::{self, Explanation};
use crate::service::{Desired, State};
use crate::types::NodeId;
use crate::worker::words::why;
use axum::response::Response;

/// Events told of one task, and of the service itself, the newest.
const EVENTS_TOLD_MAX: usize = 50;

/// A lease whose end nobody here knows, milliseconds: 34 years, so that no sum of times overflows.
const LEASE_MS: u64 = 1 << 40;

/// `GET /v1/services/{name}/explain`.
pub(super) async fn explain(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let (fleet, fresh) = read(&call).await?;
    let service = find(&fleet, &name)?;
    let moment = moment(call.api.clock.wall_ms().max(fleet.newest_ms()));
    let leaderless = call.api.handle.status().leader == NodeId(0);
    let tasks = tasks_of(&fleet, Some(service.id));
    let tasks: Vec<TaskExplained> = tasks
        .into_iter()
        .map(|task| task_explained(&fleet, &moment, service, task))
        .collect();
    let about = fleet.events.iter();
    let about =
        about.filter(|(_, event)| event.service == Some(service.id) && event.task.is_none());
    let events = newest(
        about
            .map(|(&key, event)| EventInfo::of(&fleet, key, event))
            .collect(),
    );
    json(&ExplainAnswer {
        summary: summary(&fleet, service, &tasks, leaderless),
        tasks,
        events,
        fresh,
    })
}

/// The moment to ask the scheduler for. Only the leader knows leases: here, a lost task may hold its volume still.
pub(super) fn moment(now_ms: u64) -> Moment {
    Moment {
        now_ms,
        leases: Leases {
            others_until_ms: LEASE_MS,
            ..Leases::default()
        },
        ..Moment::default()
    }
}

fn newest(mut events: Vec<EventInfo>) -> Vec<EventInfo> {
    let surplus = events.len().saturating_sub(EVENTS_TOLD_MAX);
    events.drain(..surplus);
    events
}

fn task_explained(fleet: &Fleet, moment: &Moment, service: &Service, task: &Task) -> TaskExplained {
    let waits = task.state == State::Pending && task.desired == Desired::Run;
    let explanation = scheduler::explain(&fleet.snapshot, moment, task.id);
    let explanation = explanation.filter(|_| waits);
    let info = TaskInfo::of(fleet, task);
    let why = match &explanation {
        Some(Explanation { summary, .. }) => format!("it waits for a node: {summary}"),
        None => story(service, task, &info),
    };
    let unfit = explanation.map(|explanation| explanation.workers);
    let nodes = unfit.into_iter().flatten().map(|(worker, reason)| Unfit {
        node: worker_name(fleet, worker),
        reason: reason.to_string(),
    });
    let events = fleet.events.iter();
    let events = events.filter(|(_, event)| event.task == Some(task.id));
    let events = events.map(|(&key, event)| EventInfo::of(fleet, key, event));
    TaskExplained {
        why,
        nodes: nodes.collect(),
        events: newest(events.collect()),
        task: info,
    }
}

/// What there is to say of a task that does not wait for a node.
fn story(service: &Service, task: &Task, info: &TaskInfo) -> String {
    let node = info.node.as_deref().unwrap_or("no node");
    let mut text = match task.state {
        State::Pending => "it was taken back before it had a node".to_owned(),
        State::Assigned => format!("{node} has not said that it knows of it"),
        State::Preparing => format!("{node} fetches what it needs"),
        State::Starting => format!("its process runs on {node}, and its health is not known yet"),
        // Its state never goes back, so only the message tells that the process is gone.
        State::Running if !info.message.is_empty() => {
            format!(
                "it is between two attempts on {node} ({} so far)",
                info.attempts
            )
        }
        State::Running if info.attempts > 1 => {
            format!("it runs on {node}, attempt {}", info.attempts)
        }
        State::Running => format!("it runs on {node}"),
        State::Stopping => format!("it ends on {node}, within its grace period"),
        State::Complete => format!("it ended by itself on {node}"),
        State::Failed => format!("it failed on {node}"),
        State::Rejected => format!("{node} cannot run it"),
        State::Stopped => format!("it was stopped on {node}"),
    };
    let why = why(info.exit, &info.message);
    if !why.is_empty() {
        let runs = task.state == State::Running && info.message.is_empty();
        let whose = if runs { "; the one before " } else { ": " };
        text += &format!("{whose}{why}");
    }
    if task.is_lost() {
        text += &format!("; {node} is down, so it is presumed dead");
    }
    if task.version != service.current.contents && !task.state.is_end() {
        text += &format!(
            "; it has version {}, and version {} is wanted",
            task.version, service.current.contents
        );
    }
    if task.desired != Desired::Run && !task.state.is_end() {
        text += "; it was told to end";
    }
    text
}

fn summary(
    fleet: &Fleet,
    service: &Service,
    tasks: &[TaskExplained],
    leaderless: bool,
) -> Vec<String> {
    let info = ServiceInfo::of(fleet, service);
    let mut lines = vec![format!("{} of {} tasks run", info.running, info.wanted)];
    if leaderless {
        lines.push("no manager leads: nothing is decided until one does".to_owned());
    }
    if service.removing {
        lines.push("it is removed, and waits for the ends of its tasks".to_owned());
    }
    lines.extend(rollout(service));
    let waiting = tasks.iter().filter(|one| one.task.state == State::Pending);
    let mut reasons: Vec<&str> = waiting.map(|one| one.why.as_str()).collect();
    let waits = reasons.len();
    reasons.dedup();
    for reason in reasons {
        lines.push(format!("{waits} pending: {reason}"));
    }
    let unended = tasks.iter().filter(|one| !one.task.state.is_end());
    let unended = u64::try_from(unended.count()).unwrap_or(u64::MAX);
    let missing = info.wanted.saturating_sub(unended + info.complete);
    if missing > 0 && !service.removing {
        lines.push(match tasks.iter().find(|one| one.task.state == State::Failed) {
            Some(failed) => format!(
                "{missing} missing: after a failure another task follows after a pause, which doubles; task {}: {}",
                failed.task.id, failed.why
            ),
            None => format!("{missing} missing: the managers have not made them yet"),
        });
    }
    lines
}

/// Where the rollout stands, if there is anything to say.
fn rollout(service: &Service) -> Option<String> {
    let rollout = &service.rollout;
    let version = service.current.version;
    let failures = rollout.failures;
    Some(match rollout.phase {
        Phase::None | Phase::Completed => return None,
        Phase::Running => {
            format!("version {version} is rolled out; {failures} of its tasks failed")
        }
        Phase::Paused => format!(
            "the rollout of version {version} is paused after {failures} failures: continue it, roll it back, or update"
        ),
        Phase::RollingBack => format!("it goes back: version {version}"),
        Phase::RolledBack => format!("it went back: version {version}"),
    })
}
