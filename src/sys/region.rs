//! Reserved address space whose byte i is the store file's byte i.
//!
//! A piece of the log that is still being written is plain memory, at its own place in the region.
//! When it is sealed, its pages are replaced by a mapping of the file, whose bytes are the same: an
//! address never changes, and slices that readers hold stay valid. So there is no ring to copy out
//! of, and a reader does not ask whether a byte is in memory or in the file. Apart because it hands
//! out memory; it must not know what the bytes mean, nor which of them a crash leaves.
//!
//! # Thread safety
//!
//! [`Region`] is shared by all: [`Region::bytes`] takes no lock. An [`Extent`] is the right to change
//! one range; it is not `Clone`, and `claim` gives out no range twice, so each byte has at most one
//! writer. `publish` stores with Release what `bytes` loads with Acquire: whoever sees the mark
//! sees the bytes below it.
//!
//! # Invariants
//!
//! 1. The whole range is mapped from `reserve` to `Drop`: plain memory at first, which reads as
//!    zero and may always be read.
//! 2. `bytes` hands out only bytes below the published mark of their granule; an extent writes only
//!    at or above its `floor`, which is never below a published or shown byte. So nobody writes what
//!    anybody may read.
//!    The one exception is the hole: the bytes of a header that is written after what follows it. It
//!    is kept out of `bytes` while it is open, see [`Extent::open_hole`].
//! 3. A mark goes back only in [`Extent::recycle`], which is why that is `unsafe`.
//! 4. `show` may change how published bytes are backed, never what they are: it compares the file's
//!    bytes with them first.
//!
//! # What cannot be proven
//!
//! That nobody changes or cuts the file behind shown, published bytes. The engine does not: such
//! bytes are on disk for good until their extent is recycled. Another process that writes to them
//! changes bytes under a slice, and one that cuts the file turns an access into SIGBUS. So does a
//! disk that cannot read a page that has left the page cache. Memory behind the shown part is
//! plain, so reading there is no fault whatever the file's length.

#![expect(
    clippy::disallowed_types,
    reason = "claims of address space, made by the writer"
)]
#![expect(unsafe_code, reason = "slices of memory whose backing changes")]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::extent::Extent;
use super::syscall;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Less address space than this is not worth opening with; also where halving ends.
const RESERVED_BYTES_MIN: u64 = 64 << 20;

/// Marks and the flag below share 32 bits, so a granule is at most 1 GiB.
const GRANULE_BYTES_MAX: u64 = 1 << 30;

/// In a granule's word: some page of it shows the file. The other bits are its published bytes.
pub(super) const SHOWN: u32 = 1 << 31;

/// Length of a hole: a header that is written after the bytes that follow it.
pub(super) const HOLE_BYTES: u64 = 64;

/// No hole is open.
pub(super) const NO_HOLE: u64 = u64::MAX;

/// Address space for one store file.
pub struct Region {
    memory: MmapRaw,
    /// `memory.len()`, a multiple of the granule.
    len: u64,
    granule_bytes: u64,
    /// One word for each granule: how many bytes from its start are published, and [`SHOWN`].
    /// Changed only through the extent that holds the granule.
    words: Box<[AtomicU32]>,
    /// Where the open hole begins; [`NO_HOLE`] when there is none.
    pub(super) hole: AtomicU64,
    /// Start and end of each extent that is given out.
    claims: Mutex<BTreeMap<u64, u64>>,
}

