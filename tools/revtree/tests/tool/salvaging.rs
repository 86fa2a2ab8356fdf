//! `salvage`: a store is damaged in every way that the fault table names, and what is whole of it must
//! be in the new store, exactly, with a report of the rest. The old file is never changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;

use revtree::{Db, LeaseId, Options, Outcome};
use revtree_format::SegmentHeader;
use serde_json::Value;

use crate::program::{ANY, Bench, Ran, assert_refused, bytes, lines, run};

const BLOCK: usize = 4096;
const SLOTS: usize = 4 * BLOCK;

/// The store of most tests: generations, leases, several changes of a revision, tables, a compaction, an
/// index, and more than one segment. `salt` makes another store of the same layout.
fn history(salt: u8) -> Bench {
    let bench = Bench::empty();
    bench.with_options(Options::new().segment_bytes(64 << 10), |db| {
        fill(db, salt)?;
        Ok(compact(db)?)
    });
    bench
}

fn fill(db: &Db, salt: u8) -> revtree::Result<()> {
    for n in 0..60_u8 {
        let mut txn = db.write()?;
        let value = vec![n ^ salt; 100 + usize::from(n) * 20];
        txn.put_with_lease(format!("key {}", n % 7), value, LeaseId(n.into()))?;
        txn.put(ANY, [n, salt])?;
        txn.set_applied(revtree::Applied {
            index: u64::from(n) + 10,
            term: 3,
        });
        txn.table("rows")?.put(&[n % 3], &[n, salt])?;
        txn.commit()?;
        if n % 5 == 4 {
            db.delete(format!("key {}", n % 7))?;
        }
    }
    Ok(())
}

fn compact(db: &Db) -> revtree::Result<()> {
    assert_eq!(db.compact(20)?.wait(), Outcome::Done);
    Ok(())
}

/// Runs it, sees that the old file is as it was, and that the new store is complete.
fn salvage(bench: &Bench) -> (Ran, Value, Bench) {
    let new = Bench::empty();
    let before = bytes(&bench.store());
    let ran = bench.run("salvage", &[new.store().as_os_str(), OsStr::new("--json")]);
    assert_eq!(bytes(&bench.store()), before, "the old store was written");
    let report = lines(&ran.stdout)
        .pop()
        .unwrap_or_else(|| panic!("{ran:?}"));
    let check = new.json("check", &[]).remove(0);
    assert_eq!(check["damage"], Value::Array(Vec::new()));
    assert_eq!(check["records"], report["records"]);
    let lossless = report["losses"] == Value::Array(Vec::new());
    assert_eq!(ran.status, i32::from(!lossless), "{ran:?}");
    assert_eq!(ran.stderr.is_empty(), lossless, "{ran:?}");
    (ran, report, new)
}

/// All that a store answers: hashes at each revision, tables, stat without sizes.
fn answers(bench: &Bench) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::new();
    bench.with_options(Options::new().read_only(), |db| {
        let compact = db.compact_rev().map_or(1, revtree::Revision::get);
        for rev in compact..=db.rev().get() {
            let hash = db.hash_by_rev(rev)?.hash;
            answers.insert(format!("hash {rev}"), hash.to_string());
        }
        let view = db.read()?;
        answers.insert("compact".into(), format!("{:?}", db.compact_rev()));
        for table in view.tables() {
            for row in view.table(table).iter() {
                let (key, value) = row?;
                answers.insert(format!("row {table} {key:?}"), format!("{value:?}"));
            }
        }
        Ok(())
    });
    let stat = bench.json("stat", &[]).remove(0);
    for field in [
        "revision",
        "compact_revision",
        "applied_index",
        "applied_term",
    ] {
        answers.insert(field.into(), stat[field].to_string());
    }
    answers.insert("history".into(), bench.text("history", &["key 1"]));
    answers
}

/// Damages a copy of the file and salvages it.
fn damaged(bench: &Bench, damage: impl FnOnce(&mut Vec<u8>)) -> (Value, Bench) {
    let copy = Bench::empty();
    let mut content = bytes(&bench.store());
    damage(&mut content);
    fs::write(copy.store(), content).expect("a file");
    let (_, report, new) = salvage(&copy);
    (report, new)
}

