//! What only a disk can get wrong: links, pipes and folders in place of files, names of others, a full disk.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use gradient_storage::{Durability, Folder, Key, LocalStorage, Put, Storage, StorageError};

const ID: [u8; 16] = [0xab; 16];

/// A repository with its folders, beside a canary file that nobody may touch.
struct Repo {
    guard: tempfile::TempDir,
    storage: LocalStorage,
}

impl Repo {
    fn new() -> Self {
        let guard = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(guard.path().join("canary"), b"canary").expect("there is room");
        let storage = LocalStorage::create(&guard.path().join(".gradient-repo")).expect("a new folder opens");
        storage.create_folders().expect("folders can be made");
        Self { guard, storage }
    }

    fn dir(&self) -> PathBuf {
        self.guard.path().join(".gradient-repo")
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir().join(key.folder().name()).join(key.name())
    }
}

impl Drop for Repo {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let canary = std::fs::read(self.guard.path().join("canary")).expect("the canary is gone");
            assert_eq!(canary, b"canary", "a file outside the repository was touched");
        }
    }
}

/// Runs on a thread of its own and fails instead of hanging.
fn within_ten_seconds<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    outcome.recv_timeout(Duration::from_secs(10)).expect("it hangs or panicked")
}

/// Every call on a key that must not find a file there.
fn refusals(storage: &LocalStorage, key: &Key) -> Vec<(&'static str, Result<(), StorageError>)> {
    vec![
        ("read", storage.read(key, 100).map(drop)),
        ("read_at", storage.read_at(key, 0, &mut [0; 4])),
        ("len", storage.len(key).map(drop)),
        ("exists", storage.exists(key).map(drop)),
        ("put_if_absent", storage.put_if_absent(key, b"new").map(drop)),
        ("replace", storage.replace(key, b"new", Durability::Unsynced)),
        ("overwrite", storage.overwrite(key, b"new")),
        ("create_pack", storage.create_pack(&ID, 0).map(drop)),
        ("move_to_trash", storage.move_to_trash(key)),
        ("delete", storage.delete(key)),
    ]
}

#[test]
fn refuses_whatever_is_no_regular_file_without_following_or_hanging() {
    type Plant = fn(&Repo, &PathBuf);
    let plants: [(&str, Plant); 5] = [
        ("symbolic link", |repo, path| symlink(repo.guard.path().join("canary"), path).expect("links exist")),
        ("symbolic link", |_, path| symlink("nowhere", path).expect("links exist")),
        ("folder", |_, path| std::fs::create_dir(path).expect("folders exist")),
        ("pipe", |_, path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("pipes exist");
        }),
        ("socket", |_, path| drop(std::os::unix::net::UnixListener::bind(path).expect("sockets exist"))),
    ];
    for (kind, plant) in plants {
        within_ten_seconds(move || {
            let repo = Repo::new();
            let key = Key::pack(&ID);
            plant(&repo, &repo.path(&key));
            for (call, outcome) in refusals(&repo.storage, &key) {
                assert!(
                    matches!(&outcome, Err(StorageError::NotAFile { found, .. }) if *found == kind),
                    "{call} on a {kind}: {outcome:?}"
                );
            }
            assert!(repo.storage.list(Folder::Packs).expect("packs/ is there").is_empty(), "a {kind} was listed");
            assert!(repo.path(&key).symlink_metadata().is_ok(), "the {kind} was removed");
            assert!(repo.storage.list(Folder::Tmp).expect("tmp/ is there").is_empty(), "a temporary was left");
        });
    }
}

#[test]
fn refuses_a_repository_whose_folder_is_a_link() {
    let repo = Repo::new();
    let link = repo.guard.path().join("link");
    symlink(repo.dir(), &link).expect("links exist");
    for dir in [link.clone(), link.join(""), repo.guard.path().join("canary")] {
        for outcome in [LocalStorage::open(&dir), LocalStorage::create(&dir)] {
            assert!(matches!(outcome, Err(StorageError::NotAFolder { .. })), "{dir:?}: {outcome:?}");
        }
    }
    let missing = LocalStorage::open(&repo.guard.path().join("missing")).expect_err("is not there");
    assert!(missing.is_not_found(), "{missing}");
}

