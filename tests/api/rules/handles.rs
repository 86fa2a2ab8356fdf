//! Handles: what can be cloned, shared between threads, sent, and kept for ever.

use std::future::Future;

use revtree::{
    Compaction, Db, Error, Event, EventBatch, Filter, KeyValue, OwnedRecords, ReadView, Record,
    Records, Responses, Snapshot, Submitted, Update, View, WatchControl, WatchRequest,
    WatchResponse, WatchStream, WeakDb, WriteTxn,
};

const fn cloned_and_shared<T: Clone + Send + Sync + 'static>() {}
const fn sent<T: Send + 'static>() {}
const fn sent_while_borrowed<'v, T: Send + 'v>() {}
const fn awaited<T: Future<Output = revtree::Result<revtree::Commit>>>() {}
const fn streamed<T: futures_core::Stream<Item = WatchResponse> + Unpin>() {}

/// Decided by the compiler: the first list of the rule on handles, then the second.
const _: () = {
    cloned_and_shared::<Db>();
    cloned_and_shared::<WeakDb>();
    cloned_and_shared::<ReadView>();
    cloned_and_shared::<KeyValue>();
    cloned_and_shared::<Event>();
    cloned_and_shared::<Error>();
    cloned_and_shared::<Snapshot>();
    cloned_and_shared::<WatchControl>();
    cloned_and_shared::<WatchRequest>();
    cloned_and_shared::<Filter>();
    cloned_and_shared::<WatchResponse>();
    cloned_and_shared::<Update>();
    cloned_and_shared::<EventBatch>();

    sent::<WriteTxn>();
    sent::<Compaction>();
    sent::<Submitted>();
    sent::<OwnedRecords>();
    sent::<WatchStream>();
    streamed::<WatchStream>();
    awaited::<Submitted>();
    sent_while_borrowed::<Record<'static>>();
    sent_while_borrowed::<Records<'static>>();
    sent_while_borrowed::<Responses<'static>>();
};

/// A transaction can be begun in one thread and committed in another, a view read in a third.
#[test]
fn handles_go_to_other_threads() {
    let db = super::memory();
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    let committed = std::thread::spawn(move || txn.commit().unwrap().revision);
    assert_eq!(committed.join().unwrap().get(), 2);
    let view = db.read().unwrap();
    let record = view.get("a").unwrap().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(record.value(), b"1"));
        scope.spawn(|| assert_eq!(view.range(..).count().unwrap(), 1));
    });
}

/// What reads takes either kind of reader as `&dyn View`.
#[test]
fn view_is_a_trait_object() {
    fn value(view: &dyn View, key: &str) -> Option<Vec<u8>> {
        let record = view.get(key.as_bytes()).unwrap();
        record.map(|record| record.value().to_vec())
    }
    let db = super::memory();
    db.put("a", "1").unwrap();
    let view = db.read().unwrap();
    let mut txn = db.write().unwrap();
    txn.put("a", "2").unwrap();
    assert_eq!(value(&view, "a").unwrap(), b"1");
    assert_eq!(value(&txn, "a").unwrap(), b"2");
    let (view, txn): (&dyn View, &dyn View) = (&view, &txn);
    assert_eq!((view.rev(), txn.rev()), (2.into(), 2.into()));
}

/// Bytes belong to the record: a record can be kept longer than the iterator and the range it came from.
#[test]
fn records_outlive_their_iterator() {
    let db = super::memory();
    for key in ["a", "b", "c"] {
        db.put(key, key).unwrap();
    }
    let view = db.read().unwrap();
    let records: Vec<Record<'_>> = view.range(..).into_iter().map(Result::unwrap).collect();
    let values: Vec<&[u8]> = records.iter().map(Record::value).collect();
    assert_eq!(values, [b"a", b"b", b"c"]);
}
