//! The workloads of one engine, in the three processes that one pass gives it.
//!
//! `load` fills a store and closes it (A, I); `work` opens it in a fresh process, so that the cost
//! and the memory of opening are its own (G), and runs what reads or goes on writing (B, B2, C, E,
//! A2, A3, D); `compact` fills a second store (F), so that every engine compacts the same
//! revisions whatever it wrote in D. F1, F2 and H are of revtree alone. Nothing here knows which engine it drives.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{Data, key};
use crate::engines::{Engine, SyncRule};
use crate::measure::figure;

#[cfg(feature = "revtree")]
mod clean;
mod compact;
mod durable;
mod hash;
mod load;
mod mixed;
mod puts;
mod reads;
mod txns;
#[cfg(feature = "revtree")]
pub(crate) mod watch;

/// The workloads, in the order of the table's rows.
pub(crate) const WORKLOADS: &[&str] = &[
    "A", "A2", "A3", "B", "B2", "C", "D", "E", "F", "F1", "F2", "G", "H0", "H1", "H2", "H3", "H4",
    "HI", "HM", "I",
];

/// Those of watchers, which only revtree has.
pub(crate) const WATCHING: &[&str] = &["H0", "H1", "H2", "H3", "H4", "HI", "HM"];

/// That of them which measures memory: in a process in which nothing else has taken and given back any.
const WATCHERS_MEMORY: &[&str] = &["HM"];

/// Bytes of a revision as the peers encode it; rates of E count them for every engine.
pub(crate) const RECORD_BYTES: u64 = 598;

/// How much is done and how long.
#[derive(Clone)]
pub(crate) struct Scale {
    pub(crate) keys: u32,
    pub(crate) revs_per_key: u32,
    /// Runs of everything; medians are taken over them.
    pub(crate) passes: u32,
    /// One run of B, B2, C, A3.
    pub(crate) short: Duration,
    /// One run of A2, half of it the raw disk's.
    pub(crate) durable: Duration,
    pub(crate) mixed: Duration,
    /// The idle store of F before it compacts.
    pub(crate) idle: Duration,
}

impl Scale {
    /// The figures of record: 1M revisions.
    pub(crate) const FULL: Scale = Scale {
        keys: 200_000,
        revs_per_key: 5,
        passes: 3,
        short: Duration::from_secs(2),
        durable: Duration::from_secs(4),
        mixed: Duration::from_secs(10),
        idle: Duration::from_secs(2),
    };
    /// A look in under two minutes.
    pub(crate) const QUICK: Scale = Scale {
        keys: 40_000,
        revs_per_key: 5,
        passes: 3,
        short: Duration::from_millis(150),
        durable: Duration::from_millis(400),
        mixed: Duration::from_millis(600),
        idle: Duration::from_millis(300),
    };
}

/// A process of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Stage {
    Load,
    Work,
    Compact,
    Clean,
    Watch,
    Memory,
    Raw,
}

impl Stage {
    /// The stages that the chosen workloads need; the last is not an engine's.
    pub(crate) fn of(only: &BTreeSet<String>) -> Vec<Stage> {
        let (mut stages, wants) = (Vec::new(), |names: &[&str]| {
            names.iter().any(|&n| only.contains(n))
        });
        if wants(&["A", "A2", "A3", "B", "B2", "C", "D", "E", "G", "I"]) {
            stages.push(Stage::Load);
        }
        if wants(&["A2", "A3", "B", "B2", "C", "D", "E", "G"]) {
            stages.push(Stage::Work);
        }
        if wants(&["F"]) {
            stages.push(Stage::Compact);
        }
        if wants(&["F1", "F2"]) {
            stages.push(Stage::Clean);
        }
        if WATCHING
            .iter()
            .any(|name| only.contains(*name) && !WATCHERS_MEMORY.contains(name))
        {
            stages.push(Stage::Watch);
        }
        if wants(WATCHERS_MEMORY) {
            stages.push(Stage::Memory);
        }
        stages.push(Stage::Raw);
        stages
    }

