//! What a stream's receiver knows: its watchers, their topics, and what has been made for them.
//!
//! Everything here is behind the stream's lock, which verbs take for a moment and the receiver while it reads one
//! batch. It must not know how a receiver waits, nor run a user's code.
//!
//! # How events reach a watcher
//! A topic that is *due* is read from its cursor up to the visible revision, a batch at a time; each of its
//! watchers is given the batch, from the watcher's own first revision on. A watcher that begins in the past has
//! a topic of its own, which is read until nothing visible is left; then its watcher joins the topic of its
//! shape that the writer marks, or its topic becomes that. The join loses nothing and gives nothing twice: the
//! joined topic has been read no further than the one that joins, since what is visible never goes back, and
//! of what it is read from then on the watcher is given what is at or above its first revision.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use revtree_format::Revision;

use super::inbox::{Inbox, Marked};
use super::members::Members;
use super::places::Places;
use super::registry::{Content, Registry};
use super::request::{Filter, Filters, Start, WatchId, WatchRequest};
use super::response::{EventBatch, Update, WatchResponse};
use super::topic::{Shape, Topic};
use crate::error::{Error, Result};
use crate::mvcc::{BatchLimits, Store, Wanted, read_batch};

/// etcd's limit of a response, in revisions.
const BATCH_REVISIONS: u64 = 1000;
/// Records that are looked at for one topic before another has its turn.
const BATCH_RECORDS: usize = 1 << 16;
/// What a stream that ends with its store makes: batches, and their bytes.
const LAST_BATCHES: usize = 128;
const LAST_BYTES: usize = 4 << 20;

/// See the head of the module.
#[derive(Debug)]
pub(super) struct State {
    inbox: Arc<Inbox<Topic>>,
    watchers: HashMap<i64, Watcher, BuildHasherDefault<DefaultHasher>>,
    /// The next id that is chosen.
    next_id: i64,
    /// Tells watchers apart that had one id after each other.
    serial: u32,
    /// Watchers that ended by themselves, and have been told.
    retired: HashSet<i64>,
    topics: Places<TopicState>,
    /// Due topics to be read, round and round.
    ready: VecDeque<u32>,
    /// Topics that are due from a revision on that is not visible yet.
    beyond: BinaryHeap<Reverse<(Revision, u32)>>,
    /// Topics of watchers that began in the past, round and round.
    catching_up: VecDeque<u32>,
    /// Whose turn it is: of one that catches up.
    turn_of_old: bool,
    /// Made and not given yet.
    made: VecDeque<Made>,
    /// Who has asked for progress.
    asked: Vec<Member>,
    asked_all: u64,
    /// First revisions of watchers that wait for the future, and how many wait for each.
    future: BTreeMap<Revision, u64>,
    /// Which content the cursors stand in: how many there were before.
    content: usize,
    /// Up to here everything is visible.
    visible: Revision,
    ended: bool,
    /// Kept for its memory.
    due: Vec<(Arc<Topic>, Revision)>,
}

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
    filters: Option<Filters>,
}

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
    /// Up to here the writer had accepted commits before it knew the topic: nobody stirs for those.
    unlisted: Revision,
    members: Members,
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

#[derive(Debug)]
enum Made {
    /// A batch for each of these, from the revision on that was its first when the batch was made: a join
    /// may have raised that since.
    Batch {
        events: EventBatch,
        revision: Revision,
        members: Vec<(Member, Revision)>,
        next: usize,
    },
    /// The last response of a watcher, which has ended: its id, with which it is taken for the same one.
    Last(Member, WatchResponse),
    Progress(Member, Revision),
    ProgressOfAll(Revision),
}

/// What a receiver gets of a look.
#[derive(Debug)]
pub(super) enum Next {
    Response(WatchResponse),
    /// A response that its watcher's filters have to see first.
    Filter(Unfiltered),
    /// Nothing now.
    Nothing,
    End,
}

/// Events before a watcher's filters.
#[derive(Clone, Debug)]
pub(super) struct Unfiltered {
    member: Member,
    pub(super) filters: Filters,
    pub(super) events: EventBatch,
    pub(super) revision: Revision,
}

impl Unfiltered {
    pub(super) fn id(&self) -> WatchId {
        WatchId(self.member.0)
    }
}

