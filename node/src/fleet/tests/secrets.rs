//! Tasks and their secrets: waiting, pinned versions, refusals to remove.

use super::*;
use crate::fleet::secret::Version;
use crate::scheduler::explain;
use crate::secrets::KeyPair;
use crate::secrets::seal::{About, DataKey, seal_for};
use crate::service::spec::SecretMount;
use crate::types::NodeId;

fn chance() -> rand_chacha::ChaCha8Rng {
    crate::rt::Rngs::from_seed([3; 32]).stream("test")
}

impl Crew {
    fn keyring(&mut self) {
        let public = KeyPair::from_private(&[1; 32]).public();
        let share = seal_for(public, &[2; 32], About::Share { node: 1 }, &mut chance());
        self.good(Command::KeyringMake {
            node: NodeId(1),
            public,
            share: share.unwrap(),
        });
    }

    fn secret(&mut self, name: &str, version: u64) {
        let key = DataKey::of(&[2; 32]).unwrap();
        let what = Version {
            key: self.fleet.keyring.id,
            bytes: 1,
            sealed: key.seal(b"x", About::Value { name, version }, &mut chance()),
        };
        self.good(Command::SecretPut {
            name: name.to_owned(),
            version,
            what,
        });
    }
}

fn with_secret(mut spec: Spec, name: &str) -> Spec {
    spec.secrets = vec![SecretMount::new(name)];
    spec
}

#[test]
fn a_task_waits_for_its_secret_says_so_and_then_keeps_its_version() {
    let mut crew = Crew::new();
    crew.hello("w1").unwrap();
    let spec = with_secret(spec("web", 1), "db");
    crew.good(Command::ServiceCreate { spec });
    crew.settle();
    let why = explain(&crew.fleet.snapshot, &crew.moment, TaskId(1)).unwrap();
    assert!(
        why.summary.contains("there is no secret db"),
        "{}",
        why.summary
    );
    crew.keyring();
    assert_eq!(crew.told(), ["secrets.key.made"]);
    crew.secret("db", 1);
    assert_eq!(crew.told(), ["secret.created"]);
    crew.settle();
    assert_eq!(crew.task(1).state, State::Assigned);
    crew.secret("db", 2);
    assert_eq!(crew.told(), ["secret.updated"]);
    assert_eq!(crew.task(1).secrets["db"], 1, "it stays as it was assigned");
    assert_eq!(crew.fleet.secrets["db"].versions.len(), 2);
    crew.report(1, State::Failed);
    crew.now_ms += 60_000;
    crew.settle();
    assert_eq!(crew.task(2).secrets["db"], 2, "the next has the newest");
    crew.secret("db", 3);
    let kept: Vec<u64> = crew.fleet.secrets["db"].versions.keys().copied().collect();
    assert_eq!(kept, [2, 3], "nobody has the first any more");
}

#[test]
fn a_secret_that_is_named_stays() {
    let mut crew = Crew::new();
    crew.keyring();
    crew.secret("db", 1);
    let spec = with_secret(spec("web", 1), "db");
    crew.good(Command::ServiceCreate { spec });
    let remove = |name: &str| Command::SecretRemove {
        name: name.to_owned(),
    };
    let why = crew.refused(remove("db"), "named by service web");
    assert_eq!(why, Refusal::Conflict);
    assert_eq!(crew.refused(remove("dc"), "secret ls"), Refusal::NotFound);
    crew.good(Command::ServiceRemove {
        name: "web".to_owned(),
    });
    crew.settle();
    crew.good(remove("db"));
    assert_eq!(crew.told(), ["secret.removed"]);
    assert!(crew.fleet.secrets.is_empty() && crew.fleet.snapshot.secrets.is_empty());
}

#[test]
fn a_worker_with_a_new_key_is_sent_its_assignments_again() {
    let mut crew = Crew::new();
    crew.hello("w1").unwrap();
    let before = crew.revision("w1");
    let mut word = crew.word_of("w1");
    word.machine.public_key = Some(KeyPair::from_private(&[1; 32]).public());
    crew.say(word).unwrap();
    assert!(crew.revision("w1") > before);
}
