//! Membership changes: both forms behind one trait, what a change does to the joint phase, and a
//! notation of one word per member for tests and logs.
//!
//! Left out: whether a change is allowed in the present configuration; `raft` decides that.
//! Every function that reads a change's type panics on an unknown number, as the accessors do:
//! better before such a change is in the log than on every replica that applies it.

use std::borrow::Cow;

use crate::types::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
    Snapshot,
};

/// A membership change in the older or the newer form.
pub trait ConfChangeI {
    /// The change in the newer form, by value.
    fn into_v2(self) -> ConfChangeV2;

    /// The change in the newer form, borrowed if it already is.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// The change in the older form, if that is what it is; nothing is converted.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        let change = new_conf_change_single(self.node_id, self.get_change_type());
        let transition = ConfChangeTransition::Auto.into();
        ConfChangeV2 {
            transition,
            changes: vec![change],
            context: self.context,
        }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether the change goes through a joint phase, and if so whether raft itself ends it.
    ///
    /// Several members never change in one step under `Auto`, although some such changes could:
    /// that depends on the configuration they meet, which this message does not know.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.get_transition() {
            ConfChangeTransition::Auto => (self.changes.len() > 1).then_some(true),
            ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Explicit => Some(false),
        }
    }

    /// Whether the change ends a joint phase: it names no member and no transition.
    pub fn leave_joint(&self) -> bool {
        self.changes.is_empty() && self.get_transition() == ConfChangeTransition::Auto
    }
}

impl Snapshot {
    /// Whether this is the absence of a snapshot: log indexes start at 1.
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }
}

/// Voters first, learners second, no joint phase.
impl<V, L> From<(V, L)> for ConfState
where
    V: IntoIterator<Item = u64>,
    L: IntoIterator<Item = u64>,
{
    fn from((voters, learners): (V, L)) -> Self {
        let voters = voters.into_iter().collect();
        let learners = learners.into_iter().collect();
        Self {
            voters,
            learners,
            ..Self::default()
        }
    }
}

/// Whether both name the same members in the same roles, in whatever order.
#[must_use]
pub fn conf_state_eq(left: &ConfState, right: &ConfState) -> bool {
    // Both sides nearly always come from the same log in the same order.
    left == right || canonical(left) == canonical(right)
}

/// The same membership with each list sorted and free of repeats.
fn canonical(state: &ConfState) -> ConfState {
    let mut state = state.clone();
    let ConfState {
        voters,
        learners,
        voters_outgoing,
        learners_next,
        auto_leave: _,
    } = &mut state;
    for members in [voters, learners, voters_outgoing, learners_next] {
        members.sort_unstable();
        members.dedup();
    }
    state
}

/// A change of one member.
pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle {
        change_type: change_type.into(),
        node_id,
    }
}

/// Reads changes written as words: `v1` makes 1 a voter, `l2` makes 2 a learner, `r3` removes 3.
///
/// # Errors
/// Names the first word that is none of these. (A plain string, since `raft` expects that.)
pub fn parse_conf_change(text: &str) -> Result<Vec<ConfChangeSingle>, String> {
    text.split_ascii_whitespace().map(parse_word).collect()
}

/// Reads one word of [`parse_conf_change`].
fn parse_word(word: &str) -> Result<ConfChangeSingle, String> {
    let (change_type, id) = match word.split_at_checked(1) {
        Some(("v", id)) => (ConfChangeType::AddNode, id),
        Some(("l", id)) => (ConfChangeType::AddLearnerNode, id),
        Some(("r", id)) => (ConfChangeType::RemoveNode, id),
        _ => return Err(format!("`{word}` does not start with v, l or r")),
    };
    let node_id = id
        .parse()
        .map_err(|error| format!("`{word}` has no raft id: {error}"))?;
    Ok(new_conf_change_single(node_id, change_type))
}

/// Writes changes in the notation that [`parse_conf_change`] reads.
pub fn stringify_conf_change(changes: &[ConfChangeSingle]) -> String {
    let words: Vec<String> = changes.iter().map(word).collect();
    words.join(" ")
}

