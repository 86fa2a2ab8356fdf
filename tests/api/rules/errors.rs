//! What cannot be opened, and why, by name; what must be asked for differently.

use std::fs;
use std::path::{Path, PathBuf};

use revtree::{Create, Db, Durability, Error, ErrorKind, Options, Result};

/// A closed store with a hundred keys.
fn store(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("store");
    let db = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    for n in 0..100 {
        db.put(format!("k{n}"), vec![b'v'; 2000]).unwrap();
    }
    db.close().unwrap();
    path
}

/// Opens in every way there is; all must fail the same way, and leave the file as it was.
fn refused(path: &Path, expected: impl Fn(&Error) -> bool) {
    let before = fs::read(path).ok();
    let ways: [fn() -> Options; 3] = [
        Options::new,
        || Options::new().read_only(),
        || Options::new().create(Create::Never),
    ];
    for way in ways {
        match way().open(path) {
            Ok(_) => panic!("it opened"),
            Err(error) => assert!(expected(&error), "{error:?}"),
        }
    }
    assert_eq!(fs::read(path).ok(), before, "the file was changed");
}

/// Foreign files, empty files and directories are no stores.
#[test]
fn not_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let is_none = |error: &Error| matches!(error, Error::NotAStore { .. });
    let path = dir.path().join("file");
    for len in [0, 1, 100, 4096, 16 << 10, 200_000] {
        fs::write(&path, vec![b'#'; len]).unwrap();
        refused(&path, is_none);
        fs::write(&path, vec![0; len]).unwrap();
        refused(&path, is_none);
    }
    refused(dir.path(), is_none);
}

/// Pipes, sockets and devices are no stores, and opening one does not wait for its other end.
#[test]
fn not_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ways: [fn() -> Options; 2] = [Options::new, || Options::new().read_only()];
    for options in ways {
        for path in [&pipe, Path::new("/dev/null")] {
            let opened = options().open(path);
            assert!(matches!(opened, Err(Error::NotAStore { .. })), "{opened:?}");
        }
        // The system opens none.
        let opened = options().open(&socket);
        assert!(matches!(opened, Err(Error::Io { .. })), "{opened:?}");
    }
}

/// A store that was cut off is refused at every length, or opens with a mark that bytes are missing; it
/// never opens as if it were whole.
#[test]
fn a_truncated_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(&dir);
    let whole = fs::read(&path).unwrap();
    let cut = dir.path().join("cut");
    for part in 0..40 {
        let len = whole.len() * part / 40;
        fs::write(&cut, &whole[..len]).unwrap();
        for read_only in [true, false] {
            fs::write(&cut, &whole[..len]).unwrap();
            let options = Options::new();
            let options = if read_only {
                options.read_only()
            } else {
                options
            };
            match options.open(&cut) {
                Err(Error::NotAStore { .. }) => assert!(len < 16 << 10, "at {len}"),
                Err(Error::Corrupt { .. }) => {}
                Err(other) => panic!("at {len}: {other:?}"),
                Ok(db) => panic!("at {len} of {}: it opened at {}", whole.len(), db.rev()),
            }
        }
    }
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    });
    !crc
}

