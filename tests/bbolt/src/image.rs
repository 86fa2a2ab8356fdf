//! A written file, what its pages are, and ways to damage it.

use sha2::{Digest, Sha256};

/// What a page of a tree is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Keys and children.
    Branch,
    /// Keys and values.
    Leaf,
}

/// A page of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageNote {
    /// Its number.
    pub id: u64,
    /// Branch or leaf.
    pub kind: PageKind,
    /// The bucket it belongs to; no name for the tree of buckets.
    pub bucket: Vec<u8>,
    /// Levels below it.
    pub height: usize,
    /// Pages in the file, more than one with overflow.
    pub pages: usize,
    /// Its number of elements.
    pub count: usize,
}

/// A file in memory.
#[derive(Clone, Debug)]
pub struct Image {
    bytes: Vec<u8>,
    page_bytes: usize,
    has_hash: bool,
    notes: Vec<PageNote>,
}

const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;

impl Image {
    pub(crate) fn new(
        bytes: Vec<u8>,
        page_bytes: usize,
        has_hash: bool,
        notes: Vec<PageNote>,
    ) -> Image {
        let mut image = Image {
            bytes,
            page_bytes,
            has_hash,
            notes,
        };
        if has_hash {
            image.bytes.extend([0; HASH_BYTES]);
            image.rehash();
        }
        image
    }

    /// The whole file.
    #[must_use]
    pub fn file(&self) -> &[u8] {
        &self.bytes
    }

    /// The database without the hash.
    #[must_use]
    pub fn database(&self) -> &[u8] {
        &self.bytes[..self.database_bytes()]
    }

    /// The pages of all trees, in the order they were written: children before parents.
    #[must_use]
    pub fn pages(&self) -> &[PageNote] {
        &self.notes
    }

    /// The pages of one bucket's tree.
    pub fn pages_of(&self, bucket: &str) -> impl DoubleEndedIterator<Item = &PageNote> {
        self.notes
            .iter()
            .filter(move |note| note.bucket == bucket.as_bytes())
    }

    /// The number of levels of one bucket's tree; 0 if it is inline.
    #[must_use]
    pub fn levels(&self, bucket: &str) -> usize {
        self.pages_of(bucket)
            .map(|note| note.height + 1)
            .max()
            .unwrap_or(0)
    }

    /// Where page `id` begins.
    ///
    /// # Panics
    ///
    /// If the number does not fit into memory.
    #[must_use]
    pub fn page_offset(&self, id: u64) -> usize {
        usize::try_from(id).expect("page numbers are small") * self.page_bytes
    }

    /// Where element `index` of page `id` begins.
    #[must_use]
    pub fn element_offset(&self, id: u64, index: usize) -> usize {
        self.page_offset(id) + HEADER_BYTES + index * ELEMENT_BYTES
    }

    /// Flips the bits of `mask` in the byte at `offset` of the file.
    pub fn flip(&mut self, offset: usize, mask: u8) {
        self.bytes[offset] ^= mask;
    }

    /// Overwrites bytes at `offset` of the file.
    pub fn overwrite(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Lets page `id` say that it is page `says`.
    pub fn set_page_id(&mut self, id: u64, says: u64) {
        self.overwrite(self.page_offset(id), &says.to_le_bytes());
    }

    /// Lets page `id` say that it has `overflow` further pages.
    pub fn set_overflow(&mut self, id: u64, overflow: u32) {
        self.overwrite(self.page_offset(id) + 12, &overflow.to_le_bytes());
    }

    /// Lets element `index` of branch page `id` point to `child`; to itself or a page above, and
    /// there is a cycle.
    pub fn set_child(&mut self, id: u64, index: usize, child: u64) {
        self.overwrite(self.element_offset(id, index) + 8, &child.to_le_bytes());
    }

    /// Exchanges elements 0 and 1 of leaf page `id`, so that their keys are out of order.
    pub fn swap_first_keys(&mut self, id: u64) {
        let (at, next) = (self.element_offset(id, 0), self.element_offset(id, 1));
        let (first, second) = self.bytes[at..].split_at_mut(ELEMENT_BYTES);
        first.swap_with_slice(&mut second[..ELEMENT_BYTES]);
        // Positions count from the element, which moved by one.
        let move_by = u32::try_from(ELEMENT_BYTES).expect("sixteen");
        self.shift_position(at, move_by);
        self.shift_position(next, move_by.wrapping_neg());
    }

    /// Breaks the checksum of meta page 0 or 1.
    pub fn break_meta(&mut self, page: u64) {
        self.flip(self.page_offset(page) + HEADER_BYTES + 56, 0xff);
    }

    /// Cuts the file.
    pub fn truncate(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
        self.has_hash = self.has_hash && self.bytes.len() % 512 == HASH_BYTES;
    }

    /// Writes the hash anew, so that only the damage itself shows.
    pub fn rehash(&mut self) {
        if self.has_hash {
            let end = self.database_bytes();
            let hash = Sha256::digest(&self.bytes[..end]);
            self.bytes[end..].copy_from_slice(&hash);
        }
    }

    /// Whether the hash is there and right.
    #[must_use]
    pub fn hash_is_right(&self) -> bool {
        let end = self.database_bytes();
        self.has_hash && self.bytes[end..] == Sha256::digest(&self.bytes[..end])[..]
    }

    fn database_bytes(&self) -> usize {
        self.bytes.len() - if self.has_hash { HASH_BYTES } else { 0 }
    }

    fn shift_position(&mut self, element: usize, by: u32) {
        let at = element + 4;
        let pos = u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"));
        self.overwrite(at, &pos.wrapping_add(by).to_le_bytes());
    }
}
