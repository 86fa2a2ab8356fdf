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
//! # Why replacing pages under readers is right
//!
//! The file is first mapped at some other address; whatever can fail because of the file or its
//! filesystem fails there, with the region untouched. Then `mremap` moves this mapping over the
//! plain pages. The kernel drops the old pages and moves the new ones while it holds the
//! process's mapping lock for writing. An access that finds no page meanwhile faults, and the fault
//! takes that lock for reading, so it waits and then finds the new page: no access sees the address
//! unmapped. The page that it finds is the file's page cache, which holds what `write_at` put there.
//! If the move fails, it does so before anything is dropped (too many mappings, address limit), or
//! (in theory: no kernel memory for one small object) after; then a hole is left, and the process
//! aborts, as it would on a crash, rather than leave a hole for foreign memory to appear in.
//!
//! # What cannot be proven
//!
//! That nobody else changes or cuts the file: another process that writes to it changes bytes under
//! a slice, and one that cuts it turns an access into SIGBUS. So does a disk that cannot read a page
//! that has left the page cache. Memory behind the shown part is plain, so reading there is no fault
//! whatever the file's length.

#![expect(unsafe_code, reason = "slices of memory whose backing changes")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::mm::{MapFlags, MremapFlags, MsyncFlags, ProtFlags, mremap_fixed};

use super::syscall;

/// Less address space than this is not worth opening with; also where halving ends.
const RESERVED_BYTES_MIN: u64 = 64 << 20;

/// Marks and the flag below share 32 bits, so a granule is at most 1 GiB.
const GRANULE_BYTES_MAX: u64 = 1 << 30;

/// In a granule's word: some page of it shows the file. The other bits are its published bytes.
const SHOWN: u32 = 1 << 31;

/// Length of a hole: a header that is written after the bytes that follow it.
pub const HOLE_BYTES: u64 = 64;

/// No hole is open.
const NO_HOLE: u64 = u64::MAX;

