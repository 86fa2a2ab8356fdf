//! A bbolt database as a set of named buckets, over pages that someone else reads.
//!
//! Apart from the walk because opening and naming are one thing, order and depth another. It does
//! not know files: [`Pages`] is a slice, a map or a reader of positions, as the caller likes.

use super::cursor::Cursor;
use super::error::{Damage, EtcdError};
use super::meta::Meta;
use super::page::{BUCKET_HEADER_BYTES, BucketHeader, Page, PageHeader, PageKind, prefix, wide};

/// The most top-level buckets that are listed: etcd has eleven, and a crafted file must not make
/// an importer walk the same pages for ever under ever new names.
pub const BUCKETS_MAX: usize = 1024;

/// The bytes of a database file, without the hash that a snapshot has at its end.
///
/// `&[u8]` is one. A reader of a file answers with owned bytes; pages are asked for one at a time,
/// in the order of the walk, and at most [`DEPTH_MAX`](super::DEPTH_MAX) of them are held.
pub trait Pages {
    /// Bytes that were read.
    type Bytes: AsRef<[u8]>;
    /// What a read or a walk can fail with.
    type Error: From<EtcdError>;

    /// Bytes in the database. [`Pages::read`] is never asked for any beyond them.
    fn size(&self) -> u64;

    /// The `len` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the caller from reading them.
    fn read(&self, offset: u64, len: usize) -> Result<Self::Bytes, Self::Error>;
}

impl<'a> Pages for &'a [u8] {
    type Bytes = &'a [u8];
    type Error = EtcdError;

    fn size(&self) -> u64 {
        wide(self.len())
    }

    fn read(&self, offset: u64, len: usize) -> Result<&'a [u8], EtcdError> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(len)?));
        let what = Damage::Short {
            wanted: wide(len),
            found: self.size().saturating_sub(offset),
        };
        bytes.ok_or(EtcdError::new(offset, what))
    }
}

/// An open database: its pages and the meta page that counts.
pub struct Bbolt<P> {
    pages: P,
    meta: Meta,
}

/// A top-level bucket: its name and where its tree begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    name: Vec<u8>,
    root: Root,
    sequence: u64,
}

/// Where the tree of a bucket begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Root {
    /// At a page. `offset` is where that is said.
    Page { id: u64, offset: u64 },
    /// In a single leaf page that lies in the bucket's own value, at `offset` of the file.
    Inline { bytes: Vec<u8>, offset: u64 },
}

impl<P: Pages> Bbolt<P> {
    /// Finds and checks the meta pages.
    ///
    /// # Errors
    ///
    /// As [`Meta::find`].
    pub fn open(pages: P) -> Result<Bbolt<P>, P::Error> {
        let meta = Meta::find(&pages)?;
        Ok(Bbolt { pages, meta })
    }

    /// The meta page that counts.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The pages.
    pub fn pages(&self) -> &P {
        &self.pages
    }

    /// The pages, back.
    pub fn into_pages(self) -> P {
        self.pages
    }

    /// All top-level buckets in ascending order of their names.
    ///
    /// # Errors
    ///
    /// Damage in the tree of buckets, more than [`BUCKETS_MAX`] of them, and errors of the pages.
    pub fn buckets(&self) -> Result<Vec<Bucket>, P::Error> {
        let offset = self.meta.page * u64::from(self.meta.page_bytes);
        let root = Root::Page {
            id: self.meta.root,
            offset,
        };
        let mut walk = Cursor::new(self, &root);
        let mut buckets = Vec::new();
        while let Some(leaf) = walk.next_element()? {
            if !leaf.is_bucket {
                return Err(EtcdError::new(leaf.offset, Damage::NotABucket).into());
            }
            if buckets.len() == BUCKETS_MAX {
                let what = Damage::TooManyBuckets {
                    buckets_max: BUCKETS_MAX,
                };
                return Err(EtcdError::new(leaf.offset, what).into());
            }
            let value_offset = leaf.offset + wide(leaf.key.len());
            buckets.push(Bucket::parse(leaf.key, leaf.value, value_offset)?);
        }
        Ok(buckets)
    }

