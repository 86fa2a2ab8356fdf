//! A progress bar on stderr for what takes long. It is not drawn when stderr is no terminal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use revtree::Progress;

/// A bar that appears with the first report of progress.
#[derive(Clone, Default)]
pub(crate) struct Bar(Arc<Mutex<Option<ProgressBar>>>);

impl Bar {
    /// What the store is given to report to.
    pub(crate) fn listener(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let bar = self.clone();
        move |progress| bar.show(progress)
    }

    /// Shows how far something is.
    pub(crate) fn show(&self, progress: Progress) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = slot.get_or_insert_with(|| {
            let bar = ProgressBar::no_length();
            bar.enable_steady_tick(TICK);
            bar
        });
        if let Some(total) = progress.total
            && bar.length() != Some(total)
        {
            bar.set_length(total);
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta}") {
                bar.set_style(style);
            }
        }
        bar.set_message(progress.what);
        bar.set_position(progress.done);
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = slot.take() {
            bar.finish_and_clear();
        }
    }
}

/// Shows that work goes on which cannot say how far it is, until it is dropped.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    /// For the work named so.
    pub(crate) fn new(what: &'static str) -> Spinner {
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.enable_steady_tick(TICK);
        Spinner(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

const TICK: Duration = Duration::from_millis(200);
