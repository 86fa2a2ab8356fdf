//! Each system call of a short life on the files of its store, one after the other: the process is killed inside
//! it, or the call fails.
//!
//! One run without any fault is written down by the tracer: the calls that name something in the store's folder are
//! those to be hit, each by its number among the calls of its name. A run that does not reach its call says so, and
//! is wrong: then the life is not the same each time, and something has been left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::check::Expected;
use super::plan::{Campaign, Each, End, Fault, Life};
use super::process::Process;
use super::{Kills, calls_can_fail};
use crate::campaign::Tally;

/// Each life is done in so many parts, so that all cores have some.
const SHARES: u64 = 4;
/// All parts of all lives; those of the two short ones come first.
pub const CALL_PARTS_MAX: u64 = SHARES * Each::LIVES;

/// A call to be hit: the `nth` of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    name: &'static str,
    nth: u64,
}

/// Calls on files that lives make, by the names of the tracer. Another one is an error: it would be left out.
const NAMES: [&str; 19] = [
    "openat",
    "pwrite64",
    "pread64",
    "fdatasync",
    "fsync",
    "fallocate",
    "ftruncate",
    "mmap",
    "statx",
    "fstat",
    "newfstatat",
    "lseek",
    "fcntl",
    "flock",
    "rename",
    "renameat2",
    "unlink",
    "close",
    "fstatfs",
];

/// In which ways a call is hit.
fn faults(name: &str) -> &'static [Fault] {
    match name {
        // The descriptor of a close that fails would stay open: no kernel does that.
        "close" => &[Fault::Kill],
        "pwrite64" | "fdatasync" | "fsync" | "fallocate" | "ftruncate" | "openat" | "rename"
        | "renameat2" => &[Fault::Kill, Fault::Error("EIO"), Fault::Error("ENOSPC")],
        _ => &[Fault::Kill, Fault::Error("EIO")],
    }
}

/// Hits a share of the calls of a life, each in each way, and looks at the store behind each.
///
/// # Errors
///
/// The first store that lost something or is wrong, and where its files are kept.
pub fn calls(part: u64) -> Result<Tally, String> {
    calls_can_fail()?;
    let each = Each::number(part / SHARES);
    let mut kills = Kills::new(Campaign::Each, each.seed(), None)?;
    let prepared = kills.prepare(&each)?;
    let targets = kills.targets(&each, &prepared)?;
    let ways = targets
        .iter()
        .flat_map(|target| faults(target.name).iter().map(|fault| (*target, *fault)));
    let mut count = 0;
    for (n, (target, fault)) in (0..).zip(ways) {
        if n % SHARES != part % SHARES {
            continue;
        }
        let Target { name, nth } = target;
        let life = each.life(End::Trace { name, nth, fault });
        kills.begin(&prepared, n)?;
        kills
            .hit(&each, &life)
            .map_err(|error| kills.keep(&format!("{error}\n  {life:?}")))?;
        count += 1;
        kills.forget()?;
    }
    kills.tally.units = 1;
    kills.tally.runs = count;
    Ok(kills.tally)
}

/// What a life finds: nothing, or a store that was not closed, and what is known of it.
struct Prepared {
    store: Option<Vec<u8>>,
    expected: Expected,
}

impl Kills {
    /// Makes the store that each of these lives begins with.
    fn prepare(&mut self, each: &Each) -> Result<Prepared, String> {
        self.path = self.folder.join("prepared");
        let expected = Expected::new(self.seed);
        if !each.finds_a_store {
            let store = None;
            return Ok(Prepared { store, expected });
        }
        self.expected = expected;
        let life = each.before();
        let mut process = Process::start(self.seed, each.number_before(), &life, &self.path)?;
        while let Some(line) = process.next() {
            self.expected.hear(&line)?;
        }
        process.died(&life)?;
        self.expected.all_heard()?;
        let store = fs::read(&self.path).map_err(|error| error.to_string())?;
        Ok(Prepared {
            store: Some(store),
            expected: self.expected.clone(),
        })
    }