#[test]
fn refuses_a_link_in_place_of_a_fixed_folder_at_open_and_later() {
    for folder in Folder::FIXED {
        let repo = Repo::new();
        let (path, outside) = (repo.dir().join(folder.name()), repo.guard.path().join("outside"));
        std::fs::rename(&path, &outside).expect("can be moved");
        symlink(&outside, &path).expect("links exist");

        let is_refused = |outcome: Result<(), StorageError>| {
            matches!(outcome, Err(StorageError::NotAFolder { found: "symbolic link", .. }))
        };
        assert!(is_refused(LocalStorage::open(&repo.dir()).map(drop)), "{folder}: open");
        assert!(is_refused(repo.storage.list(folder).map(drop)), "{folder}: list");
        assert!(is_refused(repo.storage.create_folders()), "{folder}: create_folders");
        let key = Key::new(folder, "name").expect("is a name");
        assert!(is_refused(repo.storage.put_if_absent(&key, b"").map(drop)), "{folder}: put_if_absent");
        assert!(is_refused(repo.storage.replace(&key, b"", Durability::Unsynced)), "{folder}: replace");
        assert!(is_refused(repo.storage.overwrite(&key, b"")), "{folder}: overwrite");
        assert_eq!(std::fs::read_dir(&outside).expect("is there").count(), 0, "{folder}: wrote through the link");
    }
}

#[test]
fn overwrites_in_place_but_not_what_has_a_second_name() {
    let repo = Repo::new();
    let key = Key::lease(&ID);
    let inode = |path: &PathBuf| std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("is there"));
    repo.storage.overwrite(&key, b"first").expect("there is room");
    let made = inode(&repo.path(&key));
    repo.storage.overwrite(&key, b"second").expect("there is room");
    assert_eq!(inode(&repo.path(&key)), made, "the file was made anew");

    let outside = repo.guard.path().join("outside");
    std::fs::hard_link(repo.path(&key), &outside).expect("links exist");
    repo.storage.overwrite(&key, b"third").expect("there is room");
    assert_eq!(std::fs::read(&outside).expect("is there"), b"second");
    assert_eq!(repo.storage.read(&key, 10).expect("is there"), b"third");
}

#[test]
fn leaves_files_of_others_alone_and_does_not_list_them() {
    let repo = Repo::new();
    for name in [b"README".as_slice(), b".hidden", b"with blank", b"\xff\xfe", "\u{e4}".as_bytes()] {
        std::fs::write(repo.dir().join("ops").join(std::ffi::OsStr::from_bytes(name)), b"").expect("there is room");
    }
    assert_eq!(repo.storage.put_if_absent(&Key::operation(1), b"").expect("there is room"), Put::Done);
    let listed = repo.storage.list(Folder::Ops).expect("ops/ is there");
    assert_eq!(listed.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), [Key::operation(1).name()]);

    std::fs::create_dir(repo.dir().join("ops").join(Key::operation(2).name())).expect("there is room");
    let strangers = repo.storage.strangers(Folder::Ops).expect("ops/ is there");
    let folder = Key::operation(2);
    let expected = [".hidden", folder.name(), "README", "with blank", "\u{e4}", "\u{fffd}\u{fffd}"];
    assert_eq!(strangers, expected);
    assert_eq!(repo.storage.strangers(Folder::Root).expect("is there"), Vec::<String>::new());
}

#[test]
fn writes_beside_the_repository_the_manifest_and_nothing_else() {
    let repo = Repo::new();
    repo.storage.replace(&Key::manifest(), b"{}", Durability::Unsynced).expect("there is room");
    assert_eq!(std::fs::read(repo.guard.path().join("manifest.json")).expect("was written"), b"{}");
    let listed = repo.storage.list(Folder::Beside).expect("is there");
    assert_eq!(listed.len(), 1, "files of the user were listed: {listed:?}");
}

#[test]
fn reads_a_pack_that_stays_open_after_another_process_moved_it() {
    let repo = Repo::new();
    let mut pack = repo.storage.create_pack(&ID, 0).expect("the id is new");
    pack.append(&[b"bytes"]).expect("there is room");
    pack.seal().expect("the id is still new");
    let mut buf = [0; 5];
    repo.storage.read_at(&Key::pack(&ID), 0, &mut buf).expect("is there");
    LocalStorage::open(&repo.dir()).expect("opens").move_to_trash(&Key::pack(&ID)).expect("is there");
    buf.fill(0);
    repo.storage.read_at(&Key::pack(&ID), 0, &mut buf).expect("is open still");
    assert_eq!(&buf, b"bytes");
    assert!(!repo.storage.exists(&Key::pack(&ID)).expect("is a question"));
}

