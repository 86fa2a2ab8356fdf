//! `watch`: what it prints of what is there, and how it follows a store that others write.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command};

use revtree::{Db, Options};
use serde_json::{Value, json};

use crate::program::{ANY, Bench, Worked, assert_refused, lines, program, start};
use revtree_dump::base64;

/// `watch` beside us; killed when it is dropped.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(bench: &Bench, arguments: &[&str]) -> Watching {
        let mut child = start(program().arg("watch").arg(bench.store()).args(arguments));
        let stdout = child.stdout.take().expect("piped");
        Watching {
            child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// The next line, waited for.
    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// What there is behind its end.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends").code();
        assert!(self.lines.next().is_none(), "more was printed");
        let mut stderr = String::new();
        let mut from = self.child.stderr.take().expect("piped");
        from.read_to_string(&mut stderr).expect("text");
        (status, stderr)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put(bench: &Bench, key: &str) -> u64 {
    bench.with(|db| Ok(db.put(key, "v")?.get()))
}

/// Goal: what is there is printed as `log` prints it, of the keys that are asked for, from any revision on.
#[test]
fn what_is_there() {
    let bench = Bench::small();
    let check = |arguments: &[&str], expected: &str| {
        let mut all = vec!["--once"];
        all.extend(arguments);
        assert_eq!(bench.text("watch", &all), expected, "{arguments:?}");
    };
    let colour = "2\tPUT\tcolour\tblue\n4\tPUT\tcolour\tred\\nand green\n";
    let size = "3\tPUT\tsize\tlarge\n5\tDELETE\tsize\n6\tPUT\tsize\tsmall\n";
    check(&["colour", "--rev", "1"], colour);
    check(&["--prefix", "col", "--rev", "1"], colour);
    check(&["size", "--rev", "1"], size);
    check(
        &["size", "--rev", "5"],
        "5\tDELETE\tsize\n6\tPUT\tsize\tsmall\n",
    );
    check(&["none", "--rev", "1"], "");
    check(&["--rev", "7"], "");
    check(&["--rev", "0"], "");
    check(
        &["--prefix", "ff", "--rev", "1", "--key-format", "hex"],
        "3\tPUT\t\\xff\\x00\t\\x00bin\\n\n",
    );
    let both = "4\tPUT\tcolour\tred\\nand green\n5\tDELETE\tsize\n6\tPUT\tsize\tsmall\n";
    check(&["colour", "--prefix", "si", "--rev", "4"], both);
    check(&["size", "colour", "size", "--rev", "4"], both);
    assert_eq!(
        bench.text("watch", &["--once", "--rev", "1"]),
        bench.text("log", &[])
    );
    assert_eq!(
        bench.json("watch", &["--once", "--rev", "1"]),
        bench.json("log", &[])
    );
    let any = bench.json(
        "watch",
        &["--once", "--rev", "3", "ff00", "--key-format", "hex"],
    );
    let kv = json!({
        "key": base64(ANY), "value": base64(b"\0bin\n"), "create_revision": 3,
        "mod_revision": 3, "version": 1, "lease": 0,
    });
    assert_eq!(
        any,
        [json!({ "revision": 3, "events": [{ "type": "PUT", "kv": kv }] })]
    );
}

/// Goal: more than is taken at once is printed whole.
#[test]
fn more_than_is_taken_at_once() {
    let bench = Bench::empty();
    bench.with(|db| {
        for n in 0..25u8 {
            let mut txn = db.write()?;
            txn.put("large", vec![b'x'; 1 << 20])?;
            txn.put("small", [b'0' + n % 10])?;
            txn.commit()?;
        }
        Ok(())
    });
    let found = bench.json("watch", &["--once", "--rev", "1"]);
    let revisions: Vec<_> = found.iter().map(|line| line["revision"].as_u64()).collect();
    assert_eq!(revisions, (2..=26).map(Some).collect::<Vec<_>>());
    assert!(
        found
            .iter()
            .all(|line| line["events"].as_array().map(Vec::len) == Some(2))
    );
}

/// Goal: what has been compacted is refused with both numbers; the oldest that is left is printed.
#[test]
fn what_is_compacted() {
    let bench = Bench::small();
    bench.text("compact", &["5"]);
    for once in [&["--once"][..], &[]] {
        let mut arguments = vec!["--rev", "4"];
        arguments.extend(once);
        assert_refused(
            &bench.run("watch", &arguments),
            &["revision 4", "compacted at 5", "--rev 5"],
        );
    }
    let text = bench.text("watch", &["--once", "--rev", "5"]);
    assert_eq!(text, "5\tDELETE\tsize\n6\tPUT\tsize\tsmall\n");
    let usage = bench.run("watch", &["--once"]);
    assert_eq!((usage.status, usage.stdout.as_str()), (2, ""));
    assert_refused(&Bench::empty().run("watch", &["--rev", "1"]), &["store"]);
}

/// Goal: each change that another process makes is printed once and in order, while it writes and when it has
/// closed the store, in both forms.
#[test]
fn a_store_that_is_written() {
    const PUTS: u64 = 2000;
    let bench = Bench::small();
    let mut all = Watching::start(&bench, &["--rev", "1"]);
    let mut some = Watching::start(&bench, &["k7", "--prefix", "k1", "--rev", "7", "--json"]);
    let first = bench.text("log", &[]);
    for line in first.lines() {
        assert_eq!(all.line(), line);
    }
    let options = Options::new().segment_bytes(64 << 10);
    bench.with_options(
        options.checkpoint_bytes(32 << 10),
        |db: &Db| -> Worked<()> {
            for part in 0..5 {
                let numbers = part * PUTS / 5..(part + 1) * PUTS / 5;
                for n in numbers.clone() {
                    db.put(format!("k{}", n % 10), format!("{n}"))?;
                }
                // It is followed while the store is open here.
                for n in numbers {
                    assert_eq!(all.line(), format!("{}\tPUT\tk{}\t{n}", 7 + n, n % 10));
                }
            }
            Ok(())
        },
    );
    assert_eq!(put(&bench, "last"), 7 + PUTS);
    assert_eq!(all.line(), format!("{}\tPUT\tlast\tv", 7 + PUTS));
    for n in (0..PUTS).filter(|n| n % 10 == 7 || n % 10 == 1) {
        let line: Value = lines(&some.line()).remove(0);
        assert_eq!(line["revision"], 7 + n);
        assert_eq!(
            line["events"][0]["kv"]["value"],
            base64(n.to_string().as_bytes())
        );
    }
}

/// Goal: without `--rev` it begins with what is new; a revision that is not there yet is waited for.
#[test]
fn what_is_new() {
    let bench = Bench::small();
    let mut new = Watching::start(&bench, &[]);
    let mut future = Watching::start(&bench, &["--rev", "9"]);
    // It cannot be seen from outside that it has looked: each put is new to it or not there for it.
    let mut line = None;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| new.line());
        while !reader.is_finished() {
            put(&bench, "n");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        line = reader.join().ok();
    });
    let line = line.expect("a line");
    let first: u64 = line
        .split('\t')
        .next()
        .and_then(|rev| rev.parse().ok())
        .expect("a revision");
    assert!(first >= 7, "{line}");
    while put(&bench, "n") < first + 3 {}
    for rev in first + 1..=first + 3 {
        assert_eq!(new.line(), format!("{rev}\tPUT\tn\tv"));
    }
    while put(&bench, "n") < 9 {}
    assert_eq!(future.line(), "9\tPUT\tn\tv");
}