impl Region {
    /// Reserves addresses for the file's first `bytes_max` bytes, or for less, halving while the
    /// system refuses, but not below 64 MiB unless `bytes_max` itself is. No memory is used yet.
    ///
    /// A granule is the unit in which ranges are claimed and published, a power of two.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a granule that is no power of two, smaller than a page or larger than
    /// 1 GiB; `OutOfMemory` if the system refuses even the least.
    pub fn reserve(bytes_max: u64, granule_bytes: u64) -> io::Result<Arc<Region>> {
        let fits = granule_bytes.is_power_of_two()
            && (syscall::page_size()..=GRANULE_BYTES_MAX).contains(&granule_bytes);
        if !fits || bytes_max < granule_bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut len = bytes_max;
        loop {
            len -= len % granule_bytes;
            match reserve_memory(len) {
                Ok(memory) => return Ok(Arc::new(Region::over(memory, len, granule_bytes))),
                Err(_) if len / 2 >= RESERVED_BYTES_MIN.max(granule_bytes) => len /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    fn over(memory: MmapRaw, len: u64, granule_bytes: u64) -> Region {
        let granules =
            usize::try_from(len / granule_bytes).expect("fewer than the bytes, which are mapped");
        Region {
            memory,
            len,
            granule_bytes,
            words: zeroed_words(granules),
            hole: AtomicU64::new(NO_HOLE),
            claims: Mutex::new(BTreeMap::new()),
        }
    }

    /// Bytes reserved: positions of the file below this one have an address.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never true: a region has at least one granule.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Published bytes, without a copy. `None` if any of the range is not published.
    pub fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        if !self.is_published(offset, end) {
            return None;
        }
        // Acquire, and after the marks were loaded: pairs with the Release of `open_hole`, which comes
        // before the mark passes that hole, and of `fill_hole`, which comes after the hole's bytes.
        // So a header below the marks seen here is the hole seen here, or it is written.
        let hole = self.hole.load(Ordering::Acquire);
        if hole < end && offset < hole.saturating_add(HOLE_BYTES) {
            return None;
        }
        // SAFETY: the range lies in the region, as only bytes of the region are published, so it
        // is mapped while `self` lives (invariant 1) and initialized (memory of the system is).
        // Nobody writes published bytes (2), replacing their pages keeps what they are (4), and
        // whoever makes them unpublished owes that this slice is gone (3).
        Some(unsafe { slice::from_raw_parts(self.address(offset), len) })
    }

    /// Is every byte of `offset..end` published?
    pub fn is_published(&self, offset: u64, end: u64) -> bool {
        let mut at = offset;
        loop {
            let Some(word) = self.word(at) else {
                return false;
            };
            // Acquire: pairs with the Release of `publish`, so the bytes are seen with the mark.
            let published = u64::from(word.load(Ordering::Acquire) & !SHOWN);
            let granule = at - at % self.granule_bytes;
            if end <= granule + published {
                return true;
            }
            // Long records span granules; any but the last must be published whole.
            if published < self.granule_bytes {
                return false;
            }
            at = granule + self.granule_bytes;
        }
    }

    /// Takes the right to change a range of whole granules. `None` if it is not such a range of the
    /// region, or if any of it is claimed.
    ///
    /// A range that has published or shown bytes can be claimed too, but only
    /// [recycled](Extent::recycle).
    pub fn claim(self: &Arc<Region>, offset: u64, len: u64) -> Option<Extent> {
        let end = offset.checked_add(len)?;
        let whole =
            offset.is_multiple_of(self.granule_bytes) && len.is_multiple_of(self.granule_bytes);
        if !whole || len == 0 || end > self.len {
            return None;
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let before = claims.range(..end).next_back();
        if before.is_some_and(|(_, &claimed_end)| claimed_end > offset) {
            return None;
        }
        claims.insert(offset, end);
        drop(claims);
        let region = Arc::clone(self);
        // Acquire: pairs with the Release of an earlier extent's `publish`.
        let used = self
            .words(offset, end)
            .iter()
            .any(|word| word.load(Ordering::Acquire) != 0);
        let floor = if used { end } else { offset };
        Some(Extent {
            region,
            start: offset,
            end,
            published: offset,
            floor,
        })
    }

    /// Asks the processor to bring a byte's cache line, before it is needed. Nothing happens for a
    /// position outside.
    pub fn prefetch(&self, offset: u64) {
        if offset >= self.len {
            return;
        }
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint that reads nothing into the program; the address is ours besides.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.address(offset).cast::<i8>()) };
        }
    }

    /// Asks the system to read a shown range from disk, without waiting. A hint.
    pub fn read_ahead(&self, offset: u64, len: u64) {
        self.advise(Advice::WillNeed, offset, len);
    }

    /// Brings a range into memory and waits for it, so that no access to it faults soon after; a
    /// page that cannot be read is left to whoever reads it. A hint, on kernels that know it.
    pub fn populate(&self, offset: u64, len: u64) {
        self.advise(Advice::PopulateRead, offset, len);
    }

