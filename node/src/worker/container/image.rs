//! What an image says of itself: where it comes from, its manifest, its layers, and how it wants to be run. Pure.

use crate::worker::process::never;
use crate::worker::words::Refusal;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Most layers that an image may have.
const LAYERS_MAX: usize = 512;
/// Most bytes of its layers together as they are transferred.
const LAYERS_BYTES_MAX: u64 = 32 << 30;
/// Longest manifest, index or configuration, bytes.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// The annotation that names a manifest in a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An OCI layout on this machine, and the name of one of its images if it has several.
    Layout(PathBuf, Option<String>),
    /// A directory, or an archive of one, on this machine.
    RootFs(PathBuf),
    /// A registry's `host/name:tag` or `host/name@digest`.
    Registry(String),
}

impl Source {
    /// From what a specification says.
    pub(super) fn parse(image: &str) -> Result<Source, Refusal> {
        let absolute = |path: &str| match path.starts_with('/') {
            true => Ok(PathBuf::from(path)),
            false => Err(never(format!(
                "image {image} names {path:?}: write an absolute path of the worker's machine"
            ))),
        };
        if let Some(path) = image.strip_prefix("rootfs:") {
            return Ok(Source::RootFs(absolute(path)?));
        }
        if let Some(rest) = image.strip_prefix("oci:") {
            return Ok(match rest.rsplit_once(':') {
                Some((path, name)) if !name.contains('/') => {
                    Source::Layout(absolute(path)?, Some(name.to_owned()))
                }
                _ => Source::Layout(absolute(rest)?, None),
            });
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte);
        match !image.is_empty() && image.bytes().all(plain) {
            true => Ok(Source::Registry(image.to_owned())),
            false => Err(never(format!(
                "{image:?} is not an image: write host/name:tag, oci:/path/to/layout:tag or rootfs:/path/to/archive.tar.gz"
            ))),
        }
    }
}

/// The digest that a registry's reference names, if it names one.
pub(super) fn pinned(reference: &str) -> Option<Result<Digest, Refusal>> {
    let (_, digest) = reference.rsplit_once('@')?;
    Some(Digest::parse(digest))
}

/// The reference of another manifest in the same repository.
pub(super) fn sibling(reference: &str, digest: &Digest) -> String {
    let unpinned = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    let repository = match unpinned.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => unpinned,
    };
    format!("{repository}@{digest}")
}

/// A SHA-256 in hex, the one kind of digest that is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Digest(String);

impl Digest {
    /// From `sha256:HEX`.
    pub(super) fn parse(text: &str) -> Result<Digest, Refusal> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match hex.len() == 64 && hex.bytes().all(is_hex) {
            true => Ok(Digest(hex.to_owned())),
            false => Err(never(format!(
                "{text:?} is no digest that a worker can check: only sha256 with 64 digits of lower-case hex is"
            ))),
        }
    }

    /// Of bytes.
    pub(super) fn of(bytes: &[u8]) -> Digest {
        Digest::from_hasher(sha2::Sha256::new_with_prefix(bytes))
    }

    /// Of everything that a hasher has seen.
    pub(super) fn from_hasher(hasher: sha2::Sha256) -> Digest {
        let hex = hasher
            .finalize()
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Digest(hex)
    }

    /// Only the hex, the name of a file.
    pub(super) fn hex(&self) -> &str {
        &self.0
    }

    /// An error unless it is `found`, which is what `what` really has.
    pub(super) fn expect(&self, found: &Digest, what: &str) -> Result<(), Refusal> {
        match self == found {
            true => Ok(()),
            false => Err(super::not_now(format!(
                "{what} is damaged or forged: it has digest {found} where {self} was promised; it is not used"
            ))),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sha256:{}", self.0)
    }
}

/// A reference to a blob or a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    /// What it is.
    #[serde(default)]
    media_type: String,
    /// Its digest, in words.
    digest: String,
    /// Its length, bytes.
    pub(super) size: u64,
    /// For which machines, in an index.
    platform: Option<Platform>,
    /// Notes; a layout's index has names here.
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Its digest.
    pub(super) fn digest(&self) -> Result<Digest, Refusal> {
        Digest::parse(&self.digest)
    }
}

