#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait")]
//! Goal: `memory_bytes` is what the allocator was asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::super::meter::Meter;
use super::super::{Moment, create, pin};
use super::model::Pair;
use super::{Records, SECRET, enough};
use revtree_format::Revision;

/// The system's allocator, which counts what this thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: i64) {
    let bytes = i64::try_from(bytes).expect("a layout's size");
    // Ignored in a thread that is ending.
    let _ = HELD.try_with(|held| held.set(held.get() + sign * bytes));
}

// SAFETY: everything is passed on to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller's promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn held() -> i64 {
    HELD.with(Cell::get)
}

/// Grown one by one, the tables with it, and published in the end. The pin held throughout keeps
/// what is retired, which is counted too, from being freed by the thread of another test, and this
/// thread from freeing theirs.
#[test]
#[cfg_attr(
    miri,
    ignore = "a hundredth more or less needs many keys, and nothing here is unsafe"
)]
fn memory_is_counted() {
    let records = Records::default();
    let positions: Vec<_> = (0..KEYS)
        .map(|n| {
            let key = format!(
                "/registry/pods/{:020}",
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            );
            records.append(key.as_bytes())
        })
        .collect();
    let _guard = pin();
    let before = held();
    let (index, mut writer) = create(SECRET);
    for position in &positions {
        let key = records.key(*position);
        writer
            .insert(&key, *position, true, &records)
            .expect("readable");
    }
    writer.publish(Revision::new(KEYS));
    let counted = i64::try_from(index.memory_bytes()).expect("small");
    let allocated = held() - before;
    let apart = (counted - allocated).abs();
    assert!(
        apart * 100 <= allocated,
        "counted {counted}, allocated {allocated}"
    );
    assert!(
        index.memory_bytes() < KEYS * 64,
        "{} bytes a key",
        index.memory_bytes() / KEYS
    );
}

const KEYS: u64 = 60_000;

/// Nothing is counted that is not freed: with everything gone, the meter is at zero. So is what was put into a draft that
/// is never published.
#[test]
fn the_meter_returns_to_zero() {
    let mut pair = Pair::random(8, enough(3000, 200));
    let meter = pair.index.meter.clone();
    assert!(meter.bytes() > 0);
    for n in 0..enough(300, 20) {
        let key = format!("given up {n}");
        let position = pair.records.append(key.as_bytes());
        pair.writer
            .insert(key.as_bytes(), position, true, &pair.records)
            .expect("readable");
    }
    drop(pair);
    returns_to_zero(&meter);
}

/// What is retired may wait for other tests' pins: for a while.
pub(super) fn returns_to_zero(meter: &Meter) {
    for _ in 0..1_000_000 {
        if meter.bytes() == 0 {
            return;
        }
        pin().flush();
        std::thread::yield_now();
    }
    panic!("{} bytes are not freed", meter.bytes());
}

/// However many keys come and go, the index holds no more than for those that are there at once.
#[test]
fn keys_that_come_and_go_leave_nothing() {
    let mut pair = Pair::new();
    let round = |pair: &mut Pair, number: u32| {
        for key in 0..ROUND_KEYS {
            pair.write(format!("/events/{number:08}/{key:08}").as_bytes(), true);
        }
        pair.remove(|_| true);
        assert_eq!(pair.index.totals().all, 0);
        // What waits for readers of other tests, too, is given time.
        let moment = Moment::now();
        while !moment.is_past() {
            std::thread::yield_now();
        }
    };
    // The first rounds take what a round takes: ids that have left come back a round later.
    (0..3).for_each(|number| round(&mut pair, number));
    let held = pair.index.memory_bytes();
    let mut ids = 0;
    for number in 3..3 + enough(40, 4) {
        round(&mut pair, number);
        ids = ids.max(pair.writer.ids_given());
        assert!(pair.index.memory_bytes() <= held * 2, "round {number}");
    }
    assert!(
        ids <= 2 * ROUND_KEYS,
        "{ids} ids for {ROUND_KEYS} keys at once"
    );
}

const ROUND_KEYS: u32 = enough(500, 70);
