//! Histories that happened are accepted; histories that cannot have happened are not; and on small
//! histories the checker agrees with trying every order.

mod common;

use std::collections::BTreeMap;

use common::generate::{Dice, PLAIN, Run, Shape, generate};
use proptest::prelude::*;
use workloads::check::{
    self, Rule, StaleRules, Verdict, WatchRecord, WatchStep, linearizable, linearizable_within,
};
use workloads::history::{
    Consistency, Entry, Expect, History, Input, Key, Operation, Output, TxnOp, TxnResult, ValueId,
};

const RULES: StaleRules = StaleRules {
    tolerance_ns: 0,
    exact: true,
};

fn shape() -> impl Strategy<Value = Shape> {
    let sizes = (1..200_u64, 1..6_u64, 1..12_u64, 0..15_u64);
    let shares = (
        0..30_u64,
        0..40_u64,
        0..15_u64,
        0..15_u64,
        0..8_u64,
        prop_oneof![Just(0_u64), 1..5_u64],
    );
    (sizes, shares).prop_map(|((operations, keys, clients, unknown), shares)| {
        let (deletes, gets, txns, stale_reads, ranges, values) = shares;
        Shape {
            operations,
            keys,
            clients,
            unknown,
            deletes,
            gets,
            txns,
            stale_reads,
            ranges,
            values,
            mod_revisions: true,
        }
    })
}

fn watch_of(run: &Run) -> WatchRecord {
    let steps = run.log.iter().cloned().map(WatchStep::Event).collect();
    WatchRecord {
        name: "w".into(),
        start_revision: 1,
        prefix: String::new(),
        steps,
    }
}

/// A change that is wrong whatever else happened.
fn spoil(run: &Run, dice: &mut Dice) -> Option<History> {
    let mut history = run.history.clone();
    let count = history.operations.len();
    for _ in 0..50 {
        let at = dice.index(count);
        let stale = match &history.operations[at] {
            Operation {
                input: Input::Get { key, .. },
                call_ns,
                ..
            } => overwritten(run, key, *call_ns),
            _ => None,
        };
        let operation = &mut history.operations[at];
        let by = 1 + dice.below(3);
        match (&operation.input, &mut operation.output) {
            (Input::Get { consistency, .. }, _) if *consistency != Consistency::Linearizable => {
                continue;
            }
            (
                _,
                Output::PutOk {
                    create_revision, ..
                },
            ) if dice.percent(30) => {
                // No write takes revision 0.
                *create_revision = 0;
            }
            (
                _,
                Output::PutOk {
                    revision,
                    version,
                    create_revision,
                },
            ) => {
                // A first version whose life began elsewhere, or a later one that began with
                // itself.
                if *version == 1 {
                    *create_revision = *revision + by;
                } else {
                    *create_revision = *revision;
                }
            }
            (
                _,
                Output::Value {
                    entry: Some(entry), ..
                },
            ) => match dice.below(4) {
                0 => entry.value = ValueId(u64::MAX),
                1 => entry.create_revision = entry.mod_revision + 1,
                2 => entry.version = 0,
                _ => *entry = stale?,
            },
            _ => continue,
        }
        return Some(history);
    }
    None
}

/// What `key` held before a write of it that was acknowledged before `call_ns`.
fn overwritten(run: &Run, key: &Key, call_ns: u64) -> Option<Entry> {
    let puts = run
        .history
        .operations
        .iter()
        .filter_map(|op| match (&op.input, &op.output) {
            (
                Input::Put {
                    key: put, value, ..
                },
                Output::PutOk {
                    revision,
                    version,
                    create_revision,
                },
            ) if put == key && op.return_ns? < call_ns => {
                let (version, create_revision, mod_revision) =
                    (*version, *create_revision, *revision);
                Some(Entry {
                    value: *value,
                    version,
                    create_revision,
                    mod_revision,
                })
            }
            _ => None,
        });
    let mut puts: Vec<Entry> = puts.collect();
    puts.sort_by_key(|entry| entry.mod_revision);
    puts.pop()?;
    puts.pop()
}

