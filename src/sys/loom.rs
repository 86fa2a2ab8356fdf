//! Models of what readers see of memory that is being written, explored by loom (SPEC.md, X-1).
//!
//! The region's own bytes are no atomics, so loom does not watch them; a word beside them, written and read
//! at the same moments without order, stands for them.

use std::sync::Arc;

use super::{Extent, Region};
use crate::sync::{AtomicU64, Ordering, model, thread};

/// As small as a region can be.
const GRANULE: u64 = 64 << 10;

fn begin() -> (Arc<Region>, Extent, Arc<AtomicU64>) {
    let region = Region::reserve(2 * GRANULE, GRANULE).expect("a little address space");
    let extent = region.claim(0, 2 * GRANULE).expect("free");
    (region, extent, Arc::new(AtomicU64::new(0)))
}

/// Who is given bytes sees them written, also those of a record that spans granules.
#[test]
fn bytes_before_the_mark() {
    model(3, || {
        let (region, mut extent, bytes) = begin();
        let reader = {
            let (region, bytes) = (Arc::clone(&region), Arc::clone(&bytes));
            thread::spawn(move || {
                if region.bytes(0, 8).is_some() {
                    assert!(bytes.load(Ordering::Relaxed) >= 1);
                }
                if region.bytes(GRANULE - 4, 8).is_some() {
                    assert_eq!(bytes.load(Ordering::Relaxed), 2);
                }
            })
        };
        extent.write(0, b"revision").expect("in the extent");
        bytes.store(1, Ordering::Relaxed);
        extent.publish(8);
        extent
            .write(GRANULE - 4, b"revision")
            .expect("in the extent");
        bytes.store(2, Ordering::Relaxed);
        extent.publish(GRANULE + 4);
        reader.join().expect("the reader's assertions hold");
    });
}

/// A header that is written after what follows it is not given out before.
#[test]
fn header_behind_its_body() {
    model(3, || {
        let (region, mut extent, header) = begin();
        let reader = {
            let (region, header) = (Arc::clone(&region), Arc::clone(&header));
            thread::spawn(move || {
                if region.bytes(0, 64).is_some() {
                    assert_eq!(header.load(Ordering::Relaxed), 1);
                }
            })
        };
        extent.open_hole(0).expect("no hole is open");
        extent.publish(128);
        header.store(1, Ordering::Relaxed);
        extent.fill_hole(&[1; 64]).expect("it is open");
        reader.join().expect("the reader's assertions hold");
    });
}
