//! Ranges, histories and changes: limits, both ends, keys without values, other revisions.

use revtree::{
    Applied, ChangeId, Db, Error, EventKind, KeyRange, KeyValue, LeaseId, Options, Prev, Range,
    Record, Revision,
};

use super::memory;

/// a to h at revisions 2 to 9; b is deleted at 10, c overwritten at 11.
fn letters() -> Db {
    let db = memory();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        db.put(key, key).unwrap();
    }
    db.delete("b").unwrap();
    db.put("c", "C").unwrap();
    db
}

fn key(record: revtree::Result<Record<'_>>) -> char {
    record.unwrap().key()[0].into()
}

/// The keys that come when `pattern` says from which end to take: `<` the front, `>` the back.
fn take(range: &Range<'_>, pattern: &str) -> String {
    let mut records = range.iter();
    let mut taken = String::new();
    for end in pattern.chars() {
        let record = if end == '<' {
            records.next()
        } else {
            records.next_back()
        };
        taken.extend(record.map(key));
    }
    // Once one end says that nothing is left, neither end gives anything.
    if taken.len() < pattern.len() {
        assert!(records.next().is_none() && records.next_back().is_none());
    }
    taken
}

/// A limit counts from the chosen direction's start, whichever end the records are then taken from.
#[test]
fn limits_from_both_ends() {
    let db = letters();
    let view = db.read().unwrap();
    let mut txn = db.write().unwrap();
    // The same keys in a transaction that made some of them.
    txn.delete("d").unwrap();
    txn.put("d", "again").unwrap();
    type Row = (&'static str, fn(Range<'_>) -> Range<'_>, &'static str);
    let table: [Row; 12] = [
        ("<<<<<<<<", |range| range, "acdefgh"),
        (">>>>>>>>", |range| range, "hgfedca"),
        ("<><><><>", |range| range, "ahcgdfe"),
        ("<<<<", |range| range.limit(3), "acd"),
        (">>>>", |range| range.limit(3), "dca"),
        ("<>><", |range| range.limit(3), "adc"),
        ("<<<<", |range| range.reverse().limit(3), "hgf"),
        (">>>>", |range| range.reverse().limit(3), "fgh"),
        ("><<>", |range| range.reverse().limit(3), "fhg"),
        ("<>", |range| range.limit(0), ""),
        (">>>>>>>>", |range| range.limit(100), "hgfedca"),
        ("<<<<<<<<", |range| range.reverse().reverse(), "acdefgh"),
    ];
    for (pattern, ask, expected) in table {
        assert_eq!(take(&ask(view.range(..)), pattern), expected, "{pattern}");
        assert_eq!(
            take(&ask(txn.range(..)), pattern),
            expected,
            "{pattern} in a transaction"
        );
    }
}

/// Ends meet exactly over many records: none twice, none left out, with any mixture of both ends.
#[test]
fn ends_meet() {
    let db = memory();
    let mut txn = db.write().unwrap();
    for n in 0..1000u32 {
        txn.put(n.to_be_bytes(), "").unwrap();
    }
    txn.commit().unwrap();
    let view = db.read().unwrap();
    let number = |key: &[u8]| u32::from_be_bytes(key.try_into().unwrap());
    for step in [1usize, 2, 3, 129, 700, 1001] {
        let mut records = view.range(..).into_iter();
        let mut owned = view.clone().into_range(..);
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for n in 0..1000 {
            let back = (n / step) % 2 == 1;
            let (record, kv) = if back {
                (records.next_back(), owned.next_back())
            } else {
                (records.next(), owned.next())
            };
            let found = number(record.unwrap().unwrap().key());
            assert_eq!(number(&kv.unwrap().unwrap().key), found);
            if back {
                high.push(found);
            } else {
                low.push(found);
            }
        }
        assert!(records.next().is_none() && records.next_back().is_none());
        assert!(owned.next().is_none() && owned.next_back().is_none());
        high.reverse();
        low.extend(high);
        assert!(low.into_iter().eq(0..1000), "by {step}");
    }
}

/// Without values everything else is right, the lease too.
#[test]
fn keys_only_has_all_but_the_value() {
    let db = memory();
    let mut txn = db.write().unwrap();
    txn.put_with_lease("a", "some value", LeaseId(42)).unwrap();
    let check = |record: &Record<'_>| {
        assert_eq!((record.key(), record.value()), (&b"a"[..], &b""[..]));
        assert_eq!((record.value_len(), record.lease()), (10, LeaseId(42)));
        assert_eq!((record.mod_revision().get(), record.version()), (2, 1));
        assert_eq!(record.create_revision().get(), 2);
        let kv = record.to_key_value();
        assert_eq!((kv.value.len(), kv.lease), (0, LeaseId(42)));
        assert_eq!(record.share(), kv);
    };
    check(&txn.range(..).keys_only().iter().next().unwrap().unwrap());
    txn.commit().unwrap();
    let view = db.read().unwrap();
    check(
        &view
            .range(..)
            .keys_only()
            .iter()
            .next_back()
            .unwrap()
            .unwrap(),
    );
    let found = view.range(..).keys_only().collect().unwrap();
    assert_eq!(
        (found.count, found.kvs[0].lease, found.kvs[0].value.len()),
        (1, LeaseId(42), 0)
    );
}

