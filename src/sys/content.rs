//! The bytes of a file that exists in memory only: sparse, and cheap to copy.
//!
//! Chunks are shared between copies until one of them writes, so a crash image of a simulated file
//! costs a count for each chunk and no bytes. Apart because the memory disk and the simulated disk
//! share it. It knows nothing of durability: that is two contents side by side.

use std::fmt;
use std::sync::Arc;

/// Bytes in a chunk, which is also the unit of allocation: the block size of most filesystems.
pub(super) const CHUNK_BYTES: usize = 4096;

/// The unit in which a disk writes.
pub(super) const SECTOR_BYTES: usize = 512;

/// One sector's bytes.
pub(super) type Sector = [u8; SECTOR_BYTES];

/// What a file holds.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    /// Chunks from the start; behind the last there are only holes.
    chunks: Vec<Chunk>,
}

#[derive(Clone)]
enum Chunk {
    /// Zeros that take no space.
    Hole,
    /// Zeros whose space is allocated.
    #[cfg(any(test, feature = "unstable-storage"))]
    Reserved,
    /// Bytes.
    Bytes(Arc<[u8; CHUNK_BYTES]>),
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Space taken, in bytes.
    pub(super) fn allocated_bytes(&self) -> u64 {
        let taken = self
            .chunks
            .iter()
            .filter(|chunk| !matches!(chunk, Chunk::Hole))
            .count();
        (taken * CHUNK_BYTES) as u64
    }

    /// Fills `buf`; `false` if the file ends before.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> bool {
        let len = buf.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return false;
        }
        for piece in pieces(offset, buf.len()) {
            let target = &mut buf[piece.from..piece.from + piece.len];
            match self.chunks.get(piece.chunk) {
                Some(Chunk::Bytes(bytes)) => {
                    target.copy_from_slice(&bytes[piece.at..piece.at + piece.len]);
                }
                _ => target.fill(0),
            }
        }
        true
    }

    /// Writes, and lengthens the file to the end of what was written.
    pub(super) fn write(&mut self, buf: &[u8], offset: u64) {
        for piece in pieces(offset, buf.len()) {
            let chunk = self.bytes_of(piece.chunk);
            chunk[piece.at..piece.at + piece.len]
                .copy_from_slice(&buf[piece.from..piece.from + piece.len]);
        }
        if !buf.is_empty() {
            self.len = self.len.max(offset + buf.len() as u64);
        }
    }

    /// Sets the length; bytes behind it are gone.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        let last = chunk_of(len.saturating_sub(1));
        self.chunks.truncate(if len == 0 { 0 } else { last + 1 });
        let used = in_chunk(len);
        if used != 0 && matches!(self.chunks.get(last), Some(Chunk::Bytes(_))) {
            self.bytes_of(last)[used..].fill(0);
        }
    }

    /// Zeroes a range; whole chunks in it give their space back.
    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset
            .saturating_add(len)
            .min((self.chunks.len() * CHUNK_BYTES) as u64);
        let len = usize::try_from(end.saturating_sub(offset)).expect("no more than the chunks");
        for piece in pieces(offset, len) {
            if piece.len == CHUNK_BYTES {
                self.chunks[piece.chunk] = Chunk::Hole;
            } else if matches!(self.chunks[piece.chunk], Chunk::Bytes(_)) {
                self.bytes_of(piece.chunk)[piece.at..piece.at + piece.len].fill(0);
            }
        }
    }

    fn grow(&mut self, chunk: usize) {
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, Chunk::Hole);
        }
    }

    /// A chunk's own bytes, for writing.
    fn bytes_of(&mut self, chunk: usize) -> &mut [u8; CHUNK_BYTES] {
        self.grow(chunk);
        let slot = &mut self.chunks[chunk];
        if !matches!(slot, Chunk::Bytes(_)) {
            *slot = Chunk::Bytes(Arc::new([0; CHUNK_BYTES]));
        }
        match slot {
            Chunk::Bytes(bytes) => Arc::make_mut(bytes),
            _ => unreachable!("made bytes above"),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the bytes, of which there may be many.
        f.debug_struct("Content")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// What only the simulated disk asks for.
#[cfg(any(test, feature = "unstable-storage"))]
impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(bytes, 0);
        content
    }

    /// Space that a write or an allocation of this range would take in addition.
    pub(super) fn missing_bytes(&self, offset: u64, len: u64) -> u64 {
        let missing = |n: &usize| matches!(self.chunks.get(*n), None | Some(Chunk::Hole));
        (chunks_of(offset, len).filter(missing).count() * CHUNK_BYTES) as u64
    }

    /// Allocates space for a range; the length stays.
    pub(super) fn reserve(&mut self, offset: u64, len: u64) {
        for n in chunks_of(offset, len) {
            self.grow(n);
            if matches!(self.chunks[n], Chunk::Hole) {
                self.chunks[n] = Chunk::Reserved;
            }
        }
    }

    /// A sector's bytes, also behind the end.
    pub(super) fn sector(&self, sector: u64) -> Sector {
        let at = sector * SECTOR_BYTES as u64;
        let mut bytes = [0; SECTOR_BYTES];
        if let Some(Chunk::Bytes(chunk)) = self.chunks.get(chunk_of(at)) {
            bytes.copy_from_slice(&chunk[in_chunk(at)..in_chunk(at) + SECTOR_BYTES]);
        }
        bytes
    }

    /// Stores a sector, also behind the end: the length stays.
    pub(super) fn put_sector(&mut self, sector: u64, bytes: &Sector) {
        let at = sector * SECTOR_BYTES as u64;
        self.bytes_of(chunk_of(at))[in_chunk(at)..in_chunk(at) + SECTOR_BYTES]
            .copy_from_slice(bytes);
    }

    /// The sectors of a range that hold bytes, not holes.
    pub(super) fn sectors_with_bytes(&self, offset: u64, end: u64) -> Vec<u64> {
        let end = end.min((self.chunks.len() * CHUNK_BYTES) as u64);
        let sectors = offset / SECTOR_BYTES as u64..end.div_ceil(SECTOR_BYTES as u64);
        let has_bytes = |sector: &u64| {
            matches!(
                self.chunks[chunk_of(sector * SECTOR_BYTES as u64)],
                Chunk::Bytes(_)
            )
        };
        sectors.filter(has_bytes).collect()
    }

    /// All of the file.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("fits memory, where it lies")];
        self.read(&mut bytes, 0);
        bytes
    }
}

