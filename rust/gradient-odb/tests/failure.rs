//! A storage that fails in the middle of a commit: the commit fails, and nothing of it is believed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use gradient_object::{CHUNK_BYTES, ChunkId, Tensor, TensorData};
use gradient_odb::{Line, Odb, OdbError, Progress, Source};
use gradient_storage::{Durability, Folder, Key, Listed, MemoryStorage, PackWriter, Put, Storage, StorageError};
use support::{assert_restores, commit, memory, names, noise, open, tensor};

/// Fails every operation of a pack in the making once the budget is used up.
#[derive(Debug)]
struct Failing {
    inner: MemoryStorage,
    budget: AtomicI64,
    /// So many of the next reads of a part of a file fail.
    bad_reads: AtomicI64,
}

impl Failing {
    fn new(inner: &MemoryStorage, budget: i64) -> Arc<Self> {
        let (budget, bad_reads) = (AtomicI64::new(budget), AtomicI64::new(0));
        Arc::new(Self { inner: inner.clone(), budget, bad_reads })
    }

    fn spend(&self, operation: &'static str) -> Result<(), StorageError> {
        if self.budget.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let source = io::Error::from_raw_os_error(28);
        Err(StorageError::Io { operation, key: "packs/".to_owned(), source })
    }
}

impl Storage for Failing {
    fn create_folders(&self) -> Result<(), StorageError> {
        self.inner.create_folders()
    }
    fn put_if_absent(&self, key: &Key, bytes: &[u8]) -> Result<Put, StorageError> {
        self.inner.put_if_absent(key, bytes)
    }
    fn replace(&self, key: &Key, bytes: &[u8], durability: Durability) -> Result<(), StorageError> {
        self.inner.replace(key, bytes, durability)
    }
    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<(), StorageError> {
        self.inner.overwrite(key, bytes)
    }
    fn sync(&self, folder: Folder) -> Result<(), StorageError> {
        self.inner.sync(folder)
    }
    fn read(&self, key: &Key, max_len: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.read(key, max_len)
    }
    fn read_at(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        if self.bad_reads.fetch_sub(1, Ordering::SeqCst) > 0 {
            let source = io::Error::from_raw_os_error(5);
            return Err(StorageError::Io { operation: "read", key: key.to_string(), source });
        }
        self.inner.read_at(key, offset, buf)
    }
    fn len(&self, key: &Key) -> Result<u64, StorageError> {
        self.inner.len(key)
    }
    fn exists(&self, key: &Key) -> Result<bool, StorageError> {
        self.inner.exists(key)
    }
    fn list(&self, folder: Folder) -> Result<Vec<Listed>, StorageError> {
        self.inner.list(folder)
    }
    fn strangers(&self, folder: Folder) -> Result<Vec<String>, StorageError> {
        self.inner.strangers(folder)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.delete(key)
    }
    fn move_to_trash(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.move_to_trash(key)
    }
    fn move_aside(&self, key: &Key) -> Result<Key, StorageError> {
        self.inner.move_aside(key)
    }
    fn create_pack(&self, id: &[u8; 16], expected_len: u64) -> Result<Box<dyn PackWriter + '_>, StorageError> {
        self.spend("create")?;
        Ok(Box::new(FailingPack { storage: self, inner: self.inner.create_pack(id, expected_len)? }))
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

struct FailingPack<'a> {
    storage: &'a Failing,
    inner: Box<dyn PackWriter + 'a>,
}

impl PackWriter for FailingPack<'_> {
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), StorageError> {
        self.storage.spend("write")?;
        self.inner.append(pieces)
    }
    fn position(&self) -> u64 {
        self.inner.position()
    }
    fn seal(self: Box<Self>) -> Result<(), StorageError> {
        self.storage.spend("sync")?;
        self.inner.seal()
    }
}

