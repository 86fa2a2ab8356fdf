//! Watching on tokio: a watch stream is a `Stream` as any other, and needs no thread while it waits.

use std::time::Duration;

use futures_util::StreamExt;
use revtree::{Db, Filter, KeyRange, Options, Prev, Start, Update, WatchRequest};
use tokio::sync::mpsc;

/// Sends what was and what is for each change of an order, until the store is closed.
async fn follow(db: Db, changes: mpsc::Sender<(Option<String>, String)>) -> revtree::Result<u64> {
    let mut stream = db.watch_stream()?;
    let orders = WatchRequest::new(KeyRange::prefix("order/"), Start::Oldest);
    stream.watch_with(orders.prev_kv().filter(Filter::NoDelete))?;
    // Its own handle would keep the store open.
    drop(db);
    let mut given = 0;
    while let Some(response) = stream.next().await {
        let Update::Events(events) = response.update else {
            continue;
        };
        for event in &events {
            let before = match &event.prev {
                Prev::Value(kv) => Some(text(&kv.value)),
                _ => None,
            };
            given += 1;
            if changes.send((before, text(&event.kv.value))).await.is_err() {
                return Ok(given);
            }
        }
    }
    Ok(given)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let db = Options::new().open_in_memory()?;
    db.put("order/1", "placed")?;
    let (send, mut changes) = mpsc::channel(1);
    let follower = tokio::spawn(follow(db.clone(), send));

    // A commit waits for a disk: it belongs where a task may block.
    let writer = tokio::task::spawn_blocking({
        let db = db.clone();
        move || -> revtree::Result<()> {
            db.put("order/1", "paid")?;
            db.put("order/2", "placed")?;
            db.delete("order/1")?;
            db.put("order/1", "placed")?;
            Ok(())
        }
    });
    let mut found = Vec::new();
    while found.len() < 4 {
        tokio::select! {
            change = changes.recv() => found.extend(change),
            () = tokio::time::sleep(Duration::from_secs(60)) => anyhow::bail!("nothing came"),
        }
    }
    writer.await??;
    for (before, now) in &found {
        println!("{} -> {now}", before.as_deref().unwrap_or("nothing"));
    }
    let expected = [
        (None, "placed"),
        (Some("placed"), "paid"),
        (None, "placed"),
        (None, "placed"),
    ];
    let found: Vec<_> = found
        .iter()
        .map(|(before, now)| (before.as_deref(), now.as_str()))
        .collect();
    assert_eq!(found, expected);

    db.close()?;
    assert_eq!(follower.await??, 4, "the end of the store ends the stream");
    Ok(())
}
