//! `secret`: made, given other values, listed, removed. A value is read from a file, standard input or the command line, and never shown.

use super::args::Output;
use super::args_secret::{Secret, Source};
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::service::typed;
use super::table;
use super::world::{Answer, World};
use crate::api::secret_wire::{SecretInfo, SecretWritten};
use crate::secrets::{Clear, VALUE_BYTES_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Runs a verb of `secret`.
pub async fn run(
    verb: Secret,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let path = |name: &str| Path::under("/v1/secrets/", name, "");
    let answer = match verb {
        Secret::Create { name, source } => {
            let value = STANDARD.encode(&*value(&source, world)?);
            let body = json!({ "name": name, "value": value });
            let json = remote.ask(&Ask::post("/v1/secrets", &body)).await?;
            let text = format!("secret {name} is made\n");
            Answer { json, text }
        }
        Secret::Update { name, source } => {
            let value = STANDARD.encode(&*value(&source, world)?);
            let ask = Ask::put(path(&name), &json!({ "value": value }));
            let json = remote.ask(&ask).await?;
            let SecretWritten { version, .. } = typed(&json)?;
            let text = format!(
                "secret {name} has version {version}; tasks keep what they have, and those that are assigned from now on get it\n"
            );
            Answer { json, text }
        }
        Secret::Ls => {
            let json = remote.ask(&Ask::get("/v1/secrets")).await?;
            let secrets: Vec<SecretInfo> = typed(json.get("secrets").unwrap_or(&Value::Null))?;
            let text = listing(&secrets);
            Answer { json, text }
        }
        Secret::Inspect { name } => {
            let json = remote.ask(&Ask::get(path(&name))).await?;
            let text = details(&typed(&json)?);
            Answer { json, text }
        }
        Secret::Rm { name } => {
            let ask = Ask::write(Method::DELETE, path(&name), "");
            let json = remote.ask(&ask).await?;
            let text = format!("secret {name} is removed\n");
            Answer { json, text }
        }
    };
    world.answer(output, &answer)?;
    Ok(Exit::Ok)
}

/// The value that was named.
fn value(source: &Source, world: &World) -> Result<Clear, Error> {
    let bytes = match (&source.from_file, &source.from_literal) {
        (Some(file), _) => world.read(file)?,
        (None, Some(text)) => {
            world.err("note: the value is in this shell's history now; --from-file and --from-stdin leave none\n");
            text.clone().into_bytes()
        }
        (None, None) => world.read("-")?,
    };
    let bytes = Zeroizing::new(bytes);
    match bytes.len() {
        1..=VALUE_BYTES_MAX => Ok(bytes),
        length => Err(Error::usage(
            format!("the value has {length} bytes"),
            format!("a secret has 1 to {VALUE_BYTES_MAX} bytes"),
        )),
    }
}

fn listing(secrets: &[SecretInfo]) -> String {
    let rows = secrets.iter().map(|one| {
        vec![
            one.name.clone(),
            one.version.to_string(),
            one.bytes.to_string(),
            table::time(one.updated_ms),
            or_dash(one.services.join(", ")),
            state(one).to_owned(),
        ]
    });
    let header = ["name", "version", "bytes", "updated", "services", "state"];
    table::table(&header, rows)
}

fn details(one: &SecretInfo) -> String {
    let tasks = one.tasks.iter();
    let tasks: Vec<String> = tasks
        .map(|user| format!("{} (version {})", user.task, user.version))
        .collect();
    let rows = [
        ("name", one.name.clone()),
        ("version", one.version.to_string()),
        ("bytes", one.bytes.to_string()),
        ("made", table::time(one.created_ms)),
        ("updated", table::time(one.updated_ms)),
        ("services", or_dash(one.services.join(", "))),
        ("tasks", or_dash(tasks.join(", "))),
        ("state", state(one).to_owned()),
    ];
    table::pairs(&rows)
}

fn state(one: &SecretInfo) -> &'static str {
    match one.readable {
        true => "good",
        false => "lost: give it again with `secret update`",
    }
}

fn or_dash(text: String) -> String {
    match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    }
}