#[test]
fn a_commit_that_fails_at_any_write_leaves_nothing_and_the_next_one_succeeds() {
    let state = noise(1, 150 * CHUNK_BYTES);
    let mut num_failures = 0;
    loop {
        let inner = memory();
        let storage = Failing::new(&inner, num_failures);
        let odb = Odb::open(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
        match commit(&odb, &[&state], &[], 1) {
            Ok(made) => {
                assert_restores(&odb, &made, &[&state]);
                break;
            }
            Err(OdbError::Storage(error)) => assert_eq!(error.errno(), Some(28), "{error}"),
            Err(error) => unreachable!("{error}"),
        }
        num_failures += 1;
        assert_eq!(names(&inner, Folder::Packs), [""; 0]);
        assert_eq!((odb.packs(), odb.disk_bytes()), (Vec::new(), 0));
        storage.budget.store(i64::MAX, Ordering::SeqCst);
        let made = commit(&odb, &[&state[..3 * CHUNK_BYTES]], &[], 1).unwrap();
        assert_restores(&open(&inner), &made, &[&state[..3 * CHUNK_BYTES]]);
    }
    // Creating, the header, ten batches of 16 MiB, the tail, sealing.
    assert_eq!(num_failures, 14);
}

/// Stores a state whose chunks may be coded against `bases`, while so many reads fail. Returns how long the pack is.
fn store_on(storage: &Arc<Failing>, bases: &[ChunkId], state: &[u8], failing_reads: i64) -> (Tensor, u64) {
    let odb = Odb::open(Arc::clone(storage) as Arc<dyn Storage>).unwrap();
    let mut line = Line::new(u64::MAX);
    line.seed("w".to_owned(), bases);
    storage.bad_reads.store(failing_reads, Ordering::SeqCst);
    let mut transaction = odb.begin();
    let source = Source { key: Some("w".to_owned()), ..Source::plain(&state) };
    let chunks = transaction.add_sources(&[source], Some(&line), &Progress::new()).unwrap().concat();
    let sealed = transaction.seal(&Progress::new()).unwrap();
    storage.bad_reads.store(0, Ordering::SeqCst);
    (tensor(state.len(), chunks), sealed.added_len)
}

fn chunks_of(tensor: &Tensor) -> &[ChunkId] {
    let TensorData::Chunks(chunks) = &tensor.data else { unreachable!("it is long") };
    chunks
}

#[test]
fn a_base_that_can_not_be_read_keeps_nobody_from_committing() {
    let state = noise(1, 40_000);
    let mut next = state.clone();
    next[777] ^= 1;
    let mut lens = Vec::new();
    for failing_reads in [0, 1, 1000] {
        let inner = memory();
        let storage = Failing::new(&inner, i64::MAX);
        let (first, _) = store_on(&storage, &[], &state, 0);
        let (second, added_len) = store_on(&storage, chunks_of(&first), &next, failing_reads);
        lens.push(added_len);
        for (tensor, state) in [(&first, &state), (&second, &next)] {
            assert!(open(&inner).read_tensor_bytes(tensor).unwrap() == *state, "{failing_reads}");
        }
    }
    assert!(lens[0] < 4_000 && lens[2] > 40_000, "{lens:?}: a delta, and then none");
}

#[test]
fn a_chunk_is_never_coded_against_itself_whatever_could_not_be_read_for_a_moment() {
    let state = noise(2, 40_000);
    let mut num_written = 0;
    for failing_reads in 0..6 {
        let inner = memory();
        let storage = Failing::new(&inner, i64::MAX);
        let (first, _) = store_on(&storage, &[], &state, 0);
        let old = names(&inner, Folder::Packs);
        let (again, added_len) = store_on(&storage, chunks_of(&first), &state, failing_reads);
        if added_len == 0 {
            continue;
        }
        num_written += 1;
        // What was written again stands by itself.
        for name in old {
            inner.delete(&Key::new(Folder::Packs, &name).unwrap()).unwrap();
        }
        assert!(open(&inner).read_tensor_bytes(&again).unwrap() == state, "{failing_reads}");
    }
    assert!(num_written > 0);
}
