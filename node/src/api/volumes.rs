//! Volumes: made, listed, forgotten. A volume never leaves its node.

use super::call::{Call, json};
use super::fleet_wire::{VolumeAnswer, VolumeInfo, VolumeRequest, VolumesAnswer};
use super::nodes::done;
use super::services::{absent, read};
use crate::error::Error;
use crate::fleet::Command;
use axum::response::Response;

/// `GET /v1/volumes`.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let (fleet, fresh) = read(&call).await?;
    let volumes = fleet.snapshot.volumes.values();
    let volumes = volumes
        .map(|volume| VolumeInfo::of(&fleet, &volume.name, volume.worker))
        .collect();
    json(&VolumesAnswer { volumes, fresh })
}

/// `GET /v1/volumes/{name}`.
pub(super) async fn show(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    let (fleet, fresh) = read(&call).await?;
    let volumes = &fleet.snapshot.volumes;
    let volume = volumes.get(&name);
    let volume = volume.ok_or_else(|| absent("volume", &name, volumes.keys().map(|key| &**key)))?;
    let volume = VolumeInfo::of(&fleet, &name, volume.worker);
    json(&VolumeAnswer { volume, fresh })
}

/// `POST /v1/volumes`.
pub(super) async fn create(call: Call) -> Result<Response, Error> {
    let VolumeRequest { name, node } = call.json()?;
    done(&call, Command::VolumeCreate { name, worker: node }).await
}

/// `DELETE /v1/volumes/{name}`.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    let name = call.path_text("name")?;
    done(&call, Command::VolumeRemove { name }).await
}
