//! Small repositories in memory, and ways to damage them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::missing_panics_doc, reason = "shared by test files")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gradient_object::{
    ChunkId, Commit, CommitId, CommitKind, Flavor, Mapping, RootTree, Tensor, TensorData, Tree, TreeId, Value,
};
use gradient_odb::{ByteSink, Odb, OdbError, PackId, Progress, Sealed, Source};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, Storage};

/// A repository folder in memory, without any object.
pub fn memory() -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_folders().unwrap();
    storage
}

/// Opens it, as a new process would.
pub fn open(storage: &MemoryStorage) -> Odb {
    Odb::open(Arc::new(storage.clone())).unwrap()
}

/// Bytes that no codec can do anything with.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A commit and what it is made of.
#[derive(Debug)]
pub struct Made {
    pub commit: CommitId,
    pub root: TreeId,
    pub tree: TreeId,
    pub tensors: Vec<Tensor>,
    pub sealed: Sealed,
}

/// A tensor of bytes in chunks.
pub fn tensor(len: usize, chunks: Vec<ChunkId>) -> Tensor {
    Tensor {
        flavor: Flavor::Torch,
        dtype: "uint8".to_owned(),
        shape: vec![len as u64],
        order: None,
        data: TensorData::Chunks(chunks),
    }
}

/// Commits tensors, each longer than what is inlined.
pub fn commit(odb: &Odb, states: &[&[u8]], parents: &[CommitId], step: u64) -> Result<Made, OdbError> {
    let progress = Progress::new();
    let mut transaction = odb.begin();
    let sources: Vec<Source<'_>> = states.iter().map(|state| Source::plain(state)).collect();
    let chunks = transaction.add_sources(&sources, None, &progress)?;
    let tensors: Vec<Tensor> = states.iter().zip(chunks).map(|(state, chunks)| tensor(state.len(), chunks)).collect();
    let mut mapping = Mapping::new();
    for (i, tensor) in tensors.iter().enumerate() {
        mapping.insert(format!("t{i}"), Value::Tensor(tensor.clone()))?;
    }
    let tree = transaction.add_tree(&Tree(mapping))?;
    let sections = BTreeMap::from([("model".to_owned(), BTreeMap::from([("main".to_owned(), tree)]))]);
    let root = transaction.add_root(&RootTree { sections })?;
    let environment = transaction.add_tree(&Tree(Mapping::new()))?;
    let commit = transaction.add_commit(&Commit {
        tree: root,
        parents: parents.to_vec(),
        branch: "main".to_owned(),
        step,
        message: format!("step {step}"),
        metrics: Vec::new(),
        time_ns: 1_000 + i64::try_from(step).unwrap(),
        environment,
        kind: CommitKind::Anchor,
        mode: "exact".to_owned(),
        error: None,
    })?;
    let sealed = transaction.seal(&progress)?;
    Ok(Made { commit, root, tree, tensors, sealed })
}

/// Reads everything of a commit back and compares.
pub fn assert_restores(odb: &Odb, made: &Made, states: &[&[u8]]) {
    let commit = odb.read_commit(&made.commit).unwrap();
    let root = odb.read_root(&commit.tree).unwrap();
    let tree = odb.read_tree(root.get("model", "main").unwrap()).unwrap();
    let mut tensors = Vec::new();
    tree.0.for_each_tensor(&mut |tensor: &Tensor| tensors.push(tensor.clone()));
    assert_eq!(tensors.len(), states.len());
    let sinks: Vec<Sink> = states.iter().map(|state| Sink::new(state.len())).collect();
    let jobs: Vec<(&Tensor, &dyn ByteSink)> =
        tensors.iter().zip(&sinks).map(|(tensor, sink)| (tensor, sink as &dyn ByteSink)).collect();
    odb.read_tensors(&jobs, &Progress::new()).unwrap();
    for ((tensor, sink), state) in tensors.iter().zip(&sinks).zip(states) {
        assert!(sink.bytes() == *state, "a tensor came back with other bytes");
        assert!(odb.read_tensor_bytes(tensor).unwrap() == *state);
    }
}

/// Memory to restore into.
#[derive(Debug)]
pub struct Sink(Mutex<Vec<u8>>, usize);

impl Sink {
    pub fn new(len: usize) -> Self {
        Self(Mutex::new(vec![0xee; len]), len)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl ByteSink for Sink {
    fn len(&self) -> usize {
        self.1
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.lock().unwrap()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// The bytes of a pack.
pub fn pack_bytes(storage: &MemoryStorage, pack: &PackId) -> Vec<u8> {
    storage.read(&pack.key(), u64::MAX).unwrap()
}

/// Puts other bytes in the place of a pack.
pub fn overwrite(storage: &MemoryStorage, key: &Key, bytes: &[u8]) {
    storage.replace(key, bytes, Durability::Unsynced).unwrap();
}

/// Flips a bit of a pack.
pub fn flip(storage: &MemoryStorage, pack: &PackId, at: usize) {
    let mut bytes = pack_bytes(storage, pack);
    bytes[at] ^= 1;
    overwrite(storage, &pack.key(), &bytes);
}

/// Names of the files of a folder.
pub fn names(storage: &MemoryStorage, folder: Folder) -> Vec<String> {
    storage.list(folder).unwrap().into_iter().map(|file| file.name).collect()
}
