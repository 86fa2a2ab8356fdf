//! The right to change one range of a region: writing, publishing, showing the file, recycling.
//!
//! Apart from the region itself because this is the writer's half: nothing here is called by a reader.
//! The argument why readers are safe meanwhile is split in the same way: the invariants, to which
//! the numbers here refer, stand in the head of `region`; why pages may be replaced, here.
//!
//! # Thread safety
//!
//! An [`Extent`] may move between threads: a sealed piece of the log goes to the thread that shows it.
//! All that changes it takes `&mut self`, and no other extent has its bytes.
//!
//! # Invariants
//!
//! `start <= published <= floor <= end`, but for an extent over bytes that an earlier one published:
//! it has `floor == end`, so that nothing is written, until it is recycled.
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

#![expect(
    unsafe_code,
    reason = "writes memory that becomes a mapping of the file"
)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::slice;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::mm::{MapFlags, MremapFlags, MsyncFlags, ProtFlags, mremap_fixed};

use super::region::{HOLE_BYTES, NO_HOLE, Region, SHOWN, in_region};
use super::syscall;
use crate::sync::{AtomicU32, Ordering};

/// Bytes compared or copied at a time when a range is shown.
const CHUNK_BYTES: usize = 64 << 10;

/// The right to change one range of a region: the only writer of its bytes. Dropping gives the
/// right back; published bytes stay.
#[derive(Debug)]
pub struct Extent {
    pub(super) region: Arc<Region>,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The end of what this extent has published; saves `publish` the granules before it.
    pub(super) published: u64,
    /// Where writing is allowed from: the end of what is published or shown.
    pub(super) floor: u64,
}

/// Somebody's word that a range of the file is read by nobody: no slice that [`Region::bytes`] returned for it is
/// alive, and no call of it for a position in it runs or will be made before the range is published again.
#[derive(Debug)]
pub(crate) struct Unread {
    start: u64,
    end: u64,
}

impl Unread {
    /// Gives that word for `start..end`.
    ///
    /// # Safety
    ///
    /// It must be true, of the one region for whose extents it is used, until it is dropped.
    pub(crate) unsafe fn vouch(start: u64, end: u64) -> Unread {
        Unread { start, end }
    }
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

    /// Keeps 64 bytes at `offset` to be written later with [`Extent::fill_hole`], although bytes
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
        let address = self.region.address(offset);
        // SAFETY: in the region, mapped and writable: `open_hole` found it above the floor, and no
        // page that holds an open hole is shown (`check_shown`). Readers are refused these bytes
        // while the hole is open, and only `&mut self` writes here.
        let target = unsafe { slice::from_raw_parts_mut(address, bytes.len()) };
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
        let size = self.region.granule_bytes();
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
        // What has just been read to be compared is cached: mapped all at once, it costs a reader no
        // fault for each part. A hint, too.
        let compared = self.published.min(end).saturating_sub(offset);
        let _ = shown.advise_range(Advice::PopulateRead, 0, in_region(compared));
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

    /// Recycles the extent, of which somebody has vouched that nobody reads it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the word is for another range, else as [`Extent::recycle`].
    pub(crate) fn empty(&mut self, unread: &Unread) -> io::Result<()> {
        if unread.start > self.start || self.end > unread.end {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: what `recycle` asks for is what was vouched for, for this range.
        unsafe { self.recycle() }
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
            if granule < end && granule + self.region.granule_bytes() > offset {
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
        let starts = (self.start..).step_by(in_region(self.region.granule_bytes()));
        starts.zip(self.words())
    }

    fn words(&self) -> &[AtomicU32] {
        self.region.words(self.start, self.end)
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.region.give_back(self.start);
    }
}

/// Ends the process if a page of the range is not mapped, after a call that should have replaced
/// it. Any later allocation could land in such a hole, and readers and `Drop` would take it for
/// the region's.
fn abort_if_hole(target: *mut c_void, len: usize) {
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
    #[cfg_attr(miri, ignore = "files cannot be mapped there")]
    fn a_recycled_extent_is_written_and_shown_again() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(GRANULE).expect("lengthened");
        let region = region();
        let mut extent = region.claim(0, GRANULE).expect("free");
        for round in 1..=3 {
            let bytes = vec![round; in_region(GRANULE)];
            extent.write(0, &bytes).expect("plain memory");
            file.write_all_at(&bytes, 0).expect("written");
            extent.publish(GRANULE);
            extent.show_file(&file, 0, GRANULE).expect("shown");
            assert_eq!(region.bytes(0, bytes.len()), Some(&bytes[..]));
            // SAFETY: no slice is alive, and there is no other thread.
            unsafe { extent.recycle() }.expect("a little memory");
            assert_eq!(
                extent.bytes(0, bytes.len()),
                Some(&vec![0; bytes.len()][..])
            );
        }
    }
}
