//! Merges small packs into one, so that a long run does not end in a hundred thousand files.
//!
//! Entries are copied verbatim, held to their rows and CRCs on the way; trees and commits, held to their ids, go into new
//! blocks; a commit keeps the number of bytes that it added. Nothing is taken away here: the caller publishes an
//! operation that condemns the old packs, then [`Odb::retire`]s them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
        let mut merge = Merge {
            odb: self,
            pack: PackBuilder::create(&*self.storage, expected_len)?,
            blocks: BlockBuilder::default(),
            chunks: HashSet::new(),
            entry: Vec::new(),
        };
        let mut old = BTreeSet::new();
        for (pack, len) in chosen {
            progress.check()?;
            match merge.take(pack, len) {
                Ok(()) => drop(old.insert(pack)),
                // Gone meanwhile, or damaged: not ours to condemn. What was copied of it does no harm.
                Err(error) if error.is_missing_file() => {}
                Err(error) => drop(damage_of(pack, error)?),
            }
            progress.advance(len);
        }
        if old.len() < 2 {
            return Ok(None);
        }
        let finished = merge.pack.finish(merge.blocks.finish()?)?;
        self.insert_pack(&finished);
        self.move_verified(&old, finished.id);
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
    chunks: HashSet<ObjectName>,
    entry: Vec<u8>,
}

impl Merge<'_> {
    /// Copies everything of a pack that is not there yet.
    fn take(&mut self, pack: PackId, len: u64) -> Result<(), OdbError> {
        let storage = &*self.odb.storage;
        let tail = Tail::read(storage, pack, len)?;
        let mut chunks: Vec<_> = tail.index.chunks().collect();
        chunks.sort_unstable_by_key(|(row, _)| row.offset);
        for (row, bases) in chunks {
            if self.chunks.contains(&row.name) {
                continue;
            }
            self.entry.resize(row.entry_len() as usize, 0);
            read_into(storage, pack, row.offset, &mut self.entry)?;
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
            self.chunks.insert(row.name);
        }
        let added: BTreeMap<[u8; 32], u64> =
            tail.index.commits().map(|(row, added_len)| (row.name.id, added_len)).collect();
        tail.for_each_metadata(
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
