//! The route table: every route of the door, with all that the router, the parameter check and the OpenAPI document need.
//!
//! Nothing but this, `fleet_table` and `worker_table` adds routes, so what is documented and what is served cannot differ.

use super::call::Call;
use super::{cluster, fleet_table, health, kv, leases, watch, worker_table};
use crate::error::{Code, Error};
use crate::rt::net::BoxFuture;
use axum::response::Response;
use http::Method;

/// What serves a route.
type Handler = fn(Call) -> BoxFuture<'static, Result<Response, Error>>;

/// One route.
pub(super) struct Route {
    /// Method.
    pub(super) method: Method,
    /// Path with `{name}` for one segment and `{*name}` for all that is left.
    pub(super) path: &'static str,
    /// Name in the document, unique.
    pub(super) id: &'static str,
    /// What it does.
    pub(super) summary: &'static str,
    /// Parameters, in groups that routes share.
    pub(super) groups: &'static [&'static [Param]],
    /// What the body is.
    pub(super) body: Body,
    /// What the answer is.
    pub(super) answer: Answer,
    /// Codes a client should be ready for, besides those every route may give.
    pub(super) errors: &'static [Code],
    /// What serves it.
    pub(super) handler: Handler,
}

impl Route {
    /// All parameters.
    pub(super) fn params(&self) -> impl Iterator<Item = &'static Param> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// True when the route has a parameter called `name` there.
    pub(super) fn has(&self, place: Place, name: &str) -> bool {
        self.params()
            .any(|param| param.place == place && param.name == name)
    }
}

/// A parameter.
pub(super) struct Param {
    /// Name.
    pub(super) name: &'static str,
    /// Where it stands.
    pub(super) place: Place,
    /// What it holds.
    pub(super) kind: Kind,
    /// What it means.
    pub(super) about: &'static str,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// In a header.
    Header,
}

