//! Shared by the tests: words to write a history down with, and a generator of histories that did
//! happen.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod generate;

use workloads::history::{
    Consistency, Entry, Event, EventKind, Expect, History, Input, Key, Operation, Output, ReadMark,
    ValueId,
};

/// One operation; `ret` 0 means that it never returned. The id is filled in by [`history`].
pub(crate) fn op(client: u64, call: u64, ret: u64, input: Input, output: Output) -> Operation {
    let return_ns = (ret > 0).then_some(ret);
    Operation {
        client,
        id: 0,
        call_ns: call,
        return_ns,
        input,
        output,
    }
}

/// Operations with ids by position.
pub(crate) fn history(operations: impl IntoIterator<Item = Operation>) -> History {
    let numbered = operations
        .into_iter()
        .zip(1..)
        .map(|(op, id)| Operation { id, ..op });
    History {
        operations: numbered.collect(),
    }
}

pub(crate) fn put(key: &str, value: u64) -> Input {
    put_if(key, value, Expect::Any)
}

pub(crate) fn put_if(key: &str, value: u64, expect: Expect) -> Input {
    Input::Put {
        key: key.into(),
        value: ValueId(value),
        expect,
    }
}

pub(crate) fn del(key: &str) -> Input {
    Input::Delete {
        key: key.into(),
        expect: Expect::Any,
    }
}

pub(crate) fn get(key: &str) -> Input {
    read(key, Consistency::Linearizable)
}

pub(crate) fn read(key: &str, consistency: Consistency) -> Input {
    Input::Get {
        key: key.into(),
        consistency,
    }
}

/// Revision, version, create revision.
pub(crate) fn ok(revision: u64, version: u64, create_revision: u64) -> Output {
    Output::PutOk {
        revision,
        version,
        create_revision,
    }
}

pub(crate) fn deleted(revision: u64) -> Output {
    Output::DeleteOk {
        existed: true,
        revision,
    }
}

/// Value, version, create revision, mod revision.
pub(crate) fn entry(value: u64, version: u64, create_revision: u64, mod_revision: u64) -> Entry {
    Entry {
        value: ValueId(value),
        version,
        create_revision,
        mod_revision,
    }
}

/// As [`entry`].
pub(crate) fn saw(value: u64, version: u64, create: u64, modified: u64) -> Output {
    Output::Value {
        entry: Some(entry(value, version, create, modified)),
        mark: None,
    }
}

pub(crate) fn absent() -> Output {
    Output::Value {
        entry: None,
        mark: None,
    }
}

/// An answer of node 1, connection 1.
pub(crate) fn marked(entry: Option<Entry>, applied_revision: u64, age_ns: Option<u64>) -> Output {
    let mark = ReadMark {
        node: 1,
        connection: 1,
        applied_revision,
        age_ns,
    };
    Output::Value {
        entry,
        mark: Some(mark),
    }
}

pub(crate) fn put_event(revision: u64, key: &str, value: u64) -> Event {
    Event {
        revision,
        key: key.into(),
        kind: EventKind::Put(ValueId(value)),
    }
}

pub(crate) fn delete_event(revision: u64, key: &str) -> Event {
    Event {
        revision,
        key: key.into(),
        kind: EventKind::Delete,
    }
}

pub(crate) fn key(name: &str) -> Key {
    name.into()
}
