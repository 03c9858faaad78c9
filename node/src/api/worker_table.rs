//! The routes by which workers talk to managers.

use super::table::{Answer, Body, Kind, Param, Route, TIMEOUT, path, query};
use super::workers;
use crate::error::Code;
use http::Method;

const WORKER: &[Param] = &[path("id", Kind::Number, "The worker.")];
const POLL: &[Param] = &[
    query("epoch", Kind::Number, "The worker's session."),
    query(
        "revision",
        Kind::Number,
        "Revision of the assignments that it has; 0: none.",
    ),
    query(
        "wait_ms",
        Kind::Number,
        "How long to wait for newer ones, milliseconds; at most 60000, 0 if not said.",
    ),
];

/// Codes of what a worker says.
const MEETING: &[Code] = &[
    Code::TooLarge,
    Code::Forbidden,
    Code::NotFound,
    Code::Conflict,
    Code::NoLeader,
    Code::NotLeader,
    Code::Timeout,
    Code::Overloaded,
    Code::ReadOnly,
    Code::ShuttingDown,
];

/// What workers say and ask.
pub(super) static ROUTES: &[Route] = &[
    Route {
        method: Method::POST,
        path: "/v1/workers/hello",
        id: "workerHello",
        summary: "A worker says who it is and all it has; answered by the leader.",
        groups: &[TIMEOUT],
        body: Body::Json("WorkerHello"),
        answer: Answer::Json("WorkerReply"),
        errors: MEETING,
        handler: |call| Box::pin(workers::hello(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/workers/beat",
        id: "workerBeat",
        summary: "A worker gives a sign of life, and may be granted a lease; answered by the leader.",
        groups: &[TIMEOUT],
        body: Body::Json("WorkerBeat"),
        answer: Answer::Json("WorkerReply"),
        errors: MEETING,
        handler: |call| Box::pin(workers::beat(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/workers/report",
        id: "workerReport",
        summary: "A worker reports on its tasks; answered by the leader.",
        groups: &[TIMEOUT],
        body: Body::Json("WorkerReport"),
        answer: Answer::Json("WorkerReply"),
        errors: MEETING,
        handler: |call| Box::pin(workers::report(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/workers/{id}/assignments",
        id: "workerAssignments",
        summary: "Waits for assignments newer than the worker has; `conflict` says that its session is over.",
        groups: &[WORKER, POLL],
        body: Body::None,
        answer: Answer::Json("AssignmentsAnswer"),
        errors: &[Code::Conflict, Code::ShuttingDown],
        handler: |call| Box::pin(workers::assignments(call)),
    },
];
