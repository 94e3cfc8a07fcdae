// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use super::*;

const SEEDS: u64 = 500;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// What is left of the file `path` after each of many cuts of the disk that `make` makes.
fn left(path: &str, make: impl Fn(&mut Disk)) -> Vec<Option<Vec<u8>>> {
    let cut = |seed| {
        let mut disk = Disk::new(Honesty::Honest);
        make(&mut disk);
        disk.cut(seed).read(Path::new(path)).map(<[u8]>::to_vec)
    };
    (0..SEEDS).map(cut).collect()
}

/// A durable file of 8 KiB.
fn durable_file(disk: &mut Disk) -> u64 {
    let file = disk.create(ROOT, name("f")).unwrap();
    disk.write(file, 0, &[1; 8192]).unwrap();
    disk.sync_file(file).unwrap();
    disk.sync_folder(ROOT).unwrap();
    file
}

#[test]
fn what_was_synced_is_left_by_every_cut() {
    let left = left("f", |disk| {
        durable_file(disk);
    });
    assert!(left.iter().all(|content| content.as_deref() == Some(&[1; 8192])));
}

#[test]
fn of_a_file_that_was_not_synced_any_part_may_be_left() {
    let left = left("f", |disk| {
        let file = durable_file(disk);
        disk.write(file, 4096, &[2; 8192]).unwrap();
    });
    let is = |wanted: Vec<u8>| left.iter().any(|content| content.as_ref() == Some(&wanted));
    assert!(is(vec![1; 8192]), "all lost");
    assert!(is([[1; 4096], [2; 4096], [2; 4096]].concat()), "nothing lost");
    assert!(is([[1; 4096], [2; 4096]].concat()), "the length lost");
    assert!(is([[1; 4096], [2; 4096], [0; 4096]].concat()), "the end lost");
    assert!(is([[1; 4096], [1; 4096], [2; 4096]].concat()), "the beginning lost");
    let torn = |content: &Vec<u8>| content[4096..4608] != content[4608..5120];
    assert!(left.iter().flatten().any(torn), "torn between sectors");
    assert!(left.iter().flatten().all(|content| content[..4096] == [1; 4096]), "what was synced is lost");
}

#[test]
fn an_entry_may_be_lost_until_its_folder_is_synced_also_when_the_file_is_synced() {
    let left = left("f", |disk| {
        let file = disk.create(ROOT, name("f")).unwrap();
        disk.write(file, 0, b"x").unwrap();
        disk.sync_file(file).unwrap();
    });
    assert!(left.iter().any(Option::is_none));
    assert!(left.iter().flatten().all(|content| content == b"x"));
}

#[test]
fn changes_of_one_folder_are_lost_from_their_end() {
    for seed in 0..SEEDS {
        let mut disk = Disk::new(Honesty::Honest);
        let below = disk.make_folder(ROOT, name("below")).unwrap();
        disk.sync_folder(ROOT).unwrap();
        disk.create(below, name("a")).unwrap();
        disk.rename((below, name("a")), (ROOT, name("b"))).unwrap();
        disk.create(ROOT, name("c")).unwrap();
        let disk = disk.cut(seed);
        let there = |path: &str| disk.read(Path::new(path)).is_some();
        let (a, b, c) = (there("below/a"), there("b"), there("c"));
        assert!(!(a && b), "{seed}: a rename is done or not");
        assert!(!c || b, "{seed}: the later change is left without the earlier");
    }
}

#[test]
fn syncing_a_folder_takes_along_what_its_changes_need() {
    let left = left("b", |disk| {
        let other = disk.make_folder(ROOT, name("other")).unwrap();
        disk.sync_folder(ROOT).unwrap();
        disk.create(other, name("a")).unwrap();
        disk.rename((other, name("a")), (ROOT, name("b"))).unwrap();
        disk.sync_folder(ROOT).unwrap();
    });
    assert!(left.iter().all(Option::is_some));
}
