//! Commands about tokens. Only hashes of tokens are known here; expired ones go when the next is made.

use super::tell::About;
use super::{At, Refused, refuse};
use crate::fleet::command::Done;
use crate::fleet::records::Key;
use crate::fleet::{Fleet, Token};
use crate::state::command::Refusal;

/// Longest life of a token, milliseconds: 366 days.
const TTL_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Most tokens that are not expired.
const TOKENS_MAX: usize = 1_000;
/// Length of a SHA-256 in hex.
const HASH_LEN: usize = 64;

impl Fleet {
    pub(super) fn create_token(
        &mut self,
        hash: &str,
        ttl_ms: u64,
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
        };
        self.tokens.insert(id, token);
        self.mark(Key::Token(id));
        let message = format!("token {id} was made: workers may join with it");
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

    /// The token with this hash, if it is good now.
    pub(super) fn good_token(&self, hash: Option<&str>, at: At) -> Result<u64, Refused> {
        let make = "make one with `cluster token` and start the worker with it";
        let Some(hash) = hash else {
            let message = format!("a worker that is not known here needs a token: {make}");
            return refuse(Refusal::Forbidden, message);
        };
        match self.tokens.iter().find(|(_, token)| token.hash == hash) {
            Some((&id, token)) if at.time_ms < token.expires_ms => Ok(id),
            Some((id, _)) => refuse(
                Refusal::Forbidden,
                format!("token {id} has expired: {make}"),
            ),
            None => {
                let message = format!("the token is unknown, expired or revoked: {make}");
                refuse(Refusal::Forbidden, message)
            }
        }
    }

    /// Counts a worker that joined with a token.
    pub(super) fn use_token(&mut self, id: u64) {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.used += 1;
            self.mark(Key::Token(id));
        }
    }
}