/// A store of a newer format is refused with both versions, whatever else it holds.
#[test]
fn a_newer_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(&dir);
    let mut bytes = fs::read(&path).unwrap();
    for slot in 0..4 {
        let slot = &mut bytes[slot * 4096..][..4096];
        if slot.iter().all(|byte| *byte == 0) {
            continue;
        }
        // Magic, two checksums of what follows, the version.
        slot[16..20].copy_from_slice(&7u32.to_le_bytes());
        let sums = [crc32(&slot[16..]), crc32c::crc32c(&slot[16..])];
        slot[8..12].copy_from_slice(&sums[0].to_le_bytes());
        slot[12..16].copy_from_slice(&sums[1].to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    refused(&path, |error| {
        matches!(
            error,
            Error::FormatTooNew {
                found: 7,
                newest: 1
            }
        )
    });
}

/// A file in use is refused for writing, naming this process; reading beside the writer is allowed.
#[test]
fn a_file_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(&dir);
    let db = Db::open(&path).unwrap();
    match Db::open(&path) {
        Err(Error::Locked {
            path: locked,
            by_this_process,
        }) => assert_eq!((locked, by_this_process), (path.clone(), true)),
        other => panic!("{other:?}"),
    }
    db.put("more", "1").unwrap();
    let reader = Options::new().read_only().open(&path).unwrap();
    assert_eq!(reader.rev(), db.rev());
    assert_eq!(reader.get("more").unwrap().unwrap().value, "1");
    db.put("more", "2").unwrap();
    assert_eq!(reader.get("more").unwrap().unwrap().value, "1");
    // It reads only.
    let writes: [fn(&Db) -> Result<()>; 7] = [
        |db| db.put("a", "1").map(|_| ()),
        |db| db.delete("a").map(|_| ()),
        |db| db.write().map(|_| ()),
        |db| db.try_write().map(|_| ()),
        |db| db.compact(2).map(|_| ()),
        |db| db.raise_consistent_index(9).map(|_| ()),
        |db| db.sync().map(|_| ()),
    ];
    for write in writes {
        assert!(matches!(write(&reader), Err(Error::ReadOnly)));
    }
    assert_eq!(reader.hash_by_rev(0).unwrap().revision, reader.rev());
    reader.close().unwrap();
    db.put("more", "3").unwrap();
}

/// A file without permission to write is refused by the operating system's answer, and opens for reading.
/// (A user who may write everything is not refused, and shows nothing here.)
#[test]
fn a_file_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(&dir);
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    if fs::OpenOptions::new().write(true).open(&path).is_err() {
        match Db::open(&path) {
            Err(Error::Io { cause, .. }) => {
                assert_eq!(cause.kind(), std::io::ErrorKind::PermissionDenied);
            }
            other => panic!("{other:?}"),
        }
    }
    let reader = Options::new().read_only().open(&path).unwrap();
    assert_eq!(reader.read().unwrap().range(..).count().unwrap(), 100);
}

/// Whether a store may be made is decided by `create`, and a missing folder is an error.
#[test]
fn creating() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let kind = |result: Result<Db>| match result {
        Err(Error::Io { cause, .. }) => cause.kind(),
        other => panic!("{other:?}"),
    };
    let open = |create| Options::new().create(create).open(&path);
    let missing = std::io::ErrorKind::NotFound;
    assert_eq!(kind(open(Create::Never)), missing);
    assert_eq!(kind(Options::new().read_only().open(&path)), missing);
    assert!(!path.exists());
    assert!(open(Create::New).unwrap().recovery().created);
    assert_eq!(kind(open(Create::New)), std::io::ErrorKind::AlreadyExists);
    assert!(!open(Create::IfMissing).unwrap().recovery().created);
    assert_eq!(kind(Db::open(dir.path().join("no/store"))), missing);
}

/// Options out of their limits are refused, with the limit.
#[test]
fn options_out_of_limits() {
    for bytes in [0, 1000, 32 << 10, 100_000, 128 << 20] {
        let opened = Options::new().segment_bytes(bytes).open_in_memory();
        assert!(matches!(opened, Err(Error::LimitReached { .. })), "{bytes}");
    }
    for bytes in [0, 1, (64 << 10) - 1, (16 << 40) + 1] {
        let opened = Options::new().store_bytes_max(bytes).open_in_memory();
        assert!(matches!(opened, Err(Error::LimitReached { .. })), "{bytes}");
    }
}

