//! What each response must be, one function for one rule.
//!
//! A rule looks at a response, the watcher that it is for, and a content; which contents and which places in them
//! come into question is told by its `Follower`.

use super::follow::{Follower, Place};
use super::record::{Asked, Change, Content, Event, Prev};

/// What a history may break.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// Events come by revision, and within one in the order in which they were made.
    Ordered,
    /// No event comes twice.
    Unique,
    /// Nothing is left out between two events.
    Reliable,
    /// Revisions are not split.
    Atomic,
    /// Up to a response's revision everything has come with it.
    Resumable,
    /// Up to a progress everything has come before it.
    Bookmarkable,
    /// Events say what their keys were before.
    Prev,
    /// Events say whether they made their keys.
    Create,
    /// Only events of the watcher's keys that its filters keep.
    Filtered,
    /// Nothing that may be lost in a crash.
    Durable,
    /// Nothing before the watcher's beginning.
    Future,
    /// What was written, as it was written.
    True,
    /// Nothing before it is visible.
    Early,
    /// Everything no later than it is visible.
    Late,
    /// Who has lost something is told so, and nobody else.
    Compacted,
    /// Nothing behind a last response.
    Last,
    /// Nothing once a cancel has returned, or a close.
    Cancelled,
    /// Nothing again after a restore.
    Travel,
    /// Progress is told when it was asked for, as often.
    Asked,
    /// Progress of all when all are in step.
    All,
    /// A batch is no larger than was asked for.
    Bounded,
    /// Who sleeps is woken.
    Wake,
    /// Nothing is given for who is not there, and nothing fails.
    Known,
}

/// Why a history is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The rule.
    pub rule: Rule,
    /// Why.
    pub says: String,
}

pub(super) fn wrong<T>(rule: Rule, says: impl Into<String>) -> Result<T, Wrong> {
    let says = says.into();
    Err(Wrong { rule, says })
}

/// Most revisions of a batch.
const BATCH_REVISIONS: usize = 1000;

/// Ascending, without one twice, and behind all that the watcher has been told.
pub(super) fn ordered(follower: &Follower, events: &[Event]) -> Result<(), Wrong> {
    let id = |event: &Event| (event.rev, event.sub);
    for pair in events.windows(2) {
        if id(&pair[0]) == id(&pair[1]) {
            return wrong(Rule::Unique, format!("twice in a batch: {:?}", pair[0]));
        }
        if id(&pair[0]) > id(&pair[1]) {
            return wrong(Rule::Ordered, format!("{:?} before {:?}", pair[0], pair[1]));
        }
    }
    let Some(first) = events.first().filter(|first| first.rev <= follower.up_to) else {
        return Ok(());
    };
    let says = format!("told up to {} before: {first:?}", follower.up_to);
    if follower.restored {
        return wrong(Rule::Travel, says);
    }
    if follower.told.contains(&id(first)) {
        return wrong(Rule::Unique, says);
    }
    let behind = follower.told.last().is_some_and(|last| first.rev > last.0);
    let rule = if behind || follower.told.is_empty() {
        Rule::Bookmarkable
    } else {
        Rule::Ordered
    };
    wrong(rule, says)
}

/// Nothing before where the watcher begins.
pub(super) fn begun(follower: &Follower, events: &[Event]) -> Result<(), Wrong> {
    match events.iter().find(|event| event.rev < follower.first) {
        Some(event) => wrong(
            Rule::Future,
            format!("it begins at {}: {event:?}", follower.first),
        ),
        None => Ok(()),
    }
}

/// Only keys that it watches, without what its filters drop.
pub(super) fn filtered(asked: &Asked, events: &[Event]) -> Result<(), Wrong> {
    let strange = |event: &&Event| {
        !asked.keys.contains(&event.key)
            || asked.drops.drops(event.rev, event.sub, event.put.is_some())
    };
    match events.iter().find(strange) {
        Some(event) => wrong(Rule::Filtered, format!("{asked:?} was given {event:?}")),
        None => Ok(()),
    }
}

/// In a batch of several revisions no more bytes than it asked for.
pub(super) fn bounded(asked: &Asked, events: &[Event]) -> Result<(), Wrong> {
    let mut revisions: Vec<u64> = events.iter().map(|event| event.rev).collect();
    revisions.dedup();
    let of = |event: &Event| {
        let put = event.put.as_ref().map_or(0, |kv| kv.value.len());
        let prev = match &event.prev {
            Prev::Value(kv) => event.key.len() + kv.value.len(),
            Prev::NotAsked | Prev::None | Prev::Compacted => 0,
        };
        event.key.len() + put + prev
    };
    let bytes = events.iter().map(of).sum::<usize>() as u64;
    if revisions.len() > BATCH_REVISIONS || revisions.len() > 1 && bytes > asked.bytes_max {
        let says = format!(
            "{} revisions of {bytes} bytes, {} were asked for",
            revisions.len(),
            asked.bytes_max
        );
        return wrong(Rule::Bounded, says);
    }
    Ok(())
}

