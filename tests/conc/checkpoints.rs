//! A kill right behind a checkpoint beside which commits went on.
//!
//! Such a superblock names the log before its own pages, and no later frame says yet that they are
//! durable. Recovery once took a segment with nothing but such pages for part of the unsynced tail, gave
//! it back, and the log then wrote over pages that the next checkpoints still named.

use std::sync::Arc;
use std::thread;

use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Durability, Options};

fn options() -> Options {
    let options = Options::new().segment_bytes(64 << 10);
    options.checkpoint_bytes(200 << 10)
}

/// Whether commits come in at the right moment is chance, so there are some rounds.
#[test]
fn pages_of_a_checkpoint_outlive_a_kill_right_behind_it() {
    for _ in 0..8 {
        round();
    }
}

fn round() {
    let disk = SimDisk::new(SimOptions::default());
    // Without syncs of commits, nothing else tells recovery what is durable.
    let flushed = options().durability(Durability::Flushed);
    let db = flushed.disk(Arc::new(disk.clone())).open("store").unwrap();
    // A table that every checkpoint writes, longer than a few segments.
    const ROWS: u64 = 300;
    let row = |n: u64| format!("row {n:03}");
    let mut txn = db.write().unwrap();
    for n in 0..ROWS {
        let mut table = txn.table("wide").unwrap();
        table.put(row(n).as_bytes(), &[2; 900]).unwrap();
    }
    txn.commit().unwrap();
    let writers: Vec<_> = (0..3u64)
        .map(|t| {
            let db = db.clone();
            thread::spawn(move || {
                for n in 0..400u64 {
                    let mut txn = db.write().unwrap();
                    txn.put(format!("{t}/{}", n % 10), vec![1; 1500]).unwrap();
                    // Seldom, so that the next checkpoint keeps the pages of the table.
                    if t == 0 && n % 20 == 0 {
                        let mut table = txn.table("wide").unwrap();
                        table.put(row(n % ROWS).as_bytes(), &[3; 900]).unwrap();
                    }
                    txn.commit().unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(db.stats().checkpoints >= 3);
    drop(db);
    let mut kills = 0;
    for number in 1..=disk.operations() {
        let what = disk.describe(number).unwrap();
        let words: Vec<&str> = what.split(' ').collect();
        let superblock = matches!(words[..], ["write", _, "bytes", "at", offset, ..]
            if offset.parse::<u64>().unwrap() < 16 << 10);
        if !superblock {
            continue;
        }
        kills += 1;
        let image = Arc::new(disk.kill(number));
        let open = || options().disk(image.clone()).open("store").unwrap();
        let db = open();
        let rev = db.rev();
        let rows = db.read().unwrap().table("wide").iter().count();
        // Whatever recovery gave back is written over.
        for n in 0..60 {
            db.put(format!("after/{n}"), vec![3; 5000]).unwrap();
        }
        let report = db.check().unwrap();
        assert!(report.is_clean(), "{what}: {:?}", report.damage);
        db.close().unwrap();
        let db = open();
        assert_eq!(db.rev().get(), rev.get() + 60);
        assert_eq!(db.read().unwrap().table("wide").iter().count(), rows);
        let report = db.check().unwrap();
        assert!(report.is_clean(), "{what}: {:?}", report.damage);
    }
    eprintln!("{kills} kills behind a write of a superblock");
}

/// A checkpoint that writes more than the bytes after which one is due does not make the next one due.
#[test]
fn pages_of_a_checkpoint_do_not_count_towards_the_next() {
    let disk = SimDisk::new(SimOptions::default());
    let options = Options::new().segment_bytes(64 << 10).disk(Arc::new(disk));
    let db = options.checkpoint_bytes(200 << 10).open("store").unwrap();
    let row = |n: u8| {
        let mut txn = db.write().unwrap();
        for part in 0..50 {
            let mut table = txn.table("large").unwrap();
            table.put(&[part, n], &vec![n; 5000]).unwrap();
        }
        txn.commit().unwrap();
    };
    row(0);
    row(1);
    let before = db.stats().checkpoints;
    for n in 0..40u8 {
        // A row more, so that each checkpoint writes the table again.
        let mut txn = db.write().unwrap();
        txn.table("large").unwrap().put(&[100, n], b"1").unwrap();
        txn.commit().unwrap();
    }
    let made = db.stats().checkpoints - before;
    assert!(made <= 2, "{made} checkpoints for some blocks");
}