/// A kind of machine.
#[derive(Clone, Debug, Deserialize)]
struct Platform {
    /// Its processor.
    architecture: String,
    /// Its system.
    os: String,
}

/// The parts of an image.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    /// Its configuration.
    pub(super) config: Descriptor,
    /// Its layers, lowest first.
    pub(super) layers: Vec<Descriptor>,
}

/// Several manifests.
#[derive(Clone, Debug, Deserialize)]
struct Index {
    /// The manifests.
    manifests: Vec<Descriptor>,
}

/// What a reference leads to.
#[derive(Clone, Debug)]
pub(super) enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several, of which this one is meant.
    Choice(Descriptor),
}

impl Document {
    /// From bytes: a manifest, or what fits `platform` and has `name` in an index.
    pub(super) fn parse(
        bytes: &[u8],
        image: &str,
        platform: &str,
        name: Option<&str>,
    ) -> Result<Document, Refusal> {
        let wrong = |why: &dyn fmt::Display| never(format!("the manifest of {image} {why}"));
        let value: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|error| wrong(&format_args!("is not JSON: {error}")))?;
        let odd = |error: serde_json::Error| wrong(&format_args!("makes no sense: {error}"));
        if value.get("manifests").is_some() {
            let index: Index = serde_json::from_value(value).map_err(odd)?;
            return choose(index, image, platform, name).map(Document::Choice);
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(odd)?;
        let layers = manifest.layers.iter();
        let bytes = layers.fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        if manifest.layers.len() > LAYERS_MAX || bytes > LAYERS_BYTES_MAX {
            return Err(wrong(&format_args!(
                "names {} layers of {bytes} bytes: at most {LAYERS_MAX} of {LAYERS_BYTES_MAX} bytes together are taken",
                manifest.layers.len()
            )));
        }
        if manifest.config.size > DOCUMENT_BYTES_MAX {
            return Err(wrong(&"names a configuration that is too long"));
        }
        if let Some(layer) = manifest.layers.iter().find(|layer| !layer.is_tar()) {
            return Err(wrong(&format_args!(
                "has a layer of type {:?}: push it with layers of tar or tar+gzip",
                layer.media_type
            )));
        }
        Ok(Document::Manifest(manifest))
    }
}

impl Descriptor {
    /// Whether it is a layer that can be unpacked here.
    fn is_tar(&self) -> bool {
        let kind = &self.media_type;
        let is_tar =
            kind.ends_with("tar") || kind.ends_with("tar+gzip") || kind.ends_with("tar.gzip");
        is_tar && !kind.contains("foreign")
    }

    /// Whether it is for `platform`, such as `linux/amd64`, or for any.
    fn fits(&self, platform: &str) -> bool {
        let own = self.platform.as_ref();
        own.is_none_or(|own| format!("{}/{}", own.os, own.architecture) == platform)
    }
}

/// The one manifest that is meant.
fn choose(
    index: Index,
    image: &str,
    platform: &str,
    name: Option<&str>,
) -> Result<Descriptor, Refusal> {
    let called = |one: &Descriptor| one.annotations.get(REF_NAME).cloned();
    let mut names: Vec<String> = index.manifests.iter().filter_map(called).collect();
    names.dedup();
    let mut named: Vec<Descriptor> = index.manifests;
    match name {
        Some(name) => named.retain(|one| called(one).as_deref() == Some(name)),
        None if names.len() > 1 => {
            return Err(never(format!(
                "{image} holds several images: add one of :{}",
                names.join(", :")
            )));
        }
        None => {}
    }
    if named.is_empty() {
        return Err(never(format!(
            "{image} is not there; the names there are: {}",
            names.join(", ")
        )));
    }
    let fitting = named.into_iter().find(|one| one.fits(platform));
    fitting.ok_or_else(|| {
        never(format!(
            "{image} is not made for {platform}: build it for that, or constrain the service to other workers"
        ))
    })
}

/// An image's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Config {
    /// How it wants to be run.
    #[serde(default)]
    pub(super) config: Option<Wishes>,
}

