//! Registries of images: manifests and blobs by reference.
//!
//! What comes from a registry is not believed: whoever asks compares sizes and digests. The real half is the crate `registry`, which
//! speaks HTTPS; the simulator does not link it.

use super::net::BoxFuture;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::io;
use std::sync::Arc;

/// Why a registry gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It answered that there is no such thing, or not for us: asking again does not help.
    #[error("{0}")]
    Refused(String),
    /// It did not answer, or not well: it may another time.
    #[error("{0}")]
    Unreachable(String),
}

/// A blob as it comes in.
pub type Blob = BoxStream<'static, io::Result<Bytes>>;

/// What registries must do.
pub trait ImagesDriver: Send + Sync {
    /// The manifest, or the index of manifests, that `image` (`host/name:tag` or `host/name@digest`) names.
    fn manifest(&self, image: &str) -> BoxFuture<'static, Result<Bytes, Error>>;
    /// The blob with `digest` of the repository of `image`.
    fn blob(&self, image: &str, digest: &str) -> BoxFuture<'static, Result<Blob, Error>>;
}

/// The registries that a node can reach.
#[derive(Clone)]
pub struct Images(Arc<dyn ImagesDriver>);

impl Images {
    /// Registries over `driver`.
    pub fn new(driver: impl ImagesDriver + 'static) -> Self {
        Images(Arc::new(driver))
    }

    /// A world without registries.
    pub fn none() -> Self {
        Images::new(Nowhere)
    }

    /// The manifest, or the index of manifests, that `image` names.
    pub async fn manifest(&self, image: &str) -> Result<Bytes, Error> {
        self.0.manifest(image).await
    }

    /// The blob with `digest` of the repository of `image`.
    pub async fn blob(&self, image: &str, digest: &str) -> Result<Blob, Error> {
        self.0.blob(image, digest).await
    }
}

/// No registries at all.
struct Nowhere;

impl Nowhere {
    fn refusal(image: &str) -> Error {
        Error::Refused(format!(
            "{image} cannot be pulled: this program has no registries"
        ))
    }
}

impl ImagesDriver for Nowhere {
    fn manifest(&self, image: &str) -> BoxFuture<'static, Result<Bytes, Error>> {
        let refusal = Nowhere::refusal(image);
        Box::pin(async { Err(refusal) })
    }

    fn blob(&self, image: &str, _: &str) -> BoxFuture<'static, Result<Blob, Error>> {
        let refusal = Nowhere::refusal(image);
        Box::pin(async { Err(refusal) })
    }
}
