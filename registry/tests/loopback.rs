//! Pulling from a registry on loopback, through the worker's own store: what is offered, what is forged, what is not there.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a registry on a real socket, and real files"
)]

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use node::knobs::Knobs;
use node::rt::Images;
use node::rt::process::ContainerRuntime;
use node::rt::real;
use node::service::{Desired, Spec};
use node::types::{ServiceId, TaskId};
use node::worker::container::{ContainerExecutor, Containers};
use node::worker::executor::Executor;
use node::worker::words::{Assignment, Refusal};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What a registry has, by the end of its path.
type Shelf = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes);
    let hex = hex
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    format!("sha256:{hex}")
}

fn put(shelf: &Shelf, kind: &str, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    shelf.lock().unwrap().insert(digest.clone(), bytes.to_vec());
    json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
}

/// An image for two machines, of which only ours is whole, with a layer of gzip.
fn image(shelf: &Shelf) -> Value {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    builder
        .append_data(&mut header, "etc/motd", &b"ahoy"[..])
        .unwrap();
    let fast = flate2::Compression::fast();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), fast);
    std::io::Write::write_all(&mut writer, &builder.into_inner().unwrap()).unwrap();
    let layer = put(
        shelf,
        "application/vnd.oci.image.layer.v1.tar+gzip",
        &writer.finish().unwrap(),
    );
    let config = json!({ "config": { "Cmd": ["/serve"], "Env": ["A=b"] } }).to_string();
    let config = put(
        shelf,
        "application/vnd.oci.image.config.v1+json",
        config.as_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let platform = real::host().platform;
    let (os, architecture) = platform.split_once('/').unwrap();
    let mut ours = put(
        shelf,
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    ours["platform"] = json!({ "os": os, "architecture": architecture });
    let mut other = ours.clone();
    other["platform"]["architecture"] = json!("mips");
    other["digest"] = json!(digest(b"not there"));
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, ours],
    });
    shelf
        .lock()
        .unwrap()
        .insert("1.0".to_owned(), index.to_string().into_bytes());
    layer
}

/// What a private registry wants to be shown: `me:secret`.
const CREDENTIALS: &str = "bWU6c2VjcmV0";
/// Or what its service of tokens gives to whoever shows that.
const TOKEN: &str = "a-token-for-me";

/// Gives a token for credentials.
async fn token(headers: HeaderMap) -> (StatusCode, String) {
    let shown = headers.get("authorization");
    let wanted = format!("Basic {CREDENTIALS}");
    match shown.is_some_and(|shown| shown == wanted.as_str()) {
        true => (StatusCode::OK, json!({ "token": TOKEN }).to_string()),
        false => (StatusCode::UNAUTHORIZED, String::new()),
    }
}

async fn serve(
    State(shelf): State<Shelf>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, Vec<u8>) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let wanted = [format!("Basic {CREDENTIALS}"), format!("Bearer {TOKEN}")];
    let shown = headers.get("authorization");
    let is_shown = shown.is_some_and(|shown| wanted.iter().any(|wanted| shown == wanted.as_str()));
    if path.starts_with("private/") && !is_shown {
        return (StatusCode::UNAUTHORIZED, Vec::new());
    }
    match shelf.lock().unwrap().get(name) {
        Some(bytes) => (StatusCode::OK, bytes.clone()),
        None => (
            StatusCode::NOT_FOUND,
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#
                .to_vec(),
        ),
    }
}

/// Starts a registry and gives its address.
async fn registry(shelf: &Shelf) -> String {
    registry_that(shelf, |_| "Basic realm=\"fleet\"".to_owned()).await
}

