#![expect(
    unsafe_code,
    reason = "tables are replaced under readers and freed by epoch"
)]
//! Points: a hash table from a key's hash to its id, read without locks.
//!
//! Apart because of its unsafe code. It must not know keys: a slot holds 32 bits of the hash, and
//! whoever asks compares the key of each id that is offered.
//!
//! *Thread safety*: [`Map`] is read by any thread that holds a [`Guard`]. There is one
//! [`MapWriter`] for a map, made together with it.
//!
//! *Invariants*
//! 1. A slot is 0, or `hash << 32 | id + 1`, or [`GONE`], and changes in this order only. A probe ends at 0 and goes
//!    on over `GONE`: other entries lie behind it. Marks are left behind when the table is replaced.
//! 2. Every table keeps at least a quarter of its slots empty, so that a probe ends.
//! 3. While `current.previous` is not null, the previous table is complete up to the moment growth
//!    began and frozen but for marks; every later entry is in `current`.
//! 4. `previous` becomes null only after all that the previous table held is in `current`.
//! 5. A table is freed by epoch after it has become unreachable; `current` and its `previous` are
//!    reachable.
//!
//! A reader therefore loads `current`, then `previous`, and only then probes, first one and then
//! the other. Were `previous` loaded after probing `current`, the writer could move the entry
//! between the two and both looks would miss it.

use std::ptr;
use std::sync::Arc;

use super::KeyId;
use super::epoch::{Guard, pin};
use super::meter::Meter;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// The readers' side.
pub(super) struct Map {
    current: AtomicPtr<Table>,
    meter: Meter,
}

/// The writer's side: knows how full the table is, and how far growth has come.
pub(super) struct MapWriter {
    map: Arc<Map>,
    /// Slots of the current table that are not empty, or will not be when all has been copied: entries and marks.
    used: usize,
    /// Entries.
    held: usize,
    /// Slots of the previous table that have been copied, if there is one.
    moved: usize,
}

struct Table {
    slots: Box<[AtomicU64]>,
    bits: u32,
    previous: AtomicPtr<Table>,
    #[cfg(loom)]
    canary: super::canary::Canary,
}

// SAFETY: without the canary it would be `Sync` by itself; loom checks the canary's own accesses.
#[cfg(loom)]
unsafe impl Sync for Table {}

impl Map {
    /// An empty map with room for `keys` before it grows.
    pub(super) fn with_room(keys: usize, meter: Meter) -> (Arc<Map>, MapWriter) {
        let mut bits = FIRST_BITS;
        while room(bits) < keys && bits < BITS_MAX {
            bits += 1;
        }
        let current = AtomicPtr::new(Table::allocate(bits, ptr::null_mut(), &meter));
        let map = Arc::new(Map { current, meter });
        (
            Arc::clone(&map),
            MapWriter {
                map,
                used: 0,
                held: 0,
                moved: 0,
            },
        )
    }

    /// Offers the ids whose hash is `hash` until `matches` answers with a value.
    pub(super) fn find<T, E>(
        &self,
        hash: u32,
        guard: &Guard,
        mut matches: impl FnMut(KeyId) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let (current, previous) = self.tables(guard);
        if let Some(found) = current.probe(hash, &mut matches)? {
            return Ok(Some(found));
        }
        match previous {
            Some(table) => table.probe(hash, &mut matches),
            None => Ok(None),
        }
    }

    /// Visits every entry, some of them twice.
    pub(super) fn each(&self, guard: &Guard, mut visit: impl FnMut(u32, KeyId)) {
        let (current, previous) = self.tables(guard);
        for table in previous.into_iter().chain([current]) {
            for slot in &table.slots {
                if let Some((hash, id)) = unpack(slot.load(Ordering::Acquire)) {
                    visit(hash, id);
                }
            }
        }
    }

    /// Current and previous table, in the order that invariant 4 asks for.
    fn tables<'g>(&'g self, _guard: &'g Guard) -> (&'g Table, Option<&'g Table>) {
        // Acquire: pairs with the Release in `MapWriter::grow`; the table's fields are visible.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: not null from construction on, and by invariant 5 alive for the pin's lifetime,
        // unless the map itself is dropped, which is borrowed as long.
        let current = unsafe { &*current };
        current.check();
        // Acquire: pairs with the Release in `MapWriter::advance`; if null, every entry that the
        // previous table had is visible in this one.
        let previous = current.previous.load(Ordering::Acquire);
        // SAFETY: null, or reachable after the pin was made, so alive as long as `current`.
        let previous = unsafe { previous.as_ref() };
        previous.inspect(|table| table.check());
        (current, previous)
    }
}

