//! Stats: sizes that follow each change, and cost nothing when nothing has changed.

use revtree::{Db, KeyRange, Options};

/// A store whose tree has branch pages: many records, and checkpoints between.
fn store() -> Db {
    // A thread beside would read pages, too.
    let options = Options::new().cleaner(revtree::Cleaner::Manual);
    let options = options.checkpoint_bytes(64 << 10);
    let db = options.open_in_memory().unwrap();
    for n in 0..3000 {
        db.put(format!("{:03}", n % 100), vec![1; 100]).unwrap();
    }
    assert!(db.stats().checkpoints > 0);
    db
}

#[test]
fn collecting_reads_no_page_that_it_counts() {
    let db = store();
    db.compact(2000).unwrap();
    let before = db.stats();
    assert!(before.live_bytes > 0 && before.dead_bytes > 0);
    assert_eq!(db.stats().tree_pages_read, before.tree_pages_read);
    // A walk of others is counted.
    let view = db.read().unwrap();
    let first = revtree::Revision::new(2000);
    view.changes(.., first..=view.rev()).unwrap().next();
    assert!(db.stats().tree_pages_read > before.tree_pages_read);
}

/// What no allowed read needs does not live (K-3), to the byte: what was superseded up to the compact revision, in it too, and
/// the deletes below it.
#[test]
fn live_bytes_are_without_those_of_dead_records() {
    let db = Options::new().open_in_memory().unwrap();
    db.put("a", "1").unwrap();
    db.delete("a").unwrap();
    db.put("c", "1").unwrap();
    let mut txn = db.write().unwrap();
    txn.put("b", "1").unwrap();
    txn.put("b", "2").unwrap();
    txn.delete("c").unwrap();
    txn.commit().unwrap();
    db.put("b", "3").unwrap();
    // A head of 48 bytes, a word for its or the former's place in a transaction, key and value, to a multiple of 8.
    let (alone, second) = (56, 64);
    let all = 4 * alone + 3 * second;
    for (rev, dead) in [
        (2, 0),
        (3, alone),
        (4, 2 * alone),
        // The first of the two puts of b, c; the delete of c is still to be seen.
        (5, 4 * alone),
        (6, 4 * alone + 2 * second),
    ] {
        db.compact(rev).unwrap();
        let live = db.stats().live_bytes;
        assert_eq!(live, all - dead, "compacted at {rev}");
        let report = db.check().unwrap();
        assert_eq!((report.records, report.record_bytes), (7, all));
    }
}

#[test]
fn what_was_counted_is_not_taken_for_what_is() {
    let db = store();
    let all = db.stats();
    assert_eq!(all.revisions, 3000);
    assert_eq!(db.stats().dead_bytes, all.dead_bytes);
    // A compaction alone makes another count.
    let view = db.read_at(1500).unwrap();
    db.compact(2000).unwrap();
    let compacted = db.stats();
    assert_eq!(compacted.revisions, 3000);
    assert!(compacted.live_bytes < all.live_bytes);
    // So does a view below it, when it goes.
    assert!(compacted.pinned_bytes > 0);
    assert_eq!(db.stats().pinned_bytes, compacted.pinned_bytes);
    drop(view);
    assert_eq!(db.stats().pinned_bytes, 0);
    assert_eq!(db.stats().live_bytes, compacted.live_bytes);
    // And a change.
    db.put("new", "1").unwrap();
    let changed = db.stats();
    assert_eq!(changed.revisions, 3001);
    assert!(changed.live_bytes > compacted.live_bytes);
    db.delete_range(KeyRange::all()).unwrap();
    assert_eq!(db.stats().revisions, 3001 + 101);
    db.compact(db.rev()).unwrap();
    assert!(db.stats().live_bytes < changed.live_bytes / 10);
    // Another content is counted anew.
    let dir = tempfile::tempdir().unwrap();
    let other = Options::new().open_in_memory().unwrap();
    other.put("a", "1").unwrap();
    other
        .snapshot()
        .unwrap()
        .save(dir.path().join("s"))
        .unwrap();
    db.restore(dir.path().join("s")).unwrap();
    assert_eq!(db.stats().revisions, 1);
}

/// The walk that counts live bytes is left out when it would find the same: it reads heads, which the
/// second call does not.
#[cfg(feature = "unstable-storage")]
#[test]
fn asking_again_reads_no_record() {
    use std::sync::Arc;

    use revtree::ReadMode;
    use revtree::storage::sim::{Call, SimDisk, SimOptions};

    let disk = SimDisk::new(SimOptions::default());
    let options = || Options::new().disk(Arc::new(disk.clone()));
    // Several segments, so that all but the last are read from the disk.
    let db = options().segment_bytes(64 << 10).open("store").unwrap();
    for _ in 0..500 {
        db.put("a", vec![1; 1000]).unwrap();
    }
    db.compact(300).unwrap();
    db.close().unwrap();
    let db = options().read_mode(ReadMode::Pread).open("store").unwrap();
    let stats = db.stats();
    disk.reset_counts();
    assert_eq!(db.stats().live_bytes, stats.live_bytes);
    assert_eq!(disk.count(Call::ReadAt), 0);
    db.put("a", "1").unwrap();
    assert_eq!(db.stats().revisions, stats.revisions + 1);
    assert!(disk.count(Call::ReadAt) > 0);
}
