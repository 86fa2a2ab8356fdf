//! One put a transaction: visible at once (`Batched`), after the write, and after a sync.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use revtree::{Durability, Options};

fn put(c: &mut Criterion) {
    let mut group = c.benchmark_group("put");
    group.throughput(Throughput::Elements(1));
    let cases = [
        ("batched", common::options()),
        ("flushed", Options::new().durability(Durability::Flushed)),
        ("sync", Options::new()),
    ];
    for (name, options) in cases {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder under target");
        let db = options.open(dir.path().join("store")).expect("a new store");
        let mut n = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                n += 1;
                db.put(common::key(n % common::KEYS), common::value(n))
                    .expect("put")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, put);
criterion_main!(benches);
