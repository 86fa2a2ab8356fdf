//! What a stream's receiver knows: its watchers, their topics, and what has been made for them.
//!
//! Everything here is behind the stream's lock, which verbs take for a moment and the receiver while it reads one
//! batch. It must not know how a receiver waits, nor run a user's code: filters that go are left to who gives the lock
//! back (`take_gone`), since what they own may want it, and wakers are called behind that.
//!
//! # How events reach a watcher
//! A topic that is *due* is read from its cursor up to the visible revision, a batch at a time; each of its
//! watchers is given the batch, from the watcher's own first revision on. A watcher that begins in the past has
//! a topic of its own, which is read until nothing visible is left; then its watcher joins the topic of its
//! shape that the writer marks, or its topic becomes that. The join loses nothing and gives nothing twice: the
//! joined topic has been read no further than the one that joins, since what is visible never goes back, and
//! of what it is read from then on the watcher is given what is at or above its first revision.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::RangeInclusive;
use std::sync::Arc;

use revtree_format::Revision;

use self::made::Made;
use self::progress::Asked;
use self::retired::Retired;
use super::inbox::Inbox;
use super::members::Members;
use super::places::Places;
use super::registry::Content;
use super::request::Filters;
use super::topic::Topic;
use crate::mvcc::Store;

mod content;
mod made;
mod progress;
mod reading;
mod retired;
mod together;
mod topics;
mod watchers;

pub(super) use content::Room;
pub(super) use made::{Next, Unfiltered, keeps};

/// See the head of the module.
#[derive(Debug)]
pub(super) struct State {
    inbox: Arc<Inbox<Topic>>,
    watchers: ById<Watcher>,
    /// Of those that have some: apart, since most have none.
    filters: ById<Filters>,
    /// The next id that is chosen.
    next_id: i64,
    /// Tells watchers apart that had one id after each other.
    serial: u32,
    /// Watchers that ended by themselves, and have been told.
    retired: Retired,
    topics: Places<TopicState>,
    /// Due topics to be read, round and round.
    ready: VecDeque<u32>,
    /// Topics that are due from a revision on that is not visible yet.
    beyond: BinaryHeap<Reverse<(Revision, u32)>>,
    /// Up to here the writer had accepted commits before it knew one of the topics: nobody stirs for those.
    unlisted: Revision,
    /// Topics of watchers that began in the past, round and round.
    catching_up: VecDeque<u32>,
    /// A pass has given up here: who stands here is read alone.
    alone: RangeInclusive<Revision>,
    /// So many of the places in the two, at most, are of topics that are gone.
    stale: usize,
    /// Whose turn it is: of one that catches up.
    turn_of_old: bool,
    /// Made and not given yet.
    made: VecDeque<Made>,
    /// Records that the last step has looked at.
    looked_at: usize,
    asked: Asked,
    /// First revisions of watchers that began in the future, and how many begin with each.
    future: BTreeMap<Revision, u64>,
    /// Which content the cursors stand in: how many there were before.
    content: usize,
    /// Up to here everything is visible.
    visible: Revision,
    /// What the last look saw, while some of what was due then has not been read.
    seen: Option<Arc<Store>>,
    ended: bool,
    /// What is the user's and has gone: dropped without the stream's lock.
    gone: Vec<Filters>,
    /// Kept for its memory.
    due: Vec<(Arc<Topic>, Revision)>,
}

/// Where no topic stands.
const NOBODY: RangeInclusive<Revision> = Revision::new(0)..=Revision::new(0);

type ById<T> = HashMap<i64, T, BuildHasherDefault<DefaultHasher>>;

/// The topic of a watcher that has ended by itself and has not been told so yet: what was made for it before is
/// still to be given.
const ENDED: u32 = u32::MAX;

#[derive(Debug)]
struct Watcher {
    topic: u32,
    /// Its place among the members of its topic.
    place: u32,
    serial: u32,
    began: Began,
    /// The first revision that it is to be given.
    from: Revision,
    /// Whether it has filters.
    filtered: bool,
}

// W-11: there is one for each watcher, in a table that may be half empty.
const _: () = assert!(size_of::<Watcher>() == 24);
const _: () = assert!(size_of::<TopicState>() == 40);

impl Watcher {
    /// The revision that it waits for, or waited for.
    fn begins(&self) -> Option<Revision> {
        (self.began == Began::Future).then_some(self.from)
    }
}

/// Where a watcher began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Began {
    /// With what is new: in step from the beginning.
    Now,
    Past,
    /// With a revision that was not there yet, and before which it is not told of progress: its first.
    Future,
}

#[derive(Debug)]
struct TopicState {
    shared: Arc<Topic>,
    /// Where it is read next. It says more when the topic is due: else nothing was missed since.
    cursor: Revision,
    stage: Stage,
    /// The cursor may have passed the first revision of a member.
    passed: bool,
    members: Members,
}

impl TopicState {
    /// What lies below has been read, or is missed by nobody.
    fn advance(&mut self, to: Revision) {
        if self.cursor < to {
            self.cursor = to;
            self.passed = true;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// In the table, with nothing to be read.
    Idle,
    /// In the table, and in `ready` or `beyond`.
    Due,
    /// In `catching_up`.
    CatchingUp,
}

/// A watcher, as it was when something was made for it.
type Member = (i64, u32);

impl State {
    pub(super) fn new(inbox: Arc<Inbox<Topic>>, content: &Content) -> State {
        State {
            inbox,
            watchers: HashMap::default(),
            filters: HashMap::default(),
            next_id: 0,
            serial: 0,
            retired: Retired::default(),
            topics: Places::default(),
            ready: VecDeque::new(),
            beyond: BinaryHeap::new(),
            unlisted: Revision::default(),
            catching_up: VecDeque::new(),
            alone: NOBODY,
            stale: 0,
            turn_of_old: false,
            made: VecDeque::new(),
            looked_at: 0,
            asked: Asked::default(),
            future: BTreeMap::new(),
            content: content.ends.len(),
            visible: Revision::default(),
            seen: None,
            ended: false,
            gone: Vec::new(),
            due: Vec::new(),
        }
    }
}
