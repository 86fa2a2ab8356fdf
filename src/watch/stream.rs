//! A stream of watchers: the door of this folder.

#![expect(
    clippy::disallowed_types,
    reason = "the stream's lock: for its receiver, and for verbs of other threads"
)]

use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use revtree_format::Revision;

use super::inbox::Inbox;
use super::pace::AWAKE;
use super::registry::Registry;
use super::request::{Start, WatchId, WatchRequest};
use super::response::{Update, WatchResponse};
use super::state::{Next, State, Unfiltered, keeps};
use super::topic::Topic;
use crate::error::{Error, Result};
use crate::mvcc::{KeyRange, Store};
use crate::sync::{Mutex, lock, thread};
use crate::sys::{Clock, RealClock};

/// What the receiver and all controls share.
#[derive(Debug)]
pub(super) struct Shared {
    registry: Arc<Registry>,
    number: u64,
    inbox: Arc<Inbox<Topic>>,
    state: Mutex<State>,
}

/// Many watchers, one queue of responses, one receiver. Dropping it closes it.
///
/// A watcher is a cursor: what it has not been given stays in the store, so one that is slow, or whose stream
/// nobody receives from, costs nothing but its few bytes, whatever happens meanwhile. Once a compaction has passed
/// it, it is told [`Update::Compacted`]; what it was in step with before is still given then, up to 128 batches
/// or 4 MiB of a stream.
///
/// Responses come from [`recv`](WatchStream::recv) and its like, from a blocking iterator ([`iter`]), or from
/// the `futures_core::Stream` that it is, on any runtime. When the store is closed, what is left is given in the
/// same bound, and then the end.
///
/// Events share bytes of the store's file: they keep it locked, and their space from being reclaimed, until they
/// are dropped; [`EventBatch::unpinned`](crate::EventBatch::unpinned) copies.
///
/// [`iter`]: WatchStream::iter
///
/// ```
/// use revtree::{KeyRange, Start, Update};
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut stream = db.watch_stream()?;
/// let pods = stream.watch(KeyRange::prefix("/pods/"), Start::Now)?;
/// let nodes = stream.watch(KeyRange::prefix("/nodes/"), Start::Now)?;
/// db.put("/nodes/a", "up")?;
/// db.put("/pods/a", "running")?;
/// let mut told = vec![stream.recv()?.id, stream.recv()?.id];
/// told.sort();
/// assert_eq!(told, [pods, nodes]);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Debug)]
pub struct WatchStream {
    control: WatchControl,
    /// A batch whose filters have not come to an end.
    unfiltered: Option<Unfiltered>,
    /// It has been given something, and nothing was left then: what comes next may gather.
    is_served: bool,
}

/// Adds and ends watchers of a [`WatchStream`] while another thread receives.
///
/// ```
/// use revtree::{Start, Update};
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut stream = db.watch_stream()?;
/// let control = stream.control();
/// let receiver = std::thread::spawn(move || stream.iter().count());
/// control.watch("a", Start::Now)?;
/// db.put("a", "1")?;
/// # while db.stats().pending_events == 0 { std::thread::yield_now() }
/// control.close(); // ends the receiver
/// assert_eq!(receiver.join().unwrap(), 1);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WatchControl {
    shared: Arc<Shared>,
}

impl Shared {
    pub(super) fn inbox(&self) -> &Inbox<Topic> {
        &self.inbox
    }

    pub(super) fn slow(&self) -> u64 {
        lock(&self.state).slow()
    }

    pub(super) fn end_with_store(&self) {
        lock(&self.state).end_with_store(&self.registry);
        self.inbox.stir();
    }

    pub(super) fn restored(&self) {
        lock(&self.state).restored(&self.registry);
        self.inbox.stir();
    }

    pub(super) fn save_from_compaction(&self, compact: Revision) {
        lock(&self.state).save_from_compaction(&self.registry, compact);
        self.inbox.stir();
    }

    /// Calls a verb, which may leave something to be received.
    fn verb<R>(&self, verb: impl FnOnce(&mut State) -> R) -> R {
        let result = verb(&mut lock(&self.state));
        self.inbox.stir();
        result
    }

    fn end(&self) {
        self.verb(|state| state.end(&self.registry));
        self.registry.remove_stream(self.number);
    }
}

