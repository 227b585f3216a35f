//! Merges small packs into one, so that a long run does not end in a hundred thousand files.
//!
//! Entries are copied verbatim, held to their rows and CRCs on the way; trees and commits, held to their ids, go into new
//! blocks; a commit keeps the number of bytes that it added. Of several copies of a chunk the one is kept that needs least
//! to be read: one that stands by itself before a delta. Nothing is taken away here: the caller publishes an
//! operation that condemns the old packs, then [`Odb::retire`]s them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use gradient_object::ChunkId;
use gradient_storage::Key;

use crate::index::Found;
use crate::odb::damage_of;
use crate::pack::blocks::BlockBuilder;
use crate::pack::entry::{EntryHeader, entry_crc};
use crate::pack::tail::{Tail, read_into};
use crate::pack::writer::PackBuilder;
use crate::{Kind, ObjectName, Odb, OdbError, PackId, Progress};

/// The newest small packs are left alone: commits that are being published rely on them.
const NEWEST_SPARED: usize = 16;

/// When packs are merged, and how many.
#[derive(Clone, Copy, Debug)]
pub struct MergeLimits {
    /// A pack shorter than this is small.
    pub small_len: u64,
    /// Merge when there are more small packs than this.
    pub num_small_max: usize,
    /// Merge packs of at most this length in all.
    pub merged_len_max: u64,
}

impl Default for MergeLimits {
    /// 4 MiB, 1,000 packs, 64 MiB.
    fn default() -> Self {
        Self { small_len: 4 << 20, num_small_max: 1000, merged_len_max: 64 << 20 }
    }
}

/// A merge that is durable and not yet published.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The pack that holds everything of the old ones.
    pub new: PackId,
    /// The packs to condemn and then retire, rising.
    pub old: Vec<PackId>,
}

impl Odb {
    /// Returns the number of packs that count as small and are not condemned.
    pub fn num_small_packs(&self, limits: &MergeLimits) -> usize {
        self.small_packs(limits).len()
    }

    fn small_packs(&self, limits: &MergeLimits) -> Vec<(PackId, u64)> {
        let index = self.index();
        let packs = index.packs().into_iter();
        packs.filter(|(pack, len)| *len < limits.small_len && !index.is_excluded(pack)).collect()
    }

    /// Merges the oldest small packs into one when there are too many of them.
    ///
    /// A pack that turns out to be damaged is left out and stays where it is.
    ///
    /// # Errors
    /// [`OdbError::Cancelled`], [`OdbError::Storage`]: nothing has changed.
    pub fn merge_small(&self, limits: &MergeLimits, progress: &Progress) -> Result<Option<Merged>, OdbError> {
        let small = self.small_packs(limits);
        if small.len() <= limits.num_small_max {
            return Ok(None);
        }
        let chosen = choose(self.by_age(small)?, limits);
        let expected_len: u64 = chosen.iter().map(|(_, len)| len).sum();
        let mut merge = Merge::begin(self, expected_len)?;
        // Those that are gone meanwhile, or damaged, are not ours to condemn.
        let old = merge.take_all(&chosen, PackId::key, progress)?;
        if old.len() < 2 {
            return Ok(None);
        }
        let finished = merge.pack.finish(merge.blocks.finish()?)?;
        self.insert_pack(&finished);
        self.move_verified(&old, finished.id, &merge.chunks);
        Ok(Some(Merged { new: finished.id, old: old.into_iter().collect() }))
    }