/// Where `needle` lies.
fn find(content: &[u8], needle: &[u8]) -> usize {
    content
        .windows(needle.len())
        .position(|bytes| bytes == needle)
        .expect("it is there")
}

/// The values of all puts by (key, revision).
fn puts(bench: &Bench) -> BTreeMap<(String, u64), Value> {
    let mut puts = BTreeMap::new();
    for line in bench.json("log", &[]) {
        let rev = line["revision"].as_u64().expect("a number");
        for event in line["events"].as_array().expect("events") {
            let key = event["kv"]["key"].as_str().expect("a key").to_owned();
            puts.insert((key, rev), event.clone());
        }
    }
    puts
}

/// What the new store has is what the old one had, and these many changes are missing.
fn assert_part(old: &Bench, new: &Bench, missing: usize) {
    let (old, new) = (puts(old), puts(new));
    for (change, event) in &new {
        assert_eq!(old.get(change), Some(event), "{change:?}");
    }
    assert_eq!(old.len() - new.len(), missing);
}

/// Goal: an undamaged store comes out as it is, closed or left behind by a crash.
#[test]
fn an_undamaged_store_is_copied_exactly() {
    for bench in [history(0), Bench::small()] {
        let (_, report, new) = salvage(&bench);
        assert_eq!(report["records_lost"], 0);
        assert_eq!(answers(&bench), answers(&new));
    }
    let crashed = Bench::empty();
    let bench = Bench::empty();
    bench.with_options(Options::new().segment_bytes(64 << 10), |db| {
        fill(db, 0)?;
        compact(db)?;
        fs::copy(bench.store(), crashed.store())?;
        Ok(())
    });
    let (_, report, new) = salvage(&crashed);
    assert_eq!(report["losses"], Value::Array(Vec::new()));
    assert_eq!(answers(&bench), answers(&new));
    // Recovered, written, and left again: stale frames and copies of frames in doubt.
    crashed.with(|db| Ok(db.put("more", "x").map(drop)?));
    let (_, _, new) = salvage(&crashed);
    assert_eq!(answers(&crashed), answers(&new));
}

/// Goal: no superblock is needed, not even one.
#[test]
fn lost_superblocks_lose_nothing() {
    let bench = history(0);
    for slots in 1..16_usize {
        let (report, new) = damaged(&bench, |content| {
            for slot in (0..4).filter(|slot| slots >> slot & 1 == 1) {
                content[slot * BLOCK..(slot + 1) * BLOCK].fill(0);
            }
        });
        assert_eq!(report["losses"], Value::Array(Vec::new()), "{slots:b}");
        assert_eq!(answers(&bench), answers(&new), "{slots:b}");
    }
}

/// Goal: of every block of the file, zeroed or filled with what another store has in that place: what
/// is saved is right, the report counts what is not, with the superblocks and without.
#[test]
fn a_lost_block_costs_no_other_and_a_foreign_one_is_not_taken() {
    let bench = history(0);
    let foreign = bytes(&history(0x80).store());
    let own = bytes(&bench.store());
    // With the superblocks the compaction may be lost too: then older changes show, and are right.
    let before = Bench::empty();
    before.with(|db| Ok(fill(db, 0)?));
    let (old, all) = (puts(&before), puts(&bench).len());
    assert_eq!(own.len(), foreign.len());
    let mut lost = 0;
    for at in (SLOTS..own.len()).step_by(BLOCK) {
        for zero in [true, false] {
            let slots = (at / BLOCK).is_multiple_of(2) == zero;
            let (report, new) = damaged(&bench, |content| {
                let block = &mut content[at..at + BLOCK];
                if zero {
                    block.fill(0);
                } else {
                    block.copy_from_slice(&foreign[at..at + BLOCK]);
                }
                if !slots {
                    content[..SLOTS].fill(0);
                }
            });
            let what = format!("{at:#x} zero {zero} slots {slots}: {report}");
            let saved = puts(&new);
            for (change, event) in &saved {
                assert_eq!(old.get(change), Some(event), "{change:?} {what}");
            }
            assert!(saved.len() + 3 >= all, "{what}");
            if saved.len() < all {
                assert_ne!(report["losses"], Value::Array(Vec::new()), "{what}");
                lost += 1;
            }
        }
    }
    assert!(lost > 10);
}

