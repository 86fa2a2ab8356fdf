//! Bytes on disk after `close`, as length and as allocated blocks.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use revtree::storage::MemoryDisk;
use revtree::{Db, Durability, Options};

fn length_and_allocated(path: &Path) -> (u64, u64) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.len(), metadata.blocks() * 512)
}

/// Records, length and allocated blocks per change of a closed store with `puts_a_txn` in each transaction:
/// keys of 35 bytes, values of 512, five puts a key, in no order.
fn bytes_a_change(puts_a_txn: u64) -> [f64; 3] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (keys, rounds) = (20_000u64, 5);
    // Frames are closed when they are full, as under any load with more than one writer.
    let options = Options::new().durability(Durability::Batched {
        changes: 10_000,
        interval: std::time::Duration::from_secs(3600),
    });
    let db = options.open(&path).unwrap();
    let value = vec![b'v'; 512];
    for _ in 0..rounds {
        let mut n = 0;
        while n < keys {
            let mut txn = db.write().unwrap();
            for n in n..n + puts_a_txn {
                // In no order, as keys come.
                let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 25;
                let key = format!("/registry/pods/default/{n:012}");
                assert_eq!(key.len(), 35);
                txn.put(key, &value).unwrap();
            }
            txn.commit().unwrap();
            n += puts_a_txn;
        }
    }
    let stats = db.stats();
    assert_eq!(stats.revisions, keys * rounds);
    assert_eq!(stats.keys, keys);
    let records = db.check().unwrap().record_bytes;
    db.close().unwrap();
    let (length, allocated) = length_and_allocated(&path);
    let bytes = [records, length, allocated].map(|bytes| bytes as f64 / (keys * rounds) as f64);
    eprintln!("{puts_a_txn} puts a transaction: records, length, allocated {bytes:.2?} a change");
    bytes
}

/// At most 615 bytes a revision, as the bench's workload A writes them, of which the peers' encoding alone
/// takes 598: 600 are records, the rest is the index, leaves of the tree, frame headers and the block that
/// each segment keeps for its closing frame.
#[test]
fn a_revision_takes_615_bytes_at_most() {
    let [records, length, allocated] = bytes_a_change(1);
    assert!(records <= 600.0, "{records}");
    assert!(length.max(allocated) <= 615.0, "{length} {allocated}");
}

/// With more than one put in a transaction a record has a word more, for the places in the transactions.
#[test]
fn a_put_among_others_takes_8_bytes_more() {
    let [records, length, allocated] = bytes_a_change(100);
    assert!(records <= 608.0, "{records}");
    assert!(length.max(allocated) <= 623.0, "{length} {allocated}");
}

/// A store of ten small keys takes at most 64 KiB.
#[test]
fn a_small_store_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    for n in 0..10 {
        db.put(format!("key {n}"), "small").unwrap();
    }
    db.close().unwrap();
    let (length, allocated) = length_and_allocated(&path);
    eprintln!("ten small keys: {length} bytes by length, {allocated} allocated");
    assert!(length <= 64 << 10, "{length}");
    assert!(allocated <= 64 << 10, "{allocated}");
    // Nor does it grow by being opened and closed.
    for _ in 0..5 {
        Db::open(&path).unwrap().close().unwrap();
    }
    let (length, allocated) = length_and_allocated(&path);
    eprintln!("opened and closed five times: {length} by length, {allocated} allocated");
    assert!(length.max(allocated) <= 64 << 10);
}

/// Close leaves nothing to replay, wherever in a segment its pages end. Once, when the frames of the
/// segment table themselves began another segment, the table did not know it, and the superblock had to
/// name the log before the pages: the next open found an unclean store and copied its tail.
#[test]
fn a_closed_store_is_clean_wherever_its_pages_end() {
    let mut unclean = Vec::new();
    for keys in (1..=210).step_by(7) {
        for blocks in 0..16 {
            let disk = Arc::new(MemoryDisk::new());
            let open = || {
                let options = Options::new().segment_bytes(64 << 10);
                options.store_bytes_max(64 << 20).disk(disk.clone())
            };
            let db = open().open("store").unwrap();
            let mut txn = db.write().unwrap();
            for n in 0..keys {
                txn.put(format!("{n:04}"), "x").unwrap();
            }
            txn.commit().unwrap();
            for _ in 0..blocks {
                db.put("0000", "a block of its own").unwrap();
            }
            let rev = db.rev();
            db.close().unwrap();
            let db = open().open("store").unwrap();
            assert_eq!(db.rev(), rev);
            assert_eq!(db.read().unwrap().range(..).count().unwrap(), keys);
            if !db.recovery().clean {
                unclean.push((keys, blocks));
            }
        }
    }
    assert!(unclean.is_empty(), "unclean: {unclean:?}");
}

/// K-5: live bytes are those of the records that are needed, whatever pages and headers lie beside them.
#[test]
fn live_bytes_are_those_of_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    // A head of 48 bytes, key and value of 4 each; the ninth and the tenth of a key have a skip.
    const FIRST: u64 = 56;
    const NINTH: u64 = FIRST + 24;
    let open = || Db::open(&path).unwrap();
    let mut db = open();
    for n in 0..1000u32 {
        db.put((n % 100).to_be_bytes(), n.to_be_bytes()).unwrap();
    }
    let all = 800 * FIRST + 200 * NINTH;
    for (compact, live) in [
        (None, all),
        (Some(901), 200 * NINTH),
        (Some(1001), 100 * NINTH),
    ] {
        if let Some(rev) = compact {
            db.compact(rev).unwrap();
        }
        for _ in 0..2 {
            let stats = db.stats();
            assert_eq!(stats.live_bytes, live, "{compact:?}");
            let all = stats.live_bytes + stats.dead_bytes + stats.free_bytes;
            assert_eq!(all, stats.file_bytes);
            assert!(!stats.sizes_unknown);
            // With the pages of a clean close.
            db.close().unwrap();
            db = open();
        }
    }
}