impl State {
    pub(super) fn new(inbox: Arc<Inbox<Topic>>, content: &Content) -> State {
        State {
            inbox,
            watchers: HashMap::default(),
            next_id: 0,
            serial: 0,
            retired: HashSet::new(),
            topics: Places::default(),
            ready: VecDeque::new(),
            beyond: BinaryHeap::new(),
            catching_up: VecDeque::new(),
            turn_of_old: false,
            made: VecDeque::new(),
            asked: Vec::new(),
            asked_all: 0,
            future: BTreeMap::new(),
            content: content.ends.len(),
            visible: Revision::default(),
            ended: false,
            due: Vec::new(),
        }
    }

    // ---- verbs -------------------------------------------------------------------------------------------

    /// Adds a watcher.
    pub(super) fn watch(&mut self, registry: &Registry, request: WatchRequest) -> Result<WatchId> {
        if request.keys.is_empty() {
            return Err(Error::EmptyRange);
        }
        let store = self.open_store(registry)?;
        let id = match request.id {
            Some(WatchId(id)) if id < 0 || self.watchers.contains_key(&id) => {
                return Err(Error::WatcherDuplicateId(WatchId(id)));
            }
            Some(WatchId(id)) => id,
            None => self.choose_id(),
        };
        self.retired.remove(&id);
        let from = match request.start {
            Start::Now => self.visible.next(),
            Start::At(rev) => rev,
            Start::After(rev) => rev.next(),
            Start::Oldest => store.engine.compact_rev().unwrap_or(Revision::new(1)),
        };
        let began = match request.start {
            Start::Now => Began::Now,
            _ if from > self.visible => Began::Future,
            _ => Began::Past,
        };
        if began == Began::Future {
            *self.future.entry(from).or_default() += 1;
        }
        self.serial = self.serial.wrapping_add(1);
        let watcher = Watcher {
            topic: 0,
            place: 0,
            serial: self.serial,
            began,
            from,
            filters: request.filters,
        };
        self.watchers.insert(id, watcher);
        registry.counts.came();
        let shape = Shape {
            keys: request.keys,
            prev: request.prev,
            bytes_max: request.bytes_max,
        };
        let index = self.add_topic(shape, from);
        self.add_member(index, id);
        if from > self.visible {
            self.join(registry, &store, index);
        } else {
            self.catching_up.push_back(index);
        }
        Ok(WatchId(id))
    }

    /// Ends a watcher: nothing is made or given for it from now on.
    pub(super) fn cancel(&mut self, registry: &Registry, id: WatchId) -> Result<()> {
        self.check_not_ended()?;
        if self.retired.remove(&id.0) {
            return Err(Error::Canceled(id));
        }
        let watcher = self.watchers.get(&id.0).ok_or(Error::WatcherNotExist(id))?;
        let topic = watcher.topic;
        self.remove_watcher(registry, id.0);
        self.drop_if_unwatched(registry, topic);
        Ok(())
    }

    pub(super) fn request_progress(&mut self, id: WatchId) -> Result<()> {
        self.check_not_ended()?;
        if self.retired.contains(&id.0) {
            return Err(Error::Canceled(id));
        }
        let watcher = self.watchers.get(&id.0).ok_or(Error::WatcherNotExist(id))?;
        self.asked.push((id.0, watcher.serial));
        Ok(())
    }

    pub(super) fn request_progress_all(&mut self) -> Result<()> {
        self.check_not_ended()?;
        self.asked_all += 1;
        Ok(())
    }

    /// Ends the stream: all watchers are gone, and nothing more is given.
    pub(super) fn end(&mut self, registry: &Registry) {
        self.made.clear();
        self.end_watchers(registry);
    }

    /// Ends the stream with its store: what can be read is made first, up to a bound, of bytes that keep
    /// nothing of the store.
    pub(super) fn end_with_store(&mut self, registry: &Registry) {
        if self.ended {
            return;
        }
        let mut bytes: usize = self.made.iter().map(Made::bytes).sum();
        if let Ok(store) = self.open_store(registry) {
            while self.made.len() < LAST_BATCHES && bytes < LAST_BYTES {
                let before = self.made.len();
                if !self.step(registry, &store) {
                    break;
                }
                bytes += self.made.range(before..).map(Made::bytes).sum::<usize>();
            }
            self.answer_progress(registry);
        }
        self.made.iter_mut().for_each(Made::unpin);
        // Whoever is still to be given something keeps its filters.
        self.end_topics(registry);
    }

