//! What the log knows of secrets: their sealed versions, and the data key's shares.

use super::Fleet;
use crate::secrets::seal::{PublicKey, Sealed};
use crate::types::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A secret. Only ciphertext is known of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its newest version came, milliseconds since the Unix epoch.
    pub updated_ms: u64,
    /// The newest version and those that tasks still use, by number from 1.
    pub versions: BTreeMap<u64, Version>,
}

/// A version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Which data key sealed it ([`Keyring::id`]).
    pub key: u64,
    /// Length of the value, bytes.
    pub bytes: u64,
    /// The value, sealed.
    pub sealed: Sealed,
}

/// Who can open what is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// The entry that brought the data key; zero: there was never one.
    pub id: u64,
    /// Managers that have told their public key.
    pub managers: BTreeMap<NodeId, Holder>,
}

/// What the keyring knows of a manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its public key.
    pub public: PublicKey,
    /// The data key, sealed for it; none until a manager that has it shares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Sealed>,
}

impl Keyring {
    /// Whether no manager has the data key: there was never one, or all who had it have lost it.
    pub fn is_empty(&self) -> bool {
        self.managers.values().all(|one| one.share.is_none())
    }

    /// The share of a manager.
    pub fn share(&self, node: NodeId) -> Option<&Sealed> {
        self.managers.get(&node)?.share.as_ref()
    }
}

impl Secret {
    /// Its newest version.
    pub fn newest(&self) -> u64 {
        self.versions.last_key_value().map_or(0, |(key, _)| *key)
    }
}

impl Fleet {
    /// Names of services that name the secret `name`, now or in the version to which they would be rolled back.
    pub fn secret_users(&self, name: &str) -> Vec<&str> {
        let services = self.snapshot.services.values();
        let users = services.filter(|service| {
            let mut both = std::iter::once(&service.current).chain(&service.previous);
            both.any(|revision| revision.spec.secrets.iter().any(|one| one.secret == name))
        });
        users.map(|service| &*service.current.spec.name).collect()
    }
}
