//! Watching on smol: many watchers of one stream, added and ended while a task receives.

use std::collections::BTreeMap;

use revtree::{KeyRange, Options, Start, Update, WatchControl, WatchId, WatchResponse};
use smol::stream::StreamExt;

/// Adds up the events of each watcher, until the stream ends.
async fn count(mut stream: revtree::WatchStream) -> BTreeMap<WatchId, usize> {
    let mut counts = BTreeMap::new();
    while let Some(WatchResponse { id, update, .. }) = stream.next().await {
        match update {
            Update::Events(events) => *counts.entry(id).or_default() += events.len(),
            // Everybody has been given everything: the receiver says when it has seen enough.
            Update::Progress if id == WatchId::ALL => break,
            _ => {}
        }
    }
    counts
}

/// A room's messages, for who has just come in: from the beginning.
fn join(control: &WatchControl, room: &str) -> revtree::Result<WatchId> {
    control.watch(KeyRange::prefix(format!("room/{room}/")), Start::Oldest)
}

fn main() -> anyhow::Result<()> {
    let db = Options::new().open_in_memory()?;
    let stream = db.watch_stream()?;
    let control = stream.control();
    let counting = smol::spawn(count(stream));

    let say = |room: &str, n: usize| db.put(format!("room/{room}/{n}"), "hello");
    let red = join(&control, "red")?;
    for n in 0..10 {
        say("red", n)?;
        say("blue", n)?;
    }
    let (blue, left) = (join(&control, "blue")?, join(&control, "red")?);
    control.cancel(left)?;
    for n in 10..15 {
        say("red", n)?;
        say("blue", n)?;
    }
    let all = control.watch(KeyRange::prefix("room/"), Start::Oldest)?;
    control.request_progress_all()?;
    let mut counts = smol::block_on(counting);
    // Who has left may have been given something before, and nothing since.
    counts.remove(&left);
    println!(
        "red {}, blue {}, all {}",
        counts[&red], counts[&blue], counts[&all]
    );
    assert_eq!(counts, BTreeMap::from([(red, 15), (blue, 15), (all, 30)]));
    Ok(())
}
