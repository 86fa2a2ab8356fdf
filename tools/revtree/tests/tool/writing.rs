//! Commands that change a store.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use revtree_dump::base64;
use serde_json::json;

use crate::program::{Bench, assert_refused};

/// Goal: `put` makes the store, and each put a revision.
#[test]
fn put_makes_the_store() {
    let bench = Bench::empty();
    assert_eq!(bench.text("put", &["a", "1"]), "revision: 2\n");
    assert_eq!(
        bench.json("put", &["a", "-2", "--lease", "-5"]),
        [json!({ "revision": 3 })]
    );
    let a = bench.json("get", &["a"]).remove(0);
    assert_eq!(
        [&a["value"], &a["version"], &a["lease"]],
        [&json!(base64(b"-2")), &json!(2), &json!(-5)]
    );
}

/// Goal: keys and values of any bytes come back, through arguments, stdin and every key format.
#[test]
fn put_takes_any_bytes() {
    let bench = Bench::empty();
    let key = OsStr::from_bytes(b"\xfe\n=");
    let ran = bench.run_with_input("put", &[key, OsStr::new("-")], b"\0\xffline\n");
    assert_eq!(ran.status, 0, "{ran:?}");
    let found = bench
        .json("get", &["fe0a3d", "--key-format", "hex"])
        .remove(0);
    assert_eq!(found["key"], base64(b"\xfe\n="));
    assert_eq!(found["value"], base64(b"\0\xffline\n"));
    bench.text("put", &["", "empty key"]);
    bench.text("put", &["empty value", ""]);
    assert_eq!(bench.text("get", &[""]), "empty key\n");
    assert_eq!(bench.text("get", &["empty value"]), "\n");
}

/// Goal: `delete` removes a key, a range or a prefix in one revision; nothing found makes none.
#[test]
fn delete_removes_ranges() {
    let bench = Bench::empty();
    for key in ["a1", "a2", "b1", "c1", "c2"] {
        bench.text("put", &[key, "v"]);
    }
    let check = |arguments: &[&str], deleted: u64, revision: u64| {
        let expected = json!({ "deleted": deleted, "revision": revision });
        assert_eq!(bench.json("delete", arguments), [expected], "{arguments:?}");
    };
    check(&["none"], 0, 6);
    check(&["a1"], 1, 7);
    check(&["--prefix", "c"], 2, 8);
    check(&["a", "b1"], 1, 9);
    assert_eq!(
        bench.text("delete", &["a", ""]),
        "deleted: 1\nrevision: 10\n"
    );
    assert_eq!(bench.text("range", &[]), "");
}

/// Goal: `compact` gives up history, and reads below it are refused with both numbers.
#[test]
fn compact_gives_up_history() {
    let bench = Bench::small();
    let expected = json!({ "compact_revision": 5, "revision": 6 });
    assert_eq!(bench.json("compact", &["5"]), [expected]);
    assert_refused(
        &bench.run("get", &["colour", "--rev", "3"]),
        &["3", "5", "compacted"],
    );
    assert_refused(&bench.run("compact", &["5"]), &["5"]);
    assert_refused(&bench.run("compact", &["7"]), &["7", "6", "future"]);
    assert_eq!(
        bench.text("compact", &["6"]),
        "compact revision: 6\nrevision: 6\n"
    );
    assert_eq!(bench.json("stat", &[])[0]["compact_revision"], 6);
    assert_eq!(bench.text("get", &["size"]), "small\n");
}

/// Goal: `reclaim` gives back what a compaction has left dead, and what is live reads as before; on a store in which
/// nothing is dead it changes nothing.
#[test]
fn reclaim_gives_space_back() {
    let bench = Bench::empty();
    let value = "v".repeat(60_000);
    for n in 0..250 {
        bench.text("put", &["a", &format!("{n}{value}")]);
    }
    bench.text("compact", &["251"]);
    // What is dead is cleaned behind a compaction, and its space used again; the file is as long as it was.
    let free_bytes = bench.json("stat", &[]).remove(0)["free_bytes"].clone();
    assert!(free_bytes.as_u64() >= Some(8 << 20), "{free_bytes}");
    let reclaimed = bench.json("reclaim", &[]).remove(0);
    let number = |name: &str| reclaimed[name].as_u64().unwrap();
    assert!(
        number("bytes") + 4_000_000 < number("bytes_before"),
        "{reclaimed}"
    );
    assert_eq!(reclaimed["damage"], json!([]));
    assert_eq!(bench.text("get", &["a"]), format!("249{value}\n"));
    bench.text("check", &[]);
    let again = bench.json("reclaim", &[]).remove(0);
    assert_eq!(
        [&again["freed_bytes"], &again["bytes"]],
        [&json!(0), &reclaimed["bytes"]]
    );
}
