//! Finds what is left of a pack whose header, index or footer can not be trusted, or whose end is cut off.
//!
//! Entries say themselves what they are, and so do metadata blocks: the walk goes from one to the next by the lengths
//! that they say, from the first byte behind the header. Where none begins, it searches on for the next one that shows
//! itself to be one: an entry by its CRC, a block by objects that can be read.
//!
//! Its rows are found, not checked: whoever reads an object hashes it, as always. Lengths are held to the file and to the
//! limits of the format; all that is read or unfolded on a guess, and blocks that unfold to very much, are paid from an
//! allowance, and a walk that has used it up ends where it is. Specified in `docs/format/pack.md`.

use std::collections::HashSet;

use gradient_codec::{decode_metadata, metadata_encoded_len, metadata_raw_len};
use gradient_object::{CHUNK_BYTES, Commit, CommitId, METADATA_BYTES_MAX, RootTree, Tree, TreeId, cbor};
use gradient_storage::{Key, Storage};

use super::entry::{ENTRY_HEADER_LEN, EntryHeader, entry_crc};
use super::frame::HEADER_LEN;
use super::index::{BlockRow, ObjectRow};
use super::tail::read_range;
use super::{ALIGN, BASES_MAX, u32_at};
use crate::{ObjectName, OdbError, PackId};

/// Bytes that may be searched, and held to checksums, in one pack: what lies between damage and the next entry is at
/// most an entry long.
const ALLOWANCE: u64 = 256 << 20;
/// Of a block in its place, so much is free for each of its bytes: finding its end, and what it unfolds to.
const RATIO_FREE: u64 = 32;
/// Read at once.
const WINDOW_LEN: usize = 4 << 10;
/// Searched at once.
const PIECE_LEN: usize = 64 << 10;
/// Longest frame of a block: zstd makes of what it can not compress a few bytes more.
const FRAME_LEN_MAX: usize = METADATA_BYTES_MAX + (METADATA_BYTES_MAX >> 7);
/// How every block begins.
const BLOCK_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Objects, each once, in the order in which they lie.
    pub(crate) objects: Vec<ObjectRow>,
    /// Blocks, which the rows of trees and commits count.
    pub(crate) blocks: Vec<BlockRow>,
}

/// Walks a pack that is `file_len` bytes long. Costs a short read for each entry, and reads blocks whole.
///
/// # Errors
/// [`OdbError::Storage`]: also for a file that is gone. What can not be read ends the walk.
pub(crate) fn walk(storage: &dyn Storage, pack: PackId, file_len: u64) -> Result<Walked, OdbError> {
    let mut walk = Walk {
        storage,
        key: pack.key(),
        pack,
        file_len,
        window: Vec::new(),
        window_at: 0,
        allowance: ALLOWANCE,
        seen: HashSet::new(),
        found: Walked::default(),
    };
    match walk.run() {
        Err(error) if error.is_missing_file() => Err(error),
        // What was found before still counts.
        Err(error) => crate::odb::damage_of(pack, error).map(|_| walk.found),
        Ok(()) => Ok(walk.found),
    }
}

