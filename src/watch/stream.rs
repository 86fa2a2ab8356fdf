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
use super::state::{Next, Room, State, Unfiltered, keeps};
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
    /// Held by whoever waits for the state: a receiver that gives the state back between two steps does not take it
    /// again before who waits has had it.
    next: Mutex<()>,
    state: Mutex<State>,
}

/// Many watchers, one queue of responses, one receiver. Dropping it closes it.
///
/// A watcher is a cursor: what it has not been given stays in the store, so one that is slow, or whose stream
/// nobody receives from, costs nothing but its few bytes until a compaction passes it. Then it is told
/// [`Update::Compacted`]; but what it was in step with before is copied first, by who compacts, and still given: of a
/// stream up to 4 MiB, of all streams of a store up to 64 MiB, with the cost of each event and batch.
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
    /// A batch whose filters have not come to an end: they panic, or have.
    unfiltered: Option<Unfiltered>,
    /// It has been given something, and nothing was left then: what comes next may gather.
    is_served: bool,
}

/// Records of the log that one poll looks at where that gives nothing, and what a step counts for however few it finds.
const POLL_RECORDS: usize = 1 << 16;
const STEP_RECORDS: usize = 1 << 6;

/// How often a filter may panic at a batch.
const FILTER_PANICS: u8 = 3;

/// What one step gives.
#[derive(Debug)]
enum Step {
    Given(WatchResponse),
    /// Nothing of so many records, and there may be more.
    More {
        looked_at: usize,
    },
    /// Nothing is there.
    Nothing,
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
    pub(super) fn slow(&self) -> u64 {
        self.with(|state| state.slow())
    }

    pub(super) fn kept(&self) -> usize {
        self.with(|state| state.kept())
    }

    pub(super) fn end_with_store(&self, room: &mut Room) {
        self.verb(|state| state.end_with_store(&self.registry, room));
    }

    pub(super) fn restored(&self) {
        self.verb(|state| state.restored(&self.registry));
    }

    pub(super) fn save_from_compaction(&self, compact: Revision, room: &mut Room) {
        self.verb(|state| state.save_from_compaction(&self.registry, compact, room));
    }

    /// Calls with the stream's lock. What lets go of something of the user's leaves it in the state, and it is
    /// dropped here, without the lock: a filter may own the last handle of its store, whose close takes it.
    fn with<R>(&self, call: impl FnOnce(&mut State) -> R) -> R {
        let next = lock(&self.next);
        let mut state = lock(&self.state);
        drop(next);
        let result = call(&mut state);
        let gone = state.take_gone();
        drop(state);
        drop(gone);
        result
    }

