//! Keys: put, get, delete, range, transaction, compaction. Each makes a command or a query, asks the node, and words the
//! outcome.

use super::call::{Call, invalid, json, plain};
use super::txn::{TxnAnswer, TxnRequest, check_key, check_value, prefix_end};
use super::wire::{
    CompactRequest, DeleteAnswer, Fresh, GetAnswer, Place, PutAnswer, RangeAnswer, RangeResult,
    Record,
};
use crate::error::{Code, Error};
use crate::state::command::{
    Command, Compact, Delete, Done, Expect, Get, KeyValue, Op, Outcome, Put,
};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

/// `PUT /v1/kv/{key}`.
pub(super) async fn put(call: Call) -> Result<Response, Error> {
    let limits = &call.api.options.limits;
    let key = call.path("key");
    check_key(&key, limits)?;
    check_value(&call.body, limits)?;
    let op = Op::Put(Put {
        key,
        value: call.body.clone(),
        lease: call.number("lease")?.unwrap_or_default(),
        expect: expect(&call)?,
        prev: call.flag("prev")?,
    });
    let (place, done) = commit(&call, op).await?;
    match done {
        Done::Put(done) => json(&PutAnswer {
            place,
            done: done.into(),
        }),
        other => Err(surprise(&other)),
    }
}

/// `GET /v1/kv/{key}`.
pub(super) async fn get(call: Call) -> Result<Response, Error> {
    let key = call.path("key");
    check_key(&key, &call.api.options.limits)?;
    let query = Get {
        key,
        limit: 1,
        revision: call.number("revision")?.unwrap_or_default(),
        ..Get::default()
    };
    let (done, stamp) = call
        .api
        .handle
        .read(query, call.consistency()?, call.timeout()?)
        .await?;
    let fresh = Fresh::from(stamp);
    match done.kvs.into_iter().next() {
        None => Err(Error::new(
            Code::NotFound,
            format!("no such key at revision {}", fresh.revision),
        )),
        Some(kv) if call.wants_bytes() => Ok(raw(kv, fresh)),
        Some(kv) => json(&GetAnswer {
            record: Record::of(&kv),
            fresh,
        }),
    }
}

/// The value as it is, with all else in headers.
fn raw(kv: KeyValue, fresh: Fresh) -> Response {
    let numbers = [
        ("seaworthy-version", Some(kv.version)),
        ("seaworthy-create-revision", Some(kv.create_revision)),
        ("seaworthy-mod-revision", Some(kv.mod_revision)),
        ("seaworthy-lease", Some(kv.lease)),
        ("seaworthy-revision", Some(fresh.revision.0)),
        ("seaworthy-applied-index", Some(fresh.applied_index.0)),
        ("seaworthy-age-ms", fresh.age_ms),
    ];
    let mut response = plain(StatusCode::OK, "application/octet-stream", kv.value);
    for (name, number) in numbers {
        if let Some(number) = number {
            response
                .headers_mut()
                .insert(name, HeaderValue::from(number));
        }
    }
    response
}

/// `DELETE /v1/kv/{key}`.
pub(super) async fn delete(call: Call) -> Result<Response, Error> {
    let key = call.path("key");
    check_key(&key, &call.api.options.limits)?;
    let op = Op::Delete(Delete {
        key,
        range_end: Bytes::new(),
        expect: expect(&call)?,
        prev: call.flag("prev")?,
    });
    deleted(&call, op).await
}

/// `DELETE /v1/kv`.
pub(super) async fn delete_range(call: Call) -> Result<Response, Error> {
    let Some((key, range_end)) = key_range(&call)? else {
        return Err(
            invalid("a range delete needs `prefix`, or `start` and `end`".to_owned())
                .hint("an empty `prefix=` removes every key"),
        );
    };
    let op = Op::Delete(Delete {
        key,
        range_end,
        expect: None,
        prev: call.flag("prev")?,
    });
    deleted(&call, op).await
}

async fn deleted(call: &Call, op: Op) -> Result<Response, Error> {
    let (place, done) = commit(call, op).await?;
    match done {
        Done::Delete(done) => json(&DeleteAnswer {
            place,
            done: done.into(),
        }),
        other => Err(surprise(&other)),
    }
}

