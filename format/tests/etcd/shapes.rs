//! Every shape of file that bbolt can write reads back as what was written.

use revtree_format::etcd::{Bbolt, Bucket, KeyValue, MetaBucket, RevisionKey, bucket};
use revtree_test_bbolt::{Contents, Freelist, Image, Metas, Options, vector_a, write};

use crate::support::{Counted, Numbers, Walked, pairs_of, walk};

/// Buckets of many pairs, of few, of none, of long keys and of long values.
fn mixed(pairs: usize) -> Contents {
    let mut numbers = Numbers(0x5eed_0002);
    let mut contents = Contents::etcd();
    for i in 0..pairs as u64 {
        let value = numbers.below(300);
        contents.put("key", &i.to_be_bytes(), &numbers.bytes(value));
    }
    for len in [0, 1, 3_000, 4_064, 4_065, 9_000, 70_000, 300_000] {
        contents.put(
            "long values",
            &(len as u64).to_be_bytes(),
            &numbers.bytes(len),
        );
    }
    for i in 0..9u8 {
        let len = 700 * usize::from(i);
        contents.put(
            "long keys",
            &[&[i][..], &numbers.bytes(len)].concat(),
            b"value",
        );
    }
    contents.put("small", b"", b"the empty key");
    contents.create("nothing");
    contents
}

fn expected(contents: &Contents) -> Walked {
    let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
    let bucket = |(name, pairs): (&[u8], &revtree_test_bbolt::Pairs)| {
        (name.to_vec(), pairs.iter().map(owned).collect())
    };
    contents.buckets().map(bucket).collect()
}

/// Writes, reads borrowed and owned, and compares.
fn check(options: &Options, contents: &Contents) -> Image {
    let image = write(options, contents);
    assert_eq!(
        walk(image.database()).as_ref(),
        Ok(&expected(contents)),
        "{options:?}"
    );
    let asked = std::cell::Cell::new(0);
    let counted = Counted {
        bytes: image.database(),
        asked: &asked,
    };
    assert_eq!(
        walk(counted).as_ref(),
        Ok(&expected(contents)),
        "{options:?}"
    );
    let most = 2 * image.database().len() as u64 + 200;
    assert!(
        asked.get() <= most,
        "a page is read twice at most: {} of {most}",
        asked.get()
    );
    assert_eq!(image.hash_is_right(), options.hash);
    image
}

/// Goal: all combinations of page sizes, fan-outs, inline buckets, free lists and meta pages.
#[test]
fn every_shape_reads_back() {
    let contents = mixed(300);
    for page_bytes in [1024, 4096, 16_384, 65_536] {
        for elements_max in [None, Some(2), Some(7)] {
            for inline in [true, false] {
                for (freelist, metas, hash) in [
                    (Freelist::NotKept, Metas::Snapshot, true),
                    (Freelist::Kept, Metas::Live, false),
                ] {
                    let options = Options {
                        page_bytes,
                        elements_max,
                        inline,
                        freelist,
                        metas,
                        txid: 7,
                        free_pages: 5,
                        slack_pages: 3,
                        hash,
                    };
                    check(&options, &contents);
                }
            }
        }
    }
}

/// Goal: the shapes really are what they claim: deep trees, overflow pages, inline buckets.
#[test]
fn shapes_are_what_they_claim() {
    let options = Options {
        elements_max: Some(3),
        ..Options::default()
    };
    let image = check(&options, &mixed(300));
    assert!(image.levels("key") >= 6, "{} levels", image.levels("key"));
    assert!(image.pages_of("long values").any(|page| page.pages > 70));
    let database = Bbolt::open(image.database()).expect("a good file");
    let inline: Vec<_> = database.buckets().expect("buckets");
    let inline: Vec<_> = inline
        .iter()
        .filter(|bucket| bucket.is_inline())
        .map(Bucket::name)
        .collect();
    assert!(
        inline.contains(&&b"small"[..]) && inline.contains(&&b"nothing"[..]),
        "{inline:?}"
    );
    assert!(!inline.contains(&&b"key"[..]), "{inline:?}");
    let image = check(
        &Options {
            page_bytes: 1024,
            ..Options::default()
        },
        &mixed(3000),
    );
    assert!(image.levels("key") >= 3, "{} levels", image.levels("key"));
    let mut branches = image.pages().iter().filter(|page| page.height > 0);
    assert!(
        branches.any(|page| page.pages > 1),
        "a branch page with overflow"
    );
}

/// Goal: overflow may reach exactly to the high-water mark. The tree of buckets is written last, and
/// a long name makes it long.
#[test]
fn last_page_may_have_overflow() {
    let mut contents = mixed(10);
    contents.create(&"name".repeat(3000));
    let image = check(&Options::default(), &contents);
    let last = image.pages().last().expect("has pages");
    assert!(last.pages > 1 && last.bucket.is_empty());
    assert_eq!(
        image.page_offset(last.id) + last.pages * 4096,
        image.database().len()
    );
}

