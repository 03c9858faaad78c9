//! The JSON schemas of the OpenAPI document, by name. Tests hold real answers against them, so they cannot fall behind.

use crate::error::Code;
use serde_json::{Map, Value, json};

/// Every schema.
pub(super) fn all() -> Value {
    let mut schemas = Map::new();
    for group in [errors(), records(), transactions(), clusters(), healths()] {
        schemas.extend(group);
    }
    for group in super::fleet_schemas::groups() {
        schemas.extend(group);
    }
    schemas.extend(super::worker_schemas::meetings());
    Value::Object(schemas)
}

/// A list of named schemas.
pub(super) type Group = Vec<(String, Value)>;

/// A field of an object: name and schema. A name that ends in `?` may be absent.
pub(super) type Field = (&'static str, Value);

/// An object with these fields and no others.
pub(super) fn object(fields: Vec<Field>) -> Value {
    let required: Vec<&str> = fields
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !name.ends_with('?'))
        .collect();
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema.clone()))
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

pub(super) fn named(name: &str, schema: Value) -> (String, Value) {
    (name.to_owned(), schema)
}

pub(super) fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn switch() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(super) fn list(name: &str) -> Value {
    json!({ "type": "array", "items": reference(name) })
}

/// An object with exactly one of these fields.
pub(super) fn one_of(fields: Vec<Field>) -> Value {
    let choices: Vec<Value> = fields
        .into_iter()
        .map(|field| object(vec![field]))
        .collect();
    json!({ "oneOf": choices })
}

/// The fields of several parts, one after another.
pub(super) fn join(parts: Vec<Vec<Field>>) -> Value {
    object(parts.concat())
}

fn errors() -> Group {
    let leader = object(vec![("id", number()), ("name", text()), ("http", text())]);
    let error = object(vec![
        ("code", json!({ "type": "string", "enum": Code::ALL })),
        ("message", text()),
        ("retryable", switch()),
        ("outcome_unknown", switch()),
        ("leader?", reference("Leader")),
        ("hint?", text()),
    ]);
    vec![named("Leader", leader), named("Error", error)]
}

fn key() -> Vec<Field> {
    vec![("key?", text()), ("key_base64?", text())]
}

fn value() -> Vec<Field> {
    vec![("value?", text()), ("value_base64?", text())]
}

fn record() -> Vec<Field> {
    let numbers = vec![
        ("version", number()),
        ("create_revision", number()),
        ("mod_revision", number()),
        ("lease", number()),
    ];
    [key(), value(), numbers].concat()
}

pub(super) fn place() -> Vec<Field> {
    vec![
        ("revision", number()),
        ("index", number()),
        ("replayed", switch()),
    ]
}

pub(super) fn fresh() -> Vec<Field> {
    vec![
        ("revision", number()),
        ("applied_index", number()),
        ("age_ms?", number()),
    ]
}

fn put_result() -> Vec<Field> {
    vec![
        ("version", number()),
        ("create_revision", number()),
        ("prev?", reference("Record")),
    ]
}

fn delete_result() -> Vec<Field> {
    vec![("deleted", number()), ("prev?", list("Record"))]
}

fn range_result() -> Vec<Field> {
    vec![
        ("kvs", list("Record")),
        ("more", switch()),
        ("count", number()),
    ]
}

pub(super) fn id() -> Vec<Field> {
    vec![("id", number())]
}

fn records() -> Group {
    let lease = vec![("id", number()), ("ttl_ms", number())];
    vec![
        named("Record", object(record())),
        named("Place", object(place())),
        named("PutAnswer", join(vec![place(), put_result()])),
        named("DeleteAnswer", join(vec![place(), delete_result()])),
        named("GetAnswer", join(vec![record(), fresh()])),
        named("RangeAnswer", join(vec![range_result(), fresh()])),
        named("LeaseRequest", object(vec![("ttl_ms", number())])),
        named("LeaseAnswer", join(vec![place(), lease])),
        named("SessionAnswer", join(vec![place(), id()])),
        named("CompactRequest", object(vec![("revision", number())])),
    ]
}

fn transactions() -> Group {
    let targets = [
        "version",
        "create_revision",
        "mod_revision",
        "value",
        "lease",
    ];
    let relations = ["equal", "greater", "less", "not_equal"];
    let comparison = vec![
        ("target?", words(&targets)),
        ("relation?", words(&relations)),
        ("number?", number()),
    ];
    let put = vec![("lease?", number()), ("prev?", switch())];
    let range = vec![
        ("range_end?", text()),
        ("range_end_base64?", text()),
        ("prefix?", switch()),
        ("limit?", number()),
        ("keys_only?", switch()),
        ("count_only?", switch()),
        ("prev?", switch()),
    ];
    vec![
        named("TxnCompare", join(vec![key(), value(), comparison])),
        named("TxnPut", join(vec![key(), value(), put])),
        named("TxnRange", join(vec![key(), range])),
        named("TxnOp", operations("TxnPut", "TxnRange", "TxnRange")),
        named("TxnRequest", txn_request()),
        named("TxnPutResult", object(put_result())),
        named("TxnDeleteResult", object(delete_result())),
        named("TxnGetResult", object(range_result())),
        named(
            "TxnResult",
            operations("TxnPutResult", "TxnDeleteResult", "TxnGetResult"),
        ),
        named("TxnAnswer", txn_answer()),
    ]
}

