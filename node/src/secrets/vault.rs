//! What a manager seals and opens: its key pair, the data key as its share gives it, and what goes to workers.

use super::keyfile;
use super::seal::{About, Clear, DataKey, KEY_BYTES, KeyPair, PublicKey, Sealed, seal_for};
use crate::error::{Code, Error};
use crate::fleet::Fleet;
use crate::rt::{Env, Lane};
use crate::service::Desired;
use crate::types::{NodeId, WorkerId};
use crate::worker::exchange::Assignments;
use crate::worker::words::GivenSecret;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// A manager's vault. A clone is the same.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

/// What a vault is.
struct Inner {
    /// Where the key file is read and written.
    lane: Lane,
    /// The data directory.
    dir: PathBuf,
    /// Chance: one stream, drawn from by everybody, so that nothing is drawn twice.
    chance: Mutex<ChaCha8Rng>,
    /// The key pair, once it was needed.
    pair: Mutex<Option<Arc<KeyPair>>>,
    /// The share that was opened last, and the data key in it.
    opened: Mutex<Option<(Sealed, DataKey)>>,
}

impl Vault {
    /// The vault of the data directory `dir`. Nothing is read before it is needed.
    pub fn new(env: &Env, dir: PathBuf) -> Self {
        Vault(Arc::new(Inner {
            lane: env.lanes.open("secrets"),
            dir,
            chance: Mutex::new(env.rngs.stream("secrets")),
            pair: Mutex::new(None),
            opened: Mutex::new(None),
        }))
    }

    /// This manager's key pair.
    pub(super) async fn pair(&self) -> Result<Arc<KeyPair>, Error> {
        let known = self.0.pair.lock().expect("nobody panics here").clone();
        if let Some(pair) = known {
            return Ok(pair);
        }
        let mut fresh = Zeroizing::new([0; KEY_BYTES]);
        self.draw(&mut *fresh);
        let dir = self.0.dir.clone();
        let opened = self.0.lane.run(move || keyfile::open(&dir, &fresh)).await;
        let pair = match opened {
            Ok(Ok(pair)) => Arc::new(pair),
            Ok(Err(message)) => return Err(Error::new(Code::ReadOnly, message)),
            Err(closed) => return Err(Error::new(Code::ShuttingDown, closed.to_string())),
        };
        *self.0.pair.lock().expect("nobody panics here") = Some(Arc::clone(&pair));
        Ok(pair)
    }

    fn draw(&self, bytes: &mut [u8]) {
        let mut chance = self.0.chance.lock().expect("nobody panics while drawing");
        chance.fill_bytes(bytes);
    }

    /// The data key as `node`'s share in `fleet` gives it; none: it has no share that opens.
    pub(super) fn data_key(&self, pair: &KeyPair, fleet: &Fleet, node: NodeId) -> Option<DataKey> {
        let holder = fleet.keyring.managers.get(&node)?;
        let share = holder.share.as_ref()?;
        let mut opened = self.0.opened.lock().expect("nobody panics here");
        if let Some((known, key)) = &*opened
            && known == share
        {
            return Some(key.clone());
        }
        let clear = pair.open(share, About::Share { node: node.0 })?;
        let key = DataKey::of(&clear)?;
        *opened = Some((share.clone(), key.clone()));
        Some(key)
    }

    /// A new data key.
    pub(super) fn draw_key(&self) -> DataKey {
        let mut chance = self.0.chance.lock().expect("nobody panics while drawing");
        DataKey::draw(&mut *chance)
    }

    /// The data key, sealed for a manager.
    pub(super) fn share(&self, key: &DataKey, node: NodeId, public: PublicKey) -> Option<Sealed> {
        let mut chance = self.0.chance.lock().expect("nobody panics while drawing");
        let about = About::Share { node: node.0 };
        seal_for(public, key.bytes(), about, &mut *chance)
    }

    /// A value, sealed for the log.
    pub(super) fn seal(&self, key: &DataKey, name: &str, version: u64, clear: &Clear) -> Sealed {
        let mut chance = self.0.chance.lock().expect("nobody panics while drawing");
        key.seal(clear, About::Value { name, version }, &mut *chance)
    }

    /// Puts into `assignments` the secrets of tasks that shall run, sealed for their worker. An error means that another manager can.
    pub(crate) async fn deliver(
        &self,
        fleet: &Fleet,
        (node, worker): (NodeId, WorkerId),
        assignments: &mut Assignments,
    ) -> Result<(), Error> {
        let wanted = |task: &crate::worker::words::Assignment| {
            task.desired == Desired::Run && !task.spec.secrets.is_empty()
        };
        if !assignments.tasks.iter().any(wanted) {
            return Ok(());
        }
        let pair = self.pair().await?;
        let key = self.data_key(&pair, fleet, node);
        if key.is_none() && !fleet.keyring.is_empty() {
            return Err(no_share());
        }
        let public = fleet.workers.get(&worker).and_then(|note| note.public_key);
        for task in assignments.tasks.iter_mut().filter(|task| wanted(task)) {
            let pinned = fleet.snapshot.tasks.get(&task.task);
            for (name, &version) in pinned.into_iter().flat_map(|task| &task.secrets) {
                let sealed = self.pass_on(fleet, key.as_ref(), (worker, public), (name, version));
                let (sealed, why) = match sealed {
                    Ok(sealed) => (Some(sealed), None),
                    Err(why) => (None, Some(why)),
                };
                let given = GivenSecret {
                    version,
                    sealed,
                    why,
                };
                task.secrets.insert(name.clone(), given);
            }
        }
        Ok(())
    }

    /// One secret, opened and sealed again for a worker; or why it cannot be.
    fn pass_on(
        &self,
        fleet: &Fleet,
        key: Option<&DataKey>,
        (worker, public): (WorkerId, Option<PublicKey>),
        (name, version): (&str, u64),
    ) -> Result<Sealed, String> {
        let secret = fleet.secrets.get(name);
        let kept = secret.and_then(|secret| secret.versions.get(&version));
        let kept =
            kept.ok_or_else(|| format!("version {version} of secret {name} is not kept any more"))?;
        let lost = || {
            format!(
                "version {version} of secret {name} was sealed by a key that no manager has any more: \
                 give it again with `secret update {name}`"
            )
        };
        let key = key.filter(|_| kept.key == fleet.keyring.id);
        let about = About::Value { name, version };
        let clear = key.and_then(|key| key.open(&kept.sealed, about));
        let clear = clear.ok_or_else(lost)?;
        let public = public.ok_or_else(|| {
            format!("worker {worker} has told no key for which secret {name} could be sealed")
        })?;
        let about = About::Delivery {
            worker: worker.0,
            name,
            version,
        };
        let mut chance = self.0.chance.lock().expect("nobody panics while drawing");
        let sealed = seal_for(public, &clear, about, &mut *chance);
        sealed.ok_or_else(|| format!("the key of worker {worker} is none"))
    }
}

/// This manager cannot open secrets yet.
pub(super) fn no_share() -> Error {
    let message =
        "this manager cannot open the cluster's secrets yet: it has no share of their key";
    Error::new(Code::TooStale, message)
        .hint("another manager gives it one within seconds: try again, here or elsewhere")
}
