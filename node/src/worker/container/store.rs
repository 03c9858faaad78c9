//! Images on the worker's disk: fetched by reference, kept by digest, unpacked once, copied for each task.
//!
//! ```text
//! images/refs/HEX       the manifest that a reference led to last, HEX of the reference
//! images/blobs/HEX      configurations and layers as registries gave them
//! images/unpacked/HEX   rootfs and image.json of the manifest HEX
//! ```
//!
//! Everything is made under a name that begins with `tmp-` and renamed when it is whole and its digest is right, so that what has an
//! ordinary name is good. What nobody has used for a week goes; a task has its own copy, so it is never in use. A registry is asked
//! for a tag each time; when it cannot be reached, what the tag led to last is taken.
//!
//! Left out: layers are not shared on the disk by overlays, each task pays for its copy (nothing, on a file system with reflinks).
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files below the worker's directory; runs on a lane"
)]

use super::image::{self, Config, DOCUMENT_BYTES_MAX, Descriptor, Digest, Document, Manifest};
use super::image::{Source, Wishes};
use super::layers::{self, Budget};
use super::{never, not_now, on_lane};
use crate::rt::images::{self, Images};
use crate::rt::{Clock, Lane};
use crate::worker::process::remove_dir;
use crate::worker::words::Refusal;
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How long what nobody uses is kept.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long what was left half-made is kept.
const HALF_MADE: Duration = Duration::from_secs(24 * 3_600);
/// What the name of something half-made begins with.
const TMP: &str = "tmp-";
/// The file of an image's wishes.
pub(super) const WISHES: &str = "image.json";
/// The directory of a root file system.
pub(super) const ROOTFS: &str = "rootfs";

/// The images of a worker.
#[derive(Clone)]
pub(super) struct Store {
    /// Where files are touched.
    pub(super) lane: Lane,
    /// For time-outs and ages.
    pub(super) clock: Clock,
    /// Where images come from.
    pub(super) images: Images,
    /// Its directory.
    pub(super) dir: PathBuf,
    /// What the machine runs, such as `linux/amd64`.
    pub(super) platform: String,
    /// Whether owners of files can be kept.
    pub(super) is_root: bool,
    /// One image is fetched at a time: two of a kind would be fetched twice.
    pub(super) turn: Arc<Semaphore>,
}

/// What is kept of an image for a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its manifest's digest; none for an archive without one.
    pub(super) digest: Option<Digest>,
    /// How it wants to be run.
    pub(super) wishes: Wishes,
}

impl Store {
    /// Makes `bundle` with the root file system of `image` and its wishes, unless it is there.
    pub(super) async fn provide(&self, image: &str, bundle: PathBuf) -> Result<(), Refusal> {
        let there = bundle.clone();
        if on_lane(&self.lane, move || Ok(there.exists())).await? {
            return Ok(());
        }
        let source = Source::parse(image)?;
        let (from, kept) = match &source {
            Source::RootFs(path) => (path.clone(), Kept::default()),
            Source::Layout(..) | Source::Registry(_) => self.unpacked(image, &source).await?,
        };
        let (is_root, image) = (self.is_root, image.to_owned());
        on_lane(&self.lane, move || {
            furnish(&image, &from, &kept, &bundle, is_root)
        })
        .await
    }

    /// Forgets what nobody has used for long.
    pub(super) async fn tidy(&self) {
        let (dir, now) = (self.dir.clone(), self.clock.wall_ms());
        let tidied = self.lane.run(move || tidy(&dir, now)).await;
        if let Ok(Err(error)) = tidied {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot tidy images up");
        }
    }

