//! `git_history [REPO] [STORE]`: the history of a git repository as a store, compared with git.
//!
//! Each commit of the first-parent history becomes one transaction; a path is a key, a blob a value,
//! a deletion a delete. So every commit can be read at its revision. A merge is compared with its
//! first parent; a commit that changes nothing makes no revision. A symbolic link's value is where
//! it points, a submodule's the id of its commit.
//!
//! Values are the blobs and nothing else. A mode that is not that of a plain file (executable, link,
//! submodule) is the value of a second key, the path with a NUL behind it: no path has one, and it
//! has versions as all keys do. The key `\0commit` holds the id of the commit; its history is the
//! list of all commits.
//!
//! Then commits from the whole history are read back and every path and byte is compared with git;
//! the same again after a compaction to the middle, and after closing and opening. Any difference
//! ends the program with status 1.
//!
//! Without arguments it takes the repository it is started in, or makes one where there is none.
//! `--made` makes one in any case: small, with one of each thing that is odd.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use revtree::{
    DEFAULT_IGNORES, Db, Durability, Error, Hash, HashKv, KeyRange, Options, ReadView, Revision,
};

mod compare;
mod git;
mod load;
mod made;

use compare::Compared;
use git::{Blobs, Git};

/// The key that names the commit.
const COMMIT: &str = "\0commit";
/// The store's limits for a key, less the byte of [`mode_key`], and for a value.
const PATH_BYTES_MAX: usize = 65_534;
const BLOB_BYTES_MAX: u64 = 256 << 20;
/// So many commits are compared whole, spread over the history, with the first and the last.
const PICKS: usize = 10;

