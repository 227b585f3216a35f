//! The index of a pack: tables of objects, bases, blocks and commits without gaps.
//!
//! | row offset | size | field                            |   | row offset | size | field                       |
//! |------------|------|----------------------------------|---|------------|------|-----------------------------|
//! | 0          | 32   | id                               |   | 56         | 2    | header length of the entry  |
//! | 32         | 8    | offset in the file or the block  |   | 58         | 1    | kind                        |
//! | 40         | 4    | raw length                       |   | 59         | 1    | codec of the last stage     |
//! | 44         | 4    | encoded length                   |   | 60         | 1    | number of bases             |
//! | 48         | 4    | CRC-32                           |   | 61         | 3    | reserved                    |
//! | 52         | 4    | number of the block              |   |            |      |                             |
//!
//! A row that was read here lies within its pack or block and within the limits of the format.

use gradient_object::{CHUNK_BYTES, ChunkId, METADATA_BYTES_MAX};

use super::entry::ENTRY_HEADER_LEN;
use super::frame::HEADER_LEN;
use super::{ALIGN, BASES_MAX, field, u32_at, u64_at};
use crate::{Kind, ObjectName};

const OBJECT_ROW_LEN: usize = 64;
const BASE_ROW_LEN: usize = 32;
const BLOCK_ROW_LEN: usize = 16;
const COMMIT_ROW_LEN: usize = 8;

/// Numbers of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) objects: u32,
    pub(crate) bases: u32,
    pub(crate) blocks: u32,
    pub(crate) commits: u32,
}

impl Counts {
    /// Bytes of the table of objects.
    pub(crate) fn objects_len(self) -> u64 {
        u64::from(self.objects) * OBJECT_ROW_LEN as u64
    }

    /// Bytes of an index with so many rows.
    pub(crate) fn index_len(self) -> u64 {
        let len = |rows: u32, row_len: usize| u64::from(rows) * row_len as u64;
        len(self.objects, OBJECT_ROW_LEN)
            + len(self.bases, BASE_ROW_LEN)
            + len(self.blocks, BLOCK_ROW_LEN)
            + len(self.commits, COMMIT_ROW_LEN)
    }
}

/// Where an object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectRow {
    pub(crate) name: ObjectName,
    /// Chunk: of the entry in the file. Tree, commit: in the decoded block.
    pub(crate) offset: u64,
    pub(crate) raw_len: u32,
    pub(crate) encoded_len: u32,
    pub(crate) crc: u32,
    pub(crate) block: u32,
    pub(crate) header_len: u16,
    pub(crate) codec: u8,
    pub(crate) num_bases: u8,
}

/// Where a metadata block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRow {
    pub(crate) offset: u64,
    pub(crate) encoded_len: u32,
    pub(crate) raw_len: u32,
}

/// The four tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackIndex {
    /// Strictly rising by kind and id.
    pub(crate) objects: Vec<ObjectRow>,
    /// For each chunk in turn, its bases.
    pub(crate) bases: Vec<ChunkId>,
    /// In the order in which they lie.
    pub(crate) blocks: Vec<BlockRow>,
    /// For each commit in turn, the bytes it added.
    pub(crate) commits: Vec<u64>,
}

