//! The index in memory: where each object of the repository lies.
//!
//! Sorted rows of most packs ([`MergedIndex`], often straight from `cache/index`), and a map of what came since. The map
//! wins, so that what was written again because it was damaged is found in its new pack. Rows say where an object
//! *should* lie; whoever reads it checks.
//!
//! What was found in a damaged pack by walking it stands apart: readers are led to it when no intact pack has the object,
//! writers never.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::cache::merged::MergedIndex;
use crate::pack::index::{BlockRow, ObjectRow};
use crate::pack::tail::Tail;
use crate::pack::walk::Walked;
use crate::{Damage, Kind, ObjectName, PackId};

/// The map is folded into the sorted rows when it has more rows than this, and an eighth of theirs.
const RECENT_ROWS_MAX: usize = 1 << 16;

/// Where an object lies, as rows of the merged index say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Chunk: of the entry in the file. Tree, commit: in the decoded block.
    pub(crate) offset: u64,
    pub(crate) raw_len: u32,
    /// Chunk: encoded length. Tree, commit: number of the block.
    pub(crate) extent: u32,
    /// Position of the pack among the packs.
    pub(crate) pack: u32,
    pub(crate) header_len: u16,
    pub(crate) kind: Kind,
    pub(crate) num_bases: u8,
}

impl Row {
    fn of(row: &ObjectRow, pack: u32) -> Self {
        let extent = match row.name.kind {
            Kind::Chunk => row.encoded_len,
            Kind::Tree | Kind::Commit => row.block,
        };
        Self {
            offset: row.offset,
            raw_len: row.raw_len,
            extent,
            pack,
            header_len: row.header_len,
            kind: row.name.kind,
            num_bases: row.num_bases,
        }
    }
}

impl Row {
    /// Says whether two rows of one object and one pack name the same place in it.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        Self { pack: other.pack, ..*self } == *other
    }
}

/// An object that was found, and the pack it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pack: PackId,
    /// Length of the pack's file.
    pub(crate) pack_len: u64,
    pub(crate) row: Row,
}

impl Found {
    /// Where `row`, of the tail of `pack`, lies.
    pub(crate) fn in_tail(tail: &Tail, row: &ObjectRow) -> Self {
        Self { pack: tail.pack, pack_len: tail.footer.file_len, row: Row::of(row, 0) }
    }
}

/// A pack whose rows are in the index.
#[derive(Clone, Copy, Debug)]
struct Slot {
    pack: PackId,
    len: u64,
    is_there: bool,
}

/// What is left of a damaged pack.
#[derive(Debug)]
struct WalkedPack {
    len: u64,
    rows: HashMap<ObjectName, Row>,
    blocks: Arc<[BlockRow]>,
}

/// Where every object lies.
#[derive(Debug)]
pub(crate) struct Index {
    base: MergedIndex,
    /// First the packs of `base` in its order, then those whose rows are in `recent`.
    slots: Vec<Slot>,
    num_base_slots: usize,
    numbers: HashMap<PackId, u32>,
    recent: HashMap<[u8; 32], Row>,
    damaged: BTreeMap<PackId, (u64, Damage)>,
    /// Those of the damaged packs that could be walked.
    walked: BTreeMap<PackId, WalkedPack>,
    /// Packs that only the cache speaks for: this process has not looked at them yet.
    unchecked: HashSet<PackId>,
    /// Packs that are to be read again.
    doubted: HashSet<PackId>,
    excluded: HashSet<PackId>,
    /// Rises with every change; tells a reader whether to look again.
    pub(crate) generation: u64,
}

impl Index {
    /// An index over the packs of `base`.
    pub(crate) fn new(base: MergedIndex) -> Self {
        let slots: Vec<Slot> = base.packs().map(|(pack, len)| Slot { pack, len, is_there: true }).collect();
        let numbers = slots.iter().zip(0..);
        Self {
            numbers: numbers.map(|(slot, number)| (slot.pack, number)).collect(),
            num_base_slots: slots.len(),
            slots,
            base,
            recent: HashMap::new(),
            damaged: BTreeMap::new(),
            walked: BTreeMap::new(),
            unchecked: HashSet::new(),
            doubted: HashSet::new(),
            excluded: HashSet::new(),
            generation: 0,
        }
    }