    /// The store is about to be compacted at `compact`: what watchers in step have not been given below that
    /// is made, up to a bound, of bytes that keep nothing of the store. So a compaction takes from a receiver
    /// that comes a little late no more than a full queue would.
    pub(super) fn save_from_compaction(&mut self, registry: &Registry, compact: Revision) {
        let Ok(store) = self.open_store(registry) else {
            return;
        };
        let mut bytes: usize = self.made.iter().map(Made::bytes).sum();
        // Topics in turn that have nothing to lose.
        let mut safe = 0;
        while safe < self.ready.len() && self.made.len() < LAST_BATCHES && bytes < LAST_BYTES {
            let Some(index) = self.ready.pop_front() else {
                break;
            };
            if self
                .topic(index)
                .is_none_or(|topic| topic.cursor >= compact)
            {
                self.ready.push_back(index);
                safe += 1;
                continue;
            }
            safe = 0;
            let before = self.made.len();
            self.read(registry, &store, index);
            for made in self.made.range_mut(before..) {
                made.unpin();
                bytes += made.bytes();
            }
        }
    }

    /// Number of watchers that have not been given all that is visible.
    pub(super) fn slow(&self) -> u64 {
        let of = |topic: &TopicState| match topic.stage {
            Stage::Idle => 0,
            Stage::Due if topic.cursor > self.visible => 0,
            Stage::Due | Stage::CatchingUp => topic.members.as_slice().len() as u64,
        };
        self.topics.iter().map(of).sum()
    }

    // ---- receiving ---------------------------------------------------------------------------------------

    /// The next response, if there is one: reads a batch where none has been made.
    pub(super) fn next(&mut self, registry: &Registry) -> Next {
        loop {
            if let Some(next) = self.give(registry) {
                return next;
            }
            if self.ended {
                return Next::End;
            }
            let Ok(store) = self.open_store(registry) else {
                return Next::Nothing;
            };
            let stepped = self.step(registry, &store);
            // By what was visible before the step: all of it that a topic in step has been given.
            self.answer_progress(registry);
            if !stepped && self.made.is_empty() {
                return Next::Nothing;
            }
        }
    }

    /// Whether a watcher is still there: asked once its filters have run.
    pub(super) fn is_watched(&self, unfiltered: &Unfiltered) -> bool {
        self.is_member(unfiltered.member)
    }

    /// What has been made and is for somebody who is still there.
    fn give(&mut self, registry: &Registry) -> Option<Next> {
        loop {
            match self.made.front_mut()? {
                Made::Batch {
                    events,
                    revision,
                    members,
                    next,
                } => {
                    let Some((member, from)) = members.get(*next).copied() else {
                        self.made.pop_front();
                        continue;
                    };
                    *next += 1;
                    let watcher = self.watchers.get(&member.0);
                    let Some(watcher) = watcher.filter(|w| w.serial == member.1) else {
                        continue;
                    };
                    let events = events.since(from);
                    if events.is_empty() {
                        continue;
                    }
                    let revision = *revision;
                    return Some(match &watcher.filters {
                        Some(filters) => Next::Filter(Unfiltered {
                            member,
                            filters: Arc::clone(filters),
                            events,
                            revision,
                        }),
                        None => Next::Response(WatchResponse {
                            id: WatchId(member.0),
                            revision,
                            update: Update::Events(events),
                        }),
                    });
                }
                Made::Progress(member, revision) => {
                    let (member, revision) = (*member, *revision);
                    self.made.pop_front();
                    if self.is_member(member) {
                        return Some(Next::Response(progress(WatchId(member.0), revision)));
                    }
                }
                Made::ProgressOfAll(revision) => {
                    let revision = *revision;
                    self.made.pop_front();
                    return Some(Next::Response(progress(WatchId::ALL, revision)));
                }
                Made::Last(..) => {
                    if let Some(Made::Last(member, response)) = self.made.pop_front()
                        && self.is_member(member)
                    {
                        self.remove_watcher(registry, member.0);
                        self.retired.insert(member.0);
                        return Some(Next::Response(response));
                    }
                }
            }
        }
    }

