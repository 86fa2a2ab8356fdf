//! Which keys an operation means: the forms of the API's `KeyRange`, kept as they were asked.
//!
//! Apart from `KeyRange` on purpose: the model decides membership by the definition of each form,
//! not by a pair of bounds, so that a wrong bound in the crate cannot hide here too.

use bytes::Bytes;

/// A set of keys that lie next to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    /// One key.
    Single(Bytes),
    /// From the first, up to and without the second; nothing if the second is not above.
    Between(Bytes, Bytes),
    /// This key and all above it.
    AtLeast(Bytes),
    /// All keys that begin so.
    Prefix(Bytes),
    /// Every key.
    All,
}

impl Keys {
    /// Whether `key` is one of them.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Keys::Single(one) => key == one,
            Keys::Between(start, end) => &start[..] <= key && key < &end[..],
            Keys::AtLeast(start) => &start[..] <= key,
            Keys::Prefix(prefix) => key.starts_with(prefix),
            Keys::All => true,
        }
    }

    /// No key below this one is contained; and from the first contained key on, they are adjacent.
    #[must_use]
    pub fn lowest(&self) -> &[u8] {
        match self {
            Keys::Single(key) | Keys::Between(key, _) | Keys::AtLeast(key) | Keys::Prefix(key) => {
                key
            }
            Keys::All => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form against a hand-made list.
    #[test]
    fn forms() {
        let b = |s: &'static str| Bytes::from_static(s.as_bytes());
        let check = |keys: Keys, expected: &[&str]| {
            let found: Vec<&str> = ["", "a", "ab", "b", "c"]
                .into_iter()
                .filter(|key| keys.contains(key.as_bytes()))
                .collect();
            assert_eq!(found, expected, "{keys:?}");
        };
        check(Keys::Single(b("a")), &["a"]);
        check(Keys::Single(b("")), &[""]);
        check(Keys::Between(b("a"), b("b")), &["a", "ab"]);
        check(Keys::Between(b("b"), b("a")), &[]);
        check(Keys::Between(b("b"), b("b")), &[]);
        check(Keys::AtLeast(b("ab")), &["ab", "b", "c"]);
        check(Keys::Prefix(b("a")), &["a", "ab"]);
        check(Keys::Prefix(b("")), &["", "a", "ab", "b", "c"]);
        check(Keys::All, &["", "a", "ab", "b", "c"]);
    }
}
