//! Who frees the space of what compactions leave behind, and at what pace.

/// Who frees the space of records that no allowed read needs any more.
///
/// ```
/// use revtree::{Cleaner, CleanerOptions, Options};
/// // A thread of the store, which goes slowly and leaves more behind than it would by default.
/// let slow = CleanerOptions::new().bytes_per_second(8 << 20).dead_percent(40);
/// let db = Options::new().cleaner(Cleaner::Paced(slow)).open_in_memory()?;
/// db.close()?;
/// // Nobody but `Db::reclaim`.
/// let db = Options::new().cleaner(Cleaner::Manual).open_in_memory()?;
/// db.put("a", "1")?;
/// db.compact(db.put("a", "2")?)?;
/// db.reclaim()?;
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Cleaner {
    /// A thread of the store, begun by the first compaction, that cleans in small steps beside everything else.
    Paced(CleanerOptions),
    /// [`Db::reclaim`](crate::Db::reclaim), when it is called.
    Manual,
}

impl Default for Cleaner {
    fn default() -> Cleaner {
        Cleaner::Paced(CleanerOptions::new())
    }
}

/// When the cleaner's thread begins, and how fast it goes.
///
/// ```
/// use revtree::{Cleaner, CleanerOptions};
/// assert_eq!(Cleaner::default(), Cleaner::Paced(CleanerOptions::new()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CleanerOptions {
    pub(crate) bytes_per_second: u64,
    pub(crate) dead_percent: u8,
}

/// A few percent of what a core can copy and check.
const BYTES_PER_SECOND_DEFAULT: u64 = 64 << 20;
/// With it a cleaned store takes at most 1.25 times what is live in it.
const DEAD_PERCENT_DEFAULT: u8 = 20;

impl CleanerOptions {
    /// The defaults: 64 MiB a second, begun at 20 percent.
    ///
    /// ```
    /// let options = revtree::CleanerOptions::new();
    /// assert_eq!(options, revtree::CleanerOptions::default());
    /// ```
    #[must_use]
    pub fn new() -> CleanerOptions {
        CleanerOptions {
            bytes_per_second: BYTES_PER_SECOND_DEFAULT,
            dead_percent: DEAD_PERCENT_DEFAULT,
        }
    }

    /// How many bytes of records it reads and writes in a second, at least 1 MiB. Where commits are
    /// about to wait for it, it goes as fast as it can. Default: 64 MiB.
    ///
    /// ```
    /// use revtree::{Cleaner, CleanerOptions, Options};
    /// let cleaner = Cleaner::Paced(CleanerOptions::new().bytes_per_second(16 << 20));
    /// let db = Options::new().cleaner(cleaner).open_in_memory()?;
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes.max(1 << 20);
        self
    }

    /// How many percent of the bytes of all segments in use must be dead before it begins, 1 to 100; and two segments
    /// at least. Fewer make the file smaller and copy more. Default: 20.
    ///
    /// ```
    /// use revtree::{Cleaner, CleanerOptions, Options};
    /// let cleaner = Cleaner::Paced(CleanerOptions::new().dead_percent(50));
    /// let db = Options::new().cleaner(cleaner).open_in_memory()?;
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn dead_percent(mut self, percent: u8) -> Self {
        self.dead_percent = percent.clamp(1, 100);
        self
    }
}

impl Default for CleanerOptions {
    fn default() -> CleanerOptions {
        CleanerOptions::new()
    }
}
