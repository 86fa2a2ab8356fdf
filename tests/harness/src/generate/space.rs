//! Which keys and value lengths a history uses.

use bytes::Bytes;

use crate::keys::Keys;
use crate::model::KEY_LEN_MAX;
use crate::random::Random;

/// A way to make keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// `a`, `b`, `c`, …: so few that each is written often.
    Few(u64),
    /// `key000` and so on: so many that the index grows.
    Many(u64),
    /// Paths with shared beginnings.
    Paths,
    /// Short strings of the bytes at which comparisons go wrong.
    AnyBytes,
}

/// The keys of one history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeySpace {
    shape: Shape,
    /// The empty key occurs.
    empty: bool,
}

impl KeySpace {
    /// Some key space.
    pub(super) fn draw(random: &mut Random) -> KeySpace {
        let shape = match random.below(5) {
            0 => Shape::Few(1 + random.below(3)),
            1 => Shape::Few(8),
            2 => Shape::Many(30 + random.below(170)),
            3 => Shape::Paths,
            _ => Shape::AnyBytes,
        };
        KeySpace {
            shape,
            empty: random.once_in(3),
        }
    }

    /// One key.
    pub(super) fn key(&self, random: &mut Random) -> Bytes {
        if self.empty && random.once_in(10) {
            return Bytes::new();
        }
        match self.shape {
            Shape::Few(n) => Bytes::from(vec![b'a' + random.below(n).to_le_bytes()[0]]),
            Shape::Many(n) => Bytes::from(format!("key{:03}", random.below(n))),
            Shape::Paths => {
                let depth = 1 + random.below(3);
                let parts = (0..depth).map(|_| *random.pick(&["/", "/a", "/ab", "/b", "/pods"]));
                Bytes::from(parts.collect::<String>())
            }
            Shape::AnyBytes => {
                let len = random.below(5);
                (0..len)
                    .map(|_| *random.pick(&[0, 1, b'a', 0x7F, 0x80, 0xFE, 0xFF]))
                    .collect()
            }
        }
    }

    /// A range of every form; sometimes an empty one.
    pub(super) fn keys(&self, random: &mut Random) -> Keys {
        let (a, b) = (self.key(random), self.key(random));
        match random.below(8) {
            0 | 1 => Keys::Single(a),
            2 | 3 if a > b && !random.once_in(4) => Keys::Between(b, a),
            2 | 3 => Keys::Between(a, b),
            4 => Keys::AtLeast(a),
            5 | 6 => {
                let len = random.index(a.len() + 1);
                Keys::Prefix(a.slice(..len))
            }
            _ => Keys::All,
        }
    }
}

/// A key of the greatest length, or by one byte too long.
pub(super) fn long_key(random: &mut Random) -> Bytes {
    let len = KEY_LEN_MAX + random.below(2);
    (0..len).map(|_| b'k').collect()
}

/// How long values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Values {
    most: u64,
    /// Once in so many, 70,000 bytes; 0 is never.
    long_once_in: u64,
}

impl Values {
    /// Some lengths.
    pub(super) fn draw(random: &mut Random) -> Values {
        let most = *random.pick(&[0, 4, 16, 16, 300]);
        let long_once_in = if random.once_in(8) { 30 } else { 0 };
        Values { most, long_once_in }
    }

    /// One length; every few is 0.
    pub(super) fn len(self, random: &mut Random) -> u32 {
        if random.once_in(self.long_once_in) {
            return 70_000;
        }
        let len = if random.once_in(8) {
            0
        } else {
            random.below(self.most + 1)
        };
        u32::try_from(len).expect("the most is small")
    }
}
