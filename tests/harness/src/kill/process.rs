//! The process as its parent sees it: started, heard, killed, and how it ended.
//!
//! It is this program again, under a tracer where one is to act in it.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use super::CHILD;
use super::plan::End;

/// Whether there is a tracer that may trace.
pub(super) static TRACER: LazyLock<bool> = LazyLock::new(|| {
    let mut tracer = Command::new("strace");
    tracer.args(["-qq", "-o", "/dev/null", "true"]);
    quiet(&mut tracer)
        .status()
        .is_ok_and(|status| status.success())
});

/// A started process; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(super) fn start(seed: u64, life: u64, store: &Path, end: End) -> Result<Process, String> {
        let failed = |error| format!("the process cannot be started: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = match end {
            End::Trace { name, nth } if *TRACER => {
                let mut tracer = Command::new("strace");
                tracer.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
                tracer.arg(format!("trace={name}"));
                tracer.args(["-e", &format!("inject={name}:signal=KILL:when={nth}")]);
                tracer.arg(program);
                tracer
            }
            _ => Command::new(program),
        };
        command.env(CHILD, format!("{seed} {life} {}", store.display()));
        quiet(&mut command).stdout(Stdio::piped());
        command.stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(failed)?;
        let lines = child.stdout.take().map(BufReader::new).map(BufRead::lines);
        let lines = lines.ok_or("the process has no pipe")?;
        Ok(Process { child, lines })
    }

    pub(super) fn next(&mut self) -> Result<Option<String>, String> {
        let line = self.lines.next().transpose();
        line.map_err(|error| format!("the pipe cannot be read: {error}"))
    }

    pub(super) fn kill(&mut self) -> Result<(), String> {
        let killed = self.child.kill();
        killed.map_err(|error| format!("the process cannot be killed: {error}"))
    }

    /// It must have died by SIGKILL, whoever sent it.
    pub(super) fn died(&mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.signal() == Some(9) {
            Ok(())
        } else {
            Err(format!("wrong: the process was not killed: {status}"))
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}