    /// Moves condemned packs to the trash and forgets them. Packs that are gone already are fine.
    ///
    /// # Errors
    /// [`OdbError::Storage`]: some are still there; call again.
    pub fn retire(&self, packs: &[PackId]) -> Result<(), OdbError> {
        for pack in packs {
            match self.storage.move_to_trash(&pack.key()) {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.forget(packs)
    }

    /// Copies all that packs in the trash hold into one new pack, checked on the way; returns those that were whole, and
    /// can go.
    ///
    /// # Errors
    /// [`OdbError::Storage`]: nothing was written.
    pub fn bring_back(&self, packs: &[PackId]) -> Result<Vec<PackId>, OdbError> {
        let mut merge = Merge::begin(self, 0)?;
        let key_of = |pack: &PackId| Key::trash_pack(pack.as_bytes());
        let mut there = Vec::new();
        for pack in packs {
            match self.storage.len(&key_of(pack)) {
                Ok(len) => there.push((*pack, len)),
                // Somebody else has brought it back.
                Err(error) if error.is_not_found() => {}
                Err(error) => drop(damage_of(*pack, error.into())?),
            }
        }
        let whole = merge.take_all(&there, key_of, &Progress::new())?;
        if !whole.is_empty() {
            let finished = merge.pack.finish(merge.blocks.finish()?)?;
            self.insert_pack(&finished);
        }
        Ok(whole.into_iter().collect())
    }

    /// Returns the objects of a pack in the trash of which no pack that can be relied on holds a good copy: all copies
    /// are read, and hashed. None: the pack is damaged, and it can not be told what it holds.
    ///
    /// # Errors
    /// [`OdbError::Storage`]: also for a pack that is gone.
    pub fn only_in_trash(&self, pack: &PackId) -> Result<Option<Vec<ObjectName>>, OdbError> {
        let key = Key::trash_pack(pack.as_bytes());
        let tail = match Tail::read_from(&*self.storage, &key, *pack, self.storage.len(&key)?) {
            Ok(tail) => tail,
            Err(error) => return damage_of(*pack, error).map(|_| None),
        };
        let mut only = Vec::new();
        let mut metadata: BTreeMap<PackId, Vec<(ObjectName, Found)>> = BTreeMap::new();
        let mut doubtful = Vec::new();
        for row in &tail.index.objects {
            let name = row.name;
            match self.find_to_rely_on(&name)? {
                None => only.push(name),
                Some(found) if name.kind != Kind::Chunk => metadata.entry(found.pack).or_default().push((name, found)),
                Some(found) if self.with_chunk_at(&name, &found, |_| Ok(())).is_ok() => {}
                Some(found) => doubtful.push((name, found)),
            }
        }
        for (pack, objects) in metadata {
            let good = self.good_metadata(pack).unwrap_or_default();
            doubtful.extend(objects.into_iter().filter(|(name, _)| !good.contains(name)));
        }
        for (name, found) in doubtful {
            let is_good = |other: &Found| match name.kind {
                Kind::Chunk => self.with_chunk_at(&name, other, |_| Ok(())).is_ok(),
                Kind::Tree | Kind::Commit => self.good_metadata(other.pack).is_ok_and(|good| good.contains(&name)),
            };
            if self.find_good_copy(&name, &found, is_good).is_none() {
                only.push(name);
            }
        }
        Ok(Some(only))
    }

    /// The trees and commits of a pack that hash to their ids, as they lie on the disk now.
    fn good_metadata(&self, pack: PackId) -> Result<HashSet<ObjectName>, OdbError> {
        let tail = Tail::read(&*self.storage, pack, self.storage.len(&pack.key())?)?;
        let mut good = HashSet::new();
        tail.for_each_metadata(
            &*self.storage,
            |kind| kind != Kind::Chunk,
            |row, raw| {
                if row.name.is_of(raw) {
                    good.insert(row.name);
                }
                Ok(())
            },
        )?;
        Ok(good)
    }

    /// Sorts packs by the time of their oldest commit; packs without one come first.
    fn by_age(&self, packs: Vec<(PackId, u64)>) -> Result<Vec<(PackId, u64)>, OdbError> {
        let rows = self.commits()?;
        let mut ages: HashMap<PackId, Option<i64>> = packs.iter().map(|(pack, _)| (*pack, None)).collect();
        for id in rows.ids() {
            let Some(pack) = self.find_pack(&id.into()) else { continue };
            let Some(age) = ages.get_mut(&pack) else { continue };
            let Some(commit) = rows.get(&id)? else { continue };
            *age = Some(age.map_or(commit.time_ns, |known| known.min(commit.time_ns)));
        }
        let mut packs = packs;
        packs.sort_by_key(|(pack, _)| (ages.get(pack).copied().flatten(), *pack));
        Ok(packs)
    }
}

/// Takes packs from the oldest on, as long as they fit, and spares the newest.
fn choose(by_age: Vec<(PackId, u64)>, limits: &MergeLimits) -> Vec<(PackId, u64)> {
    let num_old = by_age.len().saturating_sub(NEWEST_SPARED);
    let mut total = 0;
    let fits = |(_, len): &(PackId, u64)| {
        total += len;
        total <= limits.merged_len_max
    };
    by_age.into_iter().take(num_old).take_while(fits).collect()
}

/// A merged pack in the making.
struct Merge<'a> {
    odb: &'a Odb,
    pack: PackBuilder<'a>,
    blocks: BlockBuilder,
    /// Those that were copied, and from where.
    chunks: HashMap<ObjectName, PackId>,
    entry: Vec<u8>,
    /// Of each chunk the pack with the copy to keep, and what that is coded against.
    best: HashMap<ObjectName, (PackId, Vec<ChunkId>)>,
}

impl<'a> Merge<'a> {
    fn begin(odb: &'a Odb, expected_len: u64) -> Result<Self, OdbError> {
        Ok(Self {
            odb,
            pack: PackBuilder::create(&*odb.storage, expected_len)?,
            blocks: BlockBuilder::default(),
            chunks: HashMap::new(),
            entry: Vec::new(),
            best: HashMap::new(),
        })
    }

