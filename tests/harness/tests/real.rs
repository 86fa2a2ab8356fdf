//! scratch
use revtree_harness::{Stats, Store, generate, run, seeds};
#[test]
fn real() {
    let n: u64 = std::env::var("N").map_or(20, |n| n.parse().unwrap());
    let first: u64 = std::env::var("FIRST").map_or(0, |n| n.parse().unwrap());
    let mut bad = 0;
    let mut total = Stats::default();
    for seed in seeds(first, n) {
        let ops = generate(seed, 1000);
        match std::panic::catch_unwind(|| {
            run(seed, &ops, || {
                Store::in_memory(1 << 16, 1 << [12, 14, 16, 20][(seed % 4) as usize])
            })
        }) {
            Ok(Ok(stats)) => total.add(&stats),
            Ok(Err(difference)) => {
                bad += 1;
                println!("{difference}");
            }
            Err(_) => {
                bad += 1;
                println!("PANIC seed {seed}");
            }
        }
        if bad > 4 {
            break;
        }
    }
    println!("{total:?}");
    assert_eq!(bad, 0);
}
