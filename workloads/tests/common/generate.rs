//! Makes histories that did happen: a sequential store does one operation after the other, and each
//! gets an interval around the moment at which it took effect.

use std::collections::BTreeMap;

use workloads::history::{
    Compare, Consistency, Entry, Event, EventKind, Expect, History, Input, Key, Operation, Output,
    ReadMark, TxnOp, TxnResult, ValueId,
};

/// What a history should look like; shares are in percent of all operations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub operations: u64,
    pub keys: u64,
    pub clients: u64,
    pub unknown: u64,
    pub deletes: u64,
    pub gets: u64,
    pub txns: u64,
    pub stale_reads: u64,
    pub ranges: u64,
    /// The number of values to draw from; 0 for a value of its own for each write.
    pub values: u64,
    /// Whether conditions on mod revisions occur.
    pub mod_revisions: bool,
}

pub(crate) const PLAIN: Shape = Shape {
    operations: 200,
    keys: 3,
    clients: 5,
    unknown: 2,
    deletes: 10,
    gets: 35,
    txns: 0,
    stale_reads: 0,
    ranges: 0,
    values: 0,
    mod_revisions: true,
};

/// A history, and what the store knows about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub history: History,
    pub log: Vec<Event>,
    pub state: BTreeMap<Key, Entry>,
}

/// splitmix64.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound.max(1)
    }

    /// A position in something of `len` items.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is below a usize")
    }

    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
}

/// The time between two effects, in nanoseconds.
const TICK: u64 = 100;

pub(crate) fn generate(seed: u64, shape: Shape) -> Run {
    let mut maker = Maker {
        dice: Dice(seed),
        shape,
        run: Run::default(),
        revision: 0,
        past: vec![(0, 0, BTreeMap::new())],
        applied: BTreeMap::new(),
        next_value: 0,
    };
    let mut free = vec![0; usize::try_from(shape.clients).expect("few clients")];
    let mut now = 0;
    for id in 1..=shape.operations {
        now += TICK;
        while free.iter().all(|free| *free >= now) {
            now += TICK;
        }
        let idle: Vec<usize> = (0..free.len())
            .filter(|client| free[*client] < now)
            .collect();
        let client = idle[maker.dice.index(idle.len())];
        let wait = maker.dice.below(TICK * shape.clients);
        let call = now.saturating_sub(wait).max(free[client] + 1);
        let back = now + 1 + maker.dice.below(TICK * shape.clients);
        let operation = maker.operation(client as u64, id, call, now, back);
        // A session whose outcome is unknown ends; its client goes on as another.
        free[client] = back;
        maker.run.history.operations.push(operation);
    }
    maker.run
}

struct Maker {
    dice: Dice,
    shape: Shape,
    run: Run,
    revision: u64,
    /// `(revision, time, state)` of each write.
    past: Vec<(u64, u64, BTreeMap<Key, Entry>)>,
    /// How far each node has applied, as an index into `past`, and until when it answers in order.
    applied: BTreeMap<u64, usize>,
    next_value: u64,
}

impl Maker {
    fn operation(&mut self, client: u64, id: u64, call: u64, now: u64, back: u64) -> Operation {
        let input = self.input();
        let writes = !matches!(input, Input::Get { .. } | Input::Range { .. });
        if writes && self.dice.percent(self.shape.unknown) {
            let call = call.saturating_sub(self.dice.below(20 * TICK));
            if self.dice.percent(50) {
                self.perform(&input, now);
            }
            let client = 1000 + id;
            let output = Output::Unknown;
            return Operation {
                client,
                id,
                call_ns: call,
                return_ns: None,
                input,
                output,
            };
        }
        if writes && self.dice.percent(1) {
            let (return_ns, output) = (Some(back), Output::Refused);
            return Operation {
                client,
                id,
                call_ns: call,
                return_ns,
                input,
                output,
            };
        }
        let output = self.perform(&input, now);
        Operation {
            client,
            id,
            call_ns: call,
            return_ns: Some(back),
            input,
            output,
        }
    }

    fn key(&mut self) -> Key {
        Key(format!("k{}", self.dice.below(self.shape.keys)))
    }

    fn value(&mut self) -> ValueId {
        self.next_value += 1;
        match self.shape.values {
            0 => ValueId(self.next_value),
            values => ValueId(1 + self.dice.below(values)),
        }
    }

    fn expect(&mut self, key: &Key) -> Expect {
        let current = self.run.state.get(key);
        let off = u64::from(self.dice.percent(30));
        match self.dice.below(8) {
            0 => Expect::Absent,
            1 => Expect::Version(current.map_or(0, |entry| entry.version) + off),
            2 if self.shape.mod_revisions => {
                Expect::ModRevision(current.map_or(0, |entry| entry.mod_revision) + off)
            }
            _ => Expect::Any,
        }
    }

