//! For each rule a history that keeps it and one that breaks it.

mod common;

use std::collections::BTreeMap;

use common::*;
use workloads::check::{
    self, Finding, Rule, StaleRules, Verdict, Violation, WatchRecord, WatchStep, linearizable,
    linearizable_within,
};
use workloads::history::{
    Compare, Consistency, Event, Expect, History, Input, Operation, Output, ReadMark, TxnOp,
    TxnResult, ValueId,
};

fn good(operations: impl IntoIterator<Item = Operation>) {
    assert_eq!(linearizable(&history(operations)), Verdict::Linearizable);
}

fn bad(operations: impl IntoIterator<Item = Operation>) -> Violation {
    match linearizable(&history(operations)) {
        Verdict::Violation(violation) => *violation,
        verdict => panic!("not found: {verdict:?}"),
    }
}

fn rules(findings: &[Finding]) -> Vec<Rule> {
    findings.iter().map(|finding| finding.rule).collect()
}

fn unknown(client: u64, call: u64, input: Input) -> Operation {
    op(client, call, 0, input, Output::Unknown)
}

#[test]
fn concurrent_read_sees_before_or_after() {
    let write = |n, at, until| op(1, at, until, put("a", n), ok(n, n, 1));
    good([
        write(1, 1, 2),
        write(2, 3, 9),
        op(2, 4, 8, get("a"), saw(1, 1, 1, 1)),
    ]);
    good([
        write(1, 1, 2),
        write(2, 3, 9),
        op(2, 4, 8, get("a"), saw(2, 2, 1, 2)),
    ]);
}

#[test]
fn stale_read_is_found_and_told() {
    let violation = bad([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        op(1, 3, 4, put("a", 2), ok(2, 2, 1)),
        op(2, 5, 6, get("a"), saw(1, 1, 1, 1)),
        op(2, 1, 9, get("b"), absent()),
    ]);
    assert_eq!(violation.keys, vec![key("a")]);
    assert_eq!(violation.text, violation.to_string());
    assert!(
        violation
            .text
            .contains("client 2 op 3 [5..6] get \"a\" -> v1"),
        "{violation}"
    );
}

#[test]
fn two_reads_must_not_go_back() {
    bad([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        op(1, 3, 20, put("a", 2), ok(2, 2, 1)),
        op(2, 4, 5, get("a"), saw(2, 2, 1, 2)),
        op(3, 6, 7, get("a"), saw(1, 1, 1, 1)),
    ]);
}

#[test]
fn lost_update_is_found() {
    // Two increments of version 1 both succeed.
    bad([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        op(1, 3, 6, put_if("a", 2, Expect::Version(1)), ok(2, 2, 1)),
        op(2, 4, 7, put_if("a", 3, Expect::Version(1)), ok(3, 2, 1)),
    ]);
    good([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        op(1, 3, 6, put_if("a", 2, Expect::Version(1)), ok(2, 2, 1)),
        op(
            2,
            4,
            7,
            put_if("a", 3, Expect::Version(1)),
            Output::CompareFailed { current: Some(2) },
        ),
    ]);
}

#[test]
fn double_apply_shows_in_the_version() {
    bad([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        op(2, 3, 4, get("a"), saw(1, 2, 1, 2)),
    ]);
}

#[test]
fn unknown_write_may_happen_late_or_never() {
    let first = op(1, 1, 2, put("a", 1), ok(1, 1, 1));
    let lost = unknown(2, 3, put("a", 2));
    let before = op(3, 4, 5, get("a"), saw(1, 1, 1, 1));
    let after = op(3, 6, 7, get("a"), saw(2, 2, 1, 5));
    good([first.clone(), lost.clone(), before.clone()]);
    good([first.clone(), lost.clone(), before.clone(), after.clone()]);
    // It happened once: it cannot be seen before it is asked for, nor vanish.
    bad([first.clone(), unknown(2, 8, put("a", 2)), after.clone()]);
    bad([
        first.clone(),
        lost.clone(),
        after.clone(),
        op(3, 8, 9, get("a"), saw(1, 1, 1, 1)),
    ]);
    // Nobody saw its value, but the next version counts it.
    good([first.clone(), lost, op(1, 8, 9, put("a", 3), ok(9, 3, 1))]);
    bad([first, op(1, 8, 9, put("a", 3), ok(9, 3, 1))]);
}

