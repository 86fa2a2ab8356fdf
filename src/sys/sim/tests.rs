//! What the fault model states, point by point.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;
use crate::sys::{LockByte, LockMode, Region};

const STORE: &str = "directory/store";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn store() -> &'static Path {
    Path::new(STORE)
}

/// A disk with one file, durable with its name, of four sectors of ones.
fn disk() -> (SimDisk, Arc<dyn Storage>) {
    let disk = SimDisk::new(SimOptions::default());
    let file = disk.create_new(store()).expect("new");
    file.write_at(&[1; 2048], 0).expect("written");
    file.sync_all().expect("synced");
    disk.sync_directory(store()).expect("synced");
    (disk, file)
}

fn mask(new: &[bool], lengths: bool, names: bool) -> Mask {
    Mask::new(new.to_vec(), lengths, names)
}

/// The bytes that each sector of the file starts with, after a power cut now.
fn after_cut(disk: &SimDisk, mut choice: Mask) -> Vec<u8> {
    let image = disk.image(disk.operations(), &mut choice);
    image
        .bytes(store())
        .expect("its name is durable")
        .into_iter()
        .step_by(512)
        .collect()
}

#[test]
fn synced_bytes_survive_every_choice() {
    let (disk, file) = disk();
    file.write_at(&[2; 1024], 512).expect("written");
    for seed in 0..200 {
        let image = disk.image(disk.operations(), &mut Sampled::new(seed));
        let bytes = image.bytes(store()).expect("its name is durable");
        assert_eq!(bytes.len(), 2048);
        assert_eq!(
            (&bytes[..512], &bytes[1536..]),
            (&[1; 512][..], &[1; 512][..])
        );
    }
    file.sync_data().expect("synced");
    assert_eq!(disk.pending(disk.operations()), 0);
    assert_eq!(after_cut(&disk, mask(&[], false, false)), [1, 2, 2, 1]);
}

#[test]
fn any_subset_of_unsynced_sectors_survives() {
    let (disk, file) = disk();
    file.write_at(&[2; 1024], 0).expect("written");
    file.write_at(&[3; 512], 1536).expect("written");
    assert_eq!(disk.pending(disk.operations()), 3);
    assert_eq!(
        after_cut(&disk, mask(&[true, false, true], false, false)),
        [2, 1, 1, 3]
    );
    let images: BTreeSet<_> = disk
        .images(disk.operations(), 0)
        .map(|(_, image)| image.bytes(store()).expect("its name is durable"))
        .collect();
    assert_eq!(images.len(), 8, "each subset once, each different");
    assert_eq!(
        disk.images(disk.operations(), 0).count(),
        8,
        "no metadata is pending"
    );
    assert_eq!(disk.images(disk.operations(), 5).count(), 13);
}

#[test]
fn every_version_since_the_sync_may_be_there() {
    let (disk, file) = disk();
    for byte in 2..6 {
        file.write_at(&[byte; 512], 0).expect("written");
    }
    let firsts: BTreeSet<_> = (0..2000)
        .map(|seed| disk.image(disk.operations(), &mut Sampled::new(seed)))
        .map(|image| image.bytes(store()).expect("its name is durable"))
        .filter(|bytes| bytes[..512].iter().all(|&byte| byte == bytes[0]))
        .map(|bytes| bytes[0])
        .collect();
    assert_eq!(firsts, BTreeSet::from([1, 2, 3, 4, 5]));
}

#[test]
fn garbage_keeps_to_the_bytes_that_were_written() {
    struct Garbage;
    impl Choice for Garbage {
        fn sector(&mut self, _sector: &PendingSector) -> Survival {
            Survival::Garbage(9)
        }
        fn length(&mut self, _file: u64, pending: usize) -> usize {
            pending
        }
        fn names(&mut self, pending: usize) -> usize {
            pending
        }
    }
    for power_safe_overwrite in [true, false] {
        let disk = SimDisk::new(SimOptions {
            seed: 1,
            power_safe_overwrite,
            ..SimOptions::default()
        });
        disk.put_bytes(store(), &[1; 2048]);
        let file = disk.open(store(), Access::ReadWrite).expect("opened");
        file.write_at(&[2; 100], 600).expect("written");
        let bytes = disk.image(2, &mut Garbage).bytes(store()).expect("durable");
        assert!(
            bytes[..512]
                .iter()
                .chain(&bytes[1024..])
                .all(|&byte| byte == 1)
        );
        assert_ne!(bytes[600..700], [2; 100]);
        let beside = bytes[512..600]
            .iter()
            .chain(&bytes[700..1024])
            .all(|&byte| byte == 1);
        assert_eq!(beside, power_safe_overwrite);
    }
}