/// `at` reads another revision with the same keys, limits and directions; the result still says the store's.
#[test]
fn at_another_revision() {
    let db = letters();
    let view = db.read().unwrap();
    let at = |rev: u64| view.range(..).at(rev);
    assert_eq!(take(&at(4).unwrap(), "<<<<<"), "abc");
    assert_eq!(take(&at(9).unwrap().reverse().limit(2), "<<<"), "hg");
    assert_eq!(take(&at(9).unwrap().limit(2), ">>>"), "ba");
    assert_eq!(at(9).unwrap().count().unwrap(), 8);
    assert_eq!(at(10).unwrap().count().unwrap(), 7);
    assert_eq!(at(0).unwrap().count().unwrap(), 7);
    assert_eq!(at(1).unwrap().count().unwrap(), 0);
    assert_eq!(at(4).unwrap().collect().unwrap().revision.get(), 11);
    assert!(matches!(
        at(12),
        Err(Error::FutureRevision { requested, current })
            if (requested.get(), current.get()) == (12, 11)
    ));
    // Up to the store's revision when the view was opened, not further, and not less for an old view.
    db.put("i", "i").unwrap();
    assert!(matches!(at(12), Err(Error::FutureRevision { .. })));
    let old = db.read_at(3).unwrap();
    assert_eq!(old.range(..).at(12).unwrap().count().unwrap(), 8);
    // The live compact revision counts, and what was asked for before stays.
    let before = at(4).unwrap();
    db.compact(6).unwrap();
    assert_eq!(take(&before, "<<<<<"), "abc");
    assert!(matches!(
        at(5),
        Err(Error::Compacted { requested, compacted })
            if (requested.get(), compacted.get()) == (5, 6)
    ));
    assert_eq!(at(6).unwrap().count().unwrap(), 5);
    assert_eq!(take(&old.range(..), "<<<"), "ab");
}

/// Empty ranges, and every way to say a range.
#[test]
fn ranges_of_keys() {
    let db = letters();
    let view = db.read().unwrap();
    let table: [(KeyRange, &str); 16] = [
        ("a".into(), "a"),
        (String::from("h").into(), "h"),
        ((&b"c"[..]).into(), "c"),
        (b"c".into(), "c"),
        (vec![b'c'].into(), "c"),
        ("b".into(), ""),
        (("c".."e").into(), "cd"),
        (("c"..="e").into(), "cde"),
        (("f"..).into(), "fgh"),
        ((.."d").into(), "ac"),
        ((..="d").into(), "acd"),
        ((..).into(), "acdefgh"),
        (("e".."c").into(), ""),
        (("c".."c").into(), ""),
        (KeyRange::prefix("g"), "g"),
        (KeyRange::from_etcd(b"g", Some(b"")), "gh"),
    ];
    for (range, expected) in table {
        assert_eq!(
            take(&view.range(range.clone()), "<<<<<<<<"),
            expected,
            "{range:?}"
        );
        let count = view.range(range.clone()).count().unwrap();
        assert_eq!(count, expected.len() as u64, "{range:?}");
    }
}

/// A prefix has the keys that begin with it and no other, also where it ends in the last byte: its end is the byte
/// before raised, and of such bytes alone there is none. Planted, a prefix that ended nowhere after 0xFF was
/// found by nothing.
#[test]
fn prefixes_that_end_in_the_last_byte() {
    let keys: [&[u8]; 9] = [
        b"a",
        b"a\xfe\xff",
        b"a\xff",
        b"a\xff\0",
        b"a\xff\xff",
        b"b",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\x01",
    ];
    let db = memory();
    for key in keys {
        db.put(key, "").unwrap();
    }
    let view = db.read().unwrap();
    let others: [&[u8]; 3] = [b"", b"a\xfe", b"\xff\xff\xff"];
    for prefix in keys.into_iter().chain(others) {
        let range = KeyRange::prefix(prefix);
        let found = view.range(range.clone());
        let found = found.iter().map(|record| record.unwrap().key().to_vec());
        let found: Vec<Vec<u8>> = found.collect();
        let with = keys.into_iter().filter(|key| key.starts_with(prefix));
        assert_eq!(found, with.collect::<Vec<_>>(), "{prefix:?}");
        assert!(
            keys.iter()
                .all(|key| range.contains(key) == key.starts_with(prefix))
        );
    }
}