    /// Finds an object for a reader.
    pub(crate) fn find(&self, name: &ObjectName) -> Option<Found> {
        self.find_where(name, |_| true).or_else(|| self.find_walked(name).next())
    }

    /// Finds what was left of an object in damaged packs.
    pub(crate) fn find_walked(&self, name: &ObjectName) -> impl Iterator<Item = Found> {
        let packs = self.walked.iter();
        packs.filter_map(|(pack, walked)| {
            let row = walked.rows.get(name)?;
            Some(Found { pack: *pack, pack_len: walked.len, row: *row })
        })
    }

    /// Says whether an intact pack holds the object.
    pub(crate) fn is_in_intact_pack(&self, name: &ObjectName) -> bool {
        self.find_where(name, |_| true).is_some()
    }

    /// Finds an object that a new commit may rely on: in no condemned pack.
    pub(crate) fn find_to_rely_on(&self, name: &ObjectName) -> Option<Found> {
        self.find_where(name, |pack| !self.excluded.contains(pack))
    }

    fn find_where(&self, name: &ObjectName, is_wanted: impl Fn(&PackId) -> bool) -> Option<Found> {
        let check = |row: &Row| {
            let slot = self.slots.get(row.pack as usize)?;
            let fits = row.kind == name.kind && slot.is_there && is_wanted(&slot.pack);
            fits.then_some(Found { pack: slot.pack, pack_len: slot.len, row: *row })
        };
        let recent = self.recent.get(&name.id).and_then(check);
        recent.or_else(|| self.base.find(&name.id).as_ref().and_then(check))
    }

    /// Adds the rows of a pack. They win over what was known of the same objects, but a delta does not over a chunk that
    /// stands by itself.
    pub(crate) fn insert(&mut self, pack: PackId, len: u64, rows: &[ObjectRow]) {
        if self.contains_pack(&pack) {
            return; // A reader that listed the folder was faster than the writer of the pack.
        }
        let number = self.slots.len() as u32;
        self.slots.push(Slot { pack, len, is_there: true });
        self.numbers.insert(pack, number);
        self.damaged.remove(&pack);
        self.walked.remove(&pack);
        self.recent.reserve(rows.len());
        for row in rows {
            if row.num_bases > 0 && self.find_to_rely_on(&row.name).is_some_and(|found| found.row.num_bases == 0) {
                continue;
            }
            self.recent.insert(row.name.id, Row::of(row, number));
        }
        self.generation += 1;
        if self.recent.len() > RECENT_ROWS_MAX.max(self.base.num_rows() / 8) {
            self.fold();
        }
    }

    /// Names another place of an object, which was read and found good.
    pub(crate) fn prefer(&mut self, name: &ObjectName, found: &Found) {
        if let Some(number) = self.numbers.get(&found.pack) {
            self.recent.insert(name.id, Row { pack: *number, ..found.row });
        }
    }

    /// Remembers a pack that can not be opened, and what a walk found in it. None: what an earlier one found stands.
    pub(crate) fn insert_damaged(&mut self, pack: PackId, len: u64, damage: Damage, walked: Option<Walked>) {
        self.damaged.insert(pack, (len, damage));
        if let Some(Walked { objects, blocks }) = walked {
            let rows = objects.iter().map(|row| (row.name, Row::of(row, 0))).collect();
            self.walked.insert(pack, WalkedPack { len, rows, blocks: blocks.into() });
        }
        self.generation += 1;
    }