    /// Whether an engine has the stage.
    pub(crate) fn is_of(self, engine: &str) -> bool {
        match self {
            Stage::Raw => engine == "raw",
            Stage::Clean | Stage::Watch | Stage::Memory => engine == "revtree",
            Stage::Load | Stage::Work | Stage::Compact => engine != "raw",
        }
    }
}

/// What a stage works with.
pub(crate) struct Context<'a> {
    pub(crate) data: &'a Data,
    pub(crate) scale: &'a Scale,
    pub(crate) only: &'a BTreeSet<String>,
    /// The directory of this engine.
    pub(crate) dir: PathBuf,
    pub(crate) report: &'a dyn Fn(&str, &str, f64, &str),
}

impl Context<'_> {
    pub(crate) fn wants(&self, workload: &str) -> bool {
        self.only.contains(workload)
    }

    pub(crate) fn report(&self, workload: &str, metric: &str, value: f64, unit: &str) {
        (self.report)(workload, metric, value, unit);
    }

    /// An empty directory of that name for this engine.
    fn fresh_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }
}

/// Runs one stage of one engine.
pub(crate) fn run<E: Engine>(stage: Stage, context: &Context<'_>) -> Result<()> {
    match stage {
        Stage::Load => load::run::<E>(context),
        Stage::Work => work::<E>(context),
        Stage::Compact => compact::run::<E>(context),
        #[cfg(feature = "revtree")]
        Stage::Clean => clean::run(context),
        #[cfg(feature = "revtree")]
        Stage::Watch => watch::run(context, |name| !WATCHERS_MEMORY.contains(&name)),
        #[cfg(feature = "revtree")]
        Stage::Memory => watch::run(context, |name| WATCHERS_MEMORY.contains(&name)),
        #[cfg(not(feature = "revtree"))]
        Stage::Clean | Stage::Watch | Stage::Memory => Err("only revtree has these".into()),
        Stage::Raw => Err("the raw limits are not an engine".into()),
    }
}

fn work<E: Engine>(context: &Context<'_>) -> Result<()> {
    let dir = context.store_dir();
    warm(&dir)?;
    let engine: E = open(context, &dir)?;
    reads::run(context, &engine)?;
    hash::run(context, &engine)?;
    let engine = durable::run(context, &dir, engine)?;
    txns::run(context, &engine)?;
    mixed::run(context, &engine)?;
    engine.close()
}

/// Reads every file of a store, so that all engines begin with their bytes in the page cache. The peers'
/// scan of all records at open does it too, but an engine that reads no record then would meet the disk in
/// its first gets wherever the system drops what is written and not read.
fn warm(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            warm(&entry.path())?;
        } else {
            std::io::copy(
                &mut std::fs::File::open(entry.path())?,
                &mut std::io::sink(),
            )?;
        }
    }
    Ok(())
}