    /// The unpacked image: its root file system and what is kept of it.
    async fn unpacked(&self, image: &str, source: &Source) -> Result<(PathBuf, Kept), Refusal> {
        let bytes = self.manifest(image, source).await?;
        let digest = Digest::of(&bytes);
        let dir = self.dir.join("unpacked").join(digest.hex());
        let _turn = self.turn.acquire().await.expect("it is never closed");
        let (look, file) = (dir.clone(), dir.join(WISHES));
        if let Some(kept) = on_lane(&self.lane, move || kept(&look, &file)).await? {
            return Ok((dir.join(ROOTFS), kept));
        }
        let manifest = match Document::parse(&bytes, image, &self.platform, None)? {
            Document::Manifest(manifest) => manifest,
            Document::Choice(_) => return Err(never(format!("{image} is an index of indexes"))),
        };
        let kept = Kept {
            digest: Some(digest),
            wishes: self.wishes(image, source, &manifest.config).await?,
        };
        let layers = self.layers(image, source, &manifest).await?;
        let (made, record, tmp) = (dir.clone(), kept.clone(), self.tmp(&dir));
        let (is_root, image) = (self.is_root, image.to_owned());
        on_lane(&self.lane, move || {
            assemble(&image, &layers, &record, &tmp, &made, is_root)
        })
        .await?;
        Ok((dir.join(ROOTFS), kept))
    }

    /// The bytes of the manifest for this machine, whose digest is right if one was promised.
    async fn manifest(&self, image: &str, source: &Source) -> Result<Bytes, Refusal> {
        let (bytes, name) = match source {
            Source::Layout(dir, name) => {
                let file = dir.join("index.json");
                let what = image.to_owned();
                let read = move || read(&file, &format!("the index of {what}"));
                (on_lane(&self.lane, read).await?, name.as_deref())
            }
            Source::Registry(reference) => return self.pulled(reference).await,
            Source::RootFs(_) => return Err(never(format!("{image} has no manifest"))),
        };
        let mut bytes = Bytes::from(bytes);
        // A layout's index may lead to an index of platforms.
        let mut name = name;
        for _ in 0..2 {
            match Document::parse(&bytes, image, &self.platform, name)? {
                Document::Manifest(_) => return Ok(bytes),
                Document::Choice(one) => bytes = self.document(image, source, &one).await?,
            }
            name = None;
        }
        Ok(bytes)
    }

    /// The manifest for this machine that a reference leads to, or led to last when its registry is silent.
    async fn pulled(&self, reference: &str) -> Result<Bytes, Refusal> {
        let name = Digest::of(reference.as_bytes());
        let file = self.dir.join("refs").join(name.hex());
        let (look, pinned) = (file.clone(), image::pinned(reference).transpose()?);
        let last = on_lane(&self.lane, move || Ok(recall(&look))).await?;
        if let (Some(last), true) = (&last, pinned.is_some()) {
            return Ok(last.clone());
        }
        let bytes = match self.ask(reference, pinned.as_ref()).await {
            Ok(bytes) => bytes,
            Err(refusal) => match last.filter(|_| !refusal.is_permanent) {
                Some(last) => {
                    tracing::warn!(
                        image = reference,
                        reason = refusal.message,
                        "takes the image that it led to last"
                    );
                    return Ok(last);
                }
                None => return Err(refusal),
            },
        };
        let (kept, tmp) = (bytes.clone(), self.tmp(&file));
        on_lane(&self.lane, move || keep(&kept, &tmp, &file)).await?;
        Ok(bytes)
    }

    /// Asks a registry for the manifest for this machine.
    async fn ask(&self, reference: &str, pinned: Option<&Digest>) -> Result<Bytes, Refusal> {
        let what = format!("the manifest of {reference}");
        let bytes = self
            .in_time(self.images.manifest(reference), reference)
            .await?;
        if let Some(promised) = pinned {
            promised.expect(&Digest::of(&bytes), &what)?;
        }
        match Document::parse(&bytes, reference, &self.platform, None)? {
            Document::Manifest(_) => Ok(bytes),
            Document::Choice(one) => {
                let digest = one.digest()?;
                let sibling = image::sibling(reference, &digest);
                let asked = self.images.manifest(&sibling);
                let bytes = self.in_time(asked, &sibling).await?;
                digest.expect(&Digest::of(&bytes), &what)?;
                Ok(bytes)
            }
        }
    }

