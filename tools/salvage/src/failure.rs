//! Why nothing was saved.

use std::fmt;
use std::path::Path;

use revtree::Error;

/// The old store, the new one or the machine refused; the text says which file, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(pub String);

/// What a step gives.
pub(crate) type Result<T = ()> = std::result::Result<T, Refused>;

impl Refused {
    /// The store at `path` refused.
    pub(crate) fn store(path: &Path, error: &Error) -> Refused {
        match error {
            // These name the file themselves.
            Error::Locked { .. } | Error::NotAStore { .. } => Refused(error.to_string()),
            _ => Refused::file(path, error),
        }
    }

    /// The operating system refused `path`.
    pub(crate) fn file(path: &Path, error: &impl fmt::Display) -> Refused {
        Refused(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}
