//! A transaction that may abort: any `?` before `commit` leaves no trace.

use revtree::{Db, KeyRange, Options, Record, Revision};

/// Moves `n` from one account to another, and clears what lies in `/tmp/` on the way.
fn transfer(db: &Db, from: &str, to: &str, n: u64) -> anyhow::Result<Revision> {
    let mut txn = db.write()?;
    let (a, b) = (number(txn.get(from)?)?, number(txn.get(to)?)?);
    anyhow::ensure!(a >= n, "{from} has only {a}");
    txn.put(from, (a - n).to_string())?;
    txn.put(to, (b + n).to_string())?;
    // The state at begin can be walked while the transaction writes.
    for old in txn.base().range(KeyRange::prefix("/tmp/")) {
        txn.delete(old?.key())?;
    }
    Ok(txn.commit()?.revision)
}

/// The number in a record; 0 where there is none.
fn number(record: Option<Record<'_>>) -> anyhow::Result<u64> {
    match record {
        Some(record) => Ok(std::str::from_utf8(record.value())?.parse()?),
        None => Ok(0),
    }
}

fn main() -> anyhow::Result<()> {
    let db = Options::new().open_in_memory()?;
    db.put("alice", "100")?;
    db.put("/tmp/note", "x")?;

    let revision = transfer(&db, "alice", "bob", 30)?;
    let view = db.read()?;
    assert_eq!(view.rev(), revision);
    assert_eq!(number(view.get("alice")?)?, 70);
    assert_eq!(number(view.get("bob")?)?, 30);
    assert!(view.get("/tmp/note")?.is_none());

    let refused = transfer(&db, "bob", "alice", 31).expect_err("bob has only 30");
    assert_eq!(refused.to_string(), "bob has only 30");
    assert_eq!(db.rev(), revision, "an abort makes no revision");
    assert_eq!(number(db.read()?.get("bob")?)?, 30);
    println!("alice 70, bob 30, at revision {revision}; then: {refused}");
    Ok(())
}
