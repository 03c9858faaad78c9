//! The clients of a run: each does one operation after another, drawn by weight, and notes what came back.
//!
//! Every write has a value of its own, so that the judges are at their sharpest. Writes go without a session (then an unknown
//! outcome stays unknown) or with one (then the client library may send them again). Times are those of one clock that all
//! clients share.

use crate::check::{WatchRecord, WatchStep};
use crate::history::{
    Compare, Consistency, Entry, Event, EventKind, Expect, Input, Key, Operation, Output, ReadMark,
    TxnOp, TxnResult, ValueId,
};
use node::api::txn::{self, TxnRequest};
use node::api::wire::{Fresh, Record, WatchChange};
use node::client::watch::Told;
use node::client::{Client, Conditions, Options, Range, Reading, Retry};
use node::error::{Code, Error};
use node::handle;
use node::rt::{Clock, Env, Tasks};
use node::types::Revision;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Kinds of operations, by the names that scenarios use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A write without a session.
    Put,
    /// A linearizable read.
    Get,
    /// A removal without a session.
    Delete,
    /// A compare-and-set transaction over two keys.
    Txn,
    /// A write in a session, tried again until it is known to be done.
    SessionPut,
    /// A read that states its age.
    BoundedGet,
    /// A read of whatever a node has.
    LocalGet,
    /// A key under a lease: granted, renewed a few times, left to expire.
    Lease,
}

impl Kind {
    /// The kind with a name of scenarios.
    pub fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "put" => Kind::Put,
            "get" => Kind::Get,
            "delete" => Kind::Delete,
            "txn" => Kind::Txn,
            "session_put" => Kind::SessionPut,
            "bounded_get" => Kind::BoundedGet,
            "local_get" => Kind::LocalGet,
            "lease" => Kind::Lease,
            _ => return None,
        })
    }
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Habits {
    /// Kinds with their weights; at least one.
    pub mix: BTreeMap<Kind, u32>,
    /// Different keys.
    pub keys: u32,
    /// Shortest and longest pause between two operations.
    pub pause: (Duration, Duration),
    /// Longest time one operation may take.
    pub timeout: Duration,
    /// Least length of a written value, bytes; a value says who wrote it, and the rest is filled up.
    pub value_len: usize,
    /// When the clients are busy, begin and end on the clock that they share; empty for always.
    pub busy: Vec<(Duration, Duration)>,
    /// How much longer a pause is while they are not.
    pub calm_factor: u32,
}

impl Habits {
    /// How much longer a pause is that begins at `now`.
    pub fn stretch(&self, now: Duration) -> u32 {
        let within = |(from, to): &(Duration, Duration)| (*from..*to).contains(&now);
        if self.busy.is_empty() || self.busy.iter().any(within) {
            1
        } else {
            self.calm_factor.max(1)
        }
    }

    /// What a value is written as.
    fn text(&self, value: ValueId) -> String {
        // Trailing spaces are no part of the number.
        format!("{:<width$}", value.0, width = self.value_len)
    }
}

/// Where a run's clients write down what they did.
#[derive(Clone, Default)]
pub struct Notebook(Arc<Mutex<Notes>>);

/// What is written down.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Operations, in the order in which they ended.
    pub operations: Vec<Operation>,
    /// What watchers were sent.
    pub watches: Vec<WatchRecord>,
    /// Moments at which a write was acknowledged: called and answered, nanoseconds.
    pub acknowledged: Vec<(u64, u64)>,
    /// Leases: what was asked of each.
    pub leases: Vec<LeaseNote>,
    /// Operations that ended in an error, by code.
    pub errors: BTreeMap<String, u64>,
    /// The first of those errors of each code, in words.
    pub first_errors: BTreeMap<String, String>,
    /// Tries that clients gave up because the node was silent and another one led.
    pub departures: u64,
}