    fn input(&mut self) -> Input {
        let mut draw = self.dice.below(100);
        let mut within = |share: u64| {
            let hit = draw < share;
            draw = draw.wrapping_sub(share);
            hit
        };
        let shape = self.shape;
        if within(shape.gets) {
            return Input::Get {
                key: self.key(),
                consistency: Consistency::Linearizable,
            };
        }
        if within(shape.stale_reads) {
            let kinds = [Consistency::Bounded, Consistency::Local];
            let consistency = kinds[usize::from(self.dice.percent(50))];
            return Input::Get {
                key: self.key(),
                consistency,
            };
        }
        if within(shape.ranges) {
            let limit = self.dice.percent(30).then_some(2);
            let prefix = "k".to_owned();
            return Input::Range {
                prefix,
                limit,
                consistency: Consistency::Linearizable,
            };
        }
        let key = self.key();
        if within(shape.deletes) {
            return Input::Delete {
                expect: self.expect(&key),
                key,
            };
        }
        if within(shape.txns) {
            let expect = self.expect(&key);
            let other = Key(format!("{}x", key.0));
            let puts = vec![
                TxnOp::Put {
                    key: key.clone(),
                    value: self.value(),
                },
                TxnOp::Put {
                    key: other.clone(),
                    value: self.value(),
                },
            ];
            let gets = vec![
                TxnOp::Get { key: other.clone() },
                TxnOp::Delete { key: other },
            ];
            let compares = vec![Compare { key, expect }];
            return Input::Txn {
                compares,
                then: puts,
                otherwise: gets,
            };
        }
        Input::Put {
            expect: self.expect(&key),
            value: self.value(),
            key,
        }
    }

    fn holds(&self, key: &Key, expect: Expect) -> bool {
        match (self.run.state.get(key), expect) {
            (_, Expect::Any) => true,
            (entry, Expect::Absent | Expect::Version(0) | Expect::ModRevision(0)) => {
                entry.is_none()
            }
            (Some(entry), Expect::Version(version)) => entry.version == version,
            (Some(entry), Expect::ModRevision(revision)) => entry.mod_revision == revision,
            (None, _) => false,
        }
    }

    fn perform(&mut self, input: &Input, now: u64) -> Output {
        let before = self.run.log.len();
        let revision = self.revision + 1;
        let output = match input {
            Input::Put { key, expect, .. } | Input::Delete { key, expect }
                if !self.holds(key, *expect) =>
            {
                let current = self.run.state.get(key).map(|entry| entry.version);
                Output::CompareFailed { current }
            }
            Input::Put { key, value, .. } => {
                let Entry {
                    version,
                    create_revision,
                    ..
                } = self.put(key, *value);
                Output::PutOk {
                    revision,
                    version,
                    create_revision,
                }
            }
            Input::Delete { key, .. } => Output::DeleteOk {
                existed: self.delete(key),
                revision,
            },
            Input::Txn {
                compares,
                then,
                otherwise,
            } => {
                let succeeded = compares.iter().all(|c| self.holds(&c.key, c.expect));
                let branch = if succeeded { then } else { otherwise };
                let results = branch.iter().map(|op| self.txn_op(op)).collect();
                Output::TxnOk {
                    succeeded,
                    revision,
                    results,
                }
            }
            Input::Get {
                key,
                consistency: Consistency::Linearizable,
            } => Output::Value {
                entry: self.run.state.get(key).copied(),
                mark: None,
            },
            Input::Get { key, .. } => self.stale_read(key, now),
            Input::Range { prefix, limit, .. } => {
                let limit = limit.map_or(usize::MAX, |limit| limit as usize);
                let matching = self
                    .run
                    .state
                    .iter()
                    .filter(|(key, _)| key.0.starts_with(prefix.as_str()));
                let entries = matching
                    .take(limit)
                    .map(|(key, entry)| (key.clone(), *entry));
                Output::Entries {
                    entries: entries.collect(),
                    revision: self.revision,
                }
            }
        };
        if self.run.log.len() > before {
            self.revision = revision;
            if self.shape.stale_reads > 0 {
                self.past.push((revision, now, self.run.state.clone()));
            }
        }
        output
    }

    /// A node lags behind, and never goes back.
    fn stale_read(&mut self, key: &Key, now: u64) -> Output {
        let node = self.dice.below(3);
        let newest = self.past.len() - 1;
        let lag = self.dice.index(6);
        let at = self.applied.entry(node).or_default();
        *at = (*at).max(newest.saturating_sub(lag));
        let at = *at;
        let (applied_revision, _, state) = &self.past[at];
        let age = self
            .past
            .get(at + 1)
            .map_or(0, |(_, replaced, _)| now - replaced);
        let mark = ReadMark {
            node,
            connection: 1,
            applied_revision: *applied_revision,
            age_ns: Some(age),
        };
        Output::Value {
            entry: state.get(key).copied(),
            mark: Some(mark),
        }
    }

    fn txn_op(&mut self, op: &TxnOp) -> TxnResult {
        match op {
            TxnOp::Put { key, value } => {
                let Entry {
                    version,
                    create_revision,
                    ..
                } = self.put(key, *value);
                TxnResult::Put {
                    version,
                    create_revision,
                }
            }
            TxnOp::Get { key } => TxnResult::Get(self.run.state.get(key).copied()),
            TxnOp::Delete { key } => TxnResult::Delete {
                existed: self.delete(key),
            },
        }
    }

    fn put(&mut self, key: &Key, value: ValueId) -> Entry {
        let mod_revision = self.revision + 1;
        let old = self.run.state.get(key);
        let entry = Entry {
            value,
            version: old.map_or(0, |old| old.version) + 1,
            create_revision: old.map_or(mod_revision, |old| old.create_revision),
            mod_revision,
        };
        self.run.state.insert(key.clone(), entry);
        self.event(key, EventKind::Put(value));
        entry
    }

    fn delete(&mut self, key: &Key) -> bool {
        let existed = self.run.state.remove(key).is_some();
        if existed {
            self.event(key, EventKind::Delete);
        }
        existed
    }

    fn event(&mut self, key: &Key, kind: EventKind) {
        let revision = self.revision + 1;
        self.run.log.push(Event {
            revision,
            key: key.clone(),
            kind,
        });
    }
}