/// Changes one number of one answer, which may or may not be wrong then.
fn nudge(history: &mut History, dice: &mut Dice) {
    let count = history.operations.len();
    let at = dice.index(count);
    let up = dice.percent(50);
    let change = |number: &mut u64| {
        *number = if up {
            *number + 1
        } else {
            number.saturating_sub(1)
        }
    };
    let operation = &mut history.operations[at];
    match dice.below(8) {
        0 => {
            operation.return_ns = operation
                .return_ns
                .map(|at| at.saturating_sub(150).max(operation.call_ns))
        }
        1 => operation.call_ns = operation.return_ns.map_or(operation.call_ns, |at| at - 1),
        2 => operation.output = Output::Refused,
        _ => match &mut operation.output {
            Output::PutOk {
                revision,
                version,
                create_revision,
            } => {
                change([revision, version, create_revision][dice.below(3) as usize]);
            }
            Output::CompareFailed {
                current: Some(version),
            } => change(version),
            Output::CompareFailed { current } => *current = Some(1),
            Output::Value {
                entry: Some(entry), ..
            } if dice.percent(75) => {
                let Entry {
                    value,
                    version,
                    create_revision,
                    mod_revision,
                } = entry;
                change(
                    [&mut value.0, version, create_revision, mod_revision][dice.below(4) as usize],
                );
            }
            Output::Value { entry, .. } => *entry = None,
            Output::DeleteOk { existed, .. } if dice.percent(50) => *existed = !*existed,
            Output::DeleteOk { revision, .. } => change(revision),
            Output::TxnOk { succeeded, .. } if dice.percent(20) => *succeeded = !*succeeded,
            Output::TxnOk { revision, .. } => change(revision),
            Output::Entries { .. } | Output::Unknown | Output::Refused => {}
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_happened_is_accepted(seed: u64, shape in shape()) {
        let run = generate(seed, shape);
        let verdict = linearizable(&run.history);
        prop_assert!(!matches!(verdict, Verdict::Violation(_)), "{verdict:#?}");
        prop_assert!(verdict.is_linearizable() || shape.unknown > 5, "{verdict:?}");
        prop_assert_eq!(check::revisions(&run.history), vec![]);
        prop_assert_eq!(check::sessions(&run.history, &run.log), vec![]);
        prop_assert_eq!(check::durability(&run.history, &run.log, &run.state), vec![]);
        prop_assert_eq!(check::stale(&run.history, &run.log, RULES), vec![]);
        prop_assert_eq!(check::ranges(&run.history, &run.log), vec![]);
        prop_assert_eq!(check::watch(&watch_of(&run), &run.log, 0), vec![]);
    }

    #[test]
    fn a_certainly_wrong_answer_is_rejected(seed: u64, shape in shape()) {
        let run = generate(seed, Shape { values: 0, ..shape });
        let Some(spoilt) = spoil(&run, &mut Dice(seed)) else { return Ok(()) };
        let verdict = linearizable(&spoilt);
        prop_assert!(!verdict.is_linearizable(), "{spoilt:#?}");
        prop_assert!(matches!(verdict, Verdict::Violation(_)) || shape.unknown > 5, "{verdict:?}");
    }

    #[test]
    fn a_log_without_an_acknowledged_write_is_rejected(seed: u64, at: u64) {
        let mut run = generate(seed, Shape { unknown: 0, ..PLAIN });
        let at = usize::try_from(at % run.log.len() as u64).unwrap();
        run.log.remove(at);
        let rules = |findings: Vec<check::Finding>| findings.iter().any(|f| f.rule == Rule::Durable);
        prop_assert!(rules(check::durability(&run.history, &run.log, &run.state)));
        prop_assert!(rules(check::sessions(&run.history, &run.log)));
    }

    #[test]
    fn a_watch_with_one_step_wrong_is_rejected(seed: u64, at: u64, how in 0..3_u8) {
        let run = generate(seed, PLAIN);
        let mut record = watch_of(&run);
        let at = usize::try_from(at % (run.log.len() as u64 - 1)).unwrap();
        match how {
            0 => drop(record.steps.remove(at)),
            1 => record.steps.insert(at, record.steps[at].clone()),
            _ => record.steps.swap(at, at + 1),
        }
        prop_assert!(!check::watch(&record, &run.log, 0).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The checker may only be more lenient, and only where it says so: for conditions on mod
    /// revisions, and for the revisions of several writes that nobody saw.
    #[test]
    fn small_histories_agree_with_brute_force(
        seed: u64,
        operations in 1..8_u64,
        keys in 1..3_u64,
        unknown in 0..60_u64,
        values in 0..3_u64,
        txns in 0..30_u64,
        mod_revisions: bool,
        nudges in 0..3_u8,
    ) {
        let deletes = 25;
        let small = Shape { operations, keys, clients: 4, unknown, values, txns, mod_revisions, deletes, ..PLAIN };
        let mut history = generate(seed, small).history;
        let mut dice = Dice(seed ^ 1);
        for _ in 0..nudges {
            nudge(&mut history, &mut dice);
        }
        prop_assume!(history.operations.iter().all(|op| op.return_ns.is_none_or(|at| at >= op.call_ns)));
        let expected = brute_force(&history);
        let verdict = linearizable_within(&history, 1_000_000);
        let unseen = history.operations.iter().filter(|op| op.outcome_unknown()).count();
        let may_be_lenient = !expected && (mod_revisions || unseen > 1);
        let fits = verdict.is_linearizable() == expected || may_be_lenient;
        prop_assert!(fits, "expected {expected}: {verdict:#?}\n{history:#?}");
    }
}

/// Tries every order, every subset of unknown outcomes and every revision that they can have taken.
fn brute_force(history: &History) -> bool {
    let relevant = history.operations.iter().filter(|op| {
        op.output != Output::Refused
            && (op.known_at_ns().is_some() || !op.input.writes().is_empty())
    });
    let operations: Vec<&Operation> = relevant.collect();
    // Each partition has its own revisions, as writes of other keys may lie between; with several
    // keys the partitions are judged one by one.
    let mut groups: Vec<Vec<&Operation>> = Vec::new();
    for operation in operations {
        let keys = operation.input.keys();
        let touches = |group: &Vec<&Operation>| {
            group
                .iter()
                .any(|op| op.input.keys().iter().any(|key| keys.contains(key)))
        };
        let (mut joined, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(touches);
        let mut all = joined.drain(..).flatten().collect::<Vec<_>>();
        all.push(operation);
        groups = apart;
        groups.push(all);
    }
    groups.iter().all(|group| {
        let last = group.iter().filter_map(|op| largest(op)).max().unwrap_or(0);
        Brute { last: last + 8 }.order(group, &BTreeMap::new(), 0)
    })
}

fn largest(operation: &Operation) -> Option<u64> {
    let seen = operation
        .seen_entries()
        .into_iter()
        .map(|(_, entry)| entry.mod_revision);
    seen.chain(operation.write_revision()).max()
}

struct Brute {
    last: u64,
}

type Store = BTreeMap<Key, Entry>;

impl Brute {
    fn order(&self, left: &[&Operation], store: &Store, revision: u64) -> bool {
        if left.iter().all(|op| op.known_at_ns().is_none()) {
            return true;
        }
        let horizon = left
            .iter()
            .filter_map(|op| op.known_at_ns())
            .min()
            .expect("one is answered");
        (0..left.len())
            .filter(|at| left[*at].call_ns <= horizon)
            .any(|at| {
                let rest: Vec<_> = left
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != at)
                    .map(|(_, op)| *op)
                    .collect();
                let operation = left[at];
                match (operation.known_at_ns(), operation.write_revision()) {
                    (Some(_), Some(next)) => {
                        let mut after = store.clone();
                        let output = perform(&mut after, &operation.input, next);
                        next > revision
                            && output == operation.output
                            && self.order(&rest, &after, next)
                    }
                    (Some(_), None) => {
                        let mut after = store.clone();
                        let output = perform(&mut after, &operation.input, 0);
                        same_read(&output, &operation.output)
                            && after == *store
                            && self.order(&rest, store, revision)
                    }
                    (None, _) => (revision + 1..=self.last).any(|next| {
                        let mut after = store.clone();
                        perform(&mut after, &operation.input, next);
                        after != *store && self.order(&rest, &after, next)
                    }),
                }
            })
    }
}

/// Answers alike but for the revision, which has no meaning where nothing was written.
fn same_read(one: &Output, other: &Output) -> bool {
    match (one, other) {
        (Output::DeleteOk { existed: one, .. }, Output::DeleteOk { existed: other, .. }) => {
            one == other
        }
        (
            Output::TxnOk {
                succeeded, results, ..
            },
            Output::TxnOk {
                succeeded: other,
                results: others,
                ..
            },
        ) => succeeded == other && results == others,
        _ => one == other,
    }
}

fn holds(store: &Store, key: &Key, expect: Expect) -> bool {
    let (version, modified) = store
        .get(key)
        .map_or((0, 0), |e| (e.version, e.mod_revision));
    match expect {
        Expect::Any => true,
        Expect::Absent => version == 0,
        Expect::Version(expected) => version == expected,
        Expect::ModRevision(expected) => modified == expected,
    }
}

fn perform(store: &mut Store, input: &Input, revision: u64) -> Output {
    match input {
        Input::Put { key, expect, .. } | Input::Delete { key, expect }
            if !holds(store, key, *expect) =>
        {
            Output::CompareFailed {
                current: store.get(key).map(|entry| entry.version),
            }
        }
        Input::Put { key, value, .. } => {
            let (version, create_revision) = write(store, key, *value, revision);
            Output::PutOk {
                revision,
                version,
                create_revision,
            }
        }
        Input::Delete { key, .. } => Output::DeleteOk {
            existed: store.remove(key).is_some(),
            revision,
        },
        Input::Get { key, .. } => Output::Value {
            entry: store.get(key).copied(),
            mark: None,
        },
        Input::Txn {
            compares,
            then,
            otherwise,
        } => {
            let succeeded = compares.iter().all(|c| holds(store, &c.key, c.expect));
            let branch = if succeeded { then } else { otherwise };
            let result = |op: &TxnOp| match op {
                TxnOp::Put { key, value } => {
                    let (version, create_revision) = write(store, key, *value, revision);
                    TxnResult::Put {
                        version,
                        create_revision,
                    }
                }
                TxnOp::Get { key } => TxnResult::Get(store.get(key).copied()),
                TxnOp::Delete { key } => TxnResult::Delete {
                    existed: store.remove(key).is_some(),
                },
            };
            Output::TxnOk {
                succeeded,
                revision,
                results: branch.iter().map(result).collect(),
            }
        }
        Input::Range { .. } => Output::Unknown,
    }
}

fn write(store: &mut Store, key: &Key, value: ValueId, revision: u64) -> (u64, u64) {
    let old = store.get(key);
    let version = old.map_or(0, |old| old.version) + 1;
    let create_revision = old.map_or(revision, |old| old.create_revision);
    let entry = Entry {
        value,
        version,
        create_revision,
        mod_revision: revision,
    };
    store.insert(key.clone(), entry);
    (version, create_revision)
}
