//! A repository made here, for where there is none: small, and with one of each thing that is odd.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::git::Git;

/// Plain commits between the odd ones.
const COMMITS: u32 = 400;

/// Makes a bare repository in an empty folder.
pub(crate) fn make(folder: &Path) -> Result<()> {
    let status = Git::command(folder)
        .args(["init", "--quiet", "--bare", "--initial-branch=main", "."])
        .status()
        .context("git could not be started")?;
    ensure!(status.success(), "git init: {status}");
    let mut import = Git::command(folder)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .context("git could not be started")?;
    let mut to = import.stdin.take().context("no pipe")?;
    to.write_all(stream().as_bytes())?;
    drop(to);
    let status = import.wait()?;
    ensure!(status.success(), "git fast-import: {status}");
    Ok(())
}

/// A stream for `git fast-import`: the same bytes at every run.
fn stream() -> String {
    let mut stream = Stream::default();
    stream.commit("main", "begin");
    stream.file("100644", "README", "a repository made by the example\n");
    stream.file("100755", "bin/run", "#!/bin/sh\nexit 0\n");
    stream.file("100644", "\"any\\377byte\\nin a path\"", "not UTF-8\n");
    stream.file("100644", "empty", "");
    stream.commit("main", "nothing");
    stream.commit("main", "odd kinds");
    stream.file("120000", "link", "README");
    stream
        .text
        .push_str("M 160000 1234567890123456789012345678901234567890 module\n");
    for number in 1..=COMMITS {
        stream.commit("main", "change");
        // A walk over 40 files that grow, are deleted and come back.
        let name = format!("src/{}/file-{}", number % 5, number * 7 % 40);
        if number % 9 == 0 {
            let _ = writeln!(stream.text, "D {name}");
        } else {
            stream.file(
                "100644",
                &name,
                &format!("line of {number}\n").repeat(number as usize),
            );
        }
        match number {
            100 => stream.file("100755", "README", "a repository made by the example\n"),
            150 => stream.file("100644", "link", "no link any more\n"),
            200 => stream.text.push_str("D module\nD empty\n"),
            220 => stream.file("100644", "module/is/a/folder/now", "deep\n"),
            250 => stream.side_branch(),
            300 => stream.text.push_str("deleteall\n"),
            301 => stream.file("100644", "README", "all was deleted before\n"),
            _ => {}
        }
    }
    stream.text
}

#[derive(Default)]
struct Stream {
    text: String,
    marks: u32,
}

impl Stream {
    fn commit(&mut self, branch: &str, message: &str) {
        self.marks += 1;
        let (mark, seconds) = (self.marks, 1_700_000_000 + u64::from(self.marks) * 60);
        let _ = write!(
            self.text,
            "commit refs/heads/{branch}\nmark :{mark}\ncommitter example <e@example.org> {seconds} +0000\n\
             data {}\n{message}\n",
            message.len()
        );
    }

    fn file(&mut self, mode: &str, path: &str, content: &str) {
        let _ = write!(
            self.text,
            "M {mode} inline {path}\ndata {}\n{content}\n",
            content.len()
        );
    }

    /// Two commits beside the first parent's line, and their merge.
    fn side_branch(&mut self) {
        let base = self.marks;
        self.commit("side", "beside");
        let _ = writeln!(self.text, "from :{base}");
        self.file("100644", "side/a", "made beside\n");
        self.commit("side", "beside again");
        self.file("100644", "side/b", "made beside too\n");
        let side = self.marks;
        self.commit("main", "merge");
        let _ = writeln!(self.text, "merge :{side}");
        self.file("100644", "side/a", "made beside\n");
        self.file("100644", "side/b", "made beside too\n");
    }
}
