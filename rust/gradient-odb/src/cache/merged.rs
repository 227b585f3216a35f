//! The merged index (`cache/index`): finds an object in any pack with one short search.
//!
//! | offset   | size    | field                                                            |
//! |----------|---------|------------------------------------------------------------------|
//! | 0        | 8       | magic `GRIX`, format version                                     |
//! | 8        | 8       | number of packs p, number of rows n                              |
//! | 16       | 24 p    | packs: id, file length; strictly rising by id                    |
//! |          | 262,144 | fan-out, 65,536 x u32: rows whose first two id bytes are <= i    |
//! |          | 56 n    | rows, strictly rising by id                                      |
//! | end - 32 | 32      | BLAKE3 of every byte before                                      |
//!
//! A reader checks length, order, fan-out and checksum before it trusts an offset. The bytes stay as they are; a search
//! reads them in place.

use gradient_storage::{Key, Storage, StorageError};

use crate::index::Row;
use crate::pack::{VERSION, field, u32_at, u64_at};
use crate::{Kind, PackId};

/// Longest file that is loaded.
const INDEX_CACHE_BYTES_MAX: u64 = 8 << 30;
/// Read and checked at once: a length of a stranger's allocates nothing that is not there.
const PIECE_LEN: u64 = 1 << 20;

const MAGIC: [u8; 4] = *b"GRIX";
const PACKS_AT: usize = 16;
const PACK_LEN: usize = 24;
const FAN: usize = 1 << 16;
const FAN_LEN: usize = 4 * FAN;
const ROW_LEN: usize = 56;
const HASH_LEN: usize = 32;

/// Rows of many packs, sorted; row numbers of packs count `packs`.
#[derive(Debug)]
pub(crate) struct MergedIndex {
    bytes: Vec<u8>,
    num_packs: usize,
    num_rows: usize,
}

impl MergedIndex {
    /// An index of no packs.
    pub(crate) fn empty() -> Self {
        Self::build(&[], &[])
    }

