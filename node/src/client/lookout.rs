//! What a client does while a node is silent: it asks the others who leads, and leaves when it is somebody else.
//!
//! A node that lost power, or was cut off, closes no connection: whoever waits for its answer waits for as long as he is willing to. The
//! others know better, a few hundred milliseconds later. So a call that has waited for [`Options::patience`](super::Options)
//! asks another node, over another connection, for `/v1/cluster`.
//!
//! Rules:
//! - What may be repeated (a read, a write in a session) leaves as soon as another node is said to lead. That also frees a call
//!   from a follower that has handed it on to a leader which died. At a leader that is merely slow, all say that it leads, and
//!   the call stays.
//! - What may not be repeated leaves when, besides, the node is silent on a second connection: its outcome is unknown then, and the
//!   caller learns so at once. A node that does answer will tell itself what became of the write.
//! - The word of a lower term than one heard before is old, and not believed.
//! - All calls of a client share what is heard, and ask in turn: however many wait, there is one question in a quarter of the patience.
//!   Pauses are drawn from the client's own stream.

use super::Client;
use crate::api::wire::ClusterAnswer;
use crate::error::{Code, Error, Leader};
use crate::rt::Mono;
use crate::types::Term;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// Questions of all calls are at least this part of the patience apart.
const APART: u32 = 4;
/// A node asked has so many times the patience for its answer: a connection has to be made first.
const ANSWER: u32 = 2;

/// Who leads, and how sure that is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct News {
    /// Who.
    leader: Leader,
    /// Since which term.
    term: Term,
    /// When it was heard last.
    at: Mono,
}

/// What a client has heard of leaders while it waited for silent nodes.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// The leader of the highest term heard of.
    news: Option<News>,
    /// Nobody is asked before.
    not_before: Mono,
    /// Which endpoint is asked next.
    turn: usize,
}

/// What a waiting call does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Goes to this leader.
    Leave(Leader),
    /// Asks this node who leads.
    Ask(String),
    /// Waits for so long, then looks again.
    Wait(Duration),
}

impl Lookout {
    /// The next step of a call that waits for `silent` since `since`.
    fn step(
        &mut self,
        (silent, since): (&str, Mono),
        endpoints: &[String],
        now: Mono,
        patience: Duration,
        rng: &mut ChaCha8Rng,
    ) -> Step {
        let fresh = self.news.as_ref().filter(|news| news.at >= since);
        if let Some(news) = fresh.filter(|news| news.leader.http != silent) {
            return Step::Leave(news.leader.clone());
        }
        let count = endpoints.len();
        let mut others = (0..count).map(|step| self.turn.wrapping_add(step) % count);
        match others.find(|place| endpoints[*place] != silent) {
            Some(place) if now >= self.not_before => {
                self.turn = place + 1;
                self.not_before = now.plus(patience / APART);
                Step::Ask(endpoints[place].clone())
            }
            _ => {
                let whole = u64::try_from((patience / 2).as_micros()).unwrap_or(u64::MAX);
                let micros = rng.random_range(whole / 2..=whole).max(1_000);
                Step::Wait(Duration::from_micros(micros))
            }
        }
    }

    /// Takes note of a node's answer.
    fn heard(&mut self, answer: &ClusterAnswer, now: Mono) {
        let known = self.news.as_ref().map_or(Term(0), |news| news.term);
        let member = answer.members.iter().find(|one| one.id == answer.leader);
        let Some(leader) = member.filter(|one| !one.http.is_empty() && answer.term >= known) else {
            return;
        };
        self.news = Some(News {
            leader: Leader {
                id: leader.id,
                name: leader.name.clone(),
                http: leader.http.clone(),
            },
            term: answer.term,
            at: now,
        });
    }
}

impl Client {
    /// Ends when another node than `silent` is known to lead, which a call has begun to wait for. Never, when there is nobody to ask.
    pub(super) async fn another_leads(&self, silent: &str) -> Leader {
        let inner = &self.0;
        let patience = inner.options.patience;
        let since = inner.clock.now();
        inner.clock.sleep(patience).await;
        loop {
            let step = {
                let state = &mut *self.state();
                let (endpoints, now) = (&state.endpoints, inner.clock.now());
                let waiting = (silent, since);
                state
                    .lookout
                    .step(waiting, endpoints, now, patience, &mut state.rng)
            };
            match step {
                Step::Leave(leader) => return leader,
                Step::Wait(pause) => inner.clock.sleep(pause).await,
                Step::Ask(other) => {
                    if let Some(answer) = self.word_of(&other).await {
                        self.state().lookout.heard(&answer, inner.clock.now());
                    }
                }
            }
        }
    }

