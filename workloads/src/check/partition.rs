//! Cuts a history into partitions that can be judged one by one, and compiles each for the search.
//!
//! Linearizability is local: a history is linearizable if its part on each key is. A transaction
//! ties its keys together, so they are joined into one partition (union-find).
//!
//! Compilation also settles what needs no search: operations that cannot matter are left out
//! (refused ones, stale reads, ranges, reads nobody got an answer to); values that no answer ever
//! showed are made equal, since no order of them can be told from another; and a write with unknown
//! outcome whose value an answer showed *has* happened, at the revision which that answer states.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Act, Answer, Seen, Step};
use crate::history::{
    Consistency, Entry, Expect, Input, Key, Operation, Output, TxnOp, TxnResult, ValueId,
};

/// One operation, ready for the search.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// Where it comes from.
    pub(super) operation: &'a Operation,
    /// When it was called, in nanoseconds.
    pub(super) call_ns: u64,
    /// When it must have taken effect, in nanoseconds; `u64::MAX` if perhaps never.
    pub(super) deadline_ns: u64,
    /// What it does.
    pub(super) step: Step,
    /// What it answered; `None` if nobody knows.
    pub(super) answer: Option<Answer>,
    /// The revision that it took, if it wrote and that is known.
    pub(super) revision: Option<u64>,
}

/// Operations that share keys with each other and with no others.
#[derive(Debug)]
pub(super) struct Partition<'a> {
    /// The keys, in order; items name them by index.
    pub(super) keys: Vec<&'a Key>,
    /// The operations, by call time.
    pub(super) items: Vec<Item<'a>>,
}

/// Cuts and compiles, in the order of the partitions' smallest keys.
pub(super) fn partitions(operations: &[Operation]) -> Vec<Partition<'_>> {
    let mut groups: BTreeMap<usize, Partition<'_>> = BTreeMap::new();
    let relevant = || operations.iter().filter(|operation| matters(operation));
    let names: BTreeSet<&Key> = relevant()
        .flat_map(|operation| operation.input.keys())
        .collect();
    let names: Vec<&Key> = names.into_iter().collect();
    let index = |key: &Key| {
        names
            .binary_search(&key)
            .expect("all keys were collected above")
    };
    let mut sets = Sets {
        parent: (0..names.len()).collect(),
    };
    for operation in relevant() {
        let keys: Vec<usize> = operation.input.keys().into_iter().map(index).collect();
        keys.windows(2).for_each(|pair| sets.join(pair[0], pair[1]));
    }
    for (at, name) in names.iter().enumerate() {
        let empty = || Partition {
            keys: Vec::new(),
            items: Vec::new(),
        };
        groups
            .entry(sets.root(at))
            .or_insert_with(empty)
            .keys
            .push(name);
    }
    let mut members: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in relevant() {
        if let Some(key) = operation.input.keys().first() {
            members
                .entry(sets.root(index(key)))
                .or_default()
                .push(operation);
        }
    }
    for (root, operations) in members {
        let partition = groups.get_mut(&root).expect("each root has its keys");
        partition.items = compile(&partition.keys, operations);
    }
    groups.into_values().collect()
}

fn matters(operation: &Operation) -> bool {
    match (&operation.input, &operation.output) {
        (_, Output::Refused) | (Input::Range { .. }, _) => false,
        (Input::Get { consistency, .. }, _) => {
            *consistency == Consistency::Linearizable && operation.known_at_ns().is_some()
        }
        (Input::Put { .. } | Input::Delete { .. } | Input::Txn { .. }, _) => true,
    }
}

/// Union-find. The root of a set is its smallest member, which makes the order of partitions that
/// of their keys.
struct Sets {
    parent: Vec<usize>,
}

impl Sets {
    fn root(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parent[one.max(other)] = one.min(other);
    }
}

/// Everything that the answers of one partition show of one value of one key.
#[derive(Default)]
struct Sighting {
    revisions: BTreeSet<u64>,
    writers: usize,
}

type Sightings<'a> = BTreeMap<(&'a Key, ValueId), Sighting>;

fn compile<'a>(keys: &[&'a Key], mut operations: Vec<&'a Operation>) -> Vec<Item<'a>> {
    operations.sort_by_key(|operation| (operation.call_ns, operation.client, operation.id));
    let sightings = sightings(&operations);
    let compiler = Compiler {
        keys,
        sightings: &sightings,
    };
    operations
        .into_iter()
        .map(|operation| compiler.item(operation))
        .collect()
}

