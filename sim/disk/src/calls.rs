//! What each file call means on the simulated disk: the part of the shim without C in it.
//!
//! Every function here accounts for the call first (`admit`) and acts only if it was admitted.

use crate::Rng;
use crate::disk::{Path, Res};
use crate::fault::{Fault, OpKind};
use crate::file::PAGE;
use crate::names::Ino;
use crate::world::{FD_BASE, Inner, Op, Open, PREFIX, join};
use libc::{EBADF, EINVAL, EIO, ENOENT, ENOSPC, c_int};

/// What stat tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    /// Inode number.
    pub(crate) ino: u64,
    /// Number of the disk.
    pub(crate) disk: u64,
    /// Whether it is a directory.
    pub(crate) dir: bool,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Length, in bytes.
    pub(crate) len: u64,
    /// Allocated pages.
    pub(crate) pages: u64,
    /// Names.
    pub(crate) links: u32,
    /// Last change, nanoseconds since 1970.
    pub(crate) mtime_ns: u64,
}

/// What statvfs tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    /// Pages on the disk.
    pub(crate) total: u64,
    /// Pages not allocated.
    pub(crate) free: u64,
    /// Files and directories.
    pub(crate) inodes: u64,
}

/// The wall clock, nanoseconds since 1970: madsim's where there is one.
pub(crate) fn wall_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as u64)
}

/// An operation without bytes.
fn op<'a>(kind: OpKind, name: &'static str, path: &'a str, offset: u64, len: u64) -> Op<'a> {
    Op {
        kind,
        name,
        path,
        offset,
        len,
        content: &[],
    }
}

impl Inner {
    // ---- by path ----

    /// Accounts for a call on a path.
    fn on_path(
        &mut self,
        path: &str,
        kind: OpKind,
        name: &'static str,
        arg: u64,
    ) -> Res<(usize, Vec<String>)> {
        let (disk, parts) = self.resolve(path)?;
        self.admit(disk, &op(kind, name, &join(&parts), arg, 0))?;
        Ok((disk, parts))
    }

