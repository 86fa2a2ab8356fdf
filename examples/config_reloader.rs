//! A service that reloads its configuration when it changes: a thread that waits, and nothing that polls.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, mpsc};
use std::thread;

use revtree::{Db, EventKind, KeyRange, Options, Result, Revision, Start, Update, WatchRequest};

/// What the service reads at each request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Config {
    settings: BTreeMap<String, String>,
    /// The revision that it is of.
    revision: Revision,
}

/// Keeps `config` as the store has it, until the store is closed; says each time that it has reloaded.
fn reload(db: &Db, config: &RwLock<Config>, reloaded: &mpsc::Sender<Revision>) -> Result<()> {
    let mut stream = db.watch_stream()?;
    let control = stream.control();
    let id = control.watch_with(WatchRequest::new(
        KeyRange::prefix("config/"),
        Start::Oldest,
    ))?;
    // The answer comes behind everything that is there already: from then on the service may begin.
    control.request_progress(id)?;
    for response in &mut stream {
        let mut config = config.write().expect("nobody panics with it");
        match response.update {
            // Whole revisions: two settings that were changed in one transaction change together.
            Update::Events(events) => {
                for event in &events {
                    let key =
                        String::from_utf8_lossy(&event.kv.key["config/".len()..]).into_owned();
                    match event.kind {
                        EventKind::Put => {
                            let value = String::from_utf8_lossy(&event.kv.value).into_owned();
                            config.settings.insert(key, value);
                        }
                        EventKind::Delete => {
                            config.settings.remove(&key);
                        }
                    }
                }
            }
            Update::Progress => {}
            other => panic!("a configuration is small, nobody compacts it away: {other:?}"),
        }
        config.revision = response.revision;
        let _ = reloaded.send(response.revision);
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let db = Options::new().open_in_memory()?;
    db.put("config/log", "info")?;
    db.put("config/workers", "4")?;

    let config = Arc::new(RwLock::new(Config::default()));
    let (tell, reloaded) = mpsc::channel();
    let reloader = thread::spawn({
        let (db, config) = (db.clone(), Arc::clone(&config));
        move || reload(&db, &config, &tell)
    });
    let until = |revision: Revision| -> anyhow::Result<Config> {
        while reloaded.recv()? < revision {}
        Ok(config.read().expect("nobody panics with it").clone())
    };
    let loaded = until(db.rev())?;
    println!(
        "loaded {:?} of revision {}",
        loaded.settings, loaded.revision
    );
    assert_eq!(loaded.settings.len(), 2);

    db.put("unrelated", "x")?;
    let mut txn = db.write()?;
    txn.put("config/workers", "8")?;
    txn.put("config/queue", "64")?;
    txn.delete("config/log")?;
    let changed = txn.commit()?.revision;

    let now = until(changed)?;
    println!("reloaded {:?} of revision {}", now.settings, now.revision);
    let expected = [("queue", "64"), ("workers", "8")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(now.settings, BTreeMap::from(expected));
    assert_eq!(now.revision, changed);

    // The end of the store is the end of the iterator.
    db.close()?;
    reloader.join().expect("it does not panic")?;
    Ok(())
}