/// A key's history and the changes of a range come from both ends, whole and with what was before.
#[test]
fn history_and_changes_from_both_ends() {
    let db = letters();
    db.put("b", "again").unwrap();
    let view = db.read().unwrap();
    let mut events = view.history("b").unwrap();
    let last = events.next_back().unwrap().unwrap();
    assert!(last.is_create() && matches!(last.prev, Prev::None));
    let first = events.next().unwrap().unwrap();
    assert_eq!(
        (first.id, first.kv.value),
        (ChangeId::new(3.into(), 0), "b".into())
    );
    let middle = events.next_back().unwrap().unwrap();
    assert_eq!(
        (middle.kind, middle.kv.mod_revision.get()),
        (EventKind::Delete, 10)
    );
    assert!(matches!(middle.prev, Prev::Value(kv) if kv.value == "b"));
    assert!(events.next().is_none() && events.next_back().is_none());

    let revs = |pattern: &str, keys: KeyRange, from: u64, to: u64| -> Vec<u64> {
        let mut events = view.changes(keys, from.into()..=to.into()).unwrap();
        let mut revs = Vec::new();
        for end in pattern.chars() {
            let event = if end == '<' {
                events.next()
            } else {
                events.next_back()
            };
            revs.extend(event.map(|event| event.unwrap().id.main.get()));
        }
        revs
    };
    assert_eq!(
        revs("<<<<<<<<<<<<", KeyRange::all(), 1, 12),
        Vec::from_iter(2..=12)
    );
    assert_eq!(revs(">>>>", KeyRange::all(), 5, 7), [7, 6, 5]);
    assert_eq!(revs("<><><", ("b".."d").into(), 2, 12), [3, 12, 4, 11, 10]);
    assert_eq!(revs("<<", KeyRange::all(), 7, 6), [0; 0]);
    let far = view.changes(.., Revision::new(2)..=Revision::new(13));
    assert!(matches!(far, Err(Error::FutureRevision { .. })));
    db.compact(6).unwrap();
    let early = view.changes(.., Revision::new(5)..=Revision::new(12));
    assert!(matches!(early, Err(Error::Compacted { .. })));
    let c = view.change(ChangeId::new(11.into(), 0)).unwrap();
    assert!(c.is_modify() && matches!(c.prev, Prev::Value(kv) if kv.value == "c"));
    let nothing = ChangeId::new(11.into(), 1);
    assert!(matches!(view.change(nothing), Err(Error::RevisionNotFound(id)) if id == nothing));
}

/// Counts at an older revision agree with the walk also where an import lost the first put of a key's life,
/// or what a delete deleted: compactions of etcd can (SEMANTICS §4.5).
#[test]
fn counts_of_lives_without_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let mut importer = Db::importer(dir.path().join("store"), Options::new()).unwrap();
    let mut main = 1;
    let mut next = || {
        main += 1;
        ChangeId::new(Revision::new(main), 0)
    };
    let kv = |key: &str, id: ChangeId, create: u64, version: u64| {
        let (key, value) = (key.to_owned().into(), "v".into());
        KeyValue::new(key, value, create.into(), id.main, version, LeaseId::NONE)
    };
    for n in 0..20 {
        let id = next();
        let (key, create) = (format!("other{n}"), id.main.get());
        importer.put(id, &kv(&key, id, create, 1)).unwrap();
    }
    let deleted = next();
    importer.delete(deleted, b"lost").unwrap();
    // The put that made it again was in the revision of the delete.
    let id = next();
    importer
        .put(id, &kv("lost", id, deleted.main.get(), 2))
        .unwrap();
    let id = next();
    importer
        .put(id, &kv("lost", id, deleted.main.get(), 3))
        .unwrap();
    // Nothing at all is known of what was before.
    let id = next();
    importer.put(id, &kv("late", id, 3, 7)).unwrap();
    importer.delete(next(), b"gone").unwrap();
    importer.delete(next(), b"gone").unwrap();
    let id = next();
    importer.put(id, &kv("other0", id, 2, 2)).unwrap();
    let last = next().main;
    let db = importer
        .finish(last, Some(deleted.main), Applied::default())
        .unwrap();
    let view = db.read().unwrap();
    for rev in deleted.main.get()..=last.get() {
        let range = view.range(..).at(rev).unwrap();
        let walked = range.iter().count() as u64;
        assert_eq!(range.count().unwrap(), walked, "at {rev}");
    }
}

