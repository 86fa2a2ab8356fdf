//! The feature `tracing`: what an operator is told, and that gets and puts tell nothing.

use std::fmt::{Debug, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use revtree::{Db, Options};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes a line for each span and event, `LEVEL spans: text field=value`.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    /// Names of all spans; an id is a place here, from 1.
    spans: Vec<&'static str>,
    entered: Vec<&'static str>,
}

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().lines)
    }

    /// Whether a line begins so and has this in it.
    fn told(&self, begins: &str, has: &str) -> bool {
        let lines = &self.0.lock().unwrap().lines;
        let found = lines
            .iter()
            .any(|line| line.starts_with(begins) && line.contains(has));
        if !found {
            println!("not told: {begins} {has} in {lines:#?}");
        }
        found
    }

    fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(self.clone(), call)
    }
}

/// Text first, then fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("revtree::")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut text = Text::default();
        attributes.record(&mut text);
        let mut kept = self.0.lock().unwrap();
        let name = attributes.metadata().name();
        kept.spans.push(name);
        kept.lines.push(format!("span {name}{}", text.fields));
        Id::from_u64(kept.spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut kept = self.0.lock().unwrap();
        let (level, spans) = (event.metadata().level(), kept.entered.join("/"));
        let line = format!("{level} {spans}: {}{}", text.message, text.fields);
        kept.lines.push(line);
    }

    fn enter(&self, id: &Id) {
        let mut kept = self.0.lock().unwrap();
        let place = usize::try_from(id.into_u64()).unwrap() - 1;
        let name = kept.spans[place];
        kept.entered.push(name);
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }
}

/// A store with some puts, left without a close: a copy of its file.
fn unclean_copy(dir: &Path) -> std::path::PathBuf {
    let db = Db::open(dir.join("store")).unwrap();
    for n in 0..5 {
        db.put("a", n.to_string()).unwrap();
    }
    let copy = dir.join("copy");
    std::fs::copy(dir.join("store"), &copy).unwrap();
    copy
}

#[test]
fn an_open_and_a_close_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let lines = Lines::default();
    lines.run(|| {
        let db = Db::open(dir.path().join("store")).unwrap();
        assert!(lines.told("span open", "read_only=false"));
        assert!(lines.told("span open", "store read_only"), "the path");
        assert!(lines.told(
            "INFO open: store opened",
            "revision=1 clean=true created=true"
        ));
        db.put("a", "1").unwrap();
        lines.take();
        db.close().unwrap();
        assert!(lines.told("span close", "path="));
        assert!(lines.told("span checkpoint", "with_index=true"));
        assert!(lines.told("DEBUG close/checkpoint: checkpoint written", "revision=2"));
        assert!(lines.told("INFO close: store closed", "revision=2"));
        lines.take();
        drop(Db::open(dir.path().join("store")).unwrap());
        assert!(lines.told("DEBUG open: index loaded", "keys=1"));
        assert!(lines.told("INFO open: store opened", "clean=true created=false"));
        let warns = |line: &String| line.starts_with("WARN");
        assert!(!lines.0.lock().unwrap().lines.iter().any(warns));
        assert!(lines.told("INFO close: store closed", ""), "by dropping");
    });
}

#[test]
fn a_recovery_says_what_was_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let copy = unclean_copy(dir.path());
    let lines = Lines::default();
    let db = lines.run(|| Db::open(&copy).unwrap());
    let recovery = db.recovery();
    assert!(!recovery.clean && recovery.frames_replayed > 0);
    let frames = format!("frames={} bytes_dropped=0", recovery.frames_replayed);
    assert!(lines.told("WARN open: log replayed", &frames));
    assert!(lines.told("DEBUG open: index built", "records=5"));
    assert!(lines.told("INFO open: store opened", "revision=6 clean=false"));
    assert!(!lines.take().iter().any(|line| line.contains("damaged")));
    drop(db);
    // One of the four slots of the superblock is damaged.
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let db = lines.run(|| Db::open(&copy).unwrap());
    assert_eq!(db.recovery().superblocks_bad, 1);
    assert!(lines.told("WARN open: superblocks damaged", "bad=1"));
}

#[test]
fn gets_and_puts_tell_nothing() {
    let db = Options::new().open_in_memory().unwrap();
    let lines = Lines::default();
    lines.run(|| {
        db.put("a", "1").unwrap();
        db.get("a").unwrap().unwrap();
        let mut txn = db.write().unwrap();
        txn.put("b", "1").unwrap();
        txn.delete("a").unwrap();
        txn.commit().unwrap();
        let view = db.read().unwrap();
        view.get("b").unwrap().unwrap();
        view.range(..).collect().unwrap();
        view.history("a").unwrap().count();
        db.sync().unwrap();
    });
    assert_eq!(lines.take(), Vec::<String>::new());
}

#[test]
fn compaction_save_and_restore_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path().join("store")).unwrap();
    db.put("a", "1").unwrap();
    let lines = Lines::default();
    lines.run(|| {
        db.compact(2).unwrap();
        db.compact(2).unwrap_err();
        db.snapshot()
            .unwrap()
            .save(dir.path().join("saved"))
            .unwrap();
        db.put("a", "2").unwrap();
        db.restore(dir.path().join("saved")).unwrap();
    });
    assert!(lines.told("span compact", "revision=2"));
    assert!(lines.told("INFO compact: compacted", ""));
    assert!(lines.told("span save", "saved"));
    assert!(lines.told("INFO save: snapshot saved", "revision=2"));
    assert!(lines.told("span restore", "saved"));
    assert!(lines.told("INFO restore: restored", "revision=2"));
    let told = lines.take();
    let compacted = told.iter().filter(|line| line.contains("compacted"));
    assert_eq!(compacted.count(), 1, "{told:#?}");
}

#[cfg(feature = "unstable-storage")]
#[test]
fn a_failed_sync_is_told_once() {
    use revtree::storage::sim::{Call, FaultPlan, SimDisk, SimOptions};

    let disk = SimDisk::new(SimOptions::default());
    let options = Options::new().disk(Arc::new(disk.clone()));
    let db = options.open("store").unwrap();
    db.put("a", "1").unwrap();
    disk.fail(FaultPlan::sticky(Call::SyncData, 1, 5));
    let lines = Lines::default();
    lines.run(|| {
        db.put("a", "2").unwrap_err();
        db.put("a", "3").unwrap_err();
        assert!(lines.told("ERROR : store poisoned", "cause="));
        db.close().unwrap_err();
        assert!(lines.told("WARN close: store closed with an error", "error="));
    });
    let told = lines.take();
    let poisoned = told.iter().filter(|line| line.contains("store poisoned"));
    assert_eq!(poisoned.count(), 1, "{told:#?}");
}
