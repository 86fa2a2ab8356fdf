//! Goal: entries whose hashes agree, crowd together or lie at the table's end are all offered.

use std::convert::Infallible;

use super::super::map::Map;
use super::super::meter::Meter;
use super::super::{KeyId, pin};
use super::{Random, enough};

/// All ids that the map offers for a hash.
fn offered(map: &Map, hash: u32) -> Vec<u32> {
    let mut ids = Vec::new();
    let found: Result<Option<()>, Infallible> = map.find(hash, &pin(), |id| {
        ids.push(id.0);
        Ok(None)
    });
    assert_eq!(found, Ok(None));
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// With the last bucket among the hashes, so that probes go round the end; through several
/// growths, each looked at in the middle too.
#[test]
fn equal_hashes() {
    let (map, mut writer) = Map::with_room(0, Meter::default());
    let hashes = [0, 1, u32::MAX, u32::MAX - 1, 1 << 31];
    for id in 0..enough(1000, 60) {
        writer.insert(hashes[id as usize % 5], KeyId(id));
        if id % 7 == 0 {
            for (at, hash) in (0..).zip(hashes) {
                let want: Vec<u32> = (0..=id).filter(|id| id % 5 == at).collect();
                assert_eq!(offered(&map, hash), want);
            }
        }
    }
}

#[test]
fn crowded_hashes() {
    for seed in 0..enough(8, 1) {
        let (map, mut writer) = Map::with_room(0, Meter::default());
        let random = Random::new(seed);
        let shift = random.below(32);
        let hashes: Vec<u32> = (0..enough(3000, 200))
            .map(|_| u32::try_from(random.next() >> 32).expect("32 bits") << shift)
            .collect();
        for (id, hash) in (0..).zip(&hashes) {
            writer.insert(*hash, KeyId(id));
        }
        for (id, hash) in (0..).zip(&hashes).step_by(17) {
            assert!(offered(&map, *hash).contains(&id), "seed {seed}");
        }
    }
}

/// The error comes through even if a later entry would have matched.
#[test]
fn errors_come_through() {
    let (map, mut writer) = Map::with_room(0, Meter::default());
    writer.insert(5, KeyId(0));
    writer.insert(5, KeyId(1));
    let found = map.find(5, &pin(), |id| {
        if id.0 == 0 {
            Err("unreadable")
        } else {
            Ok(Some(id))
        }
    });
    assert_eq!(found, Err("unreadable"));
}

/// Entries are taken out in the middle of growths and between them; the others are found behind their marks, and what
/// has been taken out is not offered, nor when its id comes again with another hash.
#[test]
fn removed_entries() {
    for seed in 0..enough(8, 1) {
        let (map, mut writer) = Map::with_room(0, Meter::default());
        let random = Random::new(seed);
        let hashes = [0, 1, u32::MAX, u32::MAX - 1, 1 << 31];
        let mut held: Vec<(u32, u32)> = Vec::new();
        let mut free: Vec<u32> = (0..enough(600, 40)).collect();
        for step in 0..enough(6000, 200) {
            let grows = step / enough(700, 50) % 2 == 0;
            if !free.is_empty() && (held.is_empty() || random.below(10) < if grows { 7 } else { 3 })
            {
                let id = free.swap_remove(random.below(free.len()));
                let hash = hashes[random.below(5)];
                writer.insert(hash, KeyId(id));
                held.push((hash, id));
            } else {
                let (hash, id) = held.swap_remove(random.below(held.len()));
                writer.remove(hash, KeyId(id));
                free.push(id);
            }
            if step % 17 == 0 {
                for hash in hashes {
                    let same = held.iter().filter(|entry| entry.0 == hash);
                    let mut want: Vec<u32> = same.map(|entry| entry.1).collect();
                    want.sort_unstable();
                    assert_eq!(offered(&map, hash), want, "seed {seed} step {step}");
                }
            }
        }
    }
}