impl MapWriter {
    /// Adds an id. The caller has stored its head: the Release makes both visible together.
    pub(super) fn insert(&mut self, hash: u32, id: KeyId) {
        let guard = pin();
        self.advance(GROWTH_STEP, &guard);
        if self.used >= room(self.map.tables(&guard).0.bits) {
            self.grow(&guard);
        }
        self.map.tables(&guard).0.insert(hash, id);
        self.used += 1;
        self.held += 1;
    }

    /// Takes an id out. Who looked for it before may still find it, as long as his pin lasts.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub(super) fn remove(&mut self, hash: u32, id: KeyId) {
        let guard = pin();
        let (current, previous) = self.map.tables(&guard);
        // In both: a slot of the previous table would lead to whoever has the id next, or be copied.
        let was_in_previous = previous.is_some_and(|table| table.remove(hash, id));
        let was_in_current = current.remove(hash, id);
        assert!(was_in_current || was_in_previous, "an id is in the map");
        self.held -= 1;
        if !was_in_current {
            // It will not be copied, so it leaves no mark there.
            self.used -= 1;
        }
    }

    /// Fills a map that was made with enough room; `insert` may be called from many threads.
    pub(super) fn fill(&mut self, entries: usize, fill: impl FnOnce(&(dyn Fn(u32, KeyId) + Sync))) {
        let guard = pin();
        let (current, _) = self.map.tables(&guard);
        assert!(
            self.used + entries <= room(current.bits),
            "the map was made with enough room"
        );
        fill(&|hash, id| current.insert(hash, id));
        self.used += entries;
        self.held += entries;
    }

    /// Begins to grow: from here on entries go to another table, while readers look into both.
    ///
    /// It is larger, as large or smaller, by the entries without the marks. While `n` slots are copied, eight by
    /// eight, `n / 8` entries come; in each case what there is and what comes is less than the room.
    fn grow(&mut self, guard: &Guard) {
        self.advance(usize::MAX, guard);
        let old = self.map.current.load(Ordering::Relaxed);
        // SAFETY: the current table, which only this writer replaces.
        let bits = unsafe { &*old }.bits;
        let slots = 1_usize << bits;
        let bits = if self.held > slots / 8 * 3 {
            (bits + 1).min(BITS_MAX)
        } else if self.held > slots / 16 * 3 {
            bits
        } else {
            (bits - 1).max(FIRST_BITS)
        };
        assert!(
            self.held < room(bits),
            "the writer refuses keys before the largest table is full"
        );
        let new = Table::allocate(bits, old, &self.map.meter);
        // Release: pairs with the Acquire in `Map::tables`.
        self.map.current.store(new, Ordering::Release);
        self.moved = 0;
        self.used = self.held;
    }

    /// Copies up to `slots` more slots of the previous table, and lets go of it after the last.
    fn advance(&mut self, slots: usize, guard: &Guard) {
        let (current, Some(previous)) = self.map.tables(guard) else {
            return;
        };
        let end = previous.slots.len().min(self.moved.saturating_add(slots));
        for slot in &previous.slots[self.moved..end] {
            if let Some((hash, id)) = unpack(slot.load(Ordering::Relaxed)) {
                current.insert(hash, id);
            }
        }
        self.moved = end;
        if end == previous.slots.len() {
            // Release: pairs with the Acquire in `Map::tables`.
            let retired = Retired(current.previous.swap(ptr::null_mut(), Ordering::AcqRel));
            let meter = self.map.meter.clone();
            // Unreachable since the exchange; pins from before it are waited for.
            guard.defer(move || retired.free(&meter));
            // It may be large: do not leave it to this thread's next garbage.
            guard.flush();
        }
    }
}

impl Table {
    fn allocate(bits: u32, previous: *mut Table, meter: &Meter) -> *mut Table {
        let table = Table {
            slots: zeroed(1 << bits),
            bits,
            previous: AtomicPtr::new(previous),
            #[cfg(loom)]
            canary: super::canary::Canary::new(),
        };
        meter.add(table.bytes());
        Box::into_raw(Box::new(table))
    }

    fn bytes(&self) -> usize {
        size_of::<Table>() + size_of_val(&*self.slots)
    }

    /// Under loom, fails if the table has been freed.
    fn check(&self) {
        #[cfg(loom)]
        self.canary.check();
    }

    /// The first slot to look at. The top bits of what a slot stores choose it, so that a table
    /// can be copied into one of another size without asking for any hash again.
    fn bucket(&self, hash: u32) -> usize {
        ((u64::from(hash) << self.bits) >> 32) as usize
    }