    /// Forgets packs. Rows of other packs that their rows stood in for are not found again by themselves: see
    /// [`has_lost_rows`](Self::has_lost_rows).
    pub(crate) fn remove(&mut self, gone: &[PackId]) {
        for pack in gone {
            self.damaged.remove(pack);
            self.walked.remove(pack);
            self.unchecked.remove(pack);
            self.doubted.remove(pack);
            if let Some(number) = self.numbers.remove(pack)
                && let Some(slot) = self.slots.get_mut(number as usize)
            {
                slot.is_there = false;
            }
        }
        self.generation += 1;
    }

    /// Says whether a row names a pack that is gone and nothing newer stands in for it; another pack may hold the
    /// object, and only the packs themselves can tell.
    pub(crate) fn has_lost_rows(&self) -> bool {
        let is_lost = |row: &Row| {
            let slot = self.slots.get(row.pack as usize);
            slot.is_none_or(|slot| !slot.is_there)
        };
        if self.slots.iter().all(|slot| slot.is_there) {
            return false;
        }
        let mut base = self.base.rows_from(&[0; 32]);
        self.recent.values().any(is_lost) || base.any(|(id, row)| is_lost(&row) && !self.recent.contains_key(&id))
    }

    /// Packs that are there and intact, with their lengths, rising.
    pub(crate) fn packs(&self) -> Vec<(PackId, u64)> {
        let there = self.slots.iter().filter(|slot| slot.is_there);
        let mut packs: Vec<_> = there.map(|slot| (slot.pack, slot.len)).collect();
        packs.sort_unstable();
        packs
    }

    /// Says whether the pack is there and intact.
    pub(crate) fn contains_pack(&self, pack: &PackId) -> bool {
        self.numbers.contains_key(pack)
    }

    /// What is known of a pack: its length, and whether it is intact.
    pub(crate) fn known(&self, pack: &PackId) -> Option<(u64, bool)> {
        let slot = self.numbers.get(pack).map(|number| self.slots[*number as usize]);
        slot.map(|slot| (slot.len, true)).or_else(|| self.damaged.get(pack).map(|(len, _)| (*len, false)))
    }

    /// Packs that are there, intact or not.
    pub(crate) fn all_packs(&self) -> Vec<PackId> {
        let intact = self.packs().into_iter().map(|(pack, _)| pack);
        intact.chain(self.damaged.keys().copied()).collect()
    }