    /// open(2).
    pub(crate) fn open(&mut self, path: &str, flags: c_int, mode: u32) -> Res<c_int> {
        let (disk, parts) = self.on_path(path, OpKind::Open, "open", flags as u64)?;
        let (now, d) = (wall_ns(), &mut self.disks[disk]);
        let ino = match d.lookup(&parts) {
            Err(ENOENT) if flags & libc::O_CREAT != 0 => {
                d.create(&parts, false, mode & 0o755, now)?
            }
            Ok(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => {
                return Err(libc::EEXIST);
            }
            found => found?,
        };
        let dir = d.is_dir(ino);
        if dir && flags & libc::O_ACCMODE != libc::O_RDONLY {
            return Err(libc::EISDIR);
        }
        if !dir && flags & libc::O_DIRECTORY != 0 {
            return Err(libc::ENOTDIR);
        }
        if !dir && flags & libc::O_TRUNC != 0 {
            d.truncate(ino, 0, now)?;
        }
        let epoch = d.epoch;
        Ok(self.open_fd(Open {
            disk,
            epoch,
            ino,
            pos: 0,
            flags,
            refs: 1,
            path: join(&parts),
        }))
    }

    /// mkdir(2).
    pub(crate) fn mkdir(&mut self, path: &str, mode: u32) -> Res<()> {
        let (disk, parts) = self.on_path(path, OpKind::Name, "mkdir", 0)?;
        self.disks[disk]
            .create(&parts, true, mode & 0o755, wall_ns())
            .map(drop)
    }

    /// unlink(2), or rmdir(2) if `dir`.
    pub(crate) fn remove(&mut self, path: &str, dir: bool) -> Res<()> {
        let name = if dir { "rmdir" } else { "unlink" };
        let (disk, parts) = self.on_path(path, OpKind::Name, name, 0)?;
        self.disks[disk].remove(&parts, dir)
    }

    /// Resolves the second path of a call, which must be on the same disk.
    fn second_path(&mut self, disk: usize, path: &str) -> Res<Vec<String>> {
        let (other, parts) = self.resolve(path)?;
        if other == disk {
            Ok(parts)
        } else {
            Err(libc::EXDEV)
        }
    }

    /// rename(2); `keep` refuses to replace.
    pub(crate) fn rename(&mut self, from: &str, to: &str, keep: bool) -> Res<()> {
        let arg = crate::hash::OpHash::of(to.as_bytes());
        let (disk, from) = self.on_path(from, OpKind::Name, "rename", arg)?;
        let to = self.second_path(disk, to)?;
        self.disks[disk].rename(&from, &to, keep)
    }

    /// link(2).
    pub(crate) fn link(&mut self, from: &str, to: &str) -> Res<()> {
        let arg = crate::hash::OpHash::of(to.as_bytes());
        let (disk, from) = self.on_path(from, OpKind::Name, "link", arg)?;
        let to = self.second_path(disk, to)?;
        self.disks[disk].link(&from, &to)
    }

    /// stat(2), and what else only looks at a path.
    pub(crate) fn stat(&mut self, path: &str, name: &'static str) -> Res<Stat> {
        let (disk, parts) = self.on_path(path, OpKind::Look, name, 0)?;
        let ino = self.disks[disk].lookup(&parts)?;
        self.stat_of(disk, ino)
    }

    /// Sets permission bits by path.
    pub(crate) fn chmod(&mut self, path: &str, mode: u32) -> Res<()> {
        let (disk, parts) = self.on_path(path, OpKind::Name, "chmod", u64::from(mode))?;
        let ino = self.disks[disk].lookup(&parts)?;
        self.disks[disk]
            .adjust(ino, |i| i.mode = mode & 0o7777)
            .ok_or(ENOENT)
    }

    /// realpath(3): there are no links, so it only cleans up.
    pub(crate) fn realpath(&mut self, path: &str) -> Res<String> {
        self.stat(path, "realpath")?;
        let (disk, parts) = self.resolve(path)?;
        let node = &self.disks[disk].name;
        let slash = if parts.is_empty() { "" } else { "/" };
        Ok(format!("{PREFIX}{node}{slash}{}", join(&parts)))
    }

    /// truncate(2) by path.
    pub(crate) fn truncate_path(&mut self, path: &str, len: i64) -> Res<()> {
        let len = u64::try_from(len).map_err(|_| EINVAL)?;
        let (disk, parts) = self.on_path(path, OpKind::Resize, "truncate", len)?;
        let ino = self.disks[disk].lookup(&parts)?;
        self.disks[disk].truncate(ino, len, wall_ns())
    }

    /// statvfs(2) by path.
    pub(crate) fn space(&mut self, path: &str) -> Res<Space> {
        let (disk, parts) = self.on_path(path, OpKind::Look, "statvfs", 0)?;
        self.disks[disk].lookup(&parts)?;
        Ok(self.space_of(disk))
    }

    /// An absolute path for `path` relative to an open directory.
    pub(crate) fn relative_to(&mut self, dirfd: c_int, path: &str) -> Res<String> {
        let dir = self.live_open(dirfd)?;
        Ok(format!(
            "{PREFIX}{}/{}/{path}",
            self.disks[dir.disk].name, dir.path
        ))
    }

    // ---- by descriptor ----

    /// Accounts for a call on a descriptor.
    fn on_fd(
        &mut self,
        fd: c_int,
        kind: OpKind,
        name: &'static str,
        offset: u64,
        len: u64,
    ) -> Res<Open> {
        let open = self.live_open(fd)?;
        self.admit(open.disk, &op(kind, name, &open.path, offset, len))?;
        Ok(open)
    }

    /// read(2) at the position, or pread(2) at `at`.
    pub(crate) fn read(&mut self, fd: c_int, at: Option<i64>, buf: &mut [u8]) -> Res<i64> {
        let open = self.live_open(fd)?;
        if open.flags & libc::O_ACCMODE == libc::O_WRONLY {
            return Err(EBADF);
        }
        let offset = at.map_or(Ok(open.pos), u64::try_from).map_err(|_| EINVAL)?;
        let name = if at.is_some() { "pread" } else { "read" };
        let fault = self.decide(
            open.disk,
            &op(OpKind::Read, name, &open.path, offset, buf.len() as u64),
        )?;
        let disk = &mut self.disks[open.disk];
        let upto = match fault {
            None | Some(Fault::Lie) => buf.len(),
            Some(Fault::Short) => disk.rng.between(1, buf.len() as u64) as usize,
            Some(fault) => return Err(self.strike(open.disk, fault)),
        };
        let upto = upto.min(buf.len());
        let n = disk.file(open.ino)?.read(offset, &mut buf[..upto]);
        if at.is_none() {
            self.open_mut(fd)?.pos = offset + n as u64;
        }
        Ok(n as i64)
    }

    /// write(2) at the position, or pwrite(2) at `at`.
    pub(crate) fn write(&mut self, fd: c_int, at: Option<i64>, data: &[u8]) -> Res<i64> {
        let open = self.live_open(fd)?;
        if open.flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(EBADF);
        }
        let append = open.flags & libc::O_APPEND != 0;
        let offset = match at {
            Some(at) => u64::try_from(at).map_err(|_| EINVAL)?,
            None if append => self.disks[open.disk].file(open.ino)?.len,
            None => open.pos,
        };
        let name = if at.is_some() { "pwrite" } else { "write" };
        let (kind, len, path) = (OpKind::Write, data.len() as u64, &open.path);
        let what = Op {
            kind,
            name,
            path,
            offset,
            len,
            content: data,
        };
        let fault = self.decide(open.disk, &what)?;
        let disk = &mut self.disks[open.disk];
        let upto = match fault {
            None | Some(Fault::Lie) => data.len(),
            Some(Fault::Short) => disk.rng.between(1, len).min(len) as usize,
            Some(Fault::Crash(_)) => disk.rng.below(len + 1) as usize,
            Some(_) => 0,
        };
        let written = disk.write(open.ino, offset, &data[..upto], wall_ns());
        if let Some(fault @ (Fault::Crash(_) | Fault::Eio | Fault::Enospc)) = fault {
            return Err(self.strike(open.disk, fault));
        }
        let n = written?;
        if at.is_none() {
            self.open_mut(fd)?.pos = offset + n as u64;
        }
        Ok(n as i64)
    }

