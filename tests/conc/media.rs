//! Real media that are full, limited, read-only or not ours, and files that somebody cuts.
//!
//! Each test starts this program again in a place that a test alone must not make: with mounts of its own, which
//! end with it however it ends, with a limit, or as another user. Where the system lets nobody do this, the test
//! says so past the test runner, and shows nothing.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use revtree::{Create, Db, Durability, Error, ErrorKind, Options, ReadMode};

/// What the other process is to do, and where.
const ROLE: &str = "REVTREE_TEST_MEDIUM";
const FOLDER: &str = "REVTREE_TEST_FOLDER";
/// How many bytes a write may be long.
const PLACE: &str = "REVTREE_TEST_PLACE";
/// The user that owns nothing.
const NOBODY: &str = "65534";
/// The signal for a page of the map that is not there.
const SIGBUS: i32 = 7;

fn options() -> Options {
    Options::new()
        .segment_bytes(64 << 10)
        .store_bytes_max(1 << 27)
}

fn key(n: u64) -> String {
    format!("key/{n:05}")
}

fn value(n: u64) -> Vec<u8> {
    vec![n.to_le_bytes()[0]; 3000]
}

/// A line past libtest, which would keep it.
fn say(line: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{line}");
}

/// Runs a role in the folder: `around` is the shell's, and ends with the program as `"$@"`. `None`: the system
/// does not let us, which is said.
fn run(role: &str, folder: &Path, around: &str) -> Option<Output> {
    let output = Command::new("sh")
        .args(["-c", around, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["media::the_other_process", "--exact", "--nocapture"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        // Where memory ends in the middle of one, the standard library waits for itself.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("began") {
        return Some(output);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().next().unwrap_or("no word");
    say(&format!("SKIPPED: {role}: {} ({why})", output.status));
    None
}

/// The same, for what must end well.
fn succeeds(role: &str, folder: &Path, around: &str) -> Option<Output> {
    let output = run(role, folder, around)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let done = output.status.success() && said.contains("done");
    assert!(done, "{role}: {}\n{said}\n{complained}", output.status);
    eprint!("{complained}");
    Some(output)
}

/// With mounts that nobody else sees: a command that mounts, then the program.
fn mounted(mount: &str) -> String {
    format!("exec unshare --mount --propagation private sh -c '{mount} && exec \"$@\"' sh \"$@\"")
}

/// Not a test but what the other process runs; as a test it does nothing.
#[test]
fn the_other_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    println!("\nbegan");
    let store = folder.join("store");
    match role.as_str() {
        "full tmpfs" | "full ext4" => full(&store, Durability::Sync),
        "full tmpfs, flushed" => full(&store, Durability::Flushed),
        "limited" => limited(&store),
        "short write" => short(&store, Durability::Sync),
        "short write, flushed" => short(&store, Durability::Flushed),
        "little memory" => starving(&store),
        "read-only mount" => refused(&store, std::io::ErrorKind::ReadOnlyFilesystem),
        "foreign folder" => refused(&store, std::io::ErrorKind::PermissionDenied),
        "cut under a map" => cut(&store, ReadMode::Map),
        "cut under positioned reads" => cut(&store, ReadMode::Pread),
        _ => panic!("{role}"),
    }
    println!("\ndone");
}

/// All of `0..count` is there, and nothing else.
fn verify(db: &Db, count: u64) {
    let view = db.read().unwrap();
    let found = view.range(..).collect().unwrap().kvs;
    assert_eq!(found.len() as u64, count);
    for (n, kv) in (0..).zip(found) {
        assert_eq!((kv.key, kv.value), (key(n).into(), value(n).into()));
    }
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// Fills the medium. Then nothing happened: reads, a compaction and the close work, and with room again so do
/// writes.
fn full(store: &Path, durability: Durability) {
    let open = || options().durability(durability).open(store).unwrap();
    let db = open();
    let mut count = 0;
    let error = loop {
        match db.put(key(count), value(count)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 100_000, "the medium has no end");
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::TryLater);
    assert!(count > 50, "{count}");
    let rev = db.rev();
    // Again and again: no half of anything is added.
    for _ in 0..20 {
        let error = db.put(key(count), value(count)).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    }
    assert_eq!(db.rev(), rev);
    verify(&db, count);
    let saved = store.with_extension("saved");
    let error = db.snapshot().unwrap().save(&saved).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert_eq!(fs::read_dir(store.parent().unwrap()).unwrap().count(), 2);
    // What was kept for them is there.
    db.compact(rev).unwrap();
    verify(&db, count);
    db.close().unwrap();
    let known = Options::new().read_only().open(store).unwrap();
    assert_eq!(known.rev(), rev);
    drop(known);
    // Opened as full as it was: of what the close gave back there may be a change or two.
    let db = open();
    verify(&db, count);
    let before = count;
    while db.put(key(count), value(count)).is_ok() {
        count += 1;
    }
    let rev = db.rev();
    say(&format!("{durability:?}: {count} puts fill it"));
    // A kill, as far as the file knows.
    let copy = store.with_file_name("copy");
    fs::remove_file(store.with_file_name("ballast")).unwrap();
    fs::copy(store, &copy).unwrap();
    db.close().unwrap();
    let db = options().durability(durability).open(&copy).unwrap();
    let is_clean = count == before;
    assert_eq!((db.rev(), db.recovery().clean), (rev, is_clean));
    verify(&db, count);
    db.close().unwrap();
    let db = open();
    assert_eq!(db.rev(), rev);
    verify(&db, count);
    db.put(key(count), value(count)).unwrap();
    db.compact(db.rev()).unwrap();
    db.close().unwrap();
    verify(&open(), count + 1);
}

/// A limit of the process on the length of a file, whose signal is ignored: as a full disk.
fn limited(store: &Path) {
    let db = options().open(store).unwrap();
    let mut count = 0;
    let error = loop {
        match db.put(key(count), value(count)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 100_000, "there is no limit");
    };
    println!("\nput {count}");
    say(&format!("{count} puts, then {error:?}"));
    assert!(count > 20, "{count}");
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    verify(&db, count);
    db.compact(db.rev()).unwrap();
    db.close().unwrap();
}

/// Puts, and takes memory that it keeps, until a call says that there is none or the process ends.
fn starving(store: &Path) {
    let opened = options().open(store);
    let mut kept = Vec::new();
    let mut error = opened.as_ref().err().cloned();
    for n in 0..20_000 {
        let Ok(db) = &opened else { break };
        match db.put(key(n), value(n)) {
            Ok(_) => println!("\nput {}", n + 1),
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
        kept.push(vec![1_u8; 200_000]);
    }
    say(&format!("little memory: {error:?}"));
    let expected = matches!(
        error,
        Some(
            Error::OutOfMemory { .. }
                | Error::Io { .. }
                | Error::Poisoned { .. }
                | Error::CommitUnknown { .. }
        )
    );
    assert!(expected, "{error:?}");
}

/// A write that is really short: the process gets a limit on the length of files that lies inside of what the next
/// commit writes into space that it has. So the system takes the bytes up to there, says how many, and refuses the
/// rest.
fn short(store: &Path, durability: Durability) {
    let place: usize = std::env::var(PLACE).unwrap().parse().unwrap();
    let db = options().durability(durability).open(store).unwrap();
    let mut count = 0;
    // Until the next one needs no allocation.
    let end = loop {
        db.put(key(count), value(count)).unwrap();
        count += 1;
        let bytes = fs::read(store).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // Behind a sync a group begins with a block of its own.
        let is_sync = matches!(durability, Durability::Sync);
        let end = end.next_multiple_of(if is_sync { 4096 } else { 8 });
        if count > 8 && bytes.len() - end > 8192 {
            break end;
        }
    };
    let limit = end + place;
    let limited = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string()])
        .arg(format!("--fsize={limit}:"))
        .status();
    assert!(limited.unwrap().success());
    let error = db.put(key(count), value(count)).unwrap_err();
    let unknown = matches!(&error, Error::CommitUnknown { .. } | Error::Poisoned { .. });
    assert!(unknown, "{error:?}");
    // The rest was not written, and what was before it is.
    let bytes = fs::read(store).unwrap();
    assert!(bytes[limit..].iter().all(|byte| *byte == 0), "at {limit}");
    let written = bytes[end..limit].iter().filter(|byte| **byte != 0).count();
    assert!(written > 0, "not short, but nothing");
    // Among the bytes of a value all of them.
    assert!(place < 1000 || bytes[limit - 500..limit] == value(count)[..500]);
    let again = db.put(key(count), value(count)).unwrap_err();
    assert!(matches!(again, Error::Poisoned { .. }), "{again:?}");
    verify(&db, count);
    assert!(db.close().is_err());
    println!("\nput {count}");
}

/// Opening to write is refused by name, reading works, and nothing is written or made.
fn refused(store: &Path, answer: std::io::ErrorKind) {
    let before = fs::read(store).unwrap();
    let other = store.with_file_name("other");
    for (path, create) in [
        (store, Create::IfMissing),
        (store, Create::Never),
        (&other, Create::IfMissing),
        (&other, Create::New),
    ] {
        let error = options().create(create).open(path).unwrap_err();
        match (&error, answer) {
            (Error::ReadOnly, std::io::ErrorKind::ReadOnlyFilesystem) => {}
            (Error::Io { cause, .. }, std::io::ErrorKind::PermissionDenied) => {
                assert_eq!(cause.kind(), answer);
            }
            _ => panic!("{path:?}: {error:?}"),
        }
    }
    let db = options().read_only().open(store).unwrap();
    verify(&db, 40);
    assert!(matches!(db.put("a", "2"), Err(Error::ReadOnly)));
    let error = db.snapshot().unwrap().save(&other).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    drop(db);
    assert!(fs::read(store).unwrap() == before, "it was written");
    assert_eq!(fs::read_dir(store.parent().unwrap()).unwrap().count(), 1);
}

/// Reads a store whose file somebody else cuts meanwhile.
fn cut(store: &Path, mode: ReadMode) {
    let db = options().read_mode(mode).open(store).unwrap();
    let view = db.read().unwrap();
    // What has been read once is in the map.
    assert_eq!(view.range(..).collect().unwrap().kvs.len(), 400);
    let len = fs::metadata(store).unwrap().len();
    let file = File::options().write(true).open(store).unwrap();
    // The superblocks and a little more are left.
    file.set_len(len / 4 / 4096 * 4096).unwrap();
    println!("\ncut");
    let (mut right, mut errors, mut last) = (0, 0, None);
    for n in 0..400 {
        match view.get(key(n)) {
            Ok(Some(record)) => {
                assert_eq!(record.value(), value(n));
                right += 1;
            }
            Ok(None) => panic!("{} is not there, and no error says why", key(n)),
            Err(error @ (Error::Io { .. } | Error::Corrupt { .. })) => {
                errors += 1;
                last = Some(error);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    say(&format!(
        "{mode:?}: {right} right, {errors} errors, such as {last:?}"
    ));
    assert!(errors > 0);
    assert!(db.check().map_or(true, |report| !report.is_clean()));
    // Without a close, which writes.
    drop(view);
    std::mem::forget(db);
}

/// A store with so many keys, closed, in a folder of its own.
fn prepared(count: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    // Another user is to read it, too.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let store = dir.path().join("store");
    let db = options().open(&store).unwrap();
    for n in 0..count {
        db.put(key(n), value(n)).unwrap();
    }
    db.close().unwrap();
    fs::set_permissions(&store, Permissions::from_mode(0o666)).unwrap();
    (dir, store)
}

/// Ballast takes the room that is given back at the end: as much as a store is copied into that no sync covers.
fn ballast(bytes: u64) -> String {
    format!("head -c {bytes} /dev/zero > \"$REVTREE_TEST_FOLDER/ballast\"")
}

#[test]
fn a_full_tmpfs() {
    for role in ["full tmpfs", "full tmpfs, flushed"] {
        let dir = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=4m tmpfs \"$REVTREE_TEST_FOLDER\"";
        let mount = format!("{mount} && {}", ballast(2_200_000));
        succeeds(role, dir.path(), &mounted(&mount));
    }
}

#[test]
fn a_full_ext4() {
    let dir = tempfile::tempdir().unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(8 << 20).unwrap();
    let image = image.path().display();
    let make = format!("mkfs.ext4 -q -F -m 0 -O ^has_journal {image}");
    let mount = format!("{make} && mount -o loop {image} \"$REVTREE_TEST_FOLDER\"");
    // What mkfs makes for lost files is in the way of counting.
    let tidy = "rmdir \"$REVTREE_TEST_FOLDER/lost+found\"";
    let mount = format!("{mount} && {tidy} && {}", ballast(5_500_000));
    succeeds("full ext4", dir.path(), &mounted(&mount));
}

#[test]
fn a_limit_on_the_length_of_files() {
    // In blocks of 512 bytes for some shells, of 1 KiB for others.
    for blocks in [1400, 1700, 2000, 2001] {
        let dir = tempfile::tempdir().unwrap();
        let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let output = succeeds("limited", dir.path(), &limit).expect("a limit may always be set");
        let said = String::from_utf8_lossy(&output.stdout);
        let count = said.lines().find_map(|line| line.strip_prefix("put "));
        let db = options().open(dir.path().join("store")).unwrap();
        verify(&db, count.unwrap().parse().unwrap());
    }
}

/// A process whose address space has an end says so, or is aborted; what it acknowledged is there. With the least no
/// thread can be started: an open then ended in a panic of `rayon`, and so did all others of that process.
#[test]
fn a_limit_on_memory() {
    const SIGABRT: i32 = 6;
    for kib in [10_000, 12_000, 40_000, 150_000, 300_000, 400_000] {
        let dir = tempfile::tempdir().unwrap();
        let around = format!("ulimit -v {kib}; exec \"$@\"");
        let Some(output) = run("little memory", dir.path(), &around) else {
            continue;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let aborted = output.status.signal() == Some(SIGABRT);
        let ended = output.status.success() && said.contains("done");
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(aborted || ended, "{kib}: {}\n{complained}", output.status);
        eprint!("{complained}");
        let last = said
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("put "));
        let count: u64 = last.map_or(0, |last| last.parse().unwrap());
        say(&format!("{kib} KiB: {}, {count} puts", output.status));
        let store = dir.path().join("store");
        if count == 0 && !store.exists() {
            continue;
        }
        let db = options().open(&store).unwrap();
        // One more may have been committed, and not told.
        let found = db.rev().get() - 1;
        assert!((count..=count + 1).contains(&found), "{found}");
        verify(&db, found);
    }
}

/// What was written of the short one is passed over, and written over.
#[test]
fn a_write_that_is_short() {
    for role in ["short write", "short write, flushed"] {
        for place in [24, 63, 64, 65, 200, 1000, 2000, 2999] {
            let dir = tempfile::tempdir().unwrap();
            let around = format!("trap '' XFSZ; {PLACE}={place} exec \"$@\"");
            let output = succeeds(role, dir.path(), &around).expect("a limit may always be set");
            let said = String::from_utf8_lossy(&output.stdout);
            let count = said.lines().find_map(|line| line.strip_prefix("put "));
            let count: u64 = count.unwrap().parse().unwrap();
            let store = dir.path().join("store");
            // Without a writer the last ones are not known to be durable.
            let read_only = options().read_only().open(&store).unwrap();
            let known = read_only.rev().get() - 1;
            assert!(known <= count, "{known}");
            verify(&read_only, known);
            drop(read_only);
            let db = options().open(&store).unwrap();
            verify(&db, count);
            db.put(key(count), value(count)).unwrap();
            db.close().unwrap();
            verify(&options().open(&store).unwrap(), count + 1);
        }
    }
}

#[test]
fn a_read_only_mount() {
    let (dir, _) = prepared(40);
    let folder = "\"$REVTREE_TEST_FOLDER\"";
    let mount = format!("mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}");
    succeeds("read-only mount", dir.path(), &mounted(&mount));
}

/// The store may be read and its folder not written, by a user whom permissions bind.
#[test]
fn a_folder_of_somebody_else() {
    let (dir, store) = prepared(40);
    fs::set_permissions(&store, Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o555)).unwrap();
    let who = format!(
        "if [ $(id -u) = 0 ]; then exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$@\"; fi; exec \"$@\""
    );
    succeeds("foreign folder", dir.path(), &who);
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
}

/// A file that is cut under a reader ends the process by a signal, or the reader by an error, and is left as it was
/// cut. With positioned reads there are only errors.
#[test]
fn a_file_that_is_cut_under_a_reader() {
    for (role, may_die) in [
        ("cut under a map", true),
        ("cut under positioned reads", false),
    ] {
        let (dir, store) = prepared(400);
        let Some(output) = run(role, dir.path(), "exec \"$@\"") else {
            panic!("{role} did not begin");
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("cut\n"), "{said}");
        say(&format!("{role}: {}", output.status));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        let died = output.status.signal() == Some(SIGBUS);
        let ended = output.status.success() && said.contains("done");
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(
            ended || (died && may_die),
            "{role}: {}\n{said}\n{complained}",
            output.status
        );
        // Nobody wrote or lengthened it.
        let left = fs::read(&store).unwrap();
        let (_other, whole) = prepared(400);
        let whole = fs::metadata(whole).unwrap().len();
        assert_eq!(left.len() as u64, whole / 4 / 4096 * 4096);
        let opened = options().read_mode(ReadMode::Pread).open(&store);
        assert!(opened.is_err(), "what is lost is not noticed");
        assert!(
            fs::read(&store).unwrap() == left,
            "an open that fails wrote"
        );
    }
}
