//! `kv`: keys and values.

use super::args::{Conditions, Delete, Freshness, Get, Kv, Output, Put, Range};
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::world::{Answer, World};
use super::{table, txn, watch};
use http::Method;
use serde_json::{Value, json};

/// Runs a verb of `kv`.
pub async fn run(verb: Kv, remote: &Remote, output: Output, world: &World) -> Result<Exit, Error> {
    let answer = match verb {
        Kv::Put(options) => put(&options, remote, world).await?,
        Kv::Get(options) => return get(&options, remote, output, world).await,
        Kv::Delete(options) => delete(&options, remote).await?,
        Kv::Range(options) => range(&options, remote).await?,
        Kv::Watch(options) => return watch::run(&options, remote, output, world).await,
        Kv::Txn { file } => return txn::run(&file, remote, output, world).await,
        Kv::Compact { revision } => compact(revision, remote).await?,
    };
    world.answer(output, &answer)?;
    Ok(Exit::Ok)
}

async fn put(options: &Put, remote: &Remote, world: &World) -> Result<Answer, Error> {
    let value = match options.value.as_str() {
        "-" => world.read("-")?,
        text => text.as_bytes().to_vec(),
    };
    let path = conditions(Path::key(&options.key), &options.conditions)
        .flag("if_absent", options.if_absent)
        .maybe("lease", options.lease)
        .flag("prev", options.prev);
    // An empty value is a value: the body is then empty too.
    let json = remote.ask(&Ask::write(Method::PUT, path, value)).await?;
    let mut text = format!(
        "revision {}, version {}\n",
        table::field(&json, "revision"),
        table::field(&json, "version")
    );
    text += &before(&json);
    Ok(Answer { json, text })
}

fn conditions(path: Path, conditions: &Conditions) -> Path {
    path.maybe("if_version", conditions.if_version)
        .maybe("if_mod_revision", conditions.if_mod_revision)
}

fn freshness(path: Path, freshness: &Freshness) -> Path {
    let max_age = freshness.max_age.map(|age| age.as_millis());
    path.maybe("consistency", freshness.consistency.as_deref())
        .maybe("max_age_ms", max_age)
}

/// What was there before, when the answer says so.
fn before(json: &Value) -> String {
    let prev = match json.get("prev") {
        None | Some(Value::Null) => return String::new(),
        Some(Value::Array(records)) => records.clone(),
        Some(record) => vec![record.clone()],
    };
    match prev.is_empty() {
        true => String::new(),
        false => format!("before:\n{}", records(&prev)),
    }
}

async fn get(options: &Get, remote: &Remote, output: Output, world: &World) -> Result<Exit, Error> {
    let path = freshness(Path::key(&options.key), &options.freshness);
    let json = remote.ask(&Ask::get(path)).await?;
    let value = table::bytes(&json, "value").unwrap_or_default();
    if options.raw {
        world.out_bytes(&value)?;
    } else if options.long || output == Output::Json {
        let text = long(&json);
        world.answer(output, &Answer { json, text })?;
    } else {
        // The bytes as they are, whatever they are: a script wants them so, and a person sees text as text.
        world.out_bytes(&[&value[..], b"\n"].concat())?;
    }
    Ok(Exit::Ok)
}

/// Everything known of one key.
fn long(json: &Value) -> String {
    let mut rows = vec![
        ("key", table::cell(table::bytes(json, "key"))),
        ("value", table::cell(table::bytes(json, "value"))),
    ];
    for name in [
        "version",
        "create_revision",
        "mod_revision",
        "lease",
        "revision",
        "applied_index",
        "age_ms",
    ] {
        if json.get(name).is_some_and(|value| !value.is_null()) {
            rows.push((name, table::field(json, name)));
        }
    }
    table::pairs(&rows)
}

async fn delete(options: &Delete, remote: &Remote) -> Result<Answer, Error> {
    let path = if options.prefix {
        Path::new("/v1/kv").with("prefix", &options.key)
    } else {
        conditions(Path::key(&options.key), &options.conditions)
    };
    let path = path.flag("prev", options.prev);
    let json = remote.ask(&Ask::write(Method::DELETE, path, "")).await?;
    let deleted = json.get("deleted").and_then(Value::as_u64).unwrap_or(1);
    let keys = if deleted == 1 { "key" } else { "keys" };
    let text = format!("{deleted} {keys} removed\n{}", before(&json));
    Ok(Answer { json, text })
}

async fn range(options: &Range, remote: &Remote) -> Result<Answer, Error> {
    let path = Path::new("/v1/kv")
        .maybe("prefix", options.prefix.as_deref())
        .maybe("start", options.start.as_deref())
        .maybe("end", options.end.as_deref())
        .maybe("after", options.after.as_deref())
        .maybe("limit", options.limit)
        .maybe("revision", options.revision)
        .flag("keys_only", options.keys_only)
        .flag("count_only", options.count_only);
    let json = remote
        .ask(&Ask::get(freshness(path, &options.freshness)))
        .await?;
    let text = listing(&json, options);
    Ok(Answer { json, text })
}

fn listing(json: &Value, options: &Range) -> String {
    if options.count_only {
        return table::field(json, "count") + "\n";
    }
    let kvs = json.get("kvs").and_then(Value::as_array);
    let kvs = kvs.cloned().unwrap_or_default();
    if options.keys_only {
        return kvs
            .iter()
            .map(|kv| table::cell(table::bytes(kv, "key")) + "\n")
            .collect();
    }
    let mut text = records(&kvs);
    if json.get("more").and_then(Value::as_bool) == Some(true) {
        let last = kvs.last().map(|kv| table::cell(table::bytes(kv, "key")));
        let last = last.unwrap_or_default();
        text += &format!("there is more: --after {last}\n");
    }
    text
}

/// A table of records.
pub(super) fn records(kvs: &[Value]) -> String {
    if kvs.is_empty() {
        return "no keys\n".to_owned();
    }
    let row = |kv: &Value| {
        vec![
            table::cell(table::bytes(kv, "key")),
            table::cell(table::bytes(kv, "value")),
            table::field(kv, "version"),
            table::field(kv, "mod_revision"),
            lease(kv),
        ]
    };
    table::table(
        &["key", "value", "version", "revision", "lease"],
        kvs.iter().map(row),
    )
}

fn lease(kv: &Value) -> String {
    match kv.get("lease").and_then(Value::as_u64) {
        None | Some(0) => "-".to_owned(),
        Some(id) => id.to_string(),
    }
}

async fn compact(revision: u64, remote: &Remote) -> Result<Answer, Error> {
    let ask = Ask::post("/v1/compact", &json!({ "revision": revision }));
    Ok(Answer {
        json: remote.ask(&ask).await?,
        text: format!("history at and below revision {revision} is given up\n"),
    })
}
