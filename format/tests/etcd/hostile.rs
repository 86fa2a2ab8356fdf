//! No bytes make the reader panic, loop, or read more than the file a few times over.

use std::cell::Cell;

use revtree_format::etcd::{Damage, SnapshotLayout};
use revtree_test_bbolt::{Image, Options, vector_a, write};

use crate::support::{Counted, Numbers, Walked, walk};

/// A file of about 25 KiB with every kind of page: small pages make many of them.
fn small() -> Image {
    let mut contents = vector_a().contents();
    contents.put("key", &[0xff; 17], &[5; 2500]);
    for i in 0..12u8 {
        contents.put("lease", &[i; 8], &[i; 90]);
    }
    let options = Options {
        page_bytes: 1024,
        elements_max: Some(5),
        ..Options::default()
    };
    let image = write(&options, &contents);
    assert!(image.file().len() <= 32 * 1024 && image.levels("key") >= 2);
    image
}

/// Walks `database`, and asserts that the work was bounded.
fn walk_bounded(database: &[u8], about: &dyn Fn() -> String) -> Option<Walked> {
    let asked = Cell::new(0);
    let walked = walk(Counted {
        bytes: database,
        asked: &asked,
    });
    // A walk reads each page at most twice, once alone and once with its overflow, and one page
    // more than the file has; there is one walk for the list of buckets and one for each bucket.
    // The buckets of a damaged file that failed on the way are not known: allow 20.
    let buckets = walked.as_ref().map_or(20, Vec::len) as u64 + 1;
    let file = database.len() as u64 + 64 * 1024;
    assert!(
        asked.get() <= buckets * 4 * file,
        "{}: {} bytes read",
        about(),
        asked.get()
    );
    if let Ok(walked) = &walked {
        let pair = |(key, value): &(Vec<u8>, Vec<u8>)| key.len() + value.len();
        for (_, pairs) in walked {
            let bytes: usize = pairs.iter().map(pair).sum();
            assert!(
                bytes <= database.len(),
                "{}: {bytes} bytes of pairs",
                about()
            );
        }
    }
    walked.ok()
}

/// Goal: a file that is cut anywhere in its database is refused.
#[test]
fn every_truncation_is_refused() {
    let image = small();
    let file = image.file();
    for len in 0..file.len() {
        let cut = &file[..len];
        let found = walk_bounded(cut, &|| format!("cut at {len}"));
        assert_eq!(
            found.is_some(),
            len >= image.database().len(),
            "cut at {len}"
        );
        let layout = SnapshotLayout::of(len as u64);
        match (len % 512, layout) {
            (0, Ok(layout)) => assert!(!layout.has_hash),
            (32, Ok(layout)) => {
                assert!(layout.has_hash);
                let database = usize::try_from(layout.database_bytes).expect("small");
                assert!(walk(&cut[..database]).is_err(), "cut at {len}");
            }
            (_, Err(error)) => {
                assert_eq!(error.what, Damage::SnapshotSize { bytes: len as u64 });
            }
            (_, Ok(_)) => panic!("{len} bytes are no snapshot"),
        }
    }
}

/// Goal: any byte may be anything. What is not found may only be a change inside keys, values, and
/// what is not read, or a lower count; it never adds pairs.
#[test]
fn every_flipped_byte_is_harmless() {
    let image = small();
    let sound = walk(image.database()).expect("it is sound");
    let count = |walked: &Walked| walked.iter().map(|(_, pairs)| pairs.len()).sum::<usize>();
    let mut database = image.database().to_vec();
    let (mut refused, mut other) = (0, 0);
    for at in 0..database.len() {
        for mask in [0x01, 0x10, 0x80, 0xff] {
            database[at] ^= mask;
            match walk_bounded(&database, &|| format!("byte {at} with {mask:#04x}")) {
                None => refused += 1,
                Some(walked) if walked != sound => {
                    other += 1;
                    assert!(
                        count(&walked) <= count(&sound),
                        "byte {at} with {mask:#04x}"
                    );
                }
                Some(_) => {}
            }
            database[at] ^= mask;
        }
    }
    assert!(
        refused > 1000 && other > 1000,
        "{refused} refused, {other} read otherwise"
    );
    // What has no checksum of its own has that of the snapshot.
    for at in (0..image.database().len()).step_by(97) {
        let mut flipped = image.clone();
        flipped.flip(at, 0x04);
        assert!(!flipped.hash_is_right(), "byte {at}");
    }
}

/// Goal: data pages of garbage, with and without a plausible header, are harmless.
#[test]
fn random_pages_are_harmless() {
    const SEED: u64 = 0x5eed_0003;
    let image = small();
    let pages = image.pages().to_vec();
    let mut numbers = Numbers(SEED);
    for round in 0..20_000 {
        let mut database = image.database().to_vec();
        for _ in 0..=numbers.below(3) {
            let id = pages[numbers.below(pages.len())].id;
            let at = image.page_offset(id);
            let mut page = numbers.bytes(1024);
            if numbers.below(8) != 0 {
                page[..8].copy_from_slice(&id.to_le_bytes());
                let [kind, count, overflow] = [1 + page[8] % 2, page[10] % 6, page[12] % 3];
                page[8..16].copy_from_slice(&[kind, 0, count, 0, overflow, 0, 0, 0]);
                // Small numbers in the table, so that elements are often inside.
                for element in page[16..112].chunks_mut(16) {
                    for (word, limit) in element.chunks_mut(4).zip([3, 255, 40, 40]) {
                        word.copy_from_slice(&[word[0] % limit, 0, 0, 0]);
                    }
                }
            }
            database[at..at + 1024].copy_from_slice(&page);
        }
        walk_bounded(&database, &|| format!("round {round} of seed {SEED:#x}"));
    }
}

/// Goal: any bytes at all are harmless, also behind valid meta pages.
#[test]
fn random_files_are_harmless() {
    const SEED: u64 = 0x5eed_0004;
    let image = small();
    let mut numbers = Numbers(SEED);
    for round in 0..2_000 {
        let len = numbers.below(8192);
        let mut file = numbers.bytes(len);
        let found = walk_bounded(&file, &|| format!("round {round} of seed {SEED:#x}"));
        assert!(found.is_none(), "garbage is no database");
        file = numbers.bytes(image.database().len());
        file[..2048].copy_from_slice(&image.database()[..2048]);
        walk_bounded(&file, &|| format!("round {round} of seed {SEED:#x}"));
    }
}