    /// lseek(2). Not counted: it never reaches a disk.
    pub(crate) fn seek(&mut self, fd: c_int, offset: i64, whence: c_int) -> Res<i64> {
        let open = self.live_open(fd)?;
        let base = match whence {
            libc::SEEK_SET => 0,
            libc::SEEK_CUR => open.pos as i64,
            libc::SEEK_END => self.disks[open.disk]
                .file(open.ino)
                .map_or(0, |f| f.len as i64),
            _ => return Err(EINVAL),
        };
        let pos = base.checked_add(offset).filter(|p| *p >= 0).ok_or(EINVAL)?;
        self.open_mut(fd)?.pos = pos as u64;
        Ok(pos)
    }

    /// ftruncate(2).
    pub(crate) fn resize(&mut self, fd: c_int, len: i64) -> Res<()> {
        let len = u64::try_from(len).map_err(|_| EINVAL)?;
        let open = self.on_fd(fd, OpKind::Resize, "ftruncate", len, 0)?;
        if open.flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(EINVAL);
        }
        self.disks[open.disk].truncate(open.ino, len, wall_ns())
    }

    /// fallocate(2), without holes: `grow` is false with FALLOC_FL_KEEP_SIZE.
    pub(crate) fn allocate(&mut self, fd: c_int, at: i64, len: i64, grow: bool) -> Res<()> {
        let end = at
            .checked_add(len)
            .filter(|_| at >= 0 && len > 0)
            .ok_or(EINVAL)? as u64;
        let open = self.on_fd(fd, OpKind::Resize, "fallocate", end, 0)?;
        self.disks[open.disk].allocate(open.ino, end, grow)
    }

    /// fsync(2) and fdatasync(2).
    pub(crate) fn sync(&mut self, fd: c_int, name: &'static str) -> Res<()> {
        let open = self.live_open(fd)?;
        let fault = self.decide(open.disk, &op(OpKind::Sync, name, &open.path, 0, 0))?;
        match fault {
            Some(Fault::Lie) => {}
            None | Some(Fault::Short) => self.disks[open.disk].sync(open.ino),
            Some(fault) => {
                if !matches!(fault, Fault::Crash(_)) {
                    self.disks[open.disk].sync_fails(open.ino);
                }
                return Err(self.strike(open.disk, fault));
            }
        }
        Ok(())
    }

    /// fstat(2).
    pub(crate) fn stat_fd(&mut self, fd: c_int) -> Res<Stat> {
        let open = self.on_fd(fd, OpKind::Look, "fstat", 0, 0)?;
        self.stat_of(open.disk, open.ino)
    }

    /// statvfs(2) by descriptor.
    pub(crate) fn space_fd(&mut self, fd: c_int) -> Res<Space> {
        let open = self.on_fd(fd, OpKind::Look, "fstatvfs", 0, 0)?;
        Ok(self.space_of(open.disk))
    }

    /// fchmod(2).
    pub(crate) fn chmod_fd(&mut self, fd: c_int, mode: u32) -> Res<()> {
        let open = self.live_open(fd)?;
        self.disks[open.disk]
            .adjust(open.ino, |i| i.mode = mode & 0o7777)
            .ok_or(EIO)
    }

    /// futimens(2), modification time only.
    pub(crate) fn set_mtime(&mut self, fd: c_int, mtime_ns: u64) -> Res<()> {
        let open = self.live_open(fd)?;
        self.disks[open.disk]
            .adjust(open.ino, |i| i.mtime_ns = mtime_ns)
            .ok_or(EIO)
    }

    /// flock(2) and whole-file OFD locks. A lock that would block is refused.
    pub(crate) fn lock(&mut self, fd: c_int, wanted: Option<bool>) -> Res<()> {
        let open = self.on_fd(fd, OpKind::Look, "flock", wanted.map_or(2, u64::from), 0)?;
        let me = self.index_of(fd)?;
        let inode = self.disks[open.disk].inodes.get_mut(&open.ino).ok_or(EIO)?;
        let Some(exclusive) = wanted else {
            inode.locks.retain(|(holder, _)| *holder != me);
            return Ok(());
        };
        let others = |(holder, ex): &(usize, bool)| *holder != me && (exclusive || *ex);
        if inode.locks.iter().any(others) {
            return Err(libc::EWOULDBLOCK);
        }
        inode.locks.retain(|(holder, _)| *holder != me);
        inode.locks.push((me, exclusive));
        Ok(())
    }

    /// The flags of fcntl(F_GETFL).
    pub(crate) fn flags(&mut self, fd: c_int) -> Res<c_int> {
        Ok(self.open_mut(fd)?.flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC))
    }

    /// The entries of an open directory: name, inode number, whether a directory.
    pub(crate) fn list(&mut self, fd: c_int) -> Res<Vec<(String, u64, bool)>> {
        let open = self.on_fd(fd, OpKind::Look, "readdir", 0, 0)?;
        let disk = &self.disks[open.disk];
        let own = [".", ".."].map(|n| (n.to_owned(), open.ino.0, true));
        let names = disk.entries(open.ino)?;
        let each = names
            .iter()
            .map(|(n, ino)| (n.clone(), ino.0, disk.is_dir(*ino)));
        let mut rest: Vec<_> = each.collect();
        // As on a hashed directory: an order that means nothing, but the same in each run.
        rest.sort_by_key(|(name, ..)| Rng::stream(self.seed, name).next_u64());
        Ok(own.into_iter().chain(rest).collect())
    }

    /// Whether this number is an open simulated descriptor.
    pub(crate) fn is_open(&self, fd: c_int) -> bool {
        fd >= FD_BASE && self.index_of(fd).is_ok()
    }

    // ---- answers ----

    /// What stat tells about an inode.
    fn stat_of(&self, disk: usize, ino: Ino) -> Res<Stat> {
        let inode = self.disks[disk].inodes.get(&ino).ok_or(EIO)?;
        let file = self.disks[disk].file(ino).ok();
        Ok(Stat {
            ino: ino.0,
            disk: disk as u64,
            dir: file.is_none(),
            mode: inode.mode,
            len: file.map_or(PAGE, |f| f.len),
            pages: file.map_or(1, |f| f.charged),
            links: inode.links,
            mtime_ns: inode.mtime_ns,
        })
    }

    /// What statvfs tells about a disk.
    fn space_of(&self, disk: usize) -> Space {
        let d = &self.disks[disk];
        Space {
            total: d.capacity,
            free: d.free_pages(),
            inodes: d.inodes.len() as u64,
        }
    }

    /// A whole file, past faults, costs and account.
    pub(crate) fn peek(&self, disk: usize, path: Path<'_>) -> Res<Vec<u8>> {
        let d = &self.disks[disk];
        let file = d.file(d.lookup(path)?)?;
        let len = usize::try_from(file.len).map_err(|_| ENOSPC)?;
        let mut bytes = vec![0; len];
        file.read(0, &mut bytes);
        Ok(bytes)
    }
}