impl PackIndex {
    /// Returns the numbers of rows.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            objects: self.objects.len() as u32,
            bases: self.bases.len() as u32,
            blocks: self.blocks.len() as u32,
            commits: self.commits.len() as u32,
        }
    }

    /// Returns the bytes of the tables.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.counts().index_len() as usize);
        for row in &self.objects {
            bytes.extend_from_slice(&row.name.id);
            bytes.extend_from_slice(&row.offset.to_le_bytes());
            for number in [row.raw_len, row.encoded_len, row.crc, row.block] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&row.header_len.to_le_bytes());
            bytes.extend_from_slice(&[row.name.kind.number(), row.codec, row.num_bases, 0, 0, 0]);
        }
        for base in &self.bases {
            bytes.extend_from_slice(base.as_bytes());
        }
        for block in &self.blocks {
            bytes.extend_from_slice(&block.offset.to_le_bytes());
            bytes.extend_from_slice(&block.encoded_len.to_le_bytes());
            bytes.extend_from_slice(&block.raw_len.to_le_bytes());
        }
        for added_len in &self.commits {
            bytes.extend_from_slice(&added_len.to_le_bytes());
        }
        bytes
    }

    /// Reads tables of `counts` rows, `bytes` being exactly as long, of a pack whose entries end at `first_block` and
    /// whose blocks end at `index_offset`.
    ///
    /// # Errors
    /// What is wrong, and at which offset in `bytes`.
    pub(crate) fn decode(
        bytes: &[u8],
        counts: Counts,
        first_block: u64,
        index_offset: u64,
    ) -> Result<Self, (usize, &'static str)> {
        let (objects, rest) = bytes.split_at(counts.objects as usize * OBJECT_ROW_LEN);
        let (bases, rest) = rest.split_at(counts.bases as usize * BASE_ROW_LEN);
        let (blocks, commits) = rest.split_at(counts.blocks as usize * BLOCK_ROW_LEN);
        let blocks_at = bytes.len() - rest.len();
        let index = Self {
            objects: read_objects(objects)?,
            bases: bases.chunks_exact(BASE_ROW_LEN).map(|row| ChunkId::from_bytes(field(row, 0))).collect(),
            blocks: read_blocks(blocks, first_block, index_offset).map_err(|(at, what)| (blocks_at + at, what))?,
            commits: commits.chunks_exact(COMMIT_ROW_LEN).map(|row| u64_at(row, 0)).collect(),
        };
        let mut num_bases = 0;
        let mut num_commits = 0;
        for (i, row) in index.objects.iter().enumerate() {
            let what = match row.name.kind {
                Kind::Chunk => row.check_chunk(first_block),
                Kind::Tree | Kind::Commit => row.check_metadata(&index.blocks),
            };
            if let Some(what) = what {
                return Err((i * OBJECT_ROW_LEN, what));
            }
            num_bases += usize::from(row.num_bases);
            num_commits += usize::from(row.name.kind == Kind::Commit);
        }
        if num_bases != index.bases.len() {
            return Err((objects.len(), "the number of base rows is not that of the bases"));
        }
        if num_commits != index.commits.len() {
            return Err((bytes.len() - commits.len(), "the number of commit rows is not that of the commits"));
        }
        Ok(index)
    }

    /// Yields the chunk rows with the ids of their bases.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (&ObjectRow, &[ChunkId])> {
        let mut rest = &self.bases[..];
        self.objects.iter().filter(|row| row.name.kind == Kind::Chunk).map(move |row| {
            let (bases, after) = rest.split_at(usize::from(row.num_bases).min(rest.len()));
            rest = after;
            (row, bases)
        })
    }

    /// Yields the commit rows with the bytes they added.
    pub(crate) fn commits(&self) -> impl Iterator<Item = (&ObjectRow, u64)> {
        let rows = self.objects.iter().filter(|row| row.name.kind == Kind::Commit);
        rows.zip(self.commits.iter().copied())
    }

    /// Finds the row of an object.
    pub(crate) fn find(&self, name: &ObjectName) -> Option<&ObjectRow> {
        let at = self.objects.binary_search_by(|row| row.name.cmp(name));
        at.ok().map(|at| &self.objects[at])
    }
}

impl ObjectRow {
    /// Length of the entry without padding.
    pub(crate) fn entry_len(&self) -> u64 {
        u64::from(self.header_len) + u64::from(self.encoded_len)
    }