    /// Copies everything of packs; returns those of which all was there and good. What was copied of others does no harm.
    fn take_all(
        &mut self,
        packs: &[(PackId, u64)],
        key_of: impl Fn(&PackId) -> Key,
        progress: &Progress,
    ) -> Result<BTreeSet<PackId>, OdbError> {
        for (pack, len) in packs {
            progress.check()?;
            // What is wrong with it is seen when it is taken.
            if let Ok(tail) = Tail::read_from(&*self.odb.storage, &key_of(pack), *pack, *len) {
                self.compare_copies(&tail);
            }
        }
        let mut whole = BTreeSet::new();
        for (pack, len) in packs {
            progress.check()?;
            if self.is_taken(&key_of(pack), *pack, *len)? {
                whole.insert(*pack);
            }
            progress.advance(*len);
        }
        if whole.len() < packs.len() {
            // The copy that was to be kept may have been in one that is not whole: any other one will do.
            self.best.clear();
            for (pack, len) in packs.iter().filter(|(pack, _)| whole.contains(pack)).copied().collect::<Vec<_>>() {
                if !self.is_taken(&key_of(&pack), pack, len)? {
                    whole.remove(&pack);
                }
            }
        }
        Ok(whole)
    }

    /// Copies a pack; false if it is gone or damaged.
    fn is_taken(&mut self, key: &Key, pack: PackId, len: u64) -> Result<bool, OdbError> {
        match self.take(key, pack, len) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing_file() => Ok(false),
            Err(error) => damage_of(pack, error).map(|_| false),
        }
    }

    /// Looks at a pack for better copies than those of the packs before it.
    fn compare_copies(&mut self, tail: &Tail) {
        for (row, bases) in tail.index.chunks() {
            let copy = || (tail.pack, bases.to_vec());
            let (best, of_best) = self.best.entry(row.name).or_insert_with(copy);
            let is_better = match (bases, &of_best[..]) {
                (_, []) => false,
                ([], _) => true,
                _ => *best != tail.pack && self.odb.num_links(bases) < self.odb.num_links(of_best),
            };
            if is_better {
                (*best, *of_best) = copy();
            }
        }
    }

    /// Copies everything of the pack under a key that is not there yet, but no copy where another one is better.
    fn take(&mut self, key: &Key, pack: PackId, len: u64) -> Result<(), OdbError> {
        let storage = &*self.odb.storage;
        let tail = Tail::read_from(storage, key, pack, len)?;
        let mut chunks: Vec<_> = tail.index.chunks().collect();
        chunks.sort_unstable_by_key(|(row, _)| row.offset);
        for (row, bases) in chunks {
            let is_other_better = self.best.get(&row.name).is_some_and(|(best, _)| *best != pack);
            if is_other_better || self.chunks.contains_key(&row.name) {
                continue;
            }
            self.entry.resize(row.entry_len() as usize, 0);
            read_into(storage, key, pack, row.offset, &mut self.entry)?;
            let bad = |what: &str| OdbError::ObjectDamaged {
                object: row.name,
                pack,
                offset: row.offset,
                what: what.to_owned(),
            };
            let header = EntryHeader::decode(&self.entry).map_err(bad)?;
            let (head, payload) = self.entry.split_at(header.header_len);
            if ObjectName::from(header.id) != row.name || header.crc != row.crc || header.bases != bases {
                return Err(bad("its header says something else than its row"));
            }
            if entry_crc(head, payload) != header.crc {
                return Err(bad("its CRC is wrong"));
            }
            self.pack.append_verbatim(row, bases, &self.entry)?;
            self.chunks.insert(row.name, pack);
        }
        let added: BTreeMap<[u8; 32], u64> =
            tail.index.commits().map(|(row, added_len)| (row.name.id, added_len)).collect();
        tail.for_each_metadata(
            storage,
            |kind| kind != Kind::Chunk,
            |row, raw| {
                if !row.name.is_of(raw) {
                    return Err(OdbError::ObjectDamaged {
                        object: row.name,
                        pack,
                        offset: row.offset,
                        what: "its bytes do not hash to its id".to_owned(),
                    });
                }
                // A commit's length; other objects have none.
                let added_len = added.get(&row.name.id).copied();
                self.blocks.add(row.name, raw, added_len)
            },
        )
    }
}