/// A store older than expected is refused with both revisions, and is free again afterwards.
#[test]
fn expect_at_least() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(&dir);
    for rev in [102u64, 1000, u64::MAX] {
        let opened = Options::new().expect_at_least(rev).open(&path);
        match opened {
            Err(Error::RolledBack { found, expected }) => {
                assert_eq!((found.get(), expected.get()), (101, rev));
            }
            other => panic!("{other:?}"),
        }
    }
    for rev in [0u64, 1, 101] {
        let db = Options::new().expect_at_least(rev).open(&path).unwrap();
        assert_eq!(db.rev().get(), 101);
    }
}

/// A store older than expected is left as it was found, also after a crash, and none is made in its place.
#[test]
fn expect_at_least_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let crashed = dir.path().join("crashed");
    let refused = |path: &Path, found: u64, ways: &[fn() -> Options]| {
        for options in ways {
            let opened = options().expect_at_least(1000).open(path);
            match opened {
                Err(Error::RolledBack { found: rev, .. }) => assert_eq!(rev.get(), found),
                other => panic!("{other:?}"),
            }
        }
    };
    let write: [fn() -> Options; 2] = [Options::new, || Options::new().create(Create::New)];
    refused(&path, 1, &write);
    assert!(!path.exists());
    let db = Db::open(&path).unwrap();
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    fs::copy(&path, &crashed).unwrap();
    db.close().unwrap();
    for path in [&path, &crashed] {
        let before = fs::read(path).unwrap();
        refused(path, 3, &[Options::new]);
        assert!(fs::read(path).unwrap() == before, "the file was changed");
    }
    let db = Options::new().expect_at_least(3).open(&crashed).unwrap();
    assert!(!db.recovery().clean);
    assert_eq!(db.get("a").unwrap().unwrap().value, "2");
    // A new store is at revision 1, and may be asked for.
    let new = dir.path().join("new");
    assert!(Options::new().expect_at_least(1).open(&new).is_ok());
    // A restore is to whatever revision it is to.
    let db = Options::new().expect_at_least(3).open(&path).unwrap();
    Db::open(&new).unwrap().close().unwrap();
    db.restore(&new).unwrap();
    assert_eq!(db.rev().get(), 1);
}

/// A revision that is not there yet or no more is refused by name, the future first; with both numbers.
#[test]
fn revisions_that_cannot_be_read() {
    let db = super::memory();
    for n in 0..8 {
        db.put("a", n.to_string()).unwrap();
    }
    db.compact(5).unwrap();
    let future = |error: Error| match error {
        Error::FutureRevision { requested, current } => (requested.get(), current.get()),
        other => panic!("{other}"),
    };
    assert_eq!(future(db.read_at(10).unwrap_err()), (10, 9));
    assert_eq!(future(db.hash_by_rev(u64::MAX).unwrap_err()), (u64::MAX, 9));
    assert_eq!(future(db.compact(10).unwrap_err()), (10, 9));
    let compacted = |error: Error| match error {
        Error::Compacted {
            requested,
            compacted,
        } => (requested.get(), compacted.get()),
        other => panic!("{other}"),
    };
    assert_eq!(compacted(db.read_at(4).unwrap_err()), (4, 5));
    assert!(db.read_at(5).is_ok());
    assert_eq!(compacted(db.hash_by_rev(1).unwrap_err()), (1, 5));
    assert_eq!(compacted(db.compact(5).unwrap_err()), (5, 5));
    let error = db.read_at(4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AskDifferently);
    let text = error.to_string();
    assert!(text.contains('4') && text.contains('5'), "{text}");
    assert_eq!(std::io::Error::from(error).to_string(), text);
}

