//! What a parser answers when bytes are not what SPEC says: where, what, and the two numbers.

use core::fmt;

/// Bytes that break a rule of SPEC.md.
///
/// ```
/// use revtree_format::Superblock;
/// let error = Superblock::parse(&[0; 4096], 0).unwrap_err();
/// assert_eq!(error.what, "superblock magic");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatError {
    /// Byte offset in the file of the structure that is wrong.
    pub offset: u64,
    /// Which field or rule.
    pub what: &'static str,
    /// What the rule asks for.
    pub expected: u64,
    /// What is there.
    pub found: u64,
}

impl FormatError {
    /// An error about the structure at `offset`.
    #[must_use]
    pub const fn new(offset: u64, what: &'static str, expected: u64, found: u64) -> FormatError {
        FormatError {
            offset,
            what,
            expected,
            found,
        }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FormatError {
            offset,
            what,
            expected,
            found,
        } = self;
        write!(
            f,
            "{what} at offset {offset:#x}: expected {expected:#x}, found {found:#x}"
        )
    }
}

impl core::error::Error for FormatError {}

/// `Ok` when `expected == found`, else the error that names both.
pub(crate) fn check(
    offset: u64,
    what: &'static str,
    expected: u64,
    found: u64,
) -> Result<(), FormatError> {
    if expected == found {
        Ok(())
    } else {
        Err(FormatError::new(offset, what, expected, found))
    }
}

/// `Ok` when `found <= max`, else the error that names both.
pub(crate) fn check_max(
    offset: u64,
    what: &'static str,
    max: u64,
    found: u64,
) -> Result<(), FormatError> {
    if found <= max {
        Ok(())
    } else {
        Err(FormatError::new(offset, what, max, found))
    }
}
