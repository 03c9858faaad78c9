//! How every manager comes to its share of the data key: one task on every node, asleep in a cluster without secrets.
//!
//! A manager without a share that it can open (a new one, or one with an empty disk) tells its public key; any manager that has the data
//! key seals it for that one. The leader does it if it can, since it hears of it first; otherwise those who can, one after the
//! other, so that a leader with an empty disk waits a second and not for ever.

use super::vault::Vault;
use crate::error::Error;
use crate::fleet::{Command, Fleet};
use crate::handle::{Condition, Handle, Status};
use crate::rt::{Clock, Mono};
use crate::types::{NodeId, Role};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pause before what did not come to anything is tried again, and between two managers' turns.
const SOON: Duration = Duration::from_secs(1);
/// How often it looks although the fleet did not change: members come and go without it.
const NOW_AND_THEN: Duration = Duration::from_secs(30);

/// The task.
struct Keeper {
    clock: Clock,
    handle: Handle,
    vault: Vault,
    /// Since when managers have been without a share.
    waiting: BTreeMap<NodeId, Mono>,
}

/// Runs until the node's tasks are stopped.
pub(crate) async fn run(clock: Clock, handle: Handle, vault: Vault) {
    let mut fleets = handle.follow_fleet();
    let mut keeper = Keeper {
        clock: clock.clone(),
        handle,
        vault,
        waiting: BTreeMap::new(),
    };
    loop {
        let fleet = Arc::clone(&fleets.borrow_and_update());
        if fleet.keyring.id == 0 {
            match fleets.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        let pause = match keeper.tend(&fleet).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::debug!(%error, "the key of secrets is looked after later");
                SOON
            }
        };
        let changed = clock.timeout(pause, fleets.changed()).await;
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

impl Keeper {
    /// Does what is to be done now; answers when to look again if nothing changes.
    async fn tend(&mut self, fleet: &Fleet) -> Result<Duration, Error> {
        let status = self.handle.status();
        let is_member = |id: NodeId| status.members.iter().any(|one| one.member.id == id.0);
        if status.condition != Condition::Running || !is_member(status.id) {
            return Ok(SOON);
        }
        let (me, keyring) = (status.id, &fleet.keyring);
        let pair = self.vault.pair().await?;
        let Some(key) = self.vault.data_key(&pair, fleet, me) else {
            let mine = keyring.managers.get(&me);
            let is_told = |one: &crate::fleet::secret::Holder| {
                one.public == pair.public() && one.share.is_none()
            };
            if !mine.is_some_and(is_told) {
                let public = pair.public();
                self.give(Command::KeyringJoin { node: me, public }).await?;
            }
            return Ok(NOW_AND_THEN);
        };
        let (mut pause, now) = (NOW_AND_THEN, self.clock.now());
        let turn = turn(fleet, &status);
        self.waiting.retain(|id, _| keyring.share(*id).is_none());
        for (&node, holder) in &keyring.managers {
            if !is_member(node) {
                if status.role == Role::Leader {
                    self.give(Command::KeyringLeave { node }).await?;
                }
                continue;
            }
            if holder.share.is_some() {
                continue;
            }
            let since = *self.waiting.entry(node).or_insert(now);
            let at = since.plus(turn);
            if now < at {
                pause = pause.min(at.since(now));
                continue;
            }
            self.waiting.insert(node, now);
            pause = SOON;
            if let Some(share) = self.vault.share(&key, node, holder.public) {
                self.give(Command::KeyringShare {
                    key: keyring.id,
                    node,
                    public: holder.public,
                    share,
                })
                .await?;
            }
        }
        Ok(pause)
    }

    async fn give(&self, command: Command) -> Result<(), Error> {
        self.handle.command(&command, None).await.map(drop)
    }
}

/// How long this manager, which has the data key, waits for others to share it.
fn turn(fleet: &Fleet, status: &Status) -> Duration {
    let able = |id: NodeId| fleet.keyring.share(id).is_some();
    if status.role == Role::Leader {
        return Duration::ZERO;
    }
    let ids = fleet.keyring.managers.keys();
    let before = ids.filter(|id| **id < status.id && **id != status.leader && able(**id));
    let before = before.count() + usize::from(able(status.leader));
    SOON * u32::try_from(before).unwrap_or(u32::MAX)
}
