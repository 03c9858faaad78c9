//! The JSON schemas of orchestration. Tests hold real answers against them.

use super::schemas::{
    Field, Group, fresh, id, join, list, named, number, object, place, reference, switch, text,
    words,
};
use crate::service::State;
use serde_json::{Value, json};

/// What joins by a token.
const TOKEN_ROLES: [&str; 2] = ["worker", "manager"];

/// Every group of them.
pub(super) fn groups() -> [Group; 5] {
    [specs(), services(), nodes(), small(), stories()]
}

/// Text by text.
fn map() -> Value {
    json!({ "type": "object", "additionalProperties": text() })
}

/// Words, or other texts.
fn texts() -> Value {
    json!({ "type": "array", "items": text() })
}

fn numbers() -> Value {
    json!({ "type": "array", "items": number() })
}

fn integer() -> Value {
    json!({ "type": "integer" })
}

fn spec() -> Vec<Field> {
    vec![
        ("name", text()),
        ("mode?", words(&["replicated", "global"])),
        ("replicas?", number()),
        ("image?", text()),
        ("command?", texts()),
        ("env?", map()),
        ("working_dir?", text()),
        ("resources?", reference("Resources")),
        ("health?", reference("HealthCheck")),
        ("restart?", reference("RestartPolicy")),
        ("update?", reference("UpdatePolicy")),
        ("stop_grace_ms?", number()),
        ("placement?", reference("Placement")),
        ("volumes?", list("Mount")),
        ("secrets?", list("SecretMount")),
        ("ports?", list("Port")),
        ("labels?", map()),
    ]
}

fn specs() -> Group {
    let amounts = vec![("cpu_milli?", number()), ("memory_bytes?", number())];
    let resources = vec![
        ("limits?", reference("Amounts")),
        ("reservations?", reference("Amounts")),
    ];
    let placement = vec![
        ("constraints?", texts()),
        ("spread?", texts()),
        ("replicas_per_node_max?", number()),
        ("rebalance?", words(&["manual", "on-join"])),
    ];
    let mount = vec![
        ("volume", text()),
        ("target", text()),
        ("shared?", switch()),
    ];
    let secret = vec![("secret", text()), ("target?", text()), ("mode?", number())];
    let port = vec![("host", number()), ("target?", number())];
    vec![
        named("Spec", object(spec())),
        named("Amounts", object(amounts)),
        named("Resources", object(resources)),
        named("HealthCheck", object(health())),
        named("RestartPolicy", object(restart())),
        named("UpdatePolicy", object(update())),
        named("Placement", object(placement)),
        named("Mount", object(mount)),
        named("SecretMount", object(secret)),
        named("Port", object(port)),
    ]
}

fn health() -> Vec<Field> {
    let http = object(vec![("port", number()), ("path", text())]);
    let tcp = object(vec![("port", number())]);
    let exec = object(vec![("command", texts())]);
    let check = super::schemas::one_of(vec![("http", http), ("tcp", tcp), ("exec", exec)]);
    vec![
        ("check", check),
        ("interval_ms?", number()),
        ("timeout_ms?", number()),
        ("retries?", number()),
        ("start_period_ms?", number()),
    ]
}

fn restart() -> Vec<Field> {
    vec![
        ("condition?", words(&["never", "on-failure", "always"])),
        ("delay_ms?", number()),
        ("delay_max_ms?", number()),
        ("attempts_max?", number()),
        ("window_ms?", number()),
    ]
}

fn update() -> Vec<Field> {
    vec![
        ("order?", words(&["start-first", "stop-first"])),
        ("surge_max?", number()),
        ("unavailable_max?", number()),
        ("delay_ms?", number()),
        ("monitor_ms?", number()),
        ("progress_ms?", number()),
        ("failures_max_percent?", number()),
        ("on_failure?", words(&["pause", "continue", "rollback"])),
        ("canary_percent?", numbers()),
        ("canary_window_ms?", number()),
    ]
}