/// A record that is damaged on the medium is named where it lies; the others are read.
#[test]
fn a_damaged_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Options::new()
        .durability(Durability::Flushed)
        .open(&path)
        .unwrap();
    for n in 0..10 {
        db.put(format!("k{n}"), format!("the value number {n}"))
            .unwrap();
    }
    db.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let value = b"the value number 4";
    let place = bytes
        .windows(value.len())
        .position(|part| part == value)
        .unwrap();
    bytes[place + 3] ^= 0x20;
    fs::write(&path, bytes).unwrap();
    let db = Db::open(&path).unwrap();
    let error = db.get("k4").unwrap_err();
    let near = |offset: u64| offset.abs_diff(place as u64) < 200;
    assert!(
        matches!(error, Error::Corrupt { offset, .. } if near(offset)),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Restore);
    let view = db.read().unwrap();
    let good = view.range(..).iter().filter(Result::is_ok).count();
    assert_eq!((good, view.range(..).iter().count()), (9, 10));
    assert_eq!(
        view.range(..)
            .keys_only()
            .iter()
            .filter(Result::is_ok)
            .count(),
        10
    );
    assert!(matches!(db.hash_by_rev(0), Err(Error::Corrupt { .. })));
    assert_eq!(db.get("k5").unwrap().unwrap().value, "the value number 5");
}

/// Changes one bit of the record with this key and value: of the key, which is under its head's checksum,
/// or of the value.
fn damage(path: &Path, key_and_value: &str, in_head: bool) {
    let mut bytes = fs::read(path).unwrap();
    let found = bytes
        .windows(key_and_value.len())
        .position(|part| part == key_and_value.as_bytes());
    let place = found.unwrap_or_else(|| panic!("{key_and_value} is not there"));
    let last = key_and_value.len() - 1;
    bytes[if in_head { place } else { place + last }] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// A closed store with keys `key000` on, each of whose values begins with `=`.
fn keyed(dir: &tempfile::TempDir, keys: usize) -> PathBuf {
    let path = dir.path().join("store");
    // Synced at the close only, so that many records share a leaf.
    let lazy = Durability::Batched {
        changes: u32::MAX,
        interval: std::time::Duration::from_secs(100_000),
    };
    let db = Options::new().durability(lazy).open(&path).unwrap();
    for n in 0..keys {
        db.put(format!("key{n:03}"), format!("={n}=")).unwrap();
    }
    db.close().unwrap();
    path
}

/// One damaged record is one error of a range, whichever it is and by whom it is read; the others are read.
#[test]
fn a_damaged_head_is_one_error() {
    for bad in [0, 64, 127, 128, 172, 299] {
        let dir = tempfile::tempdir().unwrap();
        let path = keyed(&dir, 300);
        damage(&path, &format!("key{bad:03}={bad}="), true);
        let db = Db::open(&path).unwrap();
        let view = db.read().unwrap();
        let txn = db.write().unwrap();
        let count = |records: &mut dyn Iterator<Item = bool>| {
            let mut counts = (0, 0);
            for good in records.take(1000) {
                counts.0 += usize::from(good);
                counts.1 += usize::from(!good);
            }
            counts
        };
        let all = (299, 1);
        let ok = |record: Result<revtree::Record<'_>>| record.is_ok();
        assert_eq!(count(&mut view.range(..).iter().map(ok)), all, "{bad}");
        assert_eq!(
            count(&mut view.range(..).iter().rev().map(ok)),
            all,
            "{bad}"
        );
        assert_eq!(count(&mut txn.range(..).iter().map(ok)), all, "{bad}");
        assert_eq!(
            count(&mut txn.range(..).reverse().iter().map(ok)),
            all,
            "{bad}"
        );
    }
}

/// `changes` gives what lies before a damaged record, one error, and what lies behind its leaf; it ends.
#[test]
fn changes_around_a_damaged_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = keyed(&dir, 900);
    damage(&path, "key400=400=", true);
    let db = Db::open(&path).unwrap();
    let view = db.read().unwrap();
    for back in [false, true] {
        let mut events = view.changes(.., 2.into()..=view.rev()).unwrap();
        let (mut good, mut bad) = (Vec::new(), 0);
        while let Some(event) = if back {
            events.next_back()
        } else {
            events.next()
        } {
            match event {
                Ok(event) => good.push(event.id.main.get()),
                Err(_) => bad += 1,
            }
            assert!(bad < 10, "it does not go on");
        }
        if back {
            good.reverse();
        }
        assert_eq!(bad, 1);
        assert!(good.is_sorted() && good.last() == Some(&901));
        // The first record is at revision 2, the damaged one at 402.
        let before = good.iter().filter(|rev| **rev < 402).count();
        assert_eq!(before, 400, "back: {back}");
    }
}

