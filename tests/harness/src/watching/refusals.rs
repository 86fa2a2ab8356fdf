//! Histories made by hand: a good one, and one for each rule, which the checker is to refuse for that rule.

use super::check::check;
use super::record::{
    Asked, Content, Drops, Event, History, Keys, Kv, Moment, Op, Prev, Start, Update,
};
use super::rules::Rule;

fn put(key: &str, value: &str) -> Op {
    Op::Put(key.to_owned(), value.to_owned())
}

fn kv(value: &str, create: u64, modified: u64, version: u64) -> Kv {
    Kv {
        value: value.to_owned(),
        create,
        modified,
        version,
    }
}

/// 2: a is put; 3: a and b; 4: c is none of ours, b ends; 5: a.
fn content() -> Content {
    let mut content = Content::default();
    content.commit(&[put("a", "1")]);
    content.commit(&[put("a", "2"), put("b", "1")]);
    content.commit(&[put("z", "1"), Op::Delete(Keys::One("b".to_owned()))]);
    content.commit(&[put("a", "3")]);
    content
}

/// What a watcher of all but z with previous values is to be told of a revision.
fn events(rev: u64) -> Vec<Event> {
    let event = |sub, key: &str, put: Option<Kv>, prev| Event {
        rev,
        sub,
        key: key.to_owned(),
        is_create: put.as_ref().is_some_and(|kv| kv.create == rev),
        put,
        prev,
    };
    let value =
        |value, create, modified, version| Prev::Value(kv(value, create, modified, version));
    match rev {
        2 => vec![event(0, "a", Some(kv("1", 2, 2, 1)), Prev::None)],
        3 => vec![
            event(0, "a", Some(kv("2", 2, 3, 2)), value("1", 2, 2, 1)),
            event(1, "b", Some(kv("1", 3, 3, 1)), Prev::None),
        ],
        4 => vec![event(1, "b", None, value("1", 3, 3, 1))],
        _ => vec![event(0, "a", Some(kv("3", 2, 5, 3)), value("2", 2, 3, 2))],
    }
}

fn asked(start: Start) -> Asked {
    Asked {
        keys: Keys::Between("a".to_owned(), "m".to_owned()),
        start,
        prev: true,
        drops: Drops::Nothing,
        bytes_max: 1 << 20,
    }
}

fn watch_of(asked: Asked, visible: u64, compact: u64) -> Moment {
    Moment::Watch {
        stream: 1,
        id: 7,
        asked,
        visible: (visible, visible),
        compact: (compact, compact),
        returned: 1,
    }
}

fn watch(start: Start) -> Moment {
    watch_of(asked(start), 1, 0)
}

fn given_at(time: u64, id: i64, revision: u64, update: Update) -> Moment {
    Moment::Given {
        stream: 1,
        id,
        revision,
        update,
        time: (time, time + 1),
    }
}

fn given(revision: u64, events: Vec<Event>) -> Moment {
    given_at(10, 7, revision, Update::Events(events))
}

fn progress(revision: u64) -> Moment {
    given_at(10, 7, revision, Update::Progress)
}

fn compacted(compact: u64) -> Moment {
    given_at(10, 7, 0, Update::Compacted(compact))
}

fn ask(id: Option<i64>) -> Moment {
    Moment::Ask {
        stream: 1,
        id,
        time: 5,
    }
}

fn dry(visible: u64) -> Moment {
    Moment::Dry { stream: 1, visible }
}

use Moment::{Compact, Visible};

fn of(moments: &[Moment]) -> History {
    History {
        contents: vec![content(), content().at(4)],
        moments: moments.to_vec(),
    }
}

#[track_caller]
fn accepted(moments: &[Moment]) {
    if let Err(refused) = check(&of(moments)) {
        panic!("{refused}");
    }
}

#[track_caller]
fn refused(moments: &[Moment], rule: Rule) {
    match check(&of(moments)) {
        Ok(_) => panic!("accepted, not refused as {rule:?}"),
        Err(refused) => assert_eq!(refused.rule, rule, "{refused}"),
    }
}