    /// What a registry answers, unless it is silent for too long.
    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, images::Error>>,
        reference: &str,
    ) -> Result<T, Refusal> {
        match self.clock.timeout(SILENCE, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(images::Error::Refused(why))) => Err(never(why)),
            Ok(Err(images::Error::Unreachable(why))) => Err(not_now(why)),
            Err(_) => Err(not_now(format!(
                "the registry of {reference} was silent for {} s: is it reachable from this worker?",
                SILENCE.as_secs()
            ))),
        }
    }

    /// How an image wants to be run.
    async fn wishes(
        &self,
        image: &str,
        source: &Source,
        config: &Descriptor,
    ) -> Result<Wishes, Refusal> {
        let bytes = self.document(image, source, config).await?;
        let config: Config = serde_json::from_slice(&bytes).map_err(|error| {
            never(format!(
                "the configuration of {image} makes no sense: {error}"
            ))
        })?;
        Ok(config.config.unwrap_or_default())
    }

    /// A short blob.
    async fn document(
        &self,
        image: &str,
        source: &Source,
        one: &Descriptor,
    ) -> Result<Bytes, Refusal> {
        let file = self.blob(image, source, one).await?;
        let what = format!("a document of {image}");
        Ok(Bytes::from(
            on_lane(&self.lane, move || read(&file, &what)).await?,
        ))
    }

    /// The files of all layers, each whole and with the right digest.
    async fn layers(
        &self,
        image: &str,
        source: &Source,
        manifest: &Manifest,
    ) -> Result<Vec<PathBuf>, Refusal> {
        let mut files = Vec::new();
        for layer in &manifest.layers {
            files.push(self.blob(image, source, layer).await?);
        }
        Ok(files)
    }

    /// The file of a blob, whole and with the right digest.
    async fn blob(
        &self,
        image: &str,
        source: &Source,
        one: &Descriptor,
    ) -> Result<PathBuf, Refusal> {
        let (digest, size) = (one.digest()?, one.size);
        let what = format!("blob {digest} of {image}");
        match source {
            Source::Layout(dir, _) => {
                let file = dir.join("blobs/sha256").join(digest.hex());
                let checked = file.clone();
                on_lane(&self.lane, move || check(&checked, size, &digest, &what)).await?;
                Ok(file)
            }
            Source::Registry(reference) => {
                let file = self.dir.join("blobs").join(digest.hex());
                let look = file.clone();
                if !on_lane(&self.lane, move || Ok(use_again(&look))).await? {
                    self.download(reference, &digest, size, file.clone(), what)
                        .await?;
                }
                Ok(file)
            }
            Source::RootFs(_) => Err(never(format!("{image} has no blobs"))),
        }
    }

    /// Fetches a blob into `file`, piece by piece.
    async fn download(
        &self,
        reference: &str,
        digest: &Digest,
        size: u64,
        file: PathBuf,
        what: String,
    ) -> Result<(), Refusal> {
        let name = digest.to_string();
        let asked = self.images.blob(reference, &name);
        let mut blob = self.in_time(asked, reference).await?;
        let tmp = self.tmp(&file);
        let begun = move || Download::begin(tmp, file, size, what);
        let mut download = on_lane(&self.lane, begun).await?;
        loop {
            let next = async { Ok(blob.next().await) };
            let Some(piece) = self.in_time(next, reference).await? else {
                break;
            };
            let piece =
                piece.map_err(|error| not_now(format!("{} broke off: {error}", download.what)))?;
            download = on_lane(&self.lane, move || download.take(&piece)).await?;
        }
        let digest = digest.clone();
        on_lane(&self.lane, move || download.end(&digest)).await
    }

    /// The name of what will become `file`.
    fn tmp(&self, file: &Path) -> PathBuf {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        file.with_file_name(format!("{TMP}{name}"))
    }
}

/// A blob that is coming in.
struct Download {
    /// Where it is written.
    tmp: PathBuf,
    /// What it becomes.
    file: PathBuf,
    /// It, open.
    writer: File,
    /// Its digest so far.
    hasher: sha2::Sha256,
    /// Bytes that must still come.
    left: u64,
    /// Its name, for people.
    what: String,
}

