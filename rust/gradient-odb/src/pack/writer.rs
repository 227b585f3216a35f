//! Makes one pack: entries as they come, then blocks, index and footer, then durable.

use std::sync::Arc;

use gradient_object::ChunkId;
use gradient_storage::PackWriter;

use super::ALIGN;
use super::blocks::Blocks;
use super::entry::encode_header;
use super::frame::{FOOTER_LEN, Footer, HEADER_LEN, header};
use super::index::{ObjectRow, PackIndex};
use crate::arena::StagedBytes;
use crate::{ObjectName, OdbError, PackId};

const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];

/// What follows the header of an entry.
#[derive(Debug)]
pub(crate) enum Payload {
    /// The staged bytes themselves.
    Raw(Arc<StagedBytes>),
    /// What the pipeline made of them: so many of these bytes.
    Coded(StagedBytes, usize),
}

impl Payload {
    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Raw(staged) => staged.bytes(),
            Self::Coded(staged, len) => &staged.bytes()[..*len],
        }
    }
}

/// An entry that is ready to be appended.
#[derive(Debug)]
pub(crate) struct NewEntry {
    /// The header with its CRC.
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Payload,
    pub(crate) bases: Vec<ChunkId>,
    /// All but the offset.
    pub(crate) row: ObjectRow,
}

impl NewEntry {
    /// Makes the entry of a chunk, coded against `bases`.
    ///
    /// # Errors
    /// As [`encode_header`].
    pub(crate) fn new(
        id: ChunkId,
        raw_len: usize,
        bases: Vec<ChunkId>,
        pipeline: &[gradient_codec::Stage],
        payload: Payload,
    ) -> Result<Self, OdbError> {
        let header = encode_header(&id, raw_len, &bases, pipeline, payload.bytes())?;
        let codec = pipeline.last().map_or(0, |stage| stage.codec);
        let row = ObjectRow {
            name: id.into(),
            offset: 0,
            raw_len: raw_len as u32,
            encoded_len: payload.bytes().len() as u32,
            crc: super::u32_at(&header, 0),
            block: 0,
            header_len: header.len() as u16,
            codec,
            num_bases: bases.len() as u8,
        };
        Ok(Self { header, payload, bases, row })
    }
}

/// A pack in the making. Dropped without [`finish`](Self::finish), it was never there.
pub(crate) struct PackBuilder<'a> {
    id: PackId,
    writer: Box<dyn PackWriter + 'a>,
    position: u64,
    chunks: Vec<(ObjectRow, Vec<ChunkId>)>,
}

impl std::fmt::Debug for PackBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackBuilder({}, {} bytes)", self.id, self.position)
    }
}

/// A pack that is durable.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    pub(crate) id: PackId,
    pub(crate) len: u64,
    pub(crate) rows: Vec<ObjectRow>,
}

impl<'a> PackBuilder<'a> {
    /// Starts a pack of a new random id.
    ///
    /// # Errors
    /// [`OdbError::Random`], [`OdbError::Storage`].
    pub(crate) fn create(storage: &'a dyn gradient_storage::Storage, expected_len: u64) -> Result<Self, OdbError> {
        Self::create_as(PackId::random()?, storage, expected_len)
    }

    /// Starts a pack of this id, which was never used before.
    ///
    /// # Errors
    /// [`OdbError::Storage`].
    pub(crate) fn create_as(
        id: PackId,
        storage: &'a dyn gradient_storage::Storage,
        expected_len: u64,
    ) -> Result<Self, OdbError> {
        let mut writer = storage.create_pack(id.as_bytes(), expected_len)?;
        writer.append(&[&header(id)])?;
        Ok(Self { id, writer, position: HEADER_LEN as u64, chunks: Vec::new() })
    }

    /// Appends entries, their payloads uncopied.
    ///
    /// # Errors
    /// [`OdbError::Storage`]: the pack can only be dropped.
    pub(crate) fn append(&mut self, entries: &mut [NewEntry]) -> Result<(), OdbError> {
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(3 * entries.len());
        for entry in entries.iter_mut() {
            entry.row.offset = self.position;
            let end = self.position + entry.row.entry_len();
            let padded = end.next_multiple_of(ALIGN);
            pieces.push(&entry.header);
            pieces.push(entry.payload.bytes());
            if padded > end {
                pieces.push(&ZEROS[..(padded - end) as usize]);
            }
            self.position = padded;
        }
        self.writer.append(&pieces)?;
        let rows = entries.iter_mut();
        self.chunks.extend(rows.map(|entry| (entry.row, std::mem::take(&mut entry.bases))));
        Ok(())
    }

    /// Appends one entry that lies in memory whole, header and payload, as it was in another pack.
    ///
    /// # Errors
    /// [`OdbError::Storage`].
    pub(crate) fn append_verbatim(&mut self, row: &ObjectRow, bases: &[ChunkId], entry: &[u8]) -> Result<(), OdbError> {
        let end = self.position + entry.len() as u64;
        let padded = end.next_multiple_of(ALIGN);
        self.writer.append(&[entry, &ZEROS[..(padded - end) as usize]])?;
        let mut row = *row;
        row.offset = self.position;
        self.chunks.push((row, bases.to_vec()));
        self.position = padded;
        Ok(())
    }

    /// Appends blocks, index and footer and makes the pack durable under its name.
    ///
    /// # Errors
    /// - [`OdbError::TooLarge`]: more objects than an index can count.
    /// - [`OdbError::Storage`]: nothing of it is there, or all but perhaps not durable.
    pub(crate) fn finish(mut self, mut blocks: Blocks) -> Result<FinishedPack, OdbError> {
        let first_block = self.position;
        let (block_rows, index_offset) = blocks.table(first_block);
        self.chunks.sort_unstable_by_key(|(row, _)| row.name);
        let mut objects: Vec<ObjectRow> = self.chunks.iter().map(|(row, _)| *row).collect();
        blocks.rows.sort_unstable_by_key(|row| row.name);
        objects.append(&mut blocks.rows);
        if u32::try_from(objects.len()).is_err() {
            return Err(OdbError::TooLarge {
                what: "number of objects of a pack",
                actual: objects.len() as u64,
                max: u64::from(u32::MAX),
            });
        }
        let mut index = PackIndex {
            objects,
            bases: self.chunks.drain(..).flat_map(|(_, bases)| bases).collect(),
            blocks: block_rows,
            commits: vec![0; blocks.commits.len()],
        };
        let file_len = index_offset + index.counts().index_len() + FOOTER_LEN as u64;
        index.commits = added_lens(&mut blocks.commits, file_len);
        let tables = index.encode();

        let mut hasher = blake3::Hasher::new();
        let mut pieces: Vec<&[u8]> = blocks.encoded.iter().map(|(frame, _)| &frame[..]).collect();
        pieces.push(&tables);
        for piece in &pieces {
            hasher.update(piece);
        }
        let footer = Footer {
            first_block,
            index_offset,
            counts: index.counts(),
            file_len,
            tail_hash: *hasher.finalize().as_bytes(),
        };
        let footer = footer.encode(self.id);
        pieces.push(&footer);
        self.writer.append(&pieces)?;
        self.writer.seal()?;
        Ok(FinishedPack { id: self.id, len: file_len, rows: index.objects })
    }
}

/// Returns the commit table in the order of the ids; a commit without a length is this pack's own.
fn added_lens(commits: &mut [(ObjectName, Option<u64>)], file_len: u64) -> Vec<u64> {
    commits.sort_unstable_by_key(|(name, _)| *name);
    let lens = commits.iter();
    lens.map(|(_, added_len)| added_len.unwrap_or(file_len)).collect()
}