/// What a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Percent-encoded bytes.
    Bytes,
    /// A whole number, zero or more.
    Number,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// What a request's body is. The text names a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// There is none; one that is sent is ignored.
    None,
    /// Bytes as they are.
    Bytes,
    /// JSON.
    Json(&'static str),
    /// JSON, or nothing for the defaults.
    MaybeJson(&'static str),
}

/// What an answer is. The text names a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// JSON.
    Json(&'static str),
    /// JSON, or the value's bytes when asked for by `Accept: application/octet-stream`.
    JsonOrBytes(&'static str),
    /// Server-sent events.
    Events,
    /// Prometheus text.
    Metrics,
}

pub(super) const fn query(name: &'static str, kind: Kind, about: &'static str) -> Param {
    let place = Place::Query;
    Param {
        name,
        place,
        kind,
        about,
    }
}

pub(super) const fn path(name: &'static str, kind: Kind, about: &'static str) -> Param {
    let place = Place::Path;
    Param {
        name,
        place,
        kind,
        about,
    }
}

pub(super) const fn header(name: &'static str, kind: Kind, about: &'static str) -> Param {
    let place = Place::Header;
    Param {
        name,
        place,
        kind,
        about,
    }
}

const KEY: &[Param] = &[path(
    "key",
    Kind::Bytes,
    "The key: everything after `/v1/kv/`, percent-decoded; may hold slashes.",
)];
const LEASE: &[Param] = &[path("id", Kind::Number, "The lease.")];
const SESSION_ID: &[Param] = &[path("id", Kind::Number, "The session.")];
const MEMBER: &[Param] = &[path("id", Kind::Number, "The member.")];
pub(super) const TIMEOUT: &[Param] = &[query(
    "timeout_ms",
    Kind::Number,
    "Longest time to wait for the outcome, milliseconds.",
)];
const SESSION: &[Param] = &[
    header(
        "Seaworthy-Session",
        Kind::Number,
        "Session of the client; with it a write that is sent again is done once.",
    ),
    header(
        "Seaworthy-Seq",
        Kind::Number,
        "Number of the write within the session, from 1, higher for each new write.",
    ),
];
const CONDITION: &[Param] = &[
    query(
        "if_version",
        Kind::Number,
        "Only if the key's version is this (0: it does not exist).",
    ),
    query(
        "if_mod_revision",
        Kind::Number,
        "Only if the key was last written at this revision.",
    ),
    query("if_absent", Kind::Switch, "Only if the key does not exist."),
];
const PREV: &[Param] = &[query(
    "prev",
    Kind::Switch,
    "Answer with what was there before.",
)];
const TIE: &[Param] = &[query(
    "lease",
    Kind::Number,
    "Lease to tie the key to; the key goes when the lease ends.",
)];
const RANGE: &[Param] = &[
    query(
        "prefix",
        Kind::Bytes,
        "Keys that start with this; empty for all.",
    ),
    query("start", Kind::Bytes, "First key of the range."),
    query(
        "end",
        Kind::Bytes,
        "End of the range, exclusive; absent for no end.",
    ),
];
pub(super) const FRESH: &[Param] = &[
    query(
        "consistency",
        Kind::Word(&["linearizable", "bounded", "local"]),
        "How fresh the answer must be; linearizable if not said.",
    ),
    query(
        "max_age_ms",
        Kind::Number,
        "Greatest age `bounded` allows, milliseconds; 1000 if not said.",
    ),
];
const AT: &[Param] = &[query(
    "revision",
    Kind::Number,
    "Read as of this revision; now if not said.",
)];
const PAGE: &[Param] = &[
    query(
        "limit",
        Kind::Number,
        "Most records to return; the server has a limit of its own.",
    ),
    query(
        "after",
        Kind::Bytes,
        "Only keys after this one: the last key of the page before.",
    ),
    query("keys_only", Kind::Switch, "Leave the values out."),
    query("count_only", Kind::Switch, "Return the count alone."),
];
const WATCH: &[Param] = &[
    query("key", Kind::Bytes, "This one key."),
    query(
        "from",
        Kind::Number,
        "First revision wanted; the next to come if not said.",
    ),
    header(
        "Last-Event-ID",
        Kind::Number,
        "The last `id` seen; the watch goes on after it, whatever `from` says.",
    ),
];

/// Codes of every write.
const WRITE: &[Code] = &[
    Code::InvalidArgument,
    Code::TooLarge,
    Code::NoLeader,
    Code::NotLeader,
    Code::Timeout,
    Code::Overloaded,
    Code::ReadOnly,
    Code::SessionUnknown,
    Code::SessionStale,
    Code::ShuttingDown,
    Code::Poisoned,
];
/// Codes of a conditional write.
const CONDITIONAL: &[Code] = &[
    Code::InvalidArgument,
    Code::TooLarge,
    Code::PreconditionFailed,
    Code::LeaseNotFound,
    Code::NoLeader,
    Code::NotLeader,
    Code::Timeout,
    Code::Overloaded,
    Code::ReadOnly,
    Code::SessionUnknown,
    Code::SessionStale,
    Code::ShuttingDown,
    Code::Poisoned,
];
/// Codes of a write about a lease.
const LEASED: &[Code] = &[
    Code::InvalidArgument,
    Code::LeaseNotFound,
    Code::NoLeader,
    Code::NotLeader,
    Code::Timeout,
    Code::Overloaded,
    Code::ReadOnly,
    Code::SessionUnknown,
    Code::SessionStale,
    Code::ShuttingDown,
    Code::Poisoned,
];
/// Codes of a read.
const READING: &[Code] = &[
    Code::InvalidArgument,
    Code::TooLarge,
    Code::NotFound,
    Code::Compacted,
    Code::FutureRevision,
    Code::NoLeader,
    Code::NotLeader,
    Code::Timeout,
    Code::Overloaded,
    Code::TooStale,
    Code::ShuttingDown,
    Code::Poisoned,
];
/// Codes of a change of membership.
const CHANGING: &[Code] = &[
    Code::InvalidArgument,
    Code::NotFound,
    Code::Conflict,
    Code::NoLeader,
    Code::NotLeader,
    Code::Timeout,
    Code::Overloaded,
    Code::ShuttingDown,
    Code::Poisoned,
];
/// Codes of a snapshot.
const CUTTING: &[Code] = &[
    Code::Timeout,
    Code::Overloaded,
    Code::Conflict,
    Code::ReadOnly,
    Code::ShuttingDown,
    Code::Poisoned,
];
/// Codes of a readiness check.
const WAITING: &[Code] = &[
    Code::NoLeader,
    Code::TooStale,
    Code::ShuttingDown,
    Code::Poisoned,
];

/// Every route of the door.
pub(super) fn all() -> impl Iterator<Item = &'static Route> + Clone {
    ROUTES
        .iter()
        .chain(worker_table::ROUTES)
        .chain(fleet_table::ROUTES)
}

/// The routes of keys, of the cluster and of the node itself; those of orchestration are in `fleet_table` and `worker_table`.
static ROUTES: &[Route] = &[
    Route {
        method: Method::PUT,
        path: "/v1/kv/{*key}",
        id: "putKey",
        summary: "Writes a key; the body is the value.",
        groups: &[KEY, CONDITION, TIE, PREV, TIMEOUT, SESSION],
        body: Body::Bytes,
        answer: Answer::Json("PutAnswer"),
        errors: CONDITIONAL,
        handler: |call| Box::pin(kv::put(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/kv/{*key}",
        id: "getKey",
        summary: "Reads a key.",
        groups: &[KEY, FRESH, AT, TIMEOUT],
        body: Body::None,
        answer: Answer::JsonOrBytes("GetAnswer"),
        errors: READING,
        handler: |call| Box::pin(kv::get(call)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/kv/{*key}",
        id: "deleteKey",
        summary: "Removes a key; removing none is no error.",
        groups: &[KEY, CONDITION, PREV, TIMEOUT, SESSION],
        body: Body::None,
        answer: Answer::Json("DeleteAnswer"),
        errors: CONDITIONAL,
        handler: |call| Box::pin(kv::delete(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/kv",
        id: "getRange",
        summary: "Reads a range of keys, page by page.",
        groups: &[RANGE, PAGE, FRESH, AT, TIMEOUT],
        body: Body::None,
        answer: Answer::Json("RangeAnswer"),
        errors: READING,
        handler: |call| Box::pin(kv::range(call)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/kv",
        id: "deleteRange",
        summary: "Removes a range of keys at one revision.",
        groups: &[RANGE, PREV, TIMEOUT, SESSION],
        body: Body::None,
        answer: Answer::Json("DeleteAnswer"),
        errors: WRITE,
        handler: |call| Box::pin(kv::delete_range(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/txn",
        id: "transact",
        summary: "Compares, then does one of two lists, all at one revision.",
        groups: &[TIMEOUT, SESSION],
        body: Body::Json("TxnRequest"),
        answer: Answer::Json("TxnAnswer"),
        errors: LEASED,
        handler: |call| Box::pin(kv::txn(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/compact",
        id: "compact",
        summary: "Gives up history at and below a revision.",
        groups: &[TIMEOUT, SESSION],
        body: Body::Json("CompactRequest"),
        answer: Answer::Json("Place"),
        errors: &[
            Code::InvalidArgument,
            Code::Compacted,
            Code::FutureRevision,
            Code::NoLeader,
            Code::NotLeader,
            Code::Timeout,
            Code::Overloaded,
        ],
        handler: |call| Box::pin(kv::compact(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/leases",
        id: "grantLease",
        summary: "Grants a lease.",
        groups: &[TIMEOUT, SESSION],
        body: Body::Json("LeaseRequest"),
        answer: Answer::Json("LeaseAnswer"),
        errors: WRITE,
        handler: |call| Box::pin(leases::grant(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/leases/{id}/keepalive",
        id: "keepLease",
        summary: "Renews a lease.",
        groups: &[LEASE, TIMEOUT, SESSION],
        body: Body::None,
        answer: Answer::Json("LeaseAnswer"),
        errors: LEASED,
        handler: |call| Box::pin(leases::keep_alive(call)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/leases/{id}",
        id: "revokeLease",
        summary: "Ends a lease and removes its keys.",
        groups: &[LEASE, TIMEOUT, SESSION],
        body: Body::None,
        answer: Answer::Json("Place"),
        errors: LEASED,
        handler: |call| Box::pin(leases::revoke(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/sessions",
        id: "openSession",
        summary: "Opens a session: its writes are done at most once, however often they are sent.",
        groups: &[TIMEOUT, SESSION],
        body: Body::None,
        answer: Answer::Json("SessionAnswer"),
        errors: WRITE,
        handler: |call| Box::pin(leases::open(call)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/sessions/{id}",
        id: "closeSession",
        summary: "Ends a session.",
        groups: &[SESSION_ID, TIMEOUT, SESSION],
        body: Body::None,
        answer: Answer::Json("Place"),
        errors: WRITE,
        handler: |call| Box::pin(leases::close(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/watch",
        id: "watch",
        summary: "Follows changes as server-sent events: put, delete, progress, compacted, error.",
        groups: &[WATCH, RANGE],
        body: Body::None,
        answer: Answer::Events,
        errors: &[
            Code::InvalidArgument,
            Code::Compacted,
            Code::Overloaded,
            Code::ShuttingDown,
            Code::Poisoned,
        ],
        handler: |call| Box::pin(watch::watch(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/cluster",
        id: "showCluster",
        summary: "The members, the leader, and how far each is.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("ClusterAnswer"),
        errors: &[],
        handler: |call| Box::pin(cluster::show(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/cluster/members",
        id: "addMember",
        summary: "Adds a member, without a vote at first.",
        groups: &[TIMEOUT],
        body: Body::Json("MemberRequest"),
        answer: Answer::Json("MemberAnswer"),
        errors: CHANGING,
        handler: |call| Box::pin(cluster::add(call)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/cluster/members/{id}",
        id: "removeMember",
        summary: "Removes a member.",
        groups: &[MEMBER, TIMEOUT],
        body: Body::None,
        answer: Answer::Json("MemberAnswer"),
        errors: CHANGING,
        handler: |call| Box::pin(cluster::remove(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/cluster/members/{id}/promote",
        id: "promoteMember",
        summary: "Gives a member that has caught up its vote.",
        groups: &[MEMBER, TIMEOUT],
        body: Body::None,
        answer: Answer::Json("MemberAnswer"),
        errors: CHANGING,
        handler: |call| Box::pin(cluster::promote(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/cluster/transfer",
        id: "transferLeadership",
        summary: "Hands leadership over.",
        groups: &[TIMEOUT],
        body: Body::MaybeJson("TransferRequest"),
        answer: Answer::Json("MemberAnswer"),
        errors: CHANGING,
        handler: |call| Box::pin(cluster::transfer(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/admin/snapshot",
        id: "cutSnapshot",
        summary: "Cuts a snapshot on this node; answers when it is durable.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("SnapshotAnswer"),
        errors: CUTTING,
        handler: |call| Box::pin(cluster::snapshot(call)),
    },
    Route {
        method: Method::GET,
        path: "/health",
        id: "health",
        summary: "How the node is, part by part; 503 when it is unhealthy.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("HealthAnswer"),
        errors: &[],
        handler: |call| Box::pin(health::health(call)),
    },
    Route {
        method: Method::GET,
        path: "/health/ready",
        id: "ready",
        summary: "Whether traffic should come here: caught up with a leader.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("ReadyAnswer"),
        errors: WAITING,
        handler: |call| Box::pin(health::ready(call)),
    },
    Route {
        method: Method::GET,
        path: "/health/live",
        id: "live",
        summary: "Whether the process should be left alone.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("LiveAnswer"),
        errors: &[Code::Poisoned],
        handler: |call| Box::pin(health::live(call)),
    },
    Route {
        method: Method::GET,
        path: "/metrics",
        id: "metrics",
        summary: "Metrics in the Prometheus text format.",
        groups: &[],
        body: Body::None,
        answer: Answer::Metrics,
        errors: &[],
        handler: |call| Box::pin(health::metrics(call)),
    },
    Route {
        method: Method::GET,
        path: "/stats",
        id: "stats",
        summary: "All numbers at once, as JSON.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("StatsAnswer"),
        errors: &[],
        handler: |call| Box::pin(health::stats(call)),
    },
    Route {
        method: Method::GET,
        path: "/openapi.json",
        id: "openapi",
        summary: "This document.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("OpenApi"),
        errors: &[],
        handler: |call| Box::pin(health::openapi(call)),
    },
    Route {
        method: Method::GET,
        path: "/cluster/nodes",
        id: "runbookNodes",
        summary: "The members, as the runbooks read them.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("RunbookNodes"),
        errors: &[],
        handler: |call| Box::pin(cluster::nodes(call)),
    },
    Route {
        method: Method::GET,
        path: "/cluster/leader",
        id: "runbookLeader",
        summary: "The leader's HTTP address and this node's role, as the runbooks read them.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("RunbookLeader"),
        errors: &[],
        handler: |call| Box::pin(cluster::leader(call)),
    },
    Route {
        method: Method::POST,
        path: "/admin/snapshot",
        id: "runbookSnapshot",
        summary: "The same as `/v1/admin/snapshot`.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("SnapshotAnswer"),
        errors: CUTTING,
        handler: |call| Box::pin(cluster::snapshot(call)),
    },
    Route {
        method: Method::GET,
        path: "/raft/state",
        id: "raftState",
        summary: "This node's view of consensus.",
        groups: &[],
        body: Body::None,
        answer: Answer::Json("RaftState"),
        errors: &[],
        handler: |call| Box::pin(cluster::raft_state(call)),
    },
];
