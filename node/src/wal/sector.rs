//! The sector: 512 bytes that a disk writes whole or not at all, and that prove whose they are.
//!
//! Every sector carries its own checksum, the number of its segment, and its place in its batch. So any mixture of old
//! and new sectors can be told apart without trusting their order on the disk. Pure functions over bytes.

/// Bytes of a sector: the unit that the log assumes a disk writes atomically.
pub(super) const SECTOR: usize = 512;
/// Bytes of a sector's header.
pub(super) const HEADER: usize = 40;
/// Payload bytes of a full sector.
pub(super) const ROOM: usize = SECTOR - HEADER;
/// The format this code writes, and the newest it reads.
pub(super) const VERSION: u8 = 1;
/// Flag: the batch's payload goes on in the next batch.
const CONTINUES: u8 = 1;

/// What a batch writes into each of its sectors, apart from the sector's own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the segment the sector was written for.
    pub(super) segment: u64,
    /// Number of the batch.
    pub(super) batch: u64,
    /// Every batch up to this one was synced before this one was written.
    pub(super) synced: u64,
    /// The next batch continues this one's payload.
    pub(super) continues: bool,
    /// Place of the sector in its batch, from 0.
    pub(super) index: u32,
    /// Sectors of the batch.
    pub(super) count: u32,
}

/// What 512 bytes turn out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sector<'a> {
    /// All zeros: never written, or cut.
    Blank,
    /// Not zero, and the checksum or the header makes no sense: damage.
    Bad,
    /// Whole, but of a format from the future.
    Newer(u8),
    /// Whole.
    Valid(Header, &'a [u8]),
}

/// Sectors that `bytes` of payload fill; at least one.
pub(super) fn sectors_for(bytes: usize) -> usize {
    bytes.div_ceil(ROOM).max(1)
}

/// Says what `bytes` (exactly one sector) are.
pub(super) fn classify(bytes: &[u8]) -> Sector<'_> {
    assert_eq!(bytes.len(), SECTOR, "a sector has 512 bytes");
    let crc = u32_at(bytes, 0);
    if crc != crc32c::crc32c(&bytes[4..]) {
        let blank = bytes.iter().all(|byte| *byte == 0);
        return if blank { Sector::Blank } else { Sector::Bad };
    }
    if bytes[4] > VERSION {
        return Sector::Newer(bytes[4]);
    }
    let header = Header {
        segment: u64_at(bytes, 8),
        batch: u64_at(bytes, 16),
        synced: u64_at(bytes, 24),
        continues: bytes[5] & CONTINUES != 0,
        index: u32_at(bytes, 32),
        count: u32_at(bytes, 36),
    };
    let length = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    let sound = bytes[4] == VERSION
        && bytes[5] & !CONTINUES == 0
        && length <= ROOM
        && header.index < header.count
        && header.synced < header.batch;
    if sound {
        Sector::Valid(header, &bytes[HEADER..HEADER + length])
    } else {
        Sector::Bad
    }
}

/// Appends `payload` to `out` as the sectors of one batch; `index` and `count` of `like` are ignored.
pub(super) fn frame(payload: &[u8], like: Header, out: &mut Vec<u8>) {
    let count = u32::try_from(sectors_for(payload.len())).expect("a batch fits in a segment");
    for index in 0..count {
        let from = index as usize * ROOM;
        let part = &payload[from..payload.len().min(from + ROOM)];
        let header = Header {
            index,
            count,
            ..like
        };
        frame_one(part, header, out);
    }
}

fn frame_one(part: &[u8], header: Header, out: &mut Vec<u8>) {
    let length = u16::try_from(part.len()).expect("a part is at most one sector");
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(VERSION);
    out.push(if header.continues { CONTINUES } else { 0 });
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&header.segment.to_le_bytes());
    out.extend_from_slice(&header.batch.to_le_bytes());
    out.extend_from_slice(&header.synced.to_le_bytes());
    out.extend_from_slice(&header.index.to_le_bytes());
    out.extend_from_slice(&header.count.to_le_bytes());
    out.extend_from_slice(part);
    out.resize(start + SECTOR, 0);
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Little-endian number at `at`, which the caller knows to be inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Little-endian number at `at`, which the caller knows to be inside.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like() -> Header {
        Header {
            segment: 3,
            batch: 9,
            synced: 7,
            continues: true,
            index: 0,
            count: 0,
        }
    }

    #[test]
    fn framed_payload_reads_back() {
        for length in [0, 1, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM] {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut out = Vec::new();
            frame(&payload, like(), &mut out);
            assert_eq!(out.len(), sectors_for(length) * SECTOR);
            let mut back = Vec::new();
            for (index, bytes) in out.chunks(SECTOR).enumerate() {
                let Sector::Valid(header, part) = classify(bytes) else {
                    panic!("not valid")
                };
                assert_eq!((header.batch, header.index as usize), (9, index));
                assert!(header.continues);
                back.extend_from_slice(part);
            }
            assert_eq!(back, payload);
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let mut out = Vec::new();
        frame(b"short", like(), &mut out);
        for bit in 0..SECTOR * 8 {
            let mut bytes = out.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(classify(&bytes), Sector::Bad, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_blank_and_newer_formats_are_named() {
        assert_eq!(classify(&[0; SECTOR]), Sector::Blank);
        let mut out = Vec::new();
        frame(b"x", like(), &mut out);
        out[4] = 2;
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(classify(&out), Sector::Newer(2));
    }
}