/// What a store may do is accepted, and counted.
#[test]
fn a_good_history() {
    let both = [events(2), events(3)].concat();
    let moments = [
        watch(Start::At(2)),
        Visible(5),
        ask(Some(7)),
        ask(None),
        given(3, both),
        given(5, [events(4), events(5)].concat()),
        progress(5),
        given_at(20, -1, 5, Update::Progress),
        dry(5),
        Compact(4),
        dry(5),
    ];
    accepted(&moments);
    let checked = check(&of(&moments)).unwrap();
    assert_eq!((checked.events, checked.progress), (5, 2));
    // Now is behind what is visible.
    let moments = [
        Visible(3),
        watch_of(asked(Start::Now), 3, 0),
        Visible(5),
        given(4, events(4)),
    ];
    accepted(&moments);
}

/// Revisions, and changes within one, out of order.
#[test]
fn ordered() {
    let turned = [events(3), events(2)].concat();
    refused(
        &[watch(Start::At(2)), Visible(5), given(3, turned)],
        Rule::Ordered,
    );
    let mut turned = events(3);
    turned.reverse();
    refused(
        &[watch(Start::At(3)), Visible(5), given(3, turned)],
        Rule::Ordered,
    );
}

/// An event twice, in one batch and in two.
#[test]
fn unique() {
    let twice = [events(2), events(2)].concat();
    refused(
        &[watch(Start::At(2)), Visible(5), given(2, twice)],
        Rule::Unique,
    );
    let again = [
        watch(Start::At(2)),
        Visible(5),
        given(2, events(2)),
        given(2, events(2)),
    ];
    refused(&again, Rule::Unique);
}

/// A revision in between is left out, within a batch and between two.
#[test]
fn reliable() {
    let gap = [events(2), events(4)].concat();
    refused(
        &[watch(Start::At(2)), Visible(5), given(4, gap)],
        Rule::Reliable,
    );
    let gap = [
        watch(Start::At(2)),
        Visible(5),
        given(2, events(2)),
        given(4, events(4)),
    ];
    refused(&gap, Rule::Reliable);
}

/// A revision is split.
#[test]
fn atomic() {
    let mut half = events(3);
    half.pop();
    refused(
        &[watch(Start::At(3)), Visible(5), given(3, half)],
        Rule::Atomic,
    );
}

/// A response's revision that says more than has come, or less.
#[test]
fn resumable() {
    refused(
        &[watch(Start::At(2)), Visible(5), given(3, events(2))],
        Rule::Resumable,
    );
    refused(
        &[watch(Start::At(3)), Visible(5), given(2, events(3))],
        Rule::Resumable,
    );
}

/// Progress before an event below it; an event below a progress.
#[test]
fn bookmarkable() {
    let early = [
        watch(Start::At(2)),
        Visible(5),
        ask(Some(7)),
        given(2, events(2)),
        progress(3),
    ];
    refused(&early, Rule::Bookmarkable);
    // It was told that there is nothing up to 3, and then of an event there.
    let drops = Asked {
        drops: Drops::Puts,
        ..asked(Start::At(2))
    };
    let lying = [
        watch_of(drops, 1, 0),
        Visible(3),
        ask(Some(7)),
        progress(3),
        given(3, events(3)),
    ];
    refused(&lying, Rule::Bookmarkable);
    let beyond = [
        watch_of(asked(Start::At(5)), 5, 0),
        Visible(5),
        ask(Some(7)),
        progress(4),
    ];
    accepted(&beyond);
}

/// What a key was before: another value, none, or unknown where nothing is compacted.
#[test]
fn prev() {
    for wrong in [
        Prev::None,
        Prev::Compacted,
        Prev::NotAsked,
        Prev::Value(kv("1", 2, 2, 2)),
    ] {
        let mut events = events(5);
        events[0].prev = wrong;
        refused(
            &[watch(Start::At(5)), Visible(5), given(5, events)],
            Rule::Prev,
        );
    }
    // At the compact revision itself it need not be known.
    let mut at_compact = events(5);
    at_compact[0].prev = Prev::Compacted;
    let moments = [
        Visible(5),
        Compact(5),
        watch_of(asked(Start::At(5)), 5, 5),
        given(5, at_compact),
    ];
    accepted(&moments);
}

/// A put that says it made its key, and one that does not.
#[test]
fn create() {
    for rev in [2, 5] {
        let mut events = events(rev);
        events[0].is_create ^= true;
        refused(
            &[watch(Start::At(rev)), Visible(5), given(rev, events)],
            Rule::Create,
        );
    }
}

/// Another key; what a filter drops.
#[test]
fn filtered() {
    let mut strange = events(2);
    strange[0].key = "z".to_owned();
    refused(
        &[watch(Start::At(2)), Visible(5), given(2, strange)],
        Rule::Filtered,
    );
    let drops = Asked {
        drops: Drops::Deletes,
        ..asked(Start::At(4))
    };
    refused(
        &[watch_of(drops, 1, 0), Visible(5), given(4, events(4))],
        Rule::Filtered,
    );
}

