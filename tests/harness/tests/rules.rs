//! The oracle against rules written down by hand: what the golden hashes cannot show.

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};
use revtree_harness::answer::{Applied, Committed, Deleted, Event, LeaseCall, Prev, Refusal};
use revtree_harness::model::{Begin, Finish, RangeQuery, Reader, Subject};
use revtree_harness::{Keys, Oracle};

fn rev(n: u64) -> Revision {
    Revision::new(n)
}

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn all() -> RangeQuery {
    RangeQuery {
        keys: Keys::All,
        at: None,
        limit: None,
        reverse: false,
        keys_only: false,
    }
}

fn compacted(requested: u64, by: u64) -> Refusal {
    Refusal::Compacted {
        requested: rev(requested),
        compacted: rev(by),
    }
}

fn future(requested: u64, current: u64) -> Refusal {
    Refusal::Future {
        requested: rev(requested),
        current: rev(current),
    }
}

/// Three puts, at 2, 3 and 4.
fn three() -> Oracle {
    let mut oracle = Oracle::new();
    for key in ["a", "b", "c"] {
        oracle.put(&b(key), &b("v")).unwrap();
    }
    oracle
}

/// etcd's table of revisions that can and cannot be read, after a compaction at the current one.
#[test]
fn readable_revisions() {
    let mut oracle = three();
    oracle.compact(rev(4)).unwrap();
    let mut check = |at: u64, expected: Result<u64, Refusal>| {
        let query = RangeQuery {
            at: Some(rev(at)),
            ..all()
        };
        assert_eq!(
            oracle.range(Reader::Now, &query).map(|range| range.count),
            expected
        );
    };
    check(0, Ok(3));
    check(1, Err(compacted(1, 4)));
    check(3, Err(compacted(3, 4)));
    check(4, Ok(3));
    check(5, Err(future(5, 4)));
}

/// 0 and 1 are accepted once, the same again is not, the future is not.
#[test]
fn accepted_compactions() {
    let mut oracle = three();
    let mut check = |at: u64, expected: Result<(), Refusal>| {
        assert_eq!(oracle.compact(rev(at)), expected);
    };
    check(0, Ok(()));
    check(0, Err(compacted(0, 0)));
    check(1, Ok(()));
    check(1, Err(compacted(1, 1)));
    check(5, Err(future(5, 4)));
    check(4, Ok(()));
    check(3, Err(compacted(3, 4)));
}

/// The count ignores the limit, and the limit counts in the chosen direction.
#[test]
fn limits() {
    let mut oracle = three();
    let mut check = |limit: Option<usize>, reverse: bool, expected: &str, more: bool| {
        let query = RangeQuery {
            limit,
            reverse,
            keys_only: true,
            ..all()
        };
        let range = oracle.range(Reader::Now, &query).unwrap();
        let keys: Vec<&str> = range
            .kvs
            .iter()
            .map(|kv| std::str::from_utf8(&kv.key).unwrap())
            .collect();
        assert_eq!(
            (keys.concat().as_str(), range.count, range.more),
            (expected, 3, more)
        );
        assert!(range.kvs.iter().all(|kv| kv.value.is_empty()));
    };
    check(None, false, "abc", false);
    check(Some(0), false, "", true);
    check(Some(2), false, "ab", true);
    check(Some(2), true, "cb", true);
    check(Some(3), true, "cba", false);
}

