//! Backups, full and incremental.

use serde_json::json;

use crate::program::{Bench, assert_refused, lines, run};

/// Goal: a full backup is a store; each increment goes on from the backup before it, full or not, also behind a
/// compaction; together they are the store.
#[test]
fn a_backup_and_increments() {
    let bench = Bench::small();
    let path = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let (full, first, second) = (path("full"), path("first"), path("second"));
    let made = bench.json("backup", &[&full]).remove(0);
    assert_eq!(made["revision"], json!(6));
    assert_eq!(
        made["bytes"].as_u64(),
        std::fs::metadata(&full).ok().map(|file| file.len())
    );
    bench.text("put", &["size", "huge"]);
    let made = bench.json("backup", &[&first, "--since", &full]).remove(0);
    assert_eq!(
        [&made["earlier_revision"], &made["revision"]],
        [&json!(6), &json!(7)]
    );
    bench.text("delete", &["colour"]);
    bench.text("put", &["shape", "round"]);
    bench.text("compact", &["9"]);
    let made = bench
        .json("backup", &[&second, "--since", &first])
        .remove(0);
    assert_eq!(
        [&made["earlier_revision"], &made["revision"]],
        [&json!(7), &json!(9)]
    );
    let of = |command: &str, store: &str| {
        let ran = run(&[command.as_ref(), store.as_ref(), "--json".as_ref()], b"");
        assert_eq!(ran.status, 0, "{ran:?}");
        lines(&ran.stdout)
    };
    let apply = |increments: &[&str]| {
        let mut all = vec!["apply".as_ref(), full.as_ref()];
        all.extend(increments.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
        run(&all, b"")
    };
    assert_refused(
        &apply(&[&second]),
        &["second", "goes on from revision 7", "at 6"],
    );
    let ran = apply(&[&first, &second]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "revision: 9\n"),
        "{ran:?}"
    );
    let store = path("store");
    for command in ["range", "log", "tables"] {
        assert_eq!(of(command, &full), of(command, &store), "{command}");
    }
    assert_eq!(of("hash", &full)[0]["hash"], of("hash", &store)[0]["hash"]);
    of("check", &full);
}

/// Goal: a backup takes nobody's name, and none is left of one that fails; a damaged increment is refused.
#[test]
fn backups_that_are_refused() {
    let bench = Bench::small();
    let path = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let (full, increment) = (path("full"), path("increment"));
    bench.text("backup", &[&full]);
    assert_refused(&bench.run("backup", &[&full]), &["full", "exists"]);
    bench.text("put", &["size", "huge"]);
    bench.text("backup", &[&increment, "--since", &full]);
    let ahead = path("ahead");
    std::fs::rename(bench.store(), &ahead).unwrap();
    std::fs::copy(&full, bench.store()).unwrap();
    // The store is older than the backup.
    let refused = bench.run("backup", &[&path("none"), "--since", &increment]);
    assert_refused(&refused, &["7", "6", "future"]);
    assert!(!bench.path("none").exists());
    let mut bytes = std::fs::read(&increment).unwrap();
    bytes.pop();
    std::fs::write(&increment, &bytes).unwrap();
    assert_refused(
        &bench.run("apply", &[&increment]),
        &["increment", "too early"],
    );
    bytes[40] ^= 1;
    std::fs::write(&increment, &bytes).unwrap();
    let refused = bench.run("backup", &[&path("none"), "--since", &increment]);
    assert_refused(&refused, &["increment", "checksum"]);
    assert_refused(
        &bench.run("apply", &[&increment]),
        &["increment", "checksum"],
    );
    assert!(bench.text("get", &["size"]).starts_with("small"));
}
