//! Commands about secrets and the data key's shares.

use super::tell::About;
use super::{At, Refused, refuse};
use crate::fleet::Fleet;
use crate::fleet::command::Done;
use crate::fleet::records::Key;
use crate::fleet::secret::{Holder, Version};
use crate::secrets::seal::{PublicKey, Sealed};
use crate::service::check;
use crate::state::command::Refusal;
use crate::types::{NodeId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Secrets in a cluster at most.
const SECRETS_MAX: usize = 1_000;
/// Longest ciphertext: the longest value with what sealing and base64 add, bytes.
const SEALED_LEN_MAX: usize = crate::secrets::VALUE_BYTES_MAX * 4 / 3 + 128;

impl Fleet {
    /// The first data key, or the first after all who had one have lost it.
    pub(super) fn make_keyring(
        &mut self,
        node: NodeId,
        public: PublicKey,
        share: &Sealed,
        at: At,
    ) -> Result<Done, Refused> {
        if !self.keyring.is_empty() {
            return refuse(
                Refusal::Conflict,
                "the cluster has a key for its secrets already",
            );
        }
        let is_first = self.keyring.id == 0;
        let keyring = Arc::make_mut(&mut self.keyring);
        keyring.id = at.index;
        let holder = Holder {
            public,
            share: Some(share.clone()),
        };
        keyring.managers.insert(node, holder);
        self.mark(Key::Keyring);
        let message = match is_first {
            true => format!("manager {node} made the key for secrets"),
            false => format!(
                "manager {node} made a new key for secrets, since no manager has the old one: values of before are lost"
            ),
        };
        self.tell("secrets.key.made", About::default(), message, at);
        Ok(Done::Nothing)
    }

    /// A manager tells its public key. Whatever share it had it cannot open.
    pub(super) fn join_keyring(&mut self, node: NodeId, public: PublicKey) -> Done {
        if self.keyring.id > 0 {
            let holder = Holder {
                public,
                share: None,
            };
            let keyring = Arc::make_mut(&mut self.keyring);
            keyring.managers.insert(node, holder);
            self.mark(Key::Keyring);
        }
        Done::Nothing
    }

    /// A manager gets its share. Void if it has one, or another key by now, or the data key is another.
    pub(super) fn share_key(
        &mut self,
        key: u64,
        node: NodeId,
        public: PublicKey,
        share: &Sealed,
        at: At,
    ) -> Done {
        let waits = |one: &Holder| one.public == public && one.share.is_none();
        let known = self.keyring.managers.get(&node);
        if self.keyring.id != key || !known.is_some_and(waits) || share.len() > SEALED_LEN_MAX {
            return Done::Nothing;
        }
        if let Some(holder) = Arc::make_mut(&mut self.keyring).managers.get_mut(&node) {
            holder.share = Some(share.clone());
        }
        self.mark(Key::Keyring);
        let message = format!("manager {node} can open the cluster's secrets from now on");
        self.tell("secrets.key.shared", About::default(), message, at);
        Done::Nothing
    }

    /// A manager that is no member any more has no share either.
    pub(super) fn leave_keyring(&mut self, node: NodeId) -> Done {
        if self.keyring.managers.contains_key(&node) {
            Arc::make_mut(&mut self.keyring).managers.remove(&node);
            self.mark(Key::Keyring);
        }
        Done::Nothing
    }

    pub(super) fn put_secret(
        &mut self,
        name: &str,
        version: u64,
        what: &Version,
        at: At,
    ) -> Result<Done, Refused> {
        if let Err(message) = check::secret_name(name) {
            return refuse(Refusal::Invalid, message);
        }
        let known = self.secrets.get(name);
        let next = known.map_or(1, |secret| secret.newest().saturating_add(1));
        if version != next {
            let message = match (version, known) {
                (1, Some(_)) => {
                    format!("secret {name} is there already; `secret update` gives it a new value")
                }
                (_, None) => format!("there is no secret {name}; `secret create` makes it"),
                _ => format!("secret {name} has version {} by now", next - 1),
            };
            return refuse(Refusal::Conflict, message);
        }
        if what.key != self.keyring.id || what.key == 0 {
            let message = format!("secret {name} was sealed by a key that is not the cluster's");
            return refuse(Refusal::Conflict, message);
        }
        if what.sealed.len() > SEALED_LEN_MAX {
            return refuse(Refusal::Invalid, format!("secret {name} is too long"));
        }
        if known.is_none() && self.secrets.len() >= SECRETS_MAX {
            let message = format!("there are {SECRETS_MAX} secrets, the most that a cluster has");
            return refuse(Refusal::Invalid, message);
        }
        let secret = self.secrets.or_default(name.to_owned());
        if version == 1 {
            secret.created_ms = at.time_ms;
        }
        secret.updated_ms = at.time_ms;
        secret.versions.insert(version, what.clone());
        self.snapshot.secrets.insert(name.to_owned(), version);
        self.mark(Key::Secret(name.to_owned()));
        self.drop_secret_versions();
        let (kind, message) = match version {
            1 => ("secret.created", format!("secret {name} was made")),
            _ => (
                "secret.updated",
                format!(
                    "secret {name} has version {version}; tasks that are assigned from now on get it"
                ),
            ),
        };
        self.tell(kind, About::default(), message, at);
        Ok(Done::Secret { version })
    }

    pub(super) fn remove_secret(&mut self, name: &str, at: At) -> Result<Done, Refused> {
        if !self.secrets.contains_key(name) {
            let name = name.escape_debug();
            let message = format!("there is no secret `{name}`; `secret ls` shows which there are");
            return refuse(Refusal::NotFound, message);
        }
        let users = self.secret_users(name);
        if !users.is_empty() {
            let message = format!(
                "secret {name} is named by service {} (now or in the version before): remove or update that first",
                users.join(", ")
            );
            return refuse(Refusal::Conflict, message);
        }
        self.secrets.remove(name);
        self.snapshot.secrets.remove(name);
        self.mark(Key::Secret(name.to_owned()));
        let message = format!("secret {name} was removed");
        self.tell("secret.removed", About::default(), message, at);
        Ok(Done::Nothing)
    }

    /// A task that was assigned has the newest version of each of its secrets, for as long as it lives.
    pub(super) fn pin_secrets(&mut self, id: TaskId) {
        let Some(task) = self.snapshot.tasks.get_mut(&id) else {
            return;
        };
        let Some(spec) = self.specs.get(&(task.service, task.version)) else {
            return;
        };
        for mount in &spec.secrets {
            if let Some(&newest) = self.snapshot.secrets.get(&mount.secret) {
                task.secrets.insert(mount.secret.clone(), newest);
            }
        }
    }

    /// Forgets versions that are not the newest and that no living task has.
    pub(super) fn drop_secret_versions(&mut self) {
        if self
            .secrets
            .values()
            .all(|secret| secret.versions.len() < 2)
        {
            return;
        }
        let tasks = self.snapshot.tasks.values();
        let living = tasks.filter(|task| !task.state.is_end());
        let used: BTreeSet<(&str, u64)> = living
            .flat_map(|task| &task.secrets)
            .map(|(name, version)| (&**name, *version))
            .collect();
        let mut gone = Vec::new();
        for (name, secret) in &self.secrets {
            let newest = secret.newest();
            let kept = |version: u64| version == newest || used.contains(&(&**name, version));
            let versions = secret.versions.keys().copied();
            gone.extend(
                versions
                    .filter(|version| !kept(*version))
                    .map(|version| (name.clone(), version)),
            );
        }
        for (name, version) in gone {
            if let Some(secret) = self.secrets.get_mut(&name) {
                secret.versions.remove(&version);
            }
            self.mark(Key::Secret(name));
        }
    }
}