/// How an image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Wishes {
    /// `user`, `user:group`, in names or numbers.
    pub(super) user: Option<String>,
    /// `NAME=value`.
    pub(super) env: Option<Vec<String>>,
    /// What its command begins with.
    pub(super) entrypoint: Option<Vec<String>>,
    /// What its command goes on with.
    pub(super) cmd: Option<Vec<String>>,
    /// Directory to run in.
    pub(super) working_dir: Option<String>,
    /// The signal that ends it in order.
    pub(super) stop_signal: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(arch: &str, name: &str) -> String {
        let digest = Digest::of(arch.as_bytes());
        format!(
            r#"{{"mediaType":"m","digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"{arch}"}},
            "annotations":{{"{REF_NAME}":"{name}"}}}}"#
        )
    }

    fn choice(index: &str, name: Option<&str>) -> Result<Digest, Refusal> {
        match Document::parse(index.as_bytes(), "i", "linux/arm64", name)? {
            Document::Choice(one) => one.digest(),
            Document::Manifest(_) => panic!("it is an index"),
        }
    }

    #[test]
    fn a_source_is_told_by_its_beginning() {
        let layout = |path: &str, name: Option<&str>| {
            Ok(Source::Layout(path.into(), name.map(str::to_owned)))
        };
        assert_eq!(Source::parse("oci:/a/b:1.2"), layout("/a/b", Some("1.2")));
        assert_eq!(Source::parse("oci:/a:x/b"), layout("/a:x/b", None));
        let archive = Source::RootFs("/r.tar.gz".into());
        assert_eq!(Source::parse("rootfs:/r.tar.gz"), Ok(archive));
        let registry = "localhost:5000/web:1";
        assert_eq!(
            Source::parse(registry),
            Ok(Source::Registry(registry.to_owned()))
        );
        for bad in ["", "oci:a/b", "rootfs:x", "we b", "--root=/"] {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sibling_keeps_host_and_port() {
        let digest = Digest::of(b"");
        for own in [
            "h:5/a/b",
            "h:5/a/b:tag",
            "h:5/a/b@sha256:00",
            "h:5/a/b:tag@sha256:00",
        ] {
            assert_eq!(sibling(own, &digest), format!("h:5/a/b@{digest}"));
        }
        assert_eq!(
            digest.hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn the_one_for_this_machine_is_chosen() {
        let index = format!(
            r#"{{"manifests":[{},{}]}}"#,
            entry("amd64", "1"),
            entry("arm64", "1")
        );
        assert_eq!(choice(&index, None), Ok(Digest::of(b"arm64")));
        assert_eq!(choice(&index, Some("1")), Ok(Digest::of(b"arm64")));
        assert!(
            choice(&index, Some("2"))
                .unwrap_err()
                .message
                .contains("there are: 1")
        );
        let other = format!(r#"{{"manifests":[{}]}}"#, entry("s390x", "1"));
        assert!(
            choice(&other, None)
                .unwrap_err()
                .message
                .contains("linux/arm64")
        );
        let two = format!(
            r#"{{"manifests":[{},{}]}}"#,
            entry("arm64", "1"),
            entry("arm64", "2")
        );
        assert!(choice(&two, None).unwrap_err().message.contains(":1, :2"));
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let parse = |text: &str| Document::parse(text.as_bytes(), "i", "linux/amd64", None);
        let digest = Digest::of(b"");
        let layer = |kind: &str, size: u64| {
            let one = format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#);
            format!(r#"{{"config":{one},"layers":[{one}]}}"#)
        };
        assert!(parse(&layer("x.tar+gzip", 1)).is_ok());
        for bad in [
            "",
            "{}",
            "[]",
            &layer("x.tar+zstd", 1),
            &layer("x.tar", u64::MAX),
        ] {
            let refusal = parse(bad).unwrap_err();
            assert!(
                refusal.is_permanent && refusal.message.contains("of i "),
                "{refusal:?}"
            );
        }
        assert!(Digest::parse("sha512:00").is_err());
        assert!(Digest::parse("sha256:../../../etc").is_err());
    }
}
