//! Point reads of a random key: now, at an old revision, and of a key with a million versions.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn get(c: &mut Criterion) {
    let (_dir, db) = common::loaded();
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let mut state = 7;
    let view = db.read().expect("a view");
    group.bench_function("current", |b| {
        b.iter(|| {
            let key = common::key(common::split_mix(&mut state) % common::KEYS);
            let record = view.get(key).expect("read").expect("every key is there");
            record.value()[0]
        });
    });
    let (from, to) = (common::KEYS + 1, db.rev().get());
    group.bench_function("old_revision", |b| {
        b.iter(|| {
            let rev = from + common::split_mix(&mut state) % (to - from);
            let key = common::key(common::split_mix(&mut state) % common::KEYS);
            let view = db.read_at(rev).expect("a view");
            let record = view.get(key).expect("read").expect("every key is there");
            record.value()[0]
        });
    });
    group.finish();
}

/// The figure that the length of a key's history must not matter for.
fn many_versions(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder under target");
    let db = common::options()
        .open(dir.path().join("store"))
        .expect("a new store");
    let versions = 10_000_000;
    for n in 0..versions {
        db.put("the key", (n as u64).to_le_bytes()).expect("put");
    }
    let mut state = 7;
    c.bench_function("get/one_of_ten_million_versions", |b| {
        b.iter(|| {
            let rev = 2 + common::split_mix(&mut state) % versions as u64;
            let view = db.read_at(rev).expect("a view");
            let record = view.get("the key").expect("read").expect("it is there");
            assert_eq!(record.value(), (rev - 2).to_le_bytes());
        });
    });
}

criterion_group!(benches, get, many_versions);
criterion_main!(benches);
