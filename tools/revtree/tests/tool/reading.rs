//! Commands that read, in text and in JSON.

use std::io::Read;

use revtree_dump::base64;
use serde_json::{Value, json};

use crate::program::{ANY, Bench, Ran, assert_refused, bytes, program, start};

fn kv(key: &[u8], value: &[u8], numbers: [i64; 4]) -> Value {
    let [create, modified, version, lease] = numbers;
    json!({
        "key": base64(key), "value": base64(value), "create_revision": create,
        "mod_revision": modified, "version": version, "lease": lease,
    })
}

/// Goal: `get` prints a value, at any revision, and a missing key is refused with the revision.
#[test]
fn get_prints_a_value() {
    let bench = Bench::small();
    assert_eq!(bench.text("get", &["colour"]), "red\nand green\n");
    assert_eq!(bench.text("get", &["colour", "--rev", "3"]), "blue\n");
    assert_eq!(
        bench.text("get", &["ff00", "--key-format", "hex"]),
        "\\x00bin\\n\n"
    );
    let colour = kv(b"colour", b"red\nand green", [2, 4, 2, 7]);
    for arguments in [&["colour"][..], &["colour", "--rev", "0"]] {
        assert_eq!(bench.json("get", arguments), std::slice::from_ref(&colour));
    }
    let encoded = base64(b"colour");
    assert_eq!(
        bench.json("get", &[&encoded, "--key-format", "base64"]),
        [colour]
    );
    let refused = |rev: &str, line: &str| {
        let expected = Ran {
            status: 1,
            stdout: String::new(),
            stderr: format!("revtree: {line}\n"),
        };
        assert_eq!(bench.run("get", &["size", "--rev", rev]), expected);
        assert_eq!(
            bench.run("get", &["size", "--rev", rev, "--json"]),
            expected
        );
    };
    refused("2", "key not found at revision 2");
    refused("5", "key not found at revision 5");
}

/// Goal: every form of `range` selects what etcd's does.
#[test]
fn range_selects_keys() {
    let bench = Bench::small();
    let check = |arguments: &[&str], expected: &[&[u8]]| {
        let found = bench.json("range", arguments);
        let keys: Vec<&str> = found
            .iter()
            .filter_map(|line| line["key"].as_str())
            .collect();
        let expected: Vec<String> = expected.iter().map(|key| base64(key)).collect();
        assert_eq!(keys, expected, "{arguments:?}");
        let lines = bench.text("range", arguments).lines().count();
        assert_eq!(lines, expected.len(), "{arguments:?}");
        let mut count = arguments.to_vec();
        count.push("--count-only");
        assert_eq!(
            bench.json("range", &count)[0]["count"],
            expected.len(),
            "{arguments:?}"
        );
    };
    check(&[], &[b"colour", b"size", ANY]);
    check(&["colour"], &[b"colour"]);
    check(&["none"], &[]);
    check(&["colour", "size"], &[b"colour"]);
    check(&["size", "colour"], &[]);
    check(&["d", ""], &[b"size", ANY]);
    check(&["--prefix", "si"], &[b"size"]);
    check(&["--prefix", ""], &[b"colour", b"size", ANY]);
    check(&["--prefix", "ff", "--key-format", "hex"], &[ANY]);
    check(&["--from-key", "d"], &[b"size", ANY]);
    check(&["--rev", "2"], &[b"colour"]);
    check(&["--rev", "5"], &[b"colour", ANY]);
}

/// Goal: the lines of `range` in each form.
#[test]
fn range_prints_each_form() {
    let bench = Bench::small();
    let text = "colour\tred\\nand green\nsize\tsmall\n\\xff\\x00\t\\x00bin\\n\n";
    assert_eq!(bench.text("range", &[]), text);
    assert_eq!(
        bench.text("range", &["--keys-only"]),
        "colour\nsize\n\\xff\\x00\n"
    );
    assert_eq!(
        bench.text("range", &["--limit", "1"]),
        "colour\tred\\nand green\n"
    );
    assert_eq!(
        bench.text("range", &["--count-only", "--limit", "1"]),
        "3\n"
    );
    let json = [
        kv(b"colour", b"red\nand green", [2, 4, 2, 7]),
        kv(b"size", b"small", [6, 6, 1, 0]),
        kv(ANY, b"\0bin\n", [3, 3, 1, 0]),
    ];
    assert_eq!(bench.json("range", &[]), json);
    let keys_only = bench.json("range", &["--keys-only", "--limit", "1"]);
    assert_eq!(keys_only, [kv(b"colour", b"", [2, 4, 2, 7])]);
    let count = bench.json("range", &["--count-only", "--rev", "2"]);
    assert_eq!(count, [json!({ "count": 1, "revision": 2 })]);
}