/// Writes one word of [`stringify_conf_change`].
fn word(change: &ConfChangeSingle) -> String {
    let letter = match change.get_change_type() {
        ConfChangeType::AddNode => 'v',
        ConfChangeType::AddLearnerNode => 'l',
        ConfChangeType::RemoveNode => 'r',
    };
    format!("{letter}{}", change.node_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(transition: ConfChangeTransition, words: &str) -> ConfChangeV2 {
        let changes = parse_conf_change(words).expect("valid words");
        ConfChangeV2 {
            transition: transition.into(),
            changes,
            ..ConfChangeV2::default()
        }
    }

    #[test]
    fn the_older_form_converts_with_its_context() {
        let context = bytes::Bytes::from_static(b"why");
        let mut old = ConfChange {
            node_id: 4,
            context,
            id: 9,
            ..ConfChange::default()
        };
        old.set_change_type(ConfChangeType::AddLearnerNode);
        let new = old.as_v2().into_owned();
        assert_eq!(stringify_conf_change(&new.changes), "l4");
        assert_eq!(
            (new.context.as_ref(), new.enter_joint()),
            (&b"why"[..], None)
        );
        assert_eq!((old.as_v1(), new.as_v1()), (Some(&old), None));
        assert!(matches!(new.as_v2(), Cow::Borrowed(_)));
        assert_eq!(old.into_v2(), new.clone().into_v2());
    }

    #[test]
    fn the_transition_and_the_number_of_members_decide_on_a_joint_phase() {
        use ConfChangeTransition::{Auto, Explicit, Implicit};
        assert_eq!(change(Auto, "").enter_joint(), None);
        assert_eq!(change(Auto, "v1").enter_joint(), None);
        assert_eq!(change(Auto, "v1 r2").enter_joint(), Some(true));
        assert_eq!(change(Implicit, "v1").enter_joint(), Some(true));
        assert_eq!(change(Explicit, "v1 r2").enter_joint(), Some(false));
    }

    #[test]
    fn only_an_empty_automatic_change_leaves_a_joint_phase() {
        use ConfChangeTransition::{Auto, Explicit};
        let context = bytes::Bytes::from_static(b"x");
        assert!(
            ConfChangeV2 {
                context,
                ..ConfChangeV2::default()
            }
            .leave_joint()
        );
        assert!(!change(Auto, "v1").leave_joint());
        assert!(!change(Explicit, "").leave_joint());
    }

    #[test]
    fn words_are_read_and_written() {
        let changes = parse_conf_change(" v1\tl2 \n r18446744073709551615 ").expect("valid words");
        assert_eq!(
            stringify_conf_change(&changes),
            "v1 l2 r18446744073709551615"
        );
        assert_eq!(parse_conf_change(" "), Ok(vec![]));
        for wrong in [
            "v",
            "x1",
            "v-1",
            "1",
            "v1,l2",
            "é1",
            "r18446744073709551616",
        ] {
            assert!(parse_conf_change(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memberships_are_compared_without_order() {
        let state = ConfState::from(([1, 2, 3], [4]));
        assert!(conf_state_eq(
            &state,
            &ConfState::from((vec![3, 1, 2, 1], vec![4]))
        ));
        assert!(!conf_state_eq(&state, &ConfState::from(([1, 2], [4]))));
        assert!(!conf_state_eq(&state, &ConfState::from(([1, 2, 3, 4], []))));
        assert!(!conf_state_eq(
            &state,
            &ConfState {
                auto_leave: true,
                ..state.clone()
            }
        ));
    }

    #[test]
    fn a_snapshot_is_empty_until_it_has_an_index() {
        let mut snapshot = Snapshot {
            data: bytes::Bytes::from_static(b"x"),
            metadata: None,
        };
        assert!(snapshot.is_empty());
        snapshot.mut_metadata().index = 1;
        assert!(!snapshot.is_empty());
    }
}