    /// Says what is wrong with the row of a chunk.
    fn check_chunk(&self, first_block: u64) -> Option<&'static str> {
        let end = self.offset.checked_add(self.entry_len());
        let fixed_len = ENTRY_HEADER_LEN + 32 * usize::from(self.num_bases);
        let header_len = usize::from(self.header_len);
        let is_raw = self.codec == 0;
        if self.offset < HEADER_LEN as u64
            || !self.offset.is_multiple_of(ALIGN)
            || end.is_none_or(|end| end > first_block)
        {
            Some("an entry lies outside the entries")
        } else if !(1..=CHUNK_BYTES).contains(&(self.raw_len as usize)) {
            Some("a chunk's raw length is out of range")
        } else if self.encoded_len > self.raw_len || is_raw && self.encoded_len != self.raw_len {
            Some("a chunk's encoded length does not fit its raw length")
        } else if usize::from(self.num_bases) > BASES_MAX {
            Some("an entry has too many bases")
        } else if header_len < fixed_len || is_raw && header_len != ENTRY_HEADER_LEN {
            Some("an entry's header length does not fit its bases and stages")
        } else if self.block != 0 {
            Some("a chunk has a block")
        } else {
            None
        }
    }

    /// Says what is wrong with the row of a tree or commit.
    fn check_metadata(&self, blocks: &[BlockRow]) -> Option<&'static str> {
        let end = self.offset.checked_add(u64::from(self.raw_len));
        let block = blocks.get(self.block as usize);
        if block.is_none_or(|block| end.is_none_or(|end| end > u64::from(block.raw_len))) {
            Some("an object lies outside its block")
        } else if (self.encoded_len, self.crc, self.header_len) != (0, 0, 0) || (self.codec, self.num_bases) != (0, 0) {
            Some("a tree or commit has fields of a chunk")
        } else {
            None
        }
    }
}

/// Reads rows of objects that strictly rise.
///
/// # Errors
/// What is wrong, and at which offset.
pub(crate) fn read_objects(bytes: &[u8]) -> Result<Vec<ObjectRow>, (usize, &'static str)> {
    let mut rows: Vec<ObjectRow> = Vec::with_capacity(bytes.len() / OBJECT_ROW_LEN);
    for (i, row) in bytes.chunks_exact(OBJECT_ROW_LEN).enumerate() {
        let at = i * OBJECT_ROW_LEN;
        let kind = Kind::from_number(row[58]).ok_or((at, "an object has an unknown kind"))?;
        if row[61..] != [0; 3] {
            return Err((at, "reserved bytes of an object row are not zero"));
        }
        let row = ObjectRow {
            name: ObjectName { kind, id: field(row, 0) },
            offset: u64_at(row, 32),
            raw_len: u32_at(row, 40),
            encoded_len: u32_at(row, 44),
            crc: u32_at(row, 48),
            block: u32_at(row, 52),
            header_len: u16::from_le_bytes(field(row, 56)),
            codec: row[59],
            num_bases: row[60],
        };
        if rows.last().is_some_and(|last| last.name >= row.name) {
            return Err((at, "object rows do not rise"));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Reads the block table; blocks lie one after the other from `first_block` to `index_offset`.
fn read_blocks(bytes: &[u8], first_block: u64, index_offset: u64) -> Result<Vec<BlockRow>, (usize, &'static str)> {
    let mut rows = Vec::with_capacity(bytes.len() / BLOCK_ROW_LEN);
    let mut position = first_block;
    for (i, row) in bytes.chunks_exact(BLOCK_ROW_LEN).enumerate() {
        let row = BlockRow { offset: u64_at(row, 0), encoded_len: u32_at(row, 8), raw_len: u32_at(row, 12) };
        if row.offset != position || row.raw_len as usize > METADATA_BYTES_MAX {
            return Err((i * BLOCK_ROW_LEN, "a block does not lie after the one before, or is too large"));
        }
        position = position.saturating_add(u64::from(row.encoded_len));
        rows.push(row);
    }
    if position != index_offset {
        return Err((bytes.len(), "the blocks do not end where the index begins"));
    }
    Ok(rows)
}
