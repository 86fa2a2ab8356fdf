//! `import-etcd` against snapshots of real servers.

use std::ffi::OsStr;
use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use revtree_test_fixtures::{EventKind, Fixture, Kv, all, load};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::program::{Bench, Ran, assert_refused, lines, run};

fn import(bench: &Bench, snapshot: &[u8]) -> Ran {
    let path = bench.path("snapshot.db");
    fs::write(&path, snapshot).expect("a file");
    let store = bench.store();
    run(
        &[
            OsStr::new("import-etcd"),
            path.as_os_str(),
            store.as_os_str(),
        ],
        b"",
    )
}

fn imported(fixture: &Fixture) -> Bench {
    let bench = Bench::empty();
    let ran = import(&bench, &fixture.snapshot);
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (0, ""),
        "{}",
        fixture.name
    );
    bench
}

/// A pair as the tool's JSON has it, in the words of the recordings.
fn as_recorded(kv: &Value) -> Kv {
    let number = |field: &str| kv[field].as_u64().expect(field);
    let bytes = |field: &str| {
        let text = kv[field].as_str().expect(field);
        BASE64_STANDARD.decode(text).expect(field)
    };
    Kv {
        key: bytes("key"),
        create: number("create_revision"),
        modified: number("mod_revision"),
        version: number("version"),
        lease: kv["lease"].as_i64().expect("lease"),
        value_sha256: Sha256::digest(bytes("value")).into(),
    }
}

/// Goal: a store made from a snapshot answers as the server did: every range, every event after the
/// compact revision, every hash, each with all fields.
#[test]
fn an_imported_store_answers_as_etcd_did() {
    for fixture in all() {
        let bench = imported(&fixture);
        let name = fixture.name;
        let stat = bench.json("stat", &[]).remove(0);
        let compact = fixture.meta.compact_revision;
        assert_eq!(stat["revision"], fixture.meta.revision, "{name}");
        assert_eq!(stat["keys"], fixture.meta.keys_now, "{name}");
        let expected = compact.map_or(Value::from(-1), Value::from);
        assert_eq!(stat["compact_revision"], expected, "{name}");
        for range in &fixture.ranges {
            let rev = range.revision.to_string();
            let found = bench.json("range", &["--rev", &rev]);
            let found: Vec<Kv> = found.iter().map(as_recorded).collect();
            assert_eq!(found, range.kvs, "{name} at {rev}");
        }
        for answer in &fixture.hashes {
            let rev = answer.revision.to_string();
            match answer.hash {
                Some(hash) => {
                    let found = bench.json("hash", &["--rev", &rev]).remove(0);
                    assert_eq!(found["hash"], hash.hash, "{name} at {rev}");
                    assert_eq!(found["compact_revision"], hash.compact_revision, "{name}");
                }
                // What these servers refuse at the compact revision itself, newer ones answer.
                None if Some(answer.revision) == compact => {}
                None => assert_refused(&bench.run("hash", &["--rev", &rev]), &["compacted"]),
            }
        }
        let events = |line: &Value| -> Vec<(EventKind, Kv)> {
            let events = line["events"].as_array().expect("events").iter();
            let event = |event: &Value| match event["type"].as_str() {
                Some("PUT") => (EventKind::Put, as_recorded(&event["kv"])),
                Some("DELETE") => (EventKind::Delete, as_recorded(&event["kv"])),
                other => panic!("{other:?}"),
            };
            events.map(event).collect()
        };
        let found: Vec<(u64, Vec<(EventKind, Kv)>)> = bench
            .json("log", &[])
            .iter()
            .map(|line| (line["revision"].as_u64().expect("a number"), events(line)))
            .collect();
        let expected: Vec<(u64, Vec<(EventKind, Kv)>)> = fixture
            .events
            .iter()
            .map(|batch| {
                let events = batch.events.iter();
                let events = events.map(|event| (event.kind, event.kv.clone()));
                (batch.revision, events.collect())
            })
            .collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(
            bench.json("check", &[])[0]["damage"],
            serde_json::json!([]),
            "{name}"
        );
        assert_eq!(bench.run("dump", &["--all"]).status, 0, "{name}");
    }
}

/// Goal: the report of an import, in both forms.
#[test]
fn an_import_says_what_it_found() {
    let fixture = load("etcd-3.5-compacted");
    let bench = Bench::empty();
    let ran = import(&bench, &fixture.snapshot);
    let compact = fixture.meta.compact_revision.expect("it was compacted");
    let begins = format!(
        "revision: {}\ncompact revision: {compact}\nrecords: ",
        fixture.meta.revision
    );
    assert!(ran.stdout.starts_with(&begins), "{ran:?}");
    fs::remove_file(bench.store()).expect("a store");
    let (snapshot, store) = (bench.path("snapshot.db"), bench.store());
    let arguments = [OsStr::new("--json"), OsStr::new("import-etcd")];
    let files = [snapshot.as_os_str(), store.as_os_str()];
    let ran = run(&[arguments, files].concat(), b"");
    let line = lines(&ran.stdout).remove(0);
    assert_eq!(line["revision"], fixture.meta.revision);
    assert_eq!(line["compact_revision"], compact);
    assert_eq!(line["keys"], fixture.meta.keys_now);
}

/// Goal: a snapshot that is not there is what the reason names, and nothing is made.
#[test]
fn a_missing_snapshot_is_refused_by_its_name() {
    let bench = Bench::empty();
    let (snapshot, store) = (bench.path("none.db"), bench.store());
    let arguments = [
        OsStr::new("import-etcd"),
        snapshot.as_os_str(),
        store.as_os_str(),
    ];
    assert_refused(&run(&arguments, b""), &["none.db"]);
    assert!(!store.exists());
    let arguments = [OsStr::new("import-etcd"), snapshot.as_os_str()];
    assert_eq!(run(&arguments, b"").status, 2, "no store is named");
}

/// Goal: a snapshot with a wrong hash, a cut one and a foreign file are refused and leave no store.
#[test]
fn a_damaged_snapshot_is_refused() {
    let snapshot = load("etcd-3.5-uncompacted").snapshot;
    let mut flipped = snapshot.clone();
    flipped[20_000] ^= 1;
    let cut = snapshot[..snapshot.len() / 2].to_vec();
    for (name, bytes) in [
        ("flipped", flipped),
        ("cut", cut),
        ("foreign", vec![7; 9000]),
    ] {
        let bench = Bench::empty();
        let ran = import(&bench, &bytes);
        assert_refused(&ran, &["snapshot.db"]);
        let left = fs::read_dir(bench.path(".")).expect("a folder").count();
        assert_eq!(left, 1, "{name}: only the snapshot is there");
    }
}

/// Goal: a store that exists is not imported into.
#[test]
fn an_existing_store_is_refused() {
    let bench = Bench::small();
    let before = fs::read(bench.store()).expect("a file");
    let ran = import(&bench, &load("etcd-3.5-uncompacted").snapshot);
    assert_refused(&ran, &["store"]);
    assert_eq!(fs::read(bench.store()).expect("a file"), before);
}