fn service() -> Vec<Field> {
    vec![
        ("id", number()),
        ("name", text()),
        ("version", number()),
        ("contents", number()),
        ("mode", words(&["replicated", "global"])),
        ("wanted", number()),
        ("running", number()),
        ("updated", number()),
        ("complete", number()),
        (
            "tasks",
            json!({ "type": "object", "additionalProperties": number() }),
        ),
        ("converged", switch()),
        ("removing", switch()),
        ("rebalancing", switch()),
        ("rollout", reference("Rollout")),
        ("previous_version?", number()),
        ("created_ms", number()),
        ("updated_ms", number()),
        ("spec", reference("Spec")),
    ]
}

fn task() -> Vec<Field> {
    let states = json!({ "type": "string", "enum": State::ALL });
    vec![
        ("id", number()),
        ("service", text()),
        ("service_id", number()),
        ("slot", number()),
        ("version", number()),
        ("node?", text()),
        ("node_id?", number()),
        ("state", states),
        ("desired", words(&["run", "stop", "remove"])),
        ("node_silent_ms?", number()),
        ("lost_ms?", number()),
        ("created_ms", number()),
        ("assigned_ms?", number()),
        ("changed_ms", number()),
        ("running_since_ms?", number()),
        ("attempts", number()),
        ("exit?", reference("Exit")),
        ("message?", text()),
    ]
}

fn services() -> Group {
    let phases = [
        "none",
        "running",
        "paused",
        "completed",
        "rolling_back",
        "rolled_back",
    ];
    let rollout = vec![
        ("phase", words(&phases)),
        ("started_ms", number()),
        ("failures", number()),
        ("canary", number()),
    ];
    let written = vec![("id", number()), ("name", text()), ("version", number())];
    let exit = vec![
        ("code?", integer()),
        ("signal?", integer()),
        ("oom", switch()),
    ];
    vec![
        named("Rollout", object(rollout)),
        named("Service", object(service())),
        named("ServiceWritten", join(vec![place(), written])),
        named("ServiceAnswer", join(vec![service(), fresh()])),
        named(
            "ServicesAnswer",
            join(vec![vec![("services", list("Service"))], fresh()]),
        ),
        named("ScaleRequest", object(vec![("replicas", number())])),
        named("Exit", object(exit)),
        named("Task", object(task())),
        named("TaskAnswer", join(vec![task(), fresh()])),
        named(
            "TasksAnswer",
            join(vec![vec![("tasks", list("Task"))], fresh()]),
        ),
    ]
}

fn node() -> Vec<Field> {
    let statuses = [
        "joining",
        "ready",
        "down",
        "leader",
        "follower",
        "candidate",
        "learner",
    ];
    vec![
        ("name", text()),
        ("role", words(&["manager", "worker"])),
        ("id", number()),
        ("status", words(&statuses)),
        ("address", text()),
        ("worker?", reference("Worker")),
    ]
}

fn nodes() -> Group {
    let worker = vec![
        ("availability", words(&["active", "drain"])),
        ("platform", text()),
        ("containers", switch()),
        ("labels", map()),
        ("capacity", reference("Amounts")),
        ("reserved", reference("Amounts")),
        ("tasks", number()),
        ("epoch", number()),
        ("joined_ms", number()),
        ("changed_ms", number()),
        ("heard_ms_ago?", number()),
        ("suspected", switch()),
    ];
    // A label is set to a text, or removed by null.
    let labels =
        json!({ "type": "object", "additionalProperties": { "type": ["string", "null"] } });
    vec![
        named("Worker", object(worker)),
        named("Node", object(node())),
        named(
            "NodeAnswer",
            join(vec![node(), vec![("tasks", list("Task"))], fresh()]),
        ),
        named(
            "NodesAnswer",
            join(vec![vec![("nodes", list("Node"))], fresh()]),
        ),
        named("LabelsRequest", object(vec![("labels", labels)])),
    ]
}

