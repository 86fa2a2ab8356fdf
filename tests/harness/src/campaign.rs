//! Campaigns: histories of one seed after the other, until enough was tried or one of them fails.
//!
//! What a history is (a run beside the oracle, a power cut) is told by a [`Kind`]. A program of a few
//! lines names its kinds and calls [`main`]; `cargo xtask crash`, `faults`, `kill`, `model` and others start
//! it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One kind of campaign.
pub struct Kind<'a> {
    /// Its name on the command line.
    pub name: &'a str,
    /// What is counted, as on the command line: `--images N`.
    pub unit: &'a str,
    /// How many of them when the command line does not say.
    pub units: u64,
    /// Runs the history of a seed: what it had, or what went wrong.
    pub history: &'a (dyn Fn(u64) -> Result<Tally, String> + Sync),
}

impl Kind<'_> {
    /// Histories themselves are counted: exactly so many are run.
    fn counts_histories(&self) -> bool {
        matches!(self.unit, "histories" | "worlds" | "parts")
    }
}

/// What a history had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Units, as its kind counts them.
    pub units: u64,
    /// Calls that were made to fail, or that a process was killed in, or images, by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// How often it was run again for them, or reopened.
    pub runs: u64,
    /// Commits that a killed process acknowledged.
    pub acknowledged: u64,
    /// Calls of its threads.
    pub operations: u64,
}

impl From<u64> for Tally {
    fn from(units: u64) -> Tally {
        Tally {
            units,
            ..Tally::default()
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        // A history without units would let the campaign go on for ever.
        self.units += other.units.max(1);
        self.runs += other.runs;
        self.acknowledged += other.acknowledged;
        self.operations += other.operations;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
    }
}

/// What a campaign did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The kind's name.
    pub name: String,
    /// What was counted.
    pub unit: String,
    /// How many of it, and what failed in them.
    pub tally: Tally,
    /// Histories, each of a seed.
    pub histories: u64,
    /// The first seed; the others follow it.
    pub seed: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            name,
            unit,
            tally:
                Tally {
                    units,
                    kinds,
                    runs,
                    acknowledged,
                    operations,
                },
            histories,
            seed,
        } = self;
        write!(f, "{histories} histories from seed {seed}")?;
        if *runs > 0 && unit == "histories" {
            write!(f, ", run {runs} times; of their calls failed")?;
        }
        match unit.as_str() {
            "times" => write!(f, "; killed")?,
            "cuts" => write!(f, "; cut")?,
            "runs" => write!(f, "; what failed in them")?,
            _ => {}
        }
        writeln!(f)?;
        for (kind, count) in kinds {
            writeln!(f, "  {count} {kind}")?;
        }
        let failed: u64 = kinds.values().sum();
        match unit.as_str() {
            // What the summaries that CI prints say word for word.
            "ops" => write!(f, "{name}: {units} operations, 0 differences"),
            "histories" if name == "watch-check" => {
                write!(f, "watch: {histories} histories, 0 violations")
            }
            "histories" if *operations > 0 => {
                write!(
                    f,
                    "{name}: {histories} histories, {operations} operations, 0 wrong"
                )
            }
            "histories" => {
                write!(
                    f,
                    "{name}: {histories} histories, {failed} calls failed, 0 lost, 0 wrong"
                )
            }
            "parts" => write!(f, "{name}: {runs} cases, 0 wrong"),
            "worlds" => write!(f, "{name}: {units} worlds, {runs} images, 0 lost, 0 wrong"),
            "times" => {
                write!(
                    f,
                    "{name}: {units} kills, {acknowledged} acknowledged, 0 lost, 0 wrong"
                )
            }
            "cuts" => {
                write!(
                    f,
                    "{name}: {units} cuts, {acknowledged} acknowledged, 0 lost"
                )
            }
            "runs" => write!(f, "{name}: {units} runs, 0 lost"),
            _ => write!(f, "{name}: {units} {unit}, 0 lost, 0 wrong"),
        }
    }
}