/// A crash takes back what a watcher was told.
#[test]
fn durable() {
    let crash = |lossless| Moment::Crashed {
        lossless,
        rev: 4,
        compact: 0,
    };
    let told = [watch(Start::At(5)), Visible(5), given(5, events(5))];
    refused(&[&told[..], &[crash(true)]].concat(), Rule::Durable);
    accepted(&[&told[..], &[crash(false)]].concat());
}

/// Before the watcher's beginning: events and progress.
#[test]
fn future() {
    refused(
        &[watch(Start::At(3)), Visible(5), given(2, events(2))],
        Rule::Future,
    );
    refused(
        &[watch(Start::After(2)), Visible(5), given(2, events(2))],
        Rule::Future,
    );
    refused(
        &[watch(Start::At(9)), Visible(5), ask(Some(7)), progress(5)],
        Rule::Future,
    );
}

/// A value that nobody wrote, a version that does not fit, a put that was a delete.
#[test]
fn true_changes() {
    let mut other = events(2);
    other[0].put = Some(kv("9", 2, 2, 1));
    refused(
        &[watch(Start::At(2)), Visible(5), given(2, other)],
        Rule::True,
    );
    let mut other = events(2);
    other[0].put = Some(kv("1", 2, 2, 9));
    refused(
        &[watch(Start::At(2)), Visible(5), given(2, other)],
        Rule::True,
    );
    let mut other = events(4);
    other[0].put = Some(kv("1", 3, 4, 2));
    refused(
        &[watch(Start::At(4)), Visible(5), given(4, other)],
        Rule::True,
    );
}

/// What is not visible yet; progress at what is not.
#[test]
fn early() {
    refused(
        &[watch(Start::At(5)), Visible(4), given(5, events(5))],
        Rule::Early,
    );
    refused(
        &[watch(Start::Now), Visible(4), ask(Some(7)), progress(6)],
        Rule::Early,
    );
}

/// A receiver finds nothing, and something is visible.
#[test]
fn late() {
    refused(&[watch(Start::At(2)), Visible(2), dry(2)], Rule::Late);
    let one = [watch(Start::At(2)), Visible(5), given(2, events(2)), dry(5)];
    refused(&one, Rule::Late);
}

/// Compacted for who needs nothing below; not told who does.
#[test]
fn compactions() {
    let below = [Visible(5), Compact(4), watch_of(asked(Start::At(2)), 5, 4)];
    accepted(&[&below[..], &[compacted(4), dry(5)]].concat());
    refused(&[&below[..], &[dry(5)]].concat(), Rule::Compacted);
    refused(
        &[&below[..], &[given(5, events(5))]].concat(),
        Rule::Compacted,
    );
    refused(&[&below[..], &[compacted(5)]].concat(), Rule::Compacted);
    let at = [Visible(5), Compact(4), watch_of(asked(Start::At(4)), 5, 4)];
    refused(&[&at[..], &[compacted(4)]].concat(), Rule::Compacted);
    let in_step = [
        watch(Start::At(5)),
        Visible(5),
        given(5, events(5)),
        Compact(5),
    ];
    refused(&[&in_step[..], &[compacted(5)]].concat(), Rule::Compacted);
}

/// Something behind a last response: an event, the same again.
#[test]
fn last() {
    let below = [
        Visible(5),
        Compact(4),
        watch_of(asked(Start::At(2)), 5, 4),
        compacted(4),
    ];
    refused(&[&below[..], &[compacted(4)]].concat(), Rule::Last);
    refused(&[&below[..], &[given(5, events(5))]].concat(), Rule::Last);
}

/// Something behind a cancel that had returned, or a close.
#[test]
fn cancelled() {
    let cancelled = |returned| Moment::Cancelled {
        stream: 1,
        id: 7,
        time: (3, returned),
    };
    let with = |moment| [watch(Start::At(2)), Visible(5), moment, given(2, events(2))];
    refused(&with(cancelled(4)), Rule::Cancelled);
    // The receiver had called before it returned.
    accepted(&with(cancelled(11)));
    let closed = Moment::Closed {
        stream: 1,
        returned: 4,
    };
    refused(&with(closed), Rule::Cancelled);
}

