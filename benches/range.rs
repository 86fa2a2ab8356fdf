//! Ranges: a thousand records with values, keys only, and counts.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn range(c: &mut Criterion) {
    let (_dir, db) = common::loaded();
    let view = db.read().expect("a view");
    let mut state = 7;
    let mut group = c.benchmark_group("range");
    group.throughput(Throughput::Elements(1000));
    for (name, keys_only) in [("values_1000", false), ("keys_1000", true)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let start = common::key(common::split_mix(&mut state) % common::KEYS);
                let range = view.range(start..).limit(1000);
                let range = if keys_only { range.keys_only() } else { range };
                range
                    .iter()
                    .map(|record| record.expect("read").value_len())
                    .sum::<usize>()
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("count_all", |b| {
        b.iter(|| view.range(..).count().expect("count"));
    });
    group.finish();
}

criterion_group!(benches, range);
criterion_main!(benches);