impl WatchStream {
    pub(crate) fn new(registry: &Arc<Registry>) -> Result<WatchStream> {
        let shared = registry.add_stream(|number| {
            let inbox = Arc::new(Inbox::new());
            Arc::new(Shared {
                registry: Arc::clone(registry),
                number,
                inbox: Arc::clone(&inbox),
                state: Mutex::new(State::new(inbox, &registry.content())),
            })
        })?;
        Ok(WatchStream {
            control: WatchControl { shared },
            unfiltered: None,
            is_served: false,
        })
    }

    /// What adds and ends watchers while another thread receives.
    ///
    /// ```
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// let control = stream.control();
    /// let id = std::thread::spawn(move || control.watch("a", Start::Now)).join().unwrap()?;
    /// db.put("a", "1")?;
    /// assert_eq!(stream.recv()?.id, id);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn control(&self) -> WatchControl {
        self.control.clone()
    }

    /// Adds a watcher; its id is chosen.
    ///
    /// ```
    /// use revtree::{Error, KeyRange, Start};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch_stream()?;
    /// stream.watch("a", Start::Now)?;
    /// stream.watch(KeyRange::prefix("/pods/"), Start::Oldest)?;
    /// assert!(matches!(stream.watch("b".."a", Start::Now), Err(Error::EmptyRange)));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::EmptyRange`], [`Error::Closed`].
    pub fn watch(&self, keys: impl Into<KeyRange>, start: Start) -> Result<WatchId> {
        self.control.watch(keys, start)
    }

    /// Adds a watcher.
    ///
    /// ```
    /// use revtree::{Start, WatchId, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch_stream()?;
    /// let request = WatchRequest::new("a", Start::Now).prev_kv();
    /// assert_eq!(stream.watch_with(request.id(WatchId(40)))?, WatchId(40));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::EmptyRange`]; [`Error::WatcherDuplicateId`] when a watcher has the id, or it is below 0;
    /// [`Error::Closed`].
    pub fn watch_with(&self, request: WatchRequest) -> Result<WatchId> {
        self.control.watch_with(request)
    }

    /// Ends a watcher: no response comes for it any more.
    ///
    /// ```
    /// use revtree::{Error, Start};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// let id = stream.watch("a", Start::Now)?;
    /// db.put("a", "1")?;
    /// stream.cancel(id)?;
    /// assert!(stream.try_recv()?.is_none());
    /// assert!(matches!(stream.cancel(id), Err(Error::WatcherNotExist(_))));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WatcherNotExist`] for an id that was never given, or cancelled; [`Error::Canceled`], once, for a
    /// watcher that had ended by itself; [`Error::Closed`].
    pub fn cancel(&self, id: WatchId) -> Result<()> {
        self.control.cancel(id)
    }

    /// Asks for progress: answered, once, when the watcher has been given all that is visible.
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// let id = stream.watch("a", Start::Now)?;
    /// let rev = db.put("b", "1")?;
    /// stream.request_progress(id)?;
    /// let response = stream.recv()?;
    /// assert!(matches!(response.update, Update::Progress) && response.revision == rev);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WatcherNotExist`], [`Error::Canceled`] when the watcher has ended by itself, [`Error::Closed`].
    pub fn request_progress(&self, id: WatchId) -> Result<()> {
        self.control.request_progress(id)
    }

    /// Asks for progress of all: one answer, with id [`WatchId::ALL`], when every watcher has been given all
    /// that is visible, and none waits for a revision that is not there yet.
    ///
    /// ```
    /// use revtree::{Start, WatchId};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// stream.watch("a", Start::Now)?;
    /// stream.request_progress_all()?;
    /// assert_eq!(stream.recv()?.id, WatchId::ALL);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn request_progress_all(&self) -> Result<()> {
        self.control.request_progress_all()
    }

    /// The store's current revision.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch_stream()?;
    /// assert_eq!(stream.rev(), db.rev());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn rev(&self) -> Revision {
        self.control.rev()
    }

    /// Waits for the next response. While streams are given more than 20,000 a second, events of a stream gather, for
    /// 5 ms at most.
    ///
    /// ```
    /// use revtree::{Error, Start};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch("a", Start::Now)?;
    /// let rev = db.put("a", "1")?;
    /// assert_eq!(stream.recv()?.revision, rev);
    /// db.put("a", "2")?;
    /// db.close()?;
    /// assert_eq!(stream.recv()?.revision.get(), 3); // what is left
    /// assert!(matches!(stream.recv(), Err(Error::Closed)));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`] behind the last response, when the stream or the store has been closed.
    ///
    /// # Panics
    /// With the panic of a filter; the next call shows it the same events again.
    pub fn recv(&mut self) -> Result<WatchResponse> {
        self.receive(None)
            .map(|response| response.expect("waited without an end"))
    }

    /// The next response, if there is one now.
    ///
    /// ```
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch("a", Start::Now)?;
    /// assert!(stream.try_recv()?.is_none());
    /// db.put("a", "1")?;
    /// assert!(stream.try_recv()?.is_some());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WatchStream::recv`].
    ///
    /// # Panics
    /// As [`WatchStream::recv`].
    pub fn try_recv(&mut self) -> Result<Option<WatchResponse>> {
        loop {
            let unfiltered = match self.unfiltered.clone() {
                Some(unfiltered) => unfiltered,
                None => match self.next() {
                    Next::Response(response) => return Ok(Some(self.given(response))),
                    Next::Nothing => return Ok(None),
                    Next::End => return Err(Error::Closed),
                    Next::Filter(unfiltered) => self.unfiltered.insert(unfiltered).clone(),
                },
            };
            // Without a lock: it is the user's code. Where it panics the batch stays to be filtered.
            let Unfiltered {
                filters, events, ..
            } = &unfiltered;
            let kept = Store::refuse_writes(|| events.filtered(|event| keeps(filters, event)));
            self.unfiltered = None;
            if !kept.is_empty() && lock(&self.shared().state).is_watched(&unfiltered) {
                return Ok(Some(self.given(WatchResponse {
                    id: unfiltered.id(),
                    revision: unfiltered.revision,
                    update: Update::Events(kept),
                })));
            }
        }
    }

    /// Waits for the next response, but no longer than this.
    ///
    /// ```
    /// use std::time::Duration;
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch("a", Start::Now)?;
    /// assert!(stream.recv_timeout(Duration::from_millis(1))?.is_none());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WatchStream::recv`].
    ///
    /// # Panics
    /// As [`WatchStream::recv`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<WatchResponse>> {
        self.receive(Some(timeout))
    }

    /// The responses, each waited for; ends when the stream or the store is closed.
    ///
    /// ```
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch("a", Start::Now)?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// db.close()?;
    /// assert_eq!(stream.iter().last().unwrap().revision.get(), 3);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn iter(&mut self) -> Responses<'_> {
        Responses { stream: self }
    }

    /// Ends all its watchers.
    ///
    /// ```
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch("a", Start::Now)?;
    /// stream.close();
    /// assert_eq!((db.stats().streams, db.stats().watchers), (0, 0));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn close(self) {
        self.control.close();
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.control.shared
    }

    fn next(&mut self) -> Next {
        let shared = &self.control.shared;
        let mut state = lock(&shared.state);
        let next = state.next(&shared.registry);
        let is_given = matches!(next, Next::Response(_) | Next::Filter(_));
        self.is_served = is_given && !state.has_more();
        next
    }

    fn receive(&mut self, timeout: Option<Duration>) -> Result<Option<WatchResponse>> {
        let clock = RealClock::new();
        if std::mem::take(&mut self.is_served) {
            self.shared().registry.pace.wait_for_turn(timeout);
        }
        loop {
            if let Some(response) = self.try_recv()? {
                return Ok(Some(response));
            }
            let time = timeout.map(|timeout| timeout.saturating_sub(clock.now()));
            if time == Some(Duration::ZERO) {
                return Ok(None);
            }
            self.wait(time);
        }
    }

    /// Waits until there may be something: awake for a moment, then asleep.
    fn wait(&self, time: Option<Duration>) {
        let shared = self.shared();
        let inbox = &shared.inbox;
        if let Some(_awake) = shared.registry.pace.may_wait_awake() {
            let clock = RealClock::new();
            let end = time.map_or(AWAKE, |time| time.min(AWAKE));
            while clock.now() < end {
                for _ in 0..16 {
                    if inbox.is_stirred() {
                        return;
                    }
                    std::hint::spin_loop();
                }
                if cfg!(any(loom, shuttle)) {
                    thread::yield_now();
                    break;
                }
            }
        }
        inbox.sleep(time);
    }

    /// Counts what is given.
    fn given(&self, response: WatchResponse) -> WatchResponse {
        if let Update::Events(events) = &response.update {
            self.shared().registry.counts.given(events.len() as u64);
        }
        response
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.shared().end();
    }
}

