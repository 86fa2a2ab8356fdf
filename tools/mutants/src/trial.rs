//! The tests, which of them meet which mutants, and what they say of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::copy::Program;

/// Campaigns that CI runs, shorter: some seconds each.
const CAMPAIGNS: &[&[&str]] = &[
    &["model", "--ops", "20000"],
    &["crash", "--images", "3000"],
    &["crash-threads", "--images", "1000"],
    &["histories", "--histories", "500"],
    &["faults", "--histories", "2"],
    &["worlds", "--worlds", "8"],
    &["fuzz", "--inputs", "1000"],
    &["watch-check", "--histories", "200"],
];

/// A test that takes longer without a mutant is left out.
const LONGEST: Duration = Duration::from_secs(30);

/// A process that takes more memory, in pages, is ended as one that takes too long.
const MEMORY_MAX: u64 = 1 << 20;

/// One test, or one campaign.
pub struct Test {
    pub program: usize,
    /// What the program is called with.
    pub arguments: Vec<String>,
    pub took: Duration,
    pub met: BTreeSet<usize>,
    /// It was not there in an earlier run.
    new: bool,
    /// How many mutants it has caught, in each file: it may well catch another there.
    caught: Mutex<BTreeMap<String, u32>>,
}

impl Test {
    fn has_caught(&self, file: &str) {
        let mut caught = self.caught.lock().expect("nothing panics with it");
        *caught.entry(file.to_owned()).or_default() += 1;
    }

    fn caught_in(&self, file: &str) -> u32 {
        let caught = self.caught.lock().expect("nothing panics with it");
        caught.get(file).copied().unwrap_or(0)
    }
}

/// All tests that end well without a mutant.
pub struct Tests {
    programs: Vec<Program>,
    pub tests: Vec<Test>,
    scratch: PathBuf,
}

/// What the tests say.
#[derive(Clone)]
pub enum Outcome {
    Caught(String),
    Timeout(String),
    Missed,
    /// No test runs the code.
    NotMet,
}

enum Ended {
    Well,
    Badly,
    Late,
}

impl Tests {
    /// Runs each test once, to see how long it takes and what it meets.
    pub fn of(programs: Vec<Program>, scratch: PathBuf, known: &Path) -> Result<Tests> {
        let mut tests = Tests {
            programs,
            tests: Vec::new(),
            scratch,
        };
        let mut wanted = Vec::new();
        for (number, program) in tests.programs.iter().enumerate() {
            if program.name.ends_with(":campaign") {
                let arguments = |campaign: &&[&str]| {
                    campaign
                        .iter()
                        .map(|&word| word.to_owned())
                        .collect::<Vec<_>>()
                };
                wanted.extend(
                    CAMPAIGNS
                        .iter()
                        .map(|campaign| (number, arguments(campaign))),
                );
                continue;
            }
            let mut list = Command::new(&program.path);
            list.current_dir(&program.folder)
                .args(["--list", "--format=terse"]);
            let all = String::from_utf8(list.output()?.stdout)?;
            let ignored = String::from_utf8(list.arg("--ignored").output()?.stdout)?;
            let ignored: BTreeSet<&str> = ignored.lines().collect();
            let names = all.lines().filter(|line| !ignored.contains(line));
            let names = names.filter_map(|line| line.strip_suffix(": test"));
            wanted.extend(names.map(|name| (number, vec![name.to_owned()])));
        }
        let before = tests.read(known)?;
        wanted.retain(|(program, arguments)| {
            !before.contains(&format!(
                "{}\t{}",
                tests.programs[*program].name,
                arguments.join(" ")
            ))
        });
        let queue = crate::Queue::new(wanted);
        let found = queue.work(|(program, arguments)| tests.first(program, arguments));
        for found in found {
            tests.tests.push(found?);
        }
        tests.write(known)?;
        Ok(tests)
    }