/// What was asked for with `at` is forgotten by the next `at`; 0 is the reader's own revision again, and a
/// transaction's own changes are.
#[test]
fn at_again() {
    let db = letters();
    let view = db.read_at(9).unwrap();
    let at_four = view.range(..).at(4).unwrap();
    assert_eq!(
        take(&at_four.clone().at(0).unwrap(), "<<<<<<<<"),
        "abcdefgh"
    );
    assert_eq!(take(&at_four.at(3).unwrap(), "<<<"), "ab");
    let mut txn = db.write().unwrap();
    txn.put("i", "i").unwrap();
    let at_four = txn.range(..).at(4).unwrap();
    assert_eq!(take(&at_four, "<<<<"), "abc");
    for rev in [0, 12] {
        let own = at_four.clone().at(rev).unwrap();
        assert_eq!(take(&own, "<<<<<<<<"), "acdefghi", "{rev}");
    }
}

/// A transaction builds on commits that are not visible yet; what it reads from its base can be asked for by
/// revision too.
#[test]
fn the_base_of_a_transaction_before_it_is_visible() {
    let db = letters();
    let mut txn = db.write().unwrap();
    txn.put("i", "i").unwrap();
    let submitted = txn.submit().unwrap();
    let txn = db.write().unwrap();
    let base = txn.base();
    assert_eq!((db.rev().get(), base.rev().get()), (11, 12));
    assert_eq!(base.range(..).at(12).unwrap().count().unwrap(), 8);
    assert_eq!(txn.range(..).at(12).unwrap().count().unwrap(), 8);
    assert_eq!(txn.range(..).at(11).unwrap().count().unwrap(), 7);
    let changes = base.changes(.., 12.into()..=12.into()).unwrap();
    assert_eq!(
        changes.map(|event| event.unwrap().id.main.get()).max(),
        Some(12)
    );
    assert_eq!(base.history("i").unwrap().count(), 1);
    assert!(matches!(
        base.range(..).at(13),
        Err(Error::FutureRevision { .. })
    ));
    drop(txn);
    submitted.wait().unwrap();
}

/// What `history` and `changes` were asked for stays whole across a compaction, with what was before each
/// change.
#[test]
fn events_outlive_a_compaction() {
    let db = memory();
    for n in 0..5 {
        db.put("a", n.to_string()).unwrap();
    }
    let view = db.read().unwrap();
    let history = view.history("a").unwrap();
    let changes = view.changes(.., 2.into()..=6.into()).unwrap();
    db.compact(6).unwrap();
    for events in [history, changes] {
        let before: Vec<_> = events
            .map(|event| match event.unwrap().prev {
                Prev::Value(kv) => String::from_utf8(kv.value.to_vec()).unwrap(),
                Prev::None => "none".into(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(before, ["none", "0", "1", "2", "3"]);
    }
}

/// A transaction's range is read as it is asked for, from both ends, its own changes among what was there: any
/// order of taking gives the keys that there are.
#[test]
fn ends_meet_in_a_transaction() {
    let db = memory();
    for n in 0..200u32 {
        db.put(format!("k{n:03}"), "old").unwrap();
    }
    let mut txn = db.write().unwrap();
    let mut expected: std::collections::BTreeMap<String, &str> =
        (0..200u32).map(|n| (format!("k{n:03}"), "old")).collect();
    for n in 0..200u32 {
        let key = format!("k{n:03}");
        match n % 7 {
            0 => {
                txn.delete(&key).unwrap();
                expected.remove(&key);
            }
            1 => {
                txn.put(&key, "new").unwrap();
                expected.insert(key, "new");
            }
            2 => {
                let key = format!("k{n:03}+");
                txn.put(&key, "added").unwrap();
                expected.insert(key, "added");
            }
            3 => {
                let key = format!("k{n:03}-");
                txn.put(&key, "gone").unwrap();
                txn.delete(&key).unwrap();
            }
            _ => {}
        }
    }
    for (from, to) in [("", "z"), ("k050", "k151"), ("k105", "k106"), ("k0", "k0")] {
        let expected: Vec<_> = expected
            .range(from.to_owned()..to.to_owned())
            .map(|(key, value)| (key.clone(), (*value).to_owned()))
            .collect();
        for step in 1..6 {
            for reverse in [false, true] {
                let range = txn.range(from..to);
                let range = if reverse { range.reverse() } else { range };
                let mut records = range.iter();
                let (mut low, mut high) = (Vec::new(), Vec::new());
                for n in 0.. {
                    let back = n % step == 0;
                    let next = if back {
                        records.next_back()
                    } else {
                        records.next()
                    };
                    let Some(record) = next else { break };
                    let record = record.unwrap();
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    let ends = if back == reverse { &mut low } else { &mut high };
                    ends.push((text(record.key()), text(record.value())));
                }
                assert!(records.next().is_none() && records.next_back().is_none());
                high.reverse();
                low.extend(high);
                assert_eq!(low, expected, "{from}..{to} by {step}, reverse: {reverse}");
            }
        }
    }
}
