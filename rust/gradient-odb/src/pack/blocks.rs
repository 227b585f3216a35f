//! Metadata blocks: trees and commits together, one zstd frame a block.

use std::collections::HashSet;

use super::BLOCK_BYTES_MAX;
use super::index::{BlockRow, ObjectRow};
use crate::{Kind, ObjectName, OdbError};

/// Trees and commits on their way into blocks.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    raw: Vec<u8>,
    encoded: Vec<(Vec<u8>, u32)>,
    rows: Vec<ObjectRow>,
    names: HashSet<ObjectName>,
    commits: Vec<(ObjectName, Option<u64>)>,
}

/// Finished blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Frames, with their raw lengths.
    pub(crate) encoded: Vec<(Vec<u8>, u32)>,
    /// Rows of the objects in them, in any order.
    pub(crate) rows: Vec<ObjectRow>,
    /// Each commit with the bytes it added; none for those that this very pack brings.
    pub(crate) commits: Vec<(ObjectName, Option<u64>)>,
}

impl BlockBuilder {
    /// Adds an object of at most `METADATA_BYTES_MAX`, unless it is there. A commit that another pack brought first
    /// says what it added then.
    ///
    /// # Errors
    /// [`OdbError::Codec`]: no memory to encode a block.
    pub(crate) fn add(&mut self, name: ObjectName, bytes: &[u8], added_len: Option<u64>) -> Result<(), OdbError> {
        if !self.names.insert(name) {
            return Ok(());
        }
        if !self.raw.is_empty() && self.raw.len() + bytes.len() > BLOCK_BYTES_MAX {
            self.cut()?;
        }
        self.rows.push(ObjectRow {
            name,
            offset: self.raw.len() as u64,
            raw_len: bytes.len() as u32,
            encoded_len: 0,
            crc: 0,
            block: self.encoded.len() as u32,
            header_len: 0,
            codec: 0,
            num_bases: 0,
        });
        self.raw.extend_from_slice(bytes);
        if name.kind == Kind::Commit {
            self.commits.push((name, added_len));
        }
        Ok(())
    }

    /// Says whether the object was added.
    pub(crate) fn contains(&self, name: &ObjectName) -> bool {
        self.names.contains(name)
    }

    /// Says whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Encodes what is left.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn finish(mut self) -> Result<Blocks, OdbError> {
        if !self.rows.is_empty() {
            self.cut()?;
        }
        Ok(Blocks { encoded: self.encoded, rows: self.rows, commits: self.commits })
    }

    fn cut(&mut self) -> Result<(), OdbError> {
        let frame = gradient_codec::encode_metadata(&self.raw)?;
        self.encoded.push((frame, self.raw.len() as u32));
        self.raw.clear();
        Ok(())
    }
}

impl Blocks {
    /// Returns the block table of blocks that begin at `first_block`, and where they end.
    pub(crate) fn table(&self, first_block: u64) -> (Vec<BlockRow>, u64) {
        let mut offset = first_block;
        let mut rows = Vec::with_capacity(self.encoded.len());
        for (frame, raw_len) in &self.encoded {
            rows.push(BlockRow { offset, encoded_len: frame.len() as u32, raw_len: *raw_len });
            offset += frame.len() as u64;
        }
        (rows, offset)
    }
}