/// After a restore nothing is given again; what is at or above the next revision is.
#[test]
fn travel() {
    let restored = Moment::Restored { end: 5, compact: 0 };
    let told = [
        watch(Start::At(2)),
        Visible(3),
        given(3, [events(2), events(3)].concat()),
        restored,
        Visible(4),
    ];
    refused(&[&told[..], &[given(3, events(3))]].concat(), Rule::Travel);
    accepted(&[&told[..], &[given(4, events(4)), dry(4)]].concat());
    refused(&[&told[..], &[dry(4)]].concat(), Rule::Late);
}

/// Progress that nobody asked for, or that was asked for and did not come.
#[test]
fn asked_progress() {
    refused(&[watch(Start::Now), progress(1)], Rule::Asked);
    refused(
        &[watch(Start::Now), ask(Some(7)), progress(1), progress(1)],
        Rule::Asked,
    );
    refused(&[watch(Start::Now), ask(Some(7)), dry(1)], Rule::Asked);
    refused(&[watch(Start::Now), ask(None), dry(1)], Rule::Asked);
    // Who waits for the future is not told before, and then it is.
    let ahead = [watch(Start::At(3)), ask(Some(7)), ask(None), dry(1)];
    accepted(&ahead);
    let drops = Asked {
        drops: Drops::Puts,
        ..asked(Start::At(3))
    };
    let behind = [
        watch_of(drops, 1, 0),
        ask(Some(7)),
        dry(1),
        Visible(3),
        dry(3),
    ];
    refused(&behind, Rule::Asked);
}

/// Progress of all while one is behind, or waits for the future.
#[test]
fn all() {
    let of_all = |revision| given_at(10, -1, revision, Update::Progress);
    refused(
        &[watch(Start::At(2)), Visible(5), ask(None), of_all(5)],
        Rule::All,
    );
    refused(
        &[watch(Start::At(9)), Visible(5), ask(None), of_all(5)],
        Rule::All,
    );
    refused(&[watch(Start::Now), of_all(1)], Rule::Asked);
}

/// A batch of two revisions that is larger than was asked for; one revision is as large as it is.
#[test]
fn bounded() {
    let small = |start| Asked {
        bytes_max: 3,
        ..asked(start)
    };
    let two = given(3, [events(2), events(3)].concat());
    refused(
        &[watch_of(small(Start::At(2)), 1, 0), Visible(5), two],
        Rule::Bounded,
    );
    accepted(&[
        watch_of(small(Start::At(3)), 1, 0),
        Visible(5),
        given(3, events(3)),
    ]);
}

/// A waker that is not called.
#[test]
fn wake() {
    refused(
        &[
            watch(Start::At(2)),
            Visible(5),
            Moment::Unwoken { stream: 1 },
        ],
        Rule::Wake,
    );
}

/// Ids that nobody has, failures, batches of nothing.
#[test]
fn known() {
    let stranger = given_at(10, 8, 2, Update::Events(events(2)));
    refused(&[watch(Start::At(2)), Visible(5), stranger], Rule::Known);
    let failed = given_at(10, 7, 2, Update::Failed("damage".to_owned()));
    refused(&[watch(Start::At(2)), Visible(5), failed], Rule::Known);
    refused(
        &[watch(Start::At(2)), Visible(5), given(2, vec![])],
        Rule::Known,
    );
}

/// Read at the compact revision, only what survives of it is there: the newest put of a key, and all deletes.
#[test]
fn what_survives() {
    let mut content = Content::default();
    content.commit(&[
        put("a", "1"),
        put("a", "2"),
        put("b", "1"),
        Op::Delete(Keys::One("b".to_owned())),
    ]);
    let event = |sub, key: &str, put: Option<Kv>, prev| Event {
        rev: 2,
        sub,
        key: key.to_owned(),
        is_create: put.is_some(),
        put,
        prev,
    };
    let newest = event(1, "a", Some(kv("2", 2, 2, 2)), Prev::None);
    let ended = event(3, "b", None, Prev::Compacted);
    let history = |events| History {
        contents: vec![content.clone()],
        moments: vec![
            Visible(2),
            Compact(2),
            watch_of(asked(Start::At(2)), 2, 2),
            given(2, events),
            dry(2),
        ],
    };
    assert!(check(&history(vec![newest.clone(), ended])).is_ok());
    assert_eq!(
        check(&history(vec![newest])).unwrap_err().rule,
        Rule::Atomic
    );
}