/// Goal: a large transaction lies in a few long frames; a lost block in the middle of one costs the
/// records that touch it and its neighbours, not the frame. A foreign one is not taken.
#[test]
fn a_lost_block_in_a_long_frame() {
    let make = |salt: u8| {
        let bench = Bench::empty();
        bench.with_options(Options::new().segment_bytes(1 << 20), |db| {
            let mut txn = db.write()?;
            for n in 0..2000_u32 {
                txn.put(format!("key {n:04}"), [n.to_le_bytes()[0] ^ salt; 200])?;
            }
            Ok(txn.commit().map(drop)?)
        });
        bench
    };
    let bench = make(0);
    let foreign = bytes(&make(0x80).store());
    for (zero, block) in [(true, 20), (false, 20), (true, 47), (false, 47)] {
        let (report, new) = damaged(&bench, |content| {
            let at = block * BLOCK;
            let block = &mut content[at..at + BLOCK];
            if zero {
                block.fill(0);
            } else {
                block.copy_from_slice(&foreign[at..at + BLOCK]);
            }
        });
        let saved = puts(&new);
        let old = puts(&bench);
        for (change, event) in &saved {
            assert_eq!(old.get(change), Some(event), "{change:?} {report}");
        }
        assert_eq!(report["records_lost"], old.len() - saved.len(), "{report}");
        let lost = old.len() - saved.len();
        assert!((14..60).contains(&lost), "{zero} {block}: {report}");
    }
}

/// Goal: what an earlier use of a segment left is not taken.
#[test]
fn a_stale_segment_is_not_taken() {
    let bench = history(0);
    let (report, new) = damaged(&bench, |content| {
        let at = 64 << 10;
        let mut id = [0; 16];
        id.copy_from_slice(&content[24..40]);
        let raw = &content[at..at + 64];
        let header = SegmentHeader::parse(raw, &id, at as u64).expect("a segment");
        let later = SegmentHeader {
            segment_use: header.segment_use + 100,
            ..header
        };
        content[at..at + 64].copy_from_slice(&later.encode(&id));
    });
    assert_ne!(report["losses"], Value::Array(Vec::new()));
    let (old, saved) = (puts(&bench), puts(&new));
    assert!(saved.len() < old.len(), "{report}");
    for (change, event) in &saved {
        assert_eq!(old.get(change), Some(event), "{change:?} {report}");
    }
}

/// Goal: a flipped bit in a value costs that record, and no other.
#[test]
fn a_flipped_bit_in_a_value_costs_one_record() {
    let bench = Bench::small();
    let (report, new) = damaged(&bench, |content| {
        let at = find(content, b"red\nand green");
        content[at] ^= 1;
    });
    assert_eq!(report["records_lost"], 1, "{report}");
    let loss = report["losses"][0].as_str().expect("text");
    assert!(loss.contains("change 4.0"), "{loss}");
    assert_part(&bench, &new, 1);
    // The key's older put is what is left.
    assert_eq!(new.text("get", &["colour"]), "blue\n");
}

/// Goal: a flipped bit in a frame's header is put right; in a record's head it costs that record.
#[test]
fn a_flipped_bit_in_a_head() {
    let bench = Bench::small();
    let own = bytes(&bench.store());
    let value = find(&own, b"red\nand green");
    let frame = (0..value)
        .rev()
        .find(|at| own[*at..].starts_with(b"RVFM"))
        .expect("a frame");
    for bit in (0..64 * 8).step_by(7) {
        let (report, new) = damaged(&bench, |content| {
            content[frame + bit / 8] ^= 1 << (bit % 8);
        });
        assert_eq!(report["frames_repaired"], 1, "{bit}: {report}");
        assert_eq!(answers(&bench), answers(&new), "{bit}");
    }
    for byte in [0, 17, 24, 28, 30, 33, 44] {
        let (report, new) = damaged(&bench, |content| content[frame + 64 + byte] ^= 4);
        assert_eq!(report["records_lost"], 1, "{byte}: {report}");
        assert_part(&bench, &new, 1);
    }
}