    /// Makes an index; packs and rows strictly rise by id, and a row's pack is its position in `packs`.
    pub(crate) fn build(packs: &[(PackId, u64)], rows: &[([u8; 32], Row)]) -> Self {
        let len = PACKS_AT + packs.len() * PACK_LEN + FAN_LEN + rows.len() * ROW_LEN + HASH_LEN;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&MAGIC);
        for number in [VERSION, packs.len() as u32, rows.len() as u32] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (pack, file_len) in packs {
            bytes.extend_from_slice(pack.as_bytes());
            bytes.extend_from_slice(&file_len.to_le_bytes());
        }
        let mut counted = 0;
        // All zero before the first row: most indexes are that of a repository without a cache, and hold none.
        let first = rows.first().map_or(FAN, |(id, _)| prefix(id));
        bytes.resize(bytes.len() + 4 * first, 0);
        for i in first..FAN {
            while rows.get(counted).is_some_and(|(id, _)| prefix(id) <= i) {
                counted += 1;
            }
            bytes.extend_from_slice(&(counted as u32).to_le_bytes());
        }
        for (id, row) in rows {
            bytes.extend_from_slice(id);
            bytes.extend_from_slice(&row.offset.to_le_bytes());
            for number in [row.raw_len, row.extent, row.pack] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&row.header_len.to_le_bytes());
            bytes.extend_from_slice(&[row.kind.number(), row.num_bases]);
        }
        let hash = hash(&bytes);
        bytes.extend_from_slice(&hash);
        Self { bytes, num_packs: packs.len(), num_rows: rows.len() }
    }

    /// Reads `cache/index`.
    ///
    /// # Errors
    /// Of the storage; inside, what is wrong with the file.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Result<Self, &'static str>, StorageError> {
        let key = Key::cache("index")?;
        let len = storage.len(&key)?;
        if len > INDEX_CACHE_BYTES_MAX {
            return Ok(Err("it is too large"));
        }
        let mut bytes: Vec<u8> = Vec::new();
        while (bytes.len() as u64) < len {
            let at = bytes.len();
            let piece_len = PIECE_LEN.min(len - at as u64) as usize;
            if bytes.try_reserve(piece_len).is_err() {
                return Ok(Err("it is too large for the memory that there is"));
            }
            bytes.resize(at + piece_len, 0);
            storage.read_at(&key, at as u64, &mut bytes[at..])?;
            if let Err(what) = check_so_far(&bytes, at, len) {
                return Ok(Err(what));
            }
        }
        Ok(Self::load(bytes))
    }

    /// Takes the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn load(bytes: Vec<u8>) -> Result<Self, &'static str> {
        if bytes.len() < PACKS_AT + FAN_LEN + HASH_LEN || bytes[..4] != MAGIC {
            return Err("no merged index");
        }
        if u32_at(&bytes, 4) != VERSION {
            return Err("a merged index of another version");
        }
        if file_len(&bytes) != bytes.len() as u64 {
            return Err("a merged index of another length than it says");
        }
        let index = Self { num_packs: u32_at(&bytes, 8) as usize, num_rows: u32_at(&bytes, 12) as usize, bytes };
        let (body, stored) = index.bytes.split_last_chunk::<HASH_LEN>().ok_or("no merged index")?;
        if hash(body) != *stored {
            return Err("a merged index that does not hash to what it says");
        }
        index.check_order()?;
        Ok(index)
    }

    /// Checks that packs and rows rise, that rows name packs that are listed, and that the fan-out fits the rows.
    fn check_order(&self) -> Result<(), &'static str> {
        let packs = &self.bytes[PACKS_AT..self.fan_at()];
        let ids = packs.chunks_exact(PACK_LEN).map(|pack| &pack[..16]);
        if !ids.is_sorted_by(|a, b| a < b) {
            return Err("packs of a merged index do not rise");
        }
        let mut counted = 0;
        for i in 0..FAN {
            let until = self.fan(i);
            if until < counted || until > self.num_rows {
                return Err("the fan-out of a merged index does not rise");
            }
            for number in counted..until {
                let row = self.row_bytes(number);
                let rises = number == 0 || self.row_bytes(number - 1)[..32] < row[..32];
                let is_known = (u32_at(row, 48) as usize) < self.num_packs && Kind::from_number(row[54]).is_some();
                if prefix(row) != i || !rises || !is_known {
                    return Err("rows of a merged index do not rise or name no pack");
                }
            }
            counted = until;
        }
        if counted != self.num_rows {
            return Err("the fan-out of a merged index does not count every row");
        }
        Ok(())
    }

    /// Returns the whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the packs with their lengths, rising by id.
    pub(crate) fn packs(&self) -> impl Iterator<Item = (PackId, u64)> {
        let packs = self.bytes[PACKS_AT..self.fan_at()].chunks_exact(PACK_LEN);
        packs.map(|pack| (PackId::from_bytes(field(pack, 0)), u64_at(pack, 16)))
    }

    /// Returns the number of rows.
    pub(crate) fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Finds the row of an id.
    pub(crate) fn find(&self, id: &[u8; 32]) -> Option<Row> {
        let i = prefix(id);
        let mut low = if i == 0 { 0 } else { self.fan(i - 1) };
        let mut high = self.fan(i);
        while low < high {
            let middle = low.midpoint(high);
            let row = self.row_bytes(middle);
            match row[..32].cmp(&id[..]) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return read_row(row),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Yields rows in order, from the first whose id is at least `from`.
    pub(crate) fn rows_from(&self, from: &[u8; 32]) -> impl Iterator<Item = ([u8; 32], Row)> {
        let i = prefix(from);
        let start = if i == 0 { 0 } else { self.fan(i - 1) };
        let rows = (start..self.num_rows).map(|number| self.row_bytes(number));
        rows.skip_while(move |row| row[..32] < from[..]).filter_map(|row| Some((field(row, 0), read_row(row)?)))
    }

    fn fan_at(&self) -> usize {
        PACKS_AT + self.num_packs * PACK_LEN
    }

    fn fan(&self, i: usize) -> usize {
        u32_at(&self.bytes, self.fan_at() + 4 * i) as usize
    }

    fn row_bytes(&self, number: usize) -> &[u8] {
        let at = self.fan_at() + FAN_LEN + number * ROW_LEN;
        &self.bytes[at..at + ROW_LEN]
    }
}

/// The length that the head of a file says it has.
fn file_len(head: &[u8]) -> u64 {
    let packs_len = u64::from(u32_at(head, 8)) * PACK_LEN as u64;
    let rows_len = u64::from(u32_at(head, 12)) * ROW_LEN as u64;
    (PACKS_AT + FAN_LEN + HASH_LEN) as u64 + packs_len + rows_len
}

/// Checks as much of a file of `len` bytes as there is; what lies before `checked` was looked at before. Zeros, which
/// cost nobody any space, are neither packs nor rows.
fn check_so_far(bytes: &[u8], checked: usize, len: u64) -> Result<(), &'static str> {
    if bytes.len() < PACKS_AT || bytes[..4] != MAGIC {
        return Err("no merged index");
    }
    if file_len(bytes) != len {
        return Err("a merged index of another length than it says");
    }
    let packs_end = PACKS_AT + u32_at(bytes, 8) as usize * PACK_LEN;
    let rows_at = packs_end + FAN_LEN;
    let rises = |start: usize, end: usize, row_len: usize, id_len: usize| {
        let end = end.min(bytes.len()).max(start);
        // With the row before the first new one.
        let from = checked.saturating_sub(start) / row_len * row_len;
        let from = (start + from.saturating_sub(row_len)).min(end);
        bytes[from..end].chunks_exact(row_len).map(|row| &row[..id_len]).is_sorted_by(|a, b| a < b)
    };
    let rows_end = rows_at + u32_at(bytes, 12) as usize * ROW_LEN;
    if rises(PACKS_AT, packs_end, PACK_LEN, 16) && rises(rows_at, rows_end, ROW_LEN, 32) {
        return Ok(());
    }
    Err("packs or rows of a merged index do not rise")
}