/// Revisions inside a transaction: begin until it has changes, then one more; back at begin after
/// a rollback of all of them. Deletes see earlier puts, and a put after a delete is a new life.
#[test]
fn inside_a_transaction() {
    let mut oracle = three();
    let next = RangeQuery {
        at: Some(rev(5)),
        ..all()
    };
    oracle.begin(Begin::Write).unwrap();
    oracle.txn_savepoint(0).unwrap();
    assert_eq!(oracle.range(Reader::Txn, &next), Err(future(5, 4)));
    let nothing = Deleted {
        count: 0,
        revision: rev(4),
    };
    assert_eq!(oracle.txn_delete(&b("none")), Ok(nothing));
    assert_eq!(oracle.txn_put(&b("d"), &b("1"), LeaseId::NONE), Ok(rev(5)));
    assert_eq!(oracle.range(Reader::Txn, &next).unwrap().count, 4);
    assert_eq!(
        oracle.txn_delete(&b("none")),
        Ok(Deleted {
            count: 0,
            revision: rev(5)
        })
    );
    let two = Deleted {
        count: 2,
        revision: rev(5),
    };
    assert_eq!(oracle.txn_delete_range(&Keys::AtLeast(b("c"))), Ok(two));
    oracle.txn_put(&b("c"), &b("2"), LeaseId::NONE).unwrap();
    oracle.txn_put(&b("c"), &b("3"), LeaseId::NONE).unwrap();
    let c = oracle.get(Reader::Txn, &b("c")).unwrap().unwrap();
    assert_eq!((c.create, c.modified, c.version), (rev(5), rev(5), 2));
    // Nobody else sees it.
    assert_eq!(oracle.range(Reader::Now, &all()).unwrap().count, 3);
    assert_eq!(oracle.range(Reader::Base, &next), Err(future(5, 4)));
    let ids: Vec<ChangeId> = oracle
        .txn_changes()
        .unwrap()
        .iter()
        .map(|event| event.id)
        .collect();
    assert_eq!(ids, [0, 1, 2, 3, 4].map(|sub| ChangeId::new(rev(5), sub)));
    oracle.txn_roll_back(0).unwrap();
    assert_eq!(oracle.range(Reader::Txn, &next), Err(future(5, 4)));
    assert_eq!(oracle.txn_roll_back(1), Err(Refusal::NoSuchSlot(1)));
    oracle.txn_delete(&b("b")).unwrap();
    let committed = Committed {
        revision: rev(5),
        changes: 1,
    };
    assert_eq!(oracle.finish(Finish::Commit), Ok(Some(committed)));
    assert_eq!(oracle.range(Reader::Now, &all()).unwrap().count, 2);
}

/// A transaction without changes makes no revision, but saves tables and the log position; an
/// aborted one saves nothing.
#[test]
fn commits_without_a_revision() {
    let mut oracle = three();
    let mut txn = |index: u64, finish: Finish| {
        let begun = oracle.begin(Begin::AtIndex(index)).unwrap();
        if begun {
            oracle
                .txn_table_put("raft", &b("k"), &Bytes::from(index.to_string()))
                .unwrap();
            oracle.finish(finish).unwrap();
        }
        let row = oracle.table_get(Reader::Now, "raft", &b("k")).unwrap();
        (
            begun,
            oracle.numbers().current.get(),
            oracle.numbers().applied.index,
            row,
        )
    };
    assert_eq!(txn(7, Finish::Drop), (true, 4, 0, None));
    assert_eq!(txn(7, Finish::Commit), (true, 4, 7, Some(b("7"))));
    assert_eq!(txn(7, Finish::Commit), (false, 4, 7, Some(b("7"))));
    assert_eq!(txn(8, Finish::Abort), (true, 4, 7, Some(b("7"))));
    assert_eq!(oracle.raise_index(3), Ok(Applied { index: 7, term: 0 }));
    assert_eq!(oracle.raise_index(9), Ok(Applied { index: 9, term: 0 }));
}

