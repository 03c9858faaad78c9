//! `cluster token`: tokens by which workers and managers join.

use super::args_fleet::Token;
use super::exit::Error;
use super::remote::{Ask, Remote};
use super::service::typed;
use super::spec_flags::ms;
use super::table;
use super::world::{Answer, World};
use crate::api::fleet_wire::{TokenInfo, TokenMade};
use crate::fleet::TokenRole;
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
        None => create(TokenRole::Worker, TTL_MS, remote).await,
        Some(Token::Create { role, ttl }) => {
            let role = match role.as_str() {
                "manager" => TokenRole::Manager,
                _ => TokenRole::Worker,
            };
            create(role, ms(ttl), remote).await
        }
        Some(Token::Ls) => list(remote, world).await,
        Some(Token::Rm { id }) => {
            let ask = Ask::write(Method::DELETE, format!("/v1/tokens/{id}"), "");
            let json = remote.ask(&ask).await?;
            let text = format!("token {id} is ended; who joined with it stays\n");
            Ok(Answer { json, text })
        }
    }
}

async fn create(role: TokenRole, ttl_ms: u64, remote: &Remote) -> Result<Answer, Error> {
    let body = match role {
        TokenRole::Worker => json!({ "ttl_ms": ttl_ms }),
        TokenRole::Manager => json!({ "ttl_ms": ttl_ms, "role": role }),
    };
    let json = remote.ask(&Ask::post("/v1/tokens", &body)).await?;
    let made: TokenMade = typed(&json)?;
    let how = match role {
        TokenRole::Worker => format!(
            "seaworthy worker start --join {} --token {}",
            remote.endpoints.join(","),
            made.token
        ),
        TokenRole::Manager => managers_start(&made.token, remote).await,
    };
    let text = format!(
        "{}\n\ntoken {} is good until {}; it is not shown again. A {} joins with it:\n  {how}\n",
        made.token,
        made.id,
        table::time(made.expires_ms),
        role.word(),
    );
    Ok(Answer { json, text })
}

/// How a manager is started that joins by `token`. The token is made: what cannot be known now is left to fill in.
async fn managers_start(token: &str, remote: &Remote) -> String {
    let (_, members) = remote.members().await.unwrap_or_default();
    let member = |one: &Value| {
        let field = |key| table::field(one, key);
        let (name, peer, http) = (field("name"), field("peer"), field("http"));
        format!("--member {name}={peer}/{http}")
    };
    let mut known: Vec<String> = members.iter().map(member).collect();
    if known.is_empty() {
        known.push("--member NAME=PEER/HTTP".to_owned());
    }
    format!(
        "seaworthy server --name NAME --data-dir DIR --http HOST:PORT --peer HOST:PORT \\\n    \
         --join {} \\\n    --token {token}\n\
         Give it the profile of the others, if that is not edge: --set profile=lan. It becomes a voter by itself\n\
         once it has caught up: seaworthy cluster members",
        known.join(" ")
    )
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
            one.role.word().to_owned(),
            state.to_owned(),
            table::time(one.expires_ms),
            one.used.to_string(),
            table::time(one.created_ms),
        ]
    });
    let text = table::table(&["id", "role", "state", "until", "used", "made"], rows);
    Ok(Answer { json, text })
}
