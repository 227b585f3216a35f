//! What holds of this crate's readers whatever bytes they are given. For fuzzing and its replay in `cargo test`
//! (`rust/testkit/src/readers`); no release has it.
//!
//! Beside never panicking: what a reader accepts it writes again byte for byte, and no object is handed out whose bytes
//! do not hash to its id. Checksums are anybody's to make: those that take a whole file are also given the file with
//! them made right, or a changed byte would never come past the first look.

use std::sync::Arc;

use gradient_object::{CHUNK_BYTES, METADATA_BYTES_MAX};
use gradient_storage::{Durability, Key, MemoryStorage, Storage};

use crate::cache::commits::{CommitCache, encode};
use crate::cache::merged::MergedIndex;
use crate::index::Row;
use crate::pack::entry::{EntryHeader, encode_header, entry_crc};
use crate::pack::frame::{FOOTER_LEN, HEADER_LEN};
use crate::pack::index::{Counts, PackIndex};
use crate::pack::{field, u32_at, u64_at};
use crate::{Kind, Odb, PackId, Progress, VerifyLevel};

const HASH_LEN: usize = 32;

/// An entry: header and payload.
pub fn entry(bytes: &[u8]) {
    let Ok(header) = EntryHeader::decode(bytes) else { return };
    let (head, payload) = bytes.split_at(header.header_len);
    let written = encode_header(&header.id, header.raw_len, &header.bases, &header.pipeline, payload);
    if let Ok(written) = written {
        assert_eq!(written[4..], head[4..], "a header is written again as it was");
        assert_eq!(u32_at(&written, 0), entry_crc(head, payload));
    }
    let base = vec![0; header.raw_len];
    let bases = vec![&base[..]; header.bases.len()];
    let mut raw = vec![0; header.raw_len];
    if gradient_codec::decode(&header.pipeline, payload, header.raw_len, &bases, &mut raw).is_ok() {
        assert!(header.raw_len <= CHUNK_BYTES);
    }
}

/// The four tables of a pack, after four numbers of rows, the end of the entries and the end of the blocks.
pub fn pack_index(bytes: &[u8]) {
    let Some((head, tables)) = bytes.split_first_chunk::<32>() else { return };
    let counts =
        Counts { objects: u32_at(head, 0), bases: u32_at(head, 4), blocks: u32_at(head, 8), commits: u32_at(head, 12) };
    if counts.index_len() != tables.len() as u64 {
        return;
    }
    if let Ok(index) = PackIndex::decode(tables, counts, u64_at(head, 16), u64_at(head, 24)) {
        assert_eq!(index.counts(), counts);
        assert_eq!(index.encode(), tables, "an index is written again as it was");
        for row in index.objects.iter().take(64) {
            assert_eq!(index.find(&row.name), Some(row));
        }
    }
}

/// A pack, and the same one with its hashes made right.
pub fn pack(bytes: &[u8]) {
    check_pack(bytes);
    check_pack(&sealed_pack(bytes.to_vec()));
}

/// Makes the hashes and the length of a pack right.
pub fn sealed_pack(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(foot_at) = bytes.len().checked_sub(FOOTER_LEN).filter(|at| *at >= HEADER_LEN) else { return bytes };
    let len = bytes.len() as u64;
    bytes[foot_at + 48..foot_at + 56].copy_from_slice(&len.to_le_bytes());
    let first_block = usize::try_from(u64_at(&bytes, foot_at)).unwrap_or(usize::MAX);
    if let Some(tail) = bytes.get(first_block..foot_at) {
        let hash = *blake3::hash(tail).as_bytes();
        bytes[foot_at + 64..foot_at + 96].copy_from_slice(&hash);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..HEADER_LEN]).update(&bytes[foot_at..foot_at + 96]);
    bytes[foot_at + 96..].copy_from_slice(hasher.finalize().as_bytes());
    bytes
}

