//! Damage of pages and of the file: each kind is found, and the error names the byte.

use revtree_format::etcd::{BUCKETS_MAX, DEPTH_MAX, Damage, EtcdError, Meta};
use revtree_test_bbolt::{Contents, Image, Options, write};

use crate::support::walk;

/// A file whose `key` bucket has several levels and a value with overflow.
pub(crate) fn sound() -> Image {
    let mut contents = Contents::etcd();
    for i in 0..40u64 {
        contents.put("key", &i.to_be_bytes(), &[7; 20]);
    }
    contents.put("key", &40u64.to_be_bytes(), &[8; 20_000]);
    let options = Options {
        elements_max: Some(4),
        ..Options::default()
    };
    let image = write(&options, &contents);
    walk(image.database()).expect("it is sound");
    image
}

/// Damages a sound file and expects `what` at `offset`.
#[track_caller]
pub(crate) fn check(image: &Image, offset: usize, what: Damage) {
    let error = EtcdError {
        offset: offset as u64,
        what,
    };
    assert_eq!(walk(image.database()), Err(error));
    let text = error.to_string();
    assert!(
        text.starts_with("at byte ") && !text.ends_with('.'),
        "{text}"
    );
    assert!(text.len() > 20, "each kind has its sentence: {text}");
}

fn root(image: &Image) -> u64 {
    image.pages_of("key").last().expect("has pages").id
}

pub(crate) fn first_leaf(image: &Image) -> u64 {
    image.pages_of("key").next().expect("has pages").id
}

/// Goal: each page of every tree must be the page that was asked for.
#[test]
fn wrong_page_id() {
    let pages = sound().pages().to_vec();
    assert!(pages.len() > 10);
    for page in pages {
        let mut image = sound();
        image.set_page_id(page.id, 999);
        let what = Damage::PageId {
            expected: page.id,
            found: 999,
        };
        check(&image, image.page_offset(page.id), what);
    }
}

/// Goal: each page must be a branch or a leaf, and not several things at once.
#[test]
fn wrong_page_kind() {
    for flags in [0u16, 3, 4, 16, 0x8002] {
        let mut image = sound();
        let id = first_leaf(&image);
        let at = image.page_offset(id) + 8;
        image.overwrite(at, &flags.to_le_bytes());
        check(&image, at, Damage::PageKind { id, flags });
    }
}

/// Goal: a page below itself is found when it is named again.
#[test]
fn cycle() {
    let mut image = sound();
    let id = root(&image);
    image.set_child(id, 0, id);
    check(
        &image,
        image.element_offset(id, 0),
        Damage::PageCycle { id },
    );

    let mut image = sound();
    let below = image
        .pages_of("key")
        .find(|page| page.height == 1)
        .expect("levels")
        .id;
    image.set_child(below, 1, id);
    check(
        &image,
        image.element_offset(below, 1),
        Damage::PageCycle { id },
    );
}

/// Goal: a page that is a child twice has keys that cannot be there the second time.
#[test]
fn shared_child() {
    let mut image = sound();
    let branch = image
        .pages_of("key")
        .find(|page| page.height == 1)
        .expect("levels")
        .id;
    let first = first_leaf(&image);
    image.set_child(branch, 1, first);
    check(
        &image,
        image.element_offset(first, 0),
        Damage::KeyRange { index: 0 },
    );
}

/// Goal: pages without keys that are named again and again are counted.
#[test]
fn page_twice() {
    let mut image = sound();
    let branch = image
        .pages_of("key")
        .find(|page| page.height == 1)
        .expect("levels")
        .id;
    let leaf = first_leaf(&image);
    let high_water = (image.database().len() / 4096) as u64;
    // More than half of the file, so that the second time is one too many.
    image.set_overflow(leaf, u32::try_from(high_water / 2 - 2).expect("few pages"));
    image.overwrite(image.page_offset(leaf) + 10, &[0, 0]);
    for index in 0..4 {
        image.set_child(branch, index, leaf);
    }
    let what = Damage::PageTwice {
        id: leaf,
        high_water,
    };
    check(&image, image.element_offset(branch, 1), what);
}

/// Goal: a chain of pages that is longer than any tree is deep is cut off.
#[test]
fn too_deep() {
    let mut contents = Contents::new();
    for i in 0..400u64 {
        contents.put("key", &i.to_be_bytes(), b"");
    }
    let options = Options {
        elements_max: Some(2),
        ..Options::default()
    };
    let mut image = write(&options, &contents);
    let root = root(&image);
    let height_1 = image.pages_of("key").filter(|page| page.height == 1);
    let mut chain: Vec<u64> = height_1.map(|page| page.id).collect();
    assert!(chain.len() > DEPTH_MAX);
    chain.insert(0, root);
    for pair in chain.windows(2) {
        image.overwrite(image.page_offset(pair[0]) + 10, &[1, 0]);
        image.set_child(pair[0], 0, pair[1]);
    }
    let at = image.element_offset(chain[DEPTH_MAX - 1], 0);
    check(
        &image,
        at,
        Damage::TooDeep {
            id: chain[DEPTH_MAX],
            depth_max: DEPTH_MAX,
        },
    );
}

