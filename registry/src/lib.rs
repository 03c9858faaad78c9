//! Images from registries: the real half of `node::rt::images`, over HTTPS by `oci-client` with rustls.
//!
//! It is a crate of its own so that the simulator links neither TLS nor another HTTP client. Registries on loopback are spoken to
//! without TLS, as container engines do. What comes is checked by the node, not here.
//!
//! Left out: credentials. Only what a registry gives to everybody can be pulled.

use bytes::Bytes;
use futures::StreamExt;
use node::rt::images::{Blob, Error, Images, ImagesDriver};
use node::rt::net::BoxFuture;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use std::time::Duration;

/// How long a registry may take for the connection.
const CONNECT: Duration = Duration::from_secs(20);
/// How long it may be silent.
const SILENCE: Duration = Duration::from_secs(45);
/// Hosts that are spoken to without TLS.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// Manifests and indexes that are taken.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// All registries that this machine can reach.
#[derive(Clone)]
struct Registries {
    /// Speaks HTTPS.
    secure: Client,
    /// Speaks HTTP.
    plain: Client,
}

/// The registries that this machine can reach.
pub fn images() -> Result<Images, String> {
    // Another part of this program may have chosen one; any will do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = |protocol: ClientProtocol| {
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            ..ClientConfig::default()
        };
        Client::try_from(config)
            .map_err(|error| format!("images cannot be pulled by this program: {error}"))
    };
    Ok(Images::new(Registries {
        secure: client(ClientProtocol::Https)?,
        plain: client(ClientProtocol::Http)?,
    }))
}

impl Registries {
    /// Who is to be asked for `image`, and its whole name.
    fn find(&self, image: &str) -> Result<(Client, Reference), Error> {
        let parsed = image.parse::<Reference>();
        let reference = parsed.map_err(|error| {
            let hint = "write it as host/name:tag or host/name@sha256:...";
            Error::Refused(format!("{image:?} is not an image: {error}; {hint}"))
        })?;
        let registry = reference.resolve_registry();
        let is_port = |rest: &str| rest.is_empty() || rest.starts_with(':');
        let is_near = |host: &str| registry.strip_prefix(host).is_some_and(is_port);
        let client = match LOOPBACK.into_iter().any(is_near) {
            true => self.plain.clone(),
            false => self.secure.clone(),
        };
        Ok((client, reference))
    }
}

impl ImagesDriver for Registries {
    fn manifest(&self, image: &str) -> BoxFuture<'static, Result<Bytes, Error>> {
        let (found, image) = (self.find(image), image.to_owned());
        Box::pin(async move {
            let (client, reference) = found?;
            let asked = client.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &MANIFESTS);
            let (bytes, _) = asked.await.map_err(|error| refusal(&image, &error))?;
            Ok(bytes)
        })
    }

    fn blob(&self, image: &str, digest: &str) -> BoxFuture<'static, Result<Blob, Error>> {
        let (found, image, digest) = (self.find(image), image.to_owned(), digest.to_owned());
        Box::pin(async move {
            let (client, reference) = found?;
            let what = format!("{digest} of {image}");
            let pull = RegistryOperation::Pull;
            let allowed = client.auth(&reference, &RegistryAuth::Anonymous, pull);
            allowed.await.map_err(|error| refusal(&what, &error))?;
            let asked = client.pull_blob_stream(&reference, digest.as_str());
            let sized = asked.await.map_err(|error| refusal(&what, &error))?;
            Ok(sized.stream.boxed())
        })
    }
}

/// What an error means for whoever wants `what`.
fn refusal(what: &str, error: &OciDistributionError) -> Error {
    use OciDistributionError as Oci;
    let why = format!("{what} cannot be pulled: {error}");
    let private = "; only images that anybody may pull can be: copy it to a registry of your own, or into an OCI layout (oci:/path)";
    match error {
        Oci::UnauthorizedError { .. } | Oci::AuthenticationFailure(_) => {
            Error::Refused(why + private)
        }
        Oci::ImageManifestNotFoundError(_) | Oci::UrlParseError(_) => Error::Refused(why),
        Oci::RegistryError { envelope, .. } => {
            let temporary = |code: &OciErrorCode| matches!(code, OciErrorCode::Toomanyrequests);
            match envelope.errors.iter().any(|one| temporary(&one.code)) {
                true => Error::Unreachable(why),
                false => Error::Refused(why),
            }
        }
        Oci::ServerError { code, .. }
            if (400..500).contains(code) && ![408, 429].contains(code) =>
        {
            Error::Refused(why)
        }
        _ => Error::Unreachable(with_causes(why, error)),
    }
}

/// A sentence with what lies behind an error: a request that failed does not say itself that nobody listens.
fn with_causes(mut text: String, error: &dyn std::error::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}
