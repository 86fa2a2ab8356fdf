//! Opening: after a clean close (the index comes from the file), and without that (every head is read).

mod common;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

fn open(c: &mut Criterion) {
    let (dir, db) = common::loaded();
    let path = dir.path().join("store");
    let unclean = dir.path().join("unclean");
    std::fs::copy(&path, &unclean).expect("copy the open store's file");
    db.close().expect("close");
    let mut group = c.benchmark_group("open");
    group.sample_size(20);
    group.bench_function("clean", |b| {
        b.iter(|| {
            common::options()
                .open(&path)
                .expect("open")
                .get(common::key(1))
                .expect("read")
        });
    });
    group.bench_function("after_a_crash", |b| {
        b.iter_batched(
            || {
                let copy = dir.path().join("copy");
                std::fs::copy(&unclean, &copy).expect("copy");
                copy
            },
            |copy| {
                common::options()
                    .open(copy)
                    .expect("open")
                    .get(common::key(1))
                    .expect("read")
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, open);
criterion_main!(benches);