impl Download {
    fn begin(tmp: PathBuf, file: PathBuf, size: u64, what: String) -> Result<Self, Refusal> {
        make_parent(&tmp)?;
        let opened = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&tmp);
        let writer = opened.map_err(|error| trouble("write", &tmp, &error))?;
        Ok(Download {
            tmp,
            file,
            writer,
            hasher: sha2::Sha256::new(),
            left: size,
            what,
        })
    }

    fn take(mut self, piece: &[u8]) -> Result<Self, Refusal> {
        let left = self.left.checked_sub(piece.len() as u64);
        self.left =
            left.ok_or_else(|| never(format!("{} is longer than its manifest says", self.what)))?;
        self.hasher.update(piece);
        let written = self.writer.write_all(piece);
        written.map_err(|error| trouble("write", &self.tmp, &error))?;
        Ok(self)
    }

    fn end(self, promised: &Digest) -> Result<(), Refusal> {
        if self.left > 0 {
            return Err(not_now(format!("{} broke off", self.what)));
        }
        promised.expect(&Digest::from_hasher(self.hasher), &self.what)?;
        self.writer
            .sync_all()
            .and_then(|()| fs::rename(&self.tmp, &self.file))
            .map_err(|error| trouble("keep", &self.file, &error))
    }
}

/// Makes a task's bundle: a root file system of its own, and the image's wishes.
fn furnish(
    image: &str,
    from: &Path,
    kept: &Kept,
    bundle: &Path,
    is_root: bool,
) -> Result<(), Refusal> {
    let tmp = bundle.with_extension("tmp");
    remove_dir(&tmp);
    make_dir(&tmp)?;
    let (root, mut budget) = (tmp.join(ROOTFS), Budget::WHOLE);
    let told = fs::metadata(from);
    let is_dir = told.map_err(|error| absent(image, from, &error))?.is_dir();
    let laid = match is_dir {
        true => layers::copy(from, &root, is_root, &mut budget),
        false => {
            fs::create_dir(&root).and_then(|()| layers::unpack(from, &root, is_root, &mut budget))
        }
    };
    laid.map_err(|error| unpacking(image, &tmp, &error))?;
    write_wishes(&tmp, kept)?;
    fs::rename(&tmp, bundle).map_err(|error| trouble("make", bundle, &error))
}

/// Lays layers over each other and keeps what came of it as `made`.
fn assemble(
    image: &str,
    files: &[PathBuf],
    kept: &Kept,
    tmp: &Path,
    made: &Path,
    is_root: bool,
) -> Result<(), Refusal> {
    remove_dir(tmp);
    let (root, mut budget) = (tmp.join(ROOTFS), Budget::WHOLE);
    make_dir(&root)?;
    for file in files {
        layers::unpack(file, &root, is_root, &mut budget)
            .map_err(|error| unpacking(image, tmp, &error))?;
    }
    write_wishes(tmp, kept)?;
    fs::rename(tmp, made).map_err(|error| trouble("make", made, &error))
}

fn write_wishes(dir: &Path, kept: &Kept) -> Result<(), Refusal> {
    let file = dir.join(WISHES);
    let text = serde_json::to_vec(kept).map_err(|error| never(error.to_string()))?;
    fs::write(&file, text).map_err(|error| trouble("write", &file, &error))
}

/// What is kept of an unpacked image, if it is there; it counts as used now.
fn kept(dir: &Path, file: &Path) -> Result<Option<Kept>, Refusal> {
    if !dir.exists() {
        return Ok(None);
    }
    let kept = read_wishes(file)?;
    // Its age is that of this file. A clock that cannot be set there only makes it go earlier.
    drop(fs::write(dir.join("used"), ""));
    Ok(Some(kept))
}

/// What is kept of an image in `file`.
pub(super) fn read_wishes(file: &Path) -> Result<Kept, Refusal> {
    let bytes = read(file, "what is kept of an image")?;
    serde_json::from_slice(&bytes).map_err(|error| {
        not_now(format!(
            "{} is damaged ({error}): remove its directory, and the image is fetched anew",
            file.display()
        ))
    })
}