/// What was before each change: nothing for a creation, the state one revision earlier otherwise,
/// and at the compact revision that it is gone.
#[test]
fn previous_values() {
    let mut oracle = Oracle::new();
    oracle.put(&b("k"), &b("1")).unwrap();
    oracle.put(&b("k"), &b("2")).unwrap();
    oracle.begin(Begin::Write).unwrap();
    oracle.txn_put(&b("k"), &b("3"), LeaseId::NONE).unwrap();
    oracle.txn_delete(&b("k")).unwrap();
    oracle.txn_put(&b("k"), &b("4"), LeaseId::NONE).unwrap();
    oracle.finish(Finish::Commit).unwrap();
    let show = |events: Vec<Event>| -> Vec<String> {
        let prev = |event: &Event| match &event.prev {
            Prev::Value(kv) => String::from_utf8(kv.value.to_vec()).unwrap(),
            other => format!("{other:?}"),
        };
        events
            .iter()
            .map(|event| format!("{}<{}", event.id, prev(event)))
            .collect()
    };
    let changes = |oracle: &mut Oracle, from: u64| {
        show(
            oracle
                .changes(Reader::Now, &Keys::All, rev(from), rev(4))
                .unwrap(),
        )
    };
    let expected = ["2.0<None", "3.0<1", "4.0<2", "4.1<2", "4.2<None"];
    assert_eq!(changes(&mut oracle, 0), expected);
    oracle.compact(rev(3)).unwrap();
    assert_eq!(
        changes(&mut oracle, 3),
        ["3.0<Compacted", "4.0<2", "4.1<2", "4.2<None"]
    );
    oracle.compact(rev(4)).unwrap();
    assert_eq!(changes(&mut oracle, 4), ["4.1<Compacted", "4.2<None"]);
    assert_eq!(
        oracle.changes(Reader::Now, &Keys::All, rev(3), rev(4)),
        Err(compacted(3, 4))
    );
}

/// A held view stays what it was through a compaction, a delete and a restore.
#[test]
fn held_views() {
    let mut oracle = three();
    let facts = oracle.hold(0, Some(rev(3))).unwrap();
    assert_eq!(
        (facts.rev, facts.store_rev, facts.first_rev),
        (rev(3), rev(4), None)
    );
    let before = oracle.range(Reader::Held(0), &all()).unwrap();
    assert_eq!((before.count, before.revision), (2, rev(4)));
    oracle.snapshot(0).unwrap();
    oracle.delete_range(&Keys::All).unwrap();
    oracle.compact(rev(5)).unwrap();
    assert_eq!(
        oracle.history(Reader::Held(0), &b("a")),
        Err(compacted(3, 5))
    );
    oracle.restore(0).unwrap();
    assert_eq!(oracle.range(Reader::Held(0), &all()), Ok(before));
    assert_eq!(oracle.numbers().current, rev(4));
    assert_eq!(oracle.numbers().compact, None);
}

/// The lessor hears of changes only, in their order, at commit; and of every leased key at opening.
#[test]
fn lease_calls() {
    let mut oracle = Oracle::new();
    let (one, two) = (LeaseId(1), LeaseId(2));
    let attach = |lease, key| LeaseCall::Attach(lease, b(key));
    let detach = |lease, key| LeaseCall::Detach(lease, b(key));
    let mut txn = |steps: &[(&'static str, LeaseId)], finish: Finish| {
        oracle.begin(Begin::Write).unwrap();
        for (key, lease) in steps {
            oracle.txn_put(&b(key), &b(""), *lease).unwrap();
        }
        oracle.finish(finish).unwrap();
        oracle.lease_calls().unwrap()
    };
    assert_eq!(
        txn(&[("b", one), ("a", one)], Finish::Commit),
        [attach(one, "b"), attach(one, "a")]
    );
    assert_eq!(txn(&[("a", one)], Finish::Commit), []);
    assert_eq!(txn(&[("a", two)], Finish::Abort), []);
    assert_eq!(
        txn(&[("a", two)], Finish::Commit),
        [detach(one, "a"), attach(two, "a")]
    );
    oracle.reopen().unwrap();
    assert_eq!(
        oracle.lease_calls().unwrap(),
        [attach(two, "a"), attach(one, "b")]
    );
    oracle.delete_range(&Keys::All).unwrap();
    assert_eq!(
        oracle.lease_calls().unwrap(),
        [detach(two, "a"), detach(one, "b")]
    );
}