    /// Packs that can not be opened, with their lengths.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = (u64, &Damage)> {
        self.damaged.values().map(|(len, damage)| (*len, damage))
    }

    /// Says whether a damaged pack of this length was walked.
    pub(crate) fn is_walked(&self, pack: &PackId, len: u64) -> bool {
        self.walked.get(pack).is_some_and(|walked| walked.len == len)
    }

    /// Damaged packs that were walked, rising.
    pub(crate) fn walked_packs(&self) -> impl Iterator<Item = PackId> {
        self.walked.keys().copied()
    }

    /// What a walk found in a damaged pack, rising.
    pub(crate) fn walked_objects(&self, pack: &PackId) -> Vec<(ObjectName, Found)> {
        let Some(walked) = self.walked.get(pack) else { return Vec::new() };
        let found = |row: &Row| Found { pack: *pack, pack_len: walked.len, row: *row };
        let mut objects: Vec<_> = walked.rows.iter().map(|(name, row)| (*name, found(row))).collect();
        objects.sort_unstable_by_key(|(name, _)| *name);
        objects
    }

    /// Where the blocks of a damaged pack lie.
    pub(crate) fn walked_blocks(&self, pack: &PackId) -> Option<Arc<[BlockRow]>> {
        self.walked.get(pack).map(|walked| Arc::clone(&walked.blocks))
    }

    /// Nobody in this process has looked at the packs yet: a cache names them.
    pub(crate) fn mark_unchecked(&mut self) {
        self.unchecked = self.numbers.keys().copied().collect();
    }

    /// Says whether only a cache speaks for the pack.
    pub(crate) fn is_unchecked(&self, pack: &PackId) -> bool {
        self.unchecked.contains(pack)
    }

    /// The pack was looked at and is intact.
    pub(crate) fn mark_checked(&mut self, pack: &PackId) {
        self.unchecked.remove(pack);
    }

    /// Has a pack read again with the next listing.
    pub(crate) fn doubt(&mut self, pack: PackId) {
        self.doubted.insert(pack);
    }

    /// Says whether a pack is to be read again.
    pub(crate) fn is_doubted(&self, pack: &PackId) -> bool {
        self.doubted.contains(pack)
    }

    /// Takes condemned packs out of what writers may rely on.
    pub(crate) fn exclude(&mut self, packs: &[PackId]) {
        self.excluded.extend(packs);
    }

    /// Says whether a pack is condemned.
    pub(crate) fn is_excluded(&self, pack: &PackId) -> bool {
        self.excluded.contains(pack)
    }

    /// Says whether no new commit may rely on a pack: it is condemned or damaged.
    pub(crate) fn is_unfit(&self, pack: &PackId) -> bool {
        self.is_excluded(pack) || self.damaged.contains_key(pack)
    }

    /// Takes over from an index what no pack says.
    pub(crate) fn inherit(&mut self, before: &Self) {
        self.excluded.clone_from(&before.excluded);
        self.generation = before.generation + 1;
    }

    /// Returns the file of the merged index, everything folded into it.
    pub(crate) fn merged_bytes(&mut self) -> &[u8] {
        if self.slots.len() > self.num_base_slots || self.slots.iter().any(|slot| !slot.is_there) {
            self.fold();
        }
        self.base.bytes()
    }

    /// Ids of the commits that begin with `prefix`, whose last byte counts to half if `digits` is odd; rising.
    pub(crate) fn commits_with_prefix(&self, prefix: &[u8; 32], digits: usize) -> Vec<[u8; 32]> {
        let fits = |id: &[u8; 32]| {
            let whole = digits / 2;
            let half = digits.is_multiple_of(2) || id[whole] >> 4 == prefix[whole] >> 4;
            id[..whole] == prefix[..whole] && half
        };
        let base = self.base.rows_from(prefix).take_while(|(id, _)| fits(id));
        let recent = self.recent.iter().filter(|(id, _)| fits(id));
        let mut ids: Vec<[u8; 32]> = base
            .chain(recent.map(|(id, row)| (*id, *row)))
            .filter(|(_, row)| row.kind == Kind::Commit && self.slots[row.pack as usize].is_there)
            .map(|(id, _)| id)
            .collect();
        let walked = self.walked.values().flat_map(|walked| walked.rows.keys());
        ids.extend(walked.filter(|name| name.kind == Kind::Commit && fits(&name.id)).map(|name| name.id));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Folds the map into the sorted rows, in memory.
    fn fold(&mut self) {
        let packs = self.packs();
        let new_number = |row: &Row| {
            let slot = self.slots.get(row.pack as usize)?;
            let found = packs.binary_search_by(|(pack, _)| pack.cmp(&slot.pack));
            slot.is_there.then_some(())?;
            found.ok().map(|number| number as u32)
        };
        let renumber = |row: Row| Some(Row { pack: new_number(&row)?, ..row });
        let base = self.base.rows_from(&[0; 32]);
        let mut rows: Vec<([u8; 32], Row)> = base
            .filter(|(id, _)| !self.recent.contains_key(id))
            .chain(self.recent.iter().map(|(id, row)| (*id, *row)))
            .filter_map(|(id, row)| Some((id, renumber(row)?)))
            .collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        let mut folded = Self::new(MergedIndex::build(&packs, &rows));
        folded.damaged = std::mem::take(&mut self.damaged);
        folded.walked = std::mem::take(&mut self.walked);
        folded.unchecked = std::mem::take(&mut self.unchecked);
        folded.doubted = std::mem::take(&mut self.doubted);
        folded.inherit(self);
        *self = folded;
    }
}