/// The same with what it says at its address to whoever shows nothing.
async fn registry_that(shelf: &Shelf, says: impl Fn(&str) -> String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let challenge = ("www-authenticate", says(&address));
    let router = Router::new()
        .route("/v2/{*path}", axum::routing::get(serve))
        .route(
            "/v2/",
            axum::routing::get(move || async { (StatusCode::UNAUTHORIZED, [challenge], "{}") }),
        )
        .route("/token", axum::routing::get(token))
        .with_state(Arc::clone(shelf));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

/// Prepares task `id` with `image`, in `dir`.
async fn prepare(dir: &std::path::Path, id: u64, image: &str) -> Result<(), Refusal> {
    prepare_with(dir, id, image, &registry::images(None).unwrap()).await
}

/// The same with these registries.
async fn prepare_with(
    dir: &std::path::Path,
    id: u64,
    image: &str,
    images: &Images,
) -> Result<(), Refusal> {
    let containers = Containers {
        runtime: ContainerRuntime {
            program: "/nonexistent/crun".into(),
            uid: 1, // Owners are not kept: the test need not be root.
            gid: 1,
        },
        images: images.clone(),
        platform: real::host().platform,
    };
    let env = real::env("test").unwrap();
    let executor = ContainerExecutor::new(&env, dir.to_owned(), &Knobs::default(), containers);
    let mut spec = Spec::new("web", &[]);
    spec.image = Some(image.to_owned());
    let assignment = Assignment {
        task: TaskId(id),
        service: ServiceId(1),
        slot: 1,
        version: 1,
        desired: Desired::Run,
        spec: spec.into(),
        secrets: std::collections::BTreeMap::new(),
    };
    executor.prepare(Arc::new(assignment)).await
}

#[tokio::test]
async fn an_image_is_pulled_for_this_machine_and_checked() {
    let (shelf, dir) = (Shelf::default(), tempfile::tempdir().unwrap());
    let layer = image(&shelf);
    let host = registry(&shelf).await;
    let image = format!("{host}/fleet/web:1.0");
    prepare(dir.path(), 1, &image).await.unwrap();
    let bundle = dir.path().join("tasks/1/bundle");
    let motd = std::fs::read_to_string(bundle.join("rootfs/etc/motd"));
    assert_eq!(motd.unwrap(), "ahoy");
    let kept = std::fs::read_to_string(bundle.join("image.json")).unwrap();
    assert!(kept.contains("/serve") && kept.contains("A=b"), "{kept}");
    let refusal = prepare(dir.path(), 2, &format!("{host}/fleet/web:2.0"))
        .await
        .unwrap_err();
    assert!(
        refusal.is_permanent && refusal.message.contains("web:2.0"),
        "{refusal:?}"
    );
    // Another worker, and a layer that is not what its digest says.
    let other = tempfile::tempdir().unwrap();
    let name = layer["digest"].as_str().unwrap().to_owned();
    shelf.lock().unwrap().get_mut(&name).unwrap()[20] ^= 1;
    let refusal = prepare(other.path(), 1, &image).await.unwrap_err();
    assert!(refusal.message.contains(&name), "{refusal:?}");
    assert!(!other.path().join("tasks/1/bundle").exists());
}

#[tokio::test]
async fn a_registry_that_is_away_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = prepare(dir.path(), 1, "127.0.0.1:1/web:1")
        .await
        .unwrap_err();
    assert!(
        !refusal.is_permanent && refusal.message.contains("127.0.0.1:1"),
        "{refusal:?}"
    );
    let refusal = prepare(dir.path(), 1, "127.0.0.1:1/UPPER:1")
        .await
        .unwrap_err();
    assert!(refusal.is_permanent, "{refusal:?}");
}

#[tokio::test]
async fn a_private_image_needs_credentials_which_may_change() {
    let (shelf, dir) = (Shelf::default(), tempfile::tempdir().unwrap());
    image(&shelf);
    let host = registry(&shelf).await;
    let image = format!("{host}/private/web:1.0");
    let refusal = prepare(dir.path(), 1, &image).await.unwrap_err();
    let says = refusal.message.contains("--registry-credentials");
    assert!(refusal.is_permanent && says, "{refusal:?}");
    let file = dir.path().join("config.json");
    let write = |auth: &str| {
        let text = json!({ "auths": { &host: { "auth": auth } } });
        std::fs::write(&file, text.to_string()).unwrap();
    };
    write("bWU6d3Jvbmc=");
    let images = registry::images(Some(&file)).unwrap();
    let refusal = prepare_with(dir.path(), 2, &image, &images).await;
    assert!(refusal.unwrap_err().is_permanent);
    write(CREDENTIALS);
    prepare_with(dir.path(), 3, &image, &images).await.unwrap();
    // Another registry of the same credentials, which wants a token made of them.
    let tokens = |address: &str| format!("Bearer realm=\"http://{address}/token\",service=\"s\"");
    let other = registry_that(&shelf, tokens).await;
    let text = json!({ "auths": { &other: { "auth": CREDENTIALS } } });
    std::fs::write(&file, text.to_string()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let same = format!("{other}/private/web:1.0");
    prepare_with(elsewhere.path(), 1, &same, &images)
        .await
        .unwrap();
    std::fs::write(&file, "rubbish").unwrap();
    let other = tempfile::tempdir().unwrap();
    let refusal = prepare_with(other.path(), 1, &image, &images).await;
    let refusal = refusal.unwrap_err();
    let says = refusal.message.contains("config.json: line 1");
    assert!(!refusal.is_permanent && says, "{refusal:?}");
    assert!(registry::images(Some(&file)).is_err());
}