    /// Reads for one topic, or finds that there is nothing to be read.
    fn step(&mut self, registry: &Registry, store: &Arc<Store>) -> bool {
        self.turn_of_old = !self.turn_of_old;
        let old = self.turn_of_old || self.ready.is_empty();
        let index = match old.then(|| self.catching_up.pop_front()).flatten() {
            Some(index) => index,
            None => match self.ready.pop_front() {
                Some(index) => index,
                None => return false,
            },
        };
        self.read(registry, store, index);
        true
    }

    /// Reads one batch for a topic that has been taken from its queue, and puts it where it belongs then.
    fn read(&mut self, registry: &Registry, store: &Arc<Store>, index: u32) {
        // Its place may be another's by now, or it has been read already.
        let Some(topic) = self.topic(index).filter(|topic| topic.stage != Stage::Idle) else {
            return;
        };
        let shared = Arc::clone(&topic.shared);
        let shape = shared.shape();
        let from = topic.cursor;
        if from <= self.visible {
            let limits = BatchLimits {
                revisions: BATCH_REVISIONS,
                bytes: shape.bytes_max as usize,
                records: BATCH_RECORDS,
            };
            let wanted = Wanted {
                keys: &shape.keys,
                from,
                to: self.visible,
                prev: shape.prev,
            };
            match read_batch(store, &wanted, &limits) {
                Ok(batch) => {
                    self.move_cursor(index, batch.next);
                    self.make_batch(index, EventBatch::new(batch.events), batch.next);
                    if let Some(error) = batch.failed {
                        self.fail(registry, index, batch.next, &error);
                    }
                }
                Err(Error::Compacted { compacted, .. }) => {
                    // Who asked for nothing below has lost nothing.
                    let lost = |from: Revision| from < compacted;
                    let told = |id| WatchResponse {
                        id,
                        revision: Revision::default(),
                        update: Update::Compacted {
                            compact_revision: compacted,
                        },
                    };
                    self.move_cursor(index, compacted);
                    self.retire(registry, index, lost, told);
                }
                // Nothing else is found before something is read.
                Err(error) => self.fail(registry, index, from, &error),
            }
        }
        let visible = self.visible;
        let Some(topic) = self.topic(index) else {
            return;
        };
        match topic.stage {
            Stage::CatchingUp if topic.cursor > visible => self.join(registry, store, index),
            Stage::CatchingUp => self.catching_up.push_back(index),
            Stage::Due if topic.cursor <= visible => self.ready.push_back(index),
            Stage::Due | Stage::Idle => {
                if shared.marks().settle(visible) {
                    topic.stage = Stage::Idle;
                } else {
                    self.put_beyond(registry, index);
                }
            }
        }
    }

    /// A topic is due from a revision on that is not visible yet.
    fn put_beyond(&mut self, registry: &Registry, index: u32) {
        let Some(topic) = self.topic(index) else {
            return;
        };
        let (cursor, unlisted) = (topic.cursor, topic.unlisted);
        self.beyond.push(Reverse((cursor, index)));
        if cursor <= unlisted && !registry.wait_for(cursor) {
            self.inbox.stir();
        }
    }

    fn move_cursor(&mut self, index: u32, to: Revision) {
        if let Some(topic) = self.topic(index) {
            topic.cursor = to;
        }
    }

    fn make_batch(&mut self, index: u32, events: EventBatch, next: Revision) {
        if events.is_empty() {
            return;
        }
        let members = self.members(index);
        self.made.push_back(Made::Batch {
            events,
            revision: before(next),
            members,
            next: 0,
        });
    }

    /// The watchers of a topic, each with its first revision.
    fn members(&self, index: u32) -> Vec<(Member, Revision)> {
        let topic = self.topics.get(index);
        let ids = topic.map_or(&[][..], |topic| topic.members.as_slice());
        let member = |id: &i64| {
            let watcher = self.watchers.get(id)?;
            Some(((*id, watcher.serial), watcher.from))
        };
        ids.iter().filter_map(member).collect()
    }

