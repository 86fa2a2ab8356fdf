//! Why a command did not succeed, and with which status the tool then ends.

use std::fmt;
use std::io;
use std::path::Path;

use revtree::Error;

/// A command's failure; its text is the one line that stderr gets.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for something that cannot be meant.
    Usage(String),
    /// The store, the file or the machine refused.
    Refused(String),
    /// The output cannot be written.
    Output(io::Error),
}

/// What a command gives.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// The store at `path` refused.
    pub(crate) fn store(path: &Path, error: &Error) -> Failure {
        match error {
            // These name the file themselves.
            Error::Locked { .. } | Error::NotAStore { .. } => Failure::Refused(error.to_string()),
            _ => Failure::file(path, error),
        }
    }

    /// The operating system refused `path`.
    pub(crate) fn file(path: &Path, error: &impl fmt::Display) -> Failure {
        Failure::Refused(format!("{}: {error}", path.display()))
    }

    /// Exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Refused(_) | Failure::Output(_) => 1,
        }
    }

    /// Whether the reader of our output went away.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Failure::Usage(text) | Failure::Refused(text) => text.clone(),
            Failure::Output(error) => format!("cannot write the output: {error}"),
        };
        // One line, whatever a path or a message holds.
        f.write_str(&text.replace(['\n', '\r'], " "))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use revtree::Error;

    use super::Failure;

    /// Goal: a medium that takes no writes is told in one line, with the file and what is wrong.
    #[test]
    fn a_medium_that_takes_no_writes() {
        let refused = |error: &Error| Failure::store(Path::new("there"), error);
        let denied = Error::Io {
            what: "open the store for writing",
            cause: Arc::new(io::ErrorKind::PermissionDenied.into()),
        };
        for (error, word) in [
            (Error::ReadOnly, "read-only medium"),
            (denied, "permission denied"),
        ] {
            let failure = refused(&error);
            let text = failure.to_string();
            assert!(text.starts_with("there: "), "{text}");
            assert!(text.contains(word), "{text}");
            assert_eq!((text.lines().count(), failure.status()), (1, 1));
        }
    }
}
