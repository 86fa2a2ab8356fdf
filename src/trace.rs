//! The feature `tracing`: spans and events of what an operator asks about, and nothing on a get or a put.
//! Without the feature the macros here are empty.
//!
//! Apart so that the layers can say what happens in one line, whatever the features are. It must not know
//! them: what is told is given to the macros.
//!
//! | span | fields | events in it |
//! |---|---|---|
//! | `open` | `path`, `read_only` | info `store opened`; warn `log replayed` after an unclean end, warn `superblocks damaged`; debug `index loaded` or `index built`, warn `index not loaded` when its part of the file is damaged |
//! | `checkpoint` | `with_index` | debug `checkpoint written` |
//! | `compact` | `revision` | info `compacted` |
//! | `save` | `path` | info `snapshot saved` |
//! | `restore` | `path` | those of an open, info `restored` |
//! | `close` | `path` | info `store closed`, or warn with the error |
//!
//! Outside of any: error `store poisoned` with the cause, once; warn `checkpoint put off` when there is no
//! room for one; warn `slow sync` when a sync of the log took `SLOW_SYNC` or longer, as etcd warns of its
//! own.

/// Enters a span of level info for the rest of the block.
macro_rules! span {
    ($($what:tt)*) => {
        #[cfg(feature = "tracing")]
        let _entered = ::tracing::info_span!($($what)*).entered();
    };
}

/// Tells an event: level, fields, text.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($what:tt)*) => {
        { ::tracing::event!(::tracing::Level::$level, $($what)*); }
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($($what:tt)*) => {
        ()
    };
}

pub(crate) use event;
pub(crate) use span;

use crate::sys::Stopwatch;

/// From how long on a sync is worth a word.
#[cfg(feature = "tracing")]
const SLOW_SYNC: std::time::Duration = std::time::Duration::from_secs(1);

/// A store takes no more writes.
pub(crate) fn poisoned(cause: &std::io::Error) {
    event!(ERROR, %cause, "store poisoned");
    #[cfg(not(feature = "tracing"))]
    let _ = cause;
}

/// A sync of the log has returned.
pub(crate) fn synced(time: &Stopwatch) {
    #[cfg(feature = "tracing")]
    tell_slow(time.elapsed());
    #[cfg(not(feature = "tracing"))]
    let _ = time;
}

#[cfg(feature = "tracing")]
fn tell_slow(took: std::time::Duration) {
    if took >= SLOW_SYNC {
        event!(
            WARN,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "slow sync"
        );
    }
}

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::{SLOW_SYNC, tell_slow};

    /// Counts warnings.
    struct Warnings(&'static AtomicU64);

    impl Subscriber for Warnings {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            assert_eq!(*event.metadata().level(), Level::WARN);
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    /// A quick sync is not worth a word, a slow one is worth one.
    #[test]
    fn slow_syncs_are_told() {
        static WARNINGS: AtomicU64 = AtomicU64::new(0);
        tracing::subscriber::with_default(Warnings(&WARNINGS), || {
            tell_slow(SLOW_SYNC - Duration::from_nanos(1));
            assert_eq!(WARNINGS.load(Ordering::Relaxed), 0);
            tell_slow(SLOW_SYNC);
            assert_eq!(WARNINGS.load(Ordering::Relaxed), 1);
        });
    }
}