impl Stream for WatchStream {
    type Item = WatchResponse;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchResponse>> {
        let this = self.get_mut();
        loop {
            match this.try_recv() {
                Ok(Some(response)) => return Poll::Ready(Some(response)),
                Err(_) => return Poll::Ready(None),
                Ok(None) => {}
            }
            if this.shared().inbox.leave_waker(context.waker()) {
                return Poll::Pending;
            }
        }
    }
}

/// The responses of a stream, each waited for; ends when the stream or the store is closed.
///
/// ```
/// use revtree::Start;
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut stream = db.watch("a", Start::Now)?;
/// db.put("a", "1")?;
/// db.close()?;
/// for response in &mut stream {
///     println!("{} {:?}", response.revision, response.update);
/// }
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Debug)]
pub struct Responses<'s> {
    stream: &'s mut WatchStream,
}

impl Iterator for Responses<'_> {
    type Item = WatchResponse;

    fn next(&mut self) -> Option<WatchResponse> {
        self.stream.recv().ok()
    }
}

impl FusedIterator for Responses<'_> {}

impl<'s> IntoIterator for &'s mut WatchStream {
    type Item = WatchResponse;
    type IntoIter = Responses<'s>;

    fn into_iter(self) -> Responses<'s> {
        self.iter()
    }
}

