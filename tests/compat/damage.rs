//! Damaged snapshots become nothing: each kind of damage is an error at its place, and no file is left.

use revtree::Error;
use revtree_format::etcd::{Damage as EtcdDamage, EtcdError, Meta};
use revtree_test_bbolt::{
    Contents, Image, Options as Shape, PageKind, key_value, revision_key, vector_a, write,
};

use crate::import::snapshot_of;
use crate::snapshot::{Folder, imported};

/// Imports what must be refused, and gives the error's offset and text.
#[track_caller]
fn refused(snapshot: &[u8]) -> (u64, String) {
    let folder = Folder::with(snapshot);
    let error = folder.import().unwrap_err();
    assert_eq!(folder.others(), [""; 0], "nothing is left");
    let text = error.to_string();
    match error {
        Error::Import { offset, .. } => (offset, text),
        other => panic!("{other}"),
    }
}

pub(crate) fn sound() -> Image {
    let mut history = vector_a();
    for n in 0..40u8 {
        history.begin().put(&[n], &[n; 300], 0);
    }
    history.begin().put(b"long", &[8; 20_000], 0);
    let shape = Shape {
        elements_max: Some(4),
        ..Shape::default()
    };
    write(&shape, &history.contents())
}

/// Damages a sound snapshot, with the right hash again, and expects an error at this offset.
#[track_caller]
fn damaged(damage: impl FnOnce(&mut Image) -> usize) {
    let mut image = sound();
    let at = damage(&mut image);
    image.rehash();
    let (offset, text) = refused(image.file());
    assert_eq!(offset, at as u64, "{text}");
}

/// Goal: every page of every tree is checked, and damage leaves nothing.
#[test]
fn damaged_pages() {
    for page in sound().pages().to_vec() {
        damaged(|image| {
            image.set_page_id(page.id, 999);
            image.page_offset(page.id)
        });
        damaged(|image| {
            let at = image.page_offset(page.id) + 8;
            image.overwrite(at, &4u16.to_le_bytes());
            at
        });
    }
    let pages: Vec<_> = sound().pages_of("key").cloned().collect();
    let (leaf, root) = (pages[0].id, pages.last().unwrap().id);
    let last_leaf = pages
        .iter()
        .rfind(|page| page.kind == PageKind::Leaf)
        .unwrap();
    damaged(|image| {
        image.swap_first_keys(leaf);
        image.element_offset(leaf, 1)
    });
    damaged(|image| {
        image.set_child(root, 0, root);
        image.element_offset(root, 0)
    });
    damaged(|image| {
        image.set_child(root, 0, 1 << 40);
        image.element_offset(root, 0)
    });
    damaged(|image| {
        image.set_overflow(last_leaf.id, u32::MAX);
        image.page_offset(last_leaf.id) + 12
    });
    damaged(|image| {
        let at = image.element_offset(leaf, 1) + 12;
        image.overwrite(at, &u32::MAX.to_le_bytes());
        at - 12
    });
    damaged(|image| {
        image.break_meta(0);
        image.break_meta(1);
        0
    });
    // One broken meta page is no harm.
    for meta in [0, 1] {
        let mut image = sound();
        image.break_meta(meta);
        image.rehash();
        imported(image.file());
    }
}

/// Goal: a hash that does not fit, a file cut anywhere, and no database at all.
#[test]
fn damaged_files() {
    let image = sound();
    let end = image.database().len();
    for at in [0, 5000, end - 1, end, end + 31] {
        let mut image = sound();
        image.flip(at, 1);
        let (offset, text) = refused(image.file());
        assert_eq!(offset, end as u64, "{text}");
        assert!(text.contains("SHA-256"), "{text}");
    }
    for len in [end + 31, end - 1, 1] {
        let (offset, text) = refused(&image.file()[..len]);
        assert_eq!(offset, len as u64, "{text}");
    }
    for len in [end - 4096, end - 512, 8192] {
        refused(&image.file()[..len]);
    }
    for len in [0, 512, 1 << 16] {
        refused(&vec![0; len]);
        refused(&vec![0xa5; len]);
    }
    let mut other = Contents::new();
    other.put("of something else", b"k", b"v");
    let (_, text) = refused(&snapshot_of(&other));
    assert!(text.contains("no bucket named key"), "{text}");
}

/// Goal: whatever a few bytes are changed to, there is a store or a refusal, and no panic.
#[test]
fn random_damage() {
    let mut state = 0x5eed_u64;
    let mut below = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    let (mut stores, mut refusals) = (0, 0);
    for round in 0..150 {
        let mut image = sound();
        let end = image.database().len();
        let mut flips = Vec::new();
        for _ in 0..=below(3) {
            // Half of them where pages begin, since most bytes are those of values.
            let at = if below(2) == 0 {
                below(end)
            } else {
                below(end / 4096) * 4096 + below(100)
            };
            let mask = 1 << below(8);
            image.flip(at, mask);
            flips.push((at, mask));
        }
        image.rehash();
        let folder = Folder::with(image.file());
        match folder.import() {
            Ok(report) => {
                assert!(
                    folder.open().check().unwrap().is_clean(),
                    "{round}: {flips:?}"
                );
                assert!(report.revision.get() >= 12, "{round}: {flips:?}");
                stores += 1;
            }
            Err(Error::Import { .. }) => {
                assert_eq!(folder.others(), [""; 0], "{round}: {flips:?}");
                refusals += 1;
            }
            Err(other) => panic!("{round}: {flips:?}: {other}"),
        }
    }
    assert!(
        stores > 10 && refusals > 10,
        "{stores} stores, {refusals} refusals"
    );
}