/// G: from nothing to the first verified read.
fn open<E: Engine>(context: &Context<'_>, dir: &Path) -> Result<E> {
    let before = crate::measure::Memory::now()?;
    let start = Instant::now();
    let engine = E::open(dir, SyncRule::Batched)?;
    let id = context.data.key_count() / 2;
    let found = engine.get(&key(id), None, |value| {
        context.data.check(id, value).map(|_| ())
    })?;
    let took = start.elapsed();
    if !found || engine.rev() != context.data.loaded_rev() {
        return Err(format!("opened at revision {}, first read: {found}", engine.rev()).into());
    }
    if context.wants("G") {
        let memory = crate::measure::Memory::now()?;
        let grown = |after: u64, before: u64| figure(after.saturating_sub(before)) / 1024.0;
        context.report("G", "open", engine.opened_in().as_secs_f64(), "s");
        context.report("G", "open_and_index", took.as_secs_f64(), "s");
        context.report("G", "rss", grown(memory.resident, before.resident), "MiB");
        context.report(
            "G",
            "rss_anon",
            grown(memory.anonymous, before.anonymous),
            "MiB",
        );
    }
    Ok(engine)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::engines::{Source, fjall::Fjall, lmdb::Lmdb, redb::Redb};
    use crate::layer::{Layer, Store};
    use crate::workloads::puts::Puts;

    const TINY: Scale = Scale {
        keys: 1500,
        revs_per_key: 3,
        passes: 1,
        short: Duration::from_millis(5),
        durable: Duration::from_millis(5),
        mixed: Duration::from_millis(20),
        idle: Duration::from_millis(5),
    };

    /// Every workload must end without a wrong answer and report its headline.
    fn check_all_workloads<E: Engine>() {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::new(5, TINY.keys, TINY.revs_per_key);
        let only = WORKLOADS.iter().map(|&name| name.to_owned()).collect();
        let reported = RefCell::new(BTreeSet::new());
        let report = |workload: &str, metric: &str, value: f64, _: &str| {
            assert!(value.is_finite(), "{workload} {metric}: {value}");
            reported.borrow_mut().insert(format!("{workload} {metric}"));
        };
        let dir = dir.path().to_owned();
        let context = Context {
            data: &data,
            scale: &TINY,
            only: &only,
            dir,
            report: &report,
        };
        for stage in [Stage::Load, Stage::Work, Stage::Compact] {
            run::<E>(stage, &context).unwrap();
        }
        for headline in [
            "A puts",
            "A2 durable_puts",
            "A2 group_32",
            "A3 txn100_puts",
            "B gets_1t",
            "B gets_2t",
            "B2 gets_1t",
            "C range1000",
            "C count_only",
            "D gets",
            "D get_p999",
            "D puts",
            "E hash_2t",
            "F wall",
            "G open_and_index",
            "I file_allocated",
        ] {
            assert!(
                reported.borrow().contains(headline),
                "{headline} is missing"
            );
        }
    }

    #[test]
    fn redb_runs_every_workload() {
        check_all_workloads::<Layer<Redb>>();
    }

    #[test]
    fn lmdb_runs_every_workload() {
        check_all_workloads::<Layer<Lmdb>>();
    }

    #[test]
    fn fjall_runs_every_workload() {
        check_all_workloads::<Layer<Fjall>>();
    }

    #[cfg(feature = "revtree")]
    #[test]
    fn revtree_runs_every_workload() {
        check_all_workloads::<crate::engines::revtree::Revtree>();
    }

    /// Hash of a store after singles and transactions of 100, a compaction and a reopen.
    fn history_hash<S: Store>(data: &Data) -> u32 {
        let dir = tempfile::tempdir().unwrap();
        let engine = Layer::<S>::open(dir.path(), SyncRule::Batched).unwrap();
        engine.write(1, &mut Puts::load(data)).unwrap();
        engine.write(100, &mut Puts::load(data)).unwrap();
        engine.compact(&mut Silent).unwrap();
        let hash = engine.hash(1).unwrap();
        engine.close().unwrap();
        let engine = Layer::<S>::open(dir.path(), SyncRule::Durable).unwrap();
        assert_eq!(engine.hash(1).unwrap(), hash);
        assert_eq!(
            engine.rev(),
            1 + data.put_count() + data.put_count().div_ceil(100)
        );
        engine.close().unwrap();
        hash.unwrap()
    }

    /// Never has a put due.
    struct Silent;

    impl Source for Silent {
        fn ready(&mut self) -> bool {
            false
        }
        fn next(&mut self) -> Option<(&[u8], &[u8])> {
            None
        }
        fn done(&mut self) {}
        fn synced(&mut self, _: Duration) {}
    }

    #[test]
    fn all_peers_store_the_same_bytes() {
        let data = Data::new(9, 400, 3);
        let hashes = [
            history_hash::<Redb>(&data),
            history_hash::<Lmdb>(&data),
            history_hash::<Fjall>(&data),
        ];
        assert_eq!(hashes, [hashes[0]; 3]);
    }
}
