//! The mutants of cargo-mutants, all in one build (F35).
//!
//! cargo-mutants builds the tree once for each of its mutants, which takes minutes for each of some thousands.
//! Here one copy of the tree has all of them beside each other, a number chooses one when a test begins, and
//! only tests that meet the mutant's code run on it, until one fails.
//!
//! `cargo xtask mutants` calls it, and says which files belong to which area. What came of each mutant is
//! written to `outcomes.txt`; `--again` runs only those that were missed the last time, with the tests that
//! there are since then.
//!
//! * [`list`]: the mutants, from cargo-mutants.
//! * [`weave`]: all mutants of a file in one text.
//! * [`copy`]: a copy of the tree with them, and what is built of it; [`on`](../on.rs) chooses there.
//! * [`trial`]: the tests, and what they say of a mutant.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

mod copy;
mod list;
mod trial;
mod weave;

use copy::{Copy, Out};
use trial::{Outcome, Tests};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// No mutant is tried for longer, if nothing else is said, as its tests take without it; the likeliest are first.
const ENOUGH_SECONDS: u64 = 60;

/// At the same time.
const WORKERS: usize = 2;

/// What the command line says.
#[derive(Default)]
struct Wanted {
    root: PathBuf,
    folder: PathBuf,
    not: Vec<String>,
    /// Areas, with their files: all areas are woven.
    areas: Vec<(String, Vec<String>)>,
    /// Those that run.
    only: Option<String>,
    sample: Option<usize>,
    seed: u64,
    /// So long each mutant is tried at most.
    seconds: Option<u64>,
    /// Run only what was missed the last time.
    again: bool,
}

fn main() -> Result<()> {
    let wanted = Wanted::read()?;
    fs::create_dir_all(&wanted.folder)?;
    let globs: Vec<&str> = wanted
        .areas
        .iter()
        .flat_map(|(_, globs)| globs)
        .map(String::as_str)
        .collect();
    let not: Vec<&str> = wanted.not.iter().map(String::as_str).collect();
    let mutants = list::mutants(&wanted.root, &globs, &not)?;
    println!("{} mutants", mutants.len());
    let copy = Copy::of(&wanted.root, wanted.folder.join("tree"))?;
    let known = wanted.folder.join("not-built.txt");
    let out = if wanted.again {
        Out::read(&known, &mutants)
    } else {
        Out::default()
    };
    let out = copy.weave(&mutants, out)?;
    out.write(&known, &mutants)?;
    let programs = copy.build()?;
    println!("{} programs", programs.len());
    let scratch = wanted.folder.join("scratch");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    // Tests are known by the numbers of what they meet.
    let mut hasher = DefaultHasher::new();
    mutants
        .iter()
        .for_each(|mutant| mutant.name.hash(&mut hasher));
    let tests_file = wanted
        .folder
        .join(format!("tests-{:x}.txt", hasher.finish()));
    if !wanted.again {
        let _ = fs::remove_file(&tests_file);
    }
    let tests = Tests::of(programs, scratch, &tests_file)?;
    println!("{} tests", tests.tests.len());

    let before = Outcomes::read(&wanted)?;
    for (name, outcome) in &before.known {
        if let (Outcome::Caught(by), Some((file, _))) = (outcome, name.split_once(':')) {
            tests.has_caught(by, file);
        }
    }
    let enough = Duration::from_secs(wanted.seconds.unwrap_or(ENOUGH_SECONDS));
    for (area, globs) in &wanted.areas {
        if wanted.only.as_ref().is_some_and(|only| only != area) {
            continue;
        }
        let of_area = |file: &str| {
            globs
                .iter()
                .any(|glob| file.starts_with(glob.trim_end_matches("**")))
        };
        let all: Vec<usize> = (0..mutants.len())
            .filter(|&n| of_area(&mutants[n].file))
            .collect();
        let chosen = sample(&all, wanted.sample, wanted.seed);
        let unviable = chosen.iter().filter(|n| out.unviable.contains(n)).count();
        let not_woven = chosen.iter().filter(|n| out.not_woven.contains(n)).count();
        for number in chosen.iter().filter(|n| out.not_woven.contains(n)) {
            println!("not woven: {}", mutants[*number].name);
        }
        let runs: Vec<usize> = chosen
            .iter()
            .copied()
            .filter(|n| !out.unviable.contains(n) && !out.not_woven.contains(n))
            .collect();
        let outcomes = Queue::new(runs).work(|number| {
            let name = &mutants[number].name;
            if let Some(outcome) = before.of(name) {
                return Ok(outcome);
            }
            let outcome = tests.run(number, &mutants[number].file, enough)?;
            before.write(name, &outcome)?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(outcome)
        });
        let (mut caught, mut missed, mut timeout) = (0_u64, 0, 0);
        for outcome in outcomes {
            match outcome? {
                Outcome::Caught(_) => caught += 1,
                Outcome::Timeout(_) => timeout += 1,
                Outcome::Missed | Outcome::NotMet => missed += 1,
            }
        }
        let (all, tried) = (all.len(), chosen.len());
        let score = (caught * 100).checked_div(caught + missed).unwrap_or(0);
        println!(
            "{area}: {all} mutants, {tried} tried, {caught} caught, {missed} missed, {timeout} out of time, \
             {unviable} do not compile, {not_woven} not woven, score {score} %"
        );
    }
    Ok(())
}

