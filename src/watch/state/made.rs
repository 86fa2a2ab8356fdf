//! What has been made and not given yet.

use std::sync::Arc;

use revtree_format::Revision;

use super::reading::before;
use super::{Member, State};
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
    },
    /// The last response of a watcher, which has ended: its id, with which it is taken for the same one.
    Last(Member, WatchResponse),
    Progress(Member, Revision),
    ProgressOfAll(Revision),
}

/// What a receiver gets of a look.
#[derive(Debug)]
pub(in crate::watch) enum Next {
    Response(WatchResponse),
    /// A response that its watcher's filters have to see first.
    Filter(Unfiltered),
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
}

impl Unfiltered {
    pub(in crate::watch) fn id(&self) -> WatchId {
        WatchId(self.member.0)
    }
}

impl State {
    pub(super) fn make_batch(&mut self, index: u32, events: EventBatch, next: Revision) {
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

    /// What has been made and is for somebody who is still there.
    pub(super) fn give(&mut self, registry: &Registry) -> Option<Next> {
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

    /// Whether a watcher is still there: asked once its filters have run.
    pub(in crate::watch) fn is_watched(&self, unfiltered: &Unfiltered) -> bool {
        self.is_member(unfiltered.member)
    }
}

impl Made {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Made::Batch { events, .. } => events.bytes(),
            Made::Last(..) | Made::Progress(..) | Made::ProgressOfAll(_) => 0,
        }
    }

    pub(super) fn unpin(&mut self) {
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

/// Whether a filter keeps an event.
pub(in crate::watch) fn keeps(filters: &[Filter], event: &crate::mvcc::Event) -> bool {
    filters.iter().all(|filter| filter.keeps(event))
}
