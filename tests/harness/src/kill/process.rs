//! The process as its parent sees it: started, heard, killed, and how it ended.
//!
//! It is this program again, under a tracer where one is to act in it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};

use super::CHILD;
use super::plan::{Campaign, End, Fault, Life};

/// Whether there is a tracer that may trace, and that kills when it is told to.
pub(super) static TRACER: LazyLock<bool> = LazyLock::new(|| {
    let mut tracer = tracer("exit_group", 1, Fault::Kill);
    tracer.args(["-o", "/dev/null", "true"]);
    quiet(&mut tracer)
        .status()
        .is_ok_and(|status| status.signal() == Some(KILL))
});

/// The signal that nobody survives.
const KILL: i32 = 9;

/// The tracer, told what to do at the `nth` call of a name.
fn tracer(name: &str, nth: u64, fault: Fault) -> Command {
    let mut tracer = Command::new("strace");
    tracer.args(["-f", "-qq", "-e", &format!("trace={name}")]);
    tracer.args(["-e", &fault.injection(name, nth)]);
    if fault != Fault::Kill {
        // With this only the calls of that name stop the process. A signal would be lost with it.
        tracer.arg("--seccomp-bpf");
    }
    tracer
}

/// A started process; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(super) fn start(
        seed: u64,
        number: u64,
        life: &Life,
        store: &Path,
    ) -> Result<Process, String> {
        let failed = |error| format!("the process cannot be started: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = match life.end {
            End::Trace { name, nth, fault } if *TRACER => {
                let mut tracer = tracer(name, nth, fault);
                tracer.args(["-o", "/dev/null"]);
                let elsewhere = ["openat", "mmap", "pread64", "statx"].contains(&name);
                if life.campaign == Campaign::Inject && elsewhere {
                    // What is around the store, such as the program's own libraries, does not fail.
                    for path in files(store) {
                        tracer.arg("-P").arg(path);
                    }
                }
                tracer.arg(program);
                tracer
            }
            _ => Command::new(program),
        };
        if life.campaign == Campaign::Starve {
            // It ends with a message each time, and looking up the names of a trace takes longer than the life.
            command.env("RUST_BACKTRACE", "0");
            quiet(&mut command);
        } else {
            quiet(&mut command).stderr(Stdio::inherit());
        }
        Process::spawn(command, seed, number, life, store)
    }

    /// The same with its calls, or only those that fail, written down by the tracer.
    pub(super) fn written(
        seed: u64,
        number: u64,
        life: &Life,
        store: &Path,
        log: &Path,
    ) -> Result<Process, String> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| format!("the process cannot be started: {error}"))?;
        let mut tracer = match life.end {
            End::Trace { name, nth, fault } => tracer(name, nth, fault),
            _ => {
                let mut tracer = Command::new("strace");
                tracer.args(["-f", "-qq"]);
                tracer
            }
        };
        tracer.args(["-y", "-s", "0", "-o"]).arg(log);
        tracer.arg(program);
        quiet(&mut tracer).stderr(Stdio::inherit());
        Process::spawn(tracer, seed, number, life, store)
    }

    fn spawn(
        mut command: Command,
        seed: u64,
        number: u64,
        life: &Life,
        store: &Path,
    ) -> Result<Process, String> {
        let campaign = life.campaign.name();
        let told = format!("{campaign} {seed} {number} {}", store.display());
        command.env(CHILD, told).stdout(Stdio::piped());
        let spawned = command.spawn();
        let mut child =
            spawned.map_err(|error| format!("the process cannot be started: {error}"))?;
        let pipe = child.stdout.take().ok_or("the process has no pipe")?;
        let (heard, lines) = channel();
        // A thread of its own, so that one can ask what has been said until now.
        std::thread::spawn(move || {
            let said = BufReader::new(pipe).lines().map_while(Result::ok);
            said.take_while(|line| heard.send(line.clone()).is_ok())
                .for_each(drop);
        });
        Ok(Process { child, lines })
    }

    /// The next line; `None` once it has ended.
    pub(super) fn next(&mut self) -> Option<String> {
        self.lines.recv().ok()
    }

    /// What it has said and nobody has asked for yet, without waiting for more.
    pub(super) fn said(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub(super) fn kill(&mut self) -> Result<(), String> {
        let killed = self.child.kill();
        killed.map_err(|error| format!("the process cannot be killed: {error}"))
    }

    /// It must have died by SIGKILL, whoever sent it, or by what else may end such a life.
    pub(super) fn died(&mut self, life: &Life) -> Result<i32, String> {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match status.signal() {
            Some(signal) if life.ends_by(signal) => Ok(signal),
            _ => Err(format!("wrong: the process was not killed: {status}")),
        }
    }
}

/// The store's file, what is saved beside it, and their folder.
fn files(store: &Path) -> [PathBuf; 3] {
    let mut saved = store.as_os_str().to_owned();
    saved.push(".saved");
    let folder = store.parent().unwrap_or(store).to_owned();
    [store.to_owned(), saved.into(), folder]
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}
