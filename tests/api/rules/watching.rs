//! Watchers at the public door: what they are given, and what they are told.

use revtree::{Start, Update, WatchResponse, WatchStream};

use super::memory;

/// All responses that are there now.
fn received(stream: &mut WatchStream) -> Vec<WatchResponse> {
    std::iter::from_fn(|| stream.try_recv().unwrap()).collect()
}

/// The revisions of the events of these, in their order.
fn revisions<'r>(responses: impl IntoIterator<Item = &'r WatchResponse>) -> Vec<u64> {
    let mut all = Vec::new();
    for response in responses {
        match &response.update {
            Update::Events(events) => all.extend(events.iter().map(|event| event.id.main.get())),
            other => panic!("unexpected: {other:?}"),
        }
    }
    all
}

/// Several watchers of one stream that want the same of the past are each given all of it, though all but the
/// first come into step by joining another.
#[test]
fn the_past_is_given_to_each_of_several() {
    let db = memory();
    for _ in 0..3 {
        db.put("a", "1").unwrap();
    }
    let mut stream = db.watch_stream().unwrap();
    let ids: Vec<_> = (1..=3)
        .map(|rev| stream.watch("a", Start::At(rev.into())).unwrap())
        .collect();
    let responses = received(&mut stream);
    for (id, first) in ids.into_iter().zip([2, 2, 3]) {
        let of_id = responses.iter().filter(|response| response.id == id);
        assert_eq!(revisions(of_id), Vec::from_iter(first..=4), "from {first}");
    }
}
