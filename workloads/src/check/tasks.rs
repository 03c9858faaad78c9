//! What must be true of the processes that really ran ([`crate::ledger`]).
//!
//! | rule | section of docs/orchestration.md |
//! |---|---|
//! | no moment has two writers of one volume | 3 (U-9) |
//! | two processes of one slot are a handover, which ends | 3 |
//! | a task runs on one worker, and its attempts one after the other | 1, 5 |

use super::{Finding, Rule};
use crate::ledger::Run;
use std::collections::BTreeMap;
use std::time::Duration;

/// Moments at which a volume had two writers, but for those that an operator brought about ([`Run::may_share`]).
pub fn writers(runs: &[Run], now: Duration) -> Vec<Finding> {
    let pairs = writer_pairs(runs, now);
    let wrong = pairs
        .into_iter()
        .filter(|(_, one, other, (from, _))| !one.may_share(other, *from));
    wrong
        .map(|(volume, one, other, (from, to))| {
            Finding::new(
                Rule::SingleWriter,
                format!("volume {volume}: task {}.{} on {} and task {}.{} on {} from {from:.3?} to {to:.3?}",
                    one.task, one.attempt, one.host, other.task, other.attempt, other.host),
            )
        })
        .collect()
}

/// The longest time for which an operator brought about that a volume had two writers; none if that did not happen.
pub fn forced(runs: &[Run], now: Duration) -> Option<Duration> {
    let pairs = writer_pairs(runs, now).into_iter();
    let forced = pairs.filter(|(_, one, other, (from, _))| one.may_share(other, *from));
    forced.map(|(_, _, _, (from, to))| to - from).max()
}

/// Two processes that wrote to a volume at the same time, and when.
type WriterPair<'a> = (&'a str, &'a Run, &'a Run, (Duration, Duration));

/// All of them.
fn writer_pairs(runs: &[Run], now: Duration) -> Vec<WriterPair<'_>> {
    let mut of_volume: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        for volume in &run.volumes {
            of_volume.entry(volume).or_default().push(run);
        }
    }
    let mut found = Vec::new();
    for (volume, runs) in of_volume {
        for (one, other, (from, to)) in overlaps(&runs, now) {
            found.push((volume, one, other, (from, to)));
        }
    }
    found
}

/// Attempts of one task that ran at the same time, or on two workers.
pub fn attempts(runs: &[Run], now: Duration) -> Vec<Finding> {
    let mut of_task: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        of_task.entry(run.task).or_default().push(run);
    }
    let mut found = Vec::new();
    for (task, runs) in of_task {
        for (one, other, (from, _)) in overlaps(&runs, now) {
            found.push(Finding::new(
                Rule::OneAttempt,
                format!(
                    "task {task}: attempts {} on {} and {} on {} at {from:.3?}",
                    one.attempt, one.host, other.attempt, other.host
                ),
            ));
        }
        if let Some(other) = runs.iter().find(|run| run.host != runs[0].host) {
            found.push(Finding::new(
                Rule::OneAttempt,
                format!("task {task} ran on {} and on {}", runs[0].host, other.host),
            ));
        }
    }
    found
}

/// Slots that held two processes for longer than `bound` allows the newer one, not counting the time within `excused` (faults and
/// what follows them).
pub fn doubles(
    runs: &[Run],
    bound: impl Fn(&Run) -> Duration,
    excused: &[(Duration, Duration)],
    now: Duration,
) -> Vec<Finding> {
    let mut of_slot: BTreeMap<(&str, u64), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        of_slot
            .entry((&run.service, run.slot))
            .or_default()
            .push(run);
    }
    let mut found = Vec::new();
    for ((service, slot), runs) in of_slot {
        for (one, other, (from, to)) in overlaps(&runs, now) {
            let long = (to - from).saturating_sub(covered((from, to), excused));
            let newer = if one.from > other.from { one } else { other };
            let bound = bound(newer);
            if long > bound {
                found.push(Finding::new(
                    Rule::SlotDoubled,
                    format!("{service} slot {slot}: task {} on {} and task {} on {} for {:.1?} from {from:.3?} on, {bound:.1?} allowed",
                        one.task, one.host, other.task, other.host, to - from),
                ));
            }
        }
    }
    found
}

/// How much of a span lies within others, which may overlap.
fn covered((from, to): (Duration, Duration), others: &[(Duration, Duration)]) -> Duration {
    let mut others = others.to_vec();
    others.sort();
    let (mut sum, mut at) = (Duration::ZERO, from);
    for (begin, end) in others {
        let (begin, end) = (begin.max(at), end.min(to));
        if begin < end {
            sum += end - begin;
            at = end;
        }
    }
    sum
}

