//! Damage: what breaks a rule of SPEC.md, with its offset and both numbers.

use std::fmt;

use revtree_format::FormatError;
use serde_json::{Value, json};

/// Bytes that break a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// Which structure or rule.
    pub what: &'static str,
    /// What the rule asks for.
    pub expected: u64,
    /// What is there.
    pub found: u64,
}

impl Damage {
    /// Damage at `offset`.
    #[must_use]
    pub const fn new(offset: u64, what: &'static str, expected: u64, found: u64) -> Damage {
        Damage {
            offset,
            what,
            expected,
            found,
        }
    }

    /// Its fields as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Damage {
            offset,
            what,
            expected,
            found,
        } = self;
        json!({ "offset": offset, "what": what, "expected": expected, "found": found })
    }
}

impl From<FormatError> for Damage {
    fn from(error: FormatError) -> Damage {
        Damage::new(error.offset, error.what, error.expected, error.found)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage {
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
