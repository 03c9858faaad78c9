//! Writing, checking and loading one snapshot file.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "snapshot files; runs on the storage lane and is simulated underneath"
)]

use super::Error;
use super::dir::{file_name, sync_dir};
use super::format::{self, Header, Kind, Meta, Trailer};
use crate::handle::SnapshotInfo;
use crate::state::{self, View};
use crate::store::Store;
use crate::types::GroupId;
use prost::Message;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Records are loaded into a store in batches of about this size, bytes.
const LOAD_BYTES: usize = 1 << 20;

/// Writes the state that `view` shows as a snapshot into `dir`, durably. On an error nothing is left behind.
pub fn write(
    dir: &Path,
    group: GroupId,
    time_ms: u64,
    view: &dyn View,
) -> Result<SnapshotInfo, Error> {
    let missing = || state::Error::corrupt("there is no state to cut a snapshot of");
    let meta = state::meta(view)?.ok_or_else(missing)?;
    let applied = state::applied(view)?.ok_or_else(missing)?;
    let header = format::header(group, time_ms, &meta, &applied);
    let name = file_name(header.index, header.term);
    let temporary = dir.join(format!("{name}.tmp"));
    let written = write_file(&temporary, &header, applied.state_hash, view).and_then(|meta| {
        let path = dir.join(&name);
        fs::rename(&temporary, &path).map_err(Error::io("rename", &path))?;
        sync_dir(dir)?;
        Ok(meta)
    });
    if written.is_err() {
        drop(fs::remove_file(&temporary)); // The first error is the one to tell.
    }
    let meta = written?;
    Ok(SnapshotInfo {
        index: meta.index,
        term: meta.term,
        revision: meta.revision,
        bytes: meta.bytes,
        checksum: format!("{:016x}", meta.checksum),
        file: match dir.file_name() {
            Some(dir) => Path::new(dir).join(name).display().to_string(),
            None => name,
        },
    })
}

/// Writes and syncs the file.
fn write_file(
    path: &Path,
    header: &Header,
    state_hash: u64,
    view: &dyn View,
) -> Result<Meta, Error> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    let mut out = Writer {
        file: BufWriter::with_capacity(256 << 10, file),
        checksum: Xxh3::new(),
        bytes: 0,
    };
    let io = || Error::io("write", path);
    out.put(&format::MAGIC).map_err(io())?;
    out.put(&format::frame(Kind::Header, &header.encode_to_vec()))
        .map_err(io())?;
    let mut sum = Sum::default();
    let mut block = Vec::new();
    for record in view.scan(&[], &state::END_KEY) {
        let (key, value) = record?;
        sum.add(&key, &value);
        format::push_record(&mut block, &key, &value);
        if block.len() >= format::BLOCK_BYTES {
            out.put(&format::frame(Kind::Block, &block)).map_err(io())?;
            block.clear();
        }
    }
    if !block.is_empty() {
        out.put(&format::frame(Kind::Block, &block)).map_err(io())?;
    }
    if sum.hash != state_hash {
        return Err(state::Error::corrupt("the records do not add up to the state hash").into());
    }
    let trailer = Trailer {
        records: sum.records,
        state_hash,
        checksum: out.checksum.digest(),
    };
    out.put(&format::trailer_frame(&trailer)).map_err(io())?;
    let bytes = out.finish().map_err(io())?;
    Ok(Meta::new(header.clone(), trailer, bytes))
}

/// A file being written.
struct Writer {
    /// The file.
    file: BufWriter<File>,
    /// Of everything so far.
    checksum: Xxh3,
    /// Length so far.
    bytes: u64,
}

impl Writer {
    /// Writes.
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.checksum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Makes the file durable; gives its length.
    fn finish(self) -> std::io::Result<u64> {
        let file = self
            .file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.bytes)
    }
}

/// Counts and hashes records.
#[derive(Default)]
struct Sum {
    /// How many.
    records: u64,
    /// The state hash.
    hash: u64,
}

impl Sum {
    /// Takes a record.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        if key != state::APPLIED_KEY {
            self.hash = self.hash.wrapping_add(state::record_hash(key, value));
        }
    }
}

/// A file being read, frame by frame.
struct Reader<'p> {
    /// The file's path, for errors.
    path: &'p Path,
    /// The file.
    file: BufReader<File>,
    /// Its length, bytes.
    length: u64,
    /// Bytes read.
    offset: u64,
    /// Of everything read.
    checksum: Xxh3,
}

impl<'p> Reader<'p> {
    /// Opens a file and reads its magic.
    fn open(path: &'p Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("look at", path))?;
        let mut reader = Reader {
            path,
            file: BufReader::with_capacity(256 << 10, file),
            length: metadata.len(),
            offset: 0,
            checksum: Xxh3::new(),
        };
        if reader.take(format::MAGIC.len() as u64)? != format::MAGIC {
            return Err(reader.bad("it does not begin like a snapshot of version 1"));
        }
        Ok(reader)
    }

    /// The next bytes; never more than the file has left.
    fn take(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        if length > self.length - self.offset {
            return Err(self.bad("it ends too early"));
        }
        let length_usize = usize::try_from(length).map_err(|_| self.bad("a frame is too long"))?;
        let mut bytes = vec![0; length_usize];
        self.file
            .read_exact(&mut bytes)
            .map_err(Error::io("read", self.path))?;
        self.offset += length;
        self.checksum.update(&bytes);
        Ok(bytes)
    }

