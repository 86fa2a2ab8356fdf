//! Goal: dumped and loaded, or built from a scan, the index answers as before.

use revtree_format::{Position, Revision};

use super::super::{Builder, ImageFault, LeafImage, Scanned, from_leaves};
use super::model::Pair;
use super::{Random, Records, SECRET, SHAPES, enough};

fn dump(pair: &Pair) -> Vec<LeafImage> {
    let mut leaves = Vec::new();
    pair.index.leaves(|leaf| leaves.push(leaf));
    leaves
}

/// Ids differ after a reload, so the model takes those of the index.
fn adopt_ids(pair: &mut Pair) {
    for (key, value) in &mut pair.model {
        let found = pair.index.find(key, &pair.records).expect("readable");
        value.0 = found.expect("every key of the model is in the index").0;
    }
}

#[test]
fn dump_and_load() {
    for seed in 0..enough(24, 1) {
        let mut pair = Pair::random(seed, enough(1200, 150));
        let leaves = dump(&pair);
        let loaded = from_leaves(SECRET, Revision::new(pair.revision), leaves.clone());
        (pair.index, pair.writer) = loaded.expect("a dump is sound");
        adopt_ids(&mut pair);
        pair.check(seed);
        assert_eq!(dump(&pair), leaves, "seed {seed}");
        // It goes on from there.
        let random = Random::new(seed);
        for step in 0..enough(600, 80) {
            pair.write(&random.key(step), step % 3 != 0);
        }
        pair.publish();
        pair.check(seed);
    }
}

#[test]
fn built_from_a_scan() {
    for seed in 0..enough(24, 2) {
        let random = Random::new(seed);
        let mut pair = Pair::new();
        let mut builder = Builder::new();
        let shape = random.below(SHAPES);
        for _ in 0..random.below(8) {
            let mut wave = Vec::new();
            for _ in 0..random.below(enough(600, 100)) {
                let (key, live) = (random.key(shape), random.below(3) != 0);
                pair.write(&key, live);
                let position = pair.index.find(&key, &pair.records).expect("readable");
                let (_, position) = position.expect("just written");
                wave.push(Scanned {
                    hash: pair.index.hash(&key),
                    position,
                    live,
                });
            }
            builder.absorb(wave, &pair.records).expect("readable");
        }
        let built = builder.finish(SECRET, Revision::new(pair.revision), &pair.records);
        (pair.index, pair.writer) = built.expect("readable");
        adopt_ids(&mut pair);
        pair.check(seed);
        let full = dump(&pair)
            .iter()
            .rev()
            .skip(1)
            .all(|leaf| leaf.entries.len() == 64);
        assert!(full, "seed {seed}: only the last leaf may have room");
    }
}

/// Different keys whose hashes agree in all 64 bits stay different.
#[test]
fn colliding_hashes() {
    let records = Records::default();
    let mut builder = Builder::new();
    for (key, live) in [
        (b"one", true),
        (b"two", true),
        (b"six", true),
        (b"two", false),
    ] {
        let wave = vec![Scanned {
            hash: 5,
            position: records.append(key),
            live,
        }];
        builder.absorb(wave, &records).expect("readable");
    }
    let (index, _writer) = builder
        .finish(SECRET, Revision::new(9), &records)
        .expect("readable");
    let totals = index.totals();
    assert_eq!((totals.live, totals.all), (2, 3));
}

#[test]
fn bad_images_are_refused() {
    let pair = Pair::random(3, enough(1500, 500));
    let leaves = dump(&pair);
    assert!(leaves.len() > 3);
    let check = |damage: &dyn Fn(&mut Vec<LeafImage>), fault: ImageFault| {
        let mut leaves = leaves.clone();
        damage(&mut leaves);
        let loaded = from_leaves(SECRET, Revision::new(1), leaves);
        assert_eq!(loaded.err(), Some(fault));
    };
    check(&|leaves| leaves[1].entries.clear(), ImageFault::Entries(1));
    check(
        &|leaves| leaves[2].entries.reverse(),
        ImageFault::Entries(2),
    );
    check(
        &|leaves| leaves[0].entries[0].position = Position::NONE,
        ImageFault::Entries(0),
    );
    check(
        &|leaves| {
            let entry = leaves[1].entries[0];
            leaves[1].entries.splice(0..0, [entry; 64]);
        },
        ImageFault::Entries(1),
    );
    check(
        &|leaves| leaves[0].separator = b"a".to_vec(),
        ImageFault::Separator(0),
    );
    check(
        &|leaves| leaves[2].separator = Vec::new(),
        ImageFault::Separator(2),
    );
    check(&|leaves| leaves.swap(1, 2), ImageFault::Separator(2));
}
