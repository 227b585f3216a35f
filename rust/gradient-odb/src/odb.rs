//! Skeleton: signatures only.
use std::sync::Arc;

use gradient_object::{ChunkId, Commit, CommitId, RootTree, Tensor, Tree, TreeId};
use gradient_storage::Storage;

use crate::{ByteSink, Kind, ObjectName, OdbError, PackId, Progress, Sealed, Transaction};

/// The objects of one repository.
#[derive(Debug)]
pub struct Odb {
    storage: Arc<dyn Storage>,
}

/// All commits of a repository; parsed when asked for.
#[derive(Debug)]
pub struct CommitRows {}

impl CommitRows {
    /// Number of commits.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Ids of all commits, rising.
    pub fn ids(&self) -> Vec<CommitId> {
        todo!()
    }
    /// Says whether the commit is there.
    pub fn contains(&self, _id: &CommitId) -> bool {
        todo!()
    }
    /// Bytes that the commit added to the repository when it was written.
    pub fn added_len(&self, _id: &CommitId) -> Option<u64> {
        todo!()
    }
    /// The commit, none if it is not there.
    pub fn get(&self, _id: &CommitId) -> Result<Option<Commit>, OdbError> {
        todo!()
    }
}

/// How much of a pack is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerifyLevel {
    /// Header, footer, index.
    Structure,
    /// Also every tree and commit against its id.
    Metadata,
    /// Also every entry: header, CRC, decoded bytes against the id, padding.
    Full,
}

/// One thing that is wrong in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The pack.
    pub pack: PackId,
    /// The object, when the damage is one object's.
    pub object: Option<ObjectName>,
    /// Where.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What a check of one pack found.
#[derive(Clone, Debug, Default)]
pub struct PackReport {
    /// Chunks.
    pub num_chunks: u64,
    /// Trees.
    pub num_trees: u64,
    /// Commits.
    pub num_commits: u64,
    /// Raw bytes of the chunks.
    pub raw_len: u64,
    /// What is wrong; empty for a healthy pack.
    pub damage: Vec<Damage>,
}

/// When packs are merged, and how many.
#[derive(Clone, Copy, Debug)]
pub struct MergeLimits {
    /// A pack shorter than this is small.
    pub small_len: u64,
    /// Merge when there are more small packs than this.
    pub num_small_max: usize,
    /// Merge packs of at most this length in all.
    pub merged_len_max: u64,
}

/// A merge that was written and is not yet published.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The pack that holds everything of the old ones.
    pub new: PackId,
    /// The packs to condemn and then retire.
    pub old: Vec<PackId>,
}

#[expect(clippy::missing_errors_doc, clippy::todo, reason = "skeleton")]
impl Odb {
    /// Opens: loads the cached index, reads the tails of packs it does not know.
    pub fn open(_storage: Arc<dyn Storage>) -> Result<Self, OdbError> {
        todo!()
    }
    /// Where the bytes live.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }
    /// Lists the packs again.
    pub fn refresh(&self) -> Result<(), OdbError> {
        todo!()
    }
    /// Condemned packs: never relied on by writers, still readable.
    pub fn exclude(&self, _packs: &[PackId]) {
        todo!()
    }
    /// Begins a transaction.
    pub fn begin(&self) -> Transaction<'_> {
        todo!()
    }
    /// Looks again, after a condemnation, whether all that a sealed transaction relied on and its own pack are there and not excluded.
    pub fn still_holds(&self, _sealed: &Sealed) -> Result<bool, OdbError> {
        todo!()
    }
    /// A component tree.
    pub fn read_tree(&self, _id: &TreeId) -> Result<Tree, OdbError> {
        todo!()
    }
    /// A root tree.
    pub fn read_root(&self, _id: &TreeId) -> Result<RootTree, OdbError> {
        todo!()
    }
    /// A commit.
    pub fn read_commit(&self, _id: &CommitId) -> Result<Commit, OdbError> {
        todo!()
    }
    /// Raw bytes of one chunk.
    pub fn read_chunk(&self, _id: &ChunkId, _raw_len: usize) -> Result<Vec<u8>, OdbError> {
        todo!()
    }
    /// All bytes of one tensor.
    pub fn read_tensor_bytes(&self, _tensor: &Tensor) -> Result<Vec<u8>, OdbError> {
        todo!()
    }
    /// Reads many tensors in parallel; each chunk is hashed before its bytes reach the sink.
    pub fn read_tensors(
        &self,
        _jobs: &[(&Tensor, &dyn ByteSink)],
        _progress: &Progress,
    ) -> Result<(), OdbError> {
        todo!()
    }
    /// Says whether a healthy pack says it holds the commit.
    pub fn has_commit(&self, _id: &CommitId) -> bool {
        todo!()
    }
    /// As `has_commit`.
    pub fn has_tree(&self, _id: &TreeId) -> bool {
        todo!()
    }
    /// As `has_commit`.
    pub fn has_chunk(&self, _id: &ChunkId) -> bool {
        todo!()
    }
    /// Commits whose id begins with these hexadecimal digits (lower case), rising.
    pub fn commit_prefix(&self, _hex: &str) -> Vec<CommitId> {
        todo!()
    }
    /// All commits.
    pub fn commits(&self) -> Result<Arc<CommitRows>, OdbError> {
        todo!()
    }
    /// Writes `cache/index` and `cache/commits`.
    pub fn write_caches(&self) -> Result<(), OdbError> {
        todo!()
    }
    /// Writes the caches when more than 64 packs are not in them; says whether it did.
    pub fn write_caches_if_stale(&self) -> Result<bool, OdbError> {
        todo!()
    }
    /// Ids of the packs that are there and intact, rising.
    pub fn packs(&self) -> Vec<PackId> {
        todo!()
    }
    /// Packs that could not be opened, and why.
    pub fn damaged(&self) -> Vec<Damage> {
        todo!()
    }
    /// Names every object of one pack.
    pub fn pack_objects(&self, _pack: &PackId) -> Result<Vec<ObjectName>, OdbError> {
        todo!()
    }
    /// The pack that the index names for an object.
    pub fn find_pack(&self, _object: &ObjectName) -> Option<PackId> {
        let _ = Kind::Chunk;
        todo!()
    }
    /// Checks one pack; what is wrong is in the report, only a storage failure or cancellation is an error.
    pub fn verify_pack(
        &self,
        _pack: &PackId,
        _level: VerifyLevel,
        _progress: &Progress,
    ) -> Result<PackReport, OdbError> {
        todo!()
    }
    /// Bytes of all packs.
    pub fn disk_bytes(&self) -> u64 {
        todo!()
    }
    /// Number of packs that count as small.
    pub fn num_small_packs(&self, _limits: &MergeLimits) -> usize {
        todo!()
    }
    /// Merges small packs into one when there are too many. The caller publishes the condemnation of `old`, then retires them.
    pub fn merge_small(
        &self,
        _limits: &MergeLimits,
        _progress: &Progress,
    ) -> Result<Option<Merged>, OdbError> {
        todo!()
    }
    /// Moves condemned packs to the trash and forgets them.
    pub fn retire(&self, _packs: &[PackId]) -> Result<(), OdbError> {
        todo!()
    }
}
