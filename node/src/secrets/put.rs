//! How a value gets in: sealed here, before anything is proposed, and acknowledged only when a majority of managers can open it.

use super::VALUE_BYTES_MAX;
use super::seal::{Clear, DataKey};
use super::vault::{Vault, no_share};
use crate::error::{Code, Error};
use crate::fleet::secret::Version;
use crate::fleet::{Command, Done, Fleet};
use crate::handle::{Consistency, Handle, Status};
use crate::rt::Mono;
use crate::state::command::Outcome;
use crate::types::Role;
use std::time::Duration;

/// Tries when somebody else gives the same secret a value at the same time.
const TRIES: u32 = 5;

impl Handle {
    /// Makes the secret `name`, or gives it another value; answers with its version.
    pub async fn put_secret(
        &self,
        name: &str,
        value: &Clear,
        is_new: bool,
        timeout: Option<Duration>,
    ) -> Result<(u64, Outcome), Error> {
        if let Err(message) = crate::service::check::secret_name(name) {
            return Err(Error::new(Code::InvalidArgument, message));
        }
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            let message = format!(
                "the value of secret {name} has {} bytes: it must have 1 to {VALUE_BYTES_MAX}",
                value.len()
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let vault = self.vault()?;
        let end = self.deadline(timeout);
        let mut tries = 0;
        loop {
            tries += 1;
            let (fleet, _) = self
                .read_fleet(Consistency::Linearizable, Some(self.left(end)?))
                .await?;
            let version = next_version(&fleet, name, is_new)?;
            let (id, key) = self.data_key(vault, end).await?;
            let command = Command::SecretPut {
                name: name.to_owned(),
                version,
                what: Version {
                    key: id,
                    bytes: value.len() as u64,
                    sealed: vault.seal(&key, name, version, value),
                },
            };
            match self.command(&command, Some(self.left(end)?)).await {
                Ok((Done::Secret { version }, outcome)) => return Ok((version, outcome)),
                Ok((other, _)) => {
                    let message = format!("unexpected outcome {other:?}");
                    return Err(Error::new(Code::Internal, message).unknown());
                }
                Err(error) if error.code == Code::Conflict && tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What is left of the time until `end`.
    fn left(&self, end: Mono) -> Result<Duration, Error> {
        let now = self.clock().now();
        if now >= end {
            let message = "the secret could not be sealed in time";
            return Err(Error::new(Code::Timeout, message));
        }
        Ok(end.since(now))
    }

    /// The data key with its id, once a majority of voters has it. Made here if there is none.
    async fn data_key(&self, vault: &Vault, end: Mono) -> Result<(u64, DataKey), Error> {
        let pair = vault.pair().await?;
        let mut fleets = self.follow_fleet();
        loop {
            let fleet = fleets.borrow_and_update().clone();
            let status = self.status();
            if fleet.keyring.is_empty() {
                let key = vault.draw_key();
                let share = vault.share(&key, status.id, pair.public());
                let command = Command::KeyringMake {
                    node: status.id,
                    public: pair.public(),
                    share: share.ok_or_else(no_share)?,
                };
                match self.command(&command, Some(self.left(end)?)).await {
                    Ok(_) => {}
                    Err(error) if error.code == Code::Conflict => {} // Another manager was faster.
                    Err(error) => return Err(error),
                }
            }
            let fleet = match self.fleet().index > fleet.index {
                true => fleets.borrow_and_update().clone(),
                false => fleet,
            };
            if is_safe(&fleet, &status)
                && let Some(key) = vault.data_key(&pair, &fleet, status.id)
            {
                return Ok((fleet.keyring.id, key));
            }
            let changed = self.clock().timeout(self.left(end)?, fleets.changed());
            match changed.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    return Err(Error::new(Code::ShuttingDown, "this node is stopping"));
                }
                Err(_) => return Err(no_share()),
            }
        }
    }
}

/// Whether a majority of voters has a share: whatever one disk does, the key is not lost.
fn is_safe(fleet: &Fleet, status: &Status) -> bool {
    let voters = status.members.iter();
    let voters = voters.filter(|one| one.role != Role::Learner);
    let (mut all, mut able) = (0, 0);
    for voter in voters {
        all += 1;
        let id = crate::types::NodeId(voter.member.id);
        able += usize::from(fleet.keyring.share(id).is_some());
    }
    able > all / 2
}

/// The version that the value will have.
fn next_version(fleet: &Fleet, name: &str, is_new: bool) -> Result<u64, Error> {
    match (fleet.snapshot.secrets.get(name), is_new) {
        (None, true) => Ok(1),
        (Some(newest), false) => Ok(newest + 1),
        (Some(_), true) => {
            let message = format!("secret {name} is there already");
            Err(Error::new(Code::Conflict, message).hint("`secret update` gives it a new value"))
        }
        (None, false) => {
            let message = format!("there is no secret {name}");
            Err(Error::new(Code::NotFound, message).hint("`secret create` makes it"))
        }
    }
}
