//! How items look to programs: an object each, with a field `item` that names its kind. Numbers are
//! JSON numbers, bytes are base64.

use revtree_format::{ChangeId, Link, Root, Superblock};
use serde_json::{Map, Value, json};

use crate::bytes::base64;
use crate::item::{Blob, ControlItem, FrameItem, IndexLeafItem, Item, RecordItem, SegmentItem};
use crate::text::{kind_name, record_kind, state_name};
use crate::walk::Summary;

impl Item {
    /// The item as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (name, fields) = match self {
            Item::Part(part) => ("part", json!({ "part": part.to_string() })),
            Item::Slot(slot) => {
                let mut fields = match &slot.superblock {
                    Ok(superblock) => superblock_json(superblock),
                    Err(damage) => json!({ "damage": damage.to_json() }),
                };
                fields["slot"] = slot.slot.into();
                fields["offset"] = slot.offset.into();
                fields["newest"] = slot.newest.into();
                ("superblock", fields)
            }
            Item::Segment(segment) => ("segment", segment_json(segment)),
            Item::Page(page) => (
                "page",
                json!({
                    "position": page.position.0, "segment_use": page.segment_use,
                    "level": page.level, "generation": page.generation, "entries": page.entries,
                    "first": id_json(page.first), "records": page.records,
                }),
            ),
            Item::Leaf(leaf) => (
                "leaf",
                json!({
                    "position": leaf.position.0, "segment_use": leaf.segment_use,
                    "bytes": leaf.len, "records": leaf.records, "first": id_json(leaf.first),
                }),
            ),
            Item::Blob(blob) => ("directory", blob_json(blob)),
            Item::IndexLeaf(leaf) => ("index_leaf", index_leaf_json(leaf)),
            Item::Frame(frame) => ("frame", frame_json(frame)),
            Item::Record(record) => ("record", record_json(record)),
            Item::Control(control) => ("control", control_json(control)),
            Item::LogEnd(end) => (
                "log_end",
                json!({
                    "position": end.position.0, "sequence": end.sequence,
                    "segment_use": end.segment_use, "frames": end.frames,
                    "reason": end.reason.to_json(),
                }),
            ),
            Item::Damage(damage) => ("damage", damage.to_json()),
        };
        let mut object = Map::new();
        object.insert("item".to_owned(), name.into());
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        Value::Object(object)
    }
}

impl Summary {
    /// The counts as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "item": "summary", "log_frames": self.log_frames, "log_records": self.log_records,
            "pages": self.pages, "leaves": self.leaves, "tree_records": self.tree_records,
            "damage": self.damage,
        })
    }
}

fn id_json(id: ChangeId) -> Value {
    json!({ "main": id.main.get(), "sub": id.sub })
}

fn superblock_json(superblock: &Superblock) -> Value {
    let head = superblock.head;
    let store_id: String = superblock
        .store_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let compact = superblock
        .compact_revision
        .map_or(json!(-1), |rev| rev.get().into());
    let roots = superblock.roots.iter().map(root_json);
    json!({
        "store_id": store_id, "generation": superblock.generation,
        "edition": superblock.edition, "opens": superblock.opens,
        "segment_bytes": superblock.segment_bytes, "revision": superblock.revision.get(),
        "compact_revision": compact, "applied_index": superblock.applied_index,
        "applied_term": superblock.applied_term, "records": superblock.records,
        "segment_count": superblock.segment_count,
        "log_head": {
            "position": head.position.0, "sequence": head.sequence, "segment": head.segment,
            "segment_use": head.segment_use, "prev_crc": head.prev_crc,
        },
        "roots": roots.collect::<Vec<_>>(),
    })
}

fn root_json(root: &Root) -> Value {
    json!({
        "kind": kind_name(root.kind), "critical": root.critical, "levels": root.levels,
        "detail": root.detail, "position": root.page.position.0,
        "segment_use": root.page.segment_use, "body_bytes": root.page.body_len,
        "body_crc": root.page.body_crc,
    })
}

