//! One watcher, and where it may stand.
//!
//! Most of the time a watcher stands at one place: the revision behind its last response's. Not everything that
//! moves it can be seen from outside, though: the revision that is visible when it begins while others write, or
//! how far it had been read when another content was put in place. Then all places that come into question are
//! kept, and each response leaves those that it fits. A response that fits none breaks a rule.

use std::collections::BTreeSet;

use super::record::{Asked, Change, Content, Event, Start};
use super::rules::{self, Rule, Wrong, wrong};

/// A place: which content is read, and the first revision that has not been given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) content: usize,
    pub(super) next: u64,
}

/// What is known of a content at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Up to here it may be visible.
    pub(super) visible: u64,
    /// Compactions that have begun.
    pub(super) compactions: Vec<u64>,
    /// The compact revision with which it was put in place.
    pub(super) lowest: u64,
}

/// The contents, and what is known of them; the last one is there now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents<'h> {
    pub(super) contents: &'h [Content],
    pub(super) known: &'h [Known],
}

/// A watcher.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    pub(super) asked: Asked,
    /// Where it begins, at the earliest.
    pub(super) first: u64,
    /// It waits for a revision that was not visible, until this is `false`.
    pub(super) waits: bool,
    /// What it begins with was compacted away already, in this content.
    pub(super) lost: Option<(usize, u64)>,
    pub(super) places: BTreeSet<Place>,
    /// Up to here it has been told all.
    pub(super) up_to: u64,
    /// Another content came after it was told anything.
    pub(super) restored: bool,
    /// Events, by revision and sub.
    pub(super) told: BTreeSet<(u64, u64)>,
    /// It has been given its last.
    pub(super) ended: bool,
    /// When it was there.
    pub(super) there: u64,
    /// When cancelling it began, and when it had returned.
    pub(super) cancelled: Option<(u64, u64)>,
    /// Progress that it waits for.
    pub(super) asks: u64,
}

impl Follower {
    /// Whether a change is one that it is to be given.
    fn wants(&self, change: &Change) -> bool {
        let Asked { keys, drops, .. } = &self.asked;
        keys.contains(&change.key) && !drops.drops(change.rev, change.sub, change.put.is_some())
    }

