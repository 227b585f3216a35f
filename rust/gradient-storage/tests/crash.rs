//! What the simulated disk holds after a crash, and what `LocalStorage` promises of it.
#![cfg(feature = "simulated")]

use std::collections::BTreeSet;
use std::path::Path;

use gradient_storage::sim::{CallKind, Canary, Crash, CrashMode, Failure, Fault, SimErrno, SimFs};
use gradient_storage::{Folder, Key, LocalStorage, Put, Storage, StorageError};

const DIR: &str = "/home/repo/.gradient-repo";

fn create(disk: &SimFs) -> LocalStorage<SimFs> {
    let storage = LocalStorage::create_on(disk.clone(), Path::new(DIR)).expect("a new folder opens");
    storage.create_folders().expect("folders can be made");
    storage
}

fn open(disk: &SimFs) -> LocalStorage<SimFs> {
    LocalStorage::open_on(disk.clone(), Path::new(DIR)).expect("the folder is there")
}

fn seal(storage: &impl Storage, id: u8, bytes: &[u8]) -> Result<(), StorageError> {
    let mut pack = storage.create_pack(&[id; 16], 0)?;
    pack.append(&[bytes])?;
    pack.seal()
}

fn put(storage: &impl Storage, n: u64) {
    assert_eq!(storage.put_if_absent(&Key::operation(n), b"bytes").expect("there is room"), Put::Done);
}

/// Every crash of a record: each number of changes, each mode, a few seeds.
fn crashes(disk: &SimFs) -> impl Iterator<Item = Crash> {
    (0..=disk.num_changes()).flat_map(|after| {
        CrashMode::ALL.into_iter().flat_map(move |mode| {
            let num_seeds = if mode.is_random() { 8 } else { 1 };
            (0..num_seeds).map(move |seed| Crash { after, mode, seed })
        })
    })
}

