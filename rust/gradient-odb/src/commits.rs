//! Every commit of a repository, for `log`: from `cache/commits`, and from the tails of packs that it does not cover.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use gradient_object::{Commit, CommitId};
use gradient_storage::Storage;

use crate::cache::commits::{COMMITS_CACHE_BYTES_MAX, CommitCache, encode};
use crate::odb::{LOOKS_MAX, lock};
use crate::pack::index::BlockRow;
use crate::pack::tail::{Tail, read_all};
use crate::{Kind, Odb, OdbError, PackId};

/// Tails that lie in memory together, with their blocks.
const TAILS_AT_ONCE: usize = 64;

/// All commits of a repository at one moment. A commit is decoded when it is asked for.
#[derive(Clone, Debug, Default)]
pub struct CommitRows {
    cache: Option<Arc<CommitCache>>,
    /// Commits of the cache that no pack holds any more.
    hidden: HashSet<CommitId>,
    recent: BTreeMap<CommitId, (u64, Arc<[u8]>)>,
    packs: BTreeSet<PackId>,
    /// Damaged packs whose commits were found by walking them. They are in no cache.
    walked: BTreeSet<PackId>,
    volume: Volume,
}

/// How much was decoded for the commits, and from how much.
#[derive(Clone, Copy, Debug, Default)]
struct Volume {
    raw_len: u64,
    encoded_len: u64,
}

impl Volume {
    /// So much is taken whatever it was decoded from.
    const RAW_LEN_FREE: u64 = 128 << 20;
    /// Ids and numbers are half of a commit, and do not compress.
    const RATIO_MAX: u64 = 16;

    /// Counts a block before it is decoded.
    ///
    /// # Errors
    /// [`OdbError::TooLarge`]: blocks that hold far more than commits could be pressed into.
    fn add(&mut self, block: &BlockRow) -> Result<(), OdbError> {
        self.raw_len += u64::from(block.raw_len);
        self.encoded_len += u64::from(block.encoded_len);
        let max = Self::RAW_LEN_FREE.max(self.encoded_len * Self::RATIO_MAX);
        if self.raw_len > max {
            return Err(OdbError::TooLarge { what: "raw length of the blocks of commits", actual: self.raw_len, max });
        }
        Ok(())
    }
}

impl CommitRows {
    fn of(cache: CommitCache) -> Self {
        Self { packs: cache.packs().iter().copied().collect(), cache: Some(Arc::new(cache)), ..Self::default() }
    }

    /// Returns the number of commits.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Yields the ids of all commits, in no order that means anything.
    pub fn ids(&self) -> impl Iterator<Item = CommitId> {
        self.iter().map(|(id, _, _)| id)
    }

    /// Says whether the commit is there.
    pub fn contains(&self, id: &CommitId) -> bool {
        self.find(id).is_some()
    }

    /// Returns how many bytes the commit added to the repository when it was written.
    pub fn added_len(&self, id: &CommitId) -> Option<u64> {
        self.find(id).map(|(added_len, _)| added_len)
    }

    /// Decodes the commit; none if it is not there, or if what the cache holds in its place does not hash to its id.
    ///
    /// # Errors
    /// [`OdbError::Object`]: it is no commit, though the checksum around it is right.
    pub fn get(&self, id: &CommitId) -> Result<Option<Commit>, OdbError> {
        // The checksum around the cache is anybody's to make.
        let found = self.find(id).filter(|(_, canonical)| CommitId::of(canonical) == *id);
        Ok(found.map(|(_, canonical)| Commit::decode_trusted(canonical)).transpose()?)
    }

    fn find(&self, id: &CommitId) -> Option<(u64, &[u8])> {
        if let Some((added_len, canonical)) = self.recent.get(id) {
            return Some((*added_len, canonical));
        }
        let cached = self.cache.as_ref()?.find(id);
        cached.filter(|_| !self.hidden.contains(id))
    }

    fn iter(&self) -> impl Iterator<Item = (CommitId, u64, &[u8])> {
        let cached = self.cache.iter().flat_map(|cache| cache.iter());
        let recent = self.recent.iter();
        cached
            .filter(|(id, _, _)| !self.hidden.contains(id) && !self.recent.contains_key(id))
            .chain(recent.map(|(id, (added_len, canonical))| (*id, *added_len, &canonical[..])))
    }

    /// Adds the commits of a pack. The first pack that brought a commit says what it added; where two do, the smaller
    /// number is taken, so that the order in which packs are read does not matter.
    fn add(&mut self, storage: &dyn Storage, tail: &Tail) -> Result<(), OdbError> {
        let numbers: BTreeSet<u32> = tail.index.commits().map(|(row, _)| row.block).collect();
        for number in numbers {
            self.volume.add(&tail.index.blocks[number as usize])?;
        }
        let added: BTreeMap<_, _> = tail.index.commits().map(|(row, added_len)| (row.name.id, added_len)).collect();
        tail.for_each_metadata(
            storage,
            |kind| kind == Kind::Commit,
            |row, canonical| {
                let id = CommitId::from_bytes(row.name.id);
                let mut added_len = added.get(&row.name.id).copied().unwrap_or_default();
                if let Some((known, _)) = self.find(&id) {
                    added_len = added_len.min(known);
                }
                if CommitId::of(canonical) == id {
                    self.recent.insert(id, (added_len, canonical.into()));
                }
                Ok(())
            },
        )?;
        self.packs.insert(tail.pack);
        Ok(())
    }
}

