//! Reads objects: finds the row, reads exactly header and payload, checks, decodes, hashes.
//!
//! What is returned from here hashed to its id after its last copy. A damaged copy is no end: other packs are asked
//! before the error is returned (`find.rs`). A pack that goes while it is read (merged or collected) is looked for again
//! once. How a chunk is read is in `chunks.rs`, how a tree or commit in `metadata.rs`.

use std::collections::BTreeSet;

use gradient_object::{CHUNK_BYTES, ChunkId, Commit, CommitId, RootTree, Tensor, TensorData, Tree, TreeId};
use rayon::prelude::*;

use crate::index::Found;
use crate::pool;
use crate::{ByteSink, Kind, ObjectName, Odb, OdbError, PackId, Progress};

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

    /// Reads every chunk of these tensors, each once however many places name it, and checks it.
    ///
    /// # Errors
    /// As [`read_tensors`](Self::read_tensors).
    pub fn verify_tensors(&self, tensors: &[&Tensor], progress: &Progress) -> Result<(), OdbError> {
        let mut chunks = BTreeSet::new();
        for tensor in tensors {
            let len = tensor.raw_len()?;
            match &tensor.data {
                TensorData::Inline(bytes) => check_sink_len(len, bytes.len())?,
                TensorData::Chunks(ids) => {
                    check_num_chunks(tensor, ids.len())?;
                    chunks.extend(ids.iter().enumerate().map(|(i, id)| (*id, chunk_len(len, i))));
                }
            }
        }
        progress.add_total(chunks.iter().map(|(_, len)| *len as u64).sum());
        let check = |(id, len): (ChunkId, usize)| {
            progress.check()?;
            let name = id.into();
            let pack = self.with_chunk(&name, |raw| check_chunk_len(&id, len, raw.len()))?;
            progress.advance(len as u64);
            Ok((name, pack))
        };
        let verified: Vec<(ObjectName, PackId)> = pool::install(|| chunks.into_par_iter().map(check).collect())?;
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