/// One of put, delete and get.
fn operations(put: &str, delete: &str, get: &str) -> Value {
    one_of(vec![
        ("put", reference(put)),
        ("delete", reference(delete)),
        ("get", reference(get)),
    ])
}

fn txn_request() -> Value {
    object(vec![
        ("compare?", list("TxnCompare")),
        ("success?", list("TxnOp")),
        ("failure?", list("TxnOp")),
    ])
}

fn txn_answer() -> Value {
    let results = vec![("succeeded", switch()), ("results", list("TxnResult"))];
    join(vec![place(), results])
}

fn role() -> Value {
    words(&["leader", "follower", "candidate", "learner"])
}

fn member() -> Vec<Field> {
    vec![
        ("id", number()),
        ("name", text()),
        ("peer", text()),
        ("http", text()),
        ("role", role()),
        ("match_index?", number()),
        ("replication_lag?", number()),
        ("active?", switch()),
    ]
}

fn clusters() -> Group {
    let cluster = object(vec![
        ("cluster_id", text()),
        ("id", number()),
        ("name", text()),
        ("leader", number()),
        ("term", number()),
        ("commit_index", number()),
        ("applied_index", number()),
        ("revision", number()),
        ("members", list("Member")),
    ]);
    let snapshot = object(vec![
        ("snapshot", text()),
        ("message", text()),
        ("index", number()),
        ("term", number()),
        ("revision", number()),
        ("bytes", number()),
        ("checksum", text()),
    ]);
    let request = object(vec![("name", text()), ("peer", text()), ("http", text())]);
    vec![
        named(
            "Member",
            join(vec![member(), vec![("incarnation", text())]]),
        ),
        named("ClusterAnswer", cluster),
        named("MemberRequest", request),
        named("MemberAnswer", object(id())),
        named("TransferRequest", object(vec![("to?", number())])),
        named("SnapshotAnswer", snapshot),
        named("RunbookNode", runbook_node()),
        named("RunbookNodes", object(vec![("nodes", list("RunbookNode"))])),
        named(
            "RunbookLeader",
            object(vec![("leader", text()), ("state", role())]),
        ),
        named("RaftState", raft_state()),
    ]
}

fn runbook_node() -> Value {
    object(vec![
        ("id", number()),
        ("address", text()),
        ("suffrage", words(&["Voter", "Nonvoter"])),
    ])
}

fn raft_state() -> Value {
    object(vec![
        ("state", role()),
        ("term", number()),
        ("leader", number()),
        ("first_index", number()),
        ("last_index", number()),
        ("commit_index", number()),
        ("applied_index", number()),
        ("elections", number()),
        ("state_hash", text()),
    ])
}

fn healths() -> Group {
    let health = || words(&["healthy", "degraded", "unhealthy"]);
    let part = object(vec![("status", health()), ("message", text())]);
    let parts = object(vec![
        ("raft", reference("Component")),
        ("storage", reference("Component")),
        ("api", reference("Component")),
    ]);
    let answer = object(vec![
        ("status", health()),
        ("node", text()),
        ("components", parts),
    ]);
    vec![
        named("Component", part),
        named("HealthAnswer", answer),
        named("ReadyAnswer", object(vec![("ready", switch())])),
        named("LiveAnswer", object(vec![("live", switch())])),
        named("StatsAnswer", stats()),
        named("OpenApi", json!({ "type": "object" })),
    ]
}

/// What the process has spent, where the system tells.
fn spent() -> Value {
    let seconds = json!({ "type": "number" });
    object(vec![
        ("pid", number()),
        ("cpu_seconds", seconds),
        ("write_bytes?", number()),
        ("rss_bytes?", number()),
    ])
}

/// Statistics: the node's whole picture is for people, so its parts are not pinned down.
fn stats() -> Value {
    let anything = || json!({ "type": "object" });
    object(vec![
        ("version", text()),
        ("uptime_ms", number()),
        ("node", anything()),
        ("limits", anything()),
        ("store", object(vec![("key_count", number())])),
        (
            "wal",
            object(vec![("size_bytes", number()), ("segments", number())]),
        ),
        ("http", object(vec![("connections", number())])),
        ("process?", spent()),
    ])
}
