//! The answers of one operation, whatever its kind, so that two stores' can be compared.

use bytes::Bytes;
use revtree_format::Revision;

use crate::answer::{
    Answer, Applied, Committed, Deleted, Event, Facts, Hash, HashKv, Kv, LeaseCall, Prev,
    RangeAnswer, Refusal, Rows, ViewFacts,
};
use crate::state::State;

/// What one verb answered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    missing_docs,
    reason = "each variant is named for the type that it carries"
)]
pub enum Outcome {
    Revision(Answer<Revision>),
    Deleted(Answer<Deleted>),
    Kv(Answer<Option<Kv>>),
    Kvs(Answer<Vec<Kv>>),
    Range(Answer<RangeAnswer>),
    Count(Answer<u64>),
    Event(Answer<Event>),
    Events(Answer<Vec<Event>>),
    Rows(Answer<Rows>),
    Row(Answer<Option<Bytes>>),
    Committed(Answer<Option<Committed>>),
    Applied(Answer<Applied>),
    Hash(Answer<Hash>),
    HashKv(Answer<HashKv>),
    HashKvs(Answer<Vec<HashKv>>),
    Facts(Answer<Facts>),
    View(Answer<ViewFacts>),
    State(Answer<Box<State>>),
    Bool(Answer<bool>),
    /// `None`: this store's lessor does not record.
    LeaseCalls(Option<Vec<LeaseCall>>),
    Unit(Answer<()>),
    /// The history asks something that has no meaning here; nothing was done.
    Skipped(&'static str),
}

impl Outcome {
    /// Why the store refused, if it did.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Outcome::Revision(answer) => answer.as_ref().err(),
            Outcome::Deleted(answer) => answer.as_ref().err(),
            Outcome::Kv(answer) => answer.as_ref().err(),
            Outcome::Kvs(answer) => answer.as_ref().err(),
            Outcome::Range(answer) => answer.as_ref().err(),
            Outcome::Count(answer) => answer.as_ref().err(),
            Outcome::Event(answer) => answer.as_ref().err(),
            Outcome::Events(answer) => answer.as_ref().err(),
            Outcome::Rows(answer) => answer.as_ref().err(),
            Outcome::Row(answer) => answer.as_ref().err(),
            Outcome::Committed(answer) => answer.as_ref().err(),
            Outcome::Applied(answer) => answer.as_ref().err(),
            Outcome::Hash(answer) => answer.as_ref().err(),
            Outcome::HashKv(answer) => answer.as_ref().err(),
            Outcome::HashKvs(answer) => answer.as_ref().err(),
            Outcome::Facts(answer) => answer.as_ref().err(),
            Outcome::View(answer) => answer.as_ref().err(),
            Outcome::State(answer) => answer.as_ref().err(),
            Outcome::Bool(answer) => answer.as_ref().err(),
            Outcome::Unit(answer) => answer.as_ref().err(),
            Outcome::LeaseCalls(_) | Outcome::Skipped(_) => None,
        }
    }

    /// Whether the store refused.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.refusal().is_some()
    }

    /// The same without what was before each change, for stores that do not tell it.
    #[must_use]
    pub fn without_prev(mut self) -> Outcome {
        let events: &mut [Event] = match &mut self {
            Outcome::Event(Ok(event)) => std::slice::from_mut(event),
            Outcome::Events(Ok(events)) => events,
            Outcome::State(Ok(state)) => &mut state.events,
            _ => &mut [],
        };
        for event in events {
            event.prev = Prev::NotAsked;
        }
        self
    }
}
