//! The JSON of secrets, as types both sides share. Values go one way: no answer has one.

use super::wire::{Fresh, Place};
use crate::fleet::Fleet;
use crate::fleet::secret::Secret;
use crate::types::TaskId;
use serde::{Deserialize, Serialize};

/// A secret to be made. It has no `Debug`: it holds the value.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// Name.
    pub name: String,
    /// Value, base64.
    pub value: String,
}

/// Another value for a secret. It has no `Debug`: it holds the value.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// Value, base64.
    pub value: String,
}

/// A secret was made or given another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretWritten {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Name.
    pub name: String,
    /// Its version now.
    pub version: u64,
}

/// A secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// Name.
    pub name: String,
    /// Its newest version, from 1.
    pub version: u64,
    /// Length of the newest value, bytes.
    pub bytes: u64,
    /// When it was made.
    pub created_ms: u64,
    /// When its newest version came.
    pub updated_ms: u64,
    /// Whether some manager has the key by which it is sealed; otherwise its value is lost and must be given again.
    pub readable: bool,
    /// Names of the services that name it, now or in the version before.
    pub services: Vec<String>,
    /// Tasks that have a version of it.
    pub tasks: Vec<SecretUse>,
}

/// A task that has a version of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// The task.
    pub task: TaskId,
    /// The version that it has.
    pub version: u64,
}

impl SecretInfo {
    /// The secret called `name` as `fleet` has it.
    pub(crate) fn of(fleet: &Fleet, name: &str, secret: &Secret) -> Self {
        let tasks = fleet.snapshot.tasks.values();
        let living = tasks.filter(|task| !task.state.is_end());
        let users = living.filter_map(|task| {
            let version = *task.secrets.get(name)?;
            let task = task.id;
            Some(SecretUse { task, version })
        });
        let newest = secret.versions.last_key_value().map(|(_, one)| one);
        let keyring = &fleet.keyring;
        let readable = |key: u64| key == keyring.id && !keyring.is_empty();
        SecretInfo {
            name: name.to_owned(),
            version: secret.newest(),
            bytes: newest.map_or(0, |one| one.bytes),
            created_ms: secret.created_ms,
            updated_ms: secret.updated_ms,
            readable: newest.is_some_and(|one| readable(one.key)),
            services: fleet
                .secret_users(name)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            tasks: users.collect(),
        }
    }
}

/// Answer to a read of one secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretAnswer {
    /// The secret.
    #[serde(flatten)]
    pub secret: SecretInfo,
    /// How fresh it is.
    #[serde(flatten)]
    pub fresh: Fresh,
}

/// Answer to a read of all secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsAnswer {
    /// Secrets, by name.
    pub secrets: Vec<SecretInfo>,
    /// How fresh they are.
    #[serde(flatten)]
    pub fresh: Fresh,
}
