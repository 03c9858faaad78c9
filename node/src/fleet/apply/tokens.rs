//! Commands about tokens. Only hashes of tokens are known here; expired ones go when the next is made.

use super::tell::About;
use super::{At, Refused, refuse};
use crate::fleet::command::Done;
use crate::fleet::records::Key;
use crate::fleet::{Admission, Fleet, Token, TokenRole};
use crate::state::command::Refusal;
use crate::types::Incarnation;

/// Longest life of a token, milliseconds: 366 days.
const TTL_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Most tokens that are not expired.
const TOKENS_MAX: usize = 1_000;
/// Managers that a token remembers to have let in.
const ADMITTED_MAX: usize = 64;
/// Longest name of a manager, bytes, as its configuration allows it.
const NAME_LEN_MAX: usize = 63;
/// Length of a SHA-256 in hex.
const HASH_LEN: usize = 64;

impl Fleet {
    pub(super) fn create_token(
        &mut self,
        hash: &str,
        ttl_ms: u64,
        role: TokenRole,
        at: At,
    ) -> Result<Done, Refused> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if hash.len() != HASH_LEN || !hash.bytes().all(hex) {
            let message = "a token is given as its SHA-256 in 64 digits of lower-case hex";
            return refuse(Refusal::Invalid, message);
        }
        if ttl_ms == 0 || ttl_ms > TTL_MS_MAX {
            let message =
                format!("a token lives from 1 ms to 366 days ({TTL_MS_MAX} ms), not {ttl_ms} ms");
            return refuse(Refusal::Invalid, message);
        }
        let alive = |token: &&Token| at.time_ms < token.expires_ms;
        if self
            .tokens
            .values()
            .filter(alive)
            .any(|token| token.hash == hash)
        {
            return refuse(
                Refusal::Conflict,
                "this token is there already: draw another",
            );
        }
        if self.tokens.values().filter(alive).count() >= TOKENS_MAX {
            let message = format!("there are {TOKENS_MAX} tokens: revoke some first");
            return refuse(Refusal::Conflict, message);
        }
        let tokens = self.tokens.iter();
        let expired = tokens.filter(|(_, token)| !alive(token)).map(|(&id, _)| id);
        for id in expired.collect::<Vec<_>>() {
            self.tokens.remove(&id);
            self.mark(Key::Token(id));
        }
        let (id, expires_ms) = (at.index, at.time_ms.saturating_add(ttl_ms));
        let token = Token {
            hash: hash.to_owned(),
            expires_ms,
            created_ms: at.time_ms,
            used: 0,
            role,
            admitted: Vec::new(),
        };
        self.tokens.insert(id, token);
        self.mark(Key::Token(id));
        let message = format!("token {id} was made: {}s may join with it", role.word());
        self.tell("token.created", About::default(), message, at);
        Ok(Done::Token { id, expires_ms })
    }

    pub(super) fn revoke_token(&mut self, id: u64, at: At) -> Result<Done, Refused> {
        if self.tokens.remove(&id).is_none() {
            let message = format!("there is no token {id}; it may have expired");
            return refuse(Refusal::NotFound, message);
        }
        self.mark(Key::Token(id));
        let message = format!("token {id} was revoked: nobody joins with it any more");
        self.tell("token.revoked", About::default(), message, at);
        Ok(Done::Nothing)
    }

    /// The token by which a worker may join, if it shows a good one.
    pub(super) fn workers_token(&self, hash: Option<&str>, at: At) -> Result<u64, Refused> {
        let Some(hash) = hash else {
            let make = advice(TokenRole::Worker);
            let message = format!("a worker that is not known here needs a token: {make}");
            return refuse(Refusal::Forbidden, message);
        };
        self.good_token(hash, TokenRole::Worker, at.time_ms)
    }

    /// The token with this hash, if it is good at that time for who shows it.
    fn good_token(&self, hash: &str, role: TokenRole, time_ms: u64) -> Result<u64, Refused> {
        let make = advice(role);
        let message = match self.tokens.iter().find(|(_, token)| token.hash == hash) {
            None => format!("the token is unknown, expired or revoked: {make}"),
            Some((id, token)) if token.role != role => {
                format!("token {id} is for {}s: {make}", token.role.word())
            }
            Some((id, token)) if token.expires_ms <= time_ms => {
                format!("token {id} has expired: {make}")
            }
            Some((&id, _)) => return Ok(id),
        };
        refuse(Refusal::Forbidden, message)
    }

    /// The token with this hash that has let this very manager in already, if it is there still.
    pub(crate) fn admission(&self, hash: &str, name: &str, life: Incarnation) -> Option<u64> {
        let named = self.tokens.iter().find(|(_, token)| token.hash == hash);
        let (&id, token) = named?;
        let mut admitted = token.admitted.iter();
        let is_in = admitted.any(|one| one.name == name && one.life == life);
        is_in.then_some(id)
    }

    /// The token by which a manager that nobody added may join at that time.
    pub(crate) fn may_join(
        &self,
        name: &str,
        life: Incarnation,
        hash: &str,
        time_ms: u64,
    ) -> Result<u64, Refused> {
        if name.is_empty() || name.len() > NAME_LEN_MAX || life == Incarnation::default() {
            let message = format!(
                "a manager that joins has a name of 1 to {NAME_LEN_MAX} bytes and a data directory of its own"
            );
            return refuse(Refusal::Invalid, message);
        }
        self.good_token(hash, TokenRole::Manager, time_ms)
    }

    pub(super) fn admit_manager(
        &mut self,
        name: &str,
        life: Incarnation,
        hash: &str,
        at: At,
    ) -> Result<Done, Refused> {
        let id = self.may_join(name, life, hash, at.time_ms)?;
        let known = self.admission(hash, name, life).is_some();
        let expires_ms = self.tokens.get(&id).map_or(0, |token| token.expires_ms);
        if known {
            return Ok(Done::Token { id, expires_ms });
        }
        self.use_token(id);
        if let Some(token) = self.tokens.get_mut(&id) {
            let name = name.to_owned();
            token.admitted.push(Admission { name, life });
            if token.admitted.len() > ADMITTED_MAX {
                token.admitted.remove(0);
            }
        }
        let message = format!(
            "manager {name} is let in by token {id}: a learner first, a voter once it has caught up"
        );
        self.tell("manager.joined", About::default(), message, at);
        Ok(Done::Token { id, expires_ms })
    }

    /// Counts a node that joined with a token.
    pub(super) fn use_token(&mut self, id: u64) {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.used += 1;
            self.mark(Key::Token(id));
        }
    }
}

/// How one comes by a token that is good.
fn advice(role: TokenRole) -> &'static str {
    match role {
        TokenRole::Worker => "make one with `cluster token` and start the worker with it",
        TokenRole::Manager => {
            "make one with `cluster token create --role manager` and start the manager with it"
        }
    }
}
