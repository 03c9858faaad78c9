//! `lease`: keys that vanish when nobody renews them.

use super::args::{Lease, Output};
use super::exit::{Error, Exit};
use super::remote::{Ask, Remote};
use super::table;
use super::world::{Answer, World};
use http::Method;
use serde_json::json;

/// Runs a verb of `lease`.
pub async fn run(
    verb: Lease,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let ask = match &verb {
        Lease::Grant { ttl } => {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            Ask::post("/v1/leases", &json!({ "ttl_ms": ttl_ms }))
        }
        Lease::Keepalive { id } => {
            Ask::write(Method::POST, format!("/v1/leases/{id}/keepalive"), "")
        }
        Lease::Revoke { id } => Ask::write(Method::DELETE, format!("/v1/leases/{id}"), ""),
    };
    let json = remote.ask(&ask).await?;
    let text = match verb {
        Lease::Revoke { id } => format!("lease {id} and its keys are gone\n"),
        Lease::Grant { .. } | Lease::Keepalive { .. } => format!(
            "lease {}, {} ms to live\n",
            table::field(&json, "id"),
            table::field(&json, "ttl_ms")
        ),
    };
    world.answer(output, &Answer { json, text })?;
    Ok(Exit::Ok)
}