/// Reads the arguments of the command line, runs what they ask for, and prints the summary as the last line.
///
/// `REVTREE_SEED` runs that one seed, as in the tests.
#[must_use]
pub fn main(kinds: &[Kind<'_>], arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let began = Instant::now();
    let outcome = asked(kinds, &arguments).and_then(|(kind, units, seed)| {
        match std::env::var("REVTREE_SEED") {
            Err(_) => run(kind, units, seed),
            Ok(only) => {
                let seed = only
                    .trim()
                    .parse()
                    .map_err(|_| format!("REVTREE_SEED={only}"))?;
                run(kind, 1, seed)
            }
        }
    });
    match outcome {
        Ok(summary) => {
            // Told, and compared with nothing.
            let took = began.elapsed().as_secs_f64();
            println!(
                "{:.0} {} a second",
                summary.tally.units as f64 / took,
                summary.unit
            );
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// The kind, the number of units and the first seed that a command line asks for.
fn asked<'k, 'a>(
    kinds: &'k [Kind<'a>],
    arguments: &[&str],
) -> Result<(&'k Kind<'a>, u64, u64), String> {
    let usage = || {
        let line =
            |kind: &Kind<'_>| format!("campaign {} [--{} N] [--seed S]", kind.name, kind.unit);
        kinds.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let (name, mut options) = arguments.split_first().ok_or_else(usage)?;
    let kind = kinds
        .iter()
        .find(|kind| kind.name == *name)
        .ok_or_else(usage)?;
    let (mut units, mut seed) = (kind.units, 0);
    while let [option, number, rest @ ..] = options {
        let number = number.replace('_', "").parse().map_err(|_| usage())?;
        match option.strip_prefix("--") {
            Some("seed") => seed = number,
            Some(unit) if unit == kind.unit => units = number,
            _ => return Err(usage()),
        }
        options = rest;
    }
    if options.is_empty() {
        Ok((kind, units, seed))
    } else {
        Err(usage())
    }
}

/// Runs histories on all cores, from `seed` on, until they have `units` in all.
///
/// # Errors
///
/// What the first history says that failed, with its seed.
pub fn run(kind: &Kind<'_>, units: u64, seed: u64) -> Result<Summary, String> {
    let next = AtomicU64::new(seed);
    let done = Mutex::new(Tally::default());
    let histories = AtomicU64::new(0);
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let failure = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let tally = || done.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while tally().units < units && failure().is_none() {
            let first = seed;
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if kind.counts_histories() && seed - first >= units {
                break;
            }
            let history = AssertUnwindSafe(|| (kind.history)(seed));
            match catch_unwind(history).unwrap_or_else(|_| Err("it panicked".to_owned())) {
                Ok(count) => {
                    tally().add(&count);
                    histories.fetch_add(1, Ordering::Relaxed);
                }
                Err(sentence) => {
                    let mut failure = failure();
                    if failure.as_ref().is_none_or(|(first, _)| seed < *first) {
                        *failure = Some((seed, sentence));
                    }
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    // A pool of one for each: what the store does in parallel stays on the history's thread. Stores of some
    // kilobytes would only wait for another thread to wake up.
    let alone = || match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(alone);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failed {
        Some((seed, sentence)) => Err(format!(
            "{sentence}\n{0}: seed {seed} failed; replay with `cargo xtask {0}` and REVTREE_SEED={seed}",
            kind.name
        )),
        None => Ok(Summary {
            name: kind.name.to_owned(),
            unit: kind.unit.to_owned(),
            tally: done.into_inner().unwrap_or_else(PoisonError::into_inner),
            histories: histories.into_inner(),
            seed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::{Kind, Tally, asked, run};

    /// Seeds come in order, none twice, until there are enough units.
    #[test]
    fn runs_until_enough() {
        let seeds = Mutex::new(BTreeSet::new());
        let history = |seed| {
            assert!(seeds.lock().unwrap().insert(seed));
            Ok(10.into())
        };
        let kind = Kind {
            name: "model",
            unit: "ops",
            units: 5,
            history: &history,
        };
        let summary = run(&kind, 95, 40).unwrap();
        assert!(summary.tally.units >= 95);
        assert_eq!(summary.tally.units, summary.histories * 10);
        let tried = seeds.into_inner().unwrap();
        assert_eq!(tried, (40..40 + summary.histories).collect());
    }

    /// Where histories are counted there are exactly so many, and their calls are added up.
    #[test]
    fn runs_so_many_histories() {
        let kind = Kind {
            name: "faults",
            unit: "histories",
            units: 5,
            history: &|_| {
                Ok(Tally {
                    units: 1,
                    kinds: [("writes", 3), ("syncs", 1)].into(),
                    runs: 9,
                    ..Tally::default()
                })
            },
        };
        let summary = run(&kind, 7, 40).unwrap();
        assert_eq!(summary.histories, 7);
        assert_eq!(
            summary.to_string().lines().last(),
            Some("faults: 7 histories, 28 calls failed, 0 lost, 0 wrong")
        );
        assert!(summary.to_string().contains("21 writes"));
    }

    /// A failing history ends it, and its seed is said.
    #[test]
    fn a_failure_names_its_seed() {
        let history = |seed| {
            if seed == 3 {
                Err("bad".to_owned())
            } else {
                Ok(1.into())
            }
        };
        let kind = Kind {
            name: "crash",
            unit: "images",
            units: 5,
            history: &history,
        };
        let sentence = run(&kind, 1_000_000, 0).unwrap_err();
        assert!(
            sentence.contains("bad") && sentence.ends_with("REVTREE_SEED=3"),
            "{sentence}"
        );
        assert!(run(&kind, 1_000, 4).is_ok());
        let history = |seed| {
            if seed == 3 {
                panic!("meant to")
            } else {
                Ok(1.into())
            }
        };
        let kind = Kind {
            history: &history,
            ..kind
        };
        assert!(
            run(&kind, 1_000_000, 0)
                .unwrap_err()
                .contains("seed 3 failed")
        );
    }

    /// The command line says what runs; what it cannot mean is refused.
    #[test]
    fn the_command_line() {
        let kind = Kind {
            name: "crash",
            unit: "images",
            units: 5,
            history: &|_| Ok(1.into()),
        };
        let kinds = [kind];
        let asked = |words: &[&str]| asked(&kinds, words).map(|(_, units, seed)| (units, seed));
        assert_eq!(asked(&["crash"]), Ok((5, 0)));
        assert_eq!(
            asked(&["crash", "--seed", "9", "--images", "50_000"]),
            Ok((50_000, 9))
        );
        for words in [
            &[][..],
            &["crush"],
            &["crash", "--ops", "3"],
            &["crash", "--seed"],
        ] {
            assert!(asked(words).is_err(), "{words:?}");
        }
    }
}
