//! Root file systems on the disk: layers laid over each other, and copies of what came of it.
//!
//! A layer is an archive of what it adds, with whiteouts for what it takes away. Nothing that an archive says leads out of its root:
//! links are followed as if the root were `/`, a path with `..` is refused, devices are left out (the runtime makes those it
//! allows). Bytes and entries are counted against a bound.
//!
//! Left out: extended attributes (file capabilities), and hard links in copies, which become files of their own.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files below the worker's directory; runs on a lane"
)]

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// What the name of a file that hides another one begins with.
const WHITEOUT: &str = ".wh.";
/// The file that hides everything that lower layers have in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// Most symbolic links that are followed for one path.
const LINKS_MAX: usize = 40;
/// Room for headers above an archive's contents: so many bytes for each entry.
const HEADER_BYTES: u64 = 4 << 10;

/// How much an image may still unpack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Bytes in files.
    pub(super) bytes: u64,
    /// Files, directories and links.
    pub(super) entries: u64,
}

impl Budget {
    /// The most that any image may have.
    pub(super) const WHOLE: Budget = Budget {
        bytes: 64 << 30,
        entries: 4 << 20,
    };

    /// Takes one entry of `bytes`.
    fn spend(&mut self, bytes: u64) -> io::Result<()> {
        match (self.bytes.checked_sub(bytes), self.entries.checked_sub(1)) {
            (Some(bytes), Some(entries)) => {
                *self = Budget { bytes, entries };
                Ok(())
            }
            _ => Err(bad("the image unpacks to more than a worker takes")),
        }
    }
}

/// Lays the archive `file`, compressed by gzip or not, over what is in `root`. Owners are kept only by root.
pub(super) fn unpack(
    file: &Path,
    root: &Path,
    is_root: bool,
    budget: &mut Budget,
) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(file)?);
    let most = budget.bytes + budget.entries * HEADER_BYTES;
    match reader.fill_buf()? {
        [0x1f, 0x8b, ..] => {
            let plain = flate2::bufread::MultiGzDecoder::new(reader);
            Layer::new(root, is_root, budget).unpack(plain.take(most))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(bad("it is compressed by zstd: only gzip is taken")),
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', ..] => {
            Err(bad("it is compressed by bzip2 or xz: only gzip is taken"))
        }
        _ => Layer::new(root, is_root, budget).unpack(reader.take(most)),
    }
}

/// One layer on its way to the disk.
struct Layer<'a> {
    /// What counts as `/`.
    root: &'a Path,
    /// Whether owners can be kept.
    is_root: bool,
    /// What may still come.
    budget: &'a mut Budget,
    /// What this layer has put there: it does not hide that.
    added: BTreeSet<PathBuf>,
    /// Directories with the mode and time that they get when everything is in them.
    dirs: Vec<(PathBuf, u32, u64)>,
}

impl<'a> Layer<'a> {
    fn new(root: &'a Path, is_root: bool, budget: &'a mut Budget) -> Self {
        Layer {
            root,
            is_root,
            budget,
            added: BTreeSet::new(),
            dirs: Vec::new(),
        }
    }

    fn unpack(mut self, reader: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(reader);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(self.is_root);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let named = entry.path()?.into_owned();
            self.entry(&mut entry, &named)
                .map_err(|error| io::Error::new(error.kind(), format!("{named:?}: {error}")))?;
        }
        for (dir, mode, mtime) in self.dirs.iter().rev() {
            // A later entry may have taken its place.
            if fs::symlink_metadata(dir).is_ok_and(|now| now.is_dir()) {
                fs::set_permissions(dir, Permissions::from_mode(*mode))?;
                set_time(dir, *mtime)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>, named: &Path) -> io::Result<()> {
        self.budget.spend(entry.size())?;
        let Some(path) = relative(named)? else {
            return Ok(()); // The root itself.
        };
        let name = path.file_name().map(OsString::from).unwrap_or_default();
        let parent = resolve(self.root, path.parent().unwrap_or(Path::new("")))?;
        if let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix(WHITEOUT)) {
            return match name == OPAQUE {
                true => self.hide_all(&parent),
                false if hidden.is_empty() || hidden == "." || hidden == ".." => {
                    Err(bad("it hides nothing that could be there"))
                }
                false => self.hide(&parent.join(hidden)),
            };
        }
        fs::create_dir_all(&parent)?;
        let target = parent.join(name);
        if self.put(entry, &target)? {
            self.added.insert(target);
        }
        Ok(())
    }