    /// The next frame.
    fn frame(&mut self) -> Result<(Kind, Vec<u8>), Error> {
        let head = self.take(format::FRAME_BYTES as u64)?;
        let kind = match head[0] {
            1 => Kind::Header,
            2 => Kind::Block,
            3 => Kind::Trailer,
            _ => return Err(self.bad("it has an unknown kind of frame")),
        };
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let payload = self.take(u64::from(number(1)))?;
        if format::checksum(&head[..5], &payload) != number(5) {
            let at = self.offset;
            return Err(self.bad(format!("the frame that ends at byte {at} is damaged")));
        }
        Ok((kind, payload))
    }

    /// The header.
    fn header(&mut self) -> Result<Header, Error> {
        let (kind, payload) = self.frame()?;
        if kind != Kind::Header {
            return Err(self.bad("it has no header"));
        }
        let header: Header = format::decode(&payload).map_err(|why| self.bad(why))?;
        if header.state_format != state::FORMAT {
            return Err(self.bad(format!("its state has format {}", header.state_format)));
        }
        Ok(header)
    }

    /// A complaint about the file.
    fn bad(&self, why: impl Into<String>) -> Error {
        Error::bad(self.path, why)
    }
}

/// Reads a whole file, checks everything that can be checked, and hands over each block's payload.
fn walk(path: &Path, mut each: impl FnMut(Vec<u8>) -> Result<(), Error>) -> Result<Meta, Error> {
    let mut reader = Reader::open(path)?;
    let header = reader.header()?;
    let mut sum = Sum::default();
    let mut last_key = Vec::new();
    loop {
        let checksum = reader.checksum.digest();
        let (kind, payload) = reader.frame()?;
        match kind {
            Kind::Header => return Err(reader.bad("it has two headers")),
            Kind::Block => {
                for record in format::records(&payload) {
                    let (key, value) = record.ok_or_else(|| reader.bad("a block is broken"))?;
                    if key <= &last_key[..] {
                        return Err(reader.bad("its records are out of order"));
                    }
                    last_key.clear();
                    last_key.extend(key);
                    sum.add(key, value);
                }
                each(payload)?;
            }
            Kind::Trailer => {
                let trailer: Trailer = format::decode(&payload).map_err(|why| reader.bad(why))?;
                let expected = Trailer {
                    records: sum.records,
                    state_hash: sum.hash,
                    checksum,
                };
                if trailer != expected || reader.offset != reader.length {
                    return Err(reader.bad("its contents do not fit its trailer"));
                }
                return Ok(Meta::new(header, trailer, reader.length));
            }
        }
    }
}

/// Checks a file from end to end.
pub fn verify(path: &Path) -> Result<Meta, Error> {
    walk(path, |_| Ok(()))
}

/// Loads a file into a fresh, empty store. After an error the store holds a part of the state and must be given up.
pub fn load(path: &Path, store: &Store) -> Result<Meta, Error> {
    assert!(
        state::applied(store)?.is_none(),
        "a snapshot is loaded into an empty store"
    );
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    let meta = walk(path, |block| {
        bytes += block.len();
        waiting.push(block);
        if bytes >= LOAD_BYTES {
            commit(store, &waiting)?;
            waiting.clear();
            bytes = 0;
        }
        Ok(())
    })?;
    commit(store, &waiting)?;
    let (said, applied) = (state::meta(store)?, state::applied(store)?);
    let fits = said.zip(applied).is_some_and(|(said, applied)| {
        let header = format::header(meta.group, meta.time_ms, &said, &applied);
        Meta::new(header, meta.trailer(), meta.bytes) == meta
            && applied.state_hash == meta.state_hash
    });
    match fits {
        true => Ok(meta),
        false => Err(Error::bad(path, "its header does not fit its state")),
    }
}

/// Writes blocks that were checked.
fn commit(store: &Store, blocks: &[Vec<u8>]) -> Result<(), Error> {
    let records = blocks.iter().flat_map(|block| format::records(block));
    let records = records.flatten().map(|(key, value)| (key, Some(value)));
    Ok(store.fill(records)?)
}

/// Reads what a file says of itself, without a look at its records. Enough to choose a file; [`verify`] before trust.
pub fn read_meta(path: &Path) -> Result<Meta, Error> {
    let mut reader = Reader::open(path)?;
    let header = reader.header()?;
    let at = reader.length.checked_sub(format::trailer_bytes() as u64);
    let at = at.filter(|at| *at >= reader.offset);
    let at = at.ok_or_else(|| reader.bad("it has no trailer"))?;
    reader
        .file
        .seek(SeekFrom::Start(at))
        .map_err(Error::io("read", path))?;
    reader.offset = at;
    let (kind, payload) = reader.frame()?;
    if kind != Kind::Trailer {
        return Err(reader.bad("it has no trailer"));
    }
    let trailer: Trailer = format::decode(&payload).map_err(|why| reader.bad(why))?;
    Ok(Meta::new(header, trailer, reader.length))
}
