//! Entries: one chunk each, a header that says how it is coded, and the payload.
//!
//! | offset | size | field                                                        |
//! |--------|------|--------------------------------------------------------------|
//! | 0      | 4    | CRC-32 of the header from offset 4 and the payload            |
//! | 4      | 2    | header length h                                              |
//! | 6      | 1    | number of bases                                              |
//! | 7      | 1    | number of stages                                             |
//! | 8      | 4    | raw length                                                   |
//! | 12     | 4    | encoded length                                               |
//! | 16     | 32   | chunk id                                                     |
//! | 48     |      | ids of the bases; per stage codec, length of parameters, parameters |
//! | h      |      | payload                                                      |

use gradient_codec::Stage;
use gradient_object::{CHUNK_BYTES, ChunkId};

use super::{BASES_MAX, field, u32_at};
use crate::OdbError;

/// Bytes of a header without bases and stages.
pub(crate) const ENTRY_HEADER_LEN: usize = 48;
/// Most stages of a pipeline.
const STAGES_MAX: usize = u8::MAX as usize;

/// A header, read and checked on its own.
#[derive(Clone, Debug)]
pub(crate) struct EntryHeader {
    pub(crate) crc: u32,
    pub(crate) header_len: usize,
    pub(crate) raw_len: usize,
    pub(crate) encoded_len: usize,
    pub(crate) id: ChunkId,
    pub(crate) bases: Vec<ChunkId>,
    pub(crate) pipeline: Vec<Stage>,
}

/// Returns the header of an entry, its CRC filled in.
///
/// # Errors
/// [`OdbError::TooLarge`]: more stages, bases or bytes of parameters than the header can say.
pub(crate) fn encode_header(
    id: &ChunkId,
    raw_len: usize,
    bases: &[ChunkId],
    pipeline: &[Stage],
    payload: &[u8],
) -> Result<Vec<u8>, OdbError> {
    let limit = |what, actual: usize, max: usize| OdbError::TooLarge { what, actual: actual as u64, max: max as u64 };
    if bases.len() > BASES_MAX {
        return Err(limit("number of bases", bases.len(), BASES_MAX));
    }
    if pipeline.len() > STAGES_MAX {
        return Err(limit("number of stages", pipeline.len(), STAGES_MAX));
    }
    if raw_len > CHUNK_BYTES {
        return Err(limit("chunk", raw_len, CHUNK_BYTES));
    }
    if payload.len() > raw_len {
        return Err(limit("encoded chunk", payload.len(), raw_len));
    }
    let mut bytes = vec![0; ENTRY_HEADER_LEN];
    bytes[6] = bases.len() as u8;
    bytes[7] = pipeline.len() as u8;
    bytes[8..12].copy_from_slice(&(raw_len as u32).to_le_bytes());
    bytes[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[16..48].copy_from_slice(id.as_bytes());
    for base in bases {
        bytes.extend_from_slice(base.as_bytes());
    }
    for stage in pipeline {
        let params_len =
            u8::try_from(stage.params.len()).map_err(|_| limit("parameters of a codec", stage.params.len(), 255))?;
        bytes.extend_from_slice(&[stage.codec, params_len]);
        bytes.extend_from_slice(&stage.params);
    }
    let header_len =
        u16::try_from(bytes.len()).map_err(|_| limit("header of an entry", bytes.len(), usize::from(u16::MAX)))?;
    bytes[4..6].copy_from_slice(&header_len.to_le_bytes());
    let crc = entry_crc(&bytes, payload);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// CRC-32 of an entry: of its header from offset 4 and its payload.
pub(crate) fn entry_crc(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[4..]);
    hasher.update(payload);
    hasher.finalize()
}

impl EntryHeader {
    /// Length of the entry without padding.
    pub(crate) fn entry_len(&self) -> u64 {
        self.header_len as u64 + self.encoded_len as u64
    }

    /// Reads the header at the start of `entry`, which is header and payload without padding.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn decode(entry: &[u8]) -> Result<Self, &'static str> {
        if entry.len() < ENTRY_HEADER_LEN {
            return Err("the entry is shorter than a header");
        }
        let header_len = usize::from(u16::from_le_bytes(field(entry, 4)));
        if header_len < ENTRY_HEADER_LEN || header_len + u32_at(entry, 12) as usize != entry.len() {
            return Err("the entry's lengths are not those of its row");
        }
        Self::decode_head(entry)
    }

    /// Reads the header at the start of `entry`, whatever follows it.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn decode_head(entry: &[u8]) -> Result<Self, &'static str> {
        if entry.len() < ENTRY_HEADER_LEN {
            return Err("the entry is shorter than a header");
        }
        let header_len = usize::from(u16::from_le_bytes(field(entry, 4)));
        let encoded_len = u32_at(entry, 12) as usize;
        let num_bases = usize::from(entry[6]);
        let rest = entry.get(ENTRY_HEADER_LEN..header_len).ok_or("the entry's lengths are not those of its row")?;
        let (bases, mut rest) = rest.split_at_checked(32 * num_bases).ok_or("the header is too short for its bases")?;
        let mut pipeline = Vec::with_capacity(usize::from(entry[7]));
        for _ in 0..entry[7] {
            let (&[codec, params_len], after) =
                rest.split_first_chunk().ok_or("the header is too short for its stages")?;
            let (params, after) =
                after.split_at_checked(usize::from(params_len)).ok_or("the header is too short for its stages")?;
            pipeline.push(Stage { codec, params: params.to_vec() });
            rest = after;
        }
        let raw_len = u32_at(entry, 8) as usize;
        if !rest.is_empty() {
            return Err("the header is longer than its stages");
        }
        if !(1..=CHUNK_BYTES).contains(&raw_len) || encoded_len > raw_len {
            return Err("the entry's raw length is out of range");
        }
        if pipeline.is_empty() && (encoded_len != raw_len || num_bases != 0) {
            return Err("a raw entry has another length, or bases");
        }
        Ok(Self {
            crc: u32_at(entry, 0),
            header_len,
            raw_len,
            encoded_len,
            id: ChunkId::from_bytes(field(entry, 16)),
            bases: bases.chunks_exact(32).map(|id| ChunkId::from_bytes(field(id, 0))).collect(),
            pipeline,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_with_bases_and_stages() {
        let payload = [7; 100];
        let bases = [ChunkId::of(b"a"), ChunkId::of(b"b")];
        let pipeline = [Stage { codec: 9, params: vec![1, 2, 3] }, Stage { codec: 1, params: Vec::new() }];
        let id = ChunkId::of(b"chunk");
        let mut entry = encode_header(&id, 1000, &bases, &pipeline, &payload).expect("fits");
        assert_eq!(entry.len(), 48 + 64 + 5 + 2);
        entry.extend_from_slice(&payload);
        let header = EntryHeader::decode(&entry).expect("was just written");
        assert_eq!(header.bases, bases);
        assert_eq!(header.pipeline.len(), 2);
        assert_eq!(header.pipeline[0].params, [1, 2, 3]);
        assert_eq!((header.raw_len, header.encoded_len), (1000, 100));
        let (head, body) = entry.split_at(header.header_len);
        assert_eq!(header.crc, entry_crc(head, body));
    }

    #[test]
    fn no_cut_header_is_read() {
        let pipeline = [Stage { codec: 1, params: vec![5; 4] }];
        let entry = encode_header(&ChunkId::of(b""), 10, &[], &pipeline, &[]).expect("fits");
        assert!(EntryHeader::decode(&entry).is_ok());
        for len in 0..entry.len() {
            assert!(EntryHeader::decode(&entry[..len]).is_err(), "{len}");
        }
    }
}
