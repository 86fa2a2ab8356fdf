//! What is refused: with which status, in which words, and that nothing was written.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use revtree::Db;

use crate::program::{Bench, Ran, assert_refused, bytes, run};

/// Each command with arguments that suit it, all but `put`, `import-etcd` and
/// `salvage`.
const ON_A_STORE: &[&[&str]] = &[
    &["get", "k"],
    &["range"],
    &["history", "k"],
    &["log"],
    &["hash"],
    &["stat"],
    &["check"],
    &["tables"],
    &["delete", "k"],
    &["compact", "1"],
    &["dump"],
];

fn on(path: &Path, command: &[&str]) -> Ran {
    let mut arguments = vec![OsStr::new(command[0]), path.as_os_str()];
    arguments.extend(command[1..].iter().map(OsStr::new));
    run(&arguments, b"")
}

/// Goal: only `put` and `import-etcd` make a store.
#[test]
fn a_missing_store_is_not_made() {
    let bench = Bench::empty();
    for command in ON_A_STORE {
        assert_refused(&on(&bench.store(), command), &["store"]);
        assert!(!bench.store().exists(), "{command:?}");
    }
}

/// Goal: foreign and cut files and folders are refused by every command, and not a byte is changed.
#[test]
fn what_is_no_store_is_refused() {
    let bench = Bench::small();
    let store = bytes(&bench.store());
    let files: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("text", b"what is this\n"),
        ("zeros", &[0; 100_000]),
        ("cut", &store[..5000]),
    ];
    for (name, content) in files {
        let path = bench.path(name);
        fs::write(&path, content).expect("a file");
        for command in ON_A_STORE.iter().chain([&&["put", "k", "v"][..]]) {
            let ran = on(&path, command);
            assert_eq!(ran.status, 1, "{name} {command:?} {ran:?}");
            if command[0] != "dump" {
                assert_refused(&ran, &[name]);
            }
            assert_eq!(bytes(&path), content, "{name} {command:?}");
        }
    }
    let folder = bench.path("folder");
    fs::create_dir(&folder).expect("a folder");
    for command in ON_A_STORE.iter().chain([&&["put", "k", "v"][..]]) {
        assert_refused(&on(&folder, command), &["folder"]);
    }
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
}

/// Goal: a newer format is refused with both versions.
#[test]
fn a_newer_format_is_refused() {
    let bench = Bench::small();
    let mut store = bytes(&bench.store());
    for slot in store[..16384].chunks_mut(4096) {
        slot[16] = 9;
        let (crc32, crc32c) = (crc32fast::hash(&slot[16..]), crc32c::crc32c(&slot[16..]));
        slot[8..12].copy_from_slice(&crc32.to_le_bytes());
        slot[12..16].copy_from_slice(&crc32c.to_le_bytes());
    }
    fs::write(bench.store(), &store).expect("a file");
    for command in [&["get", "k"][..], &["put", "k", "v"]] {
        assert_refused(&on(&bench.store(), command), &["version 9", "up to 1"]);
    }
    assert_eq!(bytes(&bench.store()), store);
}

/// Goal: a store that is open for writing elsewhere is refused to a second writer.
#[test]
fn a_store_in_use_is_refused() {
    let bench = Bench::small();
    let db = Db::open(bench.store()).expect("the store opens");
    for command in [&["put", "k", "v"][..], &["delete", "k"], &["compact", "2"]] {
        assert_refused(&on(&bench.store(), command), &["in use by another process"]);
    }
    assert_eq!(
        on(&bench.store(), &["get", "size"]).stdout,
        "small\n",
        "reading beside it works"
    );
    db.put("size", "huge").expect("the store still works");
}

/// Goal: revisions that cannot be read are refused with the numbers.
#[test]
fn revisions_out_of_reach_are_refused() {
    let bench = Bench::small();
    for command in ["range", "hash"] {
        let ran = bench.run(command, &["--rev", "7"]);
        assert_refused(&ran, &["revision 7", "6"]);
    }
    assert_refused(
        &bench.run("history", &["k", "--rev", "7"]),
        &["revision 7", "6"],
    );
    assert_refused(&bench.run("log", &["--to", "7"]), &["revision 7", "6"]);
    bench.text("compact", &["4"]);
    for command in ["range", "hash"] {
        assert_refused(&bench.run(command, &["--rev", "3"]), &["revision 3", "4"]);
        assert_eq!(bench.run(command, &["--rev", "4"]).status, 0);
    }
}