    /// Ends the watchers of a topic of which nothing can be read from `next` on.
    fn fail(&mut self, registry: &Registry, index: u32, next: Revision, error: &Error) {
        let failed = |id| WatchResponse {
            id,
            revision: before(next),
            update: Update::Failed(error.clone()),
        };
        self.retire(registry, index, |_| true, failed);
    }

    /// Ends those watchers of a topic whose first revision says so, each with a last response, behind what has
    /// been made for it.
    fn retire(
        &mut self,
        registry: &Registry,
        index: u32,
        ends: impl Fn(Revision) -> bool,
        last: impl Fn(WatchId) -> WatchResponse,
    ) {
        for (member, from) in self.members(index) {
            if ends(from) {
                self.leave_topic(registry, member.0);
                let last = last(WatchId(member.0));
                self.made.push_back(Made::Last(member, last));
            }
        }
        self.drop_if_unwatched(registry, index);
    }

    /// Answers who has asked for progress and is in step.
    fn answer_progress(&mut self, registry: &Registry) {
        if self.asked.is_empty() && self.asked_all == 0 {
            return;
        }
        let visible = self.visible;
        for member in std::mem::take(&mut self.asked) {
            if !self.is_member(member) {
                continue;
            }
            if self.in_step(member.0) {
                self.made.push_back(Made::Progress(member, visible));
            } else {
                self.asked.push(member);
            }
        }
        while let Some(first) = self.future.first_entry()
            && *first.key() <= visible
        {
            first.remove();
        }
        if self.ready.is_empty() && self.catching_up.is_empty() && self.future.is_empty() {
            for _ in 0..std::mem::take(&mut self.asked_all) {
                self.made.push_back(Made::ProgressOfAll(visible));
            }
        }
        self.wait_for_beginnings(registry);
    }

    /// Who waits for the future and has asked for progress is answered when its first revision is visible, which
    /// may change none of its keys: then nothing else stirs the stream.
    fn wait_for_beginnings(&self, registry: &Registry) {
        let began = self
            .asked
            .iter()
            .filter_map(|(id, _)| self.watchers.get(id)?.begins());
        let all = self.future.keys().copied().filter(|_| self.asked_all > 0);
        let ahead = began.chain(all).filter(|from| *from > self.visible);
        if let Some(first) = ahead.min()
            && !registry.wait_for(first)
        {
            self.inbox.stir();
        }
    }

    /// Whether a watcher has been given all that is visible, and what is visible reaches its beginning.
    fn in_step(&mut self, id: i64) -> bool {
        let visible = self.visible;
        let Some(watcher) = self.watchers.get(&id) else {
            return false;
        };
        let begun = watcher.began != Began::Future || watcher.from <= visible;
        let index = watcher.topic;
        let topic = self.topic(index);
        begun
            && topic.is_some_and(|topic| match topic.stage {
                Stage::Idle => true,
                Stage::Due => topic.cursor > visible,
                Stage::CatchingUp => false,
            })
    }

    // ---- the content -------------------------------------------------------------------------------------

    /// Another content is in place, and nothing has been written to it: what is due was marked by the old one.
    pub(super) fn restored(&mut self, registry: &Registry) {
        self.inbox.unlist();
        let _ = self.open_store(registry);
    }

    /// The store that is read now, with what is visible and due.
    fn open_store(&mut self, registry: &Registry) -> Result<Arc<Store>> {
        self.check_not_ended()?;
        // What is visible first, then what is due: a change that is visible was marked before.
        self.inbox.look();
        let content = registry.content();
        let store = content.store.ok_or(Error::Closed)?;
        self.visible = store.engine.rev();
        let mut due = std::mem::take(&mut self.due);
        self.inbox.take_due(&mut due);
        let end = content.ends.get(self.content).copied();
        let visible = end.unwrap_or(self.visible);
        for (shared, first) in due.drain(..) {
            let index = shared.index;
            let Some(topic) = self.topic(index) else {
                continue;
            };
            if !Arc::ptr_eq(&topic.shared, &shared) || topic.stage != Stage::Idle {
                continue;
            }
            // No further than behind what was visible: another content may be put in place before the rest is.
            let first = first.min(visible.next());
            topic.cursor = topic.cursor.max(first);
            topic.stage = Stage::Due;
            self.ready.push_back(index);
        }
        self.due = due;
        if let Some(end) = end {
            self.change_content(end);
            self.content = content.ends.len();
        }
        while let Some(Reverse((cursor, index))) = self.beyond.peek().copied()
            && cursor <= self.visible
        {
            self.beyond.pop();
            // Its place may be another topic's by now.
            let is_there = |topic: &mut TopicState| topic.cursor == cursor;
            if self.topic(index).is_some_and(is_there) {
                self.ready.push_back(index);
            }
        }
        Ok(store)
    }

