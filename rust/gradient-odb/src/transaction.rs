//! Skeleton: signatures only.
use gradient_object::{ChunkId, Commit, CommitId, RootTree, Tree, TreeId};

use crate::{ByteSource, ObjectName, Odb, OdbError, PackId, Progress};

/// One pack in the making. Dropped without `seal`, nothing of it is in the repository.
#[derive(Debug)]
pub struct Transaction<'a> {
    odb: &'a Odb,
}

/// An object that was found instead of written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relied {
    /// The object.
    pub object: ObjectName,
    /// The pack that held it.
    pub pack: PackId,
}

/// What a transaction left behind.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The pack it wrote; none when every object was there already.
    pub pack: Option<PackId>,
    /// The length of that pack, 0 without one.
    pub added_len: u64,
    /// What it found instead of writing.
    pub relied: Vec<Relied>,
}

impl Transaction<'_> {
    /// Copies, hashes and stores what is new of `sources`; returns the chunk ids of each. All are copied on return.
    #[expect(clippy::missing_errors_doc, clippy::todo, reason = "skeleton")]
    pub fn add_sources(
        &mut self,
        _sources: &[&dyn ByteSource],
        _progress: &Progress,
    ) -> Result<Vec<Vec<ChunkId>>, OdbError> {
        todo!()
    }
    /// Adds a component tree.
    pub fn add_tree(&mut self, _tree: &Tree) -> Result<TreeId, OdbError> {
        todo!()
    }
    /// Adds a root tree.
    pub fn add_root(&mut self, _tree: &RootTree) -> Result<TreeId, OdbError> {
        todo!()
    }
    /// Adds a commit.
    pub fn add_commit(&mut self, _commit: &Commit) -> Result<CommitId, OdbError> {
        todo!()
    }
    /// Makes the pack durable, then known to the `Odb`.
    pub fn seal(self, _progress: &Progress) -> Result<Sealed, OdbError> {
        let _ = self.odb;
        todo!()
    }
}
