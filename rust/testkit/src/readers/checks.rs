//! The checks of readers that public functions show.

use std::sync::Arc;

use gradient_object::{Commit, CommitId, OperationId, RootTree, Tree, cbor};
use gradient_odb::Progress;
use gradient_repo::{
    Config, FormatFile, FsckLevel, FsckOptions, LogQuery, Operation, OperationLog, Repository, check_name, fsck, repair,
};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, NAME_BYTES_MAX, Storage};

use super::seeds::{PlacedFile, small_repository};

pub(super) fn cbor(bytes: &[u8]) {
    let Ok(value) = cbor::decode(bytes) else { return };
    assert_eq!(cbor::encode(&value).expect("was read"), bytes, "there is one encoding of a value");
    assert_eq!(cbor::decode_trusted(bytes).expect("was read"), value);
}

pub(super) fn tree(bytes: &[u8]) {
    if let Ok(tree) = Tree::decode(bytes) {
        assert_eq!(tree.encode().expect("was read"), bytes, "there is one encoding of a tree");
    }
    if let Ok(root) = RootTree::decode(bytes) {
        assert_eq!(root.encode().expect("was read"), bytes, "there is one encoding of a root");
    }
}

pub(super) fn commit(bytes: &[u8]) {
    let Ok(commit) = Commit::decode(bytes) else { return };
    assert_eq!(commit.encode().expect("was read"), bytes, "there is one encoding of a commit");
    assert_eq!(commit.id().expect("was read"), CommitId::of(bytes));
    assert_eq!(CommitId::from_hex(&commit.id().expect("was read").to_hex()), Some(CommitId::of(bytes)));
}

/// Makes length and hash of an envelope right.
fn sealed(mut file: Vec<u8>) -> Vec<u8> {
    let Some(len) = file.len().checked_sub(48) else { return file };
    file[8..16].copy_from_slice(&(len as u64).to_le_bytes());
    if let Some((body, end)) = file.split_last_chunk_mut::<32>() {
        *end = *blake3::hash(body).as_bytes();
    }
    file
}

/// Calls a check with a file and with the same one made right.
fn as_it_is_and_sealed(file: &[u8], check: impl Fn(&[u8])) {
    check(file);
    check(&sealed(file.to_vec()));
}

fn holding(key: &Key, file: &[u8]) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    storage.create_folders().expect("folders in memory");
    storage.replace(key, file, Durability::Unsynced).expect("a file in memory");
    Arc::new(storage)
}

pub(super) fn operation(file: &[u8]) {
    as_it_is_and_sealed(file, |file| {
        // Its number is a field: read as each of the first hundred, one may fit.
        let Some(payload) = file.get(16..file.len().saturating_sub(32)) else { return };
        for n in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 64, 65, 100, u64::MAX] {
            let Ok(operation) = Operation::decode(payload, n, "a file") else { continue };
            assert_eq!(operation.payload().expect("was read"), payload, "there is one encoding of an operation");
            let log = OperationLog::new(holding(&Key::operation(n), file));
            if let Ok((read, id)) = log.read(n) {
                assert_eq!((&read, id), (&operation, OperationId::of(payload)));
                assert_eq!(operation.encode().expect("was read"), (file.to_vec(), id));
                drop(log.head());
            }
        }
    });
}

pub(super) fn folded(file: &[u8]) {
    as_it_is_and_sealed(file, |file| {
        for m in [1, 3, 9] {
            let log = OperationLog::new(holding(&Key::folded(m), file));
            let mut last = None;
            let replayed = log.replay(m, |step| {
                last = Some(step.operation.n);
                Ok(())
            });
            if replayed.is_ok() {
                assert_eq!(last, Some(m));
                assert!((1..=m).all(|n| log.read(n).is_ok()), "what is replayed can be read");
            }
            drop(log.head());
        }
    });
}

pub(super) fn format(file: &[u8]) {
    as_it_is_and_sealed(file, |file| {
        let Ok(format) = FormatFile::read(&*holding(&Key::format(), file)) else { return };
        if format.check_writable().is_err() {
            return;
        }
        let empty = MemoryStorage::new();
        empty.create_folders().expect("folders in memory");
        FormatFile::create(&empty, format.repo, format.created_ns).expect("made");
        assert_eq!(empty.read(&Key::format(), u64::MAX).expect("made"), file, "there is one encoding of a format file");
    });
}

