//! One node's disk: files, directories, capacity, power.
//!
//! Invariants: every current name leads to an inode that exists; `used` is the sum of the charges
//! of all files that programs can still reach; a frozen disk is changed by nobody but [`Disk`]'s
//! own crash and repair functions. An inode without name or descriptor stays as a ghost while the
//! platter or the name log may still bring it back.
//!
//! Left out: symbolic links, permissions, owners, access times, extended attributes.

use crate::Rng;
use crate::cost::Pace;
use crate::fault::{CrashMode, Faults};
use crate::file::{FileData, PAGE};
use crate::names::{Change, Ino, NameLog};
use libc::{EBADF, EEXIST, EINVAL, EISDIR, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY};
use std::collections::{BTreeMap, BTreeSet};

/// An error number of libc.
pub(crate) type Errno = i32;
/// The result of a call.
pub(crate) type Res<T> = Result<T, Errno>;
/// A path below the node's directory, in components.
pub(crate) type Path<'a> = &'a [String];

/// The root directory.
pub(crate) const ROOT: Ino = Ino(1);

/// A file or a directory.
#[derive(Debug)]
pub(crate) enum Node {
    /// A regular file.
    File(FileData),
    /// Names that programs see, and names on the platter.
    Dir {
        seen: BTreeMap<String, Ino>,
        durable: BTreeMap<String, Ino>,
    },
}

/// What the disk knows about a file or directory.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Content.
    pub(crate) node: Node,
    /// Open file descriptions.
    pub(crate) opens: u32,
    /// Current names.
    pub(crate) links: u32,
    /// Whole-file locks: the description that holds it, and whether it is exclusive.
    pub(crate) locks: Vec<(usize, bool)>,
    /// Last change, nanoseconds since 1970.
    pub(crate) mtime_ns: u64,
    /// Permission bits; kept and shown, never enforced.
    pub(crate) mode: u32,
}

impl Inode {
    /// Whether programs can still reach it.
    fn is_alive(&self) -> bool {
        self.links > 0 || self.opens > 0
    }

    /// Pages it takes.
    fn charge(&self) -> u64 {
        match &self.node {
            Node::File(f) if self.is_alive() => f.charged,
            _ => 0,
        }
    }
}

/// A disk that can fail.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The node it belongs to.
    pub(crate) name: String,
    /// Counts lives: descriptors of an earlier one are dead.
    pub(crate) epoch: u64,
    /// Moment of the world's life counter at which this life began.
    pub(crate) born: u64,
    /// No power, or frozen by hand: every call fails with EIO.
    pub(crate) frozen: bool,
    /// The power failed, or the process was killed, and `power_on` has not been called since.
    pub(crate) down: bool,
    /// Everything, by number.
    pub(crate) inodes: BTreeMap<Ino, Inode>,
    /// Names that are not durable.
    pub(crate) log: NameLog,
    /// Planned faults.
    pub(crate) faults: Faults,
    /// Costs and stalls.
    pub(crate) pace: Pace,
    /// Decides what a crash leaves.
    pub(crate) rng: Rng,
    /// Calls so far.
    pub(crate) ops: u64,
    /// Good and failed syncs so far.
    pub(crate) syncs: u64,
    /// Bytes written so far.
    pub(crate) written: u64,
    /// Capacity, in pages.
    pub(crate) capacity: u64,
    /// Allocated pages.
    pub(crate) used: u64,
    /// Next inode number.
    next_ino: u64,
}

