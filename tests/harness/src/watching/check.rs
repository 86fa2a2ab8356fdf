//! Whether what watchers were told is what the contents say: one walk over the moments of a history.

use std::collections::BTreeMap;
use std::fmt;

use super::follow::{Contents, Follower, Known, Place};
use super::record::{Asked, History, Moment, Start, Update};
use super::rules::{Rule, Wrong, wrong};

/// A history that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The rule that it breaks.
    pub rule: Rule,
    /// Why.
    pub says: String,
    /// At which of its moments.
    pub at: usize,
    /// The story of the watcher, or of its stream.
    pub story: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused {
            rule,
            says,
            at,
            story,
        } = self;
        write!(f, "{rule:?} is broken at moment {at}: {says}\n{story}")
    }
}

/// What was found of a history that is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Watchers.
    pub watchers: u64,
    /// Events that were given.
    pub events: u64,
    /// Watchers that were told of a compaction.
    pub compacted: u64,
    /// Answers to who asked for progress.
    pub progress: u64,
    /// Filters that panicked.
    pub panics: u64,
}

/// Walks over a history.
///
/// # Errors
///
/// What it breaks first.
pub fn check(history: &History) -> Result<Checked, Refused> {
    let mut walk = Walk {
        history,
        known: vec![Known {
            visible: 1,
            ..Known::default()
        }],
        streams: BTreeMap::new(),
        checked: Checked::default(),
    };
    for (at, moment) in history.moments.iter().enumerate() {
        walk.moment(moment).map_err(|(wrong, stream, id)| Refused {
            rule: wrong.rule,
            says: wrong.says,
            at,
            story: history.story(stream, id, at),
        })?;
    }
    Ok(walk.checked)
}

#[derive(Default)]
struct Stream {
    followers: BTreeMap<i64, Follower>,
    /// Ids that were there before: told of with the last that had them.
    before: BTreeMap<i64, Follower>,
    /// When each request for progress of all was made.
    asks: Vec<u64>,
    closed: Option<u64>,
}

struct Walk<'h> {
    history: &'h History,
    known: Vec<Known>,
    streams: BTreeMap<usize, Stream>,
    checked: Checked,
}

/// A rule that is broken, and whose story tells it.
type Broken = (Wrong, Option<usize>, Option<i64>);