#[test]
fn length_and_bytes_survive_independently() {
    let (disk, file) = disk();
    file.write_at(&[2; 512], 2048).expect("written");
    assert_eq!(after_cut(&disk, mask(&[false], false, true)), [1; 4]);
    assert_eq!(after_cut(&disk, mask(&[true], false, true)), [1; 4]);
    assert_eq!(
        after_cut(&disk, mask(&[false], true, true)),
        [1, 1, 1, 1, 0]
    );
    assert_eq!(after_cut(&disk, mask(&[true], true, true)), [1, 1, 1, 1, 2]);
}

#[test]
fn a_data_sync_keeps_the_length_that_the_bytes_need_and_a_full_sync_all_of_it() {
    let (disk, file) = disk();
    file.allocate(0, 8192).expect("allocated");
    file.write_at(&[2; 512], 2048).expect("written");
    file.sync_data().expect("synced");
    assert_eq!(after_cut(&disk, mask(&[], false, true)), [1, 1, 1, 1, 2]);
    assert_eq!(after_cut(&disk, mask(&[], true, true)).len(), 16);
    file.sync_all().expect("synced");
    assert_eq!(after_cut(&disk, mask(&[], false, true)).len(), 16);
}

#[test]
fn a_cut_and_a_hole_may_be_lost_before_a_sync() {
    let (disk, file) = disk();
    file.set_len(1024).expect("cut");
    file.set_len(2048).expect("lengthened");
    assert_eq!(disk.bytes(store()).expect("there")[1024..], [0; 1024]);
    assert_eq!(
        after_cut(&disk, mask(&[false, true], true, true)),
        [1, 1, 1, 0]
    );
    file.punch(0, 512).expect("punched");
    assert_eq!(
        after_cut(&disk, mask(&[false, true, true], true, true)),
        [1, 1, 0, 0]
    );
    file.set_len(100).expect("cut");
    file.sync_data().expect("synced");
    assert_eq!(after_cut(&disk, mask(&[], false, true)), [0]);
    assert_eq!(file.len().expect("known"), 100);
}

#[test]
fn a_sync_makes_no_length_durable_that_the_file_has_not() {
    let disk = SimDisk::new(SimOptions::default());
    let file = disk.create_new(store()).expect("new");
    disk.sync_directory(store()).expect("synced");
    file.write_at(&[1; 2048], 0).expect("written");
    file.set_len(100).expect("cut");
    file.sync_data().expect("synced");
    assert_eq!(after_cut(&disk, mask(&[], false, true)), [1]);
    assert_eq!(
        disk.image(disk.operations(), &mut mask(&[], true, true))
            .bytes(store()),
        disk.bytes(store())
    );
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let (old, new) = (Path::new("directory/store.new"), store());
    let disk = SimDisk::new(SimOptions::default());
    let file = disk.create_new(old).expect("new");
    file.write_at(&[1; 512], 0).expect("written");
    file.sync_all().expect("synced");
    let names = |disk: &SimDisk, kept: bool| {
        disk.image(disk.operations(), &mut mask(&[], true, kept))
            .paths()
    };
    assert_eq!(names(&disk, false), Vec::<PathBuf>::new());
    assert_eq!(names(&disk, true), [old]);
    disk.sync_directory(old).expect("synced");
    disk.rename(old, new).expect("renamed");
    assert_eq!(names(&disk, false), [old]);
    assert_eq!(names(&disk, true), [new]);
    disk.sync_directory(new).expect("synced");
    assert_eq!(names(&disk, false), [new]);
    disk.remove(new).expect("removed");
    assert_eq!(names(&disk, false), [new]);
    assert_eq!(names(&disk, true), Vec::<PathBuf>::new());
    assert_eq!(file.len().expect("still open"), 512);
}