    /// The old content was seen up to `end`. Every watcher goes on in the new one where it was, so what is
    /// there now is read for all of them.
    fn change_content(&mut self, end: Revision) {
        self.beyond.clear();
        self.ready.clear();
        let visible = self.visible;
        for (index, topic) in self.topics.numbered() {
            match topic.stage {
                Stage::CatchingUp => continue,
                Stage::Idle => topic.cursor = topic.cursor.max(end.next()),
                Stage::Due => {}
            }
            topic.stage = Stage::Due;
            topic.shared.marks().raise(visible);
            self.ready.push_back(index);
        }
    }

    // ---- topics ------------------------------------------------------------------------------------------

    fn topic(&mut self, index: u32) -> Option<&mut TopicState> {
        self.topics.get_mut(index)
    }

    /// A topic of its own for a watcher that begins at `cursor`.
    fn add_topic(&mut self, shape: Shape, cursor: Revision) -> u32 {
        let inbox = Arc::clone(&self.inbox);
        self.topics.add(|index| TopicState {
            shared: Arc::new(Topic::new(shape, index, inbox)),
            cursor,
            stage: Stage::CatchingUp,
            unlisted: Revision::default(),
            members: Members::default(),
        })
    }

    /// A topic whose watchers have been given all that is visible: they join the one of its shape that the
    /// writer marks, or it becomes that.
    fn join(&mut self, registry: &Registry, store: &Store, index: u32) {
        let Some(topic) = self.topic(index) else {
            return;
        };
        let shared = Arc::clone(&topic.shared);
        let cursor = topic.cursor;
        registry
            .counts
            .caught_up(topic.members.as_slice().len() as u64);
        let (mut stage, mut unlisted) = (Stage::Idle, Revision::default());
        let found = registry.add_topic(store, &shared, |accepted| {
            // Nothing marked it up to here.
            unlisted = accepted;
            if accepted >= cursor {
                shared.marks().begin(accepted);
                stage = Stage::Due;
            }
        });
        let Some(found) = found else {
            let topic = self.topic(index).expect("nobody has removed it");
            (topic.stage, topic.unlisted) = (stage, unlisted);
            if stage == Stage::Due {
                self.put_beyond(registry, index);
            }
            return;
        };
        self.lower_cursor(registry, found.index, cursor);
        for ((id, _), _) in self.members(index) {
            self.raise_from(id, cursor);
            self.add_member(found.index, id);
        }
        self.topics.remove(index);
    }

    /// Somebody joins who begins before the topic's cursor, which stands above what is visible where the first that
    /// came waits for the future, or after a restore: it goes back, and who was there before begins where it stood.
    fn lower_cursor(&mut self, registry: &Registry, index: u32, to: Revision) {
        let Some(topic) = self.topic(index).filter(|topic| topic.cursor > to) else {
            return;
        };
        let stood = std::mem::replace(&mut topic.cursor, to);
        if topic.stage == Stage::Idle && to <= topic.unlisted {
            // It was not due for these since nobody wanted them.
            topic.shared.marks().raise(topic.unlisted);
            topic.stage = Stage::Due;
        }
        if topic.stage == Stage::Due {
            self.put_beyond(registry, index);
        }
        for ((id, _), _) in self.members(index) {
            self.raise_from(id, stood);
        }
    }

    fn raise_from(&mut self, id: i64, to: Revision) {
        let Some(watcher) = self
            .watchers
            .get_mut(&id)
            .filter(|watcher| watcher.from < to)
        else {
            return;
        };
        let before = std::mem::replace(&mut watcher.from, to);
        // Its topic has come further than its first revision: that was there, though a restore may have taken it.
        if std::mem::replace(&mut watcher.began, Began::Past) == Began::Future {
            self.no_longer_awaits(before);
        }
    }

