//! Two histories whose hashes a real etcd computed, and these hashes: plain data, for every test that has a
//! store, a model or a file of its own to make them in.

use crate::history::{History, Tombstones};
use crate::image::Image;
use crate::writer::{Options, write};

/// One change, or a delete of several keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A key is put with a value and a lease; 0 is none.
    Put(&'static [u8], &'static [u8], i64),
    /// A key that lives is deleted.
    Delete(&'static [u8]),
    /// The keys from one on are deleted, in one call; so many live.
    DeleteFrom(&'static [u8], u64),
}

/// The lease of [`VECTOR_A`].
pub const VECTOR_A_LEASE: i64 = 7_587_862_094_443;

/// A value of two hundred bytes, no text.
const BINARY: &[u8] = &{
    let mut value = [0; 200];
    let mut at = 1;
    while at < value.len() {
        value[at] = 0xff;
        at += 2;
    }
    value
};

/// A short history with everything in it: a transaction for each revision from 2 to 12. In main 9 a key is
/// deleted and put again.
pub const VECTOR_A: [&[Step]; 11] = [
    &[Step::Put(b"a", b"1", 0)],
    &[Step::Put(b"b", b"", 0)],
    &[Step::Put(b"c", BINARY, 0)],
    &[Step::Put(b"a", b"2", VECTOR_A_LEASE)],
    &[
        Step::Put(b"d", b"x", 0),
        Step::Put(b"a", b"3", 0),
        Step::Delete(b"b"),
    ],
    &[Step::Delete(b"a")],
    &[Step::Put(b"\x00\x01k", b"bin", 0)],
    &[Step::DeleteFrom(b"c", 2), Step::Put(b"d", b"reborn", 0)],
    &[Step::Put(b"a", b"back", 0)],
    &[Step::Delete(b"a")],
    &[Step::Put(b"e", b"last", 0)],
];

/// The hashes of [`VECTOR_A`]: compact revision (−1 = never), then revisions with their hashes.
///
/// Those at the compact revision itself are by the rule of newer servers.
pub const VECTOR_A_HASHES: [(i64, &[(u64, u32)]); 3] = [
    (
        -1,
        &[
            (1, 1_084_519_789),
            (2, 2_587_454_935),
            (3, 2_496_657_716),
            (4, 1_543_131_607),
            (5, 3_443_527_744),
            (6, 2_028_030_389),
            (7, 4_231_545_613),
            (8, 1_089_918_727),
            (9, 4_178_312_705),
            (10, 232_134_794),
            (11, 2_524_539_072),
            (12, 2_532_792_950),
        ],
    ),
    (
        6,
        &[
            (6, 1_569_834_837),
            (7, 1_748_219_419),
            (8, 3_368_539_584),
            (9, 2_370_538_030),
            (10, 2_986_598_664),
            (11, 1_707_725_061),
            (12, 2_488_629_843),
        ],
    ),
    (
        8,
        &[
            (8, 523_955_963),
            (9, 3_428_953_269),
            (10, 2_813_935_665),
            (11, 1_449_204_629),
            (12, 550_080_578),
        ],
    ),
];

/// [`VECTOR_A`] as a history.
#[must_use]
pub fn vector_a() -> History {
    let mut history = History::new();
    history.grant(VECTOR_A_LEASE, 100_000);
    for steps in VECTOR_A {
        history.begin();
        for step in steps {
            match step {
                Step::Put(key, value, lease) => history.put(key, value, *lease),
                Step::Delete(key) => history.delete(key),
                Step::DeleteFrom(key, _) => history.delete_from(key),
            };
        }
    }
    history
}

/// A snapshot of [`vector_a`], compacted as etcd 3.4.23 did if `compacted` is given.
#[must_use]
pub fn vector_a_snapshot(options: &Options, compacted: Option<u64>) -> Image {
    let mut history = vector_a();
    if let Some(revision) = compacted {
        history.compact(revision, Tombstones::Drop);
    }
    write(options, &history.contents())
}

/// Which numbers each step of vector B puts, one in each revision: from the first on, and so many more. The
/// value is the number, the key [`vector_b_key`]. After each step the store is hashed at a revision and
/// compacted there.
pub fn vector_b_steps() -> impl Iterator<Item = (u64, u64)> {
    (0..18).map(|step| (step * 71, 71)).chain([(1278, 1210)])
}

/// The key under which vector B puts a number.
#[must_use]
pub fn vector_b_key(number: u64) -> &'static str {
    match (number % 142, number % 71, number % 7) {
        (30, _, _) => "zenek",
        (_, 30, _) => "xavery",
        (_, _, 0) => "alice",
        (_, _, 1) => "bob",
        (_, _, 2) => "celine",
        (_, _, 3) => "dominik",
        (_, _, 4) => "eve",
        (_, _, 5) => "frederica",
        _ => "gorge",
    }
}

/// A hash, the compact revision for which it holds (−1 = never compacted), and its revision.
pub type Pinned = (u32, i64, u64);

/// The hashes of vector B when each step is hashed half way: at its first number + half of its count.
pub const VECTOR_B_MIDDLE: [Pinned; 19] = [
    (4_082_599_214, -1, 35),
    (2_279_933_401, 35, 106),
    (3_284_231_217, 106, 177),
    (126_286_495, 177, 248),
    (900_108_730, 248, 319),
    (2_475_485_232, 319, 390),
    (1_226_296_507, 390, 461),
    (2_503_661_030, 461, 532),
    (4_155_130_747, 532, 603),
    (106_915_399, 603, 674),
    (406_914_006, 674, 745),
    (1_882_211_381, 745, 816),
    (806_177_088, 816, 887),
    (664_311_366, 887, 958),
    (1_496_914_449, 958, 1_029),
    (2_434_525_091, 1_029, 1_100),
    (3_988_652_253, 1_100, 1_171),
    (1_122_462_288, 1_171, 1_242),
    (724_436_716, 1_242, 1_883),
];

/// The hashes of vector B when each step is hashed at its end.
pub const VECTOR_B_LAST: [Pinned; 19] = [
    (1_913_897_190, -1, 73),
    (224_860_069, 73, 145),
    (1_565_167_519, 145, 217),
    (1_566_261_620, 217, 289),
    (2_037_173_024, 289, 361),
    (691_659_396, 361, 433),
    (2_713_730_748, 433, 505),
    (3_919_322_507, 505, 577),
    (769_967_540, 577, 649),
    (2_909_194_793, 649, 721),
    (1_576_921_157, 721, 793),
    (4_067_701_532, 793, 865),
    (2_226_384_237, 865, 937),
    (2_923_408_134, 937, 1_009),
    (2_680_329_256, 1_009, 1_081),
    (1_546_717_673, 1_081, 1_153),
    (2_713_657_846, 1_153, 1_225),
    (1_046_575_299, 1_225, 1_297),
    (2_017_735_779, 1_297, 2_508),
];