    /// Puts one entry at `target`; false when it was left out.
    fn put(&mut self, entry: &mut tar::Entry<'_, impl Read>, target: &Path) -> io::Result<bool> {
        let (kind, header) = (entry.header().entry_type(), entry.header());
        let (mode, mtime) = (header.mode()?, header.mtime()?);
        let owner = (id(header.uid()?)?, id(header.gid()?)?);
        match kind {
            EntryType::Directory => {
                let before = fs::symlink_metadata(target);
                if !before.is_ok_and(|before| before.is_dir()) {
                    remove(target)?;
                    fs::create_dir(target)?;
                }
                if self.is_root {
                    chown(target, Some(owner.0), Some(owner.1))?;
                }
                let mode = dir_mode(mode, self.is_root);
                self.dirs.push((target.to_owned(), mode, mtime));
            }
            EntryType::Symlink => {
                let to = entry.link_name()?.ok_or_else(|| bad("it links nowhere"))?;
                remove(target)?;
                symlink(&to, target)?;
                if self.is_root {
                    lchown(target, Some(owner.0), Some(owner.1))?;
                }
            }
            EntryType::Link => {
                let to = entry.link_name()?.ok_or_else(|| bad("it links nowhere"))?;
                let to = relative(&to)?.ok_or_else(|| bad("it links to the root"))?;
                let parent = resolve(self.root, to.parent().unwrap_or(Path::new("")))?;
                let source = parent.join(to.file_name().unwrap_or_default());
                if source != target {
                    remove(target)?;
                    fs::hard_link(source, target)?;
                }
            }
            kind if kind.is_file() => {
                remove(target)?;
                entry.unpack(target)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes away what lower layers have at `path`.
    fn hide(&self, path: &Path) -> io::Result<()> {
        let here = |added: &PathBuf| added.starts_with(path);
        match self.added.range(path.to_owned()..).next().is_some_and(here) {
            true if fs::symlink_metadata(path)?.is_dir() => self.hide_all(path),
            true => Ok(()),
            false => remove(path),
        }
    }

    /// Takes away what lower layers have in `dir`.
    fn hide_all(&self, dir: &Path) -> io::Result<()> {
        let listed = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed?,
        };
        for child in listed {
            self.hide(&child?.path())?;
        }
        Ok(())
    }
}

/// A path of an archive below its root; none for the root itself.
fn relative(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(bad("the path leads out of the image"));
            }
        }
    }
    Ok((!below.as_os_str().is_empty()).then_some(below))
}

/// Where `path` is when `root` is `/`: links are followed, and lead nowhere else. What is not there yet is itself.
pub(super) fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> {
        let kept = path.components().filter_map(|part| match part {
            Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
            _ => None,
        });
        kept.collect()
    };
    let (mut real, mut links) = (PathBuf::new(), 0);
    let mut rest = VecDeque::from(parts(path));
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            real.pop();
            continue;
        }
        let next = root.join(&real).join(&part);
        if !fs::symlink_metadata(&next).is_ok_and(|next| next.is_symlink()) {
            real.push(part);
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(bad("its links go in a circle"));
        }
        let to = fs::read_link(&next)?;
        if to.is_absolute() {
            real.clear();
        }
        for part in parts(&to).into_iter().rev() {
            rest.push_front(part);
        }
    }
    Ok(root.join(real))
}

/// Copies a root file system; `to` must not be there.
pub(super) fn copy(from: &Path, to: &Path, is_root: bool, budget: &mut Budget) -> io::Result<()> {
    let told = fs::symlink_metadata(from)?;
    budget.spend(if told.is_file() { told.len() } else { 0 })?;
    let kind = told.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return match is_root {
            true => lchown(to, Some(told.uid()), Some(told.gid())),
            false => Ok(()),
        };
    }
    if kind.is_file() {
        fs::copy(from, to)?;
        return dress(to, &told, told.mode(), is_root);
    }
    if !kind.is_dir() {
        return Ok(());
    }
    fs::create_dir(to)?;
    for child in fs::read_dir(from)? {
        let name = child?.file_name();
        copy(&from.join(&name), &to.join(&name), is_root, budget)?;
    }
    dress(to, &told, dir_mode(told.mode(), is_root), is_root)
}