/// A part of a buffer that lies in one chunk.
struct Piece {
    chunk: usize,
    at: usize,
    from: usize,
    len: usize,
}

/// Cuts `len` bytes at `offset` at the chunks' borders.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let offset = offset + from as u64;
        let at = in_chunk(offset);
        let piece = Piece {
            chunk: chunk_of(offset),
            at,
            from,
            len: (len - from).min(CHUNK_BYTES - at),
        };
        from += piece.len;
        (piece.len > 0).then_some(piece)
    })
}

#[cfg(any(test, feature = "unstable-storage"))]
fn chunks_of(offset: u64, len: u64) -> std::ops::Range<usize> {
    let end = offset.saturating_add(len).div_ceil(CHUNK_BYTES as u64);
    chunk_of(offset)..usize::try_from(end).expect("64 bits")
}

fn chunk_of(offset: u64) -> usize {
    usize::try_from(offset / CHUNK_BYTES as u64).expect("64 bits")
}

fn in_chunk(offset: u64) -> usize {
    usize::try_from(offset % CHUNK_BYTES as u64).expect("below the size of a chunk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_plain_bytes() {
        // Writes, cuts, holes over chunk borders, beside a vector that does the same.
        let mut content = Content::default();
        let mut plain: Vec<u8> = Vec::new();
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..2000 {
            let offset = next(20_000);
            let len = next(9000);
            let (from, to) = (
                usize::try_from(offset).unwrap(),
                usize::try_from(len).unwrap(),
            );
            match next(8) {
                0 => {
                    content.set_len(offset);
                    plain.resize(from, 0);
                }
                1 => {
                    content.punch(offset, len);
                    let end = (from + to).min(plain.len());
                    plain[from.min(end)..end].fill(0);
                }
                2 => content.reserve(offset, len),
                _ => {
                    let bytes = vec![u8::try_from(round % 251).unwrap() + 1; to];
                    content.write(&bytes, offset);
                    plain.resize(plain.len().max(if to == 0 { 0 } else { from + to }), 0);
                    plain[from.min(from + to)..]
                        .iter_mut()
                        .take(to)
                        .for_each(|b| *b = bytes[0]);
                }
            }
            assert_eq!(content.len(), plain.len() as u64, "round {round}");
            assert!(content.to_vec() == plain, "round {round}");
        }
    }

    #[test]
    fn copies_share_until_written() {
        let mut first = Content::from_bytes(&[1; 10_000]);
        let second = first.clone();
        first.write(&[2; 100], 5000);
        assert_eq!(second.to_vec(), [1; 10_000]);
        assert_eq!(first.to_vec()[5000..5100], [2; 100]);
    }

    #[test]
    fn counts_space_by_chunk() {
        let mut content = Content::default();
        content.reserve(0, 8192);
        content.write(&[1], 20_480);
        assert_eq!(content.allocated_bytes(), 3 * 4096);
        assert_eq!(content.missing_bytes(4096, 3 * 4096), 2 * 4096);
        content.punch(4096, 4096);
        assert_eq!(content.allocated_bytes(), 2 * 4096);
        let mut buf = [9; 2];
        assert!(content.read(&mut buf, 20_479));
        assert_eq!(buf, [0, 1]);
        assert!(!content.read(&mut buf, 20_480));
        assert!(!content.read(&mut buf, u64::MAX));
    }
}