struct Walk<'a> {
    storage: &'a dyn Storage,
    key: Key,
    pack: PackId,
    file_len: u64,
    window: Vec<u8>,
    window_at: u64,
    allowance: u64,
    seen: HashSet<ObjectName>,
    found: Walked,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), OdbError> {
        let mut at = HEADER_LEN as u64;
        // The entry before, which nothing but its header has spoken for yet.
        let mut before: Option<(u64, EntryHeader)> = None;
        while at < self.file_len {
            if let Some(header) = self.entry(at)? {
                let end = at + header.entry_len();
                if let Some((at, header)) = before.replace((at, header)) {
                    self.take_entry(at, &header);
                }
                at = end.next_multiple_of(ALIGN);
                continue;
            }
            let allowance = self.allowance;
            if let Some((row, raw)) = self.block(at)? {
                self.allowance += (allowance - self.allowance).min(RATIO_FREE * u64::from(row.encoded_len));
                if let Some((at, header)) = before.take() {
                    self.take_entry(at, &header);
                }
                self.take_block(row, &raw);
                at += u64::from(row.encoded_len);
                continue;
            }
            let mut from = at + 1;
            if let Some((at, header)) = before.take() {
                if self.is_proved(at, &header)? {
                    self.take_entry(at, &header);
                } else {
                    // Its lengths may be wrong: something may begin within it.
                    from = at + ALIGN;
                }
            }
            let Some(next) = self.search(from)? else { return Ok(()) };
            at = next;
        }
        if let Some((at, header)) = before {
            self.take_entry(at, &header);
        }
        Ok(())
    }

    /// Returns bytes of the file, fewer at its end.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8], OdbError> {
        let at = at.min(self.file_len);
        let end = at.saturating_add(len as u64).min(self.file_len);
        if at < self.window_at || end > self.window_at + self.window.len() as u64 {
            let until = at.saturating_add(len.max(WINDOW_LEN) as u64).min(self.file_len);
            self.window = read_range(self.storage, &self.key, self.pack, at, until)?;
            self.window_at = at;
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..start + (end - at) as usize])
    }

    /// Pays; false if the allowance is used up.
    fn pay(&mut self, len: u64) -> bool {
        let is_paid = len <= self.allowance;
        self.allowance = self.allowance.saturating_sub(len);
        is_paid
    }

    /// Reads the header of the entry that may begin here.
    fn entry(&mut self, at: u64) -> Result<Option<EntryHeader>, OdbError> {
        if !at.is_multiple_of(ALIGN) {
            return Ok(None);
        }
        let head = self.bytes(at, ENTRY_HEADER_LEN)?;
        let Some(header_len) = head.get(4..6).map(|len| usize::from(u16::from_le_bytes([len[0], len[1]]))) else {
            return Ok(None);
        };
        if header_len < ENTRY_HEADER_LEN {
            return Ok(None);
        }
        let Ok(header) = EntryHeader::decode_head(self.bytes(at, header_len)?) else { return Ok(None) };
        let fits = at + header.entry_len() <= self.file_len && header.bases.len() <= BASES_MAX;
        Ok(fits.then_some(header))
    }

    /// Says whether header and payload have their CRC.
    fn is_proved(&mut self, at: u64, header: &EntryHeader) -> Result<bool, OdbError> {
        let len = header.entry_len();
        if !self.pay(len) {
            return Ok(false);
        }
        let entry = self.bytes(at, len as usize)?;
        Ok(entry
            .split_at_checked(header.header_len)
            .is_some_and(|(head, payload)| entry_crc(head, payload) == header.crc))
    }

    /// Reads and decodes the block that may begin here. Pays for all of it, also if there is none.
    fn block(&mut self, at: u64) -> Result<Option<(BlockRow, Vec<u8>)>, OdbError> {
        if self.bytes(at, BLOCK_MAGIC.len())? != BLOCK_MAGIC {
            return Ok(None);
        }
        // First in what lies in memory anyhow.
        let mut len = (self.window_at + self.window.len() as u64).saturating_sub(at).min(PIECE_LEN as u64);
        let encoded_len = loop {
            if len > self.allowance {
                return Ok(None);
            }
            if let Ok(encoded_len) = metadata_encoded_len(self.bytes(at, len as usize)?) {
                break encoded_len;
            }
            self.pay(len);
            let longer = (8 * len).clamp(WINDOW_LEN as u64, FRAME_LEN_MAX as u64).min(self.file_len - at);
            if longer <= len {
                return Ok(None);
            }
            len = longer;
        };
        let Ok(raw_len) = metadata_raw_len(self.bytes(at, encoded_len)?) else { return Ok(None) };
        let is_taken = raw_len <= METADATA_BYTES_MAX as u64 && encoded_len <= FRAME_LEN_MAX;
        if !(is_taken && self.pay(encoded_len as u64 + raw_len)) {
            return Ok(None);
        }
        let frame = self.bytes(at, encoded_len)?;
        let raw = match decode_metadata(frame, raw_len as usize, METADATA_BYTES_MAX) {
            Ok(raw) => raw,
            Err(error) if error.is_shortage() => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        let row = BlockRow { offset: at, encoded_len: encoded_len as u32, raw_len: raw_len as u32 };
        Ok(first_object(&raw).map(|_| (row, raw)))
    }

    fn take_entry(&mut self, at: u64, header: &EntryHeader) {
        let name = ObjectName::from(header.id);
        if self.seen.insert(name) {
            self.found.objects.push(ObjectRow {
                name,
                offset: at,
                raw_len: header.raw_len as u32,
                encoded_len: header.encoded_len as u32,
                crc: header.crc,
                block: 0,
                header_len: header.header_len as u16,
                codec: header.pipeline.last().map_or(0, |stage| stage.codec),
                num_bases: header.bases.len() as u8,
            });
        }
    }

    fn take_block(&mut self, row: BlockRow, raw: &[u8]) {
        let number = self.found.blocks.len() as u32;
        self.found.blocks.push(row);
        let mut at = 0;
        while let Some((name, len)) = first_object(&raw[at..]) {
            if self.seen.insert(name) {
                self.found.objects.push(ObjectRow {
                    name,
                    offset: at as u64,
                    raw_len: len as u32,
                    encoded_len: 0,
                    crc: 0,
                    block: number,
                    header_len: 0,
                    codec: 0,
                    num_bases: 0,
                });
            }
            at += len;
        }
    }

    /// Searches for the next entry or block that shows itself to be one.
    fn search(&mut self, from: u64) -> Result<Option<u64>, OdbError> {
        let mut piece_at = from;
        while piece_at < self.file_len {
            let piece = self.bytes(piece_at, PIECE_LEN + ENTRY_HEADER_LEN)?.to_vec();
            if !self.pay(piece.len().min(PIECE_LEN) as u64) {
                return Ok(None);
            }
            for (at, bytes) in (piece_at..).zip((0..piece.len().min(PIECE_LEN)).filter_map(|i| piece.get(i..))) {
                if at.is_multiple_of(ALIGN)
                    && let Some(header_len) = header_len_if_entry(bytes)
                    && self.pay(header_len)
                    && let Some(header) = self.entry(at)?
                    && self.is_proved(at, &header)?
                {
                    return Ok(Some(at));
                }
                if bytes.starts_with(&BLOCK_MAGIC) && self.block(at)?.is_some() {
                    return Ok(Some(at));
                }
            }
            piece_at += PIECE_LEN as u64;
        }
        Ok(None)
    }
}