    /// Ends when `endpoint` leaves a question unanswered; asks less and less often.
    pub(super) async fn is_silent(&self, endpoint: &str) {
        let mut pause = self.0.options.patience;
        while self.word_of(endpoint).await.is_some() {
            self.0.clock.sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
    }

    /// The cluster as the node at `endpoint` sees it, if it says so soon.
    async fn word_of(&self, endpoint: &str) -> Option<ClusterAnswer> {
        let limit = self.0.options.patience.saturating_mul(ANSWER);
        let asking = self.cluster_at(endpoint);
        self.0.clock.timeout(limit, asking).await.ok()?.ok()
    }

    /// The error of a try that was given up for another leader. `sent` says that the request may have reached the node.
    pub(super) fn left(&self, endpoint: &str, leader: Leader, sent: bool) -> Error {
        let departures = &mut self.state().departures;
        *departures = departures.saturating_add(1);
        let message = format!("{endpoint} gave no answer, and {} leads now", leader.name);
        let mut error = Error::new(Code::Timeout, message).leader(Some(leader));
        error.outcome_unknown = sent;
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::MemberInfo;
    use crate::types::{ClusterId, Incarnation, Index, NodeId, Revision, Role};
    use rand_chacha::rand_core::SeedableRng;

    /// The patience of these tests.
    const PATIENCE: Duration = Duration::from_millis(200);

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    /// A node's word that `leader` leads since `term`; 0 for nobody.
    fn word(leader: u64, term: u64) -> ClusterAnswer {
        let member = |id: u64| MemberInfo {
            id: NodeId(id),
            name: format!("n{id}"),
            peer: String::new(),
            http: format!("n{id}:1"),
            incarnation: Incarnation(1),
            role: Role::Follower,
            match_index: None,
            replication_lag: None,
            active: None,
        };
        ClusterAnswer {
            cluster_id: ClusterId(1),
            id: NodeId(2),
            name: "n2".to_owned(),
            leader: NodeId(leader),
            term: Term(term),
            commit_index: Index(0),
            applied_index: Index(0),
            revision: Revision(0),
            members: (1..=3).map(member).collect(),
        }
    }

    /// The step at `ms` of a call that waits for n1 since `since_ms`.
    fn step(lookout: &mut Lookout, since_ms: u64, ms: u64) -> Step {
        let mut rng = ChaCha8Rng::seed_from_u64(ms);
        let endpoints = ["n1:1", "n2:1", "n3:1"].map(str::to_owned);
        let waiting = ("n1:1", at(since_ms));
        lookout.step(waiting, &endpoints, at(ms), PATIENCE, &mut rng)
    }

    #[test]
    fn others_are_asked_in_turn_and_all_calls_share_the_questions() {
        let mut lookout = Lookout::default();
        assert_eq!(step(&mut lookout, 0, 200), Step::Ask("n2:1".to_owned()));
        for ms in [200, 210, 249] {
            let Step::Wait(pause) = step(&mut lookout, 0, ms) else {
                panic!("too early for a question")
            };
            assert!(pause >= PATIENCE / 4 && pause <= PATIENCE / 2, "{pause:?}");
        }
        assert_eq!(step(&mut lookout, 0, 250), Step::Ask("n3:1".to_owned()));
        assert_eq!(step(&mut lookout, 0, 300), Step::Ask("n2:1".to_owned()));
    }

    #[test]
    fn only_another_leader_is_a_reason_to_leave() {
        let mut lookout = Lookout::default();
        lookout.heard(&word(0, 5), at(210));
        lookout.heard(&word(1, 5), at(220));
        assert_eq!(step(&mut lookout, 0, 300), Step::Ask("n2:1".to_owned()));
        lookout.heard(&word(3, 6), at(310));
        let Step::Leave(leader) = step(&mut lookout, 0, 310) else {
            panic!("another leads")
        };
        assert_eq!((leader.id, &*leader.http), (NodeId(3), "n3:1"));
        let later = step(&mut lookout, 400, 600);
        assert_eq!(
            later,
            Step::Ask("n3:1".to_owned()),
            "news from before the try began are old"
        );
    }

    #[test]
    fn word_of_a_lower_term_is_not_believed() {
        let mut lookout = Lookout::default();
        lookout.heard(&word(1, 5), at(210));
        lookout.heard(&word(3, 4), at(220));
        assert_eq!(step(&mut lookout, 0, 300), Step::Ask("n2:1".to_owned()));
        lookout.heard(&word(3, 6), at(310));
        assert!(matches!(step(&mut lookout, 0, 310), Step::Leave(_)));
    }

    #[test]
    fn client_of_one_node_has_nobody_to_ask() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let endpoints = ["n1:1".to_owned()];
        let waiting = ("n1:1", at(0));
        let step = Lookout::default().step(waiting, &endpoints, at(900), PATIENCE, &mut rng);
        assert!(matches!(step, Step::Wait(_)));
    }
}
