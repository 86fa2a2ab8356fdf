//! What a whole file shows, in items and in JSON.

use revtree_dump::{ControlItem, Item, Options};
use serde_json::Value;

use crate::image::{checkpointed, items, log_only};

fn keys(items: &[Item]) -> Vec<Vec<u8>> {
    let records = items.iter().filter_map(|item| match item {
        Item::Record(record) => Some(record.key.clone()),
        _ => None,
    });
    records.collect()
}

/// Goal: the log behind an empty checkpoint shows every record and control item, and no damage.
#[test]
fn a_log_shows_its_records_and_items() {
    let (items, summary) = items(&log_only().bytes, &Options::default());
    assert_eq!(
        (summary.damage, summary.log_frames, summary.log_records),
        (0, 2, 3)
    );
    assert_eq!(
        keys(&items),
        [b"colour".to_vec(), b"\xff\0".to_vec(), b"colour".to_vec()]
    );
    let controls = items.iter().filter(|item| matches!(item, Item::Control(_)));
    assert_eq!(controls.count(), 5);
    let compact = Item::Control(ControlItem::Compact { revision: 2 });
    assert!(items.contains(&compact));
    assert!(matches!(items.last(), Some(Item::LogEnd(end)) if end.sequence == 3));
}

/// Goal: a checkpoint shows its tree, tables, index and segment table, and the log is followed into
/// the next segment.
#[test]
fn a_checkpoint_shows_all_its_roots() {
    let (items, summary) = items(&checkpointed().bytes, &Options::default());
    assert_eq!(summary.damage, 0, "{items:#?}");
    assert_eq!(
        (summary.pages, summary.leaves, summary.tree_records),
        (1, 1, 2)
    );
    assert_eq!((summary.log_frames, summary.log_records), (2, 1));
    assert_eq!(keys(&items), [b"a", b"b", b"c"]);
    let index = items.iter().find_map(|item| match item {
        Item::IndexLeaf(leaf) => Some((leaf.count, leaf.live, leaf.keys.len())),
        _ => None,
    });
    assert_eq!(index, Some((2, 2, 2)));
    let blobs = items.iter().filter(|item| matches!(item, Item::Blob(_)));
    assert_eq!(blobs.count(), 3);
}

/// Goal: with `all`, frames before the log head are shown too, each segment once.
#[test]
fn all_shows_the_frames_of_every_segment() {
    let options = Options {
        all: true,
        records: false,
        values: false,
    };
    let (items, summary) = items(&checkpointed().bytes, &options);
    assert_eq!(summary.damage, 0, "{items:#?}");
    let start = items
        .iter()
        .rposition(|item| matches!(item, Item::Part(_)))
        .expect("parts");
    let frames: Vec<u64> = items[start..]
        .iter()
        .filter_map(|item| match item {
            Item::Frame(frame) => Some(frame.header.sequence),
            _ => None,
        })
        .collect();
    assert_eq!(frames, (1..=10).collect::<Vec<u64>>());
    assert!(keys(&items).is_empty(), "records were not asked for");
}

/// Goal: values are shown when asked for, and only then; JSON has bytes in base64, numbers as numbers.
#[test]
fn values_are_shown_on_demand() {
    let bytes = log_only().bytes;
    let json = |values| -> Vec<Value> {
        let options = Options {
            values,
            ..Options::default()
        };
        items(&bytes, &options)
            .0
            .iter()
            .map(Item::to_json)
            .collect()
    };
    let record = |values: Vec<Value>| {
        values
            .into_iter()
            .find(|value| value["item"] == "record")
            .expect("a record")
    };
    let shown = record(json(true));
    assert_eq!(shown["key"], "Y29sb3Vy");
    assert_eq!(shown["value"], "Ymx1ZQo=");
    assert_eq!(shown["id"]["main"], 2);
    assert_eq!(shown["lease"], 77);
    assert_eq!(record(json(false)).get("value"), None);
}

/// Goal: the golden superblock of the format is shown, where nothing else is there.
#[test]
fn the_golden_superblock_is_shown() {
    let golden = include_bytes!("../../../../format/tests/golden/superblock.bin");
    let (items, summary) = items(
        golden,
        &Options {
            records: false,
            ..Options::default()
        },
    );
    let Some(Item::Slot(slot)) = items.get(1) else {
        panic!("{items:?}");
    };
    let superblock = slot.superblock.as_ref().expect("it is golden");
    assert_eq!(
        (superblock.generation, superblock.roots.len(), slot.newest),
        (3, 4, true)
    );
    assert!(summary.damage >= 3, "the other slots are missing");
}