fn small() -> Group {
    let volume = || {
        vec![
            ("name", text()),
            ("node?", text()),
            ("node_id?", number()),
            ("node_removed", switch()),
            ("services", texts()),
            ("tasks", numbers()),
        ]
    };
    let secret = || {
        vec![
            ("name", text()),
            ("version", number()),
            ("bytes", number()),
            ("created_ms", number()),
            ("updated_ms", number()),
            ("readable", switch()),
            ("services", texts()),
            ("tasks", list("SecretUse")),
        ]
    };
    let token = vec![
        ("id", number()),
        ("created_ms", number()),
        ("expires_ms", number()),
        ("role", words(&TOKEN_ROLES)),
        ("used", number()),
    ];
    let made = vec![
        ("role", words(&TOKEN_ROLES)),
        ("token", text()),
        ("expires_ms", number()),
    ];
    let wanted = vec![("role?", words(&TOKEN_ROLES)), ("ttl_ms?", number())];
    vec![
        named(
            "VolumeRequest",
            object(vec![("name", text()), ("node?", text())]),
        ),
        named("Volume", object(volume())),
        named("VolumeAnswer", join(vec![volume(), fresh()])),
        named(
            "VolumesAnswer",
            join(vec![vec![("volumes", list("Volume"))], fresh()]),
        ),
        named(
            "SecretRequest",
            object(vec![("name", text()), ("value", text())]),
        ),
        named("SecretValue", object(vec![("value", text())])),
        named(
            "SecretWritten",
            join(vec![place(), vec![("name", text()), ("version", number())]]),
        ),
        named(
            "SecretUse",
            object(vec![("task", number()), ("version", number())]),
        ),
        named("Secret", object(secret())),
        named("SecretAnswer", join(vec![secret(), fresh()])),
        named(
            "SecretsAnswer",
            join(vec![vec![("secrets", list("Secret"))], fresh()]),
        ),
        named("TokenRequest", object(wanted)),
        named("TokenMade", join(vec![place(), id(), made])),
        named("Token", object(token)),
        named(
            "TokensAnswer",
            join(vec![vec![("tokens", list("Token"))], fresh()]),
        ),
    ]
}

fn stories() -> Group {
    let event = vec![
        ("index", number()),
        ("number", number()),
        ("time_ms", number()),
        ("kind", text()),
        ("service?", text()),
        ("service_id?", number()),
        ("task?", number()),
        ("node?", text()),
        ("node_id?", number()),
        ("message", text()),
    ];
    let events = vec![("events", list("Event")), ("more", switch())];
    let explained = vec![
        ("summary", texts()),
        ("tasks", list("TaskExplained")),
        ("events", list("Event")),
    ];
    let why = vec![
        ("why", text()),
        ("nodes?", list("Unfit")),
        ("events", list("Event")),
    ];
    let logs = vec![
        ("task", number()),
        ("node", text()),
        ("from_offset", number()),
        ("next_offset", number()),
        ("text?", text()),
        ("text_base64?", text()),
    ];
    let unfit = vec![("node", text()), ("reason", text())];
    vec![
        named("Event", object(event)),
        named("EventsAnswer", join(vec![events, fresh()])),
        named("Unfit", object(unfit)),
        named("TaskExplained", join(vec![task(), why])),
        named("ExplainAnswer", join(vec![explained, fresh()])),
        named("LogsAnswer", object(logs)),
        named("NodePlan", object(node_plan())),
        named("Waiting", object(vec![("slot", number()), ("why", text())])),
        named("PlanAnswer", join(vec![plan(), fresh()])),
    ]
}

fn node_plan() -> Vec<Field> {
    vec![
        ("node", text()),
        ("before", number()),
        ("after", number()),
        ("starts", number()),
        ("stops", number()),
    ]
}

fn plan() -> Vec<Field> {
    vec![
        ("service", text()),
        ("action", words(&["create", "update", "none"])),
        ("version", number()),
        ("rollout", switch()),
        ("starts", number()),
        ("stops", number()),
        ("others", number()),
        ("nodes", list("NodePlan")),
        ("waiting", list("Waiting")),
        ("takes_ms", number()),
        ("complete", switch()),
    ]
}