    /// Calls a verb, which may leave something to be received.
    fn verb<R>(&self, verb: impl FnOnce(&mut State) -> R) -> R {
        let result = self.with(verb);
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
                next: Mutex::new(()),
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
    /// watcher that had ended by itself, of which a stream remembers the last 65,536; [`Error::Closed`].
    pub fn cancel(&self, id: WatchId) -> Result<()> {
        self.control.cancel(id)
    }

    /// Asks for progress: answered, once, when the watcher has been given all that is visible now, or a little more,
    /// however fast the writer is.
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
    /// that is visible now, and none waits for a revision that is not there yet. Until then nothing is given that came
    /// later, unless a watcher catches up with the past or waits for the future.
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
    /// 5 ms at most. In a handle that was opened to read only nothing new becomes visible, so behind what was there this
    /// waits until it is closed.
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
    /// With the panic of a filter; the next call shows it the same events again, and nothing is lost. The third panic
    /// at the same events ends its watcher, with [`Update::Failed`]; the others go on.
    pub fn recv(&mut self) -> Result<WatchResponse> {
        self.receive(None)
            .map(|response| response.expect("waited without an end"))
    }

    /// The next response, if there is one now. Where a watcher catches up with the past this reads until something is
    /// to be given, or to the end: for a bound see [`recv_timeout`](WatchStream::recv_timeout). Others are not kept
    /// waiting by it: verbs, compactions and closes come in between two reads of some thousand records.
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
            match self.step()? {
                Step::Given(response) => return Ok(Some(response)),
                Step::Nothing => return Ok(None),
                Step::More { .. } => {}
            }
        }
    }

    /// Waits for the next response, but no longer than this, and a read of some thousand records of the log: that is
    /// done also where there is no time, and may find nothing though there is something behind it.
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
    ///
    /// # Panics
    /// `next` of it, as [`WatchStream::recv`].
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

    /// Takes what has been made, or looks once for more.
    fn step(&mut self) -> Result<Step> {
        let unfiltered = match self.unfiltered.take() {
            Some(unfiltered) => unfiltered,
            None => match self.next() {
                Next::Response(response) => return Ok(Step::Given(self.given(response))),
                Next::Filter(unfiltered) => unfiltered,
                Next::More { looked_at } => return Ok(Step::More { looked_at }),
                Next::Nothing => return Ok(Step::Nothing),
                Next::End => return Err(Error::Closed),
            },
        };
        Ok(self.filter(unfiltered))
    }

    /// Calls a watcher's filters, without a lock: they are the user's code. Where one panics the batch stays, and is
    /// shown again, unless its watcher has been cancelled meanwhile; but not for ever, since the others wait behind it.
    fn filter(&mut self, mut unfiltered: Unfiltered) -> Step {
        let shared = Arc::clone(self.shared());
        let is_watched =
            |unfiltered: &Unfiltered| shared.with(|state| state.is_watched(unfiltered));
        if unfiltered.panics == FILTER_PANICS {
            shared.with(|state| state.end_unfiltered(&shared.registry, &unfiltered));
            return Step::More { looked_at: 0 };
        }
        if unfiltered.panics > 0 && !is_watched(&unfiltered) {
            return Step::More { looked_at: 0 };
        }
        // Taken back behind them.
        unfiltered.panics += 1;
        let (filters, events) = (Arc::clone(&unfiltered.filters), unfiltered.events.clone());
        self.unfiltered = Some(unfiltered);
        let kept = Store::refuse_writes(|| events.filtered(|event| keeps(&filters, event)));
        match self.unfiltered.take() {
            Some(unfiltered) if !kept.is_empty() && is_watched(&unfiltered) => {
                Step::Given(self.given(WatchResponse {
                    id: unfiltered.id(),
                    revision: unfiltered.revision,
                    update: Update::Events(kept),
                }))
            }
            _ => Step::More {
                looked_at: events.len(),
            },
        }
    }

    fn next(&mut self) -> Next {
        let shared = &self.control.shared;
        let (next, has_more) = shared.with(|state| {
            let next = state.next(&shared.registry);
            (next, state.has_more())
        });
        let is_given = matches!(next, Next::Response(_) | Next::Filter(_));
        self.is_served = is_given && !has_more;
        next
    }

    fn receive(&mut self, timeout: Option<Duration>) -> Result<Option<WatchResponse>> {
        let clock = RealClock::new();
        if std::mem::take(&mut self.is_served) {
            self.shared().registry.pace.wait_for_turn(timeout);
        }
        loop {
            let step = self.step()?;
            if let Step::Given(response) = step {
                return Ok(Some(response));
            }
            let time = timeout.map(|timeout| timeout.saturating_sub(clock.now()));
            if time == Some(Duration::ZERO) {
                return Ok(None);
            }
            if let Step::Nothing = step {
                self.wait(time);
            }
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
        let shared = self.shared();
        shared.end();
        shared.inbox.forget_waker();
    }
}

impl Stream for WatchStream {
    type Item = WatchResponse;

    /// The next response, as [`WatchStream::recv`] gives it; the end is `None`. A poll looks at some 65,000 records of
    /// the log; where nothing of them is to be given it wakes its task and gives way.
    ///
    /// # Panics
    /// As [`WatchStream::recv`].
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchResponse>> {
        let this = self.get_mut();
        let mut left = POLL_RECORDS;
        while left > 0 {
            match this.step() {
                Ok(Step::Given(response)) => return Poll::Ready(Some(response)),
                Err(_) => return Poll::Ready(None),
                Ok(Step::More { looked_at }) => {
                    left = left.saturating_sub(looked_at.max(STEP_RECORDS));
                }
                Ok(Step::Nothing) => {
                    if this.shared().inbox.leave_waker(context.waker()) {
                        return Poll::Pending;
                    }
                    left = left.saturating_sub(STEP_RECORDS);
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
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
        // Where it is refused they are dropped here, without the lock.
        let _filters = request.filters.clone();
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