/// `GET /v1/kv`.
pub(super) async fn range(call: Call) -> Result<Response, Error> {
    let everything = (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
    let (mut key, range_end) = key_range(&call)?.unwrap_or(everything);
    if let Some(after) = call.bytes("after") {
        // The first key that sorts after another is that key with a zero byte added.
        let next = Bytes::from([&after[..], &[0]].concat());
        key = key.max(next);
    }
    let most = call.api.options.limits.range_max as u64;
    let limit = call.number("limit")?.filter(|limit| *limit > 0);
    let keys_only = call.flag("keys_only")?;
    let query = Get {
        key,
        range_end,
        limit: limit.unwrap_or(most).min(most),
        keys_only,
        count_only: call.flag("count_only")?,
        revision: call.number("revision")?.unwrap_or_default(),
    };
    let (done, stamp) = call
        .api
        .handle
        .read(query, call.consistency()?, call.timeout()?)
        .await?;
    json(&RangeAnswer {
        found: RangeResult::of(&done, keys_only),
        fresh: stamp.into(),
    })
}

/// `POST /v1/txn`.
pub(super) async fn txn(call: Call) -> Result<Response, Error> {
    let request: TxnRequest = call.json()?;
    let op = Op::Txn(request.command(&call.api.options.limits)?);
    let (place, done) = commit(&call, op).await?;
    match done {
        Done::Txn(done) => json(&TxnAnswer::of(place, done, &request)),
        other => Err(surprise(&other)),
    }
}

/// `POST /v1/compact`.
pub(super) async fn compact(call: Call) -> Result<Response, Error> {
    let CompactRequest { revision } = call.json()?;
    let (place, _) = commit(&call, Op::Compact(Compact { revision })).await?;
    json(&place)
}

/// Start and end of the keys that `prefix`, or `start` and `end`, name; none when neither is given. `start` alone goes to
/// the end, `end` alone begins at the first key.
pub(super) fn key_range(call: &Call) -> Result<Option<(Bytes, Bytes)>, Error> {
    // The smallest key there can be: keys are not empty.
    let first = || Bytes::from_static(&[0]);
    let not_empty = |key: Bytes| if key.is_empty() { first() } else { key };
    match (call.bytes("prefix"), call.bytes("start"), call.bytes("end")) {
        (None, None, None) => Ok(None),
        (Some(prefix), None, None) => {
            let end = prefix_end(&prefix);
            Ok(Some((not_empty(prefix), end)))
        }
        (None, start, end) => {
            let start = start.map_or_else(first, not_empty);
            let end = end.filter(|end| !end.is_empty()).unwrap_or_else(first);
            Ok(Some((start, end)))
        }
        (Some(_), _, _) => Err(invalid(
            "give `prefix`, or `start` and `end`, not both".to_owned(),
        )),
    }
}

/// The condition of a write.
fn expect(call: &Call) -> Result<Option<Expect>, Error> {
    let expect = Expect {
        absent: call.flag("if_absent")?,
        version: call.number("if_version")?,
        mod_revision: call.number("if_mod_revision")?,
    };
    if expect.absent && (expect.version.is_some() || expect.mod_revision.is_some()) {
        return Err(invalid(
            "`if_absent` contradicts `if_version` and `if_mod_revision`".to_owned(),
        ));
    }
    Ok((expect != Expect::default()).then_some(expect))
}

/// Commits `op` for the call's session, and gives its place and what it did; a refusal is an error.
pub(super) async fn commit(call: &Call, op: Op) -> Result<(Place, Done), Error> {
    let (session, seq) = call.session()?;
    let command = Command {
        time_ms: 0, // The leader stamps the entry.
        session,
        seq,
        op: Some(op),
    };
    let outcome = call.api.handle.propose(command, call.timeout()?).await?;
    done(outcome)
}

/// Place and result of an outcome; a refusal is an error.
fn done(outcome: Outcome) -> Result<(Place, Done), Error> {
    let place = Place::of(&outcome);
    match outcome.done {
        Some(Done::Refused(refused)) => Err(crate::handle::refusal(refused)),
        Some(done) => Ok((place, done)),
        None => Err(Error::new(Code::Internal, "the outcome is empty").unknown()),
    }
}

/// The node answered another question than was asked. The command was applied all the same.
pub(super) fn surprise(done: &Done) -> Error {
    Error::new(Code::Internal, format!("unexpected outcome {done:?}")).unknown()
}
