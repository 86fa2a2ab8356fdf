//! Histories made by hand: a good one, and one for each way to be wrong, which the checker is to refuse for
//! that reason.

use super::check::{Rule, check};
use super::record::{Answer, Call, Change, Compare, Entry, Event, Kv, Saw, Txn, Wrote};

/// The good history, with places to break. Moments are those of the position in [`good`], two by two,
/// unless a test moves them.
fn entry(invoked: u64, returned: u64, call: Call, answer: Answer) -> Entry {
    Entry {
        thread: 0,
        invoked,
        returned,
        disk_before: 0,
        disk_after: 0,
        call,
        answer,
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn put_of(key: &str, value: &str) -> Change {
    Change::Put(text(key), text(value))
}

fn wrote(saw: Option<Saw>, rev: u64, changes: u64) -> Answer {
    Answer::Wrote(Wrote {
        saw,
        rev,
        changes,
        sure: true,
        durable: true,
    })
}

fn put(moments: (u64, u64), key: &str, value: &str, rev: u64) -> Entry {
    let call = Call::Put(text(key), text(value));
    entry(moments.0, moments.1, call, wrote(None, rev, 1))
}

fn kv(key: &str, value: &str, create: u64, modified: u64, version: u64) -> Kv {
    Kv {
        key: text(key),
        value: text(value),
        create,
        modified,
        version,
    }
}

fn range(moments: (u64, u64), at: Option<u64>, rev: u64, kvs: Vec<Kv>) -> Entry {
    let call = Call::Range(at, text(""), text("~"));
    entry(moments.0, moments.1, call, Answer::Kvs(rev, kvs))
}

fn event(rev: u64, sub: u64, change: Change) -> Event {
    Event { rev, sub, change }
}

/// A transaction that moves a value from a to b, if a is at revision 2.
fn moves(moments: (u64, u64), saw: Saw, rev: u64, changes: u64) -> Entry {
    let txn = Txn {
        compares: vec![(text("a"), Compare::Modified(2))],
        then: vec![Change::Delete(text("a")), put_of("b", "1")],
        otherwise: vec![put_of("c", "no")],
    };
    let answer = wrote(Some(saw), rev, changes);
    entry(moments.0, moments.1, Call::Txn(txn), answer)
}

fn saw(base: u64, held: bool, found: Option<Kv>) -> Saw {
    Saw {
        base,
        compared: vec![(held, found)],
    }
}

fn a() -> Kv {
    kv("a", "1", 2, 2, 1)
}

fn b() -> Kv {
    kv("b", "1", 3, 3, 1)
}

/// Two writes and reads of each kind, some of them beside the writes.
fn good() -> Vec<Entry> {
    let events = vec![
        event(2, 0, put_of("a", "1")),
        event(3, 0, Change::Delete(text("a"))),
        event(3, 1, put_of("b", "1")),
    ];
    let held = Call::Held(2, text(""), text("~"));
    vec![
        put((1, 4), "a", "1", 2),
        // Beside the put: it may be seen, or not.
        range((2, 3), None, 1, vec![]),
        moves((5, 10), saw(2, true, Some(a())), 3, 2),
        range((6, 7), None, 2, vec![a()]),
        range((8, 9), None, 3, vec![b()]),
        entry(11, 12, Call::Get(text("b")), Answer::One(Some(b()))),
        entry(13, 14, Call::Changes(2), Answer::Events(3, events)),
        range((15, 16), Some(2), 2, vec![a()]),
        entry(17, 18, Call::Delete(text("a")), wrote(None, 3, 0)),
        entry(19, 20, Call::Compact(3), Answer::Done(3)),
        entry(21, 22, held, Answer::Kvs(2, vec![a()])),
        entry(23, 24, Call::Compact(2), Answer::Compacted(3)),
        entry(
            25,
            26,
            Call::Range(Some(2), text(""), text("~")),
            Answer::Compacted(3),
        ),
        entry(
            27,
            28,
            Call::Range(Some(9), text(""), text("~")),
            Answer::Future(3),
        ),
    ]
}

/// The good history with more behind it.
fn good_and(more: Vec<Entry>) -> Vec<Entry> {
    let mut history = good();
    history.extend(more);
    history
}

/// The good history with one entry replaced.
fn good_but(nth: usize, entry: Entry) -> Vec<Entry> {
    let mut history = good();
    history[nth] = entry;
    history
}

#[track_caller]
fn refused(history: &[Entry], rule: Rule) {
    match check(history) {
        Ok(_) => panic!("accepted, not refused as {rule:?}"),
        Err(wrong) => assert_eq!(wrong.rule, rule, "{wrong}"),
    }
}

/// What a store may do is accepted, and the calls that began beside others are counted.
#[test]
fn a_good_history() {
    let checked = check(&good()).unwrap();
    assert_eq!(checked.replay.newest(), 3);
    assert_eq!(checked.overlapping, 3);
    assert_eq!(check(&[]).unwrap().replay.newest(), 1);
}

/// A read after a write had returned does not see it; with its revision, and without.
#[test]
fn stale_reads() {
    refused(
        &good_and(vec![range((31, 32), None, 2, vec![a()])]),
        Rule::Stale,
    );
    let get = |found| entry(31, 32, Call::Get(text("a")), Answer::One(found));
    refused(&good_and(vec![get(Some(a()))]), Rule::Stale);
    check(&good_and(vec![get(None)])).unwrap();
}

/// Single reads are ordered among each other: one that saw a write lets no later one miss it, although the write
/// goes on.
#[test]
fn single_reads_do_not_go_back() {
    let get = |moments: (u64, u64), found| {
        let call = Call::Get(text("a"));
        entry(moments.0, moments.1, call, Answer::One(found))
    };
    let write = put((1, 9), "a", "1", 2);
    let forth = [write.clone(), get((2, 3), None), get((4, 5), Some(a()))];
    check(&forth).unwrap();
    let back = [write, get((2, 3), Some(a())), get((4, 5), None)];
    refused(&back, Rule::Stale);
}

/// A read says that it is at a revision, and misses what that one or an earlier one wrote.
#[test]
fn lost_writes() {
    refused(&good_but(3, range((6, 7), None, 2, vec![])), Rule::Lost);
    let events = vec![event(2, 0, put_of("a", "1"))];
    let told = entry(13, 14, Call::Changes(2), Answer::Events(3, events));
    refused(&good_but(6, told), Rule::Lost);
    // A delete that found nothing, where something is.
    let delete = entry(17, 18, Call::Delete(text("b")), wrote(None, 3, 0));
    refused(&good_but(8, delete), Rule::Lost);
    // A revision that is there is told to be in the future.
    let future = Call::Range(Some(3), text(""), text("~"));
    refused(
        &good_but(13, entry(27, 28, future, Answer::Future(3))),
        Rule::Lost,
    );
}

/// Revisions without one of theirs, and one that two writes have.
#[test]
fn revisions_that_are_missing_or_there_twice() {
    refused(&good_and(vec![put((31, 32), "c", "1", 5)]), Rule::Gap);
    refused(&good_and(vec![put((31, 32), "c", "1", 3)]), Rule::Twice);
}

/// A transaction is seen in part: in a range, in the changes; or somebody wrote between its reads and its writes.
#[test]
fn torn_transactions() {
    refused(
        &good_but(4, range((8, 9), None, 3, vec![a(), b()])),
        Rule::Torn,
    );
    let events = vec![event(2, 0, put_of("a", "1")), event(3, 1, put_of("b", "1"))];
    let told = entry(13, 14, Call::Changes(2), Answer::Events(3, events));
    refused(&good_but(6, told), Rule::Torn);
    let mut between = good_but(2, moves((5, 10), saw(2, true, Some(a())), 4, 2));
    between.truncate(3);
    between.push(put((6, 7), "c", "1", 3));
    refused(&between, Rule::Torn);
}

/// A read shows what was written after it had returned, or what is above its own revision.
#[test]
fn reads_from_the_future() {
    let later = kv("c", "1", 4, 4, 1);
    let write = put((33, 34), "c", "1", 4);
    let whole = range((31, 32), None, 4, vec![b(), later.clone()]);
    refused(&good_and(vec![whole, write.clone()]), Rule::Future);
    let get = entry(
        31,
        32,
        Call::Get(text("c")),
        Answer::One(Some(later.clone())),
    );
    refused(&good_and(vec![get, write.clone()]), Rule::Future);
    let above = range((35, 36), Some(3), 3, vec![b(), later]);
    refused(&good_and(vec![write, above]), Rule::Future);
    refused(
        &good_and(vec![range((31, 32), None, 9, vec![b()])]),
        Rule::Future,
    );
}

/// A comparison comes out other than the key was, or shows another key than there was.
#[test]
fn wrong_comparisons() {
    let failed = moves((5, 10), saw(2, false, Some(a())), 3, 1);
    refused(&good_but(2, failed), Rule::Compare);
    let passed = moves((31, 32), saw(3, true, None), 4, 2);
    refused(&good_and(vec![passed]), Rule::Compare);
    let other = moves((5, 10), saw(2, true, Some(kv("a", "2", 2, 2, 1))), 3, 2);
    refused(&good_but(2, other), Rule::Read);
    // The same comparison later does not hold, and the other changes are made.
    check(&good_and(vec![moves((31, 32), saw(3, false, None), 4, 1)])).unwrap();
}

/// A write that began after another had returned has the lower revision; reads go back.
#[test]
fn real_time_turned_round() {
    let (first, second) = (put((1, 2), "a", "1", 3), put((3, 4), "b", "1", 2));
    refused(&[first, second], Rule::Time);
    // Beside each other either may be first.
    check(&[put((1, 3), "a", "1", 3), put((2, 4), "b", "1", 2)]).unwrap();
    let forth = range((2, 3), None, 2, vec![a()]);
    let back = range((4, 5), None, 1, vec![]);
    refused(&[put((1, 9), "a", "1", 2), forth, back], Rule::Time);
    // A transaction without a change is a read.
    let delete = entry(3, 4, Call::Delete(text("x")), wrote(None, 1, 0));
    refused(&[put((1, 2), "a", "1", 2), delete], Rule::Time);
}

/// A write whose outcome is not known is there or not, but keeps its place.
#[test]
fn unknown_outcomes() {
    let unknown = |moments, rev| {
        let mut entry = put(moments, "z", "1", rev);
        if let Answer::Wrote(wrote) = &mut entry.answer {
            wrote.sure = false;
        }
        entry
    };
    let unseen = range((33, 34), None, 3, vec![b()]);
    let seen = range((33, 34), None, 4, vec![b(), kv("z", "1", 4, 4, 1)]);
    check(&good_and(vec![unknown((31, 32), 4), unseen])).unwrap();
    check(&good_and(vec![unknown((31, 32), 4), seen])).unwrap();
    refused(&good_and(vec![unknown((31, 32), 5)]), Rule::Gap);
    refused(&[unknown((3, 4), 2), put((1, 2), "a", "1", 3)], Rule::Time);
}

/// Reads below a compaction that had returned, refusals without one, and compactions that go back.
#[test]
fn wrong_compactions() {
    refused(
        &good_and(vec![range((31, 32), Some(2), 2, vec![a()])]),
        Rule::Compaction,
    );
    let refusal = |rev, compacted| {
        let call = Call::Range(Some(rev), text(""), text("~"));
        entry(31, 32, call, Answer::Compacted(compacted))
    };
    // At the compact revision itself all is there.
    refused(&good_and(vec![refusal(3, 3)]), Rule::Compaction);
    refused(&good_and(vec![refusal(2, 4)]), Rule::Compaction);
    let again = entry(31, 32, Call::Compact(2), Answer::Done(2));
    refused(&good_and(vec![again]), Rule::Compaction);
    let twice = entry(31, 32, Call::Compact(3), Answer::Done(3));
    refused(&good_and(vec![twice]), Rule::Compaction);
    // One had begun: whether it has happened is not known, and readers may be refused for it.
    let ahead = put((31, 32), "c", "1", 4);
    let begun = entry(33, 38, Call::Compact(4), Answer::Done(4));
    let call = Call::Range(Some(3), text(""), text("~"));
    let early = entry(34, 35, call.clone(), Answer::Compacted(4));
    let still = entry(36, 37, call, Answer::Kvs(3, vec![b()]));
    let mut both = good_and(vec![ahead, begun, early]);
    check(&both).unwrap();
    both.push(still);
    refused(&both, Rule::Compaction);
}

/// Values that nobody wrote, versions that do not fit, answers of other calls.
#[test]
fn reads_of_nothing() {
    let stranger = range((8, 9), None, 3, vec![kv("b", "2", 3, 3, 1)]);
    refused(&good_but(4, stranger), Rule::Read);
    let versions = range((8, 9), None, 3, vec![kv("b", "1", 3, 3, 2)]);
    refused(&good_but(4, versions), Rule::Read);
    let twice = range((8, 9), None, 3, vec![b(), b()]);
    refused(&good_but(4, twice), Rule::Read);
    let get = entry(31, 32, Call::Get(text("q")), Answer::One(Some(b())));
    refused(&good_and(vec![get]), Rule::Read);
    let changes = vec![event(3, 0, put_of("b", "1"))];
    let told = entry(31, 32, Call::Changes(3), Answer::Events(3, changes));
    refused(&good_and(vec![told]), Rule::Changes);
    let failed = Answer::Failed(text("panic"));
    refused(
        &good_and(vec![entry(31, 32, Call::Sync, failed)]),
        Rule::Answer,
    );
    refused(
        &good_and(vec![entry(31, 32, Call::Sync, Answer::One(None))]),
        Rule::Answer,
    );
    // A view shows another revision than its own.
    let held = Call::Held(2, text(""), text("~"));
    let moved = entry(31, 32, held, Answer::Kvs(3, vec![b()]));
    refused(&good_and(vec![moved]), Rule::Answer);
}

/// A put that says it changed nothing, a delete that says it changed more than there was.
#[test]
fn wrong_counts() {
    let put = entry(31, 32, Call::Put(text("q"), text("1")), wrote(None, 3, 0));
    refused(&good_and(vec![put]), Rule::Lost);
    let delete = entry(31, 32, Call::Delete(text("q")), wrote(None, 4, 1));
    refused(&good_and(vec![delete]), Rule::Answer);
}
