//! Images from registries: the real half of `node::rt::images`, over HTTPS by `oci-client` with rustls.
//!
//! It is a crate of its own so that the simulator links neither TLS nor another HTTP client. Registries on loopback are spoken to
//! without TLS, as container engines do. What comes is checked by the node, not here.
//!
//! Map: here, the clients; [`credentials`], what to show them.

mod credentials;

use crate::credentials::Credentials;
use bytes::Bytes;
use futures::StreamExt;
use node::rt::images::{Blob, Error, Images, ImagesDriver};
use node::rt::net::BoxFuture;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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
    /// The file of credentials.
    file: Option<PathBuf>,
    /// What is made of it: at the first pull, since many a worker never pulls, and anew when it says something else.
    kept: Arc<Mutex<Option<Arc<Clients>>>>,
}

/// How registries are spoken to.
struct Clients {
    /// What the file of credentials says.
    text: String,
    /// What that means.
    credentials: Credentials,
    /// Speaks HTTPS.
    secure: Client,
    /// Speaks HTTP.
    plain: Client,
}

impl Clients {
    /// Clients with the credentials in `text`. They keep to those that they were given first.
    fn new(text: String) -> Result<Self, String> {
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
        Ok(Clients {
            credentials: credentials(&text)?,
            text,
            secure: client(ClientProtocol::Https)?,
            plain: client(ClientProtocol::Http)?,
        })
    }
}

/// The registries that this machine can reach, with the credentials in `file`, which is read again for each pull.
pub fn images(file: Option<&Path>) -> Result<Images, String> {
    // Another part of this program may have chosen one; any will do.
    drop(rustls::crypto::ring::default_provider().install_default());
    credentials(&read(file)?).map_err(|why| told(file, &why))?;
    Ok(Images::new(Registries {
        file: file.map(Path::to_owned),
        kept: Arc::default(),
    }))
}

/// What a file of credentials with this text says.
fn credentials(text: &str) -> Result<Credentials, String> {
    match text.is_empty() {
        true => Ok(Credentials::default()),
        false => Credentials::parse(text),
    }
}

/// What is wrong, with the file that is to blame.
fn told(file: Option<&Path>, why: &str) -> String {
    match file {
        Some(file) => format!("credentials in {}: {why}", file.display()),
        None => why.to_owned(),
    }
}

/// The text of the file of credentials.
fn read(file: Option<&Path>) -> Result<String, String> {
    let text = file.map(std::fs::read_to_string).transpose();
    let text = text.map_err(|error| told(file, &format!("cannot be read: {error}")))?;
    Ok(text.unwrap_or_default())
}

/// Whom to ask for an image, and how.
struct Found {
    /// Speaks to its registry.
    client: Client,
    /// Its whole name.
    reference: Reference,
    /// What to show.
    auth: RegistryAuth,
}

impl Registries {
    /// The clients for what the file of credentials says now.
    fn clients(&self) -> Result<Arc<Clients>, Error> {
        let text = read(self.file.as_deref()).map_err(Error::Unreachable)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clients) = kept.as_ref().filter(|clients| clients.text == text) {
            return Ok(Arc::clone(clients));
        }
        let told = |why: String| Error::Unreachable(told(self.file.as_deref(), &why));
        let clients = Arc::new(Clients::new(text).map_err(told)?);
        *kept = Some(Arc::clone(&clients));
        Ok(clients)
    }

    /// Who is to be asked for `image`.
    fn find(&self, image: &str) -> Result<Found, Error> {
        let parsed = image.parse::<Reference>();
        let reference = parsed.map_err(|error| {
            let hint = "write it as host/name:tag or host/name@sha256:...";
            Error::Refused(format!("{image:?} is not an image: {error}; {hint}"))
        })?;
        let clients = self.clients()?;
        let registry = reference.resolve_registry();
        let is_port = |rest: &str| rest.is_empty() || rest.starts_with(':');
        let is_near = |host: &str| registry.strip_prefix(host).is_some_and(is_port);
        let client = match LOOPBACK.into_iter().any(is_near) {
            true => clients.plain.clone(),
            false => clients.secure.clone(),
        };
        let auth = clients.credentials.of(registry);
        Ok(Found {
            client,
            reference,
            auth,
        })
    }
}

impl ImagesDriver for Registries {
    fn manifest(&self, image: &str) -> BoxFuture<'static, Result<Bytes, Error>> {
        let (found, image) = (self.find(image), image.to_owned());
        Box::pin(async move {
            let Found {
                client,
                reference,
                auth,
            } = found?;
            let asked = client.pull_manifest_raw(&reference, &auth, &MANIFESTS);
            let (bytes, _) = asked.await.map_err(|error| refusal(&image, &error))?;
            Ok(bytes)
        })
    }

    fn blob(&self, image: &str, digest: &str) -> BoxFuture<'static, Result<Blob, Error>> {
        let (found, image, digest) = (self.find(image), image.to_owned(), digest.to_owned());
        Box::pin(async move {
            let Found {
                client,
                reference,
                auth,
            } = found?;
            let what = format!("{digest} of {image}");
            let pull = RegistryOperation::Pull;
            let allowed = client.auth(&reference, &auth, pull);
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
    let private = "; give the worker credentials with --registry-credentials, or copy the image into an OCI layout (oci:/path)";
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
