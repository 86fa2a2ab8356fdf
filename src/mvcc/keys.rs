//! Which keys an operation is about.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A set of keys: one key, or an interval in byte order. `end <= start` is a legal empty range: reads and
/// deletes find nothing.
///
/// ```
/// use revtree::KeyRange;
/// assert!(KeyRange::prefix("/pods/").contains(b"/pods/a"));
/// assert!(!KeyRange::from("a".."c").contains(b"c"));
/// assert!(KeyRange::from("a"..="c").contains(b"c"));
/// assert!(KeyRange::between("b", "a").is_empty());
/// assert!(KeyRange::prefix([0xff, 0xff]).contains(&[0xff, 0xff, 1]));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "Shown", into = "Shown"))]
pub struct KeyRange(Keys);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Keys {
    Single(Box<[u8]>),
    Span(Box<Span>),
}

/// From `start` on, up to but not with `end`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Span {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl KeyRange {
    fn span(start: Vec<u8>, end: Option<Vec<u8>>) -> KeyRange {
        KeyRange(Keys::Span(Box::new(Span { start, end })))
    }

    /// Exactly `key`.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let range = KeyRange::single("a");
    /// assert!(range.contains(b"a") && !range.contains(b"a\0"));
    /// assert_eq!(range, KeyRange::from("a"));
    /// ```
    pub fn single(key: impl AsRef<[u8]>) -> KeyRange {
        KeyRange(Keys::Single(key.as_ref().into()))
    }

    /// Keys `k` with `start <= k < end`.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let range = KeyRange::between("b", "d");
    /// assert!(range.contains(b"b") && range.contains(b"c") && !range.contains(b"d"));
    /// assert_eq!(range, KeyRange::from("b".."d"));
    /// ```
    pub fn between(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> KeyRange {
        KeyRange::span(start.as_ref().to_vec(), Some(end.as_ref().to_vec()))
    }

    /// Keys `k` with `start <= k` (etcd's `WithFromKey`).
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let range = KeyRange::at_least("b");
    /// assert!(range.contains(b"b") && range.contains(b"\xff") && !range.contains(b"a"));
    /// ```
    pub fn at_least(start: impl AsRef<[u8]>) -> KeyRange {
        KeyRange::span(start.as_ref().to_vec(), None)
    }

    /// Keys that begin with `prefix` (etcd's `WithPrefix`).
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let pods = KeyRange::prefix("/pods/");
    /// assert!(pods.contains(b"/pods/") && pods.contains(b"/pods/a") && !pods.contains(b"/pods0"));
    /// assert_eq!(pods, KeyRange::between("/pods/", "/pods0")); // '0' follows '/'
    /// ```
    pub fn prefix(prefix: impl AsRef<[u8]>) -> KeyRange {
        let start = prefix.as_ref().to_vec();
        // The end is the prefix with its last byte below 0xFF raised; without one there is no end.
        let end = start.iter().rposition(|byte| *byte != 0xff).map(|last| {
            let mut end = start[..=last].to_vec();
            end[last] += 1;
            end
        });
        KeyRange::span(start, end)
    }

    /// Every key.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("", "the empty key")?;
    /// db.put("\u{10ffff}", "x")?;
    /// assert_eq!(db.read()?.range(KeyRange::all()).count()?, 2);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn all() -> KeyRange {
        KeyRange::span(Vec::new(), None)
    }

    /// etcd's pair of key and range end: `None` is the key alone, an empty end is from the key on,
    /// anything else `[key, end)`.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// assert_eq!(KeyRange::from_etcd(b"a", None), KeyRange::single("a"));
    /// assert_eq!(KeyRange::from_etcd(b"a", Some(b"")), KeyRange::at_least("a"));
    /// assert_eq!(KeyRange::from_etcd(b"a", Some(b"c")), KeyRange::between("a", "c"));
    /// ```
    #[must_use]
    pub fn from_etcd(key: &[u8], end: Option<&[u8]>) -> KeyRange {
        match end {
            None => KeyRange::single(key),
            Some([]) => KeyRange::at_least(key),
            Some(end) => KeyRange::between(key, end),
        }
    }

    /// Whether the range has this key.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let range = KeyRange::from("a".."c");
    /// assert!(range.contains(b"b\xff") && !range.contains(b"c")); // by bytes, the end is not in it
    /// ```
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.0 {
            Keys::Single(only) => **only == *key,
            Keys::Span(span) => {
                let Span { start, end } = &**span;
                key >= start.as_slice() && end.as_ref().is_none_or(|end| key < end.as_slice())
            }
        }
    }

    /// Whether no key can be in it.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let backwards = KeyRange::between("b", "a");
    /// assert!(backwards.is_empty() && !KeyRange::all().is_empty());
    /// let db = revtree::Options::new().open_in_memory()?;
    /// assert_eq!(db.delete_range(backwards)?.count, 0); // legal, and finds nothing
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Keys::Span(span) if span.end.as_ref().is_some_and(|end| *end <= span.start))
    }

    /// The one key, if it is a single one.
    pub(crate) fn as_single(&self) -> Option<&[u8]> {
        match &self.0 {
            Keys::Single(key) => Some(key),
            Keys::Span(_) => None,
        }
    }

    /// Lower and upper bound.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match &self.0 {
            Keys::Single(key) => (Bound::Included(key), Bound::Included(key)),
            Keys::Span(span) => {
                let end = span.end.as_ref();
                let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
                (Bound::Included(&span.start), end)
            }
        }
    }
}