    fn advise(&self, advice: Advice, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        if offset < end && !cfg!(miri) {
            // A hint that the system cannot follow is no failure.
            let _ = self
                .memory
                .advise_range(advice, in_region(offset), in_region(end - offset));
        }
    }

    /// The word of the granule in which a byte lies.
    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        // The shift is a division by the granule, a power of two.
        let granule = offset >> self.granule_bytes.trailing_zeros();
        self.words.get(usize::try_from(granule).ok()?)
    }

    /// The words of a range of whole granules.
    pub(super) fn words(&self, start: u64, end: u64) -> &[AtomicU32] {
        let granule = |offset: u64| in_region(offset / self.granule_bytes);
        &self.words[granule(start)..granule(end)]
    }

    pub(super) fn granule_bytes(&self) -> u64 {
        self.granule_bytes
    }

    /// Ends the claim that starts here.
    pub(super) fn give_back(&self, start: u64) {
        self.claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&start);
    }

    /// Where a byte lies. Within the region for positions up to its length; forming an address
    /// is safe for any.
    pub(super) fn address(&self, offset: u64) -> *mut u8 {
        self.memory.as_mut_ptr().wrapping_add(in_region(offset))
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("len", &self.len)
            .field("granule_bytes", &self.granule_bytes)
            .finish_non_exhaustive()
    }
}

/// A position or length that is known to lie in a region.
pub(super) fn in_region(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a region fits the address space")
}

/// Plain memory that takes no space before it is written.
fn reserve_memory(len: u64) -> io::Result<MmapRaw> {
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut options = MmapOptions::new();
    options.len(len);
    if !cfg!(miri) {
        options.no_reserve_swap();
    }
    Ok(options.map_anon()?.into())
}

/// Words of zeros.
#[cfg(any(loom, shuttle))]
fn zeroed_words(count: usize) -> Box<[AtomicU32]> {
    (0..count).map(|_| AtomicU32::new(0)).collect()
}

/// Words of zeros. As integers first: the allocator has zeroed memory without touching it, and
/// there may be millions of words.
#[cfg(not(any(loom, shuttle)))]
fn zeroed_words(count: usize) -> Box<[AtomicU32]> {
    let words = Box::into_raw(vec![0_u32; count].into_boxed_slice());
    // SAFETY: the box was just taken apart, and nothing else points to it. An atomic integer has
    // the size, alignment and values of its integer.
    unsafe { Box::from_raw(words as *mut [AtomicU32]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANULE: u64 = 64 << 10;

    #[test]
    fn no_byte_has_two_writers() {
        let region = Region::reserve(8 * GRANULE, GRANULE).expect("half a megabyte");
        let extent = region.claim(2 * GRANULE, 2 * GRANULE).expect("free");
        assert!(region.claim(2 * GRANULE, GRANULE).is_none());
        assert!(region.claim(3 * GRANULE, GRANULE).is_none());
        assert!(region.claim(0, 8 * GRANULE).is_none());
        assert!(region.claim(0, 2 * GRANULE).is_some());
        assert!(region.claim(4 * GRANULE, GRANULE).is_some());
        drop(extent);
        assert!(region.claim(3 * GRANULE, GRANULE).is_some());
        for (offset, len) in [
            (1, GRANULE),
            (0, 1),
            (0, 0),
            (8 * GRANULE, GRANULE),
            (0, u64::MAX),
        ] {
            assert!(region.claim(offset, len).is_none(), "{offset} {len}");
        }
    }

    #[test]
    fn refuses_a_granule_that_cannot_be_marked() {
        for granule in [0, 1, 3 << 12, 2 << 30] {
            let error = Region::reserve(8 << 30, granule).expect_err("no such granule");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{granule}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "no lazily mapped memory there")]
    fn reserving_halves_until_the_system_agrees() {
        // No address space of 47 bits has room for this.
        let region = Region::reserve(1 << 50, 1 << 30).expect("less is left");
        assert!(region.len() >= RESERVED_BYTES_MIN);
        assert!(region.len() < 1 << 50);
        region.prefetch(0);
        region.prefetch(u64::MAX);
        region.populate(0, 4096);
        region.read_ahead(u64::MAX, u64::MAX);
    }
}