/// Gives a copy the owner, the mode and the time of its original, in this order: a new owner takes rights away.
fn dress(path: &Path, told: &Metadata, mode: u32, is_root: bool) -> io::Result<()> {
    if is_root {
        chown(path, Some(told.uid()), Some(told.gid()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
    set_time(path, u64::try_from(told.mtime()).unwrap_or(0))
}

/// A directory's mode. Who is not root must be able to fill and remove it.
fn dir_mode(mode: u32, is_root: bool) -> u32 {
    (mode & 0o7777) | if is_root { 0 } else { 0o700 }
}

/// Sets when a file or directory was changed, seconds.
fn set_time(path: &Path, mtime: u64) -> io::Result<()> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(mtime.min(1 << 40));
    match File::open(path) {
        // Another owner's file that nobody may read: its time is not worth an error.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        file => file?.set_modified(time),
    }
}

/// Removes whatever is at `path`, without following it; nothing there is no error.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| bad("its owner has no number"))
}

fn bad(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of entries: name, kind, contents or link.
    fn archive(entries: &[(&str, EntryType, &str)]) -> tempfile::NamedTempFile {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = tar::Header::new_ustar();
            // By hand: the library's own way refuses what the tests are about.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(if *kind == EntryType::Directory {
                0o555
            } else {
                0o640
            });
            header.set_mtime(1_000);
            for number in [Header::set_uid, Header::set_gid] {
                number(&mut header, u64::from(rustix::process::geteuid().as_raw()));
            }
            let is_file = *kind == EntryType::Regular;
            header.set_size(if is_file { text.len() as u64 } else { 0 });
            if !is_file && !text.is_empty() {
                header.set_link_name_literal(text).unwrap();
            }
            header.set_cksum();
            let body = if is_file { text.as_bytes() } else { b"" };
            builder.append(&header, body).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), builder.into_inner().unwrap()).unwrap();
        file
    }
    use tar::Header;

    fn lay(root: &Path, entries: &[(&str, EntryType, &str)]) -> io::Result<()> {
        let is_root = rustix::process::geteuid().is_root();
        unpack(archive(entries).path(), root, is_root, &mut {
            Budget::WHOLE
        })
    }

    const FILE: EntryType = EntryType::Regular;
    const DIR: EntryType = EntryType::Directory;

    #[test]
    fn layers_lie_over_each_other() {
        let root = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).ok();
        lay(
            root.path(),
            &[
                ("./", DIR, ""),
                ("etc/", DIR, ""),
                ("etc/a", FILE, "1"),
                ("etc/b", FILE, "1"),
                ("var/x/old", FILE, "1"),
                ("bin", EntryType::Symlink, "usr/bin"),
                ("usr/bin/sh", FILE, "sh"),
                ("usr/bin/ash", EntryType::Link, "usr/bin/sh"),
                ("dev/null", EntryType::Char, ""),
            ],
        )
        .unwrap();
        lay(
            root.path(),
            &[
                ("etc/.wh.a", FILE, ""),
                ("etc/b", FILE, "2"),
                ("var/x/new", FILE, "2"),
                ("var/x/.wh..wh..opq", FILE, ""),
                ("bin/ls", FILE, "ls"),
                ("usr/bin/.wh.none", FILE, ""),
            ],
        )
        .unwrap();
        assert_eq!((read("etc/a"), read("etc/b").as_deref()), (None, Some("2")));
        assert_eq!(
            (read("var/x/old"), read("var/x/new").as_deref()),
            (None, Some("2"))
        );
        assert_eq!(
            read("usr/bin/ls").as_deref(),
            Some("ls"),
            "through the link"
        );
        assert_eq!(read("usr/bin/ash").as_deref(), Some("sh"));
        assert_eq!(read("dev/null"), None);
        let told = fs::metadata(root.path().join("etc")).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(told.mode() & 0o777, if is_root { 0o555 } else { 0o755 });
        let copied = root.path().join("copy");
        copy(&root.path().join("etc"), &copied, is_root, &mut {
            Budget::WHOLE
        })
        .unwrap();
        assert_eq!(fs::read_to_string(copied.join("b")).unwrap(), "2");
        assert_eq!(fs::metadata(copied.join("b")).unwrap().mtime(), 1_000);
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let around = tempfile::tempdir().unwrap();
        let (root, outside) = (around.path().join("root"), around.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "1").unwrap();
        let to = outside.display().to_string();
        for bad in ["../outside/x", "a/../../outside/x"] {
            assert!(lay(&root, &[(bad, FILE, "2")]).is_err(), "{bad}");
        }
        let link = EntryType::Symlink;
        lay(&root, &[("abs", link, &to), ("rel", link, "../outside")]).unwrap();
        // Through a link it goes to a place of that name below the root.
        lay(&root, &[("abs/x", FILE, "2"), ("rel/x", FILE, "2")]).unwrap();
        lay(
            &root,
            &[
                ("abs/.wh.precious", FILE, ""),
                ("rel/.wh..wh..opq", FILE, ""),
            ],
        )
        .unwrap();
        let stolen = [("stolen", EntryType::Link, "abs/precious")];
        assert!(lay(&root, &stolen).is_err(), "there is none below the root");
        assert!(lay(&root, &[("x/.wh...", FILE, "")]).is_err());
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            1,
            "nothing went out"
        );
        lay(&root, &[("loop", link, "loop")]).unwrap();
        assert!(lay(&root, &[("loop/x", FILE, "2")]).is_err());
    }

    #[test]
    fn too_much_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = archive(&[("a", FILE, "12345"), ("b", FILE, "12345")]);
        let refused = |bytes, entries| {
            let mut budget = Budget { bytes, entries };
            unpack(file.path(), root.path(), false, &mut budget).is_err()
        };
        assert!(refused(9, 10) && refused(10, 1) && !refused(10, 2));
    }
}
