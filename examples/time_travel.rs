//! Reading the past: one key's history, the whole store at a revision, and what changed between.

use revtree::{Db, Error, EventKind, Options, Outcome, Result, Revision};

fn main() -> Result<()> {
    let db = Options::new().open_in_memory()?;
    for (key, value) in [
        ("config", "a"),
        ("kiwi", "1"),
        ("config", "b"),
        ("lime", "2"),
    ] {
        db.put(key, value)?;
    }
    db.delete("kiwi")?;
    db.put("config", "c")?;

    look_back(&db)?;

    // A view that is held stays exact when history is compacted under it; new ones are refused.
    let held = db.read_at(5)?;
    assert_eq!(db.compact(6)?.wait(), Outcome::Done);
    assert_eq!(held.range(..).count()?, 3);
    assert!(matches!(
        db.read_at(5),
        Err(Error::Compacted { requested, compacted })
            if (requested, compacted) == (Revision::new(5), Revision::new(6))
    ));
    look_back(&db)
}

/// Prints the history of `config`, the store at revision 5, and the newest changes of some keys.
fn look_back(db: &Db) -> Result<()> {
    let now = db.read()?;
    for event in now.history("config")? {
        let event = event?;
        println!("{} {:?} {:?}", event.id.main, event.kind, event.kv.value);
        assert_eq!(event.kind, EventKind::Put);
    }
    match db.read_at(5) {
        Ok(then) => {
            let (before, after) = (then.range(..).count()?, now.range(..).count()?);
            println!("{before} keys at 5, {after} now");
            assert_eq!((before, after), (3, 2));
        }
        Err(Error::Compacted { compacted, .. }) => println!("history starts at {compacted}"),
        Err(other) => return Err(other),
    }
    let changed = now.changes("a".."m", Revision::new(6)..=now.rev())?;
    let newest: Vec<_> = changed.rev().take(10).collect::<Result<_>>()?;
    for event in &newest {
        println!("{} {:?} {:?}", event.id.main, event.kind, event.kv.key);
    }
    assert_eq!(newest.len(), 2, "the deletion of kiwi and the last config");
    Ok(())
}