    /// What it is to be given up to a revision.
    fn wanted<'h>(&self, of: Contents<'h>, place: Place, to: u64) -> Vec<&'h Change> {
        let changes = of.contents[place.content].between(place.next, to).iter();
        changes.filter(|change| self.wants(change)).collect()
    }

    /// Whether nothing is left for it up to a revision.
    fn is_in_step(&self, of: Contents<'_>, place: Place, to: u64) -> bool {
        let mut changes = of.contents[place.content].between(place.next, to).iter();
        !changes.any(|change| self.wants(change))
    }

    /// Who came to a content, or into it, and needs what is below this has to be told so.
    fn lowest(&self, of: Contents<'_>, content: usize) -> u64 {
        let lost = self.lost.filter(|lost| lost.0 == content);
        of.known[content].lowest.max(lost.map_or(0, |lost| lost.1))
    }

    /// All places to which it may have come without being told anything.
    fn reach(&self, of: Contents<'_>) -> BTreeSet<Place> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<Place> = self.places.iter().copied().collect();
        while let Some(place) = open.pop() {
            if !reached.insert(place) {
                continue;
            }
            let known = &of.known[place.content];
            let end = known.visible.max(place.next);
            let content = &of.contents[place.content];
            let mut changes = content.between(place.next, end).iter();
            let first = changes.find(|change| self.wants(change));
            if let Some(change) = first
                && known.compactions.contains(&change.rev)
                && let mut whole = content.between(change.rev, change.rev).iter()
                && whole.all(|change| !self.wants(change) || !content.survives(change))
            {
                // It was read at the compact revision, of which nothing for it was left.
                open.push(Place {
                    next: change.rev + 1,
                    ..place
                });
            }
            if place.content + 1 < of.known.len() {
                let behind = first.map_or(known.visible + 1, |change| change.rev);
                for next in place.next..=behind.max(place.next) {
                    open.push(Place {
                        content: place.content + 1,
                        next,
                    });
                }
            }
        }
        reached
    }

    /// It is given a batch.
    pub(super) fn events(
        &mut self,
        of: Contents<'_>,
        revision: u64,
        events: &[Event],
    ) -> Result<(), Wrong> {
        if events.is_empty() {
            return wrong(Rule::Known, "a batch without events");
        }
        rules::ordered(self, events)?;
        rules::begun(self, events)?;
        rules::filtered(&self.asked, events)?;
        rules::bounded(&self.asked, events)?;
        let mut places = BTreeSet::new();
        let mut refused = None;
        for place in self.reach(of) {
            match self.fits(of, place, revision, events) {
                Ok(()) => {
                    places.insert(Place {
                        next: revision + 1,
                        ..place
                    });
                }
                // What the newest content says of it, and there where most has been given.
                Err(wrong) => refused = Some(wrong),
            }
        }
        if let (true, Some(refused)) = (places.is_empty(), refused) {
            return Err(refused);
        }
        self.places = places;
        self.up_to = self.up_to.max(revision);
        self.told
            .extend(events.iter().map(|event| (event.rev, event.sub)));
        Ok(())
    }

    /// Whether a batch is what comes next at a place.
    fn fits(
        &self,
        of: Contents<'_>,
        place: Place,
        revision: u64,
        events: &[Event],
    ) -> Result<(), Wrong> {
        let (content, known) = (&of.contents[place.content], &of.known[place.content]);
        rules::visible(revision, events, known.visible)?;
        rules::not_lost(place, self.lowest(of, place.content))?;
        rules::is_true(content, events)?;
        rules::create(content, events)?;
        rules::prev(content, &self.asked, events, &known.compactions)?;
        let mut wanted = self.wanted(of, place, revision);
        // Read at the compact revision itself, the first may be what survives of it.
        let first = wanted.first().map_or(0, |change| change.rev);
        let is_given = |change: &Change| {
            let mut all = events.iter();
            all.any(|event| (event.rev, event.sub) == (change.rev, change.sub))
        };
        if known.compactions.contains(&first) {
            wanted.retain(|change| {
                change.rev != first || content.survives(change) || is_given(change)
            });
        }
        rules::atomic(&wanted, events)?;
        rules::reliable(&wanted, events)
    }

    /// It is told of progress.
    pub(super) fn progress(&mut self, of: Contents<'_>, revision: u64) -> Result<(), Wrong> {
        if revision < self.up_to && !self.restored {
            let says = format!("progress at {revision} behind {}", self.up_to);
            return wrong(Rule::Ordered, says);
        }
        if self.waits {
            let says = format!("progress at {revision} before it begins at {}", self.first);
            return wrong(Rule::Future, says);
        }
        let reached = self.reach(of);
        let visible = |place: &Place| of.known[place.content].visible >= revision;
        if !reached.iter().any(visible) {
            return wrong(Rule::Early, format!("progress at {revision}"));
        }
        let reached = reached.into_iter().filter(visible);
        let places = self.in_step(of, reached, revision);
        if places.is_empty() {
            let mut left = self
                .places
                .iter()
                .map(|place| self.wanted(of, *place, revision));
            let says = format!(
                "progress at {revision}, and still to come are {:?}",
                left.next_back()
            );
            return wrong(Rule::Bookmarkable, says);
        }
        self.places = places;
        self.up_to = self.up_to.max(revision);
        Ok(())
    }

    /// It was told that what it needs has been compacted away.
    pub(super) fn compacted(
        &mut self,
        of: Contents<'_>,
        revision: u64,
        compact: u64,
    ) -> Result<(), Wrong> {
        self.ended = true;
        let needs = |place: &Place| {
            let known = &of.known[place.content];
            place.next < compact && known.compactions.contains(&compact)
        };
        if self.reach(of).iter().any(needs) && revision == 0 {
            return Ok(());
        }
        let says = format!("{:?} is not below {compact}", self.places);
        wrong(Rule::Compacted, says)
    }

    /// Its receiver has found nothing, and this was visible before.
    pub(super) fn dry(&mut self, of: Contents<'_>, visible: u64) -> Result<(), Wrong> {
        let now = of.known.len() - 1;
        let reached: Vec<Place> = self.reach(of).into_iter().collect();
        let there = reached.iter().copied().filter(|place| place.content == now);
        let lowest = self.lowest(of, now);
        let not_lost = there.clone().filter(|place| place.next >= lowest);
        let places = self.in_step(of, not_lost.clone(), visible);
        if places.is_empty() {
            if let Some(place) = there.clone().next_back().filter(|_| not_lost.count() == 0) {
                return rules::not_lost(place, lowest);
            }
            let left = reached.last().map(|place| self.wanted(of, *place, visible));
            let says =
                format!("at {visible} there is nothing more, but it has not been given {left:?}");
            return wrong(Rule::Late, says);
        }
        self.places = places;
        if self.asks > 0 && !self.is_ahead(visible) {
            return wrong(Rule::Asked, "it asked for progress, and was not told");
        }
        Ok(())
    }

    /// Whether what is visible does not reach its beginning, also when it did before a restore.
    pub(super) fn is_ahead(&self, visible: u64) -> bool {
        self.asked.start != Start::Now && self.first > visible
    }

    /// Those places at which nothing is left up to a revision, moved behind it.
    fn in_step(
        &self,
        of: Contents<'_>,
        places: impl Iterator<Item = Place>,
        revision: u64,
    ) -> BTreeSet<Place> {
        let in_step = places.filter(|place| self.is_in_step(of, *place, revision));
        let moved = in_step.map(|place| Place {
            next: place.next.max(revision.saturating_add(1)),
            ..place
        });
        moved.collect()
    }
}