impl Odb {
    /// Returns every commit of the intact packs.
    ///
    /// The first call loads `cache/commits`; each reads the tails of packs that came since. A commit that is damaged in
    /// its pack is left out.
    ///
    /// # Errors
    /// [`OdbError::Storage`].
    pub fn commits(&self) -> Result<Arc<CommitRows>, OdbError> {
        let mut kept = lock(&self.commit_rows);
        let mut rows = kept.take().unwrap_or_else(|| Arc::new(self.load_commits()));
        // What a pack held that has gone lies in one that came since: look again.
        for _ in 0..LOOKS_MAX {
            if self.bring_up_to_date(&mut rows)? {
                break;
            }
            self.refresh()?;
        }
        *kept = Some(Arc::clone(&rows));
        Ok(rows)
    }

    /// Takes in what the index knows; says whether every pack that it names was there.
    fn bring_up_to_date(&self, rows: &mut Arc<CommitRows>) -> Result<bool, OdbError> {
        let packs = self.index().packs();
        let walked: BTreeSet<PackId> = self.index().walked_packs().collect();
        let is_gone =
            rows.packs.iter().any(|pack| !self.index().contains_pack(pack)) || !rows.walked.is_subset(&walked);
        let new: Vec<_> = packs.into_iter().filter(|(pack, _)| !rows.packs.contains(pack)).collect();
        let mut is_whole = true;
        if is_gone || !new.is_empty() || rows.walked != walked {
            let mut changed = (**rows).clone();
            let tails = new.chunks(TAILS_AT_ONCE).flat_map(|some| read_all(&*self.storage, some, true));
            for (pack, _, tail) in tails {
                let added = tail.and_then(|tail| changed.add(&*self.storage, &tail));
                match added {
                    Ok(()) => {}
                    Err(error) if error.is_missing_file() => is_whole = false,
                    // Whoever looks for what a damaged pack held hears of it.
                    Err(error) => drop(crate::odb::damage_of(pack, error)?),
                }
            }
            if is_gone {
                self.drop_lost_commits(&mut changed);
            }
            for pack in walked.difference(&rows.walked) {
                self.add_walked(&mut changed, pack);
            }
            changed.walked = walked;
            *rows = Arc::new(changed);
        }
        Ok(is_whole)
    }

    /// Returns the file `cache/commits`, and keeps the commits as it holds them: what comes next is found in one place.
    /// None if it would be longer than a reader takes.
    pub(crate) fn encode_commits(&self) -> Result<Option<Vec<u8>>, OdbError> {
        let rows = self.commits()?;
        if rows.iter().map(|(_, _, canonical)| canonical.len() as u64).sum::<u64>() > COMMITS_CACHE_BYTES_MAX {
            return Ok(None);
        }
        let packs: Vec<PackId> = rows.packs.iter().copied().collect();
        let mut commits: Vec<_> = rows.iter().collect();
        if !rows.walked.is_empty() {
            let index = self.index();
            commits.retain(|(id, _, _)| index.is_in_intact_pack(&(*id).into()));
        }
        commits.sort_unstable_by_key(|(id, _, _)| *id);
        let bytes = encode(&packs, &commits);
        if bytes.len() as u64 > COMMITS_CACHE_BYTES_MAX {
            return Ok(None);
        }
        let mut kept = lock(&self.commit_rows);
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &rows)) {
            *kept = CommitCache::load(bytes.clone()).ok().map(|cache| Arc::new(CommitRows::of(cache)));
        }
        Ok(Some(bytes))
    }

    /// Adds the commits that are left in a damaged pack, as far as they can be read. What each added is not known; it
    /// was no more than the pack.
    fn add_walked(&self, rows: &mut CommitRows, pack: &PackId) {
        let objects = self.index().walked_objects(pack);
        for (name, found) in objects {
            let id = CommitId::from_bytes(name.id);
            if name.kind == Kind::Commit
                && rows.find(&id).is_none()
                && let Ok(canonical) = self.read_found(&name, &found)
            {
                rows.recent.insert(id, (found.pack_len, canonical.into()));
            }
        }
    }

    fn load_commits(&self) -> CommitRows {
        let cache = CommitCache::read(&*self.storage).ok().and_then(Result::ok);
        cache.map_or_else(CommitRows::default, CommitRows::of)
    }

    /// Packs are gone: leaves out the commits that no other pack holds.
    fn drop_lost_commits(&self, rows: &mut CommitRows) {
        let index = self.index();
        rows.packs.retain(|pack| index.contains_pack(pack));
        let is_lost = |id: &CommitId| index.find(&(*id).into()).is_none();
        rows.recent.retain(|id, _| !is_lost(id));
        let cached = rows.cache.iter().flat_map(|cache| cache.iter());
        rows.hidden = cached.map(|(id, _, _)| id).filter(is_lost).collect();
    }
}