impl Disk {
    /// An empty disk of 64 GiB.
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        let stream = |purpose: &str| Rng::stream(seed, &format!("{name}/{purpose}"));
        let mut disk = Self {
            name: name.into(),
            epoch: 0,
            born: 0,
            frozen: false,
            down: false,
            inodes: BTreeMap::new(),
            log: NameLog::default(),
            faults: Faults::new(stream("faults")),
            pace: Pace::new(stream("cost")),
            rng: stream("crash"),
            ops: 0,
            syncs: 0,
            written: 0,
            capacity: (64 << 30) / PAGE,
            used: 0,
            next_ino: 1,
        };
        disk.format();
        disk
    }

    /// Makes the disk empty: no file, no name, on the platter or elsewhere.
    fn format(&mut self) {
        self.inodes.clear();
        self.log = NameLog::new(self.log.mode);
        self.used = 0;
        let node = Node::Dir {
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
        };
        let root = Inode {
            node,
            opens: 0,
            links: 1,
            locks: Vec::new(),
            mtime_ns: 0,
            mode: 0o755,
        };
        self.inodes.insert(ROOT, root);
        self.next_ino = self.next_ino.max(ROOT.0 + 1);
    }

    // ---- names ----

    /// The names in directory `ino`.
    pub(crate) fn entries(&self, ino: Ino) -> Res<&BTreeMap<String, Ino>> {
        match self.inodes.get(&ino).map(|i| &i.node) {
            Some(Node::Dir { seen, .. }) => Ok(seen),
            Some(Node::File(_)) => Err(ENOTDIR),
            None => Err(ENOENT),
        }
    }

    /// Finds what a path means.
    pub(crate) fn lookup(&self, path: Path<'_>) -> Res<Ino> {
        path.iter().try_fold(ROOT, |dir, name| {
            self.entries(dir)?.get(name).copied().ok_or(ENOENT)
        })
    }

    /// The directory that holds (or would hold) the last component, and that component.
    fn parent<'a>(&self, path: Path<'a>) -> Res<(Ino, &'a String)> {
        let (last, dirs) = path.split_last().ok_or(EEXIST)?;
        let dir = self.lookup(dirs)?;
        self.entries(dir).map(|_| (dir, last))
    }

    /// Whether `ino` is a directory.
    pub(crate) fn is_dir(&self, ino: Ino) -> bool {
        self.entries(ino).is_ok()
    }

    /// Makes an empty file or directory under `path`.
    pub(crate) fn create(&mut self, path: Path<'_>, dir: bool, mode: u32, now_ns: u64) -> Res<Ino> {
        if self.lookup(path).is_ok() {
            return Err(EEXIST);
        }
        let (parent, name) = self.parent(path)?;
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        let node = match dir {
            true => Node::Dir {
                seen: BTreeMap::new(),
                durable: BTreeMap::new(),
            },
            false => Node::File(FileData::default()),
        };
        let inode = Inode {
            node,
            opens: 0,
            links: 0,
            locks: Vec::new(),
            mtime_ns: now_ns,
            mode,
        };
        self.inodes.insert(ino, inode);
        self.change(vec![Change {
            dir: parent,
            name: name.clone(),
            to: Some(ino),
            about: ino,
        }]);
        Ok(ino)
    }

    /// Gives a file a second name.
    pub(crate) fn link(&mut self, from: Path<'_>, to: Path<'_>) -> Res<()> {
        let ino = self.lookup(from)?;
        if self.is_dir(ino) {
            return Err(libc::EPERM);
        }
        if self.lookup(to).is_ok() {
            return Err(EEXIST);
        }
        let (dir, name) = self.parent(to)?;
        self.change(vec![Change {
            dir,
            name: name.clone(),
            to: Some(ino),
            about: ino,
        }]);
        Ok(())
    }

    /// Removes a name; `dir` says whether it must be an empty directory or must not be one.
    pub(crate) fn remove(&mut self, path: Path<'_>, dir: bool) -> Res<()> {
        let about = self.lookup(path)?;
        match self.entries(about) {
            Ok(_) if !dir => return Err(EISDIR),
            Ok(names) if !names.is_empty() => return Err(ENOTEMPTY),
            Err(errno) if dir => return Err(errno),
            _ => {}
        }
        let (dir, name) = self.parent(path).map_err(|_| libc::EBUSY)?;
        self.change(vec![Change {
            dir,
            name: name.clone(),
            to: None,
            about,
        }]);
        Ok(())
    }

    /// Moves a name, over what is there unless `keep` forbids it.
    pub(crate) fn rename(&mut self, from: Path<'_>, to: Path<'_>, keep: bool) -> Res<()> {
        let ino = self.lookup(from)?;
        let (old_dir, old_name) = self.parent(from).map_err(|_| libc::EBUSY)?;
        let (new_dir, new_name) = self.parent(to)?;
        let is_dir = self.is_dir(ino);
        if is_dir && to.len() > from.len() && to.starts_with(from) {
            return Err(EINVAL);
        }
        if let Ok(there) = self.lookup(to) {
            match (self.entries(there), is_dir) {
                _ if keep => return Err(EEXIST),
                _ if there == ino => return Ok(()),
                (Ok(_), false) => return Err(EISDIR),
                (Ok(names), true) if !names.is_empty() => return Err(ENOTEMPTY),
                (Err(_), true) => return Err(ENOTDIR),
                _ => {}
            }
        }
        self.change(vec![
            Change {
                dir: new_dir,
                name: new_name.clone(),
                to: Some(ino),
                about: ino,
            },
            Change {
                dir: old_dir,
                name: old_name.clone(),
                to: None,
                about: ino,
            },
        ]);
        Ok(())
    }

    /// Applies changes to what programs see, and logs them.
    fn change(&mut self, group: Vec<Change>) {
        for c in &group {
            if let Some(ino) = c.to {
                self.relink(ino, 1);
            }
            let Some(Inode {
                node: Node::Dir { seen, .. },
                ..
            }) = self.inodes.get_mut(&c.dir)
            else {
                continue;
            };
            let before = match c.to {
                Some(ino) => seen.insert(c.name.clone(), ino),
                None => seen.remove(&c.name),
            };
            if let Some(ino) = before {
                self.relink(ino, -1);
            }
        }
        self.log.push(group);
    }

    /// Counts a name more or less; the last one gives the pages back.
    fn relink(&mut self, ino: Ino, by: i32) {
        self.adjust(ino, |i| i.links = i.links.saturating_add_signed(by));
    }

    /// Changes an inode and keeps the account of pages right.
    pub(crate) fn adjust<T>(&mut self, ino: Ino, f: impl FnOnce(&mut Inode) -> T) -> Option<T> {
        let inode = self.inodes.get_mut(&ino)?;
        let before = inode.charge();
        let result = f(inode);
        self.used = self.used + inode.charge() - before;
        Some(result)
    }

    /// Changes a file's content; `room` is how many pages it may allocate.
    fn on_file<T>(&mut self, ino: Ino, f: impl FnOnce(&mut FileData, u64) -> T) -> Res<T> {
        let room = self.free_pages();
        let on_node = |i: &mut Inode| match &mut i.node {
            Node::File(file) => Ok(f(file, room)),
            Node::Dir { .. } => Err(EISDIR),
        };
        self.adjust(ino, on_node).ok_or(EBADF)?
    }

    /// The content of a file.
    pub(crate) fn file(&self, ino: Ino) -> Res<&FileData> {
        match &self.inodes.get(&ino).ok_or(EBADF)?.node {
            Node::File(file) => Ok(file),
            Node::Dir { .. } => Err(EISDIR),
        }
    }

    // ---- content ----

    /// Writes at `offset`; what does not fit is cut off, ENOSPC if nothing does.
    pub(crate) fn write(&mut self, ino: Ino, offset: u64, data: &[u8], now_ns: u64) -> Res<usize> {
        let n = self.on_file(ino, |f, room| f.write(offset, data, room))?;
        self.adjust(ino, |i| i.mtime_ns = now_ns);
        self.written += n as u64;
        if n == 0 && !data.is_empty() {
            Err(ENOSPC)
        } else {
            Ok(n)
        }
    }

    /// Sets a file's length; growth takes no space.
    pub(crate) fn truncate(&mut self, ino: Ino, len: u64, now_ns: u64) -> Res<()> {
        self.on_file(ino, |f, _| f.truncate(len))?;
        self.adjust(ino, |i| i.mtime_ns = now_ns);
        Ok(())
    }

    /// Allocates every page up to byte `end`, and grows the file to it if `grow`.
    pub(crate) fn allocate(&mut self, ino: Ino, end: u64, grow: bool) -> Res<()> {
        let fits = self.on_file(ino, |f, room| {
            let fits = f.reserve(end.div_ceil(PAGE), room);
            if fits && grow && end > f.len {
                f.truncate(end);
            }
            fits
        })?;
        if fits { Ok(()) } else { Err(ENOSPC) }
    }

    /// Makes a file or directory durable.
    pub(crate) fn sync(&mut self, ino: Ino) {
        self.syncs += 1;
        if self.is_dir(ino) || self.on_file(ino, |f, _| f.sync()).is_ok() {
            let changes = self.log.sync(ino);
            self.commit(changes);
        }
        // Every sync would be quadratic; the bound keeps ghosts few.
        if self.syncs.is_multiple_of(16) {
            self.bury_ghosts();
        }
    }

    /// A sync that fails: dirty pages are given up, names stay undecided.
    pub(crate) fn sync_fails(&mut self, ino: Ino) {
        self.syncs += 1;
        if let Some(Inode {
            node: Node::File(f),
            ..
        }) = self.inodes.get_mut(&ino)
        {
            f.sync_failed(&mut self.rng);
        }
    }

    /// Puts names on the platter.
    fn commit(&mut self, changes: Vec<Change>) {
        for c in changes {
            if let Some(Inode {
                node: Node::Dir { durable, .. },
                ..
            }) = self.inodes.get_mut(&c.dir)
            {
                match c.to {
                    Some(ino) => durable.insert(c.name, ino),
                    None => durable.remove(&c.name),
                };
            }
        }
    }

    /// Drops inodes that nothing can bring back.
    fn bury_ghosts(&mut self) {
        let mut needed: BTreeSet<Ino> = self.log.mentioned().collect();
        for inode in self.inodes.values() {
            if let Node::Dir { durable, .. } = &inode.node {
                needed.extend(durable.values());
            }
        }
        self.inodes
            .retain(|ino, i| *ino == ROOT || i.is_alive() || needed.contains(ino));
    }

    // ---- power ----

    /// kill -9: descriptors and locks die, the page cache stays. Frozen until `power_on`.
    pub(crate) fn kill(&mut self) {
        self.epoch += 1;
        self.frozen = true;
        self.down = true;
        let inos: Vec<Ino> = self.inodes.keys().copied().collect();
        for ino in inos {
            self.adjust(ino, |i| {
                i.opens = 0;
                i.locks.clear();
            });
        }
        self.bury_ghosts();
    }

    /// Power loss: decides what is left of unsynced changes. Frozen until `power_on`.
    pub(crate) fn lose_power(&mut self, mode: CrashMode) {
        self.kill();
        let survivors = self.log.lose_power(mode, &mut self.rng);
        self.commit(survivors);
        self.adopt_platter();
        for inode in self.inodes.values_mut() {
            if let Node::File(f) = &mut inode.node {
                f.lose_power(mode, &mut self.rng);
            }
        }
        self.used = self.inodes.values().map(Inode::charge).sum();
    }

    /// Makes the names on the platter those that programs see, and drops everything else.
    fn adopt_platter(&mut self) {
        let mut links: BTreeMap<Ino, u32> = BTreeMap::from([(ROOT, 1)]);
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            let Some(Inode {
                node: Node::Dir { seen, durable },
                ..
            }) = self.inodes.get_mut(&dir)
            else {
                continue;
            };
            seen.clone_from(durable);
            for ino in seen.values() {
                let count = links.entry(*ino).or_default();
                *count += 1;
                if *count == 1 {
                    todo.push(*ino);
                }
            }
        }
        self.inodes.retain(|ino, _| links.contains_key(ino));
        for (ino, inode) in &mut self.inodes {
            inode.links = links[ino];
        }
    }

    /// A new, empty disk in the old one's place; open descriptors die.
    pub(crate) fn wipe(&mut self) {
        self.kill();
        self.format();
    }

    // ---- damage at rest ----

    /// Every file whose path contains `part`, by path.
    pub(crate) fn files(&self, part: &str) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = todo.pop() {
            match self.entries(ino) {
                Ok(names) => {
                    let join = |name: &String| {
                        if path.is_empty() {
                            name.clone()
                        } else {
                            format!("{path}/{name}")
                        }
                    };
                    todo.extend(names.iter().map(|(name, child)| (join(name), *child)));
                }
                Err(_) if path.contains(part) => found.push((path, ino)),
                Err(_) => {}
            }
        }
        found.sort();
        found
    }

    /// Flips a bit of a file whose path contains `part`: its path and the byte's offset.
    pub(crate) fn flip_bit(&mut self, part: &str, rng: &mut Rng) -> Option<(String, u64, u8)> {
        let mut places = Vec::new();
        for (path, ino) in self.files(part) {
            let file = self.file(ino).ok()?;
            places.extend(
                file.clean_pages()
                    .map(|(page, _)| (path.clone(), ino, page)),
            );
        }
        let (path, ino, page) = places.get(rng.below(places.len() as u64) as usize)?.clone();
        let Some(Inode {
            node: Node::File(f),
            ..
        }) = self.inodes.get_mut(&ino)
        else {
            return None;
        };
        let in_use = (f.len - page * PAGE).min(PAGE);
        let (at, bit) = (rng.below(in_use), rng.below(8) as u8);
        f.pages.get_mut(&page)?[at as usize] ^= 1 << bit;
        Some((path, page * PAGE + at, bit))
    }

    /// Cuts a file on the platter and in the cache.
    pub(crate) fn damage_truncate(&mut self, path: Path<'_>, len: u64) -> Res<()> {
        let ino = self.lookup(path)?;
        self.on_file(ino, |f, _| f.damage_truncate(len.min(f.len)))
    }

    /// Removes a file or a whole tree on the platter and in the cache.
    pub(crate) fn damage_remove(&mut self, path: Path<'_>) -> Res<()> {
        let ino = self.lookup(path)?;
        let (dir, name) = self.parent(path)?;
        let children: Vec<String> = self
            .entries(ino)
            .map(|names| names.keys().cloned().collect())
            .unwrap_or_default();
        for child in children {
            let mut below = path.to_vec();
            below.push(child);
            self.damage_remove(&below)?;
        }
        let gone = vec![Change {
            dir,
            name: name.clone(),
            to: None,
            about: ino,
        }];
        self.change(gone.clone());
        self.log.forget(dir, name);
        self.commit(gone);
        Ok(())
    }

    /// Pages that can still be allocated.
    pub(crate) fn free_pages(&self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }
}