/// Goal: a database without buckets is a database.
#[test]
fn no_buckets_are_no_pairs() {
    check(&Options::default(), &Contents::new());
    check(
        &Options {
            metas: Metas::Live,
            ..Options::default()
        },
        &Contents::new(),
    );
}

/// Goal: the meta page with the larger transaction counts, whichever of the two it is.
#[test]
fn newer_meta_page_counts() {
    for txid in [6, 7] {
        let options = Options {
            metas: Metas::Live,
            txid,
            ..Options::default()
        };
        let image = check(&options, &mixed(10));
        let database = Bbolt::open(image.database()).expect("a good file");
        assert_eq!(
            (database.meta().txid, database.meta().page),
            (txid, txid % 2)
        );
    }
}

/// Goal: with one meta page damaged the other is found, at any page size.
#[test]
fn other_meta_page_is_found() {
    let contents = mixed(10);
    for page_bytes in (0..15).map(|shift| 1024 << shift) {
        for broken in [0, 1] {
            let options = Options {
                page_bytes,
                ..Options::default()
            };
            let mut image = write(&options, &contents);
            image.break_meta(broken);
            let database = Bbolt::open(image.database()).expect("one is left");
            assert_eq!(database.meta().page, 1 - broken, "page size {page_bytes}");
            assert_eq!(
                walk(image.database()),
                Ok(expected(&contents)),
                "page size {page_bytes}"
            );
        }
    }
    let options = Options {
        metas: Metas::Live,
        txid: 6,
        ..Options::default()
    };
    let mut image = write(&options, &contents);
    image.break_meta(0);
    assert_eq!(
        walk(image.database()),
        Ok(Vec::new()),
        "the older state had no buckets"
    );
}

/// Goal: buckets are found by name, with or without pages of their own.
#[test]
fn buckets_are_found_by_name() {
    let image = write(&Options::default(), &mixed(100));
    let database = Bbolt::open(image.database()).expect("a good file");
    for (name, pairs) in [
        ("key", 100),
        ("small", 1),
        ("nothing", 0),
        ("long values", 8),
    ] {
        let bucket = database
            .bucket(name.as_bytes())
            .expect("walks")
            .expect("is there");
        assert_eq!((bucket.name(), bucket.sequence()), (name.as_bytes(), 0));
        let mut cursor = database.cursor(&bucket);
        let mut count = 0;
        while let Some(pair) = cursor.next().expect("walks") {
            let at = usize::try_from(pair.offset).expect("in memory");
            assert_eq!(
                &image.file()[at..at + pair.key.len()],
                pair.key,
                "the offset is right"
            );
            count += 1;
        }
        assert_eq!(count, pairs, "{name}");
    }
    assert_eq!(database.bucket(b"no such"), Ok(None));
}

/// Goal: a snapshot restored with a bumped revision has a record without a value at its end, and a
/// compaction there that is not finished.
#[test]
fn bumped_snapshot_is_read() {
    let mut contents = vector_a().contents();
    assert_eq!(contents.bump_revision(1_000_000), 1_000_012);
    let walked = walk(check(&Options::default(), &contents).database()).expect("a good file");
    let records = pairs_of(&walked, bucket::KEY);
    let (key, value) = records.last().expect("records");
    assert_eq!(
        RevisionKey::parse(key).expect("a key").change.to_string(),
        "1000012.0"
    );
    assert_eq!(KeyValue::decode(value), Ok(KeyValue::default()));
    let mut meta = MetaBucket::default();
    for (key, value) in pairs_of(&walked, bucket::META) {
        meta.accept(&key, &value).expect("known values");
    }
    assert_eq!(meta.finished_compact, None);
    assert_eq!(
        meta.compact_revision().map(|revision| revision.get()),
        Some(1_000_012)
    );
    assert_eq!((meta.consistent_index, meta.term), (Some(17), Some(2)));
}

/// Goal: an interrupted compaction shows as a scheduled revision above the finished one.
#[test]
fn unfinished_compaction_is_read() {
    let mut contents = vector_a().contents();
    contents.finish_compaction(3);
    contents.schedule_compaction(8);
    let walked = walk(check(&Options::default(), &contents).database()).expect("a good file");
    let mut meta = MetaBucket::default();
    for (key, value) in pairs_of(&walked, bucket::META) {
        meta.accept(&key, &value).expect("known values");
    }
    let numbers = [
        meta.finished_compact,
        meta.scheduled_compact,
        meta.compact_revision(),
    ];
    assert_eq!(
        numbers.map(|revision| revision.map(|r| r.get())),
        [Some(3), Some(8), Some(8)]
    );
    assert_eq!(
        pairs_of(&walked, bucket::KEY).len(),
        15,
        "nothing was removed yet"
    );
}
