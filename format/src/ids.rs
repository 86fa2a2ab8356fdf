//! The numbers that cross layers, each a type of its own so that they cannot be mixed up.

use core::fmt;

/// A revision: the store's counter of changes. The empty store is at 1, the first change makes 2.
///
/// ```
/// use revtree_format::Revision;
/// assert_eq!(Revision::new(7).next().get(), 8);
/// assert_eq!(Revision::from(7).to_string(), "7");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Revision(u64);

impl Revision {
    /// The revision with number `n`.
    ///
    /// ```
    /// use revtree_format::Revision;
    /// assert_eq!(Revision::new(7), Revision::from(7));
    /// assert!(Revision::new(9) < Revision::new(10)); // by number, not by text
    /// ```
    #[must_use]
    pub const fn new(n: u64) -> Revision {
        Revision(n)
    }

    /// Its number.
    ///
    /// ```
    /// use revtree_format::Revision;
    /// let (from, to) = (Revision::new(3), Revision::new(10));
    /// assert_eq!(to.get() - from.get(), 7);
    /// ```
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one (saturating: limits are checked where revisions are made).
    ///
    /// ```
    /// use revtree_format::Revision;
    /// assert_eq!(Revision::new(7).next(), Revision::new(8));
    /// assert_eq!(Revision::new(u64::MAX).next(), Revision::new(u64::MAX));
    /// ```
    #[must_use]
    pub const fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }
}

impl From<u64> for Revision {
    fn from(n: u64) -> Revision {
        Revision(n)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One change: its revision and its place inside the transaction (etcd's main and sub).
///
/// ```
/// use revtree_format::{ChangeId, Revision};
/// let id = ChangeId { main: Revision::new(9), sub: 2 };
/// assert!(id < ChangeId { main: Revision::new(10), sub: 0 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChangeId {
    /// The revision of the transaction.
    pub main: Revision,
    /// The place of the change in its transaction, from 0.
    pub sub: u64,
}

impl ChangeId {
    /// The change `sub` of revision `main`.
    ///
    /// ```
    /// use revtree_format::{ChangeId, Revision};
    /// let second = ChangeId::new(Revision::new(9), 1);
    /// assert!(second > ChangeId::new(Revision::new(9), 0));
    /// assert_eq!(second.to_string(), "9.1");
    /// ```
    #[must_use]
    pub const fn new(main: Revision, sub: u64) -> ChangeId {
        ChangeId { main, sub }
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// The id that a user's lessor gave to a lease; 0 is no lease.
///
/// ```
/// use revtree_format::LeaseId;
/// let granted = LeaseId(0x70cc_a5f2_1e6b_4a07);
/// assert_ne!(granted, LeaseId::NONE);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease.
    ///
    /// ```
    /// use revtree_format::LeaseId;
    /// assert_eq!(LeaseId::NONE, LeaseId::default());
    /// assert_eq!(LeaseId::NONE.0, 0); // as on the wire
    /// ```
    pub const NONE: LeaseId = LeaseId(0);
}

/// A byte offset in the store file; records and frames begin at multiples of 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

impl Position {
    /// No position: the file's first bytes are a superblock, so no record begins there.
    pub const NONE: Position = Position(0);

    /// The position `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Position {
        Position(self.0 + bytes)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