/// Goal: `history` shows each change of a key with its deletes, the newest last.
#[test]
fn history_shows_each_version() {
    let bench = Bench::small();
    assert_eq!(
        bench.text("history", &["size"]),
        "3\tPUT\tlarge\n5\tDELETE\n6\tPUT\tsmall\n"
    );
    assert_eq!(bench.text("history", &["none"]), "");
    let lines = bench.json("history", &["size"]);
    let numbers: Vec<[&Value; 4]> = lines
        .iter()
        .map(|line| {
            [
                &line["mod_revision"],
                &line["create_revision"],
                &line["version"],
                &line["lease"],
            ]
        })
        .collect();
    assert_eq!(
        json!(numbers),
        json!([[3, 3, 1, 0], [5, 0, 0, 0], [6, 6, 1, 0]])
    );
    assert!(lines.iter().all(|line| line["key"] == base64(b"size")));
    assert_eq!(
        json!(lines.iter().map(|line| &line["type"]).collect::<Vec<_>>()),
        json!(["PUT", "DELETE", "PUT"])
    );
}

/// Goal: `history --rev` ends there; at a deleted key's last revision the delete is the last line, also
/// when the key was put again later.
#[test]
fn history_ends_at_its_revision() {
    let bench = Bench::small();
    let check = |rev: &str, expected: &str| {
        let found = bench.text("history", &["size", "--rev", rev]);
        assert_eq!(found, expected, "at {rev}");
    };
    check("2", "");
    check("3", "3\tPUT\tlarge\n");
    check("4", "3\tPUT\tlarge\n");
    check("5", "3\tPUT\tlarge\n5\tDELETE\n");
    check("6", "3\tPUT\tlarge\n5\tDELETE\n6\tPUT\tsmall\n");
}

/// Goal: `log` has a line for each revision with its events in order.
#[test]
fn log_shows_events_in_order() {
    let bench = Bench::small();
    let text = "2\tPUT\tcolour\tblue\n3\tPUT\tsize\tlarge\n3\tPUT\t\\xff\\x00\t\\x00bin\\n\n\
                4\tPUT\tcolour\tred\\nand green\n5\tDELETE\tsize\n6\tPUT\tsize\tsmall\n";
    assert_eq!(bench.text("log", &[]), text);
    let between = bench.json("log", &["--from", "3", "--to", "5"]);
    let put = |kv: Value| json!({ "type": "PUT", "kv": kv });
    let first = put(kv(b"size", b"large", [3, 3, 1, 0]));
    let second = put(kv(ANY, b"\0bin\n", [3, 3, 1, 0]));
    assert_eq!(
        between[0],
        json!({ "revision": 3, "events": [first, second] })
    );
    let third = put(kv(b"colour", b"red\nand green", [2, 4, 2, 7]));
    assert_eq!(between[1], json!({ "revision": 4, "events": [third] }));
    let gone = json!({ "type": "DELETE", "kv": kv(b"size", b"", [0, 5, 0, 0]) });
    assert_eq!(between[2], json!({ "revision": 5, "events": [gone] }));
    assert_eq!(between.len(), 3);
}

/// Goal: after a compaction `log` begins behind it, and an earlier begin is refused.
#[test]
fn log_begins_behind_the_compact_revision() {
    let bench = Bench::small();
    bench.text("compact", &["4"]);
    let revisions = |arguments: &[&str]| -> Vec<Value> {
        let lines = bench.json("log", arguments);
        lines
            .into_iter()
            .map(|line| line["revision"].clone())
            .collect()
    };
    assert_eq!(revisions(&[]), [5, 6]);
    assert_eq!(revisions(&["--from", "6"]), [6]);
    let ran = bench.run("log", &["--from", "3"]);
    assert_refused(&ran, &["revision 3", "4"]);
    let ran = bench.run("log", &["--from", "3", "--to", "2"]);
    assert_refused(&ran, &["revision 3", "4"]);
    bench.text("compact", &["6"]);
    assert_eq!(bench.text("log", &[]), "");
}

/// Goal: a script that asks for what is new gets nothing when there is nothing, and is told when it asks
/// beyond.
#[test]
fn log_has_nothing_new() {
    let bench = Bench::small();
    assert_eq!(bench.text("log", &["--from", "7"]), "");
    assert_eq!(bench.text("log", &["--from", "5", "--to", "4"]), "");
    assert_eq!(bench.text("log", &["--from", "0", "--to", "1"]), "");
    assert_refused(&bench.run("log", &["--from", "8"]), &["revision 8", "6"]);
}