#[test]
fn names_change_in_order() {
    let (old, new) = (Path::new("directory/store.new"), store());
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(new, b"old");
    let file = disk.create_new(old).expect("new");
    file.write_at(b"new", 0).expect("written");
    file.sync_all().expect("synced");
    disk.rename(old, new).expect("renamed");
    for seed in 0..100 {
        let image = disk.image(disk.operations(), &mut Sampled::new(seed));
        let bytes = image
            .bytes(new)
            .expect("one of the two always has the name");
        let expected: &[u8] = if image.paths().len() == 2 {
            b"old"
        } else {
            &bytes.clone()
        };
        assert!(bytes == expected && (bytes == b"old" || bytes == b"new"));
    }
}

#[test]
fn a_failed_sync_loses_what_no_later_write_brings_back() {
    let (disk, file) = disk();
    file.write_at(&[2; 1024], 0).expect("written");
    disk.fail(FaultPlan::once(Call::SyncData, 1, EIO));
    assert_eq!(
        file.sync_data().expect_err("planned").raw_os_error(),
        Some(EIO)
    );
    let mut buf = [0; 1024];
    file.read_at(&mut buf, 0).expect("the cache has it");
    assert_eq!(buf, [2; 1024]);
    file.sync_data().expect("lies, as systems do");
    assert_eq!(
        after_cut(&disk, mask(&[true, true], true, true)),
        [1, 1, 1, 1]
    );
    // Reopening without a reboot changes nothing; writing again does.
    let disk = disk.kill(disk.operations());
    let file = disk.open(store(), Access::ReadWrite).expect("opened");
    file.write_at(&[2; 512], 512).expect("written");
    file.sync_data().expect("synced");
    assert_eq!(after_cut(&disk, mask(&[], true, true)), [1, 2, 1, 1]);
    assert_eq!(disk.bytes(store()).expect("there")[..512], [2; 512]);
}

#[test]
fn a_short_failed_sync_brings_some_sectors_to_disk() {
    let (disk, file) = disk();
    file.write_at(&[2; 65_536], 0).expect("written");
    file.sync_all().expect("synced");
    file.write_at(&[3; 65_536], 0).expect("written");
    disk.fail(FaultPlan::once(Call::SyncData, 1, EIO).short());
    file.sync_data().expect_err("planned");
    let sectors = after_cut(&disk, mask(&[], true, true));
    let new = sectors.iter().filter(|&&byte| byte == 3).count();
    assert!((20..108).contains(&new), "{new} of 128");
}

#[test]
fn a_crash_during_a_failed_sync_is_one_before_it() {
    let (disk, file) = disk();
    file.write_at(&[2; 512], 0).expect("written");
    disk.fail(FaultPlan::sticky(Call::SyncData, 1, EIO));
    file.sync_data().expect_err("planned");
    let at = disk.operations();
    let image = disk.image(at - 1, &mut mask(&[true], true, true));
    assert_eq!(image.bytes(store()).expect("there")[..512], [2; 512]);
}

#[test]
fn kill_keeps_what_was_written_and_what_is_pending() {
    let (disk, file) = disk();
    file.write_at(&[2; 1024], 0).expect("written");
    let killed = disk.kill(disk.operations());
    assert_eq!(killed.bytes(store()).expect("there")[..1024], [2; 1024]);
    assert_eq!(killed.pending(0), 2);
    assert_eq!(
        after_cut(&killed, mask(&[false, true], true, true)),
        [1, 2, 1, 1]
    );
    let killed = disk.kill_during(disk.operations(), 700);
    let bytes = killed.bytes(store()).expect("there");
    assert_eq!(
        (&bytes[..700], &bytes[700..]),
        (&[2; 700][..], &[1; 1348][..])
    );
    assert_eq!(disk.kill(0).paths(), Vec::<PathBuf>::new());
}