#[test]
fn unknown_delete_may_happen() {
    let first = op(1, 1, 2, put("a", 1), ok(1, 1, 1));
    let second = op(1, 5, 6, put("a", 2), ok(4, 1, 4));
    good([
        first.clone(),
        unknown(2, 3, del("a")),
        op(3, 3, 4, get("a"), absent()),
        second.clone(),
    ]);
    bad([first, op(3, 3, 4, get("a"), absent()), second]);
}

#[test]
fn refused_write_must_not_be_seen() {
    let seen = op(2, 3, 4, get("a"), saw(1, 1, 1, 1));
    bad([op(1, 1, 2, put("a", 1), Output::Refused), seen]);
}

#[test]
fn revisions_order_writes() {
    bad([
        op(1, 1, 2, put("a", 1), ok(5, 1, 5)),
        op(1, 3, 4, put("a", 2), ok(4, 2, 5)),
    ]);
    // Concurrent, so only the revisions say which came first.
    bad([
        op(1, 1, 9, put("a", 1), ok(5, 2, 4)),
        op(2, 1, 9, put("a", 2), ok(4, 1, 4)),
        op(3, 10, 11, get("a"), saw(2, 1, 4, 4)),
    ]);
}

#[test]
fn create_revision_is_constant_within_a_life() {
    let (first, second) = (op(1, 1, 2, put("a", 1), ok(1, 1, 1)), put("a", 2));
    bad([first.clone(), op(1, 3, 4, second.clone(), ok(2, 2, 2))]);
    let gone = op(1, 3, 4, del("a"), deleted(2));
    good([
        first.clone(),
        gone.clone(),
        op(1, 5, 6, second.clone(), ok(3, 1, 3)),
    ]);
    bad([first, gone, op(1, 5, 6, second, ok(3, 1, 1))]);
}

#[test]
fn transaction_is_atomic_over_its_keys() {
    let txn = Input::Txn {
        compares: vec![Compare {
            key: key("a"),
            expect: Expect::Absent,
        }],
        then: vec![
            TxnOp::Put {
                key: key("a"),
                value: ValueId(1),
            },
            TxnOp::Put {
                key: key("b"),
                value: ValueId(2),
            },
        ],
        otherwise: vec![TxnOp::Get { key: key("b") }],
    };
    let new = TxnResult::Put {
        version: 1,
        create_revision: 1,
    };
    let done = |results| Output::TxnOk {
        succeeded: true,
        revision: 1,
        results,
    };
    let first = op(1, 1, 9, txn.clone(), done(vec![new, new]));
    let sees_a = op(2, 2, 3, get("a"), saw(1, 1, 1, 1));
    good([
        first.clone(),
        sees_a.clone(),
        op(2, 4, 5, get("b"), saw(2, 1, 1, 1)),
    ]);
    let torn = bad([first.clone(), sees_a, op(2, 4, 5, get("b"), absent())]);
    assert_eq!(torn.keys, vec![key("a"), key("b")]);
    let seen = vec![TxnResult::Get(Some(entry(2, 1, 1, 1)))];
    let second = Output::TxnOk {
        succeeded: false,
        revision: 0,
        results: seen,
    };
    good([first.clone(), op(2, 10, 11, txn.clone(), second)]);
    bad([first.clone(), op(2, 10, 11, txn, done(vec![new, new]))]);
    // As unknown, one key seen means that both were written.
    let lost = Operation {
        output: Output::Unknown,
        return_ns: None,
        ..first
    };
    bad([
        lost,
        op(2, 2, 3, get("a"), saw(1, 1, 1, 7)),
        op(2, 4, 5, get("b"), absent()),
    ]);
}

#[test]
fn answer_of_another_kind_never_fits() {
    bad([op(1, 1, 2, put("a", 1), absent())]);
    bad([op(1, 1, 2, get("a"), ok(1, 1, 1))]);
}

#[test]
fn nonsense_and_exhaustion_are_undecided() {
    let backwards = history([op(1, 5, 2, get("a"), absent())]);
    assert!(matches!(linearizable(&backwards), Verdict::Undecided(_)));
    let plain = history([op(1, 1, 2, put("a", 1), ok(1, 1, 1))]);
    assert!(matches!(
        linearizable_within(&plain, 0),
        Verdict::Undecided(_)
    ));
}

