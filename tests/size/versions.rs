//! What one answer costs when a key has very many revisions.

use std::time::Duration;

use revtree::storage::{heads_read, tree_pages_read};
use revtree::{Db, Durability, Options, Revision};

/// One key with so many revisions, and another with one.
fn fill(db: &Db, revisions: u64) {
    for n in 0..revisions {
        db.put("hot", n.to_be_bytes()).unwrap();
    }
    db.put("cold", "once").unwrap();
    db.sync().unwrap();
}

fn options() -> Options {
    let durability = Durability::Batched {
        changes: 10_000,
        interval: Duration::from_millis(100),
    };
    let options = Options::new().durability(durability);
    options.checkpoint_bytes(4 << 20)
}

/// Reads at old revisions, the worst found.
fn worst_read(db: &Db, revisions: u64) -> u64 {
    let mut worst = 0;
    let every = (revisions / 5000).max(1) | 1;
    let near_the_end = revisions.saturating_sub(2000)..revisions;
    for n in (0..revisions)
        .step_by(usize::try_from(every).unwrap())
        .chain(near_the_end)
    {
        let view = db.read_at(n + 2).unwrap();
        let before = heads_read(db);
        let record = view.get("hot").unwrap().unwrap();
        worst = worst.max(heads_read(db) - before);
        assert_eq!(record.value(), n.to_be_bytes());
        assert_eq!(record.version(), n + 1);
    }
    worst
}

/// Tree pages and heads read before the first of the changes from a revision on, the worst found.
fn worst_begin_of_changes(db: &Db, revisions: u64) -> (u64, u64) {
    let view = db.read().unwrap();
    let mut pages_most = 0;
    let mut heads_most = 0;
    for part in 0..=8 {
        let from = 2 + (revisions - 1) * part / 8;
        let (pages, heads) = (tree_pages_read(db), heads_read(db));
        let mut events = view.changes(.., Revision::new(from)..=view.rev()).unwrap();
        let event = events.next().unwrap().unwrap();
        assert_eq!(event.id.main.get(), from);
        pages_most = pages_most.max(tree_pages_read(db) - pages);
        heads_most = heads_most.max(heads_read(db) - heads);
    }
    (pages_most, heads_most)
}

fn check(db: &Db, revisions: u64) {
    let worst = worst_read(db, revisions);
    let (pages_most, heads_most) = worst_begin_of_changes(db, revisions);
    eprintln!(
        "{revisions} revisions of one key: at most {worst} heads for a read, {pages_most} tree pages and {heads_most} heads before the first change"
    );
    assert!(worst <= 120, "{worst} heads");
    // One page a level; a level holds at least tens of the one below.
    assert!(pages_most <= 8, "{pages_most} pages");
    // The records of one leaf before the first that is wanted.
    assert!(heads_most <= 16384 / 64, "{heads_most} heads");
}

fn run(revisions: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = options().open(&path).unwrap();
    fill(&db, revisions);
    assert!(db.stats().checkpoints > 0);
    check(&db, revisions);
    db.close().unwrap();
    // The same from the file, where all leaves are under pages.
    let db = options().open(&path).unwrap();
    assert!(db.recovery().clean);
    check(&db, revisions);
    let report = db.check().unwrap();
    eprintln!(
        "check: {} superblocks, {} pages, {} leaves, {} records",
        report.superblocks, report.pages, report.leaves, report.records
    );
    assert!(report.is_clean(), "{:?}", report.damage);
    assert_eq!(report.records, revisions + 1);
    assert_eq!(report.superblocks, 4);
    // It came by every leaf through pages.
    assert!(report.pages > 2);
}

/// A read at any revision of a key reads few heads, and changes are found through few pages.
#[test]
fn a_read_among_many_revisions_reads_few_heads() {
    run(300_000);
}

#[test]
#[ignore = "minutes: `cargo xtask long` runs it"]
fn a_read_among_ten_million_revisions_reads_few_heads() {
    run(10_000_000);
}

/// Changes from the middle of a million revisions begin after a page for each level of the tree, and one leaf.
#[test]
fn changes_from_the_middle_read_few_pages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut db = options().open(&path).unwrap();
    let mut revisions = 0u64;
    for (wanted, levels) in [(10_000, 1), (100_000, 2), (1_000_000, 2)] {
        for n in revisions..wanted {
            db.put((n % 1000).to_be_bytes(), n.to_be_bytes()).unwrap();
        }
        revisions = wanted;
        for reopened in [false, true] {
            if reopened {
                // Now all leaves are under pages.
                db.close().unwrap();
                db = options().open(&path).unwrap();
            }
            let (pages, heads) = worst_begin_of_changes(&db, revisions);
            eprintln!("{revisions} revisions, reopened: {reopened}: {pages} pages, {heads} heads");
            // One more where the leaf that may hold the first of them is the last of its page.
            assert!(pages <= levels + 1, "{pages} pages, {levels} levels");
            assert!(pages > 0 || !reopened, "the tree is not used");
            // The records of one leaf, and the one that is wanted.
            assert!(heads <= 16384 / 64 + 1, "{heads} heads");
        }
    }
}

/// The first records of a transaction's range cost what they do in a view, however many there are.
#[test]
fn a_transactions_range_is_read_as_it_is_asked_for() {
    let db = Options::new().open_in_memory().unwrap();
    let mut txn = db.write().unwrap();
    for n in 0..10_000u32 {
        txn.put(format!("k{n:05}"), "1").unwrap();
    }
    txn.commit().unwrap();
    let mut txn = db.write().unwrap();
    txn.put("k00001", "2").unwrap();
    for range in [txn.range(..), txn.range(..).reverse()] {
        let before = heads_read(&db);
        assert_eq!(range.iter().take(10).filter(Result::is_ok).count(), 10);
        let heads = heads_read(&db) - before;
        assert!(heads < 1000, "{heads} heads for ten records");
    }
}