    fn probe<T, E>(
        &self,
        hash: u32,
        matches: &mut impl FnMut(KeyId) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let mut bucket = self.bucket(hash);
        loop {
            // Acquire: pairs with the exchange in `Table::insert`; the id's head is visible.
            let slot = self.slots[bucket].load(Ordering::Acquire);
            if slot == 0 {
                return Ok(None);
            }
            if let Some((stored, id)) = unpack(slot)
                && stored == hash
                && let Some(found) = matches(id)?
            {
                return Ok(Some(found));
            }
            bucket = (bucket + 1) & (self.slots.len() - 1);
        }
    }

    /// Marks the slot of an entry. False if it is not there.
    fn remove(&self, hash: u32, id: KeyId) -> bool {
        let mut bucket = self.bucket(hash);
        loop {
            match self.slots[bucket].load(Ordering::Relaxed) {
                0 => return false,
                slot if slot == packed(hash, id) => {
                    // Release: pairs with the Acquire in `Table::probe`; who skips the mark sees what was before it.
                    self.slots[bucket].store(GONE, Ordering::Release);
                    return true;
                }
                _ => bucket = (bucket + 1) & (self.slots.len() - 1),
            }
        }
    }

    /// Takes the first empty slot. By exchange, because a map is filled by many threads at first.
    fn insert(&self, hash: u32, id: KeyId) {
        let slot = packed(hash, id);
        let mut bucket = self.bucket(hash);
        loop {
            let word = &self.slots[bucket];
            // Release: pairs with the Acquire in `Table::probe`.
            if word.load(Ordering::Relaxed) == 0
                && word
                    .compare_exchange(0, slot, Ordering::Release, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            bucket = (bucket + 1) & (self.slots.len() - 1);
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let current = Retired(self.current.load(Ordering::Acquire));
        // SAFETY: not null, and nobody else can reach the map any more.
        let previous = Retired(unsafe { &*current.0 }.previous.load(Ordering::Acquire));
        previous.free(&self.meter);
        current.free(&self.meter);
    }
}

/// A table that nobody can reach any more, or null.
struct Retired(*mut Table);

// SAFETY: it owns the table, which is plain memory and atomics.
unsafe impl Send for Retired {}

impl Retired {
    fn free(self, meter: &Meter) {
        if self.0.is_null() {
            return;
        }
        // SAFETY: made by `Table::allocate`, unreachable, and `self` is consumed.
        let table = unsafe { Box::from_raw(self.0) };
        meter.subtract(table.bytes());
        #[cfg(loom)]
        super::canary::bury(table, |table| &table.canary);
    }
}

fn packed(hash: u32, id: KeyId) -> u64 {
    u64::from(hash) << 32 | u64::from(id.0 + 1)
}

/// The entry of a slot, unless it is empty or a mark.
fn unpack(slot: u64) -> Option<(u32, KeyId)> {
    if slot == GONE {
        return None;
    }
    let id = (slot & 0xffff_ffff) as u32;
    Some(((slot >> 32) as u32, KeyId(id.checked_sub(1)?)))
}

/// Entries that a table holds before it grows: three quarters. At seven eighths a miss looks at 32
/// slots on average, here at 8, a cache line.
pub(super) const fn room(bits: u32) -> usize {
    (1 << bits) / 4 * 3 + if bits == 1 { 1 } else { 0 }
}

/// Zeroed words straight from the allocator: a large array is mapped, not written, so the insert
/// that needs it does not wait for it.
#[cfg(not(any(loom, shuttle)))]
pub(super) fn zeroed(len: usize) -> Box<[AtomicU64]> {
    let words = Box::into_raw(vec![0_u64; len].into_boxed_slice());
    // SAFETY: `AtomicU64` has the size, alignment and bit validity of `u64` (alignment is 8 on the
    // 64-bit targets that we build for, asserted below), and the box was just given up.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(align_of::<u64>() == align_of::<AtomicU64>());

#[cfg(any(loom, shuttle))]
pub(super) fn zeroed(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

/// The slot of an entry that has been taken out. No id is as high.
const GONE: u64 = u64::MAX;
const _: () = assert!(super::writer::KEYS_MAX < u32::MAX - 1);

const FIRST_BITS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 6 };
/// A slot stores 32 bits of the hash; a larger table could not be told where an entry goes.
const BITS_MAX: u32 = 32;
/// Slots copied per insert while growing. Two would do to be ready before the next growth; eight
/// make it short, and are one cache line.
const GROWTH_STEP: usize = if cfg!(any(loom, shuttle)) { 1 } else { 8 };
