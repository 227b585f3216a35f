//! Reads trees and commits from their blocks; blocks that were read not long ago are kept decoded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gradient_object::METADATA_BYTES_MAX;

use crate::index::Found;
use crate::odb::lock;
use crate::pack::index::BlockRow;
use crate::pack::tail::{Tail, decode_block, read_block};
use crate::{ObjectName, Odb, OdbError, PackId};

/// Decoded metadata blocks that are kept.
const BLOCK_CACHE_BYTES_MAX: usize = 32 << 20;
/// Block tables that are kept.
const BLOCK_TABLES_MAX: usize = 4096;

/// A block: its pack, its number there.
type BlockName = (PackId, u32);

/// Decoded metadata blocks, and where blocks lie; the least recently used go first.
#[derive(Debug, Default)]
pub(crate) struct BlockCache {
    blocks: VecDeque<(BlockName, Arc<Vec<u8>>)>,
    len: usize,
    tables: HashMap<PackId, Arc<[BlockRow]>>,
}

impl BlockCache {
    fn get(&mut self, key: BlockName) -> Option<Arc<Vec<u8>>> {
        let at = self.blocks.iter().position(|(other, _)| *other == key)?;
        let found = self.blocks.remove(at)?;
        let raw = Arc::clone(&found.1);
        self.blocks.push_back(found);
        Some(raw)
    }

    fn insert(&mut self, key: BlockName, raw: &Arc<Vec<u8>>) {
        self.len += raw.len();
        self.blocks.push_back((key, Arc::clone(raw)));
        while self.len > BLOCK_CACHE_BYTES_MAX
            && let Some((_, oldest)) = self.blocks.pop_front()
        {
            self.len -= oldest.len();
        }
    }
}

impl BlockCache {
    /// Forgets packs that are read anew: their blocks may be counted in another way.
    pub(crate) fn forget<'a>(&mut self, packs: impl Iterator<Item = &'a PackId>) {
        for pack in packs {
            self.tables.remove(pack);
            self.blocks.retain(|((other, _), _)| other != pack);
        }
        self.len = self.blocks.iter().map(|(_, raw)| raw.len()).sum();
    }
}

impl Odb {
    /// Reads a tree or commit from its block.
    pub(crate) fn read_metadata(&self, name: &ObjectName, found: &Found) -> Result<Vec<u8>, OdbError> {
        let bad =
            |what: String| OdbError::ObjectDamaged { object: *name, pack: found.pack, offset: found.row.offset, what };
        let block = match self.read_block(found) {
            Ok(block) => block,
            Err(OdbError::PackDamaged { what, .. }) => return Err(bad(what)),
            Err(error) => return Err(error),
        };
        let start = usize::try_from(found.row.offset).ok();
        let raw_len = found.row.raw_len as usize;
        let raw = start
            .and_then(|start| block.get(start..start.checked_add(raw_len)?))
            .ok_or_else(|| bad("its row points outside its block".to_owned()))?;
        if !name.is_of(raw) || raw_len > METADATA_BYTES_MAX {
            return Err(bad("its bytes do not hash to its id".to_owned()));
        }
        Ok(raw.to_vec())
    }

    /// Returns a decoded block, from memory if it was read not long ago.
    fn read_block(&self, found: &Found) -> Result<Arc<Vec<u8>>, OdbError> {
        let key = (found.pack, found.row.extent);
        let walked = self.index().walked_blocks(&found.pack);
        let table = {
            let mut cache = lock(&self.blocks);
            if let Some(raw) = cache.get(key) {
                return Ok(raw);
            }
            walked.or_else(|| cache.tables.get(&found.pack).map(Arc::clone))
        };
        let row = table.as_ref().and_then(|rows| rows.get(key.1 as usize));
        let raw = if let Some(row) = row {
            Arc::new(decode_block(found.pack, row, &read_block(&*self.storage, &found.pack.key(), found.pack, row)?)?)
        } else {
            let tail = Tail::read(&*self.storage, found.pack, found.pack_len)?;
            let raw = Arc::new(tail.block(&*self.storage, key.1)?);
            let mut cache = lock(&self.blocks);
            if cache.tables.len() >= BLOCK_TABLES_MAX {
                cache.tables.clear();
            }
            cache.tables.insert(found.pack, tail.index.blocks.into());
            raw
        };
        lock(&self.blocks).insert(key, &raw);
        Ok(raw)
    }
}
