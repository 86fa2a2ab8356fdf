//! The plain values of [`record`](super::record), asked of a store and taken from its answers.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use revtree::{
    Event as StoreEvent, EventKind, Filter, KeyRange, KeyValue, Prev as StorePrev,
    Start as StoreStart, Update as StoreUpdate, WatchId, WatchRequest, WatchResponse, WriteTxn,
};
use revtree_format::Revision;

use super::record::{Asked, Drops, Event, Keys, Kv, Op, Prev, Start, Update};

pub(super) fn key_range(keys: &Keys) -> KeyRange {
    match keys {
        Keys::One(key) => KeyRange::single(key),
        Keys::Prefix(prefix) => KeyRange::prefix(prefix),
        Keys::Between(from, to) => KeyRange::between(from, to),
        Keys::AtLeast(from) => KeyRange::at_least(from),
        Keys::All => KeyRange::all(),
    }
}

pub(super) fn request(asked: &Asked, id: Option<i64>) -> WatchRequest {
    let start = match asked.start {
        Start::Now => StoreStart::Now,
        Start::At(rev) => StoreStart::At(Revision::new(rev)),
        Start::After(rev) => StoreStart::After(Revision::new(rev)),
        Start::Oldest => StoreStart::Oldest,
    };
    let bytes = usize::try_from(asked.bytes_max).unwrap_or(usize::MAX);
    let mut request = WatchRequest::new(key_range(&asked.keys), start).batch_bytes_max(bytes);
    if asked.prev {
        request = request.prev_kv();
    }
    let drops = asked.drops;
    request = match drops {
        Drops::Nothing => request,
        Drops::Puts => request.filter(Filter::NoPut),
        Drops::Deletes => request.filter(Filter::NoDelete),
        Drops::OddSubs | Drops::ThirdRevisions => {
            let says = move |event: &StoreEvent| {
                if PANICS.take() {
                    resume_unwind(Box::new(FilterPanicked));
                }
                let is_put = event.kind == EventKind::Put;
                drops.drops(event.id.main.get(), event.id.sub, is_put)
            };
            request.filter(Filter::DropIf(Arc::new(says)))
        }
    };
    match id {
        Some(id) => request.id(WatchId(id)),
        None => request,
    }
}

thread_local! {
    /// The next filter that this thread asks panics.
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

/// What a filter panics with.
struct FilterPanicked;

/// Receives, and once more where a filter panics meanwhile, which the first one does if `panics`: nothing is lost by
/// that. Says whether one did.
pub(super) fn receive<T>(panics: bool, mut receive: impl FnMut() -> T) -> (T, bool) {
    PANICS.set(panics);
    let mut panicked = false;
    loop {
        match catch_unwind(AssertUnwindSafe(&mut receive)) {
            Ok(received) => {
                PANICS.set(false);
                return (received, panicked);
            }
            Err(panic) if panic.is::<FilterPanicked>() => panicked = true,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Does a transaction's steps.
pub(super) fn write(txn: &mut WriteTxn, ops: &[Op]) -> revtree::Result<()> {
    for op in ops {
        match op {
            Op::Put(key, value) => {
                txn.put(key, value)?;
            }
            Op::Delete(keys) => {
                txn.delete_range(key_range(keys))?;
            }
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kv(kv: &KeyValue) -> Kv {
    Kv {
        value: text(&kv.value),
        create: kv.create_revision.get(),
        modified: kv.mod_revision.get(),
        version: kv.version,
    }
}

fn event(event: &StoreEvent) -> Event {
    Event {
        rev: event.id.main.get(),
        sub: event.id.sub,
        key: text(&event.kv.key),
        put: (event.kind == EventKind::Put).then(|| kv(&event.kv)),
        is_create: event.is_create(),
        prev: match &event.prev {
            StorePrev::NotAsked => Prev::NotAsked,
            StorePrev::None => Prev::None,
            StorePrev::Value(before) => Prev::Value(kv(before)),
            StorePrev::Compacted => Prev::Compacted,
        },
    }
}

/// A response's id, revision and update.
pub(super) fn response(response: &WatchResponse) -> (i64, u64, Update) {
    let update = match &response.update {
        StoreUpdate::Events(events) => Update::Events(events.iter().map(event).collect()),
        StoreUpdate::Progress => Update::Progress,
        StoreUpdate::Compacted { compact_revision } => Update::Compacted(compact_revision.get()),
        StoreUpdate::Failed(error) => Update::Failed(error.to_string()),
        other => Update::Failed(format!("{other:?}")),
    };
    (response.id.0, response.revision.get(), update)
}