impl Walk<'_> {
    fn moment(&mut self, moment: &Moment) -> Result<(), Broken> {
        match moment {
            Moment::Watch {
                stream,
                id,
                asked,
                visible,
                compact,
                returned,
            } => {
                self.watch(*stream, *id, asked, *visible, *compact, *returned);
            }
            Moment::Cancelled { stream, id, time } => {
                let stream = self.streams.entry(*stream).or_default();
                if let Some(mut follower) = stream.followers.remove(id) {
                    follower.cancelled = Some(*time);
                    stream.before.insert(*id, follower);
                }
            }
            Moment::Ask { stream, id, time } => {
                let stream = self.streams.entry(*stream).or_default();
                match id {
                    None => stream.asks.push(*time),
                    Some(id) => {
                        if let Some(follower) = stream.followers.get_mut(id) {
                            follower.asks += 1;
                        }
                    }
                }
            }
            Moment::Given {
                stream,
                id,
                revision,
                update,
                time,
            } => {
                let given = self.given(*stream, *id, *revision, update, *time);
                given.map_err(|wrong| (wrong, Some(*stream), Some(*id).filter(|id| *id >= 0)))?;
            }
            Moment::Dry { stream, visible } => self.dry(*stream, *visible)?,
            Moment::Unwoken { stream } => {
                let says = "there was something to be received, and its waker was not called";
                return wrong(Rule::Wake, says).map_err(|wrong| (wrong, Some(*stream), None));
            }
            Moment::FilterPanicked { .. } => self.checked.panics += 1,
            Moment::Visible(rev) => {
                let known = self.known.last_mut().expect("there is a content");
                known.visible = known.visible.max(*rev);
                let all = self
                    .streams
                    .values_mut()
                    .flat_map(|s| s.followers.values_mut());
                all.for_each(|follower| follower.waits &= follower.first > *rev);
            }
            Moment::Compact(rev) => {
                let known = self.known.last_mut().expect("there is a content");
                known.compactions.push(*rev);
            }
            Moment::Restored { end, compact } => {
                self.known.last_mut().expect("there is a content").visible = *end;
                self.known.push(content_at(*compact));
                for stream in self.streams.values_mut() {
                    let all = stream
                        .followers
                        .values_mut()
                        .chain(stream.before.values_mut());
                    all.for_each(|follower| follower.restored = true);
                }
            }
            Moment::Crashed {
                lossless,
                rev,
                compact,
            } => {
                self.crashed(*lossless, *rev)?;
                self.known.push(content_at(*compact));
                self.streams.clear();
            }
            Moment::Closed { stream, returned } => {
                self.streams.entry(*stream).or_default().closed = Some(*returned);
            }
        }
        Ok(())
    }

    fn watch(
        &mut self,
        stream: usize,
        id: i64,
        asked: &Asked,
        visible: (u64, u64),
        compact: (u64, u64),
        there: u64,
    ) {
        let content = self.known.len() - 1;
        let starts: Vec<u64> = match asked.start {
            Start::Now => (visible.0 + 1..=visible.1 + 1).collect(),
            Start::At(rev) => vec![rev],
            Start::After(rev) => vec![rev.saturating_add(1)],
            Start::Oldest => (compact.0.max(1)..=compact.1.max(1)).collect(),
        };
        let first = starts.iter().copied().min().unwrap_or_default();
        let place = |next| Place { content, next };
        let follower = Follower {
            asked: asked.clone(),
            first,
            waits: asked.start != Start::Now && first > visible.1.max(self.known[content].visible),
            lost: (first < compact.0).then_some((content, compact.0)),
            places: starts.into_iter().map(place).collect(),
            up_to: 0,
            restored: false,
            told: std::collections::BTreeSet::new(),
            ended: false,
            there,
            cancelled: None,
            asks: 0,
        };
        self.checked.watchers += 1;
        let stream = self.streams.entry(stream).or_default();
        if let Some(before) = stream.followers.insert(id, follower) {
            stream.before.insert(id, before);
        }
    }

    fn given(
        &mut self,
        stream: usize,
        id: i64,
        revision: u64,
        update: &Update,
        time: (u64, u64),
    ) -> Result<(), Wrong> {
        let of = Contents {
            contents: &self.history.contents,
            known: &self.known,
        };
        let Some(stream) = self.streams.get_mut(&stream) else {
            return wrong(Rule::Known, "nothing was asked of the stream");
        };
        if stream.closed.is_some_and(|returned| returned < time.0) {
            return wrong(Rule::Cancelled, "the stream had been closed");
        }
        if id == -1 {
            self.checked.progress += 1;
            return match update {
                Update::Progress => stream.progress_of_all(of, revision, time),
                _ => wrong(Rule::Known, format!("for all: {update:?}")),
            };
        }
        let follower = match stream.followers.get_mut(&id) {
            Some(follower) => follower,
            None => match stream.before.get_mut(&id) {
                Some(before) => before,
                None => return wrong(Rule::Known, "nobody has this id"),
            },
        };
        if let Some((_, returned)) = follower.cancelled
            && returned < time.0
        {
            return wrong(Rule::Cancelled, "it had been cancelled");
        }
        if follower.ended {
            return wrong(
                Rule::Last,
                format!("it had been given its last: {update:?}"),
            );
        }
        match update {
            Update::Events(events) => {
                self.checked.events += events.len() as u64;
                follower.events(of, revision, events)
            }
            Update::Progress => {
                self.checked.progress += 1;
                if follower.asks == 0 {
                    return wrong(Rule::Asked, "it did not ask for progress");
                }
                follower.asks -= 1;
                follower.progress(of, revision)
            }
            Update::Compacted(compact) => {
                self.checked.compacted += 1;
                follower.compacted(of, revision, *compact)
            }
            Update::Failed(error) => wrong(Rule::Known, format!("it failed: {error}")),
        }
    }

    fn dry(&mut self, number: usize, visible: u64) -> Result<(), Broken> {
        let of = Contents {
            contents: &self.history.contents,
            known: &self.known,
        };
        let Some(stream) = self.streams.get_mut(&number) else {
            return Ok(());
        };
        if stream.closed.is_some() {
            return Ok(());
        }
        let mut waits = false;
        for (id, follower) in &mut stream.followers {
            if follower.ended {
                continue;
            }
            let dry = follower.dry(of, visible);
            dry.map_err(|wrong| (wrong, Some(number), Some(*id)))?;
            waits |= follower.is_ahead(visible);
        }
        if !waits && !stream.asks.is_empty() {
            let unanswered = wrong(Rule::Asked, "progress of all was asked for, and not told");
            return unanswered.map_err(|wrong| (wrong, Some(number), None));
        }
        Ok(())
    }

    /// Under a durability that loses nothing, nobody was told of what is gone.
    fn crashed(&mut self, lossless: bool, rev: u64) -> Result<(), Broken> {
        for (number, stream) in &self.streams {
            for (id, follower) in stream.followers.iter().chain(&stream.before) {
                if lossless && !follower.restored && follower.up_to > rev {
                    let says = format!("{rev} is left of {}, which it was told", follower.up_to);
                    let lost = wrong(Rule::Durable, says);
                    return lost.map_err(|wrong| (wrong, Some(*number), Some(*id)));
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    fn progress_of_all(
        &mut self,
        of: Contents<'_>,
        revision: u64,
        time: (u64, u64),
    ) -> Result<(), Wrong> {
        if self.asks.is_empty() {
            return wrong(Rule::Asked, "nobody asked for progress of all");
        }
        let asked = self.asks.remove(0);
        for (id, follower) in &mut self.followers {
            // Who came later than the request may be behind it.
            if follower.ended || follower.there > asked {
                continue;
            }
            let mut told = follower.clone();
            if let Err(why) = told.progress(of, revision) {
                return wrong(
                    Rule::All,
                    format!(
                        "watcher {id} is not in step at {revision}, at {time:?}: {}",
                        why.says
                    ),
                );
            }
            *follower = told;
        }
        Ok(())
    }
}

fn content_at(compact: u64) -> Known {
    let compactions = if compact > 0 {
        vec![compact]
    } else {
        Vec::new()
    };
    Known {
        visible: 1,
        compactions,
        lowest: compact,
    }
}
