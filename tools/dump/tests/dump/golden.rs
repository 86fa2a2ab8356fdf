//! What is printed of the hand-made files, letter by letter. When a change of the format or of the
//! printing is meant, `REVTREE_BLESS=1` writes the files anew.

use std::fs;
use std::path::Path;

use revtree_dump::{Item, Options};

use crate::image::{checkpointed, items, log_only, text};

fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/dump")
        .join(name);
    if std::env::var_os("REVTREE_BLESS").is_some() {
        fs::write(&path, found).expect("the checkout can be written");
    }
    let expected = fs::read_to_string(&path).expect("a golden file");
    assert_eq!(found, expected, "{name}: REVTREE_BLESS=1 writes it anew");
}

/// Goal: the text of every kind of item stays as it is.
#[test]
fn the_text_is_golden() {
    let values = Options {
        values: true,
        ..Options::default()
    };
    check("log_only.txt", &text(&log_only().bytes, &values));
    let all = Options {
        all: true,
        ..Options::default()
    };
    check("checkpointed.txt", &text(&checkpointed().bytes, &all));
}

/// Goal: the JSON of every kind of item stays as it is.
#[test]
fn the_json_is_golden() {
    let options = Options {
        values: true,
        ..Options::default()
    };
    let (items, summary) = items(&checkpointed().bytes, &options);
    let mut lines: String = items.iter().map(item_line).collect();
    lines.push_str(&format!("{}\n", summary.to_json()));
    check("checkpointed.jsonl", &lines);
}

fn item_line(item: &Item) -> String {
    format!("{}\n", item.to_json())
}
