//! The OpenAPI 3.1 document, made from the route table and the schemas.

use super::schemas;
use super::table::{self, Answer, Body, Kind, Param, Place, Route};
use crate::error::Code;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Codes any route may give: ours to limit, or a bug.
const ANYWHERE: [Code; 2] = [Code::InvalidArgument, Code::Internal];

/// The document.
pub(super) fn document() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in table::all() {
        let path = route.path.replace("{*", "{");
        let method = route.method.as_str().to_lowercase();
        paths
            .entry(path)
            .or_default()
            .insert(method, operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Seaworthy",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Any node takes any request and forwards it to the leader if need be. Every error is one JSON shape.",
        },
        "paths": paths,
        "components": { "schemas": schemas::all() },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "parameters": route.params().map(parameter).collect::<Vec<_>>(),
        "responses": responses(route),
    });
    if let Some(body) = request_body(route.body) {
        operation["requestBody"] = body;
    }
    operation
}

fn parameter(param: &Param) -> Value {
    let place = match param.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    let schema = match param.kind {
        Kind::Bytes => json!({ "type": "string" }),
        Kind::Number => json!({ "type": "integer", "minimum": 0 }),
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
    };
    json!({
        "name": param.name,
        "in": place,
        "required": param.place == Place::Path,
        "description": param.about,
        "schema": schema,
    })
}

fn request_body(body: Body) -> Option<Value> {
    match body {
        Body::None => None,
        Body::Bytes => Some(json!({ "required": true, "content": bytes() })),
        Body::Json(schema) => Some(json!({ "required": true, "content": json_of(schema) })),
        Body::MaybeJson(schema) => Some(json!({ "required": false, "content": json_of(schema) })),
    }
}

fn responses(route: &Route) -> Value {
    let content = match route.answer {
        Answer::Json(schema) => json_of(schema),
        Answer::JsonOrBytes(schema) => {
            let mut content = json_of(schema);
            content["application/octet-stream"] = bytes()["application/octet-stream"].clone();
            content
        }
        Answer::Events => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        Answer::Metrics => json!({ "text/plain": { "schema": { "type": "string" } } }),
    };
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "Done.", "content": content }),
    );
    for (status, codes) in errors(route) {
        responses.insert(status.to_string(), error_response(route, status, &codes));
    }
    Value::Object(responses)
}

/// Codes of a route by status.
fn errors(route: &Route) -> BTreeMap<u16, BTreeSet<String>> {
    let mut by_status: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for code in route.errors.iter().chain(&ANYWHERE) {
        let word = json!(code).as_str().unwrap_or_default().to_owned();
        by_status
            .entry(code.http_status())
            .or_default()
            .insert(word);
    }
    if route.id == "health" {
        by_status.entry(503).or_default();
    }
    by_status
}

fn error_response(route: &Route, status: u16, codes: &BTreeSet<String>) -> Value {
    if route.id == "health" && status == 503 {
        return json!({ "description": "Unhealthy.", "content": json_of("HealthAnswer") });
    }
    let words: Vec<&str> = codes.iter().map(String::as_str).collect();
    json!({ "description": words.join(", "), "content": json_of("Error") })
}

fn json_of(schema: &str) -> Value {
    let reference = format!("#/components/schemas/{schema}");
    json!({ "application/json": { "schema": { "$ref": reference } } })
}

fn bytes() -> Value {
    json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } })
}
