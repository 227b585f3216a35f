//! The commit rows (`cache/commits`): every commit with the bytes it added, in one read.
//!
//! An envelope (magic `GRCC`) around: number of packs, pack ids rising, number of commits, then for each commit, rising
//! by id: id (32), bytes added (8), length (4), canonical bytes. Loading looks at the heads only; a commit is decoded
//! when it is asked for.

use std::ops::Range;

use gradient_object::{CommitId, METADATA_BYTES_MAX};
use gradient_storage::{Key, Storage, StorageError};

use crate::PackId;
use crate::pack::{VERSION, field, u32_at, u64_at};

/// Longest file that is written or loaded: some hundred thousand commits. Without it `log` reads them from their packs.
pub(crate) const COMMITS_CACHE_BYTES_MAX: u64 = 128 << 20;

const MAGIC: [u8; 4] = *b"GRCC";
const ENVELOPE_HEADER_LEN: usize = 16;
const HASH_LEN: usize = 32;
const HEAD_LEN: usize = 44;
const NO_ROWS: &str = "no commit rows";

/// A loaded file.
#[derive(Debug)]
pub(crate) struct CommitCache {
    bytes: Vec<u8>,
    packs: Vec<PackId>,
    heads: Vec<Head>,
    /// For each first byte of an id, how many heads begin with a smaller one.
    fan: Vec<usize>,
}

#[derive(Debug)]
struct Head {
    id: CommitId,
    added_len: u64,
    range: Range<usize>,
}

impl CommitCache {
    /// Reads `cache/commits`.
    ///
    /// # Errors
    /// Of the storage; inside, what is wrong with the file.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Result<Self, &'static str>, StorageError> {
        let key = Key::cache("commits")?;
        let len = storage.len(&key)?;
        if len > COMMITS_CACHE_BYTES_MAX {
            return Ok(Err("it is too large"));
        }
        let mut head = [0; ENVELOPE_HEADER_LEN];
        if len < ENVELOPE_HEADER_LEN as u64 {
            return Ok(Err(NO_ROWS));
        }
        // Before the rest is allocated.
        storage.read_at(&key, 0, &mut head)?;
        if head[..4] != MAGIC {
            return Ok(Err(NO_ROWS));
        }
        match storage.read(&key, COMMITS_CACHE_BYTES_MAX) {
            Ok(bytes) => Ok(Self::load(bytes)),
            Err(StorageError::TooLarge { .. }) => Ok(Err("it is too large")),
            Err(error) => Err(error),
        }
    }

    /// Takes the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn load(bytes: Vec<u8>) -> Result<Self, &'static str> {
        let end = check_envelope(&bytes)?;
        let cut = "the commit rows are cut short";
        let mut at = ENVELOPE_HEADER_LEN;
        let mut take = |len: usize| {
            let start = at;
            at = at.checked_add(len).filter(|after| *after <= end)?;
            Some(start)
        };
        let num_packs = u32_at(&bytes, take(4).ok_or(cut)?) as usize;
        let packs_at = take(num_packs * PackId::LEN).ok_or(cut)?;
        let packs: Vec<PackId> = bytes[packs_at..packs_at + num_packs * PackId::LEN]
            .chunks_exact(PackId::LEN)
            .map(|id| PackId::from_bytes(field(id, 0)))
            .collect();
        let num_commits = u32_at(&bytes, take(4).ok_or(cut)?) as usize;
        if num_commits > bytes.len() / HEAD_LEN {
            return Err(cut);
        }
        let mut heads: Vec<Head> = Vec::with_capacity(num_commits);
        for _ in 0..num_commits {
            let head = take(HEAD_LEN).ok_or(cut)?;
            let len = u32_at(&bytes, head + 40) as usize;
            let start = take(len).ok_or(cut)?;
            let id = CommitId::from_bytes(field(&bytes, head));
            if heads.last().is_some_and(|last| last.id >= id) || len > METADATA_BYTES_MAX {
                return Err("the commit rows do not rise");
            }
            heads.push(Head { id, added_len: u64_at(&bytes, head + 32), range: start..start + len });
        }
        if at != end || !packs.is_sorted_by(|a, b| a < b) {
            return Err("the commit rows hold something else");
        }
        let fan = (0..=256).map(|first| heads.partition_point(|head| usize::from(head.id.as_bytes()[0]) < first));
        Ok(Self { bytes, packs, fan: fan.collect(), heads })
    }

    /// Packs whose commits are in it.
    pub(crate) fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// Finds a commit: the bytes it added, its canonical bytes.
    pub(crate) fn find(&self, id: &CommitId) -> Option<(u64, &[u8])> {
        let first = usize::from(id.as_bytes()[0]);
        let heads = &self.heads[self.fan[first]..self.fan[first + 1]];
        let head = &heads[heads.binary_search_by(|head| head.id.cmp(id)).ok()?];
        Some((head.added_len, &self.bytes[head.range.clone()]))
    }

    /// Yields all commits, rising by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CommitId, u64, &[u8])> {
        let heads = self.heads.iter();
        heads.map(|head| (head.id, head.added_len, &self.bytes[head.range.clone()]))
    }
}

/// Returns the file of these packs and commits, both rising.
pub(crate) fn encode(packs: &[PackId], commits: &[(CommitId, u64, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    for pack in packs {
        bytes.extend_from_slice(pack.as_bytes());
    }
    bytes.extend_from_slice(&(commits.len() as u32).to_le_bytes());
    for (id, added_len, canonical) in commits {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&added_len.to_le_bytes());
        bytes.extend_from_slice(&(canonical.len() as u32).to_le_bytes());
        bytes.extend_from_slice(canonical);
    }
    let payload_len = (bytes.len() - ENVELOPE_HEADER_LEN) as u64;
    bytes[8..16].copy_from_slice(&payload_len.to_le_bytes());
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// Checks the frame; returns where the payload ends.
fn check_envelope(bytes: &[u8]) -> Result<usize, &'static str> {
    if bytes.len() < ENVELOPE_HEADER_LEN + HASH_LEN || bytes[..4] != MAGIC {
        return Err(NO_ROWS);
    }
    if u32_at(bytes, 4) != VERSION {
        return Err("commit rows of another version");
    }
    let end = bytes.len() - HASH_LEN;
    if u64_at(bytes, 8) != (end - ENVELOPE_HEADER_LEN) as u64 {
        return Err("commit rows of another length than they say");
    }
    if blake3::hash(&bytes[..end]).as_bytes()[..] != bytes[end..] {
        return Err("commit rows that do not hash to what they say");
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_rows_come_back_and_every_flipped_bit_is_refused() {
        let mut ids = [CommitId::of(b"a"), CommitId::of(b"b")];
        ids.sort();
        let packs = [PackId::from_bytes([3; 16])];
        let whole = encode(&packs, &[(ids[0], 7, b"first"), (ids[1], 9, b"second")]);
        let cache = CommitCache::load(whole.clone()).expect("was just written");
        assert_eq!(cache.packs(), packs);
        assert_eq!(cache.find(&ids[1]), Some((9, &b"second"[..])));
        assert_eq!(cache.find(&CommitId::of(b"c")), None);
        assert_eq!(cache.iter().count(), 2);
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            assert!(CommitCache::load(flipped).is_err(), "byte {at}");
            assert!(CommitCache::load(whole[..at].to_vec()).is_err(), "cut at {at}");
        }
    }
}
