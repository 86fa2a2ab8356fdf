//! A state machine under Raft: each entry of the log once, the membership in the same commit,
//! a snapshot for a follower that is behind.

use std::path::Path;

use revtree::{Applied, Db, Result, Snapshot, Submitted};

/// An entry of the log.
enum Entry {
    Put(&'static str, &'static str),
    Members(&'static [u8]),
    Blank,
}

/// Applies an entry; `None` when it had been applied before the crash.
fn apply(db: &Db, index: u64, term: u64, entry: &Entry) -> Result<Option<Submitted>> {
    let Some(mut txn) = db.write_at_index(index)? else {
        return Ok(None);
    };
    txn.set_applied(Applied { index, term });
    match entry {
        Entry::Put(key, value) => {
            txn.put(key, value)?;
        }
        // A side table makes no revision, but it and the index are saved.
        Entry::Members(json) => txn.table("raft")?.put(b"membership", json)?,
        Entry::Blank => {}
    }
    // Awaited when the client wants its answer: many entries share one sync.
    txn.submit().map(Some)
}

/// Takes no time, stops nobody; it is sent with `read_at`, in chunks.
fn build_snapshot(db: &Db) -> Result<Snapshot> {
    db.snapshot()
}

/// Puts a received snapshot in place of what the follower has.
fn install(db: &Db, received: &Path) -> Result<Applied> {
    db.restore(received)?;
    Ok(db.consistent_index())
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let log = [
        Entry::Blank,
        Entry::Members(br#"["a","b","c"]"#),
        Entry::Put("/jobs/1", "queued"),
        Entry::Put("/jobs/1", "running"),
    ];
    let (path, term) = (folder.path().join("leader.rvt"), 3);
    let leader = Db::open(&path)?;
    let mut submitted = Vec::new();
    for (index, entry) in (1..).zip(&log) {
        submitted.extend(apply(&leader, index, term, entry)?);
    }
    for answer in submitted {
        answer.wait()?;
    }
    assert_eq!(leader.consistent_index(), Applied { index: 4, term });
    assert_eq!(
        leader.rev().get(),
        3,
        "two puts; the other entries made no revision"
    );

    // After a restart the log is replayed from the beginning: nothing is applied twice.
    leader.close()?;
    let leader = Db::open(&path)?;
    for (index, entry) in (1..).zip(&log) {
        assert!(apply(&leader, index, term, entry)?.is_none());
    }
    let job = leader.get("/jobs/1")?.expect("it was put");
    assert_eq!((&job.value[..], job.version), (&b"running"[..], 2));

    // A follower takes the leader's snapshot, chunk by chunk.
    let snapshot = build_snapshot(&leader)?;
    let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let n = snapshot.read_at(&mut chunk, received.len() as u64)?;
        if n == 0 {
            break;
        }
        received.extend_from_slice(&chunk[..n]);
    }
    assert_eq!(received.len() as u64, snapshot.len());
    let file = folder.path().join("received");
    std::fs::write(&file, &received)?;
    let follower = Db::open(folder.path().join("follower.rvt"))?;
    let applied = install(&follower, &file)?;
    assert_eq!(applied, Applied { index: 4, term });
    let members = follower.read()?.table("raft").get(b"membership")?;
    assert_eq!(members.as_deref(), Some(&br#"["a","b","c"]"#[..]));
    println!(
        "follower at entry {}, revision {}",
        applied.index,
        follower.rev()
    );
    Ok(())
}
