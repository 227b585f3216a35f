//! The promises of `Storage`, kept by every implementation in the table below.
//!
//! A new storage is one row of `STORAGES`. What only a disk can get wrong is in `local.rs`.

use std::sync::Barrier;

use gradient_storage::{Durability, Folder, Key, Listed, LocalStorage, MemoryStorage, Put, Storage, StorageError};

/// A storage with its folders made, and a second handle on the same bytes; the guard keeps them.
struct Case {
    name: &'static str,
    storage: Box<dyn Storage>,
    second: Box<dyn Storage>,
    _guard: Option<tempfile::TempDir>,
}

const STORAGES: &[fn() -> Case] = &[
    local,
    memory,
    #[cfg(feature = "simulated")]
    simulated,
    #[cfg(feature = "simulated")]
    simulated_without_rename,
];

fn local() -> Case {
    let guard = tempfile::tempdir().expect("a temporary folder can be made");
    let dir = guard.path().join(".gradient-repo");
    let storage = Box::new(LocalStorage::create(&dir).expect("a new folder opens"));
    let second = Box::new(LocalStorage::open(&dir).expect("the folder is there"));
    Case { name: "local", storage, second, _guard: Some(guard) }
}

fn memory() -> Case {
    let storage = MemoryStorage::new();
    Case { name: "memory", storage: Box::new(storage.clone()), second: Box::new(storage), _guard: None }
}

#[cfg(feature = "simulated")]
fn simulated() -> Case {
    on_simulated_disk("simulated", gradient_storage::sim::SimFs::new())
}

#[cfg(feature = "simulated")]
fn simulated_without_rename() -> Case {
    let disk = gradient_storage::sim::SimFs::new();
    disk.forbid_rename_no_replace();
    on_simulated_disk("simulated, without a rename that keeps what is there", disk)
}

#[cfg(feature = "simulated")]
fn on_simulated_disk(name: &'static str, disk: gradient_storage::sim::SimFs) -> Case {
    let dir = std::path::Path::new("/repo/.gradient-repo");
    let storage = Box::new(LocalStorage::create_on(disk.clone(), dir).expect("a new folder opens"));
    let second = Box::new(LocalStorage::open_on(disk, dir).expect("the folder is there"));
    Case { name, storage, second, _guard: None }
}

/// Runs a promise over every storage; what fails names it on standard error.
fn for_each(promise: impl Fn(&dyn Storage, &dyn Storage)) {
    for make in STORAGES {
        let case = make();
        eprintln!("storage: {}", case.name);
        case.storage.create_folders().expect("folders can be made");
        promise(&*case.storage, &*case.second);
    }
}

const ID: [u8; 16] = [0xab; 16];

fn put(storage: &dyn Storage, key: &Key, bytes: &[u8]) {
    assert_eq!(storage.put_if_absent(key, bytes).expect("there is room"), Put::Done);
}

fn seal(storage: &dyn Storage, id: &[u8; 16], bytes: &[u8]) {
    let mut pack = storage.create_pack(id, 0).expect("the id is new");
    pack.append(&[bytes]).expect("there is room");
    pack.seal().expect("the id is still new");
}

fn names(listed: &[Listed]) -> Vec<&str> {
    listed.iter().map(|file| file.name.as_str()).collect()
}

#[test]
fn put_if_absent_never_replaces() {
    for_each(|storage, second| {
        let key = Key::operation(1);
        put(storage, &key, b"first");
        for other in [storage, second] {
            assert_eq!(other.put_if_absent(&key, b"another").expect("is no error"), Put::Taken);
            assert_eq!(other.read(&key, 100).expect("is there"), b"first");
        }
        assert!(storage.list(Folder::Tmp).expect("tmp/ is there").is_empty(), "a temporary was left");
    });
}

