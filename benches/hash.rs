//! etcd's HashKV over the whole history, on all cores.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn hash(c: &mut Criterion) {
    let (_dir, db) = common::loaded();
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Bytes(db.stats().live_bytes));
    group.sample_size(20);
    group.bench_function("hash_by_rev", |b| {
        b.iter(|| db.hash_by_rev(0).expect("hash"));
    });
    group.finish();
}

criterion_group!(benches, hash);
criterion_main!(benches);