/// A range as serde shows it, by the constructors' names: keys as byte strings, not as lists of numbers.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
enum Shown {
    Single(bytes::Bytes),
    AtLeast(bytes::Bytes),
    Between(bytes::Bytes, bytes::Bytes),
}

#[cfg(feature = "serde")]
impl From<KeyRange> for Shown {
    fn from(range: KeyRange) -> Shown {
        match range.0 {
            Keys::Single(key) => Shown::Single(key.into()),
            Keys::Span(span) => match *span {
                Span { start, end: None } => Shown::AtLeast(start.into()),
                Span {
                    start,
                    end: Some(end),
                } => Shown::Between(start.into(), end.into()),
            },
        }
    }
}

#[cfg(feature = "serde")]
impl From<Shown> for KeyRange {
    fn from(shown: Shown) -> KeyRange {
        match shown {
            Shown::Single(key) => KeyRange::single(key),
            Shown::AtLeast(start) => KeyRange::at_least(start),
            Shown::Between(start, end) => KeyRange::between(start, end),
        }
    }
}

/// The least key above `key`.
fn after(key: &[u8]) -> Vec<u8> {
    let mut after = key.to_vec();
    after.push(0);
    after
}

impl From<&str> for KeyRange {
    fn from(key: &str) -> KeyRange {
        KeyRange::single(key)
    }
}

impl From<String> for KeyRange {
    fn from(key: String) -> KeyRange {
        KeyRange(Keys::Single(key.into_bytes().into()))
    }
}

impl From<&String> for KeyRange {
    fn from(key: &String) -> KeyRange {
        KeyRange::single(key)
    }
}

impl From<&[u8]> for KeyRange {
    fn from(key: &[u8]) -> KeyRange {
        KeyRange::single(key)
    }
}

impl<const N: usize> From<&[u8; N]> for KeyRange {
    fn from(key: &[u8; N]) -> KeyRange {
        KeyRange::single(key)
    }
}

impl From<Vec<u8>> for KeyRange {
    fn from(key: Vec<u8>) -> KeyRange {
        KeyRange(Keys::Single(key.into()))
    }
}

impl<K: AsRef<[u8]>> From<Range<K>> for KeyRange {
    fn from(range: Range<K>) -> KeyRange {
        KeyRange::between(range.start, range.end)
    }
}

impl<K: AsRef<[u8]>> From<RangeInclusive<K>> for KeyRange {
    fn from(range: RangeInclusive<K>) -> KeyRange {
        KeyRange::between(range.start(), after(range.end().as_ref()))
    }
}

impl<K: AsRef<[u8]>> From<RangeFrom<K>> for KeyRange {
    fn from(range: RangeFrom<K>) -> KeyRange {
        KeyRange::at_least(range.start)
    }
}

impl<K: AsRef<[u8]>> From<RangeTo<K>> for KeyRange {
    fn from(range: RangeTo<K>) -> KeyRange {
        KeyRange::between([], range.end)
    }
}

impl<K: AsRef<[u8]>> From<RangeToInclusive<K>> for KeyRange {
    fn from(range: RangeToInclusive<K>) -> KeyRange {
        KeyRange::between([], after(range.end.as_ref()))
    }
}

impl From<RangeFull> for KeyRange {
    fn from(_: RangeFull) -> KeyRange {
        KeyRange::all()
    }
}