/// Pairs that are there at the same time, and when.
fn overlaps<'a>(runs: &[&'a Run], now: Duration) -> Vec<(&'a Run, &'a Run, (Duration, Duration))> {
    let mut pairs = Vec::new();
    for (place, one) in runs.iter().enumerate() {
        for other in &runs[place + 1..] {
            if let Some(span) = one.overlap(other, now) {
                pairs.push((*one, *other, span));
            }
        }
    }
    pairs
}

/// How many processes of `service` serve, as steps over time: from each moment on, so many.
pub fn serving(runs: &[Run], service: &str, now: Duration) -> Vec<(Duration, i64)> {
    let mut changes: BTreeMap<Duration, i64> = BTreeMap::new();
    let spans = runs
        .iter()
        .filter(|run| run.service == service)
        .filter_map(|run| run.serves(now));
    for (from, to) in spans {
        *changes.entry(from).or_default() += 1;
        *changes.entry(to).or_default() -= 1;
    }
    let mut sum = 0;
    let mut steps = Vec::new();
    for (at, change) in changes {
        sum += change;
        steps.push((at, sum));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::service::spec::Amounts;
    use node::types::TaskId;

    fn run(task: u64, host: &str, from: u64, to: Option<u64>) -> Run {
        Run {
            host: host.to_owned(),
            task: TaskId(task),
            attempt: 1,
            service: "db".to_owned(),
            slot: 1,
            version: 1,
            volumes: vec!["data".to_owned()],
            reserved: Amounts::default(),
            from: Duration::from_secs(from),
            ready_after: Duration::ZERO,
            told: None,
            given_up: None,
            to: to.map(Duration::from_secs),
            why: String::new(),
        }
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn two_writers_are_seen_and_a_handover_in_the_same_moment_is_none() {
        let one_after_the_other = [run(1, "w1", 0, Some(5)), run(2, "w2", 5, None)];
        assert!(writers(&one_after_the_other, NOW).is_empty());
        let both = [run(1, "w1", 0, None), run(2, "w2", 50, None)];
        assert_eq!(writers(&both, NOW).len(), 1);
        assert_eq!(forced(&both, NOW), None);
        let mut removed = both;
        removed[0].given_up = Some(Duration::from_secs(40));
        removed[0].to = Some(Duration::from_secs(60));
        assert!(writers(&removed, NOW).is_empty());
        assert_eq!(forced(&removed, NOW), Some(Duration::from_secs(10)));
        removed[0].given_up = Some(Duration::from_secs(55));
        assert_eq!(writers(&removed, NOW).len(), 1, "the operator came later");
    }

    #[test]
    fn a_slot_is_doubled_for_no_longer_than_the_bound_unless_it_is_excused() {
        let runs = [run(1, "w1", 0, Some(30)), run(2, "w2", 10, None)];
        let bound = |_: &Run| Duration::from_secs(15);
        assert_eq!(doubles(&runs, bound, &[], NOW).len(), 1);
        let cut = (Duration::from_secs(5), Duration::from_secs(25));
        assert!(doubles(&runs, bound, &[cut], NOW).is_empty());
        let forever = [run(1, "w1", 0, None), run(2, "w2", 10, None)];
        assert_eq!(
            doubles(&forever, bound, &[cut], NOW).len(),
            1,
            "one cut does not excuse all of it"
        );
        assert!(doubles(&runs, |_| Duration::from_secs(30), &[], NOW).is_empty());
    }

    #[test]
    fn a_task_never_runs_on_two_workers() {
        let runs = [run(1, "w1", 0, Some(5)), run(1, "w2", 10, None)];
        assert_eq!(attempts(&runs, NOW).len(), 1);
    }

    #[test]
    fn those_that_serve_are_counted() {
        let mut slow = run(2, "w2", 10, Some(50));
        slow.ready_after = Duration::from_secs(5);
        slow.told = Some(Duration::from_secs(40));
        let seconds = |steps: Vec<(Duration, i64)>| -> Vec<(u64, i64)> {
            steps
                .into_iter()
                .map(|(at, many)| (at.as_secs(), many))
                .collect()
        };
        let steps = seconds(serving(&[run(1, "w1", 0, None), slow], "db", NOW));
        assert_eq!(steps, [(0, 1), (15, 2), (40, 1), (100, 0)]);
    }
}