    fn add_member(&mut self, index: u32, id: i64) {
        let Some(topic) = self.topic(index) else {
            return;
        };
        let place = topic.members.push(id);
        if let Some(watcher) = self.watchers.get_mut(&id) {
            (watcher.topic, watcher.place) = (index, place);
        }
    }

    fn remove_watcher(&mut self, registry: &Registry, id: i64) {
        self.leave_topic(registry, id);
        if self.watchers.remove(&id).is_some() && !self.ended {
            registry.counts.left(1);
        }
    }

    /// Takes a watcher out of its topic.
    fn leave_topic(&mut self, registry: &Registry, id: i64) {
        let Some(watcher) = self
            .watchers
            .get_mut(&id)
            .filter(|watcher| watcher.topic != ENDED)
        else {
            return;
        };
        let (topic, place) = (std::mem::replace(&mut watcher.topic, ENDED), watcher.place);
        let (began, from) = (watcher.began, watcher.from);
        if began == Began::Future {
            self.no_longer_awaits(from);
        }
        let topic = self.topic(topic);
        let moved = topic.and_then(|topic| {
            if topic.stage == Stage::CatchingUp {
                registry.counts.caught_up(1);
            }
            topic.members.remove(place)
        });
        if let Some(moved) = moved.and_then(|id| self.watchers.get_mut(&id)) {
            moved.place = place;
        }
    }

    fn no_longer_awaits(&mut self, rev: Revision) {
        if let Some(count) = self.future.get_mut(&rev) {
            *count -= 1;
            if *count == 0 {
                self.future.remove(&rev);
            }
        }
    }

    fn drop_if_unwatched(&mut self, registry: &Registry, index: u32) {
        let Some(topic) = self
            .topic(index)
            .filter(|topic| topic.members.as_slice().is_empty())
        else {
            return;
        };
        let (stage, shared) = (topic.stage, Arc::clone(&topic.shared));
        if stage != Stage::CatchingUp {
            registry.remove_topic(&shared);
        }
        if stage != Stage::Idle {
            self.ready.retain(|ready| *ready != index);
            self.catching_up.retain(|old| *old != index);
        }
        self.topics.remove(index);
    }

    fn end_topics(&mut self, registry: &Registry) {
        self.ended = true;
        for topic in std::mem::take(&mut self.topics).iter() {
            if topic.stage == Stage::CatchingUp {
                registry
                    .counts
                    .caught_up(topic.members.as_slice().len() as u64);
            } else {
                registry.remove_topic(&topic.shared);
            }
        }
        let watchers = self.watchers.len() as u64;
        registry.counts.left(watchers);
        self.ready.clear();
        self.beyond.clear();
        self.catching_up.clear();
    }

    fn end_watchers(&mut self, registry: &Registry) {
        if !self.ended {
            self.end_topics(registry);
        }
        self.watchers.clear();
    }

    fn check_not_ended(&self) -> Result<()> {
        if self.ended {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    fn is_member(&self, (id, serial): Member) -> bool {
        self.watchers
            .get(&id)
            .is_some_and(|watcher| watcher.serial == serial)
    }

    fn choose_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

impl Made {
    fn bytes(&self) -> usize {
        match self {
            Made::Batch { events, .. } => events.bytes(),
            Made::Last(..) | Made::Progress(..) | Made::ProgressOfAll(_) => 0,
        }
    }

    fn unpin(&mut self) {
        if let Made::Batch { events, .. } = self {
            *events = events.unpinned();
        }
    }
}

fn progress(id: WatchId, revision: Revision) -> WatchResponse {
    WatchResponse {
        id,
        revision,
        update: Update::Progress,
    }
}

/// The revision before the first that has not been read.
fn before(next: Revision) -> Revision {
    Revision::new(next.get().saturating_sub(1))
}

/// Whether a filter keeps an event.
pub(super) fn keeps(filters: &[Filter], event: &crate::mvcc::Event) -> bool {
    filters.iter().all(|filter| filter.keeps(event))
}