/// One lease as its client saw it.
#[derive(Clone, Debug)]
pub struct LeaseNote {
    /// The key that was tied to it.
    pub key: String,
    /// Time to live, nanoseconds.
    pub ttl_ns: u64,
    /// When the last renewal that was acknowledged was sent, nanoseconds.
    pub renewed_ns: u64,
    /// When the key was last seen by a linearizable read: sent, nanoseconds.
    pub seen_ns: Option<u64>,
    /// When the key was first found missing by a linearizable read: answered, nanoseconds.
    pub gone_ns: Option<u64>,
}

impl Notebook {
    /// Everything so far.
    pub fn notes(&self) -> Notes {
        self.0.lock().expect("nobody panics while writing").clone()
    }

    /// Writes something down.
    fn write<T>(&self, note: impl FnOnce(&mut Notes) -> T) -> T {
        note(&mut self.0.lock().expect("nobody panics while writing"))
    }
}

/// How often the node at a place of the endpoints was started: reads of one life never go back, a new life may begin behind.
pub type Lives = Arc<dyn Fn(usize) -> u64 + Send + Sync>;

/// A shared clock of the run, nanoseconds.
pub type SharedClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// One client.
pub struct Driver {
    /// Number of the client.
    pub number: u64,
    /// Client without sessions, and with.
    plain: Client,
    sessions: Client,
    /// One client per node for reads that say from which node they are.
    by_node: Vec<Client>,
    /// Its own clock, for pauses.
    clock: Clock,
    /// The run's clock.
    shared: SharedClock,
    /// Lives of the nodes.
    lives: Lives,
    /// What it does.
    habits: Habits,
    /// Chance.
    rng: ChaCha8Rng,
    /// Where it writes.
    notebook: Notebook,
    /// Number of the next operation.
    next: u64,
    /// Versions last seen, for compare-and-set.
    seen: BTreeMap<String, u64>,
}

