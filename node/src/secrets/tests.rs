//! A value on its whole way: into the log by one manager, out of it by another, onto a worker, and open there alone.
#![expect(
    clippy::disallowed_methods,
    reason = "each test builds the runtime it runs on"
)]

use super::seal::{KEY_BYTES, KeyPair};
use super::vault::Vault;
use crate::error::Code;
use crate::fleet::apply::At;
use crate::fleet::secret::Version;
use crate::fleet::{Command, Fleet, WorkerNote};
use crate::rt::{Env, real};
use crate::scheduler::model::Task;
use crate::service::Spec;
use crate::service::spec::SecretMount;
use crate::types::{Epoch, NodeId, TaskId, WorkerId};
use crate::worker::exchange::Assignments;
use crate::worker::words::Assignment;
use std::path::Path;
use zeroize::Zeroizing;

const VALUE: &[u8] = b"correct horse battery staple";
const WORKER: WorkerId = WorkerId(40);

/// A fleet and the managers that look after it.
struct World {
    fleet: Fleet,
    index: u64,
    home: tempfile::TempDir,
    env: Env,
}

impl World {
    fn new() -> World {
        World {
            fleet: Fleet::default(),
            index: 10,
            home: tempfile::tempdir().unwrap(),
            env: real::env("test").unwrap(),
        }
    }

    fn run(&mut self, command: Command) -> Result<crate::fleet::Done, String> {
        self.index += 1;
        let at = At {
            index: self.index,
            time_ms: 1_000,
            ..At::default()
        };
        let done = self.fleet.apply(&command, at);
        done.map_err(|refused| refused.message)
    }