/// Bytes compared or copied at a time when a range is shown.
const CHUNK_BYTES: usize = 64 << 10;

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
    hole: AtomicU64,
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
        // before the mark passes that hole, and of `fill_hole`, which comes after the hole's bytes. So
        // a header below the marks that we have seen is either the hole we see here, or written.
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
        let mut extent = Extent {
            region,
            start: offset,
            end,
            published: offset,
            floor: offset,
        };
        // Acquire: pairs with the Release of an earlier extent's `publish`.
        if extent
            .words()
            .iter()
            .any(|word| word.load(Ordering::Acquire) != 0)
        {
            extent.floor = end;
        }
        Some(extent)
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

    /// Where a byte lies. Within the region for positions up to its length; forming an address
    /// is safe for any.
    fn address(&self, offset: u64) -> *mut u8 {
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

/// The right to change one range of a region: the only writer of its bytes. Dropping gives the
/// right back; published bytes stay.
#[derive(Debug)]
pub struct Extent {
    region: Arc<Region>,
    start: u64,
    end: u64,
    /// The end of what this extent has published; saves `publish` the granules before it.
    published: u64,
    /// Where writing is allowed from: the end of what is published or shown.
    floor: u64,
}

impl Extent {
    /// The file position of the first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The file position behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// From where on bytes may be written: the end of what is published or shown.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Bytes of the extent, published or not: what has been written, zeros elsewhere.
    pub fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.contains(offset, len, self.start)?;
        // SAFETY: in the region, mapped and initialized (invariant 1). Only this extent writes
        // here, and only through `&mut self`, so not while the slice borrows `self`.
        Some(unsafe { slice::from_raw_parts(self.region.address(offset), len) })
    }

    /// Bytes to be written: none of them published or shown.
    pub fn slice_mut(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
        self.contains(offset, len, self.floor)?;
        // SAFETY: in the region, mapped, initialized and writable: at or above `floor` nothing is
        // shown. Nobody else reads there, as nothing is published (invariant 2), or writes, as
        // the extent is the only one over these bytes; its own slices borrow `self`.
        Some(unsafe { slice::from_raw_parts_mut(self.region.address(offset), len) })
    }

    /// Copies bytes in. `None`, and nothing is written, if any byte lies outside or below the floor.
    #[must_use]
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Option<()> {
        self.slice_mut(offset, bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    /// Keeps [`HOLE_BYTES`] at `offset` to be written later with [`Extent::fill_hole`], although bytes
    /// behind them are published meanwhile. `None` when any of them is published or outside, or a
    /// hole of the region is open already.
    #[must_use]
    pub fn open_hole(&mut self, offset: u64) -> Option<()> {
        self.contains(offset, in_region(HOLE_BYTES), self.floor)?;
        // Release: whoever sees a mark beyond the hole, which `publish` stores later, sees the hole.
        let opened = self.region.hole.compare_exchange(
            NO_HOLE,
            offset,
            Ordering::Release,
            Ordering::Relaxed,
        );
        opened.is_ok().then_some(())
    }

    /// Writes the bytes of the open hole and closes it. `None` when none is open in this extent.
    #[must_use]
    pub fn fill_hole(&mut self, bytes: &[u8; 64]) -> Option<()> {
        let offset = self.region.hole.load(Ordering::Relaxed);
        if offset == NO_HOLE {
            return None;
        }
        self.contains(offset, bytes.len(), self.start)?;
        // SAFETY: in the region, mapped and writable: `open_hole` found it above the floor, and
        // nothing below a floor that moved over it meanwhile is shown before the hole is filled
        // (`check_shown`). Readers are refused these bytes while the hole is open, and only `&mut self`
        // writes here.
        let target =
            unsafe { slice::from_raw_parts_mut(self.region.address(offset), bytes.len()) };
        target.copy_from_slice(bytes);
        // Release: whoever no longer sees the hole sees its bytes.
        self.region.hole.store(NO_HOLE, Ordering::Release);
        Some(())
    }

    /// Lets readers see every byte of the extent below `end`, for ever; they are never written
    /// again.
    ///
    /// # Panics
    ///
    /// If `end` lies outside the extent.
    pub fn publish(&mut self, end: u64) {
        assert!(
            (self.start..=self.end).contains(&end),
            "publishes bytes of another extent"
        );
        let size = self.region.granule_bytes;
        let done = in_region((self.published - self.start) / size);
        for (granule, word) in self
            .granules()
            .skip(done)
            .take_while(|&(start, _)| start < end)
        {
            let bytes = (end - granule).min(size);
            let bytes = u32::try_from(bytes).expect("a granule is at most 1 GiB");
            // Only this extent changes the word, so loading and storing apart loses nothing.
            let old = word.load(Ordering::Relaxed);
            if bytes > old & !SHOWN {
                // Release: pairs with the Acquire of `is_published`; the bytes come first.
                word.store(old & SHOWN | bytes, Ordering::Release);
            }
        }
        self.published = self.published.max(end);
        self.floor = self.floor.max(end);
    }

    /// Makes whole pages show the file, by mapping it there. Published bytes must be the file's.
    pub(super) fn show_file(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if cfg!(miri) {
            return self.show_copy(offset, len, |buf, at| file.read_exact_at(buf, at));
        }
        let end = self.check_shown(offset, len)?;
        if end == offset {
            return Ok(());
        }
        // A page behind the end of the file cannot be read, so none is ever shown.
        if end > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.compare_published(offset, end, |buf, at| file.read_exact_at(buf, at))?;
        let shown = MmapOptions::new()
            .offset(offset)
            .len(in_region(len))
            .no_reserve_swap()
            .map_raw_read_only(file)?;
        // Readers jump about: reading 128 KiB around each fault would be waste. A hint.
        let _ = shown.advise(Advice::Random);
        self.move_here(shown, offset)?;
        self.set_shown(offset, end);
        Ok(())
    }

    /// Makes whole pages show a file that cannot be mapped: unpublished bytes are read into the
    /// region, published ones must be the same already.
    pub(super) fn show_copy(
        &mut self,
        offset: u64,
        len: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = self.check_shown(offset, len)?;
        self.compare_published(offset, end, &mut read)?;
        let from = self.floor.max(offset);
        if from < end {
            let target = self
                .slice_mut(from, in_region(end - from))
                .expect("checked, above floor");
            read(target, from)?;
        }
        self.set_shown(offset, end);
        Ok(())
    }

    /// Makes the extent plain, empty memory again, for another use of this part of the file.
    ///
    /// # Errors
    ///
    /// If the system has no memory; nothing is published then, and the extent can be recycled
    /// again but not written.
    ///
    /// # Safety
    ///
    /// No slice that [`Region::bytes`] returned for this extent is alive, and no call of it for a
    /// position in this extent runs at the same time: whoever could still know such a position has
    /// been waited for.
    pub unsafe fn recycle(&mut self) -> io::Result<()> {
        self.floor = self.end;
        for (_, word) in self.granules() {
            // Keeps the flag until the pages are plain again. Release, so that no later write to
            // the bytes is seen by a thread that still sees the mark.
            word.store(SHOWN, Ordering::Release);
        }
        if cfg!(miri) {
            self.floor = self.start;
            self.slice_mut(self.start, in_region(self.end - self.start))
                .expect("its own bytes, above the floor")
                .fill(0);
        } else {
            self.map_plain()?;
        }
        for (_, word) in self.granules() {
            word.store(0, Ordering::Release);
        }
        self.published = self.start;
        self.floor = self.start;
        Ok(())
    }

    /// Puts a mapping over the pages at `offset`.
    fn move_here(&mut self, shown: MmapRaw, offset: u64) -> io::Result<()> {
        let len = shown.len();
        let source = shown.as_mut_ptr().cast();
        let target = self.region.address(offset).cast();
        // SAFETY: the source is our own whole mapping, which nothing refers to. The target is
        // `len` bytes of whole pages of the region (`check_shown`). Slices of it may be alive: for
        // those the argument in the file's head holds; published bytes have been compared.
        let moved = unsafe { mremap_fixed(source, len, len, MremapFlags::MAYMOVE, target) };
        match moved {
            Ok(_) => {
                // It lies in the region now, which unmaps it.
                mem::forget(shown);
                Ok(())
            }
            Err(error) => {
                abort_if_hole(target, len);
                Err(error.into())
            }
        }
    }

    /// Puts plain zero pages over the whole extent.
    fn map_plain(&mut self) -> io::Result<()> {
        let len = in_region(self.end - self.start);
        let target = self.region.address(self.start).cast();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: whole pages of the region; no slice of them is alive: the caller of `recycle`
        // owes that for readers, and `&mut self` shows it for the extent's own.
        let mapped = unsafe { rustix::mm::mmap_anonymous(target, len, protection, flags) };
        if let Err(error) = mapped {
            abort_if_hole(target, len);
            return Err(error.into());
        }
        Ok(())
    }

    /// The end of a range that may be shown: whole pages of this extent.
    fn check_shown(&self, offset: u64, len: u64) -> io::Result<u64> {
        let page = syscall::page_size();
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let pages = offset.is_multiple_of(page) && len.is_multiple_of(page);
        let hole = self.region.hole.load(Ordering::Relaxed);
        let open = hole < end && offset < hole.saturating_add(HOLE_BYTES);
        if !pages || open || offset < self.start || end > self.end {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(end)
    }

    /// Compares the published bytes of a range with the file's.
    fn compare_published(
        &self,
        offset: u64,
        end: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        for (granule, word) in self.granules() {
            let published = u64::from(word.load(Ordering::Relaxed) & !SHOWN);
            let end = end.min(granule + published);
            let mut at = offset.max(granule);
            while at < end {
                let len = in_region(end - at).min(CHUNK_BYTES);
                read(&mut chunk[..len], at)?;
                if self.bytes(at, len) != Some(&chunk[..len]) {
                    let what = "the file does not hold the bytes that were published";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                at += len as u64;
            }
        }
        Ok(())
    }

    fn set_shown(&mut self, offset: u64, end: u64) {
        for (granule, word) in self.granules() {
            if granule < end && granule + self.region.granule_bytes > offset {
                word.fetch_or(SHOWN, Ordering::Release);
            }
        }
        self.floor = self.floor.max(end);
    }

    /// `Some` if the range lies in the extent, at or above `from`.
    fn contains(&self, offset: u64, len: usize, from: u64) -> Option<()> {
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        (offset >= from && end <= self.end).then_some(())
    }

    /// The extent's granules: where each starts, and its word.
    fn granules(&self) -> impl Iterator<Item = (u64, &AtomicU32)> {
        let starts = (self.start..).step_by(in_region(self.region.granule_bytes));
        starts.zip(self.words())
    }

    fn words(&self) -> &[AtomicU32] {
        let granule = |offset: u64| in_region(offset / self.region.granule_bytes);
        &self.region.words[granule(self.start)..granule(self.end)]
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        let mut claims = self
            .region
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        claims.remove(&self.start);
    }
}

/// A position or length that is known to lie in a region.
fn in_region(bytes: u64) -> usize {
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

/// Words of zeros. As integers first: the allocator has zeroed memory without touching it, and
/// there may be millions of words.
fn zeroed_words(count: usize) -> Box<[AtomicU32]> {
    let words = Box::into_raw(vec![0_u32; count].into_boxed_slice());
    // SAFETY: the box was just taken apart, and nothing else points to it. An atomic integer has
    // the size, alignment and values of its integer.
    unsafe { Box::from_raw(words as *mut [AtomicU32]) }
}

/// Ends the process if a page of the range is not mapped, after a call that should have replaced
/// it. Any later allocation could land in such a hole, and readers and `Drop` would take it for
/// the region's.
fn abort_if_hole(target: *mut std::ffi::c_void, len: usize) {
    // SAFETY: asks for no write; of pages that are not mapped the call says so and does nothing.
    let mapped = unsafe { rustix::mm::msync(target, len, MsyncFlags::ASYNC) };
    if mapped.is_err() {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANULE: u64 = 64 << 10;

    fn region() -> Arc<Region> {
        Region::reserve(8 * GRANULE, GRANULE).expect("half a megabyte")
    }

    /// A file that cannot be mapped, all of one byte.
    fn all(byte: u8) -> impl FnMut(&mut [u8], u64) -> io::Result<()> {
        move |buf, _| {
            buf.fill(byte);
            Ok(())
        }
    }

    #[test]
    fn only_published_bytes_are_handed_out() {
        let region = region();
        let mut extent = region.claim(GRANULE, 2 * GRANULE).expect("free");
        assert_eq!(region.bytes(GRANULE, 1), None);
        extent.write(GRANULE, b"revision").expect("in the extent");
        assert_eq!(extent.bytes(GRANULE, 8), Some(&b"revision"[..]));
        assert_eq!(region.bytes(GRANULE, 8), None);
        extent.publish(GRANULE + 8);
        assert_eq!(region.bytes(GRANULE, 8), Some(&b"revision"[..]));
        assert_eq!(region.bytes(GRANULE + 3, 5), Some(&b"ision"[..]));
        assert_eq!(region.bytes(GRANULE, 9), None);
        assert_eq!(region.bytes(GRANULE - 1, 2), None);
        assert_eq!(region.bytes(u64::MAX, 1), None);
        assert_eq!(region.bytes(u64::MAX - 1, usize::MAX), None);
        assert_eq!(region.bytes(8 * GRANULE, 0), None);
    }

    #[test]
    fn published_bytes_cannot_be_written() {
        let region = region();
        let mut extent = region.claim(0, GRANULE).expect("free");
        extent.publish(100);
        assert_eq!(extent.write(99, b"x"), None);
        assert_eq!(extent.write(100, b"x"), Some(()));
        assert_eq!(extent.write(GRANULE, b"x"), None);
        assert_eq!(extent.write(GRANULE - 1, b"xy"), None);
        extent.publish(50);
        assert_eq!(extent.floor(), 100);
        assert_eq!(region.bytes(0, 100), Some(&[0; 100][..]));
    }

    #[test]
    fn a_slice_may_span_granules() {
        let region = region();
        let mut extent = region.claim(2 * GRANULE, 3 * GRANULE).expect("free");
        let at = 3 * GRANULE - 2;
        extent.write(at, b"long").expect("in the extent");
        extent.publish(at + 1);
        assert_eq!(region.bytes(at, 2), None);
        extent.publish(at + 3);
        assert_eq!(region.bytes(at, 3), Some(&b"lon"[..]));
        assert_eq!(region.bytes(at, 4), None);
        extent.publish(5 * GRANULE);
        assert_eq!(region.bytes(at, 4), Some(&b"long"[..]));
        let all = region
            .bytes(2 * GRANULE, in_region(3 * GRANULE))
            .expect("all published");
        assert_eq!(all.len(), 3 << 16);
        assert_eq!(region.bytes(2 * GRANULE, in_region(3 * GRANULE) + 1), None);
    }

    #[test]
    fn no_byte_has_two_writers() {
        let region = region();
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
    fn what_was_published_stays_closed_to_the_next_writer_until_recycled() {
        let region = region();
        let mut extent = region.claim(0, 2 * GRANULE).expect("free");
        extent.write(0, b"old").expect("in the extent");
        extent.publish(3);
        drop(extent);
        let mut extent = region.claim(0, 2 * GRANULE).expect("given back");
        assert_eq!(extent.write(GRANULE, b"x"), None);
        assert_eq!(region.bytes(0, 3), Some(&b"old"[..]));
        // SAFETY: no slice is alive, and there is no other thread.
        unsafe { extent.recycle() }.expect("a little memory");
        assert_eq!(region.bytes(0, 3), None);
        assert_eq!(extent.bytes(0, 3), Some(&[0; 3][..]));
        extent.write(0, b"new").expect("empty again");
        extent.publish(3);
        assert_eq!(region.bytes(0, 3), Some(&b"new"[..]));
    }

    #[test]
    fn a_copied_show_fills_what_is_not_published() {
        let region = region();
        let page = syscall::page_size();
        let mut extent = region.claim(0, GRANULE).expect("free");
        extent.write(0, &[7; 10]).expect("in the extent");
        extent.publish(10);
        extent.show_copy(0, page, all(7)).expect("the same bytes");
        assert_eq!(extent.floor(), page);
        extent.publish(page);
        assert_eq!(
            region.bytes(0, in_region(page)),
            Some(&vec![7; in_region(page)][..])
        );
        let error = extent
            .show_copy(0, 2 * page, all(8))
            .expect_err("other bytes");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(extent.floor(), page);
    }

    #[test]
    fn shows_only_whole_pages_of_the_extent() {
        let region = region();
        let page = syscall::page_size();
        let mut extent = region.claim(GRANULE, GRANULE).expect("free");
        for (offset, len) in [
            (GRANULE + 1, page),
            (GRANULE, page - 1),
            (0, page),
            (GRANULE, GRANULE + page),
        ] {
            let error = extent
                .show_copy(offset, len, all(0))
                .expect_err("not whole, not ours");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset} {len}");
        }
    }

    #[test]
    fn a_reader_thread_sees_the_bytes_below_the_mark() {
        let region = region();
        let mut extent = region.claim(0, GRANULE).expect("free");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < 64 {
                    while let Some(bytes) = region.bytes(seen, 1) {
                        assert_eq!(u64::from(bytes[0]), seen + 1);
                        seen += 1;
                    }
                    std::thread::yield_now();
                }
            });
            for at in 0..64_u8 {
                extent
                    .write(u64::from(at), &[at + 1])
                    .expect("above the floor");
                extent.publish(u64::from(at) + 1);
            }
        });
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
