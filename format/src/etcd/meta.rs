//! The meta pages: the page size, the root and the high-water mark of a bbolt database.
//!
//! Two pages hold them, written in turn, so that a torn write of one leaves the other. They are
//! the only pages with a checksum. Finding them comes first, because the second lies at a page
//! size that only the first knows.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bbolt::{Pages, read_exactly};
use super::error::{Damage, EtcdError};
use super::page::{PAGE_HEADER_BYTES, prefix, wide};

/// The smallest page size that is looked for.
pub const PAGE_BYTES_MIN: u32 = 1024;
/// The largest page size that is looked for.
pub const PAGE_BYTES_MAX: u32 = PAGE_BYTES_MIN << 14;

/// What follows the page header in a meta page.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct MetaBytes {
    /// Tells a database from other files.
    magic: U32,
    /// The version of the format.
    version: U32,
    /// Bytes of a page: the unit of every page number.
    page_bytes: U32,
    /// Unused.
    flags: U32,
    /// The root page of the tree of buckets.
    root: U64,
    /// The counter of the root bucket.
    root_sequence: U64,
    /// The page of the free list, or all ones if it is not kept.
    freelist: U64,
    /// The first page that is not in use.
    high_water: U64,
    /// The transaction that wrote this page: the larger one counts.
    txid: U64,
    /// FNV-1a of everything before it: a page torn while it was written shows here.
    checksum: U64,
}

const _: () = assert!(size_of::<MetaBytes>() == 64);

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const META_BYTES: usize = PAGE_HEADER_BYTES + size_of::<MetaBytes>();

/// The fields of a valid meta page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Bytes of a page.
    pub page_bytes: u32,
    /// The root page of the tree of buckets.
    pub root: u64,
    /// The page of the free list; `None` if it is not kept.
    pub freelist: Option<u64>,
    /// The first page that is not in use.
    pub high_water: u64,
    /// The last transaction.
    pub txid: u64,
    /// Which of the two pages this is: 0 or 1.
    pub page: u64,
}

impl Meta {
    /// The valid meta page with the larger transaction number.
    ///
    /// Takes the page size from the page at 0; if that one is damaged, looks for the second at
    /// each power of two, where it must name its own offset as the page size.
    ///
    /// # Errors
    ///
    /// [`Damage::NoMeta`] if there is none, [`Damage::Truncated`] if the file is shorter than it
    /// says, and errors of `pages`.
    pub fn find<P: Pages>(pages: &P) -> Result<Meta, P::Error> {
        let first = probe(pages, 0)?;
        let second = match first {
            // Found there, it names the same page size: see `parse`.
            Some(first) => probe(pages, u64::from(first.page_bytes))?,
            None => find_second(pages)?,
        };
        let newest = match (first, second) {
            (Some(first), Some(second)) if second.txid > first.txid => second,
            (Some(first), _) => first,
            (None, Some(second)) => second,
            (None, None) => return Err(EtcdError::new(0, Damage::NoMeta).into()),
        };
        newest.check_length(pages.size())?;
        Ok(newest)
    }

    /// The fields in `bytes`, the start of meta page 0 or 1 at `offset` of the file.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Meta, EtcdError> {
        let body = bytes.get(PAGE_HEADER_BYTES..).unwrap_or_default();
        let at = offset + wide(PAGE_HEADER_BYTES);
        let raw = prefix::<MetaBytes>(body, at)?;
        if raw.magic.get() != MAGIC {
            return Err(EtcdError::new(
                at,
                Damage::MetaMagic {
                    found: raw.magic.get(),
                },
            ));
        }
        if raw.version.get() != VERSION {
            return Err(EtcdError::new(
                at + 4,
                Damage::MetaVersion {
                    found: raw.version.get(),
                },
            ));
        }
        let covered = raw.as_bytes().get(..56).unwrap_or_default();
        let (expected, found) = (fnv1a(covered), raw.checksum.get());
        if expected != found {
            return Err(EtcdError::new(
                at + 56,
                Damage::MetaChecksum { expected, found },
            ));
        }
        let page_bytes = raw.page_bytes.get();
        let possible = (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes);
        // Page 1 lies at the page size: a copy of a meta page elsewhere is not taken for it.
        let here = offset == 0 || offset == u64::from(page_bytes);
        if !possible || !page_bytes.is_power_of_two() || !here {
            return Err(EtcdError::new(
                at + 8,
                Damage::MetaPageSize { found: page_bytes },
            ));
        }
        let freelist = raw.freelist.get();
        Ok(Meta {
            page_bytes,
            root: raw.root.get(),
            freelist: (freelist != u64::MAX).then_some(freelist),
            high_water: raw.high_water.get(),
            txid: raw.txid.get(),
            page: u64::from(offset != 0),
        })
    }

    /// Where page `id` begins in the file; `None` beyond the high-water mark.
    pub(super) fn page_offset(&self, id: u64) -> Option<u64> {
        if id >= self.high_water {
            return None;
        }
        id.checked_mul(u64::from(self.page_bytes))
    }

    /// Checks that every page below the high-water mark is in a file of `size` bytes.
    ///
    /// After this, no product of a page number below the mark and the page size overflows.
    fn check_length(&self, size: u64) -> Result<(), EtcdError> {
        let expected = self.high_water.checked_mul(u64::from(self.page_bytes));
        if expected.is_some_and(|expected| expected <= size) {
            return Ok(());
        }
        let expected = expected.unwrap_or(u64::MAX);
        Err(EtcdError::new(
            size,
            Damage::Truncated {
                expected,
                found: size,
            },
        ))
    }
}

/// The second meta page, when the first cannot tell where it is.
fn find_second<P: Pages>(pages: &P) -> Result<Option<Meta>, P::Error> {
    for shift in 0..=14 {
        if let Some(meta) = probe(pages, u64::from(PAGE_BYTES_MIN << shift))? {
            return Ok(Some(meta));
        }
    }
    Ok(None)
}

/// The meta page at `offset`, if a valid one is there; a damaged one is as good as none.
fn probe<P: Pages>(pages: &P, offset: u64) -> Result<Option<Meta>, P::Error> {
    if pages.size() < offset + wide(META_BYTES) {
        return Ok(None);
    }
    let bytes = read_exactly(pages, offset, META_BYTES)?;
    Ok(Meta::parse(bytes.as_ref(), offset).ok())
}

/// FNV-1a with 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::fnv1a;

    /// Goal: the checksum is FNV-1a, by its published values.
    #[test]
    fn fnv1a_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
