//! `import-etcd` against snapshots of real servers.

use std::ffi::OsStr;
use std::fs;

use revtree_dump::base64;
use revtree_test_fixtures::{Fixture, all, load};
use serde_json::Value;

use crate::program::{Bench, Ran, assert_refused, run};

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

/// Goal: a store made from a snapshot answers as the server did: ranges, hashes, events, numbers.
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
            let found = bench.json("range", &["--rev", &rev, "--keys-only"]);
            assert_eq!(found.len(), range.count, "{name} at {rev}");
            for (found, kv) in found.iter().zip(&range.kvs) {
                assert_eq!(found["key"], base64(&kv.key), "{name} at {rev}");
                assert_eq!(found["mod_revision"], kv.modified, "{name} at {rev}");
                assert_eq!(found["version"], kv.version, "{name} at {rev}");
                assert_eq!(found["lease"], kv.lease, "{name} at {rev}");
            }
        }
        for answer in &fixture.hashes {
            let Some(hash) = answer.hash else { continue };
            let found = bench.json("hash", &["--rev", &answer.revision.to_string()]);
            assert_eq!(found[0]["hash"], hash.hash, "{name} at {}", answer.revision);
            assert_eq!(
                found[0]["compact_revision"], hash.compact_revision,
                "{name}"
            );
        }
        let log = bench.json("log", &[]);
        let events: Vec<(u64, usize)> = fixture
            .events
            .iter()
            .map(|batch| (batch.revision, batch.events.len()))
            .collect();
        let found: Vec<(u64, usize)> = log
            .iter()
            .map(|line| {
                let events = line["events"].as_array().map_or(0, Vec::len);
                (line["revision"].as_u64().expect("a number"), events)
            })
            .collect();
        assert_eq!(found, events, "{name}");
        assert_eq!(
            bench.json("check", &[])[0]["damage"],
            serde_json::json!([]),
            "{name}"
        );
        assert_eq!(bench.run("dump", &["--all"]).status, 0, "{name}");
    }
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