#[test]
fn calls_fail_with_nothing_or_a_part_done() {
    let (disk, file) = disk();
    disk.fail(FaultPlan::once(Call::WriteAt, 1, ENOSPC));
    let error = file.write_at(&[2; 1024], 0).expect_err("planned");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.bytes(store()).expect("there"), [1; 2048]);
    disk.fail(FaultPlan::once(Call::WriteAt, 1, EIO).short());
    file.write_at(&[2; 1024], 0).expect_err("planned");
    let bytes = disk.bytes(store()).expect("there");
    assert_eq!(
        (&bytes[..512], &bytes[512..]),
        (&[2; 512][..], &[1; 1536][..])
    );
    disk.fail(FaultPlan::once(Call::Allocate, 1, ENOSPC).short());
    file.allocate(0, 16_384).expect_err("planned");
    assert_eq!(file.len().expect("known"), 8192);
    for call in [
        Call::ReadAt,
        Call::SetLen,
        Call::Punch,
        Call::Rename,
        Call::SyncDirectory,
    ] {
        disk.fail(FaultPlan::once(call, 1, EIO));
    }
    let operations = disk.operations();
    file.read_at(&mut [0; 8], 0).expect_err("planned");
    file.set_len(0).expect_err("planned");
    file.punch(0, 512).expect_err("planned");
    disk.rename(store(), Path::new("directory/other"))
        .expect_err("planned");
    disk.sync_directory(store()).expect_err("planned");
    assert_eq!(disk.operations(), operations);
    file.read_at(&mut [0; 8], 0).expect("once");
}

#[test]
fn calls_are_counted_by_kind() {
    let (disk, file) = disk();
    assert_eq!(
        (disk.count(Call::WriteAt), disk.count(Call::SyncAll)),
        (1, 1)
    );
    disk.reset_counts();
    file.write_at(&[1], 0).expect("written");
    file.write_at(&[1], 1).expect("written");
    file.sync_data().expect("synced");
    file.read_at(&mut [0], 0).expect("read");
    let counts = [
        Call::WriteAt,
        Call::SyncData,
        Call::ReadAt,
        Call::SyncAll,
        Call::Allocate,
    ];
    assert_eq!(counts.map(|call| disk.count(call)), [2, 1, 1, 0, 0]);
    assert_eq!(
        disk.operations(),
        4 + 3,
        "reads leave nothing to crash after"
    );
}

#[test]
fn a_full_disk_refuses_what_needs_space_and_no_more() {
    let (disk, file) = disk();
    disk.set_capacity(Some(8192));
    file.allocate(4096, 4096).expect("just fits");
    let error = file.allocate(0, 8193).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(
        file.write_at(&[1], 8192).expect_err("full").kind(),
        ErrorKind::StorageFull
    );
    file.write_at(&[2; 4096], 4096).expect("allocated before");
    assert_eq!(file.allocated_bytes().expect("known"), 8192);
    file.punch(0, 4096).expect("gives space back");
    file.write_at(&[1], 8192).expect("fits again");
}

