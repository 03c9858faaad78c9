//! The JSON schemas of what workers and managers say to each other.

use super::schemas::{
    Field, Group, join, list, named, number, object, reference, switch, text, words,
};
use crate::service::State;
use serde_json::{Value, json};

/// Every one of them.
pub(super) fn meetings() -> Group {
    let replies = [welcome(), beat_reply(), acknowledged(), removed(), over()];
    let answer = vec![
        ("assignments?", reference("Assignments")),
        ("managers", texts()),
    ];
    vec![
        named("WorkerHello", hello_call()),
        named("Machine", machine()),
        named("Hello", hello()),
        named("Observation", object(observation())),
        named("WorkerBeat", beat()),
        named("WorkerReport", report()),
        named(
            "Report",
            join(vec![
                vec![("number", number()), ("task", number())],
                observation(),
            ]),
        ),
        named("WorkerReply", json!({ "oneOf": replies })),
        named("Assignments", assignments()),
        named("Assignment", assignment()),
        named("AssignmentsAnswer", object(answer)),
    ]
}

fn texts() -> Value {
    json!({ "type": "array", "items": text() })
}

/// An object of values by name.
fn map(of: Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

/// The tag of a body, which may be left out, or of an answer.
fn tag(name: &'static str, word: &str) -> Field {
    (name, words(&[word]))
}

fn state() -> Value {
    json!({ "type": "string", "enum": State::ALL })
}

fn hello_call() -> Value {
    object(vec![
        tag("call?", "hello"),
        ("token?", text()),
        ("machine", reference("Machine")),
        ("hello", reference("Hello")),
    ])
}

fn machine() -> Value {
    let amounts = object(vec![("cpu_milli?", number()), ("memory_bytes?", number())]);
    object(vec![
        ("name", text()),
        ("address", text()),
        ("platform", text()),
        ("containers?", switch()),
        ("capacity", amounts),
        ("labels?", map(text())),
    ])
}

fn hello() -> Value {
    let identity = object(vec![
        ("cluster", text()),
        ("worker", number()),
        ("life", text()),
    ]);
    object(vec![
        ("identity", identity),
        ("epoch", number()),
        ("revision", number()),
        ("is_anew", switch()),
        ("tasks", map(reference("Observation"))),
        ("newest_report", number()),
    ])
}

fn observation() -> Vec<Field> {
    let integer = json!({ "type": "integer" });
    let exit = object(vec![
        ("code?", integer.clone()),
        ("signal?", integer),
        ("oom?", switch()),
    ]);
    vec![
        ("state", state()),
        ("attempts", number()),
        ("exit?", exit),
        ("message", text()),
    ]
}

fn beat() -> Value {
    object(vec![
        tag("call?", "beat"),
        ("worker", number()),
        ("number", number()),
        ("epoch", number()),
        ("revision", number()),
        ("reports?", number()),
    ])
}

fn report() -> Value {
    object(vec![
        tag("call?", "report"),
        ("worker", number()),
        ("epoch", number()),
        ("life", text()),
        ("reports", list("Report")),
    ])
}

fn welcome() -> Value {
    object(vec![
        tag("reply", "welcome"),
        ("cluster", text()),
        ("worker", number()),
        ("epoch", number()),
        ("managers", texts()),
    ])
}

fn beat_reply() -> Value {
    object(vec![
        tag("reply", "beat"),
        ("number", number()),
        ("epoch", number()),
        ("revision", number()),
        ("lease_ms", number()),
        ("pace_ms?", number()),
    ])
}

fn acknowledged() -> Value {
    object(vec![
        tag("reply", "acknowledged"),
        ("life", text()),
        ("number", number()),
    ])
}

fn removed() -> Value {
    object(vec![
        tag("reply", "removed"),
        ("worker", number()),
        ("reason", text()),
    ])
}

fn over() -> Value {
    object(vec![tag("reply", "over"), ("reason", text())])
}

fn assignments() -> Value {
    object(vec![
        ("epoch", number()),
        ("revision", number()),
        ("tasks", list("Assignment")),
    ])
}

fn assignment() -> Value {
    object(vec![
        ("task", number()),
        ("service", number()),
        ("slot", number()),
        ("version", number()),
        ("desired", words(&["run", "stop", "remove"])),
        ("spec", reference("Spec")),
    ])
}
