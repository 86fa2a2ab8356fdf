//! What has been made and not given yet.

use std::sync::Arc;

use revtree_format::Revision;

use super::reading::before;
use super::{Member, State};
use crate::error::Error;
use crate::mvcc::Event;
use crate::watch::registry::Registry;
use crate::watch::request::{Filter, Filters, WatchId};
use crate::watch::response::{EventBatch, Update, WatchResponse};

#[derive(Debug)]
pub(super) enum Made {
    /// A batch for each of these, from the revision on that was its first when the batch was made: a join
    /// may have raised that since.
    Batch {
        events: EventBatch,
        revision: Revision,
        members: Vec<(Member, Revision)>,
        next: usize,
        /// What it counts for among what is kept; 0 where it keeps bytes of the store.
        kept: usize,
    },
    /// The last response of a watcher, which has ended: its id, with which it is taken for the same one.
    Last(Member, WatchResponse),
    /// So many answers for a watcher, or for all of the stream.
    Progress(Option<Member>, Revision, u64),
}

/// What a receiver gets of a look.
#[derive(Debug)]
pub(in crate::watch) enum Next {
    Response(WatchResponse),
    /// A response that its watcher's filters have to see first.
    Filter(Unfiltered),
    /// Nothing came of a step, which has looked at so many records, and there may be more.
    More {
        looked_at: usize,
    },
    /// Nothing now.
    Nothing,
    End,
}

/// Events before a watcher's filters.
#[derive(Clone, Debug)]
pub(in crate::watch) struct Unfiltered {
    member: Member,
    pub(in crate::watch) filters: Filters,
    pub(in crate::watch) events: EventBatch,
    pub(in crate::watch) revision: Revision,
    /// How often they have panicked at it.
    pub(in crate::watch) panics: u8,
}

impl Unfiltered {
    pub(in crate::watch) fn id(&self) -> WatchId {
        WatchId(self.member.0)
    }
}

impl State {
    /// Makes a batch for a topic's members; `false`: there is nothing in it.
    pub(super) fn make_batch(&mut self, index: u32, events: EventBatch, next: Revision) -> bool {
        if events.is_empty() {
            return false;
        }
        let members = self.members(index);
        self.made.push_back(Made::Batch {
            events,
            revision: before(next),
            members,
            next: 0,
            kept: 0,
        });
        true
    }

    /// What has been made and is for somebody who is still there.
    pub(super) fn give(&mut self, registry: &Registry) -> Option<Next> {
        loop {
            match self.made.front_mut()? {
                Made::Batch {
                    events,
                    revision,
                    members,
                    next,
                    ..
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
                    let filters = watcher.filtered.then(|| self.filters.get(&member.0));
                    return Some(match filters.flatten() {
                        Some(filters) => Next::Filter(Unfiltered {
                            member,
                            filters: Arc::clone(filters),
                            events,
                            revision,
                            panics: 0,
                        }),
                        None => Next::Response(WatchResponse {
                            id: WatchId(member.0),
                            revision,
                            update: Update::Events(events),
                        }),
                    });
                }
                Made::Progress(member, revision, left) => {
                    let (member, revision) = (*member, *revision);
                    *left -= 1;
                    let left = *left;
                    // Somebody has come behind an answer for all who has not been given that much.
                    let is_late = member.is_none() && !self.catching_up.is_empty() && !self.ended;
                    let is_gone = member.is_some_and(|member| !self.is_member(member));
                    if left == 0 || is_late || is_gone {
                        self.made.pop_front();
                    }
                    if is_late {
                        self.asked.ask_again(left + 1);
                    } else if !is_gone {
                        let id = member.map_or(WatchId::ALL, |member| WatchId(member.0));
                        return Some(Next::Response(progress(id, revision)));
                    }
                }
                Made::Last(..) => {
                    if let Some(Made::Last(member, response)) = self.made.pop_front()
                        && self.is_member(member)
                    {
                        self.remove_watcher(registry, member.0);
                        self.retired.add(member.0);
                        return Some(Next::Response(response));
                    }
                }
            }
        }
    }

    /// Whether a watcher is still there: asked once its filters have run.
    pub(in crate::watch) fn is_watched(&self, unfiltered: &Unfiltered) -> bool {
        self.is_member(unfiltered.member)
    }

    /// Ends a watcher whose filters panic: it is told so before anything else.
    pub(in crate::watch) fn end_unfiltered(&mut self, registry: &Registry, shown: &Unfiltered) {
        let member = shown.member;
        let Some(watcher) = self.watchers.get(&member.0) else {
            return;
        };
        if watcher.serial != member.1 {
            return;
        }
        let topic = watcher.topic;
        let first = shown.events.iter().next().map(|event| event.id.main);
        let last = WatchResponse {
            id: shown.id(),
            revision: before(first.unwrap_or_default()),
            update: Update::Failed(Error::FilterPanicked),
        };
        self.leave_topic(registry, member.0);
        self.drop_if_unwatched(registry, topic);
        self.made.push_front(Made::Last(member, last));
    }
}

/// What a batch costs besides its events.
pub(super) const BATCH_COST: usize = 256;

impl Made {
    /// What it counts for among what is kept for who has not come.
    pub(super) fn kept(&self) -> usize {
        match self {
            Made::Batch { kept, .. } => *kept,
            Made::Last(..) | Made::Progress(..) => 0,
        }
    }

    /// Makes copies of what keeps bytes of the store; gives what that counts for.
    pub(super) fn keep(&mut self) -> usize {
        let Made::Batch {
            events,
            members,
            kept,
            ..
        } = self
        else {
            return 0;
        };
        if *kept > 0 {
            return 0;
        }
        *events = events.unpinned();
        let listed = members.len() * size_of::<(Member, Revision)>();
        *kept = cost(events) + listed;
        *kept
    }
}

/// What a batch costs that is kept, but for the list of whom it is for.
pub(super) fn cost(events: &EventBatch) -> usize {
    BATCH_COST + events.bytes() + events.len() * size_of::<Event>()
}

fn progress(id: WatchId, revision: Revision) -> WatchResponse {
    WatchResponse {
        id,
        revision,
        update: Update::Progress,
    }
}

/// Whether a filter keeps an event.
pub(in crate::watch) fn keeps(filters: &[Filter], event: &Event) -> bool {
    filters.iter().all(|filter| filter.keeps(event))
}
