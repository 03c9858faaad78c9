//! The rare situations that a sweep counts: each is told when it is there, and only then.

use node::rt::Event;
use node::types::{GroupId, Index, NodeId, Role, Term};
use sim::rare::Rare;

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn change(index: u64, voters: &[u64], learners: &[u64]) -> Event {
    Event::MembershipChanged {
        group: GroupId(0),
        index: Index(index),
        voters: ids(voters),
        learners: ids(learners),
    }
}

#[test]
fn a_replacement_lasts_from_removal_to_promotion() {
    let mut rare = Rare::default();
    rare.see("n1", &change(5, &[1, 2, 3], &[4]));
    assert!(!rare.voter_is_being_replaced());
    rare.see("n1", &change(9, &[1, 2], &[4]));
    assert!(rare.voter_is_being_replaced());
    rare.see("n2", &change(5, &[1, 2, 3], &[4]));
    assert!(
        rare.voter_is_being_replaced(),
        "a late follower tells old news"
    );
    rare.see("n1", &change(12, &[1, 2, 4], &[]));
    assert!(!rare.voter_is_being_replaced());
}

fn leads(rare: &mut Rare, name: &str) -> Option<&'static str> {
    let event = Event::RoleChanged {
        group: GroupId(0),
        role: Role::Leader,
        term: Term(3),
        leader: NodeId(1),
    };
    rare.see(name, &event)
}

#[test]
fn only_a_leader_dies_while_a_learner_catches_up_or_a_voter_is_replaced() {
    let mut rare = Rare::default();
    assert_eq!(leads(&mut rare, "n1"), None);
    assert_eq!(rare.falls("n1"), None, "there is no learner");
    assert_eq!(leads(&mut rare, "n1"), None);
    rare.see("n1", &change(5, &[1, 2, 3], &[4]));
    assert!(rare.learner_catches_up());
    assert_eq!(rare.falls("n2"), None);
    let catching_up = rare.falls("n1");
    assert_eq!(
        catching_up,
        Some("the leader died while a learner caught up")
    );
    assert_eq!(leads(&mut rare, "n1"), None);
    rare.see("n1", &change(9, &[1, 2], &[4]));
    assert!(!rare.learner_catches_up());
    assert_eq!(rare.falls("n2"), None);
    assert!(
        rare.falls("n1")
            .is_some_and(|probe| Some(probe) != catching_up)
    );
}
