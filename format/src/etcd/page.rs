//! One bbolt page: header, elements, keys and values, each behind a check of its bounds.
//!
//! Apart from the tree so that everything about offsets in a page is in one file. It knows neither
//! other pages nor how bytes are read. A page inside a value (an inline bucket) is the same thing
//! at another offset.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::error::{Damage, EtcdError};

/// What precedes the elements of every page.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct PageHeader {
    /// The page's own number: a pointer that went astray shows here.
    pub(super) id: U64,
    /// One bit for its kind.
    pub(super) flags: U16,
    /// How many elements follow.
    pub(super) count: U16,
    /// How many further pages continue this one.
    pub(super) overflow: U32,
}

/// The table entry of a pair, or of a bucket, in a leaf page.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct LeafElement {
    /// 1 for a bucket, 0 for a pair.
    flags: U32,
    /// Where the key begins, from the start of this element; the value follows it.
    pos: U32,
    /// Bytes of the key.
    key_bytes: U32,
    /// Bytes of the value.
    value_bytes: U32,
}

/// The table entry of a child in a branch page.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct BranchElement {
    /// Where the key begins, from the start of this element.
    pos: U32,
    /// Bytes of the key.
    key_bytes: U32,
    /// The child.
    child: U64,
}

/// What precedes an inline page in a bucket's value; alone if the bucket has pages of its own.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct BucketHeader {
    /// The bucket's root page, 0 if the bucket is inline.
    pub(super) root: U64,
    /// A counter for users; etcd has none.
    pub(super) sequence: U64,
}

const _: () = assert!(size_of::<PageHeader>() == PAGE_HEADER_BYTES);
const _: () = assert!(size_of::<LeafElement>() == ELEMENT_BYTES);
const _: () = assert!(size_of::<BranchElement>() == ELEMENT_BYTES);
const _: () = assert!(size_of::<BucketHeader>() == BUCKET_HEADER_BYTES);

/// Bytes of a page header.
pub(super) const PAGE_HEADER_BYTES: usize = 16;
/// Bytes of a bucket header.
pub(super) const BUCKET_HEADER_BYTES: usize = 16;
/// Bytes of an element of either kind.
const ELEMENT_BYTES: usize = 16;
/// On disk: never renumber.
const FLAG_BRANCH: u16 = 0x01;
/// On disk: never renumber.
const FLAG_LEAF: u16 = 0x02;
/// On disk: never renumber.
const ELEMENT_IS_BUCKET: u32 = 0x01;

/// The pages that a tree is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PageKind {
    /// Keys and children.
    Branch,
    /// Keys and values.
    Leaf,
}

/// A page whose header and elements were checked: kind, table, bounds and the order of its keys.
///
/// Accessors check their bounds again instead of trusting the first time: it costs a comparison,
/// and no answer of `B` can make them panic.
pub(super) struct Page<B> {
    bytes: B,
    /// Where the page begins in the file.
    offset: u64,
    id: u64,
    kind: PageKind,
    count: u16,
}

/// What is at one place of a leaf page.
pub(super) struct Leaf<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) is_bucket: bool,
    /// Where the key begins in the file.
    pub(super) offset: u64,
}

impl PageHeader {
    /// The header at the start of `bytes`, which begin at `offset` of the file.
    pub(super) fn parse(bytes: &[u8], offset: u64) -> Result<PageHeader, EtcdError> {
        prefix::<PageHeader>(bytes, offset)
    }

    /// Checks that this is page `id`.
    pub(super) fn check_id(&self, id: u64, offset: u64) -> Result<(), EtcdError> {
        if self.id.get() == id {
            return Ok(());
        }
        Err(EtcdError::new(
            offset,
            Damage::PageId {
                expected: id,
                found: self.id.get(),
            },
        ))
    }
}

impl<B: AsRef<[u8]>> Page<B> {
    /// The page `id` in `bytes`, all of them, which begin at `offset` of the file.
    pub(super) fn parse(bytes: B, id: u64, offset: u64) -> Result<Page<B>, EtcdError> {
        let header = PageHeader::parse(bytes.as_ref(), offset)?;
        header.check_id(id, offset)?;
        let kind = match header.flags.get() {
            FLAG_BRANCH => PageKind::Branch,
            FLAG_LEAF => PageKind::Leaf,
            flags => {
                return Err(EtcdError::new(offset + 8, Damage::PageKind { id, flags }));
            }
        };
        let page = Page {
            bytes,
            offset,
            id,
            kind,
            count: header.count.get(),
        };
        page.check()?;
        Ok(page)
    }

