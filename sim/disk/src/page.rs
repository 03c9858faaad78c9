//! One page of a file. Pages that are all zeros share one: logs and stores prepare files by filling them with zeros, and most of
//! those pages are never written again in a run.
//!
//! Invariant: which of the two forms a page has shows in nothing but time and memory.

use std::ops::{Deref, DerefMut};

/// Bytes in a page: the unit of write-back.
pub(crate) const PAGE: u64 = 4096;
/// The same, as an array's length.
const LEN: usize = PAGE as usize;
/// The page that all pages of zeros read as.
static ZEROS: [u8; LEN] = [0; LEN];

/// The bytes of one page.
#[derive(Debug, Clone, Default)]
pub(crate) enum Page {
    /// All zeros, and allocated all the same.
    #[default]
    Zeros,
    /// These.
    Bytes(Box<[u8; LEN]>),
}

impl Page {
    /// True when it reads as zeros, in whichever form.
    pub(crate) fn is_zeros(&self) -> bool {
        matches!(self, Page::Zeros) || **self == ZEROS
    }

    /// Puts `bytes` at `within`.
    pub(crate) fn put(&mut self, within: usize, bytes: &[u8]) {
        if bytes == ZEROS {
            *self = Page::Zeros;
        } else {
            self[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl Deref for Page {
    type Target = [u8; LEN];

    fn deref(&self) -> &[u8; LEN] {
        match self {
            Page::Zeros => &ZEROS,
            Page::Bytes(bytes) => bytes,
        }
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut [u8; LEN] {
        if let Page::Zeros = self {
            *self = Page::Bytes(Box::new(ZEROS));
        }
        match self {
            Page::Bytes(bytes) => bytes,
            Page::Zeros => unreachable!("it was just given bytes of its own"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_shared_until_something_else_is_written() {
        let mut page = Page::default();
        page.put(0, &ZEROS);
        assert!(matches!(page, Page::Zeros));
        page.put(10, b"abc");
        assert_eq!(page[8..15], *b"\0\0abc\0\0");
        page.put(11, &[0]);
        assert_eq!(page[8..15], *b"\0\0a\0c\0\0");
        page.put(0, &ZEROS);
        assert!(matches!(page, Page::Zeros));
        assert_eq!(ZEROS, [0; LEN]);
    }
}
