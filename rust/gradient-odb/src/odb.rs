//! The objects of one repository: opens it, knows which packs there are, keeps the caches.
//!
//! Reading is in `read.rs`, writing in `transaction.rs` and `ingest.rs`, checking in `verify.rs`, merging in `merge.rs`.
//!
//! Invariants:
//! - A pack enters the index only after it is durable under its name.
//! - Only the holder of `refreshing` adds packs to the index or takes them out; no lock is held across rayon.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gradient_object::{ChunkId, CommitId, TreeId};
use gradient_storage::{Durability, Folder, Key, Storage, StorageError};

use crate::arena::Arena;
use crate::cache::merged::MergedIndex;
use crate::commits::CommitRows;
use crate::index::{Found, Index};
use crate::metadata::BlockCache;
use crate::name::digit;
use crate::pack::tail::{ReadTail, Tail, read_all};
use crate::pack::walk::{Walked, walk};
use crate::pack::writer::FinishedPack;

use crate::{Damage, ObjectName, OdbError, PackId, Sealed, Transaction};

/// The caches are stale when more packs than this are not in them: reading so many tails takes some milliseconds, and
/// writing the caches takes time that grows with the repository.
const UNCACHED_PACKS_MAX: usize = 256;
/// How often the packs are listed again because some of them went meanwhile.
pub(crate) const LOOKS_MAX: u32 = 8;
/// The system's number for a read error of the medium.
const EIO: i32 = 5;

/// The objects of one repository.
///
/// Used from many threads at once. Other processes may add packs meanwhile and, after condemning them, take packs away:
/// a reader that misses something looks again once by itself; a writer is told by its caller through
/// [`refresh`](Self::refresh) and [`exclude`](Self::exclude).
#[derive(Debug)]
pub struct Odb {
    pub(crate) storage: Arc<dyn Storage>,
    index: RwLock<Index>,
    refreshing: Mutex<()>,
    /// What this process wrote or read and hashed, and in which pack.
    verified: RwLock<HashMap<ObjectName, PackId>>,
    /// What verified chunks are coded against: pack and offset of a chunk, and its base.
    pub(crate) bases: Mutex<HashMap<(PackId, u64), ObjectName>>,
    pub(crate) arena: Arc<Arena>,
    pub(crate) blocks: Mutex<BlockCache>,
    pub(crate) commit_rows: Mutex<Option<Arc<CommitRows>>>,
    num_uncached: AtomicUsize,
}

/// Packs that a listing shows and the index does not, and the other way round.
struct Changes {
    gone: Vec<PackId>,
    to_read: Vec<(PackId, u64)>,
}

