//! Reads objects: finds the row, reads exactly header and payload, checks, decodes, hashes.
//!
//! What is returned from here hashed to its id after its last copy. A damaged copy is no end: other packs are asked
//! before the error is returned. A pack that goes while it is read (merged or collected) is looked for again once.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gradient_object::{
    CHUNK_BYTES, ChunkId, Commit, CommitId, METADATA_BYTES_MAX, RootTree, Tensor, TensorData, Tree, TreeId,
};
use gradient_storage::StorageError;
use rayon::prelude::*;

use crate::index::Found;
use crate::odb::lock;
use crate::pack::entry::{EntryHeader, entry_crc};
use crate::pack::index::BlockRow;
use crate::pack::tail::{Tail, decode_block, read_range};
use crate::pool;
use crate::{ByteSink, Kind, ObjectName, Odb, OdbError, PackId, Progress};

/// Most links of a delta chain.
const CHAIN_LEN_MAX: u32 = 64;
/// Most entries that are read for one chunk, all bases of all links counted.
const CHAIN_ENTRIES_MAX: u32 = 1024;
/// Decoded metadata blocks that are kept.
const BLOCK_CACHE_BYTES_MAX: usize = 32 << 20;
/// Block tables that are kept.
const BLOCK_TABLES_MAX: usize = 4096;

/// Memory that a thread reads chunks into, again and again.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    entry: Vec<u8>,
    raw: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// How much more may be read for one chunk.
struct Chain {
    depth: u32,
    num_entries: u32,
}

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

impl Odb {
    /// Reads a component tree.
    ///
    /// # Errors
    /// - [`OdbError::NotFound`]: no pack holds it.
    /// - [`OdbError::ObjectDamaged`], [`OdbError::PackDamaged`]: no good copy of it is there.
    /// - [`OdbError::Object`]: it is no component tree.
    /// - [`OdbError::Storage`].
    pub fn read_tree(&self, id: &TreeId) -> Result<Tree, OdbError> {
        Ok(Tree::decode(&self.read_object(&(*id).into())?)?)
    }

    /// Reads a root tree.
    ///
    /// # Errors
    /// As [`read_tree`](Self::read_tree).
    pub fn read_root(&self, id: &TreeId) -> Result<RootTree, OdbError> {
        Ok(RootTree::decode(&self.read_object(&(*id).into())?)?)
    }

    /// Reads a commit.
    ///
    /// # Errors
    /// As [`read_tree`](Self::read_tree).
    pub fn read_commit(&self, id: &CommitId) -> Result<Commit, OdbError> {
        Ok(Commit::decode(&self.read_object(&(*id).into())?)?)
    }

    /// Reads a chunk that must be `raw_len` bytes long.
    ///
    /// # Errors
    /// As [`read_tree`](Self::read_tree); [`OdbError::WrongLength`], [`OdbError::ChainTooLong`].
    pub fn read_chunk(&self, id: &ChunkId, raw_len: usize) -> Result<Vec<u8>, OdbError> {
        let raw = self.read_object(&(*id).into())?;
        check_chunk_len(id, raw_len, raw.len())?;
        Ok(raw)
    }

