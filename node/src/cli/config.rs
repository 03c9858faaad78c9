//! `config` and the settings of `server`: from flags, environment and file to a configuration, with every complaint at once.

use super::args::{Config as Verb, Output, Settings};
use super::exit::{Error, Exit};
use super::table;
use super::world::{Answer, HostCommand, World};
use crate::config::keys::{KEYS, Kind, variable};
use crate::config::{Cluster, Finding, Level, Loaded, Sources, TokenText, load};
use serde_json::{Value, json};

/// Runs a verb of `config`.
pub async fn run(verb: Verb, output: Output, world: &World) -> Result<Exit, Error> {
    match verb {
        Verb::Check(settings) => check(&settings, output, world),
        Verb::Show(settings) => show(&settings, output, world),
        Verb::Keys => keys(output, world),
    }
}

/// `server`: a valid configuration goes to the host.
pub async fn serve(settings: &Settings, world: &World) -> Result<Exit, Error> {
    if settings.validate {
        return check(settings, Output::Table, world);
    }
    let loaded = load(&sources(settings, world)?).map_err(|found| refused(&found))?;
    let found = loaded.config.validate();
    if found.iter().any(|one| one.level == Level::Error) {
        return Err(refused(&found));
    }
    for warning in &found {
        world.err(&format!("{warning}\n"));
    }
    let mut config = loaded.config;
    config.cluster.token = token(&config.cluster, world)?;
    config.cluster.token_file = None; // It is read.
    world.host(HostCommand::Server(Box::new(config))).await
}

/// The token by which the node joins: setting, file, environment, or none for one that was added by name or is a member.
fn token(cluster: &Cluster, world: &World) -> Result<Option<TokenText>, Error> {
    let said = cluster.token.clone();
    if let Some(file) = &cluster.token_file {
        return Ok(Some(TokenText(super::worker::token_in(file, world)?)));
    }
    let around = world.variables.get(super::worker::TOKEN);
    Ok(said.or_else(|| around.filter(|_| cluster.join).cloned().map(TokenText)))
}

/// What `settings` and the world offer to put a configuration together from.
fn sources(settings: &Settings, world: &World) -> Result<Sources, Error> {
    let named = settings
        .config
        .as_ref()
        .or_else(|| world.variables.get("SEAWORTHY_CONFIG"));
    let file = match named {
        None => None,
        Some(name) => {
            let text = String::from_utf8(world.read(name)?)
                .map_err(|_| Error::usage(format!("{name} is no UTF-8 text"), ""))?;
            Some((name.clone(), text))
        }
    };
    Ok(Sources {
        file,
        variables: world.variables.clone(),
        flags: flags(settings)?,
    })
}

/// Flags as (flag, key, value).
fn flags(settings: &Settings) -> Result<Vec<(String, String, String)>, Error> {
    let members = (!settings.member.is_empty()).then(|| settings.member.join(","));
    let join = settings.join.then(|| "true".to_owned());
    let named = [
        ("--name", "name", &settings.name),
        ("--data-dir", "data_dir", &settings.data_dir),
        ("--http", "listen.http", &settings.http),
        ("--peer", "listen.peer", &settings.peer),
        ("--member", "cluster.members", &members),
        ("--join", "cluster.join", &join),
        ("--token", "cluster.token", &settings.token),
        ("--token-file", "cluster.token_file", &settings.token_file),
    ];
    let mut flags: Vec<(String, String, String)> = named
        .into_iter()
        .filter_map(|(flag, key, value)| Some((flag.into(), key.into(), value.clone()?)))
        .collect();
    for text in &settings.set {
        let Some((key, value)) = text.split_once('=') else {
            let message = format!("--set {text} has no value");
            return Err(Error::usage(message, "write --set key=value"));
        };
        flags.push(("--set".into(), key.into(), value.into()));
    }
    Ok(flags)
}

/// A configuration that cannot be used, as one error.
fn refused(found: &[Finding]) -> Error {
    let count = found.iter().filter(|one| one.level == Level::Error).count();
    let indented = |one: &Finding| format!("  {}", one.to_string().replace('\n', "\n  "));
    let lines: Vec<String> = found.iter().map(indented).collect();
    let plural = if count == 1 { "error" } else { "errors" };
    Error::usage(
        format!(
            "the configuration has {count} {plural}\n{}",
            lines.join("\n")
        ),
        "check again with `seaworthy config check`",
    )
}

fn check(settings: &Settings, output: Output, world: &World) -> Result<Exit, Error> {
    let found = match load(&sources(settings, world)?) {
        Ok(loaded) => loaded.config.validate(),
        Err(found) => found,
    };
    let count = |level| found.iter().filter(|one| one.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let mut text: String = found.iter().map(|one| format!("{one}\n")).collect();
    text += &format!("{errors} errors, {warnings} warnings\n");
    if found.is_empty() {
        text = "the configuration is fine\n".to_owned();
    }
    let json = json!({ "errors": errors, "warnings": warnings, "findings": found });
    world.answer(output, &Answer { json, text })?;
    Ok(if errors == 0 { Exit::Ok } else { Exit::Unwell })
}

fn show(settings: &Settings, output: Output, world: &World) -> Result<Exit, Error> {
    let loaded = load(&sources(settings, world)?).map_err(|found| refused(&found))?;
    world.answer(output, &shown(&loaded))?;
    Ok(Exit::Ok)
}

fn shown(loaded: &Loaded) -> Answer {
    let rows = loaded.table();
    let json: serde_json::Map<String, Value> = rows
        .iter()
        .map(|(key, value, origin)| {
            let one = json!({ "value": value, "from": origin.to_string() });
            ((*key).to_owned(), one)
        })
        .collect();
    let rows = rows
        .into_iter()
        .map(|(key, value, origin)| vec![key.to_owned(), value, origin.to_string()]);
    Answer {
        json: Value::Object(json),
        text: table::table(&["key", "value", "from"], rows),
    }
}

fn keys(output: Output, world: &World) -> Result<Exit, Error> {
    let rows = KEYS.iter().map(|key| {
        let kind = match key.kind {
            Kind::Text | Kind::Secret => "text".to_owned(),
            Kind::Number => "number".to_owned(),
            Kind::Flag => "true|false".to_owned(),
            Kind::Word(words) => words.join("|"),
            Kind::Members => "members".to_owned(),
        };
        let what = match key.required {
            true => format!("{} (required)", key.what),
            false => key.what.to_owned(),
        };
        vec![key.path.to_owned(), kind, variable(key.path), what]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let json = rows
        .iter()
        .map(|row| json!({ "key": row[0], "kind": row[1], "variable": row[2], "what": row[3] }))
        .collect();
    let text = table::table(&["key", "kind", "variable", "meaning"], rows);
    world.answer(output, &Answer { json, text })?;
    Ok(Exit::Ok)
}
