//! `volume`: made, listed, forgotten.

use super::args::Output;
use super::args_fleet::Volume;
use super::exit::{Error, Exit};
use super::remote::{Ask, Path, Remote};
use super::service::typed;
use super::table;
use super::world::{Answer, World};
use crate::api::fleet_wire::VolumeInfo;
use http::Method;
use serde_json::{Value, json};

/// Runs a verb of `volume`.
pub async fn run(
    verb: Volume,
    remote: &Remote,
    output: Output,
    world: &World,
) -> Result<Exit, Error> {
    let path = |name: &str| Path::under("/v1/volumes/", name, "");
    let answer = match verb {
        Volume::Ls => {
            let json = remote.ask(&Ask::get("/v1/volumes")).await?;
            let volumes: Vec<VolumeInfo> = typed(json.get("volumes").unwrap_or(&Value::Null))?;
            let text = listing(&volumes);
            Answer { json, text }
        }
        Volume::Inspect { name } => {
            let json = remote.ask(&Ask::get(path(&name))).await?;
            let text = listing(&[typed(&json)?]);
            Answer { json, text }
        }
        Volume::Create { name, node } => {
            let body = match node {
                Some(node) => json!({ "name": name, "node": node }),
                None => json!({ "name": name }),
            };
            let json = remote.ask(&Ask::post("/v1/volumes", &body)).await?;
            let text = format!("volume {name} is made\n");
            Answer { json, text }
        }
        Volume::Rm { name } => {
            let ask = Ask::write(Method::DELETE, path(&name), "");
            let json = remote.ask(&ask).await?;
            let text = format!("volume {name} is forgotten; its contents stay on their node\n");
            Answer { json, text }
        }
    };
    world.answer(output, &answer)?;
    Ok(Exit::Ok)
}

fn listing(volumes: &[VolumeInfo]) -> String {
    let rows = volumes.iter().map(|one| {
        let tasks: Vec<String> = one.tasks.iter().map(ToString::to_string).collect();
        let or_dash = |text: String| match text.is_empty() {
            true => "-".to_owned(),
            false => text,
        };
        let mut node = one.node.clone().unwrap_or_default();
        if one.node_removed {
            node += " (removed)";
        }
        vec![
            one.name.clone(),
            or_dash(node),
            or_dash(one.services.join(", ")),
            or_dash(tasks.join(", ")),
        ]
    });
    table::table(&["name", "node", "services", "tasks"], rows)
}
