//! Runs the program, and makes the small store that most tests look into.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use revtree::{Applied, Db, LeaseId, Options};
use serde_json::Value;
use tempfile::TempDir;

/// What a test does with an open store; the error is boxed, as it is large.
pub(crate) type Worked<R> = Result<R, Box<dyn std::error::Error>>;

/// Held while the store is open in this process, and while a program is started: a child that has not
/// begun its program yet holds copies of our descriptors, and with them the lock of a store that was
/// closed meanwhile.
static FORKS: Mutex<()> = Mutex::new(());

/// A folder with a store in it.
pub(crate) struct Bench {
    folder: TempDir,
}

/// What a run of the program left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A key with any bytes.
pub(crate) const ANY: &[u8] = b"\xff\0";

impl Bench {
    /// A folder without a store.
    pub(crate) fn empty() -> Bench {
        Bench {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// A store at revision 6:
    /// 2 puts colour, 3 puts size and a key of any bytes in one transaction, 4 puts colour with a lease,
    /// 5 deletes size, 6 puts it again; a row in a side table, and a consistent index.
    pub(crate) fn small() -> Bench {
        let bench = Bench::empty();
        bench.with_options(Options::new().segment_bytes(64 << 10), |db| {
            db.put("colour", "blue")?;
            let mut txn = db.write()?;
            txn.put("size", "large")?;
            txn.put(ANY, b"\0bin\n")?;
            txn.set_applied(Applied { index: 9, term: 4 });
            txn.table("meta")?.put(b"name", b"\x01")?;
            txn.commit()?;
            let mut txn = db.write()?;
            txn.put_with_lease("colour", "red\nand green", LeaseId(7))?;
            txn.commit()?;
            db.delete("size")?;
            Ok(db.put("size", "small")?)
        });
        bench
    }

    /// Where the store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Calls `with` with the store, opened through the library, and closes it.
    pub(crate) fn with<R>(&self, with: impl FnOnce(&Db) -> Worked<R>) -> R {
        self.with_options(Options::new(), with)
    }

    /// The same with options.
    pub(crate) fn with_options<R>(
        &self,
        options: Options,
        with: impl FnOnce(&Db) -> Worked<R>,
    ) -> R {
        let _alone = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
        let db = options.open(self.store()).expect("the store opens");
        let result = with(&db).expect("the store works");
        db.close().expect("the store closes");
        result
    }

    /// Runs `revtree COMMAND STORE ARGUMENTS`.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, command: &str, arguments: &[S]) -> Ran {
        self.run_with_input(command, arguments, b"")
    }

    /// The same with bytes on stdin.
    pub(crate) fn run_with_input<S: AsRef<OsStr>>(
        &self,
        command: &str,
        arguments: &[S],
        input: &[u8],
    ) -> Ran {
        let store = self.store();
        let mut all = vec![OsStr::new(command), store.as_os_str()];
        all.extend(arguments.iter().map(AsRef::as_ref));
        run(&all, input)
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn text(&self, command: &str, arguments: &[&str]) -> String {
        let ran = self.run(command, arguments);
        assert_eq!(
            (ran.status, ran.stderr.as_str()),
            (0, ""),
            "{command} {arguments:?}"
        );
        ran.stdout
    }

    /// The same with `--json`, line by line.
    pub(crate) fn json(&self, command: &str, arguments: &[&str]) -> Vec<Value> {
        let mut all = arguments.to_vec();
        all.push("--json");
        lines(&self.text(command, &all))
    }
}

/// Runs the program with these arguments.
pub(crate) fn run(arguments: &[&OsStr], input: &[u8]) -> Ran {
    let mut child = start(program().args(arguments));
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("the program ends");
    Ran {
        status: status.code().expect("no signal ended it"),
        stdout: String::from_utf8(stdout).expect("text"),
        stderr: String::from_utf8(stderr).expect("text"),
    }
}

/// Starts the program with pipes.
pub(crate) fn start(program: &mut Command) -> Child {
    let _alone = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    program.spawn().expect("the program starts")
}

/// The program.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_revtree"))
}

/// Each line parsed as JSON.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

/// Asserts a refusal: status 1, nothing on stdout, and one line on stderr with all of `words`.
pub(crate) fn assert_refused(ran: &Ran, words: &[&str]) {
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert!(ran.stderr.starts_with("revtree: "), "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
}

/// The bytes of a file, to see that nothing was written.
pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a file")
}