#[test]
fn a_move_that_a_crash_left_with_both_names_is_finished() {
    let repo = Repo::new();
    let mut pack = repo.storage.create_pack(&ID, 0).expect("the id is new");
    pack.append(&[b"bytes"]).expect("there is room");
    pack.seal().expect("the id is still new");
    std::fs::hard_link(repo.path(&Key::pack(&ID)), repo.path(&Key::trash_pack(&ID))).expect("links exist");
    repo.storage.move_to_trash(&Key::pack(&ID)).expect("it is the same file");
    assert!(!repo.storage.exists(&Key::pack(&ID)).expect("looked"));
    assert_eq!(repo.storage.read(&Key::trash_pack(&ID), 10).expect("was moved"), b"bytes");
}

#[test]
fn sees_a_pack_that_was_cut_while_it_was_open() {
    let repo = Repo::new();
    let mut pack = repo.storage.create_pack(&ID, 0).expect("the id is new");
    pack.append(&[b"0123456789"]).expect("there is room");
    pack.seal().expect("the id is still new");
    let mut buf = [0; 10];
    repo.storage.read_at(&Key::pack(&ID), 0, &mut buf).expect("is whole");
    let file = std::fs::OpenOptions::new().write(true).open(repo.path(&Key::pack(&ID))).expect("is there");
    file.set_len(4).expect("can be cut");
    let error = repo.storage.read_at(&Key::pack(&ID), 0, &mut buf).expect_err("was cut");
    assert!(matches!(error, StorageError::Truncated { expected: 10, actual: 4, .. }), "{error}");
}

#[test]
fn a_pack_of_many_write_back_steps_comes_back_byte_for_byte() {
    let repo = Repo::new();
    let chunk: Vec<u8> = (0..(1_u32 << 18)).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    // With as much reserved it would go past the page cache.
    let mut pack = repo.storage.create_pack(&ID, 1 << 20).expect("the id is new");
    for i in 0..33_u8 {
        pack.append(&[&[i; 80], &chunk, &[0; 8][..usize::from(i % 8)]]).expect("there is room");
    }
    let position = pack.position();
    pack.seal().expect("the id is still new");
    assert_eq!(repo.storage.len(&Key::pack(&ID)).expect("is sealed"), position);
    let mut offset = 0;
    let mut buf = vec![0; 80 + chunk.len()];
    for i in 0..33_u8 {
        repo.storage.read_at(&Key::pack(&ID), offset, &mut buf).expect("is whole");
        assert_eq!(buf[..80], [i; 80]);
        assert!(buf[80..] == chunk, "chunk {i} differs");
        offset += buf.len() as u64 + u64::from(i % 8);
    }
    assert_eq!(offset, position);
}

#[test]
fn a_pack_holds_its_pieces_in_order_wherever_they_cut_its_windows() {
    const WINDOW: usize = 2 << 20;
    let lens = [0, 1, WINDOW - 2, 1, WINDOW, 0, 3 * WINDOW, 5, WINDOW - 5, WINDOW + 1, WINDOW / 2, 3];
    let all: Vec<u8> = (0..1_u32 << 22).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let (mut end, mut pieces) = (0, Vec::new());
    for len in lens {
        pieces.push(&all[end..end + len]);
        end += len;
    }
    for (num_pieces, reserved) in [(1, 0), (2, 10), (5, 40 << 20), (lens.len(), end as u64)] {
        let repo = Repo::new();
        let mut pack = repo.storage.create_pack(&ID, reserved).expect("the id is new");
        for batch in pieces.chunks(num_pieces) {
            pack.append(batch).expect("there is room");
        }
        assert_eq!(pack.position(), end as u64, "{num_pieces} pieces at once, {reserved} reserved");
        pack.seal().expect("the id is still new");
        let found = repo.storage.read(&Key::pack(&ID), 1 << 30).expect("is sealed");
        assert!(found == all[..end], "{num_pieces} pieces at once, {reserved} reserved: {} bytes", found.len());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_pack_that_can_not_fit_is_refused_before_the_first_byte() {
    let repo = Repo::new();
    let error = repo.storage.create_pack(&ID, 1 << 60).map(drop).expect_err("no disk is that large");
    assert!(matches!(error, StorageError::Io { operation: "reserve space for", .. }), "{error}");
    assert!(error.errno().is_some(), "{error:?}");
    assert_eq!(std::fs::read_dir(repo.dir().join("tmp")).expect("is there").count(), 0, "a temporary was left");
}
