//! `cluster token`: tokens by which workers join.

use super::args_fleet::Token;
use super::exit::Error;
use super::remote::{Ask, Remote};
use super::service::typed;
use super::spec_flags::ms;
use super::table;
use super::world::{Answer, World};
use crate::api::fleet_wire::{TokenInfo, TokenMade};
use http::Method;
use serde_json::{Value, json};

/// Time to live of a token that is made without words: a day, milliseconds.
const TTL_MS: u64 = 24 * 3_600_000;

/// Runs a verb of `cluster token`; without one, makes a token.
pub(super) async fn run(
    verb: Option<Token>,
    remote: &Remote,
    world: &World,
) -> Result<Answer, Error> {
    match verb {
        None => create(TTL_MS, remote).await,
        Some(Token::Create { role, .. }) if role == "manager" => Err(Error::usage(
            "managers join by their address, not by a token",
            "seaworthy cluster members add NAME --peer HOST:PORT --http HOST:PORT",
        )),
        Some(Token::Create { ttl, .. }) => create(ms(ttl), remote).await,
        Some(Token::Ls) => list(remote, world).await,
        Some(Token::Rm { id }) => {
            let ask = Ask::write(Method::DELETE, format!("/v1/tokens/{id}"), "");
            let json = remote.ask(&ask).await?;
            let text = format!("token {id} is ended; workers that joined with it stay\n");
            Ok(Answer { json, text })
        }
    }
}

async fn create(ttl_ms: u64, remote: &Remote) -> Result<Answer, Error> {
    let ask = Ask::post("/v1/tokens", &json!({ "ttl_ms": ttl_ms }));
    let json = remote.ask(&ask).await?;
    let made: TokenMade = typed(&json)?;
    let managers = remote.endpoints.join(",");
    let text = format!(
        "{}\n\ntoken {} is good until {}; it is not shown again. A worker joins with it:\n  \
         seaworthy worker start --join {managers} --token {}\n",
        made.token,
        made.id,
        table::time(made.expires_ms),
        made.token,
    );
    Ok(Answer { json, text })
}

async fn list(remote: &Remote, world: &World) -> Result<Answer, Error> {
    let json = remote.ask(&Ask::get("/v1/tokens")).await?;
    let tokens: Vec<TokenInfo> = typed(json.get("tokens").unwrap_or(&Value::Null))?;
    let now_ms = world.env.clock.wall_ms();
    let rows = tokens.iter().map(|one| {
        let state = if one.expires_ms <= now_ms {
            "over"
        } else {
            "good"
        };
        vec![
            one.id.to_string(),
            state.to_owned(),
            table::time(one.expires_ms),
            one.used.to_string(),
            table::time(one.created_ms),
        ]
    });
    let text = table::table(&["id", "state", "until", "used", "made"], rows);
    Ok(Answer { json, text })
}