    /// The same page in another holder of the same bytes.
    pub(super) fn map<C>(self, hold: impl FnOnce(B) -> C) -> Page<C> {
        let Page {
            bytes,
            offset,
            id,
            kind,
            count,
        } = self;
        Page {
            bytes: hold(bytes),
            offset,
            id,
            kind,
            count,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn kind(&self) -> PageKind {
        self.kind
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Where the page begins in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Where element `index` begins in the file.
    pub(super) fn element_offset(&self, index: u16) -> u64 {
        self.offset + wide(element_at(index))
    }

    /// The key of element `index`.
    pub(super) fn key(&self, index: u16) -> Result<&[u8], EtcdError> {
        match self.kind {
            PageKind::Branch => Ok(self.branch(index)?.0),
            PageKind::Leaf => Ok(self.leaf(index)?.key),
        }
    }

    /// The key and child of element `index` of a branch page.
    pub(super) fn branch(&self, index: u16) -> Result<(&[u8], u64), EtcdError> {
        let element = self.element::<BranchElement>(index)?;
        let (key, _, _) = self.span(index, element.pos, element.key_bytes, U32::ZERO)?;
        Ok((key, element.child.get()))
    }

    /// Element `index` of a leaf page.
    pub(super) fn leaf(&self, index: u16) -> Result<Leaf<'_>, EtcdError> {
        let element = self.element::<LeafElement>(index)?;
        let is_bucket = match element.flags.get() {
            0 => false,
            ELEMENT_IS_BUCKET => true,
            flags => {
                let offset = self.element_offset(index);
                return Err(EtcdError::new(
                    offset,
                    Damage::ElementFlags { index, flags },
                ));
            }
        };
        let (key, value, at) =
            self.span(index, element.pos, element.key_bytes, element.value_bytes)?;
        Ok(Leaf {
            key,
            value,
            is_bucket,
            offset: self.offset + at,
        })
    }

    /// Checks the table, each element's bounds, that elements do not share bytes, and key order.
    ///
    /// Because shared bytes are refused, a walk over a page yields at most the page's length; so a
    /// few crafted bytes cannot pose as terabytes of values.
    fn check(&self) -> Result<(), EtcdError> {
        let page_bytes = wide(self.bytes.as_ref().len());
        let table_end = wide(element_at(self.count));
        if table_end > page_bytes {
            let what = Damage::ElementTable {
                count: self.count,
                page_bytes,
            };
            return Err(EtcdError::new(self.offset + 10, what));
        }
        let mut total = table_end;
        let mut before: Option<&[u8]> = None;
        for index in 0..self.count {
            let (key, value_bytes) = match self.kind {
                PageKind::Branch => (self.branch(index)?.0, 0),
                PageKind::Leaf => {
                    let leaf = self.leaf(index)?;
                    (leaf.key, leaf.value.len())
                }
            };
            if before.is_some_and(|before| before >= key) {
                let offset = self.element_offset(index);
                return Err(EtcdError::new(offset, Damage::KeyOrder { index }));
            }
            before = Some(key);
            total += wide(key.len()) + wide(value_bytes);
        }
        if total > page_bytes {
            let what = Damage::ElementsOverlap { total, page_bytes };
            return Err(EtcdError::new(self.offset, what));
        }
        Ok(())
    }

    fn element<T>(&self, index: u16) -> Result<T, EtcdError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned + Copy,
    {
        let at = element_at(index);
        let bytes = self.bytes.as_ref().get(at..).unwrap_or_default();
        prefix::<T>(bytes, self.offset + wide(at))
    }

    /// The key and value of element `index`, and where in the page they begin.
    fn span(
        &self,
        index: u16,
        pos: U32,
        key_bytes: U32,
        value_bytes: U32,
    ) -> Result<(&[u8], &[u8], u64), EtcdError> {
        // No sum overflows: four terms below 2^32 and one below 2^21.
        let start = wide(element_at(index)) + u64::from(pos.get());
        let middle = start + u64::from(key_bytes.get());
        let end = middle + u64::from(value_bytes.get());
        let bytes = self.bytes.as_ref();
        let part = |from: u64, to: u64| {
            let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
            bytes.get(from..to)
        };
        let after_table = start >= wide(element_at(self.count));
        match (part(start, middle), part(middle, end)) {
            (Some(key), Some(value)) if after_table => Ok((key, value, start)),
            _ => {
                let page_bytes = wide(bytes.len());
                let what = Damage::ElementBounds {
                    index,
                    start,
                    end,
                    page_bytes,
                };
                Err(EtcdError::new(self.element_offset(index), what))
            }
        }
    }
}

/// A copy of the structure at the start of `bytes`, which begin at `offset` of the file.
pub(super) fn prefix<T>(bytes: &[u8], offset: u64) -> Result<T, EtcdError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned + Copy,
{
    match T::ref_from_prefix(bytes) {
        Ok((value, _)) => Ok(*value),
        Err(_) => {
            let what = Damage::Short {
                wanted: wide(size_of::<T>()),
                found: wide(bytes.len()),
            };
            Err(EtcdError::new(offset, what))
        }
    }
}

/// A length as a file offset; every supported `usize` fits.
pub(super) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Where element `index` begins in its page.
fn element_at(index: u16) -> usize {
    PAGE_HEADER_BYTES + usize::from(index) * ELEMENT_BYTES
}