    /// What an earlier run wrote, and which tests it had, with those that were left out.
    fn read(&mut self, path: &Path) -> Result<BTreeSet<String>> {
        let mut known = BTreeSet::new();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, arguments, took, met] = fields[..] else {
                return Err(format!("not a test: {line}").into());
            };
            known.insert(format!("{name}\t{arguments}"));
            if let Some(program) = self.programs.iter().position(|it| it.name == name) {
                self.tests.push(Test {
                    program,
                    arguments: arguments.split(' ').map(str::to_owned).collect(),
                    took: Duration::from_micros(took.parse()?),
                    met: met
                        .split(' ')
                        .filter_map(|number| number.parse().ok())
                        .collect(),
                    new: false,
                    caught: Mutex::default(),
                });
            }
        }
        Ok(known)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for test in &self.tests {
            let met: Vec<String> = test.met.iter().map(ToString::to_string).collect();
            let program = &self.programs[test.program].name;
            let (arguments, took) = (test.arguments.join(" "), test.took.as_micros());
            writeln!(text, "{program}\t{arguments}\t{took}\t{}", met.join(" "))?;
        }
        Ok(fs::write(path, text)?)
    }

    fn first(&self, program: usize, arguments: Vec<String>) -> Result<Test> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let met = NEXT.fetch_add(1, Ordering::Relaxed);
        let met = self.scratch.join(format!("met-{met}"));
        let _ = fs::remove_file(&met);
        let begun = Instant::now();
        let mut command = self.command(program, &arguments);
        command.env("MUTANTS_MET", &met);
        let ended = self.end(command, LONGEST * 2)?;
        let took = begun.elapsed();
        let what = format!("{} {}", self.programs[program].name, arguments.join(" "));
        if !matches!(ended, Ended::Well) || took > LONGEST {
            println!("left out: {what} after {} ms", took.as_millis());
            fs::write(&met, "")?;
        }
        let met = fs::read_to_string(&met).unwrap_or_default();
        Ok(Test {
            program,
            arguments,
            took,
            met: met.lines().filter_map(|line| line.parse().ok()).collect(),
            new: true,
            caught: Mutex::default(),
        })
    }

    /// Takes over that a test has caught a mutant of this file before.
    pub fn has_caught(&self, by: &str, file: &str) {
        let name = |test: &Test| {
            format!(
                "{} {}",
                self.programs[test.program].name,
                test.arguments.join(" ")
            )
        };
        if let Some(test) = self.tests.iter().find(|test| name(test) == by) {
            test.has_caught(file);
        }
    }

    /// Runs the tests that meet a mutant of `file` on it, the likeliest first, until one fails or they have taken
    /// `enough`, as they take without it.
    pub fn run(&self, mutant: usize, file: &str, enough: Duration) -> Result<Outcome> {
        let mut order: Vec<&Test> = self
            .tests
            .iter()
            .filter(|t| t.met.contains(&mutant))
            .collect();
        if order.is_empty() {
            return Ok(Outcome::NotMet);
        }
        order.sort_by_key(|test| {
            let caught = u128::from(test.caught_in(file));
            (
                // What lived before has met the others.
                !test.new,
                self.waits(test),
                (test.took.as_micros() + 3000) / (8 * caught + 1),
            )
        });
        // Tests that wait for each other have time of their own.
        let mut left = [enough, enough];
        order.retain(|test| {
            let left = &mut left[usize::from(self.waits(test))];
            *left = left.saturating_sub(test.took);
            !left.is_zero()
        });
        let mut rest = &order[..];
        let mut batch = Duration::from_millis(200);
        while !rest.is_empty() {
            let mut sum = Duration::ZERO;
            let fit = rest.iter().take_while(|test| {
                sum += test.took;
                sum <= batch
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            rest = later;
            batch *= 3;
            for program in 0..self.programs.len() {
                let of_it: Vec<&Test> = now
                    .iter()
                    .copied()
                    .filter(|test| test.program == program)
                    .collect();
                let together = !self.programs[program].name.ends_with(":campaign");
                let runs: Vec<&[&Test]> = if together {
                    vec![&of_it]
                } else {
                    of_it.chunks(1).collect()
                };
                for run in runs.into_iter().filter(|run| !run.is_empty()) {
                    if let Some(outcome) = self.batch(mutant, file, program, run)? {
                        return Ok(outcome);
                    }
                }
            }
        }
        Ok(Outcome::Missed)
    }

    /// Whether threads of a test wait for each other: where one fails, the others may wait for ever.
    fn waits(&self, test: &Test) -> bool {
        self.programs[test.program].name == ":conc" || test.arguments[0].contains("concurrent")
    }

    fn batch(
        &self,
        mutant: usize,
        file: &str,
        program: usize,
        tests: &[&Test],
    ) -> Result<Option<Outcome>> {
        let arguments: Vec<String> = tests.iter().flat_map(|t| t.arguments.clone()).collect();
        let mut command = self.command(program, &arguments);
        command.env("MUTANT", mutant.to_string());
        let took: Duration = tests.iter().map(|test| test.took).sum();
        let log = self.scratch.join(format!("log-{mutant}"));
        command.stdout(fs::File::create(&log)?);
        let ended = self.end(command, Duration::from_secs(10) + took * 8)?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let _ = fs::remove_file(&log);
        let name = &self.programs[program].name;
        let by = |arguments: &[String]| format!("{name} {}", arguments.join(" "));
        match ended {
            Ended::Well => Ok(None),
            Ended::Late => Ok(Some(Outcome::Timeout(by(&arguments)))),
            Ended::Badly => {
                let failed = tests.iter().find(|test| {
                    let fails = format!("test {} ... FAILED", test.arguments[0]);
                    text.contains(&fails)
                });
                let test = failed.unwrap_or(&tests[0]);
                test.has_caught(file);
                Ok(Some(Outcome::Caught(by(&test.arguments))))
            }
        }
    }

    fn command(&self, program: usize, arguments: &[String]) -> Command {
        let Program { path, folder, name } = &self.programs[program];
        let mut command = Command::new(path);
        command.args(arguments).current_dir(folder);
        if !name.ends_with(":campaign") {
            command.args(["--exact", "--test-threads=1"]);
        }
        command.env("CARGO_MANIFEST_DIR", folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs in a process group and in a folder for temporary files of its own, of which nothing is left.
    fn end(&self, mut command: Command, most: Duration) -> Result<Ended> {
        use std::os::unix::process::CommandExt;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = self
            .scratch
            .join(format!("tmp-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder)?;
        command.env("TMPDIR", &folder).process_group(0);
        let mut child = command.spawn()?;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        let ended = loop {
            if let Some(status) = child.try_wait()? {
                break if status.success() {
                    Ended::Well
                } else {
                    Ended::Badly
                };
            }
            if begun.elapsed() > most || memory(child.id()) > MEMORY_MAX {
                break Ended::Late;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        // Also what it has started and left.
        let group = format!("-{}", child.id());
        let mut kill = Command::new("kill");
        kill.args(["-9", "--", &group])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _ = kill.status();
        let _ = child.wait();
        remove(&folder);
        Ok(ended)
    }
}

/// How much a process has, in pages; a mutant may want more and more.
fn memory(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let resident = text.split(' ').nth(1);
    resident.and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

fn remove(folder: &Path) {
    if fs::remove_dir_all(folder).is_err() {
        let mut chmod = Command::new("chmod");
        let _ = chmod.args(["-R", "u+rwX"]).arg(folder).status();
        let _ = fs::remove_dir_all(folder);
    }
}