/// A quick look that spares most places a longer one: the length of the header that may begin here.
fn header_len_if_entry(bytes: &[u8]) -> Option<u64> {
    let head = bytes.first_chunk::<ENTRY_HEADER_LEN>()?;
    let header_len = usize::from(u16::from_le_bytes([head[4], head[5]]));
    let (num_bases, num_stages) = (usize::from(head[6]), usize::from(head[7]));
    let least = ENTRY_HEADER_LEN + 32 * num_bases + 2 * num_stages;
    let raw_len = u32_at(head, 8) as usize;
    let fits = (least..=least + 255 * num_stages).contains(&header_len)
        && num_bases <= BASES_MAX
        && (1..=CHUNK_BYTES).contains(&raw_len)
        && u32_at(head, 12) as usize <= raw_len;
    fits.then_some(header_len as u64)
}

/// The tree or commit at the start of a decoded block, and its length.
fn first_object(raw: &[u8]) -> Option<(ObjectName, usize)> {
    let len = cbor::first_len(raw).ok().filter(|len| *len > 0)?;
    let object = raw.get(..len)?;
    let name: ObjectName = if Commit::decode_trusted(object).is_ok() {
        CommitId::of(object).into()
    } else if RootTree::decode_trusted(object).is_ok() || Tree::decode_trusted(object).is_ok() {
        TreeId::of(object).into()
    } else {
        return None;
    };
    Some((name, len))
}