/// A damaged record whose key is to be looked at is an error of `changes` too, not an endless row of them.
#[test]
fn changes_end_where_a_key_cannot_be_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = keyed(&dir, 10);
    let db = Db::open(&path).unwrap();
    db.put("key003", "=newest=").unwrap();
    db.compact(5).unwrap();
    db.close().unwrap();
    damage(&path, "key003=newest=", true);
    let db = Db::open(&path).unwrap();
    let view = db.read().unwrap();
    let events = view.changes(.., 5.into()..=12.into()).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = events.take(50).partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (6, 2));
}

/// An old version that is damaged does not keep the key from being written, nor the store from it.
#[test]
fn a_damaged_old_version_does_not_stop_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    for n in 1..48 {
        db.put("versions", format!("={n}=")).unwrap();
    }
    db.close().unwrap();
    damage(&path, "versions=40=", true);
    let db = Db::open(&path).unwrap();
    let mut txn = db.write().unwrap();
    txn.put("another", "1").unwrap();
    txn.put("versions", "=48=").unwrap();
    txn.commit().unwrap();
    db.put("more", "1").unwrap();
    assert!(!db.stats().poisoned);
    assert_eq!(db.get("versions").unwrap().unwrap().version, 48);
}

/// A key that would have to be compared with a damaged one: the put fails by itself where only that could
/// tell its place, and before anything is written; where the others tell it, it is made.
#[test]
fn a_damaged_neighbour_does_not_poison() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    db.put("p", "1").unwrap();
    // Their first eight bytes, and the next ones, are the same: only the records tell them apart.
    for n in 0..4 {
        db.put(format!("aaaaaaaabbbb{n}"), format!("={n}="))
            .unwrap();
    }
    db.close().unwrap();
    damage(&path, "aaaaaaaabbbb2=2=", true);
    let db = Db::open(&path).unwrap();
    let rev = db.rev();
    assert!(matches!(
        db.put("aaaaaaaabbbb1+", "1"),
        Err(Error::Corrupt { .. })
    ));
    let mut txn = db.write().unwrap();
    for key in ["a", "aaaaaaaabbbb0+", "aaaaaaaabbbb2+", "b", "z"] {
        txn.put(key, "1").unwrap();
    }
    assert!(matches!(txn.commit(), Err(Error::Corrupt { .. })));
    assert_eq!(db.rev(), rev);
    for key in ["a", "aaaaaaaabbbb0+", "b", "z"] {
        assert!(db.get(key).unwrap().is_none(), "{key} is left");
    }
    db.put("aaaaaaaabbbb5", "1").unwrap();
    db.put("aaaaaaaabbbb0+", "1").unwrap();
    db.put("zz", "1").unwrap();
    assert!(!db.stats().poisoned);
    let keys = ["0", "0+", "1", "", "3", "5"];
    let keys = keys.map(|end| (!end.is_empty()).then(|| format!("aaaaaaaabbbb{end}")));
    let view = db.read().unwrap();
    let read = |range: revtree::Range<'_>| {
        let records = range.iter().map(|record| {
            let record = record.ok()?;
            Some(String::from_utf8(record.key().to_vec()).unwrap())
        });
        records.collect::<Vec<_>>()
    };
    // From a key that is there, and from one beside the damaged one.
    for (from, first) in [
        ("aaaaaaaabbbb", 0),
        ("aaaaaaaabbbb1", 2),
        ("aaaaaaaabbbb2", 3),
    ] {
        let range = || view.range(from.."b");
        assert_eq!(read(range()), keys[first..], "from {from}");
        let mut back = read(range().reverse());
        back.reverse();
        assert_eq!(back, keys[first..], "from {from}");
        match range().count() {
            Ok(count) => assert_eq!(count, (keys.len() - first) as u64),
            // Nobody can tell whether the damaged one is below the bound.
            Err(error) => assert!(
                first == 3 && matches!(error, Error::Corrupt { .. }),
                "{error}"
            ),
        }
    }
    assert_eq!(read(view.range(.."aaaaaaaabbbb2+")), keys[..4]);
    assert_eq!(read(view.range("aaaaaaaabbbb3"..)).len(), 4);
    // What the index says of the new keys lasts.
    drop(view);
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    assert_eq!(read(db.read().unwrap().range(..)).len(), 8);
    assert_eq!(db.get("aaaaaaaabbbb0+").unwrap().unwrap().value, "1");
}