pub(super) fn lease(file: &[u8]) {
    as_it_is_and_sealed(file, |file| {
        gradient_repo::readers::lease(file);
    });
}

pub(super) fn config(file: &[u8]) {
    let Ok(config) = Config::read(&*holding(&Key::config(), file)) else { return };
    let storage = holding(&Key::config(), b"");
    config.write(&*storage).expect("was read");
    // What is pretty is longer: only what still fits is read again.
    if let Ok(again) = Config::read(&*storage) {
        assert_eq!(again, config);
    }
}

/// Rules of `docs/format/operations.md`, once more and by other means.
pub(super) fn branch_name(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else { return };
    if check_name(name, "branch").is_err() {
        return;
    }
    assert!((1..=255).contains(&name.len()));
    assert!(unicode_normalization::is_nfc(name));
    assert!(!name.chars().any(|c| c.is_control() || c.is_whitespace() || "\\:~^?*[@".contains(c)), "{name:?}");
    for part in name.split('/') {
        assert!(!part.is_empty() && !part.contains("..") && !part.starts_with(['.', '-']), "{name:?}");
        assert!(!part.ends_with('.') && !part.to_lowercase().ends_with(".lock"), "{name:?}");
        let path = std::path::Path::new(part);
        assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))), "{name:?}");
    }
}

/// The grammar of names on disk.
pub(super) fn file_name(bytes: &[u8]) {
    gradient_odb::readers::names(bytes);
    let Ok(name) = std::str::from_utf8(bytes) else { return };
    for folder in [Folder::Ops, Folder::Packs, Folder::Leases, Folder::Cache, Folder::LostFound, Folder::Root] {
        if let Ok(key) = Key::new(folder, name) {
            assert_eq!(key.name(), name);
            assert!(name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && !name.contains(['/', '\0', '\\']));
        }
    }
}

/// A small repository with one of its files replaced: everything that reads is called, then what mends, then what writes.
pub(super) fn repository(bytes: &[u8]) {
    let Some(PlacedFile { key, file }) = PlacedFile::read(bytes) else { return };
    let storage = small_repository();
    let file = match key.folder() {
        Folder::Packs => gradient_odb::readers::sealed_pack(file),
        Folder::Ops | Folder::Root | Folder::Cache => sealed(file),
        _ => file,
    };
    storage.replace(&key, &file, Durability::Unsynced).expect("a file in memory");
    use_everything(&storage);
    let shared: Arc<dyn Storage> = storage.clone();
    for apply in [false, true] {
        drop(repair(&shared, apply, &Progress::new()));
    }
    use_everything(&storage);
    if let Ok(repo) = Repository::open(shared) {
        drop(repo.undo());
        drop(repo.maintain());
        drop(repo.close());
    }
}

fn use_everything(storage: &Arc<MemoryStorage>) {
    let shared: Arc<dyn Storage> = storage.clone();
    let options = FsckOptions { level: FsckLevel::Full, sample_percent: 0.0 };
    let report = fsck(&shared, options, &Progress::new());
    let Ok(repo) = Repository::open(Arc::clone(&shared)) else {
        assert!(report.is_err() || !report.is_ok_and(|report| report.is_clean()), "a check finds what opening finds");
        return;
    };
    drop(repo.notices());
    drop(repo.operations(Some(10)));
    let Ok((table, _)) = repo.refs() else { return };
    for (name, target) in table.iter().take(8) {
        drop(repo.resolve(name, None));
        let query = LogQuery { start: vec![target.commit()], ..LogQuery::default() };
        drop(repo.history(&query));
        let Ok(components) = repo.components(&target.commit()) else { continue };
        for (section, names) in components {
            for name in names.keys() {
                drop(repo.component(&target.commit(), &section, name));
            }
        }
        let verified = repo.verify(&target.commit(), &Progress::new());
        let is_clean = report.as_ref().is_ok_and(gradient_repo::FsckReport::is_clean);
        assert!(verified.is_ok() || !is_clean, "{name} does not verify in a clean repository: {verified:?}");
    }
}