#[test]
fn revisions_are_unique_and_follow_time_across_keys() {
    let run = |first, second| {
        let one = op(1, 1, 2, put("a", 1), ok(first, 1, first));
        check::revisions(&history([
            one,
            op(2, 3, 4, put("b", 2), ok(second, 1, second)),
        ]))
    };
    assert_eq!(run(1, 2), vec![]);
    assert_eq!(rules(&run(2, 1)), vec![Rule::RevisionRealTime]);
    assert_eq!(
        rules(&run(3, 3)),
        vec![Rule::RevisionUnique, Rule::RevisionRealTime]
    );
    let seen = op(1, 1, 2, get("a"), saw(1, 1, 9, 9));
    let later = op(2, 3, 4, put("b", 2), ok(8, 1, 8));
    assert_eq!(
        rules(&check::revisions(&history([seen, later]))),
        vec![Rule::RevisionRealTime]
    );
}

#[test]
fn each_write_happens_at_most_once() {
    let past = history([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        unknown(2, 1, put("a", 2)),
        op(3, 1, 2, put("a", 3), Output::Refused),
        op(4, 5, 6, del("a"), deleted(3)),
    ]);
    let sessions = |log: &[Event]| rules(&check::sessions(&past, log));
    let (one, two) = (put_event(1, "a", 1), put_event(2, "a", 2));
    let gone = delete_event(3, "a");
    assert_eq!(sessions(&[one.clone(), two.clone(), gone.clone()]), vec![]);
    assert_eq!(sessions(&[one.clone(), gone.clone()]), vec![]);
    let twice = [one.clone(), two.clone(), gone.clone(), put_event(4, "a", 2)];
    assert_eq!(sessions(&twice), vec![Rule::AtMostOnce]);
    let again = [one.clone(), gone.clone(), put_event(4, "a", 1)];
    assert_eq!(sessions(&again), vec![Rule::AtMostOnce]);
    let refused = [one.clone(), put_event(2, "a", 3), gone.clone()];
    assert_eq!(sessions(&refused), vec![Rule::AtMostOnce]);
    let phantom = [
        one.clone(),
        put_event(2, "a", 77),
        gone.clone(),
        put_event(4, "z", 5),
    ];
    assert_eq!(sessions(&phantom), vec![Rule::AtMostOnce]);
    assert_eq!(
        sessions(&[one, gone.clone(), delete_event(5, "a")]),
        vec![Rule::AtMostOnce]
    );
    assert_eq!(sessions(&[two, gone]), vec![Rule::Durable]);
}

#[test]
fn one_request_is_answered_once() {
    let mut past = history([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        op(1, 3, 4, put("a", 2), ok(2, 2, 1)),
    ]);
    past.operations[1].id = 1;
    let log = [put_event(1, "a", 1), put_event(2, "a", 2)];
    assert_eq!(
        rules(&check::sessions(&past, &log)),
        vec![Rule::AcknowledgedOnce]
    );
}

#[test]
fn acknowledged_writes_are_in_the_log_and_the_state_is_its_replay() {
    let past = history([
        op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
        op(1, 3, 4, put("a", 2), ok(2, 2, 1)),
        op(1, 5, 6, put("b", 3), ok(3, 1, 3)),
        op(1, 7, 8, del("b"), deleted(4)),
    ]);
    let log = [
        put_event(1, "a", 1),
        put_event(2, "a", 2),
        put_event(3, "b", 3),
        delete_event(4, "b"),
    ];
    let state = BTreeMap::from([(key("a"), entry(2, 2, 1, 2))]);
    assert_eq!(check::durability(&past, &log, &state), vec![]);
    let lost = check::durability(&past, &log[..3], &state);
    assert_eq!(rules(&lost), vec![Rule::Durable, Rule::FinalState]);
    let moved = [
        log[0].clone(),
        put_event(2, "a", 9),
        log[2].clone(),
        log[3].clone(),
    ];
    let found = check::durability(&past, &moved, &state);
    assert_eq!(rules(&found), vec![Rule::Durable, Rule::FinalState]);
    let wrong = BTreeMap::from([(key("a"), entry(2, 1, 1, 2))]);
    assert_eq!(
        rules(&check::durability(&past, &log, &wrong)),
        vec![Rule::FinalState]
    );
    let none = History::default();
    let disorder = [
        put_event(2, "a", 1),
        put_event(2, "a", 2),
        put_event(1, "b", 3),
    ];
    let state = BTreeMap::from([(key("a"), entry(2, 2, 2, 2)), (key("b"), entry(3, 1, 1, 1))]);
    let found = check::durability(&none, &disorder, &state);
    assert_eq!(rules(&found), vec![Rule::LogOrder, Rule::LogOrder]);
}