    /// The top-level bucket called `name`, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Bbolt::buckets`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, P::Error> {
        Ok(self
            .buckets()?
            .into_iter()
            .find(|bucket| bucket.name == name))
    }

    /// A walk over the pairs of `bucket`, from the first.
    pub fn cursor<'a>(&'a self, bucket: &'a Bucket) -> Cursor<'a, P> {
        Cursor::new(self, &bucket.root)
    }

    /// Page `id` with all its overflow, and how many pages that are. `from` is the offset of the
    /// bytes that named it.
    pub(super) fn read_page(&self, id: u64, from: u64) -> Result<(Page<P::Bytes>, u64), P::Error> {
        let high_water = self.meta.high_water;
        let Some(offset) = self.meta.page_offset(id) else {
            let what = Damage::PageBeyondHighWater {
                id,
                overflow: 0,
                high_water,
            };
            return Err(EtcdError::new(from, what).into());
        };
        let page_bytes = narrow(u64::from(self.meta.page_bytes), offset)?;
        let first = read_exactly(&self.pages, offset, page_bytes)?;
        let header = PageHeader::parse(first.as_ref(), offset)?;
        header.check_id(id, offset)?;
        let overflow = header.overflow.get();
        if overflow == 0 {
            return Ok((Page::parse(first, id, offset)?, 1));
        }
        // Below the high-water mark is inside the file, so this also limits what is allocated.
        let count = u64::from(overflow) + 1;
        if count > high_water - id {
            let what = Damage::PageBeyondHighWater {
                id,
                overflow,
                high_water,
            };
            return Err(EtcdError::new(offset + 12, what).into());
        }
        drop(first);
        let len = narrow(
            count.saturating_mul(u64::from(self.meta.page_bytes)),
            offset,
        )?;
        let bytes = read_exactly(&self.pages, offset, len)?;
        Ok((Page::parse(bytes, id, offset)?, count))
    }

    /// How many pages a tree can have: all but the two meta pages.
    pub(super) fn pages_max(&self) -> u64 {
        self.meta.high_water.saturating_sub(2)
    }
}

impl Bucket {
    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// bbolt's counter of the bucket; etcd does not use it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the pairs lie in the bucket's own value instead of pages.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self.root, Root::Inline { .. })
    }

    /// The bucket in a leaf element; `value` begins at `offset` of the file.
    fn parse(name: &[u8], value: &[u8], offset: u64) -> Result<Bucket, EtcdError> {
        let header = prefix::<BucketHeader>(value, offset)?;
        let root = match header.root.get() {
            0 => {
                let bytes = value
                    .get(BUCKET_HEADER_BYTES..)
                    .unwrap_or_default()
                    .to_vec();
                let offset = offset + wide(BUCKET_HEADER_BYTES);
                check_inline(&bytes, offset)?;
                Root::Inline { bytes, offset }
            }
            id => Root::Page { id, offset },
        };
        Ok(Bucket {
            name: name.to_vec(),
            root,
            sequence: header.sequence.get(),
        })
    }
}

/// Checks that an inline page is what it may be: one leaf with number 0.
fn check_inline(bytes: &[u8], offset: u64) -> Result<(), EtcdError> {
    let header = PageHeader::parse(bytes, offset)?;
    let page = Page::parse(bytes, 0, offset)?;
    let overflow = header.overflow.get();
    if overflow != 0 {
        let what = Damage::PageBeyondHighWater {
            id: 0,
            overflow,
            high_water: 0,
        };
        return Err(EtcdError::new(offset + 12, what));
    }
    if page.kind() != PageKind::Leaf {
        let flags = header.flags.get();
        return Err(EtcdError::new(
            offset + 8,
            Damage::PageKind { id: 0, flags },
        ));
    }
    Ok(())
}

/// Reads, and does not believe that the answer is as long as the question.
pub(super) fn read_exactly<P: Pages>(
    pages: &P,
    offset: u64,
    len: usize,
) -> Result<P::Bytes, P::Error> {
    let bytes = pages.read(offset, len)?;
    let found = bytes.as_ref().len();
    if found == len {
        return Ok(bytes);
    }
    let what = Damage::Short {
        wanted: wide(len),
        found: wide(found),
    };
    Err(EtcdError::new(offset, what).into())
}

/// A length in memory; a page too large for a small address space is as good as missing.
fn narrow(len: u64, offset: u64) -> Result<usize, EtcdError> {
    usize::try_from(len).map_err(|_| {
        EtcdError::new(
            offset,
            Damage::Short {
                wanted: len,
                found: 0,
            },
        )
    })
}