    /// A store like the one that was prepared, in a place of its own.
    fn begin(&mut self, prepared: &Prepared, number: u64) -> Result<(), String> {
        let folder = self.folder.join(format!("calls{number}"));
        let made = fs::create_dir(&folder);
        made.map_err(|error| format!("{}: {error}", folder.display()))?;
        self.path = folder.join("store");
        self.expected = prepared.expected.clone();
        match &prepared.store {
            Some(bytes) => fs::write(&self.path, bytes).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Removes what [`Kills::begin`] made.
    fn forget(&self) -> Result<(), String> {
        let folder = self.path.parent().unwrap_or(&self.path);
        fs::remove_dir_all(folder).map_err(|error| error.to_string())
    }

    /// The calls of this life on files in its folder.
    fn targets(&mut self, each: &Each, prepared: &Prepared) -> Result<Vec<Target>, String> {
        self.begin(prepared, u64::MAX)?;
        let log = self.folder.join("log");
        let life = each.life(End::Written);
        let mut process = Process::written(self.seed, each.number, &life, &self.path, &log)?;
        let mut spared = false;
        while let Some(line) = process.next() {
            self.expected.hear(&line)?;
            spared |= line == "spared";
        }
        process.died(&life)?;
        if !spared {
            return Err("wrong: a life without any fault did not end well".to_owned());
        }
        self.expected.all_heard()?;
        self.look(&life)?;
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let folder = self.path.parent().unwrap_or(&self.path).to_owned();
        self.forget()?;
        targets(&text, &folder)
    }

    /// Runs a life in which one call is hit, and looks at what is left.
    fn hit(&mut self, each: &Each, life: &Life) -> Result<(), String> {
        let log = self.folder.join("log");
        let mut process = Process::written(self.seed, each.number, life, &self.path, &log)?;
        let mut spared = false;
        while let Some(line) = process.next() {
            self.expected.hear(&line)?;
            spared |= line == "spared" || line == "met";
        }
        process.died(life)?;
        let End::Trace { name, fault, .. } = life.end else {
            return Err("no call is to be hit".to_owned());
        };
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        // A process that is killed ends in the middle, and a call that has failed is marked.
        let reached = match fault {
            Fault::Kill => !spared,
            _ => text.contains("(INJECTED)"),
        };
        if !reached {
            return Err("wrong: another life, which does not reach the call".to_owned());
        }
        *self.tally.kinds.entry(name).or_default() += 1;
        self.expected.all_heard()?;
        self.look(life)?;
        self.expected.all_heard()
    }
}

/// The calls in what the tracer wrote that name something in the folder.
fn targets(log: &str, folder: &Path) -> Result<Vec<Target>, String> {
    let folder = folder.to_string_lossy();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut targets = Vec::new();
    let mut process = None;
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, _)) = call.trim_start().split_once('(') else {
            continue;
        };
        let hit = call.contains(&*folder) && name != "execve";
        let first = *process.get_or_insert(pid);
        if hit && first != pid {
            // The tracer counts the calls of each thread.
            return Err(format!("wrong: two threads touch the files: {line}"));
        }
        if first != pid {
            continue;
        }
        let nth = counts.entry(name).or_default();
        *nth += 1;
        if !hit {
            continue;
        }
        let known = NAMES.iter().find(|known| **known == name);
        let name =
            known.ok_or_else(|| format!("wrong: a call without a place in the list: {line}"))?;
        targets.push(Target { name, nth: *nth });
    }
    if targets.len() < 20 {
        return Err(format!("wrong: only {} calls on the files", targets.len()));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Target, targets};

    /// Calls are counted by name in the first thread, and those on the folder are given.
    #[test]
    fn reads_what_the_tracer_wrote() {
        let mut log = String::from(
            "7 execve(\"/a/x\", ...) = 0\n7 openat(AT_FDCWD</b>, \"/lib/c\", O_RDONLY) = 3</lib/c>\n8 futex(0x1) = 0\n",
        );
        log += "7 openat(AT_FDCWD</b>, \"/a/store\", O_RDWR) = 3</a/store>\n";
        for _ in 0..20 {
            log += "7 pwrite64(3</a/store>, \"\"..., 4096, 0) = 4096\n7 write(1<pipe:[1]>, \"\"..., 5) = 5\n";
        }
        log += "7 +++ killed by SIGKILL +++\n";
        let found = targets(&log, Path::new("/a")).unwrap();
        assert_eq!(found.len(), 21);
        let name = "openat";
        assert_eq!(found[0], Target { name, nth: 2 });
        let name = "pwrite64";
        assert_eq!(found[20], Target { name, nth: 20 });
        let other = log.clone() + "8 fsync(3</a/store>) = 0\n";
        assert!(
            targets(&other, Path::new("/a"))
                .unwrap_err()
                .contains("two threads")
        );
        let other = log + "7 linkat(3</a/store>) = 0\n";
        assert!(
            targets(&other, Path::new("/a"))
                .unwrap_err()
                .contains("list")
        );
    }
}
