//! Secrets: made, given other values, listed, removed. A value comes in and never goes out; no error repeats a part of it.

use super::call::{Call, invalid, json};
use super::nodes::done;
use super::secret_wire::{
    SecretAnswer, SecretInfo, SecretRequest, SecretValue, SecretWritten, SecretsAnswer,
};
use super::services::{absent, read};
use super::wire::Place;
use crate::error::Error;
use crate::fleet::Command;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// `POST /v1/secrets`.
pub(super) async fn create(call: Call) -> Result<Response, Error> {
    let SecretRequest { name, value } = body(&call)?;
    put(&call, name, value, true).await
}

/// `PUT /v1/secrets/{name}`.
pub(super) async fn update(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let SecretValue { value } = body(&call)?;
    put(&call, name, value, false).await
}

async fn put(call: &Call, name: String, value: String, is_new: bool) -> Result<Response, Error> {
    let value = Zeroizing::new(value);
    let clear = STANDARD.decode(value.as_bytes());
    let clear = clear.map_err(|_| invalid(format!("the value of secret {name} is not base64")))?;
    let (clear, timeout) = (Zeroizing::new(clear), call.timeout()?);
    let handle = &call.api.handle;
    let (version, outcome) = handle.put_secret(&name, &clear, is_new, timeout).await?;
    json(&SecretWritten {
        place: Place::of(&outcome),
        name,
        version,
    })
}

/// The JSON body. What is wrong with it is not told: a parser's words repeat what they stumble over.
fn body<T: DeserializeOwned>(call: &Call) -> Result<T, Error> {
    serde_json::from_slice(&call.body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message =
            format!("the body is not the JSON this route takes (line {line}, column {column})");
        invalid(message).hint("GET /openapi.json describes every route; values are base64")
    })
}

/// `GET /v1/secrets`.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let (fleet, fresh) = read(&call).await?;
    let secrets = fleet.secrets.iter();
    let secrets = secrets.map(|(name, secret)| SecretInfo::of(&fleet, name, secret));
    let secrets = secrets.collect();
    json(&SecretsAnswer { secrets, fresh })
}

/// `GET /v1/secrets/{name}`.
pub(super) async fn show(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let (fleet, fresh) = read(&call).await?;
    let secret = fleet.secrets.get(&name);
    let names = || fleet.secrets.keys().map(|key| &**key);
    let secret = secret.ok_or_else(|| absent("secret", &name, names()))?;
    let secret = SecretInfo::of(&fleet, &name, secret);
    json(&SecretAnswer { secret, fresh })
}

/// `DELETE /v1/secrets/{name}`.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    done(&call, Command::SecretRemove { name }).await
}
