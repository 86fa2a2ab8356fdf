//! A controller: lists what there is, watches from there on, goes on after a restart where it was, and lists
//! again when the history that it needs is gone.

use std::collections::BTreeMap;

use revtree::{Db, Event, EventKind, KeyRange, Result, Revision, Start, Update};

const PODS: &str = "/pods/";

/// What the controller knows of the world, and up to where.
#[derive(Default)]
struct Controller {
    pods: BTreeMap<String, String>,
    /// Saved with what was done of it; `None`: list first.
    seen: Option<Revision>,
    lists: u64,
    events: u64,
}

impl Controller {
    /// Follows the pods until everything up to `until` has been worked on.
    fn run(&mut self, db: &Db, until: Revision) -> Result<()> {
        loop {
            let seen = match self.seen {
                Some(seen) => seen,
                None => self.list(db)?,
            };
            if seen >= until {
                return Ok(());
            }
            let mut stream = db.watch(KeyRange::prefix(PODS), Start::After(seen))?;
            // The last revision may be of another key: it is answered when there is nothing more of ours.
            stream.request_progress_all()?;
            while self.seen < Some(until) {
                let response = stream.recv()?;
                match response.update {
                    Update::Events(events) => events.iter().for_each(|event| self.apply(event)),
                    Update::Progress => {}
                    Update::Compacted { compact_revision } => {
                        println!("everything below {compact_revision} is gone: list again");
                        self.seen = None;
                        break;
                    }
                    Update::Failed(error) => return Err(error),
                    _ => continue,
                }
                self.seen = Some(response.revision);
            }
        }
    }

    /// One revision, exactly: what the watcher begins behind.
    fn list(&mut self, db: &Db) -> Result<Revision> {
        let view = db.read()?;
        self.pods.clear();
        for record in view.range(KeyRange::prefix(PODS)) {
            let record = record?;
            self.pods.insert(text(record.key()), text(record.value()));
        }
        self.lists += 1;
        self.seen = Some(view.rev());
        Ok(view.rev())
    }

    fn apply(&mut self, event: &Event) {
        self.events += 1;
        let key = text(&event.kv.key);
        match event.kind {
            EventKind::Put => self.pods.insert(key, text(&event.kv.value)),
            EventKind::Delete => self.pods.remove(&key),
        };
    }

    fn assert_knows(&self, db: &Db) -> Result<()> {
        let mut fresh = Controller::default();
        fresh.list(db)?;
        assert_eq!(self.pods, fresh.pods);
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (store, saved) = (folder.path().join("store"), folder.path().join("seen"));

    // The first run finds two pods, and sees one come and one go.
    let db = Db::open(&store)?;
    db.put("/pods/a", "running")?;
    db.put("/pods/b", "pending")?;
    let mut controller = Controller::default();
    let rev = db.rev();
    controller.run(&db, rev)?;
    db.put("/pods/c", "pending")?;
    let rev = db.delete("/pods/b")?.revision;
    controller.run(&db, rev)?;
    assert_eq!((controller.lists, controller.events), (1, 2));
    controller.assert_knows(&db)?;
    println!("revision {rev}: {:?}", controller.pods);
    let seen = controller.seen.expect("it has run");
    std::fs::write(&saved, seen.get().to_string())?;
    db.close()?;

    // After a restart it goes on behind the revision that it has saved: what happened meanwhile is not lost,
    // and nothing comes twice.
    let db = Db::open(&store)?;
    db.put("/pods/a", "stopped")?;
    let rev = db.put("/nodes/1", "up")?;
    controller.seen = Some(std::fs::read_to_string(&saved)?.parse::<u64>()?.into());
    controller.run(&db, rev)?;
    assert_eq!((controller.lists, controller.events), (1, 3));
    controller.assert_knows(&db)?;
    println!("revision {rev}: {:?}", controller.pods);

    // While it was away for long, the history that it needs was given up.
    for n in 0..100 {
        db.put("/pods/d", format!("attempt {n}"))?;
    }
    let rev = db.delete("/pods/a")?.revision;
    db.compact(rev)?;
    controller.run(&db, rev)?;
    assert_eq!((controller.lists, controller.events), (2, 3));
    controller.assert_knows(&db)?;
    println!("revision {rev}: {:?}", controller.pods);
    assert_eq!(controller.pods.len(), 2);
    Ok(())
}