/// Goal: a compaction beyond what was printed ends it with status 1 and says where one can go on.
#[test]
fn a_compaction_overtakes_it() {
    let bench = Bench::small();
    let mut watching = Watching::start(&bench, &["--rev", "6"]);
    assert_eq!(watching.line(), "6\tPUT\tsize\tsmall");
    watching.signal("-STOP");
    let rev = put(&bench, "a") + 1;
    assert_eq!(put(&bench, "a"), rev);
    bench.text("compact", &[&rev.to_string()]);
    watching.signal("-CONT");
    let (status, stderr) = watching.ended();
    assert_eq!((status, stderr.lines().count()), (Some(1), 1), "{stderr}");
    for words in ["revision 7", "compacted at 8", "--rev 8"] {
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// Goal: a file that takes the store's place is followed from where it stood.
#[test]
fn a_store_that_is_restored() {
    let bench = Bench::small();
    let mut watching = Watching::start(&bench, &["--rev", "6"]);
    assert_eq!(watching.line(), "6\tPUT\tsize\tsmall");
    let saved = bench.path("saved");
    let other = Options::new().open_in_memory().expect("a store");
    for n in 2..10u64 {
        other.put("other", n.to_string()).expect("a put");
    }
    other
        .snapshot()
        .expect("a snapshot")
        .save(&saved)
        .expect("it is saved");
    bench.with(|db| {
        db.restore(&saved)?;
        Ok(())
    });
    for rev in 7..10 {
        assert_eq!(watching.line(), format!("{rev}\tPUT\tother\t{rev}"));
    }
    assert_eq!(put(&bench, "behind"), 10);
    assert_eq!(watching.line(), "10\tPUT\tbehind\tv");
}

/// Goal: where another store stands further back, it says that it waits.
#[test]
fn a_store_that_stands_further_back() {
    let bench = Bench::small();
    let mut watching = Watching::start(&bench, &["--rev", "6"]);
    assert_eq!(watching.line(), "6\tPUT\tsize\tsmall");
    let other = bench.path("other");
    let db = Db::open(&other).expect("a store");
    db.put("other", "2").expect("a put");
    db.close().expect("it closes");
    std::fs::rename(&other, bench.store()).expect("it is replaced");
    let stderr = watching.child.stderr.take().expect("piped");
    let told = BufReader::new(stderr).lines().next().expect("a line");
    let told = told.expect("text");
    assert!(
        told.ends_with(": stands at revision 2; waiting for revision 7"),
        "{told}"
    );
    while put(&bench, "new") < 7 {}
    assert_eq!(watching.line(), "7\tPUT\tnew\tv");
}

/// Goal: an interrupt ends it, a reader who has gone too, though there is nothing more to be printed, and what was there
/// had been printed. `| head -1` did not end before a later event was printed.
#[test]
fn it_ends() {
    let bench = Bench::small();
    let mut watching = Watching::start(&bench, &["--rev", "6"]);
    assert_eq!(watching.line(), "6\tPUT\tsize\tsmall");
    watching.signal("-INT");
    assert_eq!(watching.ended(), (None, String::new()));
    let mut watching = Watching::start(&bench, &["--rev", "6"]);
    assert_eq!(watching.line(), "6\tPUT\tsize\tsmall");
    let Watching { child, lines } = &mut watching;
    let (gone, _writer) = std::io::pipe().expect("a pipe");
    // Our end of its output, in the place of which there is another's.
    drop(std::mem::replace(
        lines,
        BufReader::new(ChildStdout::from(std::os::fd::OwnedFd::from(gone))).lines(),
    ));
    assert!(child.wait().expect("it ends").success());
}

/// Goal: a damaged record is told with status 1, as `log` tells it, and what lies around it is printed.
#[test]
fn damage_is_told() {
    let bench = Bench::small();
    let mut bytes = crate::program::bytes(&bench.store());
    let value = b"large";
    let at = bytes
        .windows(value.len())
        .position(|window| window == value);
    bytes[at.expect("a value")] ^= 1;
    std::fs::write(bench.store(), bytes).expect("a file");
    let ran = bench.run("watch", &["--once", "--rev", "1"]);
    assert_eq!(ran, bench.run::<&str>("log", &[]));
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("damaged"), "{ran:?}");
    assert!(ran.stdout.ends_with("6\tPUT\tsize\tsmall\n"), "{ran:?}");
}