    /// Reads all bytes of a tensor.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn read_tensor_bytes(&self, tensor: &Tensor) -> Result<Vec<u8>, OdbError> {
        let len = tensor.raw_len()?;
        let chunks = match &tensor.data {
            TensorData::Inline(bytes) => {
                check_sink_len(len, bytes.len())?;
                return Ok(bytes.clone());
            }
            TensorData::Chunks(chunks) => chunks,
        };
        check_num_chunks(tensor, chunks.len())?;
        // Grows with what was read, so that a tensor of a stranger allocates nothing that is not there.
        let mut raw = Vec::new();
        for (i, id) in chunks.iter().enumerate() {
            raw.extend_from_slice(&self.read_chunk(id, chunk_len(len, i))?);
        }
        Ok(raw)
    }

    /// Reads many tensors into memory, in parallel over their chunks.
    ///
    /// Each chunk is hashed before its bytes reach the sink; nothing is written before every length is checked. After
    /// an error the sinks hold some of the bytes.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk); [`OdbError::WrongLength`] for a sink, [`OdbError::Cancelled`].
    pub fn read_tensors(&self, jobs: &[(&Tensor, &dyn ByteSink)], progress: &Progress) -> Result<(), OdbError> {
        struct Task<'a> {
            id: &'a ChunkId,
            sink: &'a dyn ByteSink,
            offset: usize,
            len: usize,
        }
        let mut tasks = Vec::new();
        for (tensor, sink) in jobs {
            let len = tensor.raw_len()?;
            check_sink_len(len, sink.len())?;
            progress.add_total(len);
            match &tensor.data {
                TensorData::Inline(bytes) => check_sink_len(len, bytes.len())?,
                TensorData::Chunks(chunks) => {
                    check_num_chunks(tensor, chunks.len())?;
                    tasks.extend(chunks.iter().enumerate().map(|(i, id)| Task {
                        id,
                        sink: *sink,
                        offset: i * CHUNK_BYTES,
                        len: chunk_len(len, i),
                    }));
                }
            }
        }
        for (tensor, sink) in jobs {
            if let TensorData::Inline(bytes) = &tensor.data {
                sink.write(0, bytes);
                progress.advance(bytes.len() as u64);
            }
        }
        let read = |task: Task<'_>| {
            progress.check()?;
            let name = (*task.id).into();
            let pack = self.with_chunk(&name, |raw| {
                check_chunk_len(task.id, task.len, raw.len())?;
                task.sink.write(task.offset, raw);
                Ok(())
            })?;
            progress.advance(task.len as u64);
            Ok((name, pack))
        };
        let verified: Vec<(ObjectName, PackId)> = pool::install(|| tasks.into_par_iter().map(read).collect())?;
        self.mark_verified(verified);
        Ok(())
    }

    /// Returns the raw bytes of any object, hashed.
    pub(crate) fn read_object(&self, name: &ObjectName) -> Result<Vec<u8>, OdbError> {
        let (raw, _) = self.find_and(name, |found| self.read_found(name, found))?;
        Ok(raw)
    }

    /// Returns the raw bytes of an object at a place, hashed.
    pub(crate) fn read_found(&self, name: &ObjectName, found: &Found) -> Result<Vec<u8>, OdbError> {
        match name.kind {
            Kind::Chunk => self.with_chunk_at(name, found, |raw| Ok(raw.to_vec())),
            Kind::Tree | Kind::Commit => self.read_metadata(name, found),
        }
    }

    /// Calls `then` with the hashed bytes of a chunk, in memory of this thread; returns the pack they came from.
    fn with_chunk(
        &self,
        name: &ObjectName,
        mut then: impl FnMut(&[u8]) -> Result<(), OdbError>,
    ) -> Result<PackId, OdbError> {
        let read = |found: &Found| self.with_chunk_at(name, found, &mut then);
        let ((), pack) = self.find_and(name, read)?;
        Ok(pack)
    }

    /// Calls `then` with the hashed bytes of the chunk at a place.
    pub(crate) fn with_chunk_at<T>(
        &self,
        name: &ObjectName,
        found: &Found,
        then: impl FnOnce(&[u8]) -> Result<T, OdbError>,
    ) -> Result<T, OdbError> {
        // Taken, not borrowed: nothing that `then` calls can find them in use.
        let mut buffers = BUFFERS.take();
        let mut chain = Chain { depth: 0, num_entries: 0 };
        let result = self.read_entry(name, found, &mut buffers, &mut chain).and_then(then);
        BUFFERS.set(buffers);
        result
    }

    /// Finds an object and calls `read` with where it lies; looks again if the pack is gone, and elsewhere if the
    /// object is damaged there.
    fn find_and<T>(
        &self,
        name: &ObjectName,
        mut read: impl FnMut(&Found) -> Result<T, OdbError>,
    ) -> Result<(T, PackId), OdbError> {
        let (mut found, generation) = self.locate(name)?;
        let mut result = read(&found);
        if result.as_ref().is_err_and(OdbError::is_missing_file) {
            self.refresh_since(generation)?;
            (found, _) = self.locate(name)?;
            result = read(&found);
        }
        match result {
            Ok(value) => Ok((value, found.pack)),
            Err(error) if error.is_damage() => {
                for other in self.find_elsewhere(name, &found) {
                    if let Ok(value) = read(&other) {
                        self.prefer(name, &other);
                        return Ok((value, other.pack));
                    }
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Finds an object, listing the packs again if it is not known.
    fn locate(&self, name: &ObjectName) -> Result<(Found, u64), OdbError> {
        let look = || {
            let index = self.index();
            (index.find(name), index.generation)
        };
        let (found, generation) = look();
        if let Some(found) = found {
            return Ok((found, generation));
        }
        self.refresh_since(generation)?;
        let (found, generation) = look();
        match found {
            Some(found) => Ok((found, generation)),
            None => Err(self.missing(name)),
        }
    }

    /// Says that an object is in no pack that can be opened.
    fn missing(&self, name: &ObjectName) -> OdbError {
        let index = self.index();
        match index.damaged().next() {
            None => OdbError::NotFound { object: *name },
            Some((_, damage)) => OdbError::ObjectDamaged {
                object: *name,
                pack: damage.pack,
                offset: damage.offset,
                what: format!("no intact pack holds it, and this pack can not be opened: {}", damage.what),
            },
        }
    }

    /// Finds an object at other places than one, by the packs' own indexes. Slow; for what is damaged there.
    pub(crate) fn find_elsewhere(&self, name: &ObjectName, tried: &Found) -> Vec<Found> {
        let packs = self.index().packs();
        packs
            .into_iter()
            .filter_map(|(pack, len)| {
                // Also the pack itself: the merged index may be wrong where the pack is right.
                let tail = Tail::read(&*self.storage, pack, len).ok()?;
                let row = tail.index.find(name)?;
                let found = Found::in_tail(&tail, row);
                let is_tried = found.pack == tried.pack && found.row.is_same_place(&tried.row);
                (!is_tried).then_some(found)
            })
            .collect()
    }

    /// Reads the entry of a chunk and decodes it, following its delta chain; returns its raw bytes, hashed.
    ///
    /// Costs one positioned read for each link.
    fn read_entry<'b>(
        &self,
        name: &ObjectName,
        found: &Found,
        buffers: &'b mut Buffers,
        chain: &mut Chain,
    ) -> Result<&'b [u8], OdbError> {
        let bad =
            |what: String| OdbError::ObjectDamaged { object: *name, pack: found.pack, offset: found.row.offset, what };
        let row = &found.row;
        let len = usize::from(row.header_len) + row.extent as usize;
        let end = row.offset.checked_add(len as u64);
        if row.extent as usize > CHUNK_BYTES
            || row.raw_len as usize > CHUNK_BYTES
            || end.is_none_or(|end| end > found.pack_len)
        {
            return Err(bad("its row points outside the pack".to_owned()));
        }
        if buffers.entry.len() < len {
            buffers.entry.resize(len, 0);
        }
        let entry = &mut buffers.entry[..len];
        match self.storage.read_at(&found.pack.key(), row.offset, entry) {
            Ok(()) => {}
            Err(StorageError::Truncated { .. }) => {
                return Err(bad("the pack ends before it".to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
        let entry = &buffers.entry[..len];
        let header = EntryHeader::decode(entry).map_err(|what| bad(what.to_owned()))?;
        if ObjectName::from(header.id) != *name
            || header.header_len != usize::from(row.header_len)
            || header.raw_len != row.raw_len as usize
            || header.bases.len() != usize::from(row.num_bases)
        {
            return Err(bad("its header says something else than its row".to_owned()));
        }
        let (head, payload) = entry.split_at(header.header_len);
        let raw = if header.pipeline.is_empty() {
            // The hash below covers every byte of a raw payload, and the header was compared: no CRC needed.
            payload
        } else {
            if entry_crc(head, payload) != header.crc {
                return Err(bad("its CRC is wrong".to_owned()));
            }
            let bases = self.read_bases(name, &header.bases, chain)?;
            let bases: Vec<&[u8]> = bases.iter().map(Vec::as_slice).collect();
            if buffers.raw.len() < header.raw_len {
                buffers.raw.resize(header.raw_len, 0);
            }
            let out = &mut buffers.raw[..header.raw_len];
            gradient_codec::decode(&header.pipeline, payload, header.raw_len, &bases, out)
                .map_err(|error| bad(error.to_string()))?;
            &buffers.raw[..header.raw_len]
        };
        if !name.is_of(raw) {
            return Err(bad("its bytes do not hash to its id".to_owned()));
        }
        Ok(raw)
    }

    /// Reads the bases of an entry.
    fn read_bases(&self, name: &ObjectName, bases: &[ChunkId], chain: &mut Chain) -> Result<Vec<Vec<u8>>, OdbError> {
        if bases.is_empty() {
            return Ok(Vec::new());
        }
        let too_long = OdbError::ChainTooLong { object: *name, max: CHAIN_LEN_MAX };
        chain.num_entries += bases.len() as u32;
        if chain.depth >= CHAIN_LEN_MAX || chain.num_entries > CHAIN_ENTRIES_MAX {
            return Err(too_long);
        }
        chain.depth += 1;
        let raws = bases.iter().map(|base| {
            let base = ObjectName::from(*base);
            let (found, _) = self.locate(&base)?;
            let mut buffers = Buffers::default();
            let raw = self.read_entry(&base, &found, &mut buffers, chain)?;
            Ok(raw.to_vec())
        });
        let raws = raws.collect();
        chain.depth -= 1;
        raws
    }

    /// Reads a tree or commit from its block.
    fn read_metadata(&self, name: &ObjectName, found: &Found) -> Result<Vec<u8>, OdbError> {
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
        let table = {
            let mut cache = lock(&self.blocks);
            if let Some(raw) = cache.get(key) {
                return Ok(raw);
            }
            cache.tables.get(&found.pack).map(Arc::clone)
        };
        let row = table.as_ref().and_then(|rows| rows.get(key.1 as usize));
        let raw = if let Some(row) = row {
            let end = row.offset + u64::from(row.encoded_len);
            let encoded = read_range(&*self.storage, found.pack, row.offset, end)?;
            Arc::new(decode_block(found.pack, row, &encoded)?)
        } else {
            let tail = Tail::read(&*self.storage, found.pack, found.pack_len)?;
            let raw = Arc::new(tail.block(key.1)?);
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

/// Length of chunk number `i` of a tensor of `len` bytes.
fn chunk_len(len: u64, i: usize) -> usize {
    let before = i as u64 * CHUNK_BYTES as u64;
    len.saturating_sub(before).min(CHUNK_BYTES as u64) as usize
}

fn check_chunk_len(id: &ChunkId, expected: usize, actual: usize) -> Result<(), OdbError> {
    if expected == actual {
        return Ok(());
    }
    Err(OdbError::WrongLength {
        what: ObjectName::from(*id).to_string(),
        expected: expected as u64,
        actual: actual as u64,
    })
}

fn check_sink_len(expected: u64, actual: usize) -> Result<(), OdbError> {
    if expected == actual as u64 {
        return Ok(());
    }
    Err(OdbError::WrongLength { what: "the memory of a tensor".to_owned(), expected, actual: actual as u64 })
}

fn check_num_chunks(tensor: &Tensor, actual: usize) -> Result<(), OdbError> {
    let expected = tensor.num_chunks()?;
    if expected == actual as u64 {
        return Ok(());
    }
    Err(OdbError::WrongLength {
        what: "the list of chunks".to_owned(),
        expected: expected.saturating_mul(CHUNK_BYTES as u64),
        actual: actual as u64 * CHUNK_BYTES as u64,
    })
}