/// Goal: a flipped bit in a hint costs nothing: no checksum of a record covers it.
#[test]
fn a_flipped_bit_in_a_hint() {
    let bench = Bench::small();
    let frame = {
        let own = bytes(&bench.store());
        let value = find(&own, b"red\nand green");
        let magic = |at: &usize| own[*at..].starts_with(b"RVFM");
        (0..value).rev().find(magic).expect("a frame")
    };
    for byte in 8..16 {
        let (report, new) = damaged(&bench, |content| content[frame + 64 + byte] ^= 4);
        assert_eq!(report["frames_damaged"], 1, "{report}");
        assert_eq!(answers(&bench), answers(&new));
    }
}

/// Goal: also where records end with the blocks, a block of another store gives nothing, and costs only
/// the records that lay there.
#[test]
fn a_foreign_block_that_cuts_no_record() {
    let make = |salt: u8| {
        let bench = Bench::empty();
        bench.with_options(Options::new().segment_bytes(1 << 20), |db| {
            let mut txn = db.write()?;
            txn.put("k000", [salt; 12])?;
            for n in 1..900_u32 {
                txn.put(format!("k{n:03}"), [salt; 4])?;
            }
            txn.commit()?;
            Ok(db.put("later", "x").map(drop)?)
        });
        bench
    };
    let bench = make(1);
    let foreign = bytes(&make(2).store());
    let at = 6 * BLOCK;
    assert_eq!(bytes(&bench.store())[at + 60..at + 64], [1; 4]);
    let (report, new) = damaged(&bench, |content| {
        content[at..at + BLOCK].copy_from_slice(&foreign[at..at + BLOCK]);
    });
    assert_eq!(report["records_lost"], 64, "{report}");
    assert_part(&bench, &new, 64);
    assert_eq!(new.text("get", &["later"]), "x\n");
}

/// Goal: a delete that is lost is known from the put behind it, and comes back.
#[test]
fn a_lost_delete_is_rebuilt() {
    let bench = Bench::small();
    let own = bytes(&bench.store());
    let second = find(&own, b"small");
    let frames: Vec<usize> = (0..second)
        .filter(|at| at % 8 == 0 && own[*at..].starts_with(b"RVFM"))
        .collect();
    let delete = frames[frames.len() - 2];
    let (report, new) = damaged(&bench, |content| content[delete..delete + 200].fill(0));
    assert_eq!(report["deletes_rebuilt"], 1, "{report}");
    assert_part(&bench, &new, 0);
    assert_eq!(bench.text("hash", &[]), new.text("hash", &[]));
}

/// Goal: where a delete and the first put behind it are lost, the next put stays readable, and so does
/// what was before.
#[test]
fn a_generation_without_its_beginning() {
    let bench = Bench::empty();
    bench.with_options(Options::new().segment_bytes(64 << 10), |db| {
        db.put("key", "first life")?;
        db.delete("key")?;
        db.put("key", "second life, lost")?;
        db.put("key", "second life")?;
        Ok(())
    });
    let own = bytes(&bench.store());
    let lost = find(&own, b"second life, lost");
    let frames: Vec<usize> = (0..lost)
        .filter(|at| at % 8 == 0 && own[*at..].starts_with(b"RVFM"))
        .collect();
    let delete = frames[frames.len() - 2];
    let (report, new) = damaged(&bench, |content| content[delete..lost + 16].fill(0));
    let loss = report["losses"][0].as_str().expect("text");
    assert!(loss.contains("changes of revisions 3 to 4"), "{report}");
    assert_eq!(report["records"], 2, "{report}");
    assert_part(&bench, &new, 2);
    assert_eq!(new.text("get", &["key"]), "second life\n");
    assert_eq!(new.text("get", &["key", "--rev", "2"]), "first life\n");
}

