//! What nodes wrote of themselves: the journal, read back from the JSON lines of their logs.
//!
//! In simulation the same records come straight from the node; here they have gone through the log, which is what an operator has.
//! Lines that are no records of the journal, or that a kill has torn, are passed over.

use crate::clock::RunClock;
use node::rt::Event;
use node::types::{GroupId, Index, NodeId, Role, Term};
use serde::Deserialize;
use workloads::measure::Mark;

/// The fields of log lines that are used here.
#[derive(Deserialize)]
struct Line {
    /// When, UTC.
    timestamp: String,
    /// Which record.
    message: String,
    /// Role, by its name.
    role: Option<String>,
    /// Term.
    term: Option<String>,
    /// Known leader.
    leader: Option<String>,
    /// Voters, ids with commas.
    voters: Option<String>,
    /// Learners, ids with commas.
    learners: Option<String>,
    /// Position in the log.
    index: Option<String>,
    /// Why.
    reason: Option<String>,
}

/// The records in the log of `place` that measures and the story use, in order.
pub(crate) fn read(place: &str, log: &str, clock: &RunClock) -> Vec<Mark> {
    let mark = |line: &str| {
        let line: Line = serde_json::from_str(line).ok()?;
        let at = clock.of_stamp(&line.timestamp)?;
        let event = event(line)?;
        let place = place.to_owned();
        Some(Mark { at, place, event })
    };
    log.lines().filter_map(mark).collect()
}

/// The record in a line.
fn event(line: Line) -> Option<Event> {
    let group = GroupId::default();
    Some(match line.message.as_str() {
        "role changed" => Event::RoleChanged {
            group,
            role: role(line.role.as_deref()?)?,
            term: Term(number(&line.term?)?),
            leader: NodeId(number(&line.leader?)?),
        },
        "membership changed" => Event::MembershipChanged {
            group,
            index: Index(number(&line.index?)?),
            voters: ids(&line.voters?),
            learners: ids(&line.learners?),
        },
        "the store is built anew from the newest snapshot and the log" => Event::StoreRebuilt {
            reason: line.reason?,
        },
        "poisoned: this node acknowledges nothing any more" => Event::Poisoned {
            reason: line.reason?,
        },
        _ => return None,
    })
}

/// A role by its name.
fn role(name: &str) -> Option<Role> {
    let roles = [Role::Leader, Role::Follower, Role::Candidate, Role::Learner];
    roles.into_iter().find(|role| role.to_string() == name)
}

/// The number in a word such as `t3` or `3`.
fn number(word: &str) -> Option<u64> {
    let digits = word.trim_start_matches(|one: char| one.is_ascii_alphabetic());
    digits.parse().ok()
}

/// Ids with commas between them.
fn ids(words: &str) -> Vec<NodeId> {
    words.split(',').filter_map(number).map(NodeId).collect()
}

/// What the story says of a record; nothing for what is too small for it.
pub(crate) fn told(event: &Event) -> Option<String> {
    Some(match event {
        Event::RoleChanged {
            role: Role::Leader,
            term,
            ..
        } => format!("LEADS term {}", term.0),
        Event::MembershipChanged {
            voters, learners, ..
        } => format!(
            "applies a membership of {} voters and {} learners",
            voters.len(),
            learners.len()
        ),
        Event::StoreRebuilt { reason } => format!("builds its store anew: {reason}"),
        Event::Poisoned { reason } => format!("is POISONED: {reason}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log_become_records_and_others_are_passed_over() {
        let log = concat!(
            r#"{"timestamp":"2999-01-01T00:00:00.5Z","level":"INFO","message":"role changed","node":"n1","#,
            r#""role":"leader","term":"3","leader":"2","target":"node"}"#,
            "\nnot json\n",
            r#"{"timestamp":"2999-01-01T00:00:01Z","message":"serving","http":"a"}"#,
            "\n",
            r#"{"timestamp":"2999-01-01T00:00:02Z","message":"membership changed","voters":"1,2","learners":"","index":"7"}"#,
            "\n{\"timestamp\":\"2999-01-01T0"
        );
        let marks = read("n1", log, &RunClock::start());
        let told: Vec<_> = marks.iter().filter_map(|mark| told(&mark.event)).collect();
        assert_eq!(
            told,
            [
                "LEADS term 3",
                "applies a membership of 2 voters and 0 learners"
            ]
        );
        assert!(marks[0].at < marks[1].at);
    }
}
