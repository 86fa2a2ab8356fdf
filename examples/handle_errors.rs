//! Errors, by what one can do about them.

use revtree::{Create, Db, Error, ErrorKind, Expect, Options, Result, Revision};

/// Saves a value. It is given up only where trying again cannot help.
fn save(db: &Db, key: &str, value: &[u8]) -> Result<Revision> {
    for _ in 0..3 {
        match db.put(key, value) {
            Err(error @ Error::NoSpace { .. }) => {
                // Nothing had happened, so it can simply be tried again, with room on the disk.
                eprintln!("{error}");
                make_room();
            }
            Err(error) if error.kind() == ErrorKind::Reopen => {
                eprintln!("{error}; open again: what was acknowledged is there");
                return Err(error);
            }
            other => return other,
        }
    }
    db.put(key, value)
}

/// Here a program would remove what it can do without, or wait for whoever does.
fn make_room() {
    std::thread::yield_now();
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.rvt");

    // The caller chose: a store that must exist does not.
    let missing = Options::new().create(Create::Never).open(&path);
    println!("{}", missing.expect_err("there is no file"));

    let db = Db::open(&path)?;
    save(&db, "a", b"1")?;

    // Ask differently: a revision that has not been made yet.
    let future = db.read_at(100).expect_err("there are two revisions");
    assert_eq!(future.kind(), ErrorKind::AskDifferently);
    assert!(matches!(future, Error::FutureRevision { current, .. } if current == db.rev()));
    println!("{future}");

    // A comparison that does not hold says what is there instead.
    let txn = db.write()?;
    let conflict = txn.require("a", Expect::Missing).expect_err("a exists");
    txn.abort();
    let Error::Conflict {
        found: Some(found), ..
    } = &conflict
    else {
        anyhow::bail!("another error: {conflict}")
    };
    assert_eq!(found.value, "1");
    println!("{conflict}");

    // Later: one writer at a time has the file.
    let Err(locked) = Db::open(&path) else {
        anyhow::bail!("two writers have the file")
    };
    assert!(matches!(
        locked,
        Error::Locked {
            by_this_process: true,
            ..
        }
    ));
    println!("{locked}: {}", advice(locked.kind()));
    Ok(())
}

/// A word for logs. Kinds may be added, so there is an arm for others.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AskDifferently => "ask differently",
        ErrorKind::TryLater => "try later",
        ErrorKind::Reopen => "open again",
        ErrorKind::Restore => "restore a backup",
        ErrorKind::FixMachine => "fix the machine",
        _ => "the program is wrong",
    }
}
