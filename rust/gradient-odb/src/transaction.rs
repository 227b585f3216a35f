//! Writes one pack: chunks as they come (see `ingest.rs`), trees and commits, then everything durable at once.
//!
//! Nothing of a transaction is in the index before its pack is durable. What the repository has already is relied on
//! instead of written, but only after it was verified: by this process earlier, or by reading it now (rule D4).

use std::collections::{HashMap, HashSet};

use gradient_object::{ChunkId, Commit, CommitId, METADATA_BYTES_MAX, RootTree, Tree, TreeId};

use crate::index::Found;
use crate::line::Updates;
use crate::pack::blocks::BlockBuilder;
use crate::pack::writer::PackBuilder;
use crate::{ObjectName, Odb, OdbError, PackId, Progress};

/// Space reserved for a pack that holds metadata only.
const METADATA_PACK_BYTES: u64 = 16 << 10;

/// One pack in the making. Dropped without [`seal`](Self::seal), nothing of it is in the repository.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub(crate) odb: &'a Odb,
    /// Created with the first new chunk.
    pub(crate) pack: Option<PackBuilder<'a>>,
    /// Chunks that this transaction has met and did not know to be stored.
    pub(crate) seen: HashSet<ChunkId>,
    pub(crate) relied: HashMap<ObjectName, PackId>,
    pub(crate) has_failed: bool,
    pub(crate) coding: Coding,
    pub(crate) num_deltas: usize,
    pub(crate) updates: Updates,
    blocks: BlockBuilder,
}

/// How new chunks are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coding {
    /// Whether they are coded at all.
    pub compression: Compression,
    /// When they are coded against others.
    pub deltas: Deltas,
}

/// Whether new chunks are coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    Off,
    /// As a sample says.
    #[default]
    Auto,
}

/// When new chunks are coded against others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deltas {
    /// Never.
    Off,
    /// Where that saves a tenth at least.
    #[default]
    Auto,
    /// Wherever that saves anything.
    All,
}

/// An object that was found instead of written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The length of that pack; 0 without one.
    pub added_len: u64,
    /// What it found instead of writing, rising. After a condemnation by another process, ask
    /// [`Odb::still_holds`].
    pub relied: Vec<Relied>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(odb: &'a Odb) -> Self {
        Self {
            odb,
            pack: None,
            seen: HashSet::new(),
            relied: HashMap::new(),
            has_failed: false,
            coding: Coding::default(),
            num_deltas: 0,
            updates: Updates::default(),
            blocks: BlockBuilder::default(),
        }
    }

    /// Sets how chunks that come from now on are stored.
    pub fn set_coding(&mut self, coding: Coding) {
        self.coding = coding;
    }

    /// Says whether any chunk was written as a delta.
    pub fn has_deltas(&self) -> bool {
        self.num_deltas > 0
    }

    /// Returns what becomes of the line, if this is published.
    pub fn take_updates(&mut self) -> Updates {
        std::mem::take(&mut self.updates)
    }

    /// Adds a component tree or an environment.
    ///
    /// # Errors
    /// - [`OdbError::Object`]: it can not be encoded.
    /// - [`OdbError::TooLarge`]: it is longer than a metadata object may be.
    /// - [`OdbError::Codec`]: no memory.
    /// - [`OdbError::Storage`]: the packs can not be read.
    pub fn add_tree(&mut self, tree: &Tree) -> Result<TreeId, OdbError> {
        let canonical = tree.encode()?;
        let id = TreeId::of(&canonical);
        self.add_metadata(id.into(), &canonical)?;
        Ok(id)
    }

    /// Adds a root tree.
    ///
    /// # Errors
    /// As [`add_tree`](Self::add_tree).
    pub fn add_root(&mut self, tree: &RootTree) -> Result<TreeId, OdbError> {
        let canonical = tree.encode()?;
        let id = TreeId::of(&canonical);
        self.add_metadata(id.into(), &canonical)?;
        Ok(id)
    }

    /// Adds a commit.
    ///
    /// # Errors
    /// As [`add_tree`](Self::add_tree).
    pub fn add_commit(&mut self, commit: &Commit) -> Result<CommitId, OdbError> {
        let canonical = commit.encode()?;
        let id = CommitId::of(&canonical);
        self.add_metadata(id.into(), &canonical)?;
        Ok(id)
    }

    /// Adds a tree or commit unless a good copy is there.
    fn add_metadata(&mut self, name: ObjectName, canonical: &[u8]) -> Result<(), OdbError> {
        if canonical.len() > METADATA_BYTES_MAX {
            return Err(OdbError::TooLarge {
                what: name.kind.name(),
                actual: canonical.len() as u64,
                max: METADATA_BYTES_MAX as u64,
            });
        }
        if self.blocks.contains(&name) || self.relied.contains_key(&name) {
            return Ok(());
        }
        let found = self.odb.find_to_rely_on(&name)?;
        if let Some(found) = found {
            let is_good = |found: &Found| self.odb.read_found(&name, found).is_ok_and(|raw| raw == canonical);
            let good = if self.odb.is_verified(&name, &found) || is_good(&found) {
                Some(found)
            } else {
                self.odb.find_good_copy(&name, &found, is_good)
            };
            if let Some(good) = good {
                self.odb.mark_verified([(name, good.pack)]);
                self.relied.insert(name, good.pack);
                return Ok(());
            }
        }
        self.blocks.add(name, canonical, None)
    }

    /// Says whether chunks were written: new ones, or again what was found damaged.
    pub fn has_new_chunks(&self) -> bool {
        self.pack.is_some()
    }

    /// Makes the pack durable, then known to the [`Odb`]: blocks, index, footer, two syncs.
    ///
    /// # Errors
    /// - [`OdbError::Cancelled`]: before the pack was made durable.
    /// - [`OdbError::TransactionFailed`]: an earlier call failed or was cancelled; nothing was written.
    /// - [`OdbError::Storage`]: the pack is absent, or there but perhaps not durable; it is not in the index.
    /// - [`OdbError::Codec`]: no memory.
    pub fn seal(self, progress: &Progress) -> Result<Sealed, OdbError> {
        if self.has_failed {
            return Err(OdbError::TransactionFailed);
        }
        progress.check()?;
        let relied = self.relied.into_iter();
        let mut relied: Vec<Relied> = relied.map(|(object, pack)| Relied { object, pack }).collect();
        relied.sort_unstable();
        if self.pack.is_none() && self.blocks.is_empty() {
            return Ok(Sealed { pack: None, added_len: 0, relied });
        }
        let pack = match self.pack {
            Some(pack) => pack,
            None => PackBuilder::create(&*self.odb.storage, METADATA_PACK_BYTES)?,
        };
        let finished = pack.finish(self.blocks.finish()?)?;
        self.odb.insert_pack(&finished);
        let written = finished.rows.iter().map(|row| (row.name, finished.id));
        self.odb.mark_verified(written);
        Ok(Sealed { pack: Some(finished.id), added_len: finished.len, relied })
    }
}
