//! A repository in memory and small states to commit to it.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use gradient_object::{CommitId, Flavor, Mapping, Tensor, Value};
use gradient_repo::{
    ByteSource, CommitOutcome, CommitRequest, FsckLevel, FsckOptions, FsckReport, Progress, RepoError, Repository,
    Staged, fsck,
};
use gradient_storage::{Durability, Folder, Key, MemoryStorage, Storage};

/// A new repository in memory.
pub(crate) fn new() -> (Arc<MemoryStorage>, Repository) {
    let storage = Arc::new(MemoryStorage::new());
    let repo = Repository::init(storage.clone(), "gpt", "").expect("a new repository").0;
    (storage, repo)
}

/// The same bytes, opened by another process as it were.
pub(crate) fn reopen(storage: &Arc<MemoryStorage>) -> Repository {
    Repository::open(storage.clone() as Arc<dyn Storage>).expect("an intact repository")
}

/// Where a line of commits stands.
pub(crate) struct Line<'a> {
    pub(crate) repo: &'a Repository,
    pub(crate) branch: String,
    pub(crate) base: Option<CommitId>,
    pub(crate) first: bool,
}

impl<'a> Line<'a> {
    pub(crate) fn new(repo: &'a Repository, branch: &str) -> Self {
        Self { repo, branch: branch.to_owned(), base: None, first: true }
    }

    pub(crate) fn from(repo: &'a Repository, branch: &str, base: CommitId) -> Self {
        Self { repo, branch: branch.to_owned(), base: Some(base), first: true }
    }

    /// Commits a weight of `numel` float32 filled with `fill`, and goes on from there.
    pub(crate) fn commit(&mut self, step: u64, fill: u8) -> CommitOutcome {
        self.try_commit(step, fill, 1000).expect("a commit")
    }

    pub(crate) fn try_commit(&mut self, step: u64, fill: u8, numel: usize) -> Result<CommitOutcome, RepoError> {
        let outcome = commit(self.repo, &self.branch, self.base, self.first, step, &vec![fill; numel * 4])?;
        self.branch.clone_from(&outcome.branch);
        self.base = Some(outcome.commit);
        self.first = false;
        Ok(outcome)
    }
}

/// Commits one float32 tensor with these bytes.
pub(crate) fn commit(
    repo: &Repository,
    branch: &str,
    base: Option<CommitId>,
    first: bool,
    step: u64,
    bytes: &Vec<u8>,
) -> Result<CommitOutcome, RepoError> {
    let tensor = Tensor {
        flavor: Flavor::Torch,
        dtype: "float32".to_owned(),
        shape: vec![bytes.len() as u64 / 4],
        order: None,
        data: 0,
    };
    let mut tensors: Mapping<usize> = Mapping::new();
    tensors.insert("weight", Value::Tensor(tensor)).expect("a new name");
    let mut model: Mapping<usize> = Mapping::new();
    model.insert("tensors", Value::Map(tensors)).expect("a new name");
    let model: Staged = Value::Map(model);
    let request = CommitRequest {
        branch: branch.to_owned(),
        base,
        first,
        create: false,
        step,
        message: format!("step {step}"),
        metrics: Vec::new(),
        environment: Mapping::new(),
        sections: BTreeMap::from([("model".to_owned(), BTreeMap::from([("main".to_owned(), model)]))]),
        sources: vec![bytes as &dyn ByteSource],
        storing: gradient_repo::Storing::default(),
    };
    repo.commit(&request, &Progress::new())
}

/// The weight of a commit, read back.
pub(crate) fn weight(repo: &Repository, commit: &CommitId) -> Vec<u8> {
    let model = repo.component(commit, "model", "main").expect("the model");
    let mut found = Vec::new();
    Value::Map(model).for_each_tensor(&mut |tensor| found.push(repo.odb().read_tensor_bytes(tensor)));
    found.pop().expect("a tensor").expect("its bytes")
}

/// Everything is read.
pub(crate) const FULL: FsckOptions = FsckOptions { level: FsckLevel::Full, sample_percent: 0.0 };

pub(crate) fn check(storage: &Arc<MemoryStorage>, options: FsckOptions) -> Result<FsckReport, RepoError> {
    fsck(&(storage.clone() as Arc<dyn Storage>), options, &Progress::new())
}

/// All files of a repository with their bytes.
pub(crate) fn all(storage: &MemoryStorage) -> Vec<(Key, Vec<u8>)> {
    let folders = [Folder::Root].into_iter().chain(Folder::FIXED);
    let listed = folders.flat_map(|folder| {
        let files = storage.list(folder).expect("listed").into_iter();
        files.map(move |file| Key::new(folder, &file.name).expect("a key"))
    });
    listed.map(|key| (key.clone(), storage.read(&key, 1 << 30).expect("read"))).collect()
}

pub(crate) fn put(storage: &MemoryStorage, key: &Key, bytes: &[u8]) {
    storage.replace(key, bytes, Durability::Unsynced).expect("there is room");
}

/// Commits with the bytes of each.
pub(crate) type Made = Vec<(CommitId, Vec<u8>)>;

/// Three commits on two branches, a tag, one shared chunk, caches, and a writer that is still there.
pub(crate) fn sample() -> (Arc<MemoryStorage>, Repository, Made) {
    let (storage, repo) = new();
    let mut made = Vec::new();
    let mut main = Line::new(&repo, "main");
    for (step, fill) in [(1, 1), (2, 2)] {
        made.push(main.try_commit(step, fill, 1100).expect("a commit").commit);
    }
    repo.create_tag("best", made[0]).expect("a tag");
    let mut fork = Line::from(&repo, "fork", made[0]);
    made.push(fork.try_commit(7, 2, 1100).expect("a commit").commit);
    repo.odb().write_caches().expect("caches");
    let made = made.into_iter().map(|id| (id, weight(&repo, &id))).collect();
    (storage, repo, made)
}

/// What a reader gets of each commit is what was committed, or an error.
pub(crate) fn assert_no_wrong_bytes(storage: &Arc<MemoryStorage>, made: &[(CommitId, Vec<u8>)], what: &str) {
    let Ok(repo) = Repository::open(storage.clone() as Arc<dyn Storage>) else { return };
    for (id, bytes) in made {
        let Ok(model) = repo.component(id, "model", "main") else { continue };
        gradient_object::Value::Map(model).for_each_tensor(&mut |tensor| {
            if let Ok(read) = repo.odb().read_tensor_bytes(tensor) {
                assert_eq!(&read, bytes, "{what}: wrong bytes were returned");
            }
        });
    }
}