/// Goal: a file cut anywhere gives what lies before the cut; one with a tail of garbage gives all.
#[test]
fn cut_and_longer_files() {
    let bench = history(0);
    let own = bytes(&bench.store());
    for len in (SLOTS + BLOCK..own.len()).step_by(own.len() / 23) {
        let (report, new) = damaged(&bench, |content| content.truncate(len));
        let (old, saved) = (puts(&bench), puts(&new));
        assert!(
            saved
                .iter()
                .all(|(change, event)| old.get(change) == Some(event))
        );
        assert!(saved.len() == old.len() || report["losses"] != Value::Array(Vec::new()));
    }
    let (_, new) = damaged(&bench, |content| {
        content.extend((0..100_000_u32).map(|n| n.wrapping_mul(7919).to_le_bytes()[1]));
    });
    assert_eq!(answers(&bench), answers(&new));
    // The store's own blocks once more, behind its end: they verify nowhere but in their place.
    let (_, new) = damaged(&bench, |content| content.extend_from_slice(&own[SLOTS..]));
    assert_eq!(answers(&bench), answers(&new));
}

/// Goal: a store that is open, a new one that exists, and files without a store are refused, and
/// nothing is written.
#[test]
fn what_cannot_be_salvaged_is_refused() {
    let bench = Bench::small();
    let before = bytes(&bench.store());
    let taken = bench.path("taken");
    fs::write(&taken, b"mine").expect("a file");
    assert_refused(
        &bench.run("salvage", &[taken.as_os_str()]),
        &["taken", "exists"],
    );
    assert_eq!(bytes(&taken), b"mine");
    let new = bench.path("new");
    let open = Options::new().open(bench.store()).expect("the store opens");
    let ran = bench.run("salvage", &[new.as_os_str()]);
    assert_refused(&ran, &["locked"]);
    drop(open);
    for content in [&b""[..], b"what is this\n", &[0; 100_000]] {
        let path = bench.path("none");
        fs::write(&path, content).expect("a file");
        let ran = run(
            &[OsStr::new("salvage"), path.as_os_str(), new.as_os_str()],
            b"",
        );
        assert_refused(&ran, &["no trace"]);
    }
    assert!(!new.exists());
    assert_eq!(before.len(), bytes(&bench.store()).len());
    assert_eq!(bench.run::<&str>("salvage", &[]).status, 2);
}

/// A store whose space has been reclaimed: what was copied into runs is found there, and what stayed in the log
/// where it was; what cleaning has dropped is not missing.
#[test]
fn what_was_moved_is_found() {
    let bench = history(0x3C);
    bench.with_options(Options::new().segment_bytes(64 << 10), |db| {
        for n in 0..200_u8 {
            db.put(format!("key {}", n % 7), vec![n; 2000])?;
        }
        db.compact(db.rev().get() - 10)?;
        let done = db.reclaim()?;
        assert!(done.freed_bytes > 4 * (64 << 10), "{done:?}");
        assert!(done.copied_bytes > 0, "{done:?}");
        Ok(())
    });
    let before = answers(&bench);
    let (report, new) = damaged(&bench, |_| ());
    assert!(answers(&new) == before, "{report}");
    assert_eq!(report["losses"], Value::Array(Vec::new()));
    // Also when no superblock is left: the first segment does not begin with the log's first frame any more. What
    // only superblocks say of a store that has been cleaned is lost: compact revision and consistent index.
    let (report, new) = damaged(&bench, |content| content[..SLOTS].fill(0));
    for (command, arguments) in [("range", &["--json"][..]), ("tables", &["rows"])] {
        let (old, saved) = (bench.text(command, arguments), new.text(command, arguments));
        assert!(saved == old, "{command}: {report}");
    }
    let dump = bench.text("dump", &[]);
    assert!(
        dump.contains("run") && dump.contains("cleaned up to"),
        "{dump}"
    );
}