#[test]
fn damage_is_durable() {
    let (disk, file) = disk();
    disk.corrupt(store(), 1024, 2, |bytes| bytes[1] ^= 0x80)
        .expect("there");
    let mut buf = [0; 2];
    file.read_at(&mut buf, 1024).expect("read");
    assert_eq!(buf, [1, 0x81]);
    disk.truncate(store(), 1026).expect("there");
    let image = disk.image(disk.operations(), &mut mask(&[], false, false));
    assert_eq!(image.bytes(store()).expect("there")[1024..], [1, 0x81]);
    let missing = disk
        .corrupt(store(), 1026, 1, |_| {})
        .expect_err("behind the end");
    assert_eq!(missing.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(
        disk.truncate(Path::new("no"), 0).expect_err("none").kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn locks_belong_to_handles_and_images_have_none() {
    let (disk, first) = disk();
    let second = disk.open(store(), Access::ReadOnly).expect("opened");
    assert!(first.try_lock_writer().expect("asked"));
    assert!(!second.try_lock_writer().expect("asked"));
    let shared = |file: &Arc<dyn Storage>| file.try_lock_byte(LockByte::Readers, LockMode::Shared);
    assert!(shared(&second).expect("asked"));
    let exclusive = first.try_lock_byte(LockByte::Readers, LockMode::Exclusive);
    assert!(!exclusive.expect("asked"));
    assert_eq!(
        first.identity().expect("known"),
        second.identity().expect("known")
    );
    let killed = disk.kill(disk.operations());
    let third = killed.open(store(), Access::ReadWrite).expect("opened");
    assert!(third.try_lock_writer().expect("asked"));
    assert_ne!(
        first.identity().expect("known"),
        third.identity().expect("known")
    );
    drop(second);
    let exclusive = first.try_lock_byte(LockByte::Readers, LockMode::Exclusive);
    assert!(exclusive.expect("asked"));
}

#[test]
fn a_read_only_handle_changes_nothing() {
    let (disk, _file) = disk();
    let operations = disk.operations();
    let reader = disk.open(store(), Access::ReadOnly).expect("opened");
    reader.write_at(&[2], 0).expect_err("read only");
    reader.allocate(0, 4096).expect_err("read only");
    reader.set_len(0).expect_err("read only");
    reader.punch(0, 512).expect_err("read only");
    assert_eq!(disk.operations(), operations);
    assert_eq!(disk.count(Call::WriteAt), 1);
    reader.sync_data().expect("allowed");
}

#[test]
fn images_in_any_order_are_the_same() {
    // The replay moves forward and starts again; no order of asking may show.
    let (disk, file) = disk();
    let mut random = Random::new(3);
    for _ in 0..60 {
        let offset = random.below(20_000) as u64;
        match random.below(6) {
            0 => file.sync_data().expect("synced"),
            1 => file.set_len(offset).expect("set"),
            2 => file.punch(offset, 3000).expect("punched"),
            _ => {
                let bytes = vec![random.draw().to_le_bytes()[0]; random.below(5000)];
                file.write_at(&bytes, offset).expect("written");
            }
        }
    }
    let image = |at: u64| disk.image(at, &mut Sampled::new(at)).bytes(store());
    let forward: Vec<_> = (0..=disk.operations()).map(image).collect();
    let mut backward: Vec<_> = (0..=disk.operations()).rev().map(image).collect();
    backward.reverse();
    assert!(forward == backward);
    // All kept is what a kill leaves.
    for at in 4..=disk.operations() {
        let all = disk
            .image(at, &mut mask(&[true; 200], true, true))
            .bytes(store());
        assert!(
            all == disk.kill(at).bytes(store()),
            "{at}: {:?}",
            disk.describe(at)
        );
    }
    let now = disk.bytes(store());
    disk.forget_operations();
    assert_eq!(disk.operations(), 0);
    assert!(disk.kill(0).bytes(store()) == now);
}

#[test]
fn a_crash_after_a_crash_builds_on_the_image() {
    let (disk, file) = disk();
    file.write_at(&[2; 1024], 0).expect("written");
    let first = disk.image(disk.operations(), &mut mask(&[true, false], true, true));
    assert_eq!(first.pending(0), 0, "what survived is durable");
    let file = first.open(store(), Access::ReadWrite).expect("opened");
    file.write_at(&[3; 512], 1024).expect("written");
    assert_eq!(after_cut(&first, mask(&[false], true, true)), [2, 1, 1, 1]);
    assert_eq!(after_cut(&first, mask(&[true], true, true)), [2, 1, 3, 1]);
}

#[test]
fn the_seed_decides_entropy() {
    let entropy = |seed| {
        let disk = SimDisk::new(SimOptions {
            seed,
            ..SimOptions::default()
        });
        disk.entropy().expect("always")
    };
    assert_eq!(entropy(1), entropy(1));
    assert_ne!(entropy(1), entropy(2));
    let (disk, _file) = disk();
    let image = |at| disk.kill(at).entropy().expect("always");
    assert_ne!(image(1), image(2));
}

#[test]
fn a_region_shows_the_simulated_file() {
    let (disk, file) = disk();
    file.set_len(65_536).expect("lengthened");
    let region = Region::reserve(65_536, 65_536).expect("a little");
    let mut extent = region.claim(0, 65_536).expect("free");
    disk.fail(FaultPlan::once(Call::Show, 1, EIO));
    file.show(&mut extent, 0, 65_536).expect_err("planned");
    file.show(&mut extent, 0, 65_536).expect("shown");
    extent.publish(65_536);
    assert_eq!(region.bytes(2047, 2), Some(&[1, 0][..]));
}