fn check_pack(bytes: &[u8]) {
    if bytes.len() < HEADER_LEN {
        return;
    }
    let pack = PackId::from_bytes(field(bytes, 8));
    let storage = MemoryStorage::new();
    storage.create_folders().expect("folders in memory");
    storage.replace(&pack.key(), bytes, Durability::Unsynced).expect("a file in memory");
    let Ok(odb) = Odb::open(Arc::new(storage)) else { return };
    let is_intact = odb.damaged().is_empty();
    let report = odb.verify_pack(&pack, VerifyLevel::Full, &Progress::new());
    let Ok(report) = report else { return };
    assert!(is_intact || !report.damage.is_empty(), "a check finds what opening finds");
    for (name, raw_len) in report.objects.iter().take(256) {
        let is_named = report.damage.iter().any(|damage| damage.object.is_none_or(|object| object == *name));
        match odb.read_object(name) {
            Ok(raw) => {
                assert!(name.is_of(&raw), "{name} is not what its id says");
                assert_eq!(raw.len() as u64, *raw_len);
            }
            Err(error) => assert!(is_named, "{name} can not be read and the check does not name it: {error}"),
        }
    }
    if let Ok(rows) = odb.commits() {
        for id in rows.ids() {
            let _: Result<_, _> = rows.get(&id);
        }
    }
}

/// The merged index, and the same one with its hash made right.
pub fn merged_index(bytes: &[u8]) {
    check_merged_index(bytes);
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    check_merged_index(&sealed);
}

fn check_merged_index(bytes: &[u8]) {
    let from_memory = MergedIndex::load(bytes.to_vec());
    let storage = cached("index", bytes);
    let read = MergedIndex::read(&storage).expect("a file in memory");
    assert_eq!(read.is_ok(), from_memory.is_ok(), "{:?} and {:?}", read.err(), from_memory.err());
    let Ok(index) = read else { return };
    let packs: Vec<(PackId, u64)> = index.packs().collect();
    let rows: Vec<([u8; 32], Row)> = index.rows_from(&[0; 32]).collect();
    assert_eq!(rows.len(), index.num_rows());
    for (id, row) in &rows {
        assert_eq!(index.find(id), Some(*row));
    }
    assert!(MergedIndex::build(&packs, &rows).bytes() == bytes, "an index is written again as it was");
}

/// The commit rows, and the same ones with length and hash made right.
pub fn commit_rows(bytes: &[u8]) {
    check_commit_rows(bytes);
    let mut sealed = bytes.to_vec();
    if let Some(len) = bytes.len().checked_sub(16 + HASH_LEN) {
        sealed[8..16].copy_from_slice(&(len as u64).to_le_bytes());
    }
    seal(&mut sealed);
    check_commit_rows(&sealed);
}

fn check_commit_rows(bytes: &[u8]) {
    let from_memory = CommitCache::load(bytes.to_vec());
    let storage = cached("commits", bytes);
    let read = CommitCache::read(&storage).expect("a file in memory");
    assert_eq!(read.is_ok(), from_memory.is_ok());
    let Ok(cache) = read else { return };
    let rows: Vec<_> = cache.iter().collect();
    for (id, added_len, canonical) in &rows {
        assert_eq!(cache.find(id), Some((*added_len, *canonical)));
    }
    assert!(encode(cache.packs(), &rows) == bytes, "commit rows are written again as they were");
}

/// A metadata block, after the raw length that its row says.
pub fn block(bytes: &[u8]) {
    let Some((raw_len, encoded)) = bytes.split_first_chunk::<4>() else { return };
    let raw_len = u32::from_le_bytes(*raw_len) as usize;
    if let Ok(raw) = gradient_codec::decode_metadata(encoded, raw_len, METADATA_BYTES_MAX) {
        assert_eq!(raw.len(), raw_len);
        let again = gradient_codec::encode_metadata(&raw).expect("memory");
        assert!(gradient_codec::decode_metadata(&again, raw_len, METADATA_BYTES_MAX).expect("just written") == raw);
    }
}

/// Kinds of objects and names of packs.
pub fn names(bytes: &[u8]) {
    if let Some(kind) = bytes.first().and_then(|number| Kind::from_number(*number)) {
        assert_eq!(Some(&kind.number()), bytes.first());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(pack) = PackId::from_file_name(text) {
        assert_eq!(format!("{pack}.pack"), text);
    }
}

fn cached(name: &str, bytes: &[u8]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_folders().expect("folders in memory");
    let key = Key::cache(name).expect("the name of a cache");
    storage.replace(&key, bytes, Durability::Unsynced).expect("a file in memory");
    storage
}

/// Makes the hash at the end right.
fn seal(bytes: &mut [u8]) {
    if let Some((body, end)) = bytes.split_last_chunk_mut::<HASH_LEN>() {
        *end = *blake3::hash(body).as_bytes();
    }
}