fn sightings<'a>(operations: &[&'a Operation]) -> Sightings<'a> {
    let mut all = Sightings::new();
    for operation in operations
        .iter()
        .filter(|operation| operation.known_at_ns().is_some())
    {
        for (
            key,
            Entry {
                value,
                mod_revision,
                ..
            },
        ) in operation.seen_entries()
        {
            all.entry((key, value))
                .or_default()
                .revisions
                .insert(mod_revision);
        }
    }
    for operation in operations {
        let written: BTreeSet<_> = puts_of(&operation.input).collect();
        for put in written {
            if let Some(sighting) = all.get_mut(&put) {
                sighting.writers += 1;
            }
        }
    }
    all
}

fn puts_of(input: &Input) -> impl Iterator<Item = (&Key, ValueId)> {
    input
        .writes()
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
}

struct Compiler<'s, 'a> {
    keys: &'s [&'a Key],
    sightings: &'s Sightings<'a>,
}

impl<'a> Compiler<'_, 'a> {
    fn item(&self, operation: &'a Operation) -> Item<'a> {
        let known_at = operation.known_at_ns();
        Item {
            operation,
            call_ns: operation.call_ns,
            deadline_ns: known_at.unwrap_or(u64::MAX),
            step: self.step(&operation.input),
            answer: known_at.map(|_| answer(&operation.output)),
            revision: match known_at {
                Some(_) => operation.write_revision(),
                None => self.revision_shown(&operation.input),
            },
        }
    }

    /// The revision at which others saw a write whose own client was told nothing. Only if it is
    /// the one writer of that value, and all who saw it agree; else the search has to find out.
    fn revision_shown(&self, input: &Input) -> Option<u64> {
        let shown = puts_of(input).filter_map(|put| self.sightings.get(&put));
        let mut revisions = BTreeSet::new();
        for sighting in shown {
            if sighting.writers != 1 {
                return None;
            }
            revisions.extend(&sighting.revisions);
        }
        if revisions.len() == 1 {
            revisions.first().copied()
        } else {
            None
        }
    }

    fn step(&self, input: &Input) -> Step {
        match input {
            Input::Put { key, value, expect } => {
                self.single(key, *expect, |at| Act::Put(at, self.value(key, *value)))
            }
            Input::Delete { key, expect } => self.single(key, *expect, Act::Delete),
            Input::Get { key, .. } => self.single(key, Expect::Any, Act::Get),
            Input::Txn {
                compares,
                then,
                otherwise,
            } => Step {
                compares: compares
                    .iter()
                    .map(|c| (self.at(&c.key), c.expect))
                    .collect(),
                then: then.iter().map(|op| self.act(op)).collect(),
                otherwise: otherwise.iter().map(|op| self.act(op)).collect(),
            },
            Input::Range { .. } => Step::default(),
        }
    }

    fn single(&self, key: &Key, expect: Expect, act: impl Fn(usize) -> Act) -> Step {
        let at = self.at(key);
        Step {
            compares: vec![(at, expect)],
            then: vec![act(at)],
            otherwise: vec![Act::Version(at)],
        }
    }

    fn act(&self, op: &TxnOp) -> Act {
        match op {
            TxnOp::Put { key, value } => Act::Put(self.at(key), self.value(key, *value)),
            TxnOp::Get { key } => Act::Get(self.at(key)),
            TxnOp::Delete { key } => Act::Delete(self.at(key)),
        }
    }

    fn at(&self, key: &Key) -> usize {
        self.keys
            .binary_search(&key)
            .expect("the partition holds the keys of its operations")
    }

    fn value(&self, key: &Key, value: ValueId) -> Option<ValueId> {
        self.sightings.contains_key(&(key, value)).then_some(value)
    }
}

fn answer(output: &Output) -> Answer {
    let done = |seen| Answer {
        succeeded: true,
        seen: vec![seen],
    };
    match output {
        Output::PutOk {
            version,
            create_revision,
            ..
        } => done(Seen::Put(*version, *create_revision)),
        Output::Value { entry, .. } => done(Seen::Get(*entry)),
        Output::DeleteOk { existed, .. } => done(Seen::Delete(*existed)),
        Output::CompareFailed { current } => Answer {
            succeeded: false,
            seen: vec![Seen::Version(*current)],
        },
        Output::TxnOk {
            succeeded, results, ..
        } => Answer {
            succeeded: *succeeded,
            seen: results.iter().map(seen).collect(),
        },
        // No request has an empty answer with a version in it, so these never fit.
        Output::Entries { .. } | Output::Unknown | Output::Refused => done(Seen::Version(None)),
    }
}

fn seen(result: &TxnResult) -> Seen {
    match result {
        TxnResult::Put {
            version,
            create_revision,
        } => Seen::Put(*version, *create_revision),
        TxnResult::Get(entry) => Seen::Get(*entry),
        TxnResult::Delete { existed } => Seen::Delete(*existed),
    }
}