/// A manifest that was kept.
fn recall(file: &Path) -> Option<Bytes> {
    let bytes = fs::read(file).ok()?;
    use_again(file);
    Some(Bytes::from(bytes))
}

/// Whether a file is there; it counts as used now.
fn use_again(file: &Path) -> bool {
    match File::open(file) {
        Ok(open) => {
            // As above: its age is all that depends on it.
            drop(open.set_modified(SystemTime::now()));
            true
        }
        Err(_) => false,
    }
}

/// Writes a file whole or not at all.
fn keep(bytes: &[u8], tmp: &Path, file: &Path) -> Result<(), Refusal> {
    make_parent(tmp)?;
    let written = fs::write(tmp, bytes).and_then(|()| fs::rename(tmp, file));
    written.map_err(|error| trouble("write", file, &error))
}

/// A document that is not too long.
fn read(file: &Path, what: &str) -> Result<Vec<u8>, Refusal> {
    let open = File::open(file).map_err(|error| absent(what, file, &error))?;
    let mut bytes = Vec::new();
    let read = open.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| trouble("read", file, &error))?;
    match bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        true => Err(never(format!(
            "{what} is longer than {DOCUMENT_BYTES_MAX} bytes"
        ))),
        false => Ok(bytes),
    }
}

/// Whether a layout's blob is what its digest says.
fn check(file: &Path, size: u64, digest: &Digest, what: &str) -> Result<(), Refusal> {
    let mut open = File::open(file).map_err(|error| absent(what, file, &error))?;
    let mut hasher = sha2::Sha256::new();
    let (mut buffer, mut length) = (vec![0; 1 << 16], 0);
    loop {
        let read = open.read(&mut buffer);
        let read = read.map_err(|error| trouble("read", file, &error))?;
        if read == 0 {
            break;
        }
        length += read as u64;
        hasher.update(&buffer[..read]);
    }
    if length != size {
        return Err(never(format!(
            "{what} has {length} bytes where {size} were promised"
        )));
    }
    digest.expect(&Digest::from_hasher(hasher), what)
}

/// Removes what nobody has used for long, and what was left half-made.
pub(super) fn tidy(dir: &Path, now_ms: u64) -> io::Result<()> {
    for part in ["refs", "blobs", "unpacked"] {
        let listed = match fs::read_dir(dir.join(part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed?,
        };
        for entry in listed {
            let path = entry?.path();
            let is_half = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(TMP));
            let longest = if is_half { HALF_MADE } else { UNUSED };
            let used = fs::metadata(path.join("used")).or_else(|_| fs::metadata(&path))?;
            let since = used
                .modified()?
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            if Duration::from_millis(now_ms).saturating_sub(since) < longest {
                continue;
            }
            match path.is_dir() {
                true => remove_dir(&path),
                false => fs::remove_file(&path)?,
            }
        }
    }
    Ok(())
}

fn make_parent(file: &Path) -> Result<(), Refusal> {
    file.parent().map_or(Ok(()), make_dir)
}

fn make_dir(dir: &Path) -> Result<(), Refusal> {
    fs::create_dir_all(dir).map_err(|error| trouble("make", dir, &error))
}

/// What an operator named is not there, or cannot be read.
fn absent(what: &str, path: &Path, error: &io::Error) -> Refusal {
    never(format!(
        "{what} cannot be read from {}: {error}",
        path.display()
    ))
}

/// An image cannot be unpacked.
fn unpacking(image: &str, dir: &Path, error: &io::Error) -> Refusal {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull => {
            trouble(&format!("unpack {image} into"), dir, error)
        }
        _ => never(format!("{image} cannot be unpacked: {error}")),
    }
}

/// The worker's own disk does not do what it should.
pub(super) fn trouble(verb: &str, path: &Path, error: &io::Error) -> Refusal {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room on this worker; images/ in its data directory may be removed while nothing is fetched"
        }
        _ => "",
    };
    not_now(format!("cannot {verb} {}: {error}{hint}", path.display()))
}