/// Nothing above what may be visible.
pub(super) fn visible(revision: u64, events: &[Event], visible: u64) -> Result<(), Wrong> {
    let newest = events.last().map_or(0, |event| event.rev);
    if newest > revision {
        return wrong(
            Rule::Resumable,
            format!("the response's {revision} is below its event of {newest}"),
        );
    }
    if revision > visible {
        return wrong(
            Rule::Early,
            format!("{revision} was told when {visible} was visible"),
        );
    }
    Ok(())
}

/// Each event is a change of the content.
pub(super) fn is_true(content: &Content, events: &[Event]) -> Result<(), Wrong> {
    for event in events {
        let found = change_of(content, event);
        if found.is_none_or(|change| change.key != event.key || change.put != event.put) {
            return wrong(Rule::True, format!("{event:?} was {found:?}"));
        }
    }
    Ok(())
}

/// Each event says whether it made its key.
pub(super) fn create(content: &Content, events: &[Event]) -> Result<(), Wrong> {
    let lies = |event: &&Event| {
        change_of(content, event).is_some_and(|change| change.is_create() != event.is_create)
    };
    match events.iter().find(lies) {
        Some(event) => wrong(Rule::Create, format!("{event:?}")),
        None => Ok(()),
    }
}

/// Each event says what its key was before its revision; `compactions`: at which revisions it may not know.
pub(super) fn prev(
    content: &Content,
    asked: &Asked,
    events: &[Event],
    compactions: &[u64],
) -> Result<(), Wrong> {
    for event in events {
        let Some(change) = change_of(content, event) else {
            continue;
        };
        let right = match (&event.prev, &change.before) {
            (Prev::NotAsked, _) => !asked.prev,
            (_, _) if !asked.prev => false,
            // As in etcd: a key that the revision made has nothing before it, also where it ended in it first.
            (Prev::None, None) => true,
            (Prev::None, Some(_)) => change.is_create(),
            (Prev::Value(kv), Some(before)) => !change.is_create() && kv == before,
            (Prev::Value(_), None) => false,
            (Prev::Compacted, _) => {
                !change.is_create()
                    && event.rev == events[0].rev
                    && compactions.contains(&event.rev)
            }
        };
        if !right {
            return wrong(
                Rule::Prev,
                format!("before it was {:?}: {event:?}", change.before),
            );
        }
    }
    Ok(())
}

/// All of a revision or nothing of it. `wanted`: what the watcher is to be given of the events' revisions.
pub(super) fn atomic(wanted: &[&Change], events: &[Event]) -> Result<(), Wrong> {
    let given = |change: &&&Change| {
        let same = |event: &&Event| (event.rev, event.sub) == (change.rev, change.sub);
        events.iter().any(|event| same(&event))
    };
    for change in wanted {
        let begun = events.iter().any(|event| event.rev == change.rev);
        if begun && !given(&change) {
            return wrong(Rule::Atomic, format!("without {change:?}"));
        }
    }
    Ok(())
}

/// Nothing is left out up to the response's revision.
pub(super) fn reliable(wanted: &[&Change], events: &[Event]) -> Result<(), Wrong> {
    let last = events.last().map_or(0, |event| event.rev);
    let missing = wanted
        .iter()
        .find(|change| events.iter().all(|event| event.rev != change.rev));
    match missing {
        Some(change) if change.rev > last => {
            wrong(Rule::Resumable, format!("{change:?} has not come yet"))
        }
        Some(change) => wrong(Rule::Reliable, format!("{change:?} was left out")),
        None => Ok(()),
    }
}

/// Who was below the compact revision when it came, or when another content came, is given nothing more.
pub(super) fn not_lost(place: Place, lowest: u64) -> Result<(), Wrong> {
    if place.next < lowest {
        return wrong(
            Rule::Compacted,
            format!(
                "it needs {}, {lowest} is the oldest: it was not told",
                place.next
            ),
        );
    }
    Ok(())
}

fn change_of<'c>(content: &'c Content, event: &Event) -> Option<&'c Change> {
    let of = content.between(event.rev, event.rev);
    of.iter().find(|change| change.sub == event.sub)
}