/// Goal: a key that is too long is refused with both lengths, and makes no store.
#[test]
fn a_key_too_long_is_refused() {
    let bench = Bench::empty();
    let key = "k".repeat(65_536);
    assert_refused(&bench.run("put", &[key.as_str(), "v"]), &["65536", "65535"]);
    assert!(!bench.store().exists());
    let longest = &key[1..];
    assert_eq!(bench.text("put", &[longest, "v"]), "revision: 2\n");
    assert_eq!(bench.text("get", &[longest]), "v\n");
}

/// Goal: wrong usage ends with 2 and touches nothing.
#[test]
fn wrong_usage_ends_with_2() {
    let bench = Bench::empty();
    let store = bench.store();
    let wrong: &[&[&str]] = &[
        &["frobnicate"],
        &["get"],
        &["get", "k", "--rev", "x"],
        &["get", "zz", "--key-format", "hex"],
        &["put", "abc", "v", "--key-format", "hex"],
        &["get", "$", "--key-format", "base64"],
        &["get", "k", "--key-format", "roman"],
        &["range", "k", "--prefix", "p"],
        &["range", "k", "--from-key", "p"],
        &["delete"],
        &["compact"],
        &["compact", "-1"],
        &["put", "k"],
        &["stat", "--frobnicate"],
    ];
    for command in wrong {
        let ran = on(&store, command);
        assert_eq!(
            (ran.status, ran.stdout.as_str()),
            (2, ""),
            "{command:?} {ran:?}"
        );
        assert!(!ran.stderr.is_empty(), "{command:?}");
        assert!(!store.exists(), "{command:?}");
    }
    assert_eq!(run(&[], b"").status, 2);
    assert_eq!(run(&[OsStr::new("--help")], b"").status, 0);
}

/// Goal: `check` tells of damage with status 1, in both forms, and other keys still read.
#[test]
fn damage_is_told() {
    let bench = Bench::small();
    let mut store = bytes(&bench.store());
    let value = b"red\nand green";
    let at = store
        .windows(value.len())
        .position(|bytes| bytes == value)
        .expect("the value");
    store[at] ^= 1;
    fs::write(bench.store(), &store).expect("a file");
    let ran = bench.run::<&str>("check", &[]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.starts_with("revtree: "), "{ran:?}");
    let ran = bench.run("check", &["--json"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert_ne!(
        crate::program::lines(&ran.stdout)[0]["damage"],
        serde_json::json!([]),
        "{ran:?}"
    );
    assert_eq!(bench.text("get", &["size"]), "small\n");
    assert_refused(&bench.run("get", &["colour"]), &["damaged at offset"]);
    let ran = bench.run::<&str>("range", &[]);
    assert_eq!(
        (ran.status, ran.stdout.lines().count()),
        (1, 2),
        "the other keys: {ran:?}"
    );
}

/// Goal: `stat` of a store whose sizes cannot be read prints what it knows, no size that it does not, and
/// ends with 1.
#[test]
fn sizes_that_cannot_be_read_are_not_printed() {
    let bench = Bench::small();
    bench.text("compact", &["4"]);
    let mut store = bytes(&bench.store());
    // The key of a record, which its head's checksum covers.
    let record = b"colourred\nand green";
    let at = store
        .windows(record.len())
        .position(|bytes| bytes == record);
    store[at.expect("the record")] ^= 1;
    fs::write(bench.store(), &store).expect("a file");
    for json in [false, true] {
        let arguments: &[&str] = if json { &["--json"] } else { &[] };
        let ran = bench.run("stat", arguments);
        assert_eq!(ran.status, 1, "{ran:?}");
        for word in ["store", "sizes cannot be read", "damaged at offset"] {
            assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        }
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(!ran.stdout.contains("live"), "{ran:?}");
        assert!(ran.stdout.contains("revision"), "{ran:?}");
        assert!(ran.stdout.contains("file"), "{ran:?}");
    }
}
