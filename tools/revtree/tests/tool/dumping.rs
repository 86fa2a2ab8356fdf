//! `dump` on stores that the library wrote: format and engine agree on every byte in use.

use std::fs;

use revtree::{Options, Outcome};
use serde_json::Value;

use crate::program::{Bench, bytes, lines};

/// How many lines of the dump have this `item`.
fn count(lines: &[Value], item: &str) -> usize {
    lines.iter().filter(|line| line["item"] == item).count()
}

/// Goal: what the library wrote has no damage in the eyes of the dump, with all segments or without.
#[test]
fn a_store_dumps_without_damage() {
    let bench = Bench::small();
    let lines = bench.json("dump", &["--all", "--values"]);
    assert_eq!(count(&lines, "damage"), 0);
    assert_eq!(count(&lines, "superblock"), 4);
    let summary = lines.last().expect("a summary");
    assert_eq!([&summary["damage"], &summary["tree_records"]], [0, 6]);
    let text = bench.text("dump", &["--values"]);
    for part in [
        "superblocks",
        "segment table",
        "tree",
        "side tables",
        "key index",
        "log",
    ] {
        assert!(text.lines().any(|line| line == part), "{part} in {text}");
    }
    assert!(text.contains("\"colour\" = \"red\\nand green\""), "{text}");
    assert!(!bench.text("dump", &["--no-records"]).contains("colour"));
}

/// Goal: a store of many segments, left without a close, dumps its log across them.
#[test]
fn a_store_without_a_close_dumps_its_log() {
    let bench = Bench::empty();
    let copy = Bench::empty();
    bench.with_options(Options::new().segment_bytes(64 << 10), |db| {
        for n in 0..60_u8 {
            db.put(format!("key {}", n % 7), vec![n; 5000])?;
        }
        // As a crash would leave it: the file is copied under the open store.
        fs::copy(bench.store(), copy.store()).expect("a copy");
        Ok(())
    });
    let lines = copy.json("dump", &["--no-records"]);
    assert_eq!(count(&lines, "damage"), 0);
    assert_eq!(lines.last().expect("a summary")["log_records"], 60);
    let closed = bench.json("dump", &["--all", "--no-records"]);
    assert_eq!(closed.last().expect("a summary")["tree_records"], 60);
    assert_eq!(count(&closed, "damage"), 0);
}

/// Goal: a tree of two levels, a value longer than a segment, a compaction, an end without a close and
/// the open after it: at each stage the dump finds no damage, and all records.
#[test]
fn a_large_store_dumps_without_damage() {
    let bench = Bench::empty();
    let crashed = Bench::empty();
    let small_segments = || Options::new().segment_bytes(64 << 10);
    bench.with_options(small_segments(), |db| {
        for n in 0..200_u32 {
            let mut txn = db.write()?;
            for m in 0..100_u32 {
                txn.put(format!("key {:05}", n * 37 % 100 * 100 + m), [b'v'; 100])?;
            }
            txn.commit()?;
        }
        db.put("long", vec![7; 300_000])?;
        assert_eq!(db.compact(100)?.wait(), Outcome::Done);
        fs::copy(bench.store(), crashed.store())?;
        Ok(())
    });
    crashed.with_options(small_segments(), |_| Ok(()));
    for bench in [bench, crashed] {
        let lines = bench.json("dump", &["--all", "--no-records"]);
        let damage: Vec<&Value> = lines
            .iter()
            .filter(|line| line["item"] == "damage")
            .collect();
        assert!(damage.is_empty(), "{damage:?}");
        let summary = lines.last().expect("a summary");
        assert_eq!(summary["tree_records"], 20_001);
        assert!(summary["pages"].as_u64() > Some(2), "{summary}");
        assert_eq!(bench.json("check", &[])[0]["records"], 20_001);
    }
}

/// Goal: damage is printed where it is, the rest is shown, and the status is 1.
#[test]
fn damage_is_printed_and_refused() {
    let bench = Bench::small();
    let mut store = bytes(&bench.store());
    let value = b"red\nand green";
    let at = store
        .windows(value.len())
        .position(|bytes| bytes == value)
        .expect("the value");
    store[at] ^= 1;
    fs::write(bench.store(), &store).expect("a file");
    let ran = bench.run("dump", &["--json"]);
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (1, "revtree: 1 damaged place\n")
    );
    let lines = lines(&ran.stdout);
    let damage = lines
        .iter()
        .find(|line| line["item"] == "damage")
        .expect("the damage");
    assert_eq!(damage["what"], "record value CRC");
    assert_eq!(count(&lines, "record"), 6);
}