/// The key of a path's mode: directly behind the path in key order.
fn mode_key(path: &[u8]) -> Vec<u8> {
    [path, b"\0"].concat()
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(differences) => {
            eprintln!("git_history: {differences} differences");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("git_history: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The whole story; gives the number of differences.
fn run() -> Result<u64> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if arguments.len() > 2 || arguments.iter().any(|a| a == Path::new("--help")) {
        bail!("git_history [REPO | --made] [STORE]");
    }
    let scratch = tempfile::tempdir()?;
    let git = repository(arguments.first().map(PathBuf::as_path), scratch.path())?;
    let store = arguments
        .get(1)
        .cloned()
        .unwrap_or_else(|| scratch.path().join("history.rvt"));

    let commits = git.commits()?;
    let cut = if git.is_shallow()? {
        ", a shallow clone: the first one has no parent here"
    } else {
        ""
    };
    println!("{} commits along first parents{cut}", commits.len());
    let db = open(&store)?;
    let loaded = load::load(&db, &git, &commits)?;
    say_loaded(&loaded);

    let mut blobs = git.blobs()?;
    let mut compared = Compared::default();
    let now = db.read()?;
    let readable = compare::revisions(&now, &commits)?;
    let picks = pick(&commits, &readable);
    let began = Instant::now();
    compare_all(&db, &git, &picks, &mut blobs, &mut compared)?;
    say_compared("as loaded", &compared, began.elapsed());
    show_busiest(&now, &git, &commits, &mut compared)?;
    let hash = db.hash_by_rev(now.rev())?;
    println!(
        "hash of the keys {:08x}, of all {:08x}",
        hash.hash,
        db.hash(DEFAULT_IGNORES)?.hash
    );

    // A view that is held stays exact across the compaction of what it reads.
    let Some(middle) = picks.get(picks.len() / 2) else {
        println!("no commit changed anything, so there is no revision to read");
        drop(now);
        db.close()?;
        return Ok(compared.differences);
    };
    let held = db.read_at(picks[0].1)?;
    let below: Vec<_> = picks
        .iter()
        .filter(|pick| pick.1 < middle.1)
        .cloned()
        .collect();
    let above: Vec<_> = picks
        .iter()
        .filter(|pick| pick.1 >= middle.1)
        .cloned()
        .collect();
    let live = now.range(KeyRange::all()).count()?;
    drop(now);
    let began = Instant::now();
    if db
        .compact_rev()
        .is_none_or(|compacted| compacted < middle.1)
    {
        let outcome = db.compact(middle.1)?.wait();
        println!(
            "compacted to revision {} in {}: {outcome:?}",
            middle.1,
            time(began.elapsed())
        );
    }
    let before = compared.trees;
    compare::tree(&held, &git, &picks[0].0, &mut blobs, &mut compared)?;
    drop(held);
    refused(&db, &below, &mut compared);
    compare_all(&db, &git, &above, &mut blobs, &mut compared)?;
    println!(
        "{} trees compared after it, {} refused",
        compared.trees - before,
        below.len()
    );

    let hash = hashes(&db)?;
    db.close()?;
    let began = Instant::now();
    let db = open(&store)?;
    println!("opened again in {}", time(began.elapsed()));
    if hash != hashes(&db)? {
        compared.differ("the hashes before and after closing");
    }
    refused(&db, &below, &mut compared);
    compare_all(&db, &git, &above, &mut blobs, &mut compared)?;

    let revision = db.rev();
    db.close()?;
    let file = std::fs::metadata(&store)?.len();
    println!(
        "{} commits, revision {revision}, {live} keys live; store {}, git {}",
        commits.len(),
        size(file),
        size(git.object_bytes()?)
    );
    println!(
        "{} trees, {} keys, {} compared: {} differences",
        compared.trees,
        compared.keys,
        size(compared.bytes),
        compared.differences
    );
    Ok(compared.differences)
}

/// The repository asked for, that of the folder we are in, or one made in `scratch`.
fn repository(asked: Option<&Path>, scratch: &Path) -> Result<Git> {
    let made = || {
        let folder = scratch.join("made.git");
        std::fs::create_dir(&folder)?;
        made::make(&folder)?;
        Git::open(&folder)
    };
    match asked {
        Some(path) if path == Path::new("--made") => made(),
        Some(path) => Git::open(path),
        None => Git::open(Path::new(".")).or_else(|why| {
            println!("{why:#}; one is made");
            made()
        }),
    }
}

/// A crash may cost the last moments of a load, which can be loaded again: one sync for many commits.
fn open(store: &Path) -> Result<Db> {
    let durability = Durability::Batched {
        changes: 10_000,
        interval: Duration::from_millis(100),
    };
    let db = Options::new().durability(durability).open(store);
    db.with_context(|| format!("the store {}", store.display()))
}

/// The hash of the keys and that of all. At the compact revision itself a store answers with the hash from
/// just before the compaction until it is closed, as etcd does, so that one is left out.
fn hashes(db: &Db) -> Result<(Option<HashKv>, Hash)> {
    let rev = db.rev();
    let above = db.compact_rev().is_none_or(|compacted| compacted < rev);
    let of_keys = above.then(|| db.hash_by_rev(rev)).transpose()?;
    Ok((of_keys, db.hash(DEFAULT_IGNORES)?))
}

/// The first, the last, and commits spread evenly between, each with its revision.
fn pick(commits: &[String], revisions: &[Option<Revision>]) -> Vec<(String, Revision)> {
    let readable: Vec<(String, Revision)> = commits
        .iter()
        .zip(revisions)
        .filter_map(|(commit, revision)| Some((commit.clone(), (*revision)?)))
        .collect();
    let last = readable.len().saturating_sub(1);
    let mut picks: Vec<_> = (0..=PICKS)
        .filter_map(|n| readable.get(last * n / PICKS).cloned())
        .collect();
    picks.dedup();
    picks
}

/// Compares the commits at their revisions, and the newest with the store as it is.
fn compare_all(
    db: &Db,
    git: &Git,
    picks: &[(String, Revision)],
    blobs: &mut Blobs,
    compared: &mut Compared,
) -> Result<()> {
    for (commit, revision) in picks {
        compare::tree(&db.read_at(*revision)?, git, commit, blobs, compared)?;
    }
    // The last commit is also what the store holds now: nothing came behind it.
    match picks.last() {
        Some((newest, _)) => compare::tree(&db.read()?, git, newest, blobs, compared),
        None => Ok(()),
    }
}

/// Below the compaction every read is refused, with the revision where history starts.
fn refused(db: &Db, below: &[(String, Revision)], compared: &mut Compared) {
    for (_, revision) in below {
        if !matches!(db.read_at(*revision), Err(Error::Compacted { .. })) {
            compared.differ(&format!(
                "revision {revision} was compacted, but can be read"
            ));
        }
    }
}

fn show_busiest(
    now: &ReadView,
    git: &Git,
    commits: &[String],
    compared: &mut Compared,
) -> Result<()> {
    if now.first_rev().is_some() {
        println!("the store was compacted before: no whole history to show");
        return Ok(());
    }
    let Some((path, count)) = compare::busiest(now)? else {
        return Ok(());
    };
    println!(
        "{} changed most, {count} times; the last:",
        path.escape_ascii()
    );
    let lines = compare::history(now, git, commits, &path, compared)?;
    for line in lines.iter().rev().take(5).rev() {
        println!("  {line}");
    }
    Ok(())
}

fn say_loaded(loaded: &load::Loaded) {
    let per_second = |n: u64| n as f64 / loaded.took.as_secs_f64().max(1e-9);
    println!(
        "loaded {} commits ({} empty) in {}: {} puts, {} deletes, {}; {:.0} commits/s, {:.0} changes/s, {}/s",
        loaded.commits,
        loaded.empty,
        time(loaded.took),
        loaded.puts,
        loaded.deletes,
        size(loaded.bytes),
        per_second(loaded.commits),
        per_second(loaded.puts + loaded.deletes),
        indicatif::HumanBytes(
            loaded.bytes * 1000 / u64::try_from(loaded.took.as_millis().max(1)).unwrap_or(u64::MAX)
        ),
    );
    if loaded.too_large > 0 {
        println!(
            "{} paths or blobs are over the store's limits and stay out",
            loaded.too_large
        );
    }
    if loaded.split > 0 {
        println!(
            "{} commits are over the limit of a transaction and took several",
            loaded.split
        );
    }
}

fn say_compared(when: &str, compared: &Compared, took: Duration) {
    println!(
        "compared {} trees with git {when}: {} keys, {}, in {}",
        compared.trees,
        compared.keys,
        size(compared.bytes),
        time(took)
    );
}

fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn time(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