impl Odb {
    /// Opens the object database of a repository. Without `packs/` it has no objects.
    ///
    /// Loads `cache/index` if it is intact and reads the tails of packs that it does not know. A damaged pack is no
    /// error: see [`damaged`](Self::damaged).
    ///
    /// # Errors
    /// [`OdbError::Storage`]: `packs/` or a pack in it can not be read for another reason than damage.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self, OdbError> {
        // An empty folder does not survive every way of copying; whether it may be empty is known to the operations.
        let has_folder = !storage.missing_folders()?.contains(&Folder::Packs);
        let base = MergedIndex::read(&*storage).ok().and_then(Result::ok).filter(|_| has_folder);
        let mut index = Index::new(base.unwrap_or_else(MergedIndex::empty));
        index.mark_unchecked();
        let odb = Self {
            index: RwLock::new(index),
            storage,
            refreshing: Mutex::default(),
            verified: RwLock::default(),
            bases: Mutex::default(),
            arena: Arc::default(),
            blocks: Mutex::default(),
            commit_rows: Mutex::default(),
            num_uncached: AtomicUsize::new(0),
        };
        odb.refresh()?;
        Ok(odb)
    }

    /// Returns where the bytes live.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Lists `packs/` again: learns of new packs, forgets those that are gone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn refresh(&self) -> Result<(), OdbError> {
        let _only_one = lock(&self.refreshing);
        self.refresh_now()
    }

    /// Refreshes unless somebody has changed the index since `generation`.
    pub(crate) fn refresh_since(&self, generation: u64) -> Result<(), OdbError> {
        let _only_one = lock(&self.refreshing);
        if self.index().generation != generation {
            return Ok(());
        }
        self.refresh_now()
    }

    /// The caller holds `refreshing`.
    fn refresh_now(&self) -> Result<(), OdbError> {
        // What a pack held that went before it was read lies in one that came after the listing: look again.
        for _ in 0..LOOKS_MAX {
            if self.look()? {
                break;
            }
        }
        Ok(())
    }

    /// Lists and reads once; says whether every pack that was listed could be looked at.
    fn look(&self) -> Result<bool, OdbError> {
        let listing = match list_packs(&*self.storage) {
            Err(OdbError::Storage(StorageError::NotFound { .. })) if self.index().all_packs().is_empty() => {
                BTreeMap::new()
            }
            listing => listing?,
        };
        let changes = changes(&self.index(), &listing);
        if changes.gone.is_empty() && changes.to_read.is_empty() {
            return Ok(true);
        }
        let tails = self.judge(read_all(&*self.storage, &changes.to_read, false), false)?;
        let mut is_whole = tails.len() == changes.to_read.len();
        lock(&self.blocks).forget(changes.gone.iter().chain(changes.to_read.iter().map(|(pack, _)| pack)));
        let mut index = self.index_mut();
        index.remove(&changes.gone);
        self.insert_tails(&mut index, tails);
        if !index.has_lost_rows() {
            return Ok(is_whole);
        }
        drop(index);
        // A pack is gone whose rows may have stood for other packs' too: only the packs can tell.
        let all: Vec<_> = listing.into_iter().collect();
        let tails = self.judge(read_all(&*self.storage, &all, false), true)?;
        is_whole &= tails.len() == all.len();
        let mut rebuilt = Index::new(MergedIndex::empty());
        self.insert_tails(&mut rebuilt, tails);
        let mut index = self.index_mut();
        rebuilt.inherit(&index);
        *index = rebuilt;
        Ok(is_whole)
    }

    fn insert_tails(&self, index: &mut Index, tails: Vec<JudgedTail>) {
        self.num_uncached.fetch_add(tails.len(), Ordering::Relaxed);
        for (pack, len, tail) in tails {
            match tail {
                Ok(tail) => index.insert(pack, len, &tail.index.objects),
                Err((damage, walked)) => index.insert_damaged(pack, len, damage, walked),
            }
        }
    }

    /// Tells damage, which is remembered, from packs that went meanwhile and from failures of the storage. Damaged packs
    /// are walked, those that were before only if `again`.
    fn judge(&self, tails: Vec<ReadTail>, again: bool) -> Result<Vec<JudgedTail>, OdbError> {
        let mut judged = Vec::with_capacity(tails.len());
        for (pack, len, tail) in tails {
            let error = match tail {
                Ok(tail) => {
                    judged.push((pack, len, Ok(tail)));
                    continue;
                }
                Err(error) => error,
            };
            if error.is_missing_file() {
                continue;
            }
            let can_walk = matches!(error, OdbError::PackDamaged { .. });
            let damage = damage_of(pack, error)?;
            let walked = if can_walk && (again || !self.index().is_walked(&pack, len)) {
                match walk(&*self.storage, pack, len) {
                    Ok(walked) => Some(walked),
                    Err(error) if error.is_missing_file() => continue,
                    Err(error) => return Err(error),
                }
            } else {
                None
            };
            judged.push((pack, len, Err((damage, walked))));
        }
        Ok(judged)
    }

    /// Looks at a pack itself, of which the index may know only what a cache says. False: it is damaged, and the index
    /// knows that now, or it is gone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn check_pack(&self, pack: &PackId) -> Result<bool, OdbError> {
        let _only_one = lock(&self.refreshing);
        let Some((len, true)) = self.index().known(pack) else { return Ok(false) };
        match Tail::read(&*self.storage, *pack, len) {
            Ok(_) => {
                self.index_mut().mark_checked(pack);
                return Ok(true);
            }
            Err(error) if error.is_missing_file() => {}
            Err(error) => drop(damage_of(*pack, error)?),
        }
        self.index_mut().doubt(*pack);
        self.refresh_now()?;
        Ok(false)
    }

    /// Finds an object that a new commit may rely on: in no pack that is condemned or damaged. A pack that only the
    /// cache speaks for is looked at first, once.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn find_to_rely_on(&self, name: &ObjectName) -> Result<Option<Found>, OdbError> {
        loop {
            let unchecked = {
                let index = self.index();
                match index.find_to_rely_on(name) {
                    Some(found) if index.is_unchecked(&found.pack) => found.pack,
                    found => return Ok(found),
                }
            };
            self.check_pack(&unchecked)?;
        }
    }

    /// Adds a pack that this process has just made durable.
    pub(crate) fn insert_pack(&self, pack: &FinishedPack) {
        let _only_one = lock(&self.refreshing);
        self.num_uncached.fetch_add(1, Ordering::Relaxed);
        self.index_mut().insert(pack.id, pack.len, &pack.rows);
    }

    /// Takes condemned packs out of what writers rely on. They stay readable as long as they are there.
    pub fn exclude(&self, packs: &[PackId]) {
        self.index_mut().exclude(packs);
    }

    /// Begins a transaction.
    ///
    /// The caller has read the head of the operations before, has excluded what it condemns, and has called
    /// [`refresh`](Self::refresh) if another process has published since this one last looked.
    pub fn begin(&self) -> Transaction<'_> {
        Transaction::new(self)
    }

    /// Looks again, after a condemnation, whether everything that a sealed transaction relied on, and its own pack, is
    /// there and not condemned. What lies in another pack now is read and checked.
    ///
    /// False means: begin again. The caller has refreshed and excluded before.
    ///
    /// # Errors
    /// [`OdbError::Storage`].
    pub fn still_holds(&self, sealed: &Sealed) -> Result<bool, OdbError> {
        #[cfg(feature = "simulated")]
        if crate::canary::skips_look_again() {
            return Ok(true);
        }
        if let Some(pack) = &sealed.pack
            && (self.index().is_unfit(pack) || !self.storage.exists(&pack.key())?)
        {
            return Ok(false);
        }
        let mut is_there: HashMap<PackId, bool> = HashMap::new();
        for relied in &sealed.relied {
            let holds = if let Some(holds) = is_there.get(&relied.pack) {
                *holds
            } else {
                let holds = !self.index().is_unfit(&relied.pack) && self.storage.exists(&relied.pack.key())?;
                is_there.insert(relied.pack, holds);
                holds
            };
            if !holds && !self.is_good_elsewhere(&relied.object) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says whether a pack that may be relied on holds the object, and its bytes are right.
    fn is_good_elsewhere(&self, object: &ObjectName) -> bool {
        let found = self.find_to_rely_on(object).ok().flatten();
        let is_there = |pack: &PackId| self.storage.exists(&pack.key()).unwrap_or(false);
        found.is_some_and(|found| {
            is_there(&found.pack)
                && (self.is_verified(object, &found) || self.read_found(object, &found).is_ok())
                && self.verified_links(object, &found).is_some_and(|links| links.iter().all(|(_, pack)| is_there(pack)))
        })
    }

    /// Says whether a pack that was read from may be relied on.
    pub(crate) fn is_fit(&self, pack: &PackId) -> bool {
        let (is_unfit, is_unchecked) = {
            let index = self.index();
            (index.is_unfit(pack), index.is_unchecked(pack))
        };
        !is_unfit && (!is_unchecked || self.check_pack(pack).unwrap_or(false))
    }

    /// Says whether a pack says that it holds the commit.
    pub fn has_commit(&self, id: &CommitId) -> bool {
        self.index().find(&(*id).into()).is_some()
    }

    /// Says whether a pack says that it holds the tree.
    pub fn has_tree(&self, id: &TreeId) -> bool {
        self.index().find(&(*id).into()).is_some()
    }

    /// Says whether a pack says that it holds the chunk.
    pub fn has_chunk(&self, id: &ChunkId) -> bool {
        self.index().find(&(*id).into()).is_some()
    }

    /// Says whether an intact pack says that it holds the object. What only a walk through a damaged pack found may be
    /// something that nobody ever stored: it hashes to its id, but only who knows that id from elsewhere can tell.
    pub fn is_in_intact_pack(&self, object: &ObjectName) -> bool {
        self.index().is_in_intact_pack(object)
    }

    /// Returns the pack that the index names for an object.
    pub fn find_pack(&self, object: &ObjectName) -> Option<PackId> {
        self.index().find(object).map(|found| found.pack)
    }

    /// Returns the commits whose id begins with these lower-case hexadecimal digits, rising. Anything else begins none.
    pub fn commit_prefix(&self, hex: &str) -> Vec<CommitId> {
        let mut prefix = [0; 32];
        if hex.len() > 64 {
            return Vec::new();
        }
        for (i, byte) in hex.bytes().enumerate() {
            let Some(value) = digit(byte) else {
                return Vec::new();
            };
            prefix[i / 2] |= if i % 2 == 0 { value << 4 } else { value };
        }
        let ids = self.index().commits_with_prefix(&prefix, hex.len());
        ids.into_iter().map(CommitId::from_bytes).collect()
    }

    /// Returns the ids of the packs that are there and intact, rising.
    pub fn packs(&self) -> Vec<PackId> {
        let packs = self.index().packs();
        packs.into_iter().map(|(pack, _)| pack).collect()
    }

    /// Returns the packs that can not be opened, and why. What a walk finds in them is read where no other pack has it;
    /// no new commit relies on it.
    pub fn damaged(&self) -> Vec<Damage> {
        let index = self.index();
        index.damaged().map(|(_, damage)| damage.clone()).collect()
    }

    /// Returns the bytes of all packs, damaged ones too.
    pub fn disk_bytes(&self) -> u64 {
        let index = self.index();
        let intact: u64 = index.packs().iter().map(|(_, len)| len).sum();
        intact + index.damaged().map(|(len, _)| len).sum::<u64>()
    }

    /// Writes `cache/index` and `cache/commits`. Neither is synced; both can be lost without harm.
    ///
    /// # Errors
    /// [`OdbError::Storage`], which a caller may ignore; as [`commits`](Self::commits).
    pub fn write_caches(&self) -> Result<(), OdbError> {
        let rows = self.encode_commits()?;
        let bytes = self.index_mut().merged_bytes().to_vec();
        let replace = |name: &str, bytes: &[u8]| -> Result<(), StorageError> {
            let key = Key::cache(name)?;
            self.storage.replace(&key, bytes, Durability::Unsynced)
        };
        replace("index", &bytes)?;
        if let Some(rows) = rows {
            replace("commits", &rows)?;
        }
        self.num_uncached.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the caches when more than 256 packs are not in them; says whether it did.
    ///
    /// # Errors
    /// As [`write_caches`](Self::write_caches).
    pub fn write_caches_if_stale(&self) -> Result<bool, OdbError> {
        let is_stale = self.num_uncached.load(Ordering::Relaxed) > UNCACHED_PACKS_MAX;
        if is_stale {
            self.write_caches()?;
        }
        Ok(is_stale)
    }

    /// Forgets packs that have gone to the trash.
    pub(crate) fn forget(&self, gone: &[PackId]) -> Result<(), OdbError> {
        let _only_one = lock(&self.refreshing);
        let has_lost_rows = {
            let mut index = self.index_mut();
            index.remove(gone);
            index.has_lost_rows()
        };
        if has_lost_rows {
            // Makes every pack new, so that the refresh reads them all.
            let mut empty = Index::new(MergedIndex::empty());
            let mut index = self.index_mut();
            empty.inherit(&index);
            *index = empty;
            drop(index);
            self.refresh_now()?;
        }
        Ok(())
    }

    /// Says whether this process wrote or read these very bytes.
    pub(crate) fn is_verified(&self, name: &ObjectName, found: &Found) -> bool {
        self.verified().get(name) == Some(&found.pack)
    }

    /// What this process wrote, or read and hashed, and where.
    pub(crate) fn verified(&self) -> RwLockReadGuard<'_, HashMap<ObjectName, PackId>> {
        self.verified.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what this process wrote, or read and hashed.
    pub(crate) fn mark_verified(&self, objects: impl IntoIterator<Item = (ObjectName, PackId)>) {
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        verified.extend(objects);
    }

    /// Objects that were verified in old packs and copied from there to `new`, checked, are as good there.
    pub(crate) fn move_verified(&self, old: &BTreeSet<PackId>, new: PackId, copied: &HashMap<ObjectName, PackId>) {
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        for (object, pack) in verified.iter_mut() {
            // Of several copies another one may have been taken.
            if old.contains(pack) && copied.get(object).is_none_or(|from| from == pack) {
                *pack = new;
            }
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks; what a dead thread left behind is whole, because every change under our locks is one call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists the packs with their lengths. Files by other names are none.
pub(crate) fn list_packs(storage: &dyn Storage) -> Result<BTreeMap<PackId, u64>, OdbError> {
    let files = storage.list(Folder::Packs)?.into_iter();
    Ok(files.filter_map(|file| Some((PackId::from_file_name(&file.name)?, file.len))).collect())
}

/// Compares a listing with the index. Damaged packs are read again: the fault may have passed.
fn changes(index: &Index, listing: &BTreeMap<PackId, u64>) -> Changes {
    let is_as_listed = |pack: &PackId| {
        let known = index.known(pack);
        known.is_some_and(|(len, _)| listing.get(pack) == Some(&len)) && !index.is_doubted(pack)
    };
    let gone = index.all_packs().into_iter();
    let listed = listing.iter().map(|(pack, len)| (*pack, *len));
    Changes {
        gone: gone.filter(|pack| !is_as_listed(pack)).collect(),
        to_read: listed
            .filter(|(pack, len)| index.known(pack) != Some((*len, true)) || index.is_doubted(pack))
            .collect(),
    }
}

/// A tail, or why the pack can not be opened and what a walk found in it.
type JudgedTail = (PackId, u64, Result<Tail, (Damage, Option<Walked>)>);

/// Turns what is wrong with a pack into a line for reports; other failures stay errors.
pub(crate) fn damage_of(pack: PackId, error: OdbError) -> Result<Damage, OdbError> {
    let (object, offset) = match &error {
        OdbError::ObjectDamaged { object, offset, .. } => (Some(*object), *offset),
        OdbError::PackDamaged { offset, .. } => (None, *offset),
        OdbError::ChainTooLong { object, .. } | OdbError::NotFound { object } => (Some(*object), 0),
        OdbError::Unsupported { .. }
        | OdbError::Object(_)
        | OdbError::Storage(StorageError::Truncated { .. } | StorageError::NotAFile { .. }) => (None, 0),
        OdbError::Storage(failed) if failed.errno() == Some(EIO) => (None, 0),
        OdbError::Codec(failed) if !failed.is_shortage() => (None, 0),
        OdbError::WrongLength { .. }
        | OdbError::TooLarge { .. }
        | OdbError::CodingNotReversible { .. }
        | OdbError::Cancelled
        | OdbError::TransactionFailed
        | OdbError::Random(_)
        | OdbError::Codec(_)
        | OdbError::Storage(_) => return Err(error),
    };
    let what = match error {
        OdbError::ObjectDamaged { what, .. } | OdbError::PackDamaged { what, .. } => what,
        other => other.to_string(),
    };
    Ok(Damage { pack, object, offset, what })
}