    /// The vault of a manager; its directory is that of the one before.
    fn vault(&self, id: u64) -> Vault {
        let dir = self.home.path().join(id.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        Vault::new(&self.env, dir)
    }

    /// The first data key, by `id`.
    async fn make(&mut self, id: u64) -> Vault {
        let (vault, node) = (self.vault(id), NodeId(id));
        let public = vault.pair().await.unwrap().public();
        let share = vault.share(&vault.draw_key(), node, public).unwrap();
        self.run(Command::KeyringMake {
            node,
            public,
            share,
        })
        .unwrap();
        vault
    }

    /// Gives `to` its share, by `from`.
    async fn share(&mut self, from: (&Vault, u64), to: (&Vault, u64)) {
        let node = NodeId(to.1);
        let public = to.0.pair().await.unwrap().public();
        self.run(Command::KeyringJoin { node, public }).unwrap();
        let pair = from.0.pair().await.unwrap();
        let key = from.0.data_key(&pair, &self.fleet, NodeId(from.1)).unwrap();
        let share = from.0.share(&key, node, public).unwrap();
        let key = self.fleet.keyring.id;
        self.run(Command::KeyringShare {
            key,
            node,
            public,
            share,
        })
        .unwrap();
    }

    async fn put(&mut self, by: (&Vault, u64), name: &str, version: u64) -> Result<(), String> {
        let pair = by.0.pair().await.unwrap();
        let key = by.0.data_key(&pair, &self.fleet, NodeId(by.1)).unwrap();
        let value = Zeroizing::new(VALUE.to_vec());
        let sealed = by.0.seal(&key, name, version, &value);
        let what = Version {
            key: self.fleet.keyring.id,
            bytes: VALUE.len() as u64,
            sealed,
        };
        let name = name.to_owned();
        let put = Command::SecretPut {
            name,
            version,
            what,
        };
        self.run(put).map(drop)
    }

    /// A worker with a task that has version 1 of `db`.
    fn worker(&mut self, pair: &KeyPair) -> Assignments {
        let note = WorkerNote {
            public_key: Some(pair.public()),
            ..WorkerNote::default()
        };
        self.fleet.workers.insert(WORKER, note);
        let mut spec = Spec::new("web", &["run"]);
        spec.secrets.push(SecretMount::new("db"));
        let task = Task {
            id: TaskId(1),
            secrets: [("db".to_owned(), 1)].into(),
            ..Task::default()
        };
        self.fleet.snapshot.tasks.insert(task.id, task);
        let given = Assignment {
            task: TaskId(1),
            service: Default::default(),
            slot: 1,
            version: 1,
            desired: crate::service::Desired::Run,
            spec: spec.into(),
            secrets: Default::default(),
        };
        Assignments {
            epoch: Epoch(1),
            revision: 1,
            tasks: vec![given],
        }
    }
}

async fn delivered(
    world: &World,
    by: (&Vault, u64),
    mut given: Assignments,
) -> Result<Assignment, Code> {
    let to = (NodeId(by.1), WORKER);
    let done = by.0.deliver(&world.fleet, to, &mut given).await;
    done.map_err(|error| error.code)?;
    Ok(given.tasks.remove(0))
}

fn holds_clear_text(dir: &Path) -> bool {
    let files = std::fs::read_dir(dir).unwrap().map(|one| one.unwrap());
    files.into_iter().any(|file| match file.path().is_dir() {
        true => holds_clear_text(&file.path()),
        false => contains(&std::fs::read(file.path()).unwrap()),
    })
}

fn contains(bytes: &[u8]) -> bool {
    bytes.windows(VALUE.len()).any(|part| part == VALUE)
}

/// Warren's defect 7: every manager had a key of its own.
#[tokio::test]
async fn any_manager_opens_what_another_sealed_and_one_with_an_empty_disk_does_again() {
    let mut world = World::new();
    let pair = KeyPair::from_private(&[9; KEY_BYTES]);
    let first = world.make(1).await;
    world.put((&first, 1), "db", 1).await.unwrap();
    let given = world.worker(&pair);
    let second = world.vault(2);
    let early = delivered(&world, (&second, 2), given.clone()).await;
    assert_eq!(early.unwrap_err(), Code::TooStale, "it has no share yet");
    world.share((&first, 1), (&second, 2)).await;
    for by in [(&first, 1), (&second, 2)] {
        let task = delivered(&world, by, given.clone()).await.unwrap();
        let files = crate::worker::secrets::open(&pair, WORKER, &task);
        assert_eq!(&*files.unwrap_or_default()[0].value, VALUE);
        let other = KeyPair::from_private(&[8; KEY_BYTES]);
        assert!(crate::worker::secrets::open(&other, WORKER, &task).is_err());
        assert!(crate::worker::secrets::open(&pair, WorkerId(41), &task).is_err());
        assert!(!contains(&serde_json::to_vec(&task).unwrap()));
    }
    std::fs::remove_dir_all(world.home.path().join("1")).unwrap();
    let first = world.vault(1);
    world.share((&second, 2), (&first, 1)).await;
    let task = delivered(&world, (&first, 1), given).await.unwrap();
    assert!(crate::worker::secrets::open(&pair, WORKER, &task).is_ok());
    assert!(!holds_clear_text(world.home.path()));
    let records: Vec<_> = world.fleet.take_changes();
    assert!(!records.is_empty());
    let texts = records.into_iter().filter_map(|record| record.value);
    assert!(!texts.into_iter().any(|value| contains(&value)));
}

#[tokio::test]
async fn a_key_that_everybody_lost_is_said_and_made_anew() {
    let mut world = World::new();
    let pair = KeyPair::from_private(&[9; KEY_BYTES]);
    let first = world.make(1).await;
    world.put((&first, 1), "db", 1).await.unwrap();
    let refused = world.run(Command::KeyringMake {
        node: NodeId(2),
        public: pair.public(),
        share: first
            .share(&first.draw_key(), NodeId(2), pair.public())
            .unwrap(),
    });
    assert!(refused.unwrap_err().contains("already"));
    std::fs::remove_dir_all(world.home.path().join("1")).unwrap();
    let first = world.vault(1);
    let public = first.pair().await.unwrap().public();
    let join = Command::KeyringJoin {
        node: NodeId(1),
        public,
    };
    world.run(join).unwrap();
    let given = world.worker(&pair);
    let says = |task: &Assignment| {
        let refused = crate::worker::secrets::open(&pair, WORKER, task);
        refused.map(|_| ()).unwrap_err().message
    };
    let task = delivered(&world, (&first, 1), given.clone()).await.unwrap();
    assert!(says(&task).contains("secret update db"), "{}", says(&task));
    let first = world.make(1).await;
    let task = delivered(&world, (&first, 1), given.clone()).await.unwrap();
    assert!(says(&task).contains("secret update db"), "{}", says(&task));
    world.put((&first, 1), "db", 2).await.unwrap();
    let living = world.fleet.snapshot.tasks.get_mut(&TaskId(1)).unwrap();
    living.secrets.insert("db".to_owned(), 2);
    let task = delivered(&world, (&first, 1), given).await.unwrap();
    assert!(crate::worker::secrets::open(&pair, WORKER, &task).is_ok());
}

#[tokio::test]
async fn versions_are_counted_and_those_of_living_tasks_are_kept() {
    let mut world = World::new();
    let first = world.make(1).await;
    let by = (&first, 1);
    let missing = world.put(by, "db", 2).await.unwrap_err();
    assert!(missing.contains("secret create"), "{missing}");
    world.put(by, "db", 1).await.unwrap();
    let twice = world.put(by, "db", 1).await.unwrap_err();
    assert!(twice.contains("secret update"), "{twice}");
    assert!(world.put(by, "../db", 1).await.is_err());
    let pair = KeyPair::from_private(&[9; KEY_BYTES]);
    world.worker(&pair);
    for version in 2..5 {
        world.put(by, "db", version).await.unwrap();
    }
    let kept: Vec<u64> = world.fleet.secrets["db"].versions.keys().copied().collect();
    assert_eq!(kept, [1, 4], "the task's and the newest");
    let loaded = world.fleet.snapshot.secrets["db"];
    assert_eq!(loaded, 4);
}