impl Wanted {
    fn read() -> Result<Wanted> {
        let mut wanted = Wanted::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} of what?"));
            match word.as_str() {
                "--root" => wanted.root = value()?.into(),
                "--folder" => wanted.folder = value()?.into(),
                "--not" => wanted.not.push(value()?),
                "--area" => {
                    let name = value()?;
                    let glob = value()?;
                    match wanted.areas.last_mut().filter(|(last, _)| *last == name) {
                        Some((_, globs)) => globs.push(glob),
                        None => wanted.areas.push((name, vec![glob])),
                    }
                }
                "--only" => wanted.only = Some(value()?),
                "--sample" => wanted.sample = Some(value()?.parse()?),
                "--seed" => wanted.seed = value()?.parse()?,
                "--seconds" => wanted.seconds = Some(value()?.parse()?),
                "--again" => wanted.again = true,
                other => return Err(format!("no such option: {other}").into()),
            }
        }
        Ok(wanted)
    }
}

/// `count` of them, in equal distances, beginning where the seed says.
fn sample(all: &[usize], count: Option<usize>, seed: u64) -> Vec<usize> {
    let Some(count) = count.filter(|&count| count > 0 && count < all.len()) else {
        return all.to_vec();
    };
    let shift = usize::try_from(seed).unwrap_or(0) % all.len();
    let mut chosen: Vec<usize> = (0..count)
        .map(|n| all[(n * all.len() / count + shift) % all.len()])
        .collect();
    chosen.sort_unstable();
    chosen
}

/// What was found, a line for each mutant, also of a run that was ended early.
struct Outcomes {
    path: PathBuf,
    known: BTreeMap<String, Outcome>,
    lock: Mutex<()>,
}

impl Outcomes {
    fn read(wanted: &Wanted) -> Result<Outcomes> {
        let path = wanted.folder.join("outcomes.txt");
        let mut known = BTreeMap::new();
        if wanted.again {
            let mut kept = String::new();
            for line in fs::read_to_string(&path).unwrap_or_default().lines() {
                let mut fields = line.split('\t');
                if let (Some(what), Some(name), Some(by)) =
                    (fields.next(), fields.next(), fields.next())
                {
                    let outcome = match what {
                        "caught" => Outcome::Caught(by.to_owned()),
                        "timeout" => Outcome::Timeout(by.to_owned()),
                        _ => continue,
                    };
                    known.insert(name.to_owned(), outcome);
                    writeln!(kept, "{line}")?;
                }
            }
            fs::write(&path, kept)?;
        } else {
            fs::write(&path, "")?;
        }
        Ok(Outcomes {
            path,
            known,
            lock: Mutex::new(()),
        })
    }

    fn of(&self, name: &str) -> Option<Outcome> {
        self.known.get(name).cloned()
    }

    fn write(&self, name: &str, outcome: &Outcome) -> Result<()> {
        use std::io::Write as _;
        let (what, by) = match outcome {
            Outcome::Caught(by) => ("caught", by.as_str()),
            Outcome::Timeout(by) => ("timeout", by.as_str()),
            Outcome::Missed => ("missed", ""),
            Outcome::NotMet => ("missed", "no test runs it"),
        };
        let _lock = self.lock.lock();
        if what == "missed" {
            println!("missed: {name} {by}");
        }
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(&self.path)?;
        writeln!(file, "{what}\t{name}\t{by}")?;
        Ok(())
    }
}

/// Work for several threads.
pub struct Queue<T> {
    left: Mutex<VecDeque<(usize, T)>>,
}

impl<T: Send> Queue<T> {
    pub fn new(all: Vec<T>) -> Queue<T> {
        let left = Mutex::new(all.into_iter().enumerate().collect());
        Queue { left }
    }

    /// What each came to, in order.
    pub fn work<R: Send>(self, work: impl Fn(T) -> R + Sync) -> Vec<R> {
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let next = self
                            .left
                            .lock()
                            .expect("nothing panics with it")
                            .pop_front();
                        let Some((number, next)) = next else { break };
                        let came_to = work(next);
                        done.lock()
                            .expect("nothing panics with it")
                            .insert(number, came_to);
                    }
                });
            }
        });
        let done = done.into_inner().expect("nothing panics with it");
        done.into_values().collect()
    }
}