/// A snapshot whose one record is `value` under `key`; where it stands.
fn with_record(key: &[u8], value: &[u8]) -> (Vec<u8>, u64) {
    let mut contents = vector_a().contents();
    contents.put("key", key, value);
    let shape = Shape {
        inline: false,
        ..Shape::default()
    };
    let file = write(&shape, &contents).file().to_vec();
    let both = [key, value].concat();
    let at = file.windows(both.len()).position(|bytes| bytes == both);
    (file, at.expect("it is there") as u64)
}

/// Goal: revision keys and records that say what none can say, each at its place.
#[test]
fn damaged_records() {
    let put = |create, modified, version| key_value(b"new", create, modified, version, b"v", 0);
    let good = revision_key(13, 0, false);
    let mut long = good.clone();
    long.extend(b"tt");
    let mut mark = good.clone();
    mark[8] = b'-';
    let mut end = good.clone();
    end.push(b'x');
    let mut negative = good.clone();
    negative[0] = 0xff;
    let mut negative_sub = good.clone();
    negative_sub[9] = 0x80;
    // Where the key itself is wrong: how far behind its beginning.
    let keys = [
        (&good[..16], 0),
        (&long, 0),
        (&mark, 8),
        (&end, 17),
        (&negative, 0),
        (&negative_sub, 9),
    ];
    for (key, within) in keys {
        let (file, at) = with_record(key, &put(13, 13, 1));
        let (offset, text) = refused(&file);
        assert_eq!(offset, at + within, "{text}");
    }
    let dead = |key: &[u8]| key_value(key, 0, 0, 0, b"", 0);
    let unknown = [put(13, 13, 1), vec![0x3a, 1, 7]].concat();
    let reordered = [&put(13, 13, 1)[5..], &put(13, 13, 1)[..5]].concat();
    let max = i64::MAX.unsigned_abs();
    let records = [
        (13, 0, false, put(13, 12, 1), "another mod revision"),
        (13, 0, false, put(14, 13, 1), "created later"),
        (13, 0, false, put(0, 13, 1), "never created"),
        (13, 0, false, put(13, 13, 0), "version 0"),
        (
            13,
            0,
            false,
            key_value(b"e", 12, 13, 1, b"v", 0),
            "the version before",
        ),
        (
            13,
            0,
            false,
            key_value(b"e", 13, 13, 1, b"v", 0),
            "no delete before",
        ),
        (
            13,
            0,
            false,
            key_value(&[7; 66_000], 13, 13, 1, b"v", 0),
            "a long key",
        ),
        (13, 1 << 32, false, put(13, 13, 1), "too high a place"),
        (max, 0, false, put(1, max, 1), "too high a revision"),
        (0, 0, false, put(0, 0, 1), "revision 0"),
        (12, 0, true, dead(b"e"), "one change twice"),
    ];
    for (main, sub, is_dead, record, what) in records {
        let (file, at) = with_record(&revision_key(main, sub, is_dead), &record);
        let (offset, text) = refused(&file);
        assert_eq!(offset, at, "{what}: {text}");
    }
    let bytes = [
        (&unknown, false, "an unknown field"),
        (&reordered, false, "another order"),
        (&put(13, 13, 1), true, "a delete with a value"),
    ];
    for (record, is_dead, what) in bytes {
        let key = revision_key(13, 0, is_dead);
        let (file, at) = with_record(&key, record);
        let (offset, text) = refused(&file);
        assert_eq!(offset, at + key.len() as u64, "{what}: {text}");
    }
    let (file, at) = with_record(&good, b"\x0a\x05abc");
    let (offset, text) = refused(&file);
    assert!((at + 17..at + 22).contains(&offset), "{text}");
}

/// Goal: numbers of the `meta` bucket that are none are found at their place.
#[test]
fn damaged_meta() {
    let rows = [
        ("consistent_index", &b"1234567"[..]),
        ("term", b""),
        ("scheduledCompactRev", b"8"),
    ];
    for (name, value) in rows {
        let mut contents = vector_a().contents();
        contents.put("meta", name.as_bytes(), value);
        let file = snapshot_of(&contents);
        let at = file
            .windows(name.len())
            .position(|bytes| bytes == name.as_bytes());
        let (offset, text) = refused(&file);
        assert_eq!(offset, (at.unwrap() + name.len()) as u64, "{text}");
    }
}

/// Goal: a root beyond all numbers, named by a meta page whose checksum is right, is refused like any other.
#[test]
fn a_root_beyond_all_numbers() {
    let mut file = sound().database().to_vec();
    let page_bytes = Meta::parse(&file, 0).unwrap().page_bytes as usize;
    for page in [0, page_bytes] {
        file[page + 32..page + 40].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        let Err(EtcdError {
            what: EtcdDamage::MetaChecksum { expected, .. },
            ..
        }) = Meta::parse(&file[page..], page as u64)
        else {
            panic!("the checksum covers the root");
        };
        file[page + 72..page + 80].copy_from_slice(&expected.to_le_bytes());
    }
    refused(&file);
}