/// A leaf of which one record is damaged can become two.
#[test]
fn a_damaged_record_does_not_keep_a_leaf_from_being_split() {
    for bad in [0, 20, 31, 32, 33, 40, 59] {
        let dir = tempfile::tempdir().unwrap();
        let path = keyed(&dir, 60);
        damage(&path, &format!("key{bad:03}={bad}="), true);
        let db = Db::open(&path).unwrap();
        for n in 60..200 {
            db.put(format!("key{n:03}"), "1").unwrap();
        }
        let view = db.read().unwrap();
        let (good, bad): (Vec<_>, Vec<_>) = view.range(..).iter().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (199, 1));
    }
}

/// The hash of one compaction that cannot be made does not hide the others.
#[test]
fn compaction_hashes_that_cannot_be_made_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = keyed(&dir, 10);
    damage(&path, "key007=7=", false);
    let db = Db::open(&path).unwrap();
    db.compact(3).unwrap();
    db.compact(10).unwrap();
    let hashes = db.compaction_hashes();
    assert_eq!(
        hashes
            .iter()
            .map(|hash| hash.revision.get())
            .collect::<Vec<_>>(),
        [3]
    );
}

/// What open found stays what it was.
#[test]
fn recovery_is_of_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = keyed(&dir, 3);
    let db = Db::open(&path).unwrap();
    let recovery = db.recovery();
    assert_eq!(recovery.revision.get(), 4);
    db.put("a", "1").unwrap();
    assert_eq!(db.recovery(), recovery);
}

/// Recovery after a crash is told: what is replayed and what is copied, up to their ends; a clean open has
/// none.
#[test]
fn recovery_tells_its_progress() {
    let dir = tempfile::tempdir().unwrap();
    let (path, crashed) = (dir.path().join("store"), dir.path().join("crashed"));
    let db = Options::new()
        .durability(Durability::Flushed)
        .open(&path)
        .unwrap();
    for n in 0..600 {
        db.put("a", n.to_string()).unwrap();
    }
    fs::copy(&path, &crashed).unwrap();
    db.close().unwrap();
    for (path, reports) in [(&path, 0), (&crashed, 3)] {
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let tell = std::sync::Arc::clone(&told);
        let options =
            Options::new().on_progress(move |progress| tell.lock().unwrap().push(progress));
        options.open(path).unwrap();
        for what in ["frames replayed", "frames copied"] {
            let told = told.lock().unwrap();
            let of = told.iter().filter(|progress| progress.what == what);
            let of: Vec<_> = of.map(|progress| (progress.done, progress.total)).collect();
            assert_eq!(of.len(), reports, "{of:?}");
            assert!(of.is_sorted());
            if let Some(&(done, total)) = of.last() {
                assert!(done >= 600 && total == Some(done), "{of:?}");
            }
        }
    }
}