impl WatchControl {
    /// As [`WatchStream::watch`].
    ///
    /// ```
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch_stream()?;
    /// stream.control().watch("a", Start::Now)?;
    /// assert_eq!(db.stats().watchers, 1);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::EmptyRange`], [`Error::Closed`].
    pub fn watch(&self, keys: impl Into<KeyRange>, start: Start) -> Result<WatchId> {
        self.watch_with(WatchRequest::new(keys, start))
    }

    /// As [`WatchStream::watch_with`].
    ///
    /// ```
    /// use revtree::{Start, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch_stream()?;
    /// stream.control().watch_with(WatchRequest::new("a", Start::Now).prev_kv())?;
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::EmptyRange`], [`Error::WatcherDuplicateId`], [`Error::Closed`].
    pub fn watch_with(&self, request: WatchRequest) -> Result<WatchId> {
        let registry = &self.shared.registry;
        self.shared.verb(|state| state.watch(registry, request))
    }

    /// As [`WatchStream::cancel`]: behind its return the receiver is given nothing more of the watcher.
    ///
    /// ```
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch_stream()?;
    /// let control = stream.control();
    /// control.cancel(control.watch("a", Start::Now)?)?;
    /// assert_eq!(db.stats().watchers, 0);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WatcherNotExist`], [`Error::Canceled`], [`Error::Closed`].
    pub fn cancel(&self, id: WatchId) -> Result<()> {
        self.shared
            .verb(|state| state.cancel(&self.shared.registry, id))
    }

    /// As [`WatchStream::request_progress`].
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// let control = stream.control();
    /// control.request_progress(control.watch("a", Start::Now)?)?;
    /// assert!(matches!(stream.recv()?.update, Update::Progress));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WatcherNotExist`], [`Error::Canceled`], [`Error::Closed`].
    pub fn request_progress(&self, id: WatchId) -> Result<()> {
        self.shared.verb(|state| state.request_progress(id))
    }

    /// As [`WatchStream::request_progress_all`].
    ///
    /// ```
    /// use revtree::WatchId;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// stream.control().request_progress_all()?; // of none: answered at once
    /// assert_eq!(stream.recv()?.id, WatchId::ALL);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn request_progress_all(&self) -> Result<()> {
        self.shared.verb(State::request_progress_all)
    }

    /// The store's current revision; of a closed store the last.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let control = db.watch_stream()?.control();
    /// let rev = db.put("a", "1")?;
    /// assert_eq!(control.rev(), rev);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn rev(&self) -> Revision {
        self.shared.registry.rev()
    }

    /// Ends the stream: the receiver wakes, and is given its end.
    ///
    /// ```
    /// use revtree::{Error, Start};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch("a", Start::Now)?;
    /// stream.control().close();
    /// assert!(matches!(stream.recv(), Err(Error::Closed)));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn close(&self) {
        self.shared.end();
    }
}