/// Bytes without order, longer than two torn sectors of either length.
fn bytes() -> Vec<u8> {
    (0..20_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn what_was_put_is_there_after_any_crash_and_before_it_whole_or_not_at_all() {
    let disk = SimFs::new();
    let storage = create(&disk);
    disk.settle();
    let (key, bytes) = (Key::operation(1), bytes());
    assert_eq!(storage.put_if_absent(&key, &bytes).expect("is the first"), Put::Done);
    let put = disk.num_changes();
    seal(&storage, 1, &bytes).expect("the id is new");
    let sealed = disk.num_changes();
    let mut num_there = [0; 2];
    for crash in crashes(&disk) {
        let after = open(&disk.crash(&crash));
        for (at, (key, acknowledged)) in [(&key, put), (&Key::pack(&[1; 16]), sealed)].into_iter().enumerate() {
            match after.read(key, 1 << 20) {
                Ok(found) => {
                    num_there[at] += usize::from(crash.after < acknowledged);
                    assert!(found == bytes, "{crash}: {key} holds {} other bytes", found.len());
                }
                Err(error) => {
                    assert!(error.is_not_found(), "{crash}: {error}");
                    assert!(crash.after < acknowledged, "{crash}: {key} was acknowledged and is gone");
                }
            }
        }
    }
    assert!(num_there.iter().all(|num| *num > 0), "the states are all alike: {num_there:?}");
}

#[test]
fn no_write_of_a_pack_goes_on_beyond_the_window_that_is_written_back() {
    const WINDOW: usize = 2 << 20;
    let disk = SimFs::new();
    let storage = create(&disk);
    let bytes = vec![7; 2 * WINDOW];
    let mut pack = storage.create_pack(&[1; 16], 20 << 20).expect("the id is new");
    let mut num_writes = |pieces: &[&[u8]]| {
        disk.settle();
        pack.append(pieces).expect("there is room");
        disk.calls().iter().filter(|call| call.kind == CallKind::Write).count()
    };
    for (len, expected) in [(WINDOW / 2, 1), (WINDOW / 2, 1), (2 * WINDOW, 2), (1, 1), (WINDOW - 2, 1), (2, 2)] {
        assert_eq!(num_writes(&[&bytes[..len]]), expected, "{len} bytes");
    }
    let (half, whole) = (&bytes[..WINDOW / 2], &bytes[..WINDOW]);
    assert_eq!(num_writes(&[&[], half, whole, &[], half]), 3, "two windows are full, and a third begins");
}

/// A disk whose packs go past the page cache by so many bytes, and one in the making of 100 000 bytes.
const DIRECT_BYTES: usize = 8 << 10;

fn long_bytes() -> Vec<u8> {
    (0..25_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn seal_long(storage: &LocalStorage<SimFs>) -> Result<(), StorageError> {
    let mut pack = storage.create_pack(&[1; 16], 1 << 20)?;
    for piece in long_bytes().chunks(3001) {
        let (one, other) = piece.split_at(piece.len() / 3);
        pack.append(&[one, other])?;
    }
    pack.seal()
}

#[test]
fn a_pack_goes_past_the_page_cache_in_aligned_pieces_and_its_end_through_it() {
    let disk = SimFs::new();
    disk.allow_direct(DIRECT_BYTES);
    let storage = create(&disk);
    disk.settle();
    seal_long(&storage).expect("nothing fails");
    let kinds: Vec<CallKind> = disk.calls().iter().map(|call| call.kind).collect();
    let between: Vec<CallKind> = kinds
        .iter()
        .copied()
        .filter(|kind| matches!(kind, CallKind::Write | CallKind::SetDirect | CallKind::Truncate | CallKind::Sync))
        .collect();
    let mut expected = vec![CallKind::SetDirect];
    expected.extend([CallKind::Write; 100_000 / DIRECT_BYTES]);
    expected.extend([CallKind::SetDirect, CallKind::Write, CallKind::Truncate, CallKind::Sync]);
    assert_eq!(between, expected);
    assert!(open(&disk).read(&Key::pack(&[1; 16]), 1 << 20).expect("is sealed") == long_bytes());
}

#[test]
fn a_pack_that_went_past_the_page_cache_is_whole_after_any_crash_or_not_there() {
    let disk = SimFs::new();
    disk.allow_direct(DIRECT_BYTES);
    let storage = create(&disk);
    disk.settle();
    seal_long(&storage).expect("nothing fails");
    let sealed = disk.num_changes();
    let mut num_there = 0;
    for crash in crashes(&disk) {
        let after = open(&disk.crash(&crash));
        match after.read(&Key::pack(&[1; 16]), 1 << 20) {
            Ok(found) => {
                num_there += 1;
                assert!(found == long_bytes(), "{crash}: {} other bytes", found.len());
            }
            Err(error) => assert!(error.is_not_found() && crash.after < sealed, "{crash}: {error}"),
        }
    }
    assert!(num_there > 0);
}

#[test]
fn a_call_that_fails_past_the_page_cache_fails_the_pack_or_is_made_up_for() {
    let calls = {
        let disk = SimFs::new();
        disk.allow_direct(DIRECT_BYTES);
        let storage = create(&disk);
        disk.settle();
        seal_long(&storage).expect("nothing fails");
        disk.calls()
    };
    let failures = [SimErrno::IO, SimErrno::INVAL, SimErrno::NOSPC].map(Failure::Error);
    let mut num_made_up_for = 0;
    for failure in failures.into_iter().chain([Failure::OneByte, Failure::Half]) {
        for (at, call) in calls.iter().enumerate() {
            if !matches!(call.kind, CallKind::SetDirect | CallKind::Write) {
                continue;
            }
            let disk = SimFs::new();
            disk.allow_direct(DIRECT_BYTES);
            let storage = create(&disk);
            disk.settle();
            disk.set_fault(Some(Fault { at, failure, lasts: false }));
            let sealed = seal_long(&storage);
            disk.set_fault(None);
            let found = open(&disk).read(&Key::pack(&[1; 16]), 1 << 20);
            if sealed.is_ok() {
                num_made_up_for += 1;
                assert!(found.expect("is sealed") == long_bytes(), "{failure:?} of call {at}, {call:?}");
            } else {
                assert!(found.is_err_and(|error| error.is_not_found()), "{failure:?} of call {at}, {call:?}");
            }
        }
    }
    assert!(num_made_up_for > 3 * 100_000 / DIRECT_BYTES, "{num_made_up_for}");
}

#[test]
fn a_file_that_was_not_synced_may_be_found_in_every_bad_way() {
    let disk = SimFs::new();
    let storage = create(&disk);
    disk.settle();
    disk.set_canary(Some(Canary::PublishBeforeSync));
    seal(&storage, 1, &bytes()).expect("nothing fails");
    let mut seen = BTreeSet::new();
    for crash in crashes(&disk) {
        let state = disk.crash(&crash);
        let Ok(found) = open(&state).read(&Key::pack(&[1; 16]), 1 << 20) else { continue };
        let all = bytes();
        seen.insert(match found.len() {
            0 => "empty",
            len if len < all.len() => "short",
            _ if found == all => "whole",
            _ if found.iter().all(|byte| *byte == 0) => "zeros",
            _ => "torn",
        });
    }
    assert_eq!(seen, BTreeSet::from(["empty", "short", "torn", "whole", "zeros"]));
}

#[test]
fn a_folder_that_was_made_is_there_after_any_crash() {
    let disk = SimFs::new();
    let storage = create(&disk);
    drop(storage);
    let made = disk.num_changes();
    for crash in crashes(&disk) {
        let state = disk.crash(&crash);
        let opened = LocalStorage::open_on(state.clone(), Path::new(DIR));
        assert!(opened.is_ok() || crash.after < made, "{crash}: {opened:?}");
        create(&state);
    }
}

#[test]
fn a_killed_process_loses_nothing_but_the_power_may_go_later() {
    let disk = SimFs::new();
    let storage = create(&disk);
    disk.settle();
    put(&storage, 1);
    let renamed = disk.num_changes() - 1;
    let other = disk.kill(renamed);
    assert!(open(&other).exists(&Key::operation(1)).expect("looked"), "what a process did is there for the others");
    let lost = other.crash(&Crash { after: renamed, mode: CrashMode::Lost, seed: 0 });
    assert!(!open(&lost).exists(&Key::operation(1)).expect("looked"), "nobody has synced it");
    put(&open(&other), 2);
    let synced = other.crash(&Crash { after: other.num_changes(), mode: CrashMode::Lost, seed: 0 });
    assert!(open(&synced).exists(&Key::operation(1)).expect("looked"), "the other process has synced the folder");
}

#[test]
fn a_folder_that_a_killed_process_made_is_durable_once_another_one_has_made_it_again() {
    let disk = SimFs::new();
    drop(create(&disk));
    for after in 0..=disk.num_changes() {
        let other = disk.kill(after);
        drop(create(&other));
        let lost = other.crash(&Crash { after: other.num_changes(), mode: CrashMode::Lost, seed: 0 });
        put(&open(&lost), 1);
    }
}

#[test]
fn an_interrupted_call_is_made_again_but_not_for_ever() {
    let failure = Failure::Error(SimErrno::INTR);
    for lasts in [false, true] {
        let disk = SimFs::new();
        let storage = create(&disk);
        disk.settle();
        put(&storage, 1);
        for at in 0..disk.calls().len() {
            let disk = disk.kill(0);
            let storage = open(&disk);
            disk.settle();
            disk.set_fault(Some(Fault { at, failure, lasts }));
            let put = storage.put_if_absent(&Key::operation(1), b"bytes");
            assert!(!disk.is_runaway());
            assert_eq!(put.is_ok(), !lasts, "call {at}: {put:?}");
        }
    }
}

#[test]
fn a_sync_that_fails_poisons_and_what_it_dropped_stays_lost() {
    let disk = SimFs::new();
    let storage = create(&disk);
    disk.settle();
    put(&storage, 1);
    let calls = disk.calls();
    let syncs = calls.iter().enumerate().filter(|(_, call)| matches!(call.kind, CallKind::Sync | CallKind::SyncFolder));
    let syncs: Vec<usize> = syncs.map(|(at, _)| at).collect();
    assert_eq!(syncs.len(), 2, "of the file and of its folder");
    for at in syncs {
        let disk = disk.kill(0);
        let storage = open(&disk);
        disk.settle();
        disk.set_fault(Some(Fault { at, failure: Failure::LostSync, lasts: false }));
        let error = storage.put_if_absent(&Key::operation(1), b"bytes").expect_err("it is not durable");
        assert!(matches!(error, StorageError::Io { operation: "sync", .. }), "{error}");
        let error = storage.put_if_absent(&Key::operation(2), b"bytes").expect_err("the handle is poisoned");
        assert!(matches!(error, StorageError::Poisoned { .. }), "{error}");
        let after = disk.num_changes();
        let state = disk.crash(&Crash { after, mode: CrashMode::Kept, seed: 0 });
        assert!(!open(&state).exists(&Key::operation(1)).expect("looked"), "call {at}");
        let next = open(&disk).put_if_absent(&Key::operation(2), b"bytes");
        assert_eq!(next.expect("a new handle writes"), Put::Done);
    }
}

#[test]
fn the_same_seed_makes_the_same_disk() {
    let disk = SimFs::new();
    let storage = create(&disk);
    disk.settle();
    disk.set_canary(Some(Canary::PublishBeforeSync));
    seal(&storage, 1, &bytes()).expect("nothing fails");
    let contents = |crash: &Crash| {
        let state = disk.crash(crash);
        [Folder::Tmp, Folder::Packs].map(|folder| state.files(&Path::new(DIR).join(folder.name())))
    };
    let mut all = Vec::new();
    for crash in crashes(&disk) {
        assert_eq!(contents(&crash), contents(&crash), "{crash}");
        all.push(contents(&crash));
    }
    all.dedup();
    assert!(all.len() > 20, "{} different disks", all.len());
}
