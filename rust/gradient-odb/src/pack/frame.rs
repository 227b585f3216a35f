//! The first 32 and the last 128 bytes of a pack.
//!
//! | header offset | size | field                   |   | footer offset | size | field                            |
//! |---------------|------|-------------------------|---|---------------|------|----------------------------------|
//! | 0             | 4    | magic `GRPK`            |   | 0             | 8    | offset of the first block        |
//! | 4             | 4    | format version          |   | 8             | 8    | offset of the index              |
//! | 8             | 16   | pack id                 |   | 16            | 16   | four numbers of rows             |
//! | 24            | 8    | reserved                |   | 32            | 16   | pack id                          |
//! |               |      |                         |   | 48            | 8    | length of the file               |
//! |               |      |                         |   | 56            | 8    | magic `GRPE`, format version     |
//! |               |      |                         |   | 64            | 32   | BLAKE3 of blocks and index       |
//! |               |      |                         |   | 96            | 32   | BLAKE3 of header and footer[..96] |

use super::index::Counts;
use super::{VERSION, damaged, field, u32_at, u64_at};
use crate::{OdbError, PackId};

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 32;
/// Bytes of the footer.
pub(crate) const FOOTER_LEN: usize = 128;

const HEADER_MAGIC: [u8; 4] = *b"GRPK";
const FOOTER_MAGIC: [u8; 4] = *b"GRPE";
/// Bytes of the footer that its own hash covers.
const COVERED_LEN: usize = 96;

/// Returns the header of a pack.
pub(crate) fn header(pack: PackId) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..4].copy_from_slice(&HEADER_MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..24].copy_from_slice(pack.as_bytes());
    bytes
}

/// Where the parts of a pack lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// End of the entries.
    pub(crate) first_block: u64,
    /// End of the blocks.
    pub(crate) index_offset: u64,
    /// Rows of the index.
    pub(crate) counts: Counts,
    /// Length of the file.
    pub(crate) file_len: u64,
    /// BLAKE3 of the bytes from `first_block` to the end of the index.
    pub(crate) tail_hash: [u8; 32],
}

impl Footer {
    /// Returns the bytes of the footer of `pack`.
    pub(crate) fn encode(&self, pack: PackId) -> [u8; FOOTER_LEN] {
        let mut bytes = [0; FOOTER_LEN];
        bytes[..8].copy_from_slice(&self.first_block.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index_offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.counts.objects.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.counts.bases.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.counts.blocks.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.counts.commits.to_le_bytes());
        bytes[32..48].copy_from_slice(pack.as_bytes());
        bytes[48..56].copy_from_slice(&self.file_len.to_le_bytes());
        bytes[56..60].copy_from_slice(&FOOTER_MAGIC);
        bytes[60..64].copy_from_slice(&VERSION.to_le_bytes());
        bytes[64..96].copy_from_slice(&self.tail_hash);
        let hash = frame_hash(&header(pack), &bytes);
        bytes[COVERED_LEN..].copy_from_slice(&hash);
        bytes
    }

    /// Reads and checks header and footer of a file of `file_len` bytes that is named after `pack`.
    ///
    /// # Errors
    /// - [`OdbError::PackDamaged`]: a magic, the hash, the id, the length or an offset is wrong.
    /// - [`OdbError::Unsupported`]: intact, but of another version.
    pub(crate) fn decode(
        pack: PackId,
        file_len: u64,
        head: &[u8; HEADER_LEN],
        foot: &[u8; FOOTER_LEN],
    ) -> Result<Self, OdbError> {
        let foot_at = file_len.saturating_sub(FOOTER_LEN as u64);
        if head[..4] != HEADER_MAGIC {
            return Err(damaged(pack, 0, "the header's magic is wrong"));
        }
        if foot[56..60] != FOOTER_MAGIC {
            return Err(damaged(pack, foot_at + 56, "the footer's magic is wrong"));
        }
        if frame_hash(head, foot) != foot[COVERED_LEN..] {
            return Err(damaged(pack, foot_at, "header and footer do not hash to what the footer says"));
        }
        for found in [u32_at(head, 4), u32_at(foot, 60)] {
            if found != VERSION {
                return Err(OdbError::Unsupported { pack, found, supported: VERSION });
            }
        }
        if head[8..24] != pack.as_bytes()[..] || foot[32..48] != pack.as_bytes()[..] {
            return Err(damaged(pack, 8, "it is another pack than its name says"));
        }
        if head[24..] != [0; 8] {
            return Err(damaged(pack, 24, "reserved bytes of the header are not zero"));
        }
        let footer = Self {
            first_block: u64_at(foot, 0),
            index_offset: u64_at(foot, 8),
            counts: Counts {
                objects: u32_at(foot, 16),
                bases: u32_at(foot, 20),
                blocks: u32_at(foot, 24),
                commits: u32_at(foot, 28),
            },
            file_len: u64_at(foot, 48),
            tail_hash: field(foot, 64),
        };
        let index_end = footer.index_offset.checked_add(footer.counts.index_len());
        if footer.file_len != file_len
            || footer.first_block < HEADER_LEN as u64
            || footer.index_offset < footer.first_block
            || index_end != Some(foot_at)
        {
            return Err(damaged(pack, foot_at, "the footer's offsets do not fit the file's length"));
        }
        Ok(footer)
    }
}

fn frame_hash(head: &[u8; HEADER_LEN], foot: &[u8; FOOTER_LEN]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(&foot[..COVERED_LEN]);
    *hasher.finalize().as_bytes()
}
