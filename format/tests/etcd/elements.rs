//! Damage inside pages: elements, keys and the values of buckets; the error names the byte.

use revtree_format::etcd::Damage;
use revtree_test_bbolt::{Image, PageKind};

use crate::damage::{check, first_leaf, sound};
use crate::support::walk;

/// Goal: elements must fit, be inside the page, behind the table, and not share bytes.
#[test]
fn elements_out_of_bounds() {
    let mut image = sound();
    let id = first_leaf(&image);
    image.overwrite(image.page_offset(id) + 10, &256u16.to_le_bytes());
    let what = Damage::ElementTable {
        count: 256,
        page_bytes: 4096,
    };
    check(&image, image.page_offset(id) + 10, what);

    for (field, value) in [
        (4, u32::MAX),
        (8, u32::MAX),
        (12, u32::MAX),
        (4, 0),
        (12, 4096),
    ] {
        let mut image = sound();
        let at = image.element_offset(id, 1);
        image.overwrite(at + field, &value.to_le_bytes());
        let Err(error) = walk(image.database()) else {
            panic!("{field} is {value}")
        };
        assert_eq!(error.offset, at as u64, "{error}");
        assert!(
            matches!(error.what, Damage::ElementBounds { index: 1, .. }),
            "{error}"
        );
    }

    let mut image = sound();
    for index in 0..3 {
        let rest = 4096 - 16 - 4 * 16 - 28 * 4;
        image.overwrite(
            image.element_offset(id, index) + 12,
            &u32::to_le_bytes(rest),
        );
    }
    let total = 16 + 4 * 16 + 4 * 8 + 20 + 3 * (4096 - 16 - 4 * 16 - 28 * 4);
    check(
        &image,
        image.page_offset(id),
        Damage::ElementsOverlap {
            total,
            page_bytes: 4096,
        },
    );
}

/// Goal: keys ascend inside a page, and stay inside the range that the parent gives.
#[test]
fn keys_out_of_order() {
    let mut image = sound();
    let id = first_leaf(&image);
    image.swap_first_keys(id);
    check(
        &image,
        image.element_offset(id, 1),
        Damage::KeyOrder { index: 1 },
    );

    let mut image = sound();
    let first = image.element_offset(id, 0) + 4 * 16;
    image.overwrite(first, &1u64.to_be_bytes());
    check(
        &image,
        image.element_offset(id, 1),
        Damage::KeyOrder { index: 1 },
    );

    let sound = sound();
    let leaves = sound
        .pages_of("key")
        .filter(|page| page.kind == PageKind::Leaf);
    let leaves: Vec<_> = leaves.map(|page| page.id).collect();
    let key_at =
        |image: &Image, id, index| image.element_offset(id, index) + (4 - index) * 16 + index * 28;

    let mut image = sound.clone();
    let at = key_at(&image, leaves[1], 0);
    image.overwrite(at, &0u64.to_be_bytes());
    check(
        &image,
        image.element_offset(leaves[1], 0),
        Damage::KeyRange { index: 0 },
    );

    let mut image = sound.clone();
    let at = key_at(&image, leaves[1], 3);
    image.overwrite(at, &8u64.to_be_bytes());
    check(
        &image,
        image.element_offset(leaves[1], 3),
        Damage::KeyRange { index: 3 },
    );

    // The last leaf below a branch: its limit is a level further up.
    let mut image = sound.clone();
    let at = key_at(&image, leaves[3], 3);
    image.overwrite(at, &16u64.to_be_bytes());
    check(
        &image,
        image.element_offset(leaves[3], 3),
        Damage::KeyRange { index: 3 },
    );
}

/// Goal: elements have one of two kinds, and each is only where it may be.
#[test]
fn wrong_element_kind() {
    let mut image = sound();
    let id = first_leaf(&image);
    image.overwrite(image.element_offset(id, 1), &2u32.to_le_bytes());
    check(
        &image,
        image.element_offset(id, 1),
        Damage::ElementFlags { index: 1, flags: 2 },
    );

    let mut image = sound();
    image.overwrite(image.element_offset(id, 1), &1u32.to_le_bytes());
    let key = image.element_offset(id, 4) + 28;
    check(&image, key, Damage::NestedBucket);

    let mut image = sound();
    let buckets = image.pages_of("").next().expect("has pages").id;
    image.overwrite(image.element_offset(buckets, 0), &0u32.to_le_bytes());
    check(&image, image.element_offset(buckets, 4), Damage::NotABucket);
}

/// Goal: what is wrong with a bucket's own value is found in the value.
#[test]
fn wrong_bucket_value() {
    let sound = sound();
    let buckets = sound.pages_of("").next().expect("has pages").id;
    let value = sound.element_offset(buckets, 4) + "alarm".len();

    let mut image = sound.clone();
    image.overwrite(image.element_offset(buckets, 0) + 12, &8u32.to_le_bytes());
    check(
        &image,
        value,
        Damage::Short {
            wanted: 16,
            found: 8,
        },
    );

    let mut image = sound.clone();
    image.overwrite(image.element_offset(buckets, 0) + 12, &24u32.to_le_bytes());
    check(
        &image,
        value + 16,
        Damage::Short {
            wanted: 16,
            found: 8,
        },
    );

    let mut image = sound.clone();
    image.overwrite(value + 16, &[9]);
    check(
        &image,
        value + 16,
        Damage::PageId {
            expected: 0,
            found: 9,
        },
    );

    let mut image = sound.clone();
    image.overwrite(value + 16 + 8, &[1]);
    check(&image, value + 16 + 8, Damage::PageKind { id: 0, flags: 1 });

    let mut image = sound.clone();
    image.overwrite(value + 16 + 12, &[1]);
    let what = Damage::PageBeyondHighWater {
        id: 0,
        overflow: 1,
        high_water: 0,
    };
    check(&image, value + 16 + 12, what);

    let mut image = sound.clone();
    image.overwrite(value, &1000u64.to_le_bytes());
    let high_water = (image.database().len() / 4096) as u64;
    check(
        &image,
        value,
        Damage::PageBeyondHighWater {
            id: 1000,
            overflow: 0,
            high_water,
        },
    );
}