/// Goal: no page lies past the high-water mark, nor do its overflow pages.
#[test]
fn beyond_high_water() {
    let high_water = (sound().database().len() / 4096) as u64;
    for id in [high_water, high_water + 1, u64::MAX / 4096, u64::MAX] {
        let mut image = sound();
        let branch = root(&image);
        image.set_child(branch, 2, id);
        let what = Damage::PageBeyondHighWater {
            id,
            overflow: 0,
            high_water,
        };
        check(&image, image.element_offset(branch, 2), what);
    }
    for overflow in [u32::MAX, u32::try_from(high_water).expect("few pages")] {
        let mut image = sound();
        let id = first_leaf(&image);
        image.set_overflow(id, overflow);
        let what = Damage::PageBeyondHighWater {
            id,
            overflow,
            high_water,
        };
        check(&image, image.page_offset(id) + 12, what);
    }
}

/// Goal: a value that needs overflow pages which the page does not have is out of bounds.
#[test]
fn lost_overflow() {
    let mut image = sound();
    let page = image
        .pages_of("key")
        .find(|page| page.pages > 1)
        .expect("a long value")
        .clone();
    image.set_overflow(page.id, 0);
    let index = u16::try_from(page.count - 1).expect("few");
    let Err(error) = walk(image.database()) else {
        panic!("the value is cut")
    };
    assert_eq!(
        error.offset,
        image.element_offset(page.id, index.into()) as u64
    );
    assert!(
        matches!(error.what, Damage::ElementBounds { index: at, .. } if at == index),
        "{error}"
    );
}

/// Goal: a branch without children is refused; bbolt never writes one.
#[test]
fn empty_branch() {
    let mut image = sound();
    let id = root(&image);
    image.overwrite(image.page_offset(id) + 10, &[0, 0]);
    check(
        &image,
        image.page_offset(id) + 10,
        Damage::EmptyBranch { id },
    );
}

/// Goal: more buckets than etcd can have are refused, so that a walk over all of them ends.
#[test]
fn too_many_buckets() {
    let mut contents = Contents::new();
    for i in 0..BUCKETS_MAX {
        contents.create(&format!("{i:06}"));
    }
    let image = write(&Options::default(), &contents);
    assert_eq!(
        walk(image.database()).expect("just enough").len(),
        BUCKETS_MAX
    );
    contents.create("one more");
    let image = write(&Options::default(), &contents);
    let Err(error) = walk(image.database()) else {
        panic!("one too many")
    };
    assert_eq!(
        error.what,
        Damage::TooManyBuckets {
            buckets_max: BUCKETS_MAX
        }
    );
}

/// Goal: without a valid meta page there is no database; the reasons of each are there to ask.
#[test]
fn no_meta_page() {
    let mut image = sound();
    image.break_meta(0);
    image.break_meta(1);
    check(&image, 0, Damage::NoMeta);
    let parse =
        |image: &Image| Meta::parse(&image.database()[..80], 0).map_err(|e| (e.offset, e.what));
    assert!(matches!(
        parse(&image),
        Err((72, Damage::MetaChecksum { .. }))
    ));
    image.overwrite(20, &[3]);
    assert_eq!(parse(&image), Err((20, Damage::MetaVersion { found: 3 })));
    image.overwrite(16, &[0; 4]);
    assert_eq!(parse(&image), Err((16, Damage::MetaMagic { found: 0 })));
    let short = Meta::parse(&image.database()[..79], 0).expect_err("short");
    assert_eq!(
        short.what,
        Damage::Short {
            wanted: 64,
            found: 63
        }
    );
}

/// Goal: a copy of a meta page that is not where it belongs is not taken for one.
#[test]
fn misplaced_meta_page() {
    let mut image = sound();
    let copy = image.database()[4096..4096 + 80].to_vec();
    image.overwrite(image.page_offset(2), &copy);
    image.break_meta(0);
    image.break_meta(1);
    check(&image, 0, Damage::NoMeta);
}

/// Goal: a meta page with a checksum but an impossible page size is none.
#[test]
fn impossible_page_size() {
    for page_bytes in [0u32, 512, 1023, 5000, 32 << 20, u32::MAX] {
        let mut image = sound();
        for page in [0, 1] {
            let body = image.page_offset(page) + 16;
            image.overwrite(body + 8, &page_bytes.to_le_bytes());
            let covered = &image.database()[body..body + 56];
            let checksum = covered
                .iter()
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
                });
            image.overwrite(body + 56, &checksum.to_le_bytes());
        }
        let error = Meta::parse(&image.database()[..80], 0).expect_err("impossible");
        assert_eq!(
            (error.offset, error.what),
            (24, Damage::MetaPageSize { found: page_bytes })
        );
        check(&image, 0, Damage::NoMeta);
    }
}

/// Goal: a file that ends before its high-water mark is refused before any page is read.
#[test]
fn truncated_file() {
    let mut image = sound();
    let expected = image.database().len() as u64;
    let found = expected - 4096;
    image.truncate(usize::try_from(found).expect("small"));
    check(
        &image,
        image.file().len(),
        Damage::Truncated { expected, found },
    );
}