/// First two bytes of an id, as a position in the fan-out.
fn prefix(id: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([id[0], id[1]]))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Reads a row; its kind was checked when the index was loaded.
fn read_row(row: &[u8]) -> Option<Row> {
    Some(Row {
        offset: u64_at(row, 32),
        raw_len: u32_at(row, 40),
        extent: u32_at(row, 44),
        pack: u32_at(row, 48),
        header_len: u16::from_le_bytes(field(row, 52)),
        kind: Kind::from_number(row[54])?,
        num_bases: row[55],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pack: u32, offset: u64) -> Row {
        Row { offset, raw_len: 9, extent: 8, pack, header_len: 48, kind: Kind::Chunk, num_bases: 0 }
    }

    fn sample() -> MergedIndex {
        let packs = [(PackId::from_bytes([1; 16]), 1000), (PackId::from_bytes([2; 16]), 2000)];
        let mut rows: Vec<_> =
            (0..300_u32).map(|i| (*blake3::hash(&i.to_le_bytes()).as_bytes(), row(i % 2, u64::from(i)))).collect();
        rows.push(([0; 32], row(0, 1)));
        rows.push(([255; 32], row(1, 2)));
        rows.sort_by_key(|(id, _)| *id);
        MergedIndex::build(&packs, &rows)
    }

    #[test]
    fn finds_every_row_after_a_round_trip_and_no_other() {
        let index = MergedIndex::load(sample().bytes().to_vec()).expect("was just built");
        for i in 0..300_u32 {
            let id = *blake3::hash(&i.to_le_bytes()).as_bytes();
            assert_eq!(index.find(&id), Some(row(i % 2, u64::from(i))));
        }
        assert_eq!(index.find(&[0; 32]), Some(row(0, 1)));
        assert_eq!(index.find(&[255; 32]), Some(row(1, 2)));
        assert_eq!(index.find(&[7; 32]), None);
        assert_eq!(index.rows_from(&[0; 32]).count(), 302);
        assert_eq!(index.rows_from(&[255; 32]).count(), 1);
    }

    #[test]
    fn a_merged_index_with_a_flipped_or_missing_byte_is_refused() {
        let whole = sample().bytes().to_vec();
        for at in (0..whole.len()).step_by(97).chain(0..80) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(MergedIndex::load(flipped).is_err(), "byte {at}");
        }
        assert!(MergedIndex::load(whole[..whole.len() - 1].to_vec()).is_err());
    }

    #[test]
    fn rows_out_of_order_are_refused_though_the_checksum_is_right() {
        let packs = [(PackId::from_bytes([1; 16]), 1000)];
        let rows = [([2; 32], row(0, 1)), ([1; 32], row(0, 2))];
        assert!(MergedIndex::load(MergedIndex::build(&packs, &rows).bytes).is_err());
        let rows = [([1; 32], row(1, 1))];
        assert!(MergedIndex::load(MergedIndex::build(&packs, &rows).bytes).is_err());
    }
}
