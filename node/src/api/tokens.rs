//! Tokens by which workers and managers join. The text is drawn here and told once; the cluster keeps its SHA-256 alone.

use super::call::{Call, invalid, json};
use super::fleet_wire::{TokenInfo, TokenMade, TokenRequest, TokensAnswer};
use super::nodes::done;
use super::services::{commit, read, surprise};
use crate::error::Error;
use crate::fleet::{Command, Done};
use crate::manager::meeting::token_hash;
use axum::response::Response;
use rand_core::RngCore;

/// What every token begins with, so that people and scanners of secrets know one when they see it.
const PREFIX: &str = "swt-";
/// Bytes of chance in a token.
const BYTES: usize = 32;
/// Time to live of a token that asks for none: a day, milliseconds.
const TTL_MS: u64 = 24 * 3_600_000;
/// Longest time to live: a year, milliseconds.
const TTL_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// `POST /v1/tokens`.
pub(super) async fn create(call: Call) -> Result<Response, Error> {
    let TokenRequest { ttl_ms, role } = match call.body.is_empty() {
        true => TokenRequest::default(),
        false => call.json()?,
    };
    let ttl_ms = ttl_ms.unwrap_or(TTL_MS);
    if !(1..=TTL_MS_MAX).contains(&ttl_ms) {
        let message = format!("`ttl_ms` must be between 1 and {TTL_MS_MAX} (a year)");
        return Err(invalid(message));
    }
    let token = draw(&call);
    let hash = token_hash(&token);
    let (done, place) = commit(&call, &Command::TokenCreate { hash, ttl_ms, role }).await?;
    match done {
        Done::Token { id, expires_ms } => json(&TokenMade {
            place,
            id,
            role,
            token,
            expires_ms,
        }),
        other => Err(surprise(&other)),
    }
}

/// A new token's text.
fn draw(call: &Call) -> String {
    let mut bytes = [0; BYTES];
    let mut chance = call.api.chance.lock();
    chance
        .as_mut()
        .expect("nobody panics while drawing")
        .fill_bytes(&mut bytes);
    drop(chance);
    format!("{PREFIX}{}", hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `GET /v1/tokens`.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let (fleet, fresh) = read(&call).await?;
    let tokens = fleet.tokens.iter().map(|(&id, token)| TokenInfo {
        id,
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
        role: token.role,
        used: token.used,
    });
    let tokens = tokens.collect();
    json(&TokensAnswer { tokens, fresh })
}

/// `DELETE /v1/tokens/{id}`.
pub(super) async fn revoke(call: Call) -> Result<Response, Error> {
    let id = call.path_number("id")?;
    done(&call, Command::TokenRevoke { id }).await
}