#[test]
fn watch_shows_the_log_without_gap_or_duplicate() {
    let log: Vec<Event> = (1..=5)
        .map(|n| put_event(n, if n == 3 { "b" } else { "a" }, n))
        .collect();
    let event = |n: usize| WatchStep::Event(log[n - 1].clone());
    let watched = |prefix: &str, start_revision, steps: Vec<WatchStep>| {
        let record = WatchRecord {
            name: "w".into(),
            start_revision,
            prefix: prefix.into(),
            steps,
        };
        rules(&check::watch(&record, &log, 2))
    };
    let exact = vec![Rule::WatchExact];
    assert_eq!(
        watched(
            "",
            2,
            vec![event(2), event(3), WatchStep::Progress(3), event(4)]
        ),
        vec![]
    );
    assert_eq!(
        watched(
            "a",
            2,
            vec![event(2), event(4), event(5), WatchStep::Progress(9)]
        ),
        vec![]
    );
    assert_eq!(
        watched("", 2, vec![event(2), event(4), event(5)]),
        exact,
        "gap"
    );
    assert_eq!(
        watched("", 2, vec![event(2), event(2), event(3)]),
        exact,
        "duplicate"
    );
    assert_eq!(
        watched("", 2, vec![event(1), event(2)]),
        exact,
        "before the start"
    );
    assert_eq!(
        watched("", 2, vec![event(3), event(2)]).len(),
        2,
        "reordered"
    );
    assert_eq!(
        watched("", 4, vec![event(4), WatchStep::Progress(5)]),
        exact,
        "behind its progress"
    );
    let alien = WatchStep::Event(put_event(2, "a", 9));
    assert_eq!(
        watched("", 2, vec![alien, event(2)]),
        exact,
        "not in the log"
    );
    let compacted = |resume_at| WatchStep::Compacted { resume_at };
    assert_eq!(watched("", 1, vec![compacted(3), event(3)]), vec![]);
    let lie = watched("", 1, vec![event(1), compacted(5), event(5)]);
    assert_eq!(lie, vec![Rule::WatchCompaction]);
}

const RULES: StaleRules = StaleRules {
    tolerance_ns: 5,
    exact: false,
};

fn stale_rules(rules_used: StaleRules, reads: Vec<Operation>) -> Vec<Rule> {
    let writes = [
        op(1, 10, 20, put("a", 1), ok(1, 1, 1)),
        op(1, 110, 120, put("a", 2), ok(2, 2, 1)),
        op(1, 210, 220, put("b", 3), ok(3, 1, 3)),
    ];
    let log = [
        put_event(1, "a", 1),
        put_event(2, "a", 2),
        put_event(3, "b", 3),
    ];
    let past = history(writes.into_iter().chain(reads));
    rules(&check::stale(&past, &log, rules_used))
}