#[test]
fn one_of_eight_racing_writers_wins_and_its_bytes_are_there() {
    for_each(|storage, second| {
        for round in 1..=20 {
            let key = Key::operation(round);
            let start = Barrier::new(8);
            let outcomes: Vec<(u8, Put)> = std::thread::scope(|scope| {
                let race = |writer: u8| {
                    start.wait();
                    let handle = if writer.is_multiple_of(2) { storage } else { second };
                    (writer, handle.put_if_absent(&key, &[writer; 1000]).expect("losing is no error"))
                };
                let threads: Vec<_> = (0..8).map(|writer| scope.spawn(move || race(writer))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no writer panics")).collect()
            });
            let winners: Vec<u8> =
                outcomes.iter().filter(|(_, put)| *put == Put::Done).map(|(writer, _)| *writer).collect();
            assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
            assert_eq!(storage.read(&key, 1000).expect("is there"), [winners[0]; 1000]);
        }
        assert_eq!(storage.list(Folder::Ops).expect("ops/ is there").len(), 20);
        assert!(storage.list(Folder::Tmp).expect("tmp/ is there").is_empty(), "a temporary was left");
    });
}

#[test]
fn reads_exactly_what_was_asked_for_or_says_what_is_missing() {
    for_each(|storage, _| {
        seal(storage, &ID, b"0123456789");
        put(storage, &Key::operation(1), b"0123456789");
        for key in [Key::pack(&ID), Key::operation(1)] {
            let mut buf = [0; 4];
            storage.read_at(&key, 3, &mut buf).expect("lies inside");
            assert_eq!(&buf, b"3456");
            storage.read_at(&key, 6, &mut buf).expect("ends with the file");
            assert_eq!(&buf, b"6789");
            storage.read_at(&key, 10, &mut []).expect("nothing is always there");
            for (start, there) in [(7, 3), (10, 0), (11, 0), (1 << 40, 0), (u64::MAX - 1, 0), (u64::MAX, 0)] {
                let error = storage.read_at(&key, start, &mut buf).expect_err("ends behind the file");
                assert!(
                    matches!(error, StorageError::Truncated { offset, expected: 4, actual, .. }
                        if offset == start && actual == there),
                    "{error}"
                );
            }
        }
    });
}

#[test]
fn refuses_to_read_a_file_that_is_longer_than_its_kind_may_be() {
    for_each(|storage, _| {
        let key = Key::config();
        put(storage, &key, &[7; 100]);
        assert_eq!(storage.read(&key, 100).expect("just fits"), [7; 100]);
        let error = storage.read(&key, 99).expect_err("does not fit");
        assert!(matches!(error, StorageError::TooLarge { len: 100, max: 99, .. }), "{error}");
        put(storage, &Key::format(), b"");
        assert_eq!(storage.read(&Key::format(), 0).expect("nothing fits into nothing"), b"");
    });
}

#[test]
fn a_missing_file_is_not_found_by_any_call() {
    for_each(|storage, _| {
        let key = Key::pack(&ID);
        for error in [
            storage.read(&key, 10).map(drop).expect_err("read"),
            storage.read_at(&key, 0, &mut [0; 1]).expect_err("read_at"),
            storage.read_at(&key, u64::MAX, &mut [0; 1]).expect_err("read_at, far out"),
            storage.len(&key).map(drop).expect_err("len"),
            storage.delete(&key).expect_err("delete"),
            storage.move_to_trash(&key).expect_err("move_to_trash"),
        ] {
            assert!(error.is_not_found(), "{error}");
            assert!(error.to_string().contains(key.name()), "{error}");
        }
        assert!(!storage.exists(&key).expect("is a question"));
    });
}

#[test]
fn a_missing_folder_is_not_found_and_is_not_made_by_writing() {
    for make in STORAGES {
        let case = make();
        let storage = &*case.storage;
        for error in [
            storage.list(Folder::Ops).map(drop).expect_err("list"),
            storage.put_if_absent(&Key::operation(1), b"").map(drop).expect_err("put"),
            storage.replace(&Key::lease(&ID), b"", Durability::Unsynced).expect_err("replace"),
            storage.overwrite(&Key::lease(&ID), b"").expect_err("overwrite"),
            storage.create_pack(&ID, 0).map(drop).expect_err("create_pack"),
        ] {
            assert!(error.is_not_found(), "{}: {error}", case.name);
        }
        storage.create_folders().expect("folders can be made");
        storage.create_folders().expect("making them again changes nothing");
        for folder in Folder::FIXED {
            assert!(case.second.list(folder).expect("is there").is_empty(), "{}: {folder}", case.name);
        }
    }
}

#[test]
fn replace_puts_the_new_bytes_in_place_of_the_old() {
    for_each(|storage, second| {
        for durability in [Durability::Synced, Durability::Unsynced] {
            for key in [Key::config(), Key::lease(&ID), Key::cache("index").expect("is a name"), Key::manifest()] {
                storage.replace(&key, b"a longer first version", durability).expect("there is room");
                storage.replace(&key, b"second", durability).expect("there is room");
                assert_eq!(second.read(&key, 100).expect("is there"), b"second");
                assert_eq!(second.len(&key).expect("is there"), 6);
            }
        }
        assert!(storage.list(Folder::Tmp).expect("tmp/ is there").is_empty(), "a temporary was left");
    });
}

#[test]
fn overwrite_leaves_the_new_bytes_and_no_others() {
    for_each(|storage, second| {
        let key = Key::lease(&ID);
        for bytes in [&b"first"[..], b"a longer second version", b"third", b""] {
            storage.overwrite(&key, bytes).expect("there is room");
            assert_eq!(second.read(&key, 100).expect("is there"), bytes);
            assert_eq!(second.len(&key).expect("is there"), bytes.len() as u64);
        }
        assert!(storage.list(Folder::Tmp).expect("tmp/ is there").is_empty(), "a temporary was left");
    });
}

#[test]
fn lists_the_files_of_one_folder_sorted_with_their_lengths() {
    for_each(|storage, second| {
        for n in [10, 2, 300, 1] {
            put(storage, &Key::operation(n), &vec![0; usize::try_from(n).expect("is small")]);
        }
        put(storage, &Key::folded(1), b"folded");
        put(storage, &Key::format(), b"elsewhere");
        let listed = second.list(Folder::Ops).expect("ops/ is there");
        let expected = [Key::operation(1), Key::operation(2), Key::operation(10), Key::operation(300), Key::folded(1)];
        assert_eq!(names(&listed), expected.iter().map(Key::name).collect::<Vec<_>>());
        assert_eq!(listed.iter().map(|file| file.len).collect::<Vec<_>>(), [1, 2, 10, 300, 6]);
        assert_eq!(names(&storage.list(Folder::Root).expect("is there")), ["format"]);
    });
}

#[test]
fn deletes_one_file_and_its_name_can_be_used_again() {
    for_each(|storage, second| {
        let (key, other) = (Key::operation(1), Key::operation(2));
        put(storage, &key, b"one");
        put(storage, &other, b"two");
        second.delete(&key).expect("is there");
        assert!(!storage.exists(&key).expect("is a question"));
        assert!(storage.exists(&other).expect("is a question"));
        put(storage, &key, b"again");
    });
}

#[test]
fn a_pack_is_absent_until_it_is_sealed_and_then_whole() {
    for_each(|storage, second| {
        let key = Key::pack(&ID);
        for expected_len in [0, 5, 12, 1 << 20] {
            let mut pack = storage.create_pack(&ID, expected_len).expect("the id is new");
            pack.append(&[b"one", b"", b"two"]).expect("there is room");
            assert_eq!(pack.position(), 6);
            pack.append(&[]).expect("nothing always fits");
            pack.append(&[b"three!"]).expect("there is room");
            assert_eq!(pack.position(), 12);
            assert!(!second.exists(&key).expect("is a question"), "an unsealed pack was seen");
            assert!(second.list(Folder::Packs).expect("packs/ is there").is_empty());
            pack.seal().expect("the id is still new");
            assert_eq!(second.read(&key, 100).expect("is sealed"), b"onetwothree!");
            assert_eq!(second.len(&key).expect("is sealed"), 12, "reserved space was left in the file");
            second.delete(&key).expect("is there");
            assert!(storage.list(Folder::Tmp).expect("tmp/ is there").is_empty(), "a temporary was left");
        }
    });
}

#[test]
fn a_pack_that_is_not_sealed_leaves_nothing() {
    for_each(|storage, second| {
        let mut pack = storage.create_pack(&ID, 1 << 20).expect("the id is new");
        pack.append(&[&[1; 5000]]).expect("there is room");
        drop(pack);
        for folder in [Folder::Packs, Folder::Tmp, Folder::Trash, Folder::Root] {
            assert!(second.list(folder).expect("is there").is_empty(), "{folder}");
        }
        seal(storage, &ID, b"the id is free still");
    });
}

#[test]
fn a_pack_never_takes_the_place_of_another() {
    for_each(|storage, second| {
        let mut late = second.create_pack(&ID, 0).expect("the id is new");
        late.append(&[b"late"]).expect("there is room");
        seal(storage, &ID, b"first");
        let outcomes = [late.seal(), storage.create_pack(&ID, 0).map(drop)];
        assert!(outcomes.iter().all(|o| matches!(o, Err(StorageError::AlreadyExists { .. }))), "{outcomes:?}");
        assert_eq!(second.read(&Key::pack(&ID), 10).expect("is sealed"), b"first");
        assert!(storage.list(Folder::Tmp).expect("tmp/ is there").is_empty(), "a temporary was left");
    });
}

#[test]
fn the_trash_takes_packs_only_and_keeps_what_it_has() {
    for_each(|storage, second| {
        put(storage, &Key::operation(1), b"");
        let error = storage.move_to_trash(&Key::operation(1)).expect_err("is no pack");
        assert!(matches!(error, StorageError::NotAPack { .. }), "{error}");

        seal(storage, &ID, b"bytes");
        storage.read_at(&Key::pack(&ID), 0, &mut [0; 5]).expect("is there");
        storage.move_to_trash(&Key::pack(&ID)).expect("is there");
        assert!(!second.exists(&Key::pack(&ID)).expect("is a question"));
        assert!(storage.read_at(&Key::pack(&ID), 0, &mut [0; 5]).expect_err("is gone").is_not_found());
        assert_eq!(second.read(&Key::trash_pack(&ID), 10).expect("was moved"), b"bytes");

        seal(storage, &ID, b"again");
        let error = storage.move_to_trash(&Key::pack(&ID)).expect_err("the name is taken");
        assert!(matches!(error, StorageError::AlreadyExists { .. }), "{error}");
        assert_eq!(second.read(&Key::trash_pack(&ID), 10).expect("was not replaced"), b"bytes");
        second.delete(&Key::trash_pack(&ID)).expect("trash is emptied by deleting");
    });
}

#[test]
fn says_where_it_is() {
    for_each(|storage, _| assert!(!storage.location().is_empty()));
}

#[test]
fn moves_aside_under_a_new_name_each_time_and_only_what_may_go() {
    for_each(|storage, second| {
        for (bytes, expected) in [(&b"first"[..], ""), (b"second", ".1"), (b"third", ".2")] {
            put(storage, &Key::operation(7), bytes);
            let aside = storage.move_aside(&Key::operation(7)).expect("it is there");
            assert_eq!(aside.to_string(), format!("lost+found/ops-00000000000000000007{expected}"));
            assert_eq!(second.read(&aside, 100).expect("was moved"), bytes);
            assert!(!second.exists(&Key::operation(7)).expect("looking is allowed"));
        }
        assert!(storage.move_aside(&Key::operation(7)).expect_err("it is gone").is_not_found());
        put(storage, &Key::format(), b"format");
        let refused = storage.move_aside(&Key::format());
        assert!(matches!(refused, Err(StorageError::BadName { .. })), "{refused:?}");
    });
}