/// Goal: `hash` is the library's, and says what it depends on.
#[test]
fn hash_says_what_it_depends_on() {
    let bench = Bench::small();
    let (now, then) = bench.with(|db| Ok((db.hash_by_rev(0)?.hash, db.hash_by_rev(4)?.hash)));
    assert_eq!(
        bench.json("hash", &[]),
        [json!({ "hash": now, "hash_revision": 6, "compact_revision": -1 })]
    );
    assert_eq!(
        bench.json("hash", &["--rev", "4"]),
        [json!({ "hash": then, "hash_revision": 4, "compact_revision": -1 })]
    );
    let text = format!("hash: {now}\nhash revision: 6\ncompact revision: -1\n");
    assert_eq!(bench.text("hash", &[]), text);
    bench.text("compact", &["4"]);
    assert_eq!(bench.json("hash", &[])[0]["compact_revision"], 4);
}

/// Goal: `stat` has the numbers that scripts read.
#[test]
fn stat_has_revisions_and_sizes() {
    let bench = Bench::small();
    let stat = bench.json("stat", &[]).remove(0);
    assert_eq!(
        [&stat["revision"], &stat["compact_revision"], &stat["keys"]],
        [6, -1, 3]
    );
    let size = std::fs::metadata(bench.store()).expect("a file").len();
    assert_eq!(stat["file_bytes"], size);
    let live = stat["live_bytes"].as_u64().expect("a number");
    assert!((1..=size).contains(&live), "{live} of {size}");
    assert_eq!([&stat["applied_index"], &stat["applied_term"]], [9, 4]);
    assert!(bench.text("stat", &[]).contains("revision: 6\n"));
}

/// Goal: `tables` lists the side tables, and prints the rows of one.
#[test]
fn tables_shows_side_tables() {
    let bench = Bench::small();
    assert_eq!(bench.text("tables", &[]), "meta\t1\n");
    assert_eq!(
        bench.json("tables", &[]),
        [json!({ "table": "meta", "rows": 1 })]
    );
    assert_eq!(bench.text("tables", &["meta"]), "name\t\\x01\n");
    let row = json!({ "key": base64(b"name"), "value": base64(b"\x01") });
    assert_eq!(bench.json("tables", &["meta"]), [row]);
    assert_refused(&bench.run("tables", &["none"]), &["\"none\""]);
}

/// Goal: `check` finds nothing in a sound store, and reading commands change no byte of it.
#[test]
fn reading_changes_nothing() {
    let bench = Bench::small();
    let before = bytes(&bench.store());
    assert_eq!(bench.json("check", &[])[0]["damage"], json!([]));
    assert!(!bench.text("check", &[]).is_empty());
    for command in ["range", "log", "hash", "stat", "check", "tables", "dump"] {
        bench.text(command, &[]);
        assert_eq!(bytes(&bench.store()), before, "{command}");
    }
}

/// Goal: an empty store answers every command.
#[test]
fn an_empty_store_answers() {
    let bench = Bench::empty();
    bench.with(|_| Ok(()));
    for command in ["range", "log", "tables"] {
        assert_eq!(bench.text(command, &[]), "", "{command}");
    }
    assert_eq!(bench.text("history", &["a"]), "");
    assert_eq!(bench.json("stat", &[])[0]["revision"], 1);
    assert_eq!(bench.json("hash", &[])[0]["hash_revision"], 1);
    assert_eq!(bench.json("check", &[])[0]["damage"], json!([]));
    let ran = bench.run("get", &["a"]);
    assert_refused(&ran, &["key not found at revision 1"]);
}

/// Goal: a reader that goes away ends the tool quietly.
#[test]
fn a_closed_pipe_ends_quietly() {
    let bench = Bench::empty();
    bench.with(|db| {
        let mut txn = db.write()?;
        for n in 0..2000 {
            txn.put(format!("key {n:06}"), [b'v'; 200])?;
        }
        Ok(txn.commit()?)
    });
    for arguments in [
        &["range"][..],
        &["log"],
        &["range", "--json"],
        &["dump", "--values"],
    ] {
        let mut child = start(program().args(arguments).arg(bench.store()));
        let mut first = [0; 10];
        child
            .stdout
            .take()
            .expect("piped")
            .read_exact(&mut first)
            .expect("some output");
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(output.stderr, b"", "{arguments:?}");
    }
}
