//! A git repository as its own plumbing shows it: commits, what each changed, blobs, whole trees.
//!
//! Apart so that nothing else here starts a process. It must not know the store.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Git's modes that matter here. A path has no mode of its own when it is a plain file.
pub(crate) const PLAIN: &str = "100644";
const SUBMODULE: &str = "160000";
const ABSENT: &str = "000000";

/// A repository with at least one commit.
pub(crate) struct Git {
    folder: PathBuf,
}

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) mode: String,
    pub(crate) id: String,
}

impl Entry {
    pub(crate) fn is_submodule(&self) -> bool {
        self.mode == SUBMODULE
    }
}

/// What a tree has at a path.
pub(crate) struct Leaf {
    pub(crate) path: Vec<u8>,
    pub(crate) entry: Entry,
    /// A submodule has none.
    pub(crate) size: Option<u64>,
}

/// What a commit did at one path; `None`: nothing is there.
pub(crate) struct Change {
    pub(crate) path: Vec<u8>,
    pub(crate) before: Option<Entry>,
    pub(crate) after: Option<Entry>,
}

impl Git {
    /// The repository that holds `folder`. An error carries git's own sentence when there is none, or
    /// when it has no commits.
    pub(crate) fn open(folder: &Path) -> Result<Git> {
        let mut git = Git {
            folder: folder.to_owned(),
        };
        git.output(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
            .with_context(|| format!("no git history at {}", folder.display()))?;
        // Paths that are asked for count from where git is started: from the top, as those it answers.
        let mut up = git.output(&["rev-parse", "--show-cdup"])?;
        while up.last() == Some(&b'\n') {
            up.pop();
        }
        let up: &OsStr = OsStrExt::from_bytes(&up);
        git.folder.push(up);
        Ok(git)
    }

    /// A git command in a folder. Variables that hooks set would send it to another repository.
    pub(crate) fn command(folder: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(folder)
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = Git::command(&self.folder)
            .args(arguments)
            .output()
            .context("git could not be started")?;
        if !output.status.success() {
            let says = String::from_utf8_lossy(&output.stderr);
            let says = if says.is_empty() {
                "no commits"
            } else {
                says.trim()
            };
            bail!("git {}: {says}", arguments[0]);
        }
        Ok(output.stdout)
    }

    /// Whether the history was cut off when it was cloned.
    pub(crate) fn is_shallow(&self) -> Result<bool> {
        Ok(self
            .output(&["rev-parse", "--is-shallow-repository"])?
            .starts_with(b"true"))
    }

    /// The commits from the first on, along first parents.
    pub(crate) fn commits(&self) -> Result<Vec<String>> {
        let list = self.output(&["rev-list", "--first-parent", "--reverse", "HEAD"])?;
        Ok(String::from_utf8(list)?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// What each commit from `from` on changed against the one before it in the list, at all paths or
    /// below one.
    pub(crate) fn changes(
        &self,
        commits: &[String],
        from: usize,
        path: Option<&[u8]>,
    ) -> Result<Changes> {
        // A commit and, as its only parent, the one before it: a merge is compared with its first
        // parent, and where a shallow clone ends the whole tree is new.
        let pair = |at: usize| match at.checked_sub(1) {
            Some(parent) => format!("{} {}\n", commits[at], commits[parent]),
            None => format!("{}\n", commits[at]),
        };
        let pairs: String = (from..commits.len()).map(pair).collect();
        let mut command = Git::command(&self.folder);
        command.args([
            "--literal-pathspecs",
            "diff-tree",
            "--stdin",
            "--always",
            "--root",
        ]);
        command.args(["-r", "-z", "--raw", "--no-renames", "--no-abbrev"]);
        // Also of submodules that `.gitmodules` or the user's configuration hides.
        command.arg("--ignore-submodules=none");
        if let Some(path) = path {
            let path: &OsStr = OsStrExt::from_bytes(path);
            command.arg("--").arg(path);
        }
        let mut process = Process::start(command)?;
        let mut to = process.to.take().expect("it was just started");
        let feeder = std::thread::spawn(move || to.write_all(pairs.as_bytes()));
        Ok(Changes {
            process,
            feeder: Some(feeder),
            expected: commits[from..].iter().cloned().collect(),
            ahead: None,
        })
    }

    /// Reads blobs by id.
    pub(crate) fn blobs(&self) -> Result<Blobs> {
        let mut command = Git::command(&self.folder);
        command.args(["cat-file", "--batch"]);
        Ok(Blobs {
            process: Process::start(command)?,
        })
    }

    /// All paths of a commit in the order of their bytes, each with its size where it has one.
    pub(crate) fn tree(&self, commit: &str) -> Result<Vec<Leaf>> {
        let list = self.output(&["ls-tree", "-r", "-z", "-l", "--full-tree", commit])?;
        let mut entries = Vec::new();
        for line in list
            .split(|&byte| byte == 0)
            .filter(|line| !line.is_empty())
        {
            let tab = line
                .iter()
                .position(|&byte| byte == b'\t')
                .context("ls-tree: no path")?;
            let head = std::str::from_utf8(&line[..tab])?;
            let fields: Vec<&str> = head.split_ascii_whitespace().collect();
            let [mode, _, id, size] = fields[..] else {
                bail!("ls-tree: {head}")
            };
            let entry = Entry {
                mode: mode.to_owned(),
                id: id.to_owned(),
            };
            entries.push(Leaf {
                path: line[tab + 1..].to_vec(),
                entry,
                size: size.parse().ok(),
            });
        }
        entries.sort_by(|a: &Leaf, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Bytes that git takes for all its objects, packed and loose.
    pub(crate) fn object_bytes(&self) -> Result<u64> {
        let list = String::from_utf8(self.output(&["count-objects", "-v"])?)?;
        let kib = |name: &str| -> u64 {
            let line = list.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        Ok((kib("size:") + kib("size-pack:")) << 10)
    }
}

/// A git process that is fed and read.
struct Process {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(mut command: Command) -> Result<Process> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("git could not be started")?;
        let to = child.stdin.take();
        let from = BufReader::with_capacity(1 << 20, child.stdout.take().context("no pipe")?);
        Ok(Process { child, to, from })
    }

    /// The next field that ends with NUL; `None` at the end.
    fn field(&mut self) -> Result<Option<Vec<u8>>> {
        let mut field = Vec::new();
        self.from.read_until(0, &mut field)?;
        Ok(field.pop().map(|_| field))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends at the end of its input; when we leave early, it need not finish.
        drop(self.to.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The changes of one commit after the other.
pub(crate) struct Changes {
    process: Process,
    feeder: Option<JoinHandle<std::io::Result<()>>>,
    expected: VecDeque<String>,
    /// A commit's id that was read behind the changes of the one before.
    ahead: Option<Vec<u8>>,
}

impl Changes {
    /// The next commit's changes; `None` behind the last.
    pub(crate) fn next_commit(&mut self) -> Result<Option<Vec<Change>>> {
        let Some(expected) = self.expected.pop_front() else {
            if let Some(feeder) = self.feeder.take() {
                feeder
                    .join()
                    .map_err(|_| anyhow!("the feeder of git failed"))??;
            }
            return Ok(None);
        };
        let head = match self.ahead.take() {
            Some(head) => Some(head),
            None => self.process.field()?,
        };
        let found = head.context("git diff-tree ended early")?;
        ensure!(
            found == expected.as_bytes(),
            "git diff-tree: {expected} was expected"
        );
        let mut changes = Vec::new();
        while let Some(field) = self.process.field()? {
            let Some(raw) = field.strip_prefix(b":") else {
                self.ahead = Some(field);
                break;
            };
            let raw = std::str::from_utf8(raw)?;
            let parts: Vec<&str> = raw.split(' ').collect();
            let [mode_before, mode_after, before, after, _] = parts[..] else {
                bail!("git diff-tree: {raw}")
            };
            let entry = |mode: &str, id: &str| {
                let entry = Entry {
                    mode: mode.to_owned(),
                    id: id.to_owned(),
                };
                (mode != ABSENT).then_some(entry)
            };
            let (before, after) = (entry(mode_before, before), entry(mode_after, after));
            let path = self
                .process
                .field()?
                .context("git diff-tree: a change without a path")?;
            changes.push(Change {
                path,
                before,
                after,
            });
        }
        Ok(Some(changes))
    }
}

/// One long-lived `git cat-file --batch`.
pub(crate) struct Blobs {
    process: Process,
}

impl Blobs {
    /// The blob's bytes; `Err` inside with its size when it is larger than `bytes_max`.
    pub(crate) fn read(&mut self, id: &str, bytes_max: u64) -> Result<Result<Vec<u8>, u64>> {
        let to = self.process.to.as_mut().context("git cat-file has ended")?;
        let mut request = BufWriter::new(to);
        writeln!(request, "{id}")?;
        request.flush()?;
        drop(request);
        let mut head = String::new();
        self.process.from.read_line(&mut head)?;
        let fields: Vec<&str> = head.split_ascii_whitespace().collect();
        let [_, _, size] = fields[..] else {
            bail!("git cat-file: {}", head.trim())
        };
        let size: u64 = size.parse()?;
        let mut blob = (&mut self.process.from).take(size + 1);
        if size > bytes_max {
            std::io::copy(&mut blob, &mut std::io::sink())?;
            return Ok(Err(size));
        }
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes)?;
        ensure!(
            bytes.pop() == Some(b'\n') && bytes.len() as u64 == size,
            "git cat-file: {id} is cut"
        );
        Ok(Ok(bytes))
    }
}