fn segment_json(segment: &SegmentItem) -> Value {
    let mut fields = json!({ "index": segment.index, "start": segment.start.0 });
    if let Some(entry) = segment.entry {
        fields["table"] = json!({
            "state": state_name(entry.state), "segment_use": entry.segment_use,
            "units": entry.units, "dead_65535ths": entry.dead,
        });
    }
    match segment.header {
        None => {}
        Some(Err(damage)) => fields["damage"] = damage.to_json(),
        Some(Ok(header)) => {
            fields["header"] = json!({
                "segment_use": header.segment_use, "units": header.units,
                "first_sequence": header.first_sequence,
            });
        }
    }
    fields
}

fn blob_json(blob: &Blob) -> Value {
    let chunks = blob.chunks.iter();
    let chunks = chunks.map(|(at, len)| json!({ "position": at.0, "body_bytes": len }));
    json!({
        "kind": blob.kind.map(kind_name), "position": blob.position.0, "items": blob.items,
        "chunks": chunks.collect::<Vec<_>>(),
    })
}

fn index_leaf_json(leaf: &IndexLeafItem) -> Value {
    let keys = leaf.keys.iter().map(|key| {
        json!({
            "chunk": base64(&key.chunk), "hash": key.hash, "live": key.live,
            "position": key.position.0,
        })
    });
    json!({
        "position": leaf.position.0, "separator": base64(&leaf.separator),
        "prefix": base64(&leaf.prefix), "count": leaf.count, "live": leaf.live,
        "keys": keys.collect::<Vec<_>>(),
    })
}

fn frame_json(frame: &FrameItem) -> Value {
    let header = &frame.header;
    json!({
        "position": frame.position.0, "segment_use": frame.segment_use,
        "kind": format!("{:?}", header.kind).to_lowercase(), "sequence": header.sequence,
        "synced_up_to": header.synced_up_to, "revision": header.revision.get(),
        "opens": header.opens, "body_bytes": header.body_len,
        "records_bytes": header.records_len, "records": header.record_count,
        "header_crc": frame.header_crc, "prev_crc": header.prev_crc, "body_crc": header.body_crc,
        "padded": header.flags.padded, "continued": header.flags.continued,
        "last_in_segment": header.flags.last_in_segment, "linked": frame.linked,
    })
}

fn record_json(record: &RecordItem) -> Value {
    let head = &record.head;
    let link = |link: Option<Link>| {
        link.map(|link| json!({ "id": id_json(link.id), "hint": link.hint.0 }))
    };
    let mut fields = json!({
        "position": record.position.0, "kind": record_kind(head.kind), "id": id_json(head.id),
        "key": base64(&record.key), "value_bytes": head.value_len,
        "create_revision": head.create.get(), "version": head.version, "lease": head.lease.0,
        "ordinal": head.ordinal, "previous": link(head.prev), "skip": link(head.skip),
        "bytes": record.len,
    });
    if let Some(value) = &record.value {
        fields["value"] = base64(value).into();
    }
    fields
}

fn control_json(control: &ControlItem) -> Value {
    match control {
        ControlItem::Applied { index, term } => {
            json!({ "kind": "applied", "index": index, "term": term })
        }
        ControlItem::TablePut {
            table,
            key,
            value,
            value_len,
        } => {
            let mut fields = json!({
                "kind": "table_put", "table": table, "key": base64(key), "value_bytes": value_len,
            });
            if let Some(value) = value {
                fields["value"] = base64(value).into();
            }
            fields
        }
        ControlItem::TableDelete { table, key } => {
            json!({ "kind": "table_delete", "table": table, "key": base64(key) })
        }
        ControlItem::TableCreate { table } => json!({ "kind": "table_create", "table": table }),
        ControlItem::Compact { revision } => json!({ "kind": "compact", "revision": revision }),
        ControlItem::NextSegment {
            index,
            units,
            segment_use,
        } => json!({
            "kind": "next_segment", "index": index, "units": units, "segment_use": segment_use,
        }),
    }
}
