//! Damage is told with its place, and what lies behind it is still shown.

use revtree_dump::{Item, Options, dump};
use revtree_format::limits::BLOCK_BYTES;

use crate::image::{Image, checkpointed, create, items, log_only};

/// What a dump says of a file: whats of the damage, and keys of the records.
fn told(bytes: &[u8]) -> (Vec<(u64, &'static str)>, Vec<Vec<u8>>) {
    let (items, _) = items(bytes, &Options::default());
    let mut damage = Vec::new();
    let mut keys = Vec::new();
    for item in items {
        match item {
            Item::Damage(found) => damage.push((found.offset, found.what)),
            Item::Record(record) => keys.push(record.key),
            _ => {}
        }
    }
    (damage, keys)
}

fn flip(image: &mut Image, at: u64) {
    image.bytes[usize::try_from(at).expect("a small file")] ^= 1;
}

/// Goal: a bad slot is shown with its reason, and the other slots carry the walk.
#[test]
fn a_bad_slot_does_not_hide_the_store() {
    let mut image = log_only();
    flip(&mut image, 3 * BLOCK_BYTES + 100);
    let (items, summary) = items(&image.bytes, &Options::default());
    assert_eq!(summary.damage, 1);
    assert_eq!(summary.log_records, 3);
    let reason = items.iter().find_map(|item| match item {
        Item::Slot(slot) if slot.slot == 3 => slot.superblock.as_ref().err().copied(),
        _ => None,
    });
    assert_eq!(reason.map(|reason| reason.what), Some("superblock CRC-32"));
}

/// Goal: before the first checkpoint the other pair of slots may be zero; later that is damage.
#[test]
fn an_unwritten_pair_is_no_damage() {
    let other_pair = 2 * 4096..4 * 4096;
    let mut fresh = log_only();
    fresh.bytes[other_pair.clone()].fill(0);
    assert_eq!(items(&fresh.bytes, &Options::default()).1.damage, 0);
    let mut later = checkpointed();
    later.bytes[other_pair].fill(0);
    assert_eq!(items(&later.bytes, &Options::default()).1.damage, 2);
}

/// Goal: a value that does not match its checksum is told, and all records are shown.
#[test]
fn a_bad_value_is_told_with_its_record() {
    let mut image = checkpointed();
    let record = image.frames[0].0 + 64;
    flip(&mut image, record + 49);
    let (damage, keys) = told(&image.bytes);
    assert_eq!(damage, [(record, "record value CRC")]);
    assert_eq!(keys, [b"a", b"b", b"c"]);
}

/// Goal: behind a record whose head is damaged the next one is found.
#[test]
fn a_bad_record_does_not_hide_the_next() {
    let mut image = checkpointed();
    let record = image.frames[0].0 + 64;
    flip(&mut image, record + 20);
    let (damage, keys) = told(&image.bytes);
    assert_eq!(keys, [b"b", b"c"]);
    let whats: Vec<_> = damage.iter().map(|(_, what)| *what).collect();
    assert_eq!(
        whats,
        [
            "record head CRC",
            "records in leaf",
            "first record of leaf",
            "records under the tree"
        ]
    );
}

/// Goal: a damaged page is told and the rest of the file shown.
#[test]
fn a_bad_page_does_not_hide_the_log() {
    let mut image = checkpointed();
    let page = image.frames[1].0;
    flip(&mut image, page + 64);
    let (damage, keys) = told(&image.bytes);
    assert_eq!(damage[0], (page, "frame body CRC"));
    assert_eq!(keys, [b"c"]);
}

/// Goal: a lost frame between synced ones is damage, and the log behind it is still shown.
#[test]
fn a_lost_frame_does_not_hide_the_log_behind() {
    let mut image = log_only();
    for rev in 4..7 {
        image.revision = rev;
        image.commit(&[create(rev, 0, b"later", b"")], &[]);
    }
    let lost = image.frames[1].0;
    flip(&mut image, lost + 4);
    let (damage, keys) = told(&image.bytes);
    assert_eq!(damage, [(lost, "frame header CRC")]);
    assert_eq!(
        keys,
        [&b"colour"[..], b"\xff\0", b"later", b"later", b"later"]
    );
    let (items, _) = items(&image.bytes, &Options::default());
    let linked: Vec<bool> = items
        .iter()
        .filter_map(|item| match item {
            Item::Frame(frame) => Some(frame.linked),
            _ => None,
        })
        .collect();
    assert_eq!(linked, [true, false, false, false]);
}

/// Goal: a torn last frame is the ordinary end of a log.
#[test]
fn a_torn_tail_is_no_damage() {
    let mut image = log_only();
    let last = image.frames[1].0;
    flip(&mut image, last + 4);
    let (damage, keys) = told(&image.bytes);
    assert_eq!(damage, []);
    assert_eq!(keys, [&b"colour"[..], b"\xff\0"]);
}

/// Goal: a file cut anywhere is walked to its end without a panic.
#[test]
fn a_cut_file_is_walked() {
    let image = checkpointed();
    let bytes = &image.bytes;
    // All that the superblock names lies before its log head; a shorter log alone is no damage.
    let head = usize::try_from(image.frames[8].0).expect("a small file");
    let options = Options {
        all: true,
        ..Options::default()
    };
    for len in (0..bytes.len()).step_by(1009) {
        let (_, summary) = items(&bytes[..len], &options);
        assert!(summary.damage > 0 || len >= head, "cut at {len}");
    }
}

/// Goal: any single flipped byte is walked without a panic.
#[test]
fn a_flipped_byte_never_panics() {
    let mut image = checkpointed();
    let options = Options {
        all: true,
        records: true,
        values: true,
    };
    for at in 0..image.bytes.len() as u64 {
        if at % 7 == 0 || image.bytes[usize::try_from(at).expect("a small file")] != 0 {
            flip(&mut image, at);
            let mut lines = 0;
            dump(&image.bytes.as_slice(), &options, &mut |item| {
                lines += item.to_string().len() + item.to_json().to_string().len();
                Ok(())
            })
            .expect("memory does not fail");
            assert!(lines > 0);
            flip(&mut image, at);
        }
    }
}

/// Goal: foreign files say that no superblock is there.
#[test]
fn a_foreign_file_has_no_superblock() {
    for bytes in [vec![], b"SQLite format 3\0".to_vec(), vec![0xff; 100_000]] {
        let (damage, keys) = told(&bytes);
        assert_eq!(damage, [(0, "valid superblocks")]);
        assert!(keys.is_empty());
    }
}