#[test]
fn stale_read_shows_what_its_node_had_applied() {
    let local = |entry, applied| {
        vec![op(
            2,
            300,
            310,
            read("a", Consistency::Local),
            marked(entry, applied, None),
        )]
    };
    assert_eq!(
        stale_rules(RULES, local(Some(entry(1, 1, 1, 1)), 1)),
        vec![]
    );
    assert_eq!(stale_rules(RULES, local(None, 0)), vec![]);
    assert_eq!(
        stale_rules(RULES, local(Some(entry(1, 1, 1, 1)), 3)),
        vec![]
    );
    let exact = StaleRules {
        exact: true,
        ..RULES
    };
    let wrong = vec![Rule::ReadCommitted];
    assert_eq!(stale_rules(exact, local(Some(entry(1, 1, 1, 1)), 3)), wrong);
    assert_eq!(
        stale_rules(RULES, local(Some(entry(2, 2, 1, 2)), 1)),
        wrong,
        "not yet applied"
    );
    assert_eq!(
        stale_rules(RULES, local(Some(entry(7, 2, 1, 2)), 3)),
        wrong,
        "never written"
    );
    let early = marked(Some(entry(2, 2, 1, 2)), 2, None);
    let early = vec![op(2, 50, 60, read("a", Consistency::Local), early)];
    assert_eq!(stale_rules(RULES, early), wrong, "from the future");
    let bare = vec![op(
        2,
        300,
        310,
        read("a", Consistency::Local),
        saw(2, 2, 1, 2),
    )];
    assert_eq!(stale_rules(RULES, bare), vec![Rule::ReadMarked]);
}

#[test]
fn bounded_read_is_no_older_than_it_says() {
    let bounded = |age| {
        let answer = marked(Some(entry(1, 1, 1, 1)), 1, age);
        stale_rules(
            RULES,
            vec![op(2, 300, 310, read("a", Consistency::Bounded), answer)],
        )
    };
    // Revision 2 replaced it at 120 at the latest.
    assert_eq!(bounded(Some(180)), vec![]);
    assert_eq!(bounded(Some(175)), vec![], "within the tolerance");
    assert_eq!(bounded(Some(174)), vec![Rule::AgeTruthful]);
    assert_eq!(bounded(None), vec![Rule::ReadMarked]);
}

#[test]
fn applied_revision_does_not_fall_on_a_connection() {
    let answer = |call, connection, applied_revision| {
        let mark = ReadMark {
            node: 1,
            connection,
            applied_revision,
            age_ns: None,
        };
        let output = Output::Value {
            entry: None,
            mark: Some(mark),
        };
        op(2, call, call + 5, read("c", Consistency::Local), output)
    };
    assert_eq!(
        stale_rules(RULES, vec![answer(300, 1, 2), answer(310, 1, 2)]),
        vec![]
    );
    assert_eq!(
        stale_rules(RULES, vec![answer(300, 1, 3), answer(310, 2, 2)]),
        vec![]
    );
    assert_eq!(
        stale_rules(RULES, vec![answer(300, 1, 3), answer(304, 1, 2)]),
        vec![],
        "overlap"
    );
    let fell = stale_rules(RULES, vec![answer(300, 1, 3), answer(310, 1, 2)]);
    assert_eq!(fell, vec![Rule::ReadMonotonic]);
}

#[test]
fn range_shows_one_fresh_moment() {
    let log = [
        put_event(1, "a", 1),
        put_event(2, "b", 2),
        put_event(3, "a", 3),
    ];
    let range = |limit, entries: Vec<_>, revision| {
        let consistency = Consistency::Linearizable;
        let input = Input::Range {
            prefix: String::new(),
            limit,
            consistency,
        };
        let past = history([
            op(1, 1, 2, put("a", 1), ok(1, 1, 1)),
            op(1, 3, 4, put("b", 2), ok(2, 1, 2)),
            op(1, 30, 40, put("a", 3), ok(3, 2, 1)),
            op(2, 10, 20, input, Output::Entries { entries, revision }),
        ]);
        rules(&check::ranges(&past, &log))
    };
    let (a, b) = ((key("a"), entry(1, 1, 1, 1)), (key("b"), entry(2, 1, 2, 2)));
    let newer = (key("a"), entry(3, 2, 1, 3));
    let wrong = vec![Rule::RangeConsistent];
    assert_eq!(range(None, vec![a.clone(), b.clone()], 2), vec![]);
    assert_eq!(range(Some(1), vec![a.clone()], 2), vec![]);
    assert_eq!(range(None, vec![a.clone()], 2), wrong, "a key is missing");
    assert_eq!(range(None, vec![a], 1), wrong, "stale");
    assert_eq!(range(None, vec![newer, b], 3), wrong, "from the future");
}

#[test]
fn values_are_told_apart_by_their_bytes() {
    assert_ne!(ValueId::of_bytes(b"one"), ValueId::of_bytes(b"two"));
}