impl Driver {
    /// A client in the world `env`, of the cluster at `endpoints`.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a client's world, each given once"
    )]
    pub fn new(
        number: u64,
        env: &Env,
        tasks: &Tasks,
        endpoints: Vec<String>,
        habits: Habits,
        shared: SharedClock,
        lives: Lives,
        notebook: Notebook,
    ) -> Self {
        let options = |sessions: bool, tries_max, stream: &str| Options {
            timeout: habits.timeout,
            connect_timeout: Duration::from_millis(500),
            retry: Retry {
                tries_max,
                ..Retry::default()
            },
            sessions,
            follow_leader: tries_max > 1,
            stream: format!("client {number} {stream}"),
            ..Options::default()
        };
        // Each client begins with another node, or all would ask the first.
        let mut turned = endpoints.clone();
        let turn = usize::try_from(number).unwrap_or(0) % endpoints.len().max(1);
        turned.rotate_left(turn);
        let client =
            |endpoints: Vec<String>, options| Client::with_options(env, tasks, endpoints, options);
        Driver {
            number,
            plain: client(turned.clone(), options(false, 3, "plain")),
            sessions: client(turned, options(true, 20, "session")),
            by_node: endpoints
                .iter()
                .map(|one| client(vec![one.clone()], options(false, 1, one)))
                .collect(),
            clock: env.clock.clone(),
            shared,
            lives,
            rng: env.rngs.stream(&format!("client {number}")),
            habits,
            notebook,
            next: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Works until `until` says stop.
    pub async fn run(mut self, until: impl Fn() -> bool) {
        while !until() {
            self.step().await;
            let (low, high) = self.habits.pause;
            let pause = self.rng.random_range(low..=high);
            let stretch = self.habits.stretch(Duration::from_nanos((self.shared)()));
            self.clock.sleep(pause * stretch).await;
        }
        let departures = self.plain.departures() + self.sessions.departures();
        self.notebook.write(|notes| notes.departures += departures);
    }

    /// One operation.
    async fn step(&mut self) {
        let kind = self.draw_kind();
        let key = format!("k{}", self.rng.random_range(0..self.habits.keys.max(1)));
        match kind {
            Kind::Put => self.put(key, false).await,
            Kind::SessionPut => self.put(key, true).await,
            Kind::Get => self.get(key).await,
            Kind::Delete => self.delete(key).await,
            Kind::Txn => self.txn(key).await,
            Kind::BoundedGet => self.stale(key, Consistency::Bounded).await,
            Kind::LocalGet => self.stale(key, Consistency::Local).await,
            Kind::Lease => self.lease().await,
        }
    }

    /// A kind, by weight.
    fn draw_kind(&mut self) -> Kind {
        let total: u32 = self.habits.mix.values().sum();
        let mut left = self.rng.random_range(0..total.max(1));
        for (kind, weight) in &self.habits.mix {
            if left < *weight {
                return *kind;
            }
            left -= weight;
        }
        Kind::Get
    }

    /// The number of a new operation, which is also the identity of what it writes.
    fn begin(&mut self) -> (u64, ValueId, u64) {
        self.next += 1;
        (
            self.next,
            ValueId(self.number * 1_000_000 + self.next),
            (self.shared)(),
        )
    }

    /// Writes an operation down.
    fn end(&self, id: u64, call_ns: u64, input: Input, output: Output) {
        let now = (self.shared)();
        let known = !matches!(output, Output::Unknown);
        let wrote = matches!(
            output,
            Output::PutOk { .. }
                | Output::DeleteOk { .. }
                | Output::TxnOk {
                    succeeded: true,
                    ..
                }
        );
        let return_ns = known.then_some(now);
        let operation = Operation {
            client: self.number,
            id,
            call_ns,
            return_ns,
            input,
            output,
        };
        self.notebook.write(|notes| {
            if wrote {
                notes.acknowledged.push((call_ns, now));
            }
            notes.operations.push(operation);
        });
    }

    /// What an error means for a write.
    fn failed(&self, error: &Error) -> Output {
        self.count_error(error);
        if error.outcome_unknown {
            Output::Unknown
        } else {
            Output::Refused
        }
    }

    /// Counts an error.
    fn count_error(&self, error: &Error) {
        let unknown = if error.outcome_unknown {
            " (outcome unknown)"
        } else {
            ""
        };
        let code = format!("{:?}{unknown}", error.code);
        self.notebook.write(|notes| {
            let first = notes.first_errors.entry(code.clone());
            first.or_insert_with(|| error.to_string());
            *notes.errors.entry(code).or_default() += 1;
        });
    }

    /// A write.
    async fn put(&mut self, key: String, in_session: bool) {
        let (id, value, call_ns) = self.begin();
        let client = if in_session {
            &self.sessions
        } else {
            &self.plain
        };
        let text = self.habits.text(value);
        let output = match client
            .put(key.as_bytes(), text, Conditions::default())
            .await
        {
            Ok(answer) => {
                self.seen.insert(key.clone(), answer.done.version);
                Output::PutOk {
                    revision: answer.place.revision.0,
                    version: answer.done.version,
                    create_revision: answer.done.create_revision.0,
                }
            }
            Err(error) => self.failed(&error),
        };
        let input = Input::Put {
            key: Key(key),
            value,
            expect: Expect::Any,
        };
        self.end(id, call_ns, input, output);
    }

    /// A linearizable read.
    async fn get(&mut self, key: String) {
        let (id, _, call_ns) = self.begin();
        match self.plain.get(key.as_bytes(), Reading::default()).await {
            Ok(answer) => {
                let entry = answer.and_then(|answer| entry_of(&answer.record));
                if let Some(entry) = entry {
                    self.seen.insert(key.clone(), entry.version);
                }
                let consistency = Consistency::Linearizable;
                let input = Input::Get {
                    key: Key(key),
                    consistency,
                };
                self.end(id, call_ns, input, Output::Value { entry, mark: None });
            }
            // A read that failed says nothing.
            Err(error) => self.count_error(&error),
        }
    }

    /// A read that may be stale, at one node.
    async fn stale(&mut self, key: String, consistency: Consistency) {
        let (id, _, call_ns) = self.begin();
        let node = self.rng.random_range(0..self.by_node.len());
        let level = match consistency {
            Consistency::Bounded => handle::Consistency::Bounded {
                max_age: Duration::from_millis(500),
            },
            _ => handle::Consistency::Local,
        };
        let reading = Reading {
            consistency: level,
            revision: None,
        };
        let life = (self.lives)(node);
        match self.by_node[node].get(key.as_bytes(), reading).await {
            // An answer across a restart belongs to either life.
            Ok(Some(_)) if (self.lives)(node) != life => {}
            Ok(Some(answer)) => {
                let mark = Some(mark_of(node as u64, life, &answer.fresh));
                let entry = entry_of(&answer.record);
                let input = Input::Get {
                    key: Key(key),
                    consistency,
                };
                self.end(id, call_ns, input, Output::Value { entry, mark });
            }
            // An absent key's answer carries no stamp to be judged by.
            Ok(None) => {}
            Err(error) => self.count_error(&error),
        }
    }

    /// A removal.
    async fn delete(&mut self, key: String) {
        let (id, _, call_ns) = self.begin();
        let output = match self
            .plain
            .delete(key.as_bytes(), Conditions::default())
            .await
        {
            Ok(answer) => Output::DeleteOk {
                existed: answer.done.deleted > 0,
                revision: answer.place.revision.0,
            },
            Err(error) => self.failed(&error),
        };
        self.end(
            id,
            call_ns,
            Input::Delete {
                key: Key(key),
                expect: Expect::Any,
            },
            output,
        );
    }

    /// If the key still has the version last seen, writes it and its twin; else reads it.
    async fn txn(&mut self, key: String) {
        let (id, value, call_ns) = self.begin();
        let version = self.seen.get(&key).copied().unwrap_or(0);
        let twin = format!("{key}-twin");
        let put = |key: &str| {
            txn::TxnOp::Put(txn::PutStep {
                key: Some(key.to_owned()),
                value: Some(self.habits.text(value)),
                ..txn::PutStep::default()
            })
        };
        let get = txn::TxnOp::Get(txn::RangeStep {
            key: Some(key.clone()),
            ..txn::RangeStep::default()
        });
        let request = TxnRequest {
            compare: vec![txn::Compare {
                key: Some(key.clone()),
                target: txn::TargetName::Version,
                number: Some(version),
                ..txn::Compare::default()
            }],
            success: vec![put(&key), put(&twin)],
            failure: vec![get],
        };
        let output = match self.plain.txn(&request).await {
            Ok(answer) => Output::TxnOk {
                succeeded: answer.succeeded,
                revision: answer.place.revision.0,
                results: answer.results.iter().map(txn_result).collect(),
            },
            Err(error) => self.failed(&error),
        };
        let write = |key: &str| TxnOp::Put {
            key: Key(key.to_owned()),
            value,
        };
        let expect = if version == 0 {
            Expect::Absent
        } else {
            Expect::Version(version)
        };
        let input = Input::Txn {
            compares: vec![Compare {
                key: Key(key.clone()),
                expect,
            }],
            then: vec![write(&key), write(&twin)],
            otherwise: vec![TxnOp::Get { key: Key(key) }],
        };
        self.end(id, call_ns, input, output);
    }

    /// A key under a lease of its own: renewed a few times, then left alone until it is gone. It must not go while it is
    /// renewed in time, and must go in the end.
    async fn lease(&mut self) {
        let (id, _, _) = self.begin();
        let key = format!("lease-{}-{id}", self.number);
        let ttl = Duration::from_millis(self.rng.random_range(1_500..3_000));
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let sent = (self.shared)();
        let Ok(lease) = self.plain.grant_lease(ttl_ms).await else {
            return;
        };
        let conditions = Conditions {
            lease: Some(lease.id),
            ..Conditions::default()
        };
        if self
            .plain
            .put(key.as_bytes(), "held", conditions)
            .await
            .is_err()
        {
            return;
        }
        let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let mut note = LeaseNote {
            key,
            ttl_ns,
            renewed_ns: sent,
            seen_ns: None,
            gone_ns: None,
        };
        for _ in 0..self.rng.random_range(0..3) {
            self.clock.sleep(ttl / 3).await;
            let sent = (self.shared)();
            if self.plain.keep_lease(lease.id).await.is_ok() {
                note.renewed_ns = sent;
            }
            self.look(&mut note).await;
        }
        for _ in 0..30 {
            if note.gone_ns.is_some() {
                break;
            }
            self.clock.sleep(ttl / 4).await;
            self.look(&mut note).await;
        }
        self.notebook.write(|notes| notes.leases.push(note));
    }

    /// Looks whether a leased key is there.
    async fn look(&self, note: &mut LeaseNote) {
        let sent = (self.shared)();
        match self
            .plain
            .get(note.key.as_bytes(), Reading::default())
            .await
        {
            Ok(Some(_)) => note.seen_ns = Some(sent),
            Ok(None) if note.gone_ns.is_none() => note.gone_ns = Some((self.shared)()),
            _ => {}
        }
    }
}

/// Follows everything from the first revision until `until` says stop.
pub async fn follow(
    client: Client,
    name: String,
    notebook: Notebook,
    clock: Clock,
    until: impl Fn() -> bool,
) {
    let record = WatchRecord {
        name,
        start_revision: 1,
        prefix: String::new(),
        steps: Vec::new(),
    };
    let place = notebook.write(|notes| {
        notes.watches.push(record);
        notes.watches.len() - 1
    });
    let mut from = Revision(1);
    while !until() {
        let Ok(mut watch) = client.watch(&Range::All, Some(from)).await else {
            clock.sleep(Duration::from_millis(200)).await;
            continue;
        };
        loop {
            let told = match watch.next().await {
                Ok(told) => told,
                Err(error) if error.code == Code::Compacted => {
                    // What is gone is gone: this watcher's record ends here.
                    return;
                }
                Err(_) => break,
            };
            let (step, next) = match told {
                Told::Put(change) => (event_of(&change, false), None),
                Told::Delete(change) => (event_of(&change, true), None),
                Told::Progress(revision) => (
                    Some(WatchStep::Progress(revision.0)),
                    Some(Revision(revision.0 + 1)),
                ),
            };
            from = next.unwrap_or(from);
            if let Some(step) = step {
                notebook.write(|notes| notes.watches[place].steps.push(step));
            }
            if until() {
                return;
            }
        }
    }
}

/// A watched change as an event.
pub fn event_of(change: &WatchChange, deleted: bool) -> Option<WatchStep> {
    let key = Key(change.record.key.clone()?);
    let revision = change.record.mod_revision.0;
    let kind = if deleted {
        EventKind::Delete
    } else {
        EventKind::Put(value_of(change.record.value.as_deref()?))
    };
    Some(WatchStep::Event(Event {
        revision,
        key,
        kind,
    }))
}

/// A record as the history has it.
pub fn entry_of(record: &Record) -> Option<Entry> {
    Some(Entry {
        value: value_of(record.value.as_deref()?),
        version: record.version,
        create_revision: record.create_revision.0,
        mod_revision: record.mod_revision.0,
    })
}

/// The identity of a value: the number it spells, or a fingerprint.
fn value_of(text: &str) -> ValueId {
    text.trim_end()
        .parse()
        .map_or_else(|_| ValueId::of_bytes(text.as_bytes()), ValueId)
}

/// What an answer says of its freshness.
fn mark_of(node: u64, life: u64, fresh: &Fresh) -> ReadMark {
    ReadMark {
        node,
        connection: life,
        applied_revision: fresh.revision.0,
        age_ns: fresh.age_ms.map(|ms| ms * 1_000_000),
    }
}

/// One step's result.
fn txn_result(result: &txn::TxnResult) -> TxnResult {
    match result {
        txn::TxnResult::Put(done) => TxnResult::Put {
            version: done.version,
            create_revision: done.create_revision.0,
        },
        txn::TxnResult::Delete(done) => TxnResult::Delete {
            existed: done.deleted > 0,
        },
        txn::TxnResult::Get(done) => TxnResult::Get(done.kvs.first().and_then(entry_of)),
    }
}
