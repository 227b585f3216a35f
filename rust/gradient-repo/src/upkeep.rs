//! Upkeep after commits: caches, merging of small packs, folding of operations. Nothing here is needed for
//! correctness, and a commit is acknowledged before it begins.

use gradient_odb::{MergeLimits, ObjectName, OdbError, PackId, Progress, Sealed};
use gradient_storage::{Folder, Key, StorageError};

use crate::error::Result;
use crate::fsck::{FsckLevel, FsckOptions, examine};
use crate::lease::all_ended;
use crate::operation::{OperationKind, Subject};
use crate::oplog::FOLD_AT;
use crate::repository::{Change, Repository, State};

/// Commits between two looks at whether caches, packs or operations want attention.
pub(crate) const COMMITS_PER_UPKEEP: u32 = 64;

/// From what size on a repository wants attention.
#[derive(Clone, Copy, Debug)]
pub struct UpkeepLimits {
    /// Which packs are merged, and when.
    pub merge: MergeLimits,
    /// Files in `ops/` from which on old operations are folded.
    pub fold_at: usize,
}

impl Default for UpkeepLimits {
    /// Packs under 4 MiB are merged once there are over 1,000, at most 64 MiB at a time so that no commit waits long;
    /// operations are folded from 512 on.
    fn default() -> Self {
        Self { merge: MergeLimits::default(), fold_at: FOLD_AT }
    }
}

impl Repository {
    /// Writes caches, merges small packs and folds operations where that is due.
    ///
    /// # Errors
    /// Storage errors: nothing is lost by them.
    pub fn maintain(&self) -> Result<()> {
        let mut state = self.lock_for_writing()?;
        state.lease.begin();
        let outcome = self.upkeep(&mut state, true);
        state.lease.end();
        outcome
    }

    pub(crate) fn upkeep(&self, state: &mut State, now: bool) -> Result<()> {
        let is_due = now || state.commits_since_upkeep >= COMMITS_PER_UPKEEP;
        if !is_due && !state.lease.can_decide() {
            return Ok(());
        }
        if is_due {
            state.commits_since_upkeep = 0;
        }
        self.retire_leftovers(state)?;
        self.empty_trash(state)?;
        self.sweep_temporaries(state)?;
        if !is_due {
            return Ok(());
        }
        self.merge_packs(state)?;
        // Damage of an old operation keeps it from being folded, and nothing else from being done.
        let folded = self.log.fold_from(state.head.operation.n, self.limits.fold_at);
        self.odb.write_caches_if_stale()?;
        folded.map(drop)
    }

    // One operation names the packs that a merged one replaces; then they move to the trash (rule G2).
    fn merge_packs(&self, state: &mut State) -> Result<()> {
        let merged = match self.odb.merge_small(&self.limits.merge, &Progress::new()) {
            // Removed under us, who had been stopped for so long that others took us for dead.
            Err(OdbError::Storage(StorageError::NotFound { .. })) => return Ok(()),
            merged => merged?,
        };
        let Some(merged) = merged else { return Ok(()) };
        let written = Sealed { pack: Some(merged.new), added_len: 0, relied: Vec::new() };
        loop {
            let present = self.storage.list(Folder::Packs)?;
            let is_present = |id: &PackId| present.iter().any(|file| file.name == format!("{id}.pack"));
            let before = state.head.operation.condemned.iter().filter(|id| is_present(id));
            let mut condemned: Vec<PackId> = before.chain(&merged.old).copied().collect();
            condemned.sort_unstable();
            condemned.dedup();
            let change = Change {
                kind: OperationKind::Condemn,
                subject: Subject::None,
                why: format!("{} small packs merged into {}", merged.old.len(), merged.new),
                table: state.head.table.clone(),
                head: state.head.operation.head.clone(),
            };
            if self.publish_condemning(state, change, condemned)? {
                break;
            }
            self.advance(state)?;
            // Somebody may have condemned the merged pack meanwhile, and then it stands for nothing.
            if !self.odb.still_holds(&written)? {
                return Ok(());
            }
        }
        let running = state.lease.others()?;
        self.odb.retire(&merged.old)?;
        state.trash.push((merged.old, running));
        self.empty_trash(state)
    }

    // A process that died between condemning packs and moving them leaves them in `packs/`.
    fn retire_leftovers(&self, state: &mut State) -> Result<()> {
        let present = self.odb.packs();
        let mut left = state.head.operation.condemned.clone();
        left.retain(|pack| present.binary_search(pack).is_ok());
        if left.is_empty() {
            return Ok(());
        }
        let running = state.lease.others()?;
        self.odb.retire(&left)?;
        state.trash.push((left, running));
        Ok(())
    }

    // A condemned pack goes once every transaction that ran at its condemnation has ended. Packs that an earlier
    // process left in the trash are judged by what runs now.
    fn empty_trash(&self, state: &mut State) -> Result<()> {
        let listed = self.storage.list(Folder::Trash)?;
        if listed.is_empty() && state.trash.is_empty() {
            return Ok(());
        }
        let now = state.lease.others()?;
        let known: Vec<PackId> = state.trash.iter().flat_map(|(packs, _)| packs.clone()).collect();
        let strangers: Vec<PackId> = listed
            .iter()
            .filter_map(|file| PackId::from_file_name(&file.name))
            .filter(|id| !known.contains(id))
            .collect();
        if !strangers.is_empty() {
            state.trash.push((strangers, now.clone()));
        }
        let (gone, kept) = std::mem::take(&mut state.trash).into_iter().partition(|(_, then)| all_ended(then, &now));
        state.trash = kept;
        let gone: Vec<(Vec<PackId>, _)> = gone;
        self.delete_from_trash(gone.into_iter().flat_map(|(packs, _)| packs))
    }

    // What took a pack's place may have been damaged since: what is needed and has no good copy any more is brought back
    // into a new pack before the old one goes.
    fn delete_from_trash(&self, packs: impl Iterator<Item = PackId>) -> Result<()> {
        let delete = |pack: &PackId| match self.storage.delete(&Key::trash_pack(pack.as_bytes())) {
            Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        let mut left = Vec::new();
        for pack in packs {
            match self.odb.only_in_trash(&pack) {
                Ok(Some(only)) if only.is_empty() => delete(&pack)?,
                Ok(only) => left.push((pack, only)),
                Err(OdbError::Storage(StorageError::NotFound { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let options = FsckOptions { level: FsckLevel::Metadata, sample_percent: 0.0 };
        let examined = examine(&self.storage, options, &Progress::new())?;
        // Where anything is damaged, what the trash holds may be all that is left of it (rule G5).
        let is_whole = examined.report.is_clean();
        let is_needed = |only: &[ObjectName]| only.iter().any(|object| examined.needed.contains(object));
        let (spare, needed): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(_, only)| is_whole && only.as_ref().is_none_or(|only| !is_needed(only)));
        let needed: Vec<PackId> = needed.into_iter().map(|(pack, _)| pack).collect();
        let brought_back = self.odb.bring_back(&needed)?;
        // One that is damaged itself stays where it is: nobody can tell what goes with it.
        spare.iter().map(|(pack, _)| pack).chain(&brought_back).try_for_each(|pack| Ok(delete(pack)?))
    }

    // Files in `tmp/` are listed before the leases: whoever made one of them had its lease written earlier, so with
    // no other transaction running they belong to nobody.
    fn sweep_temporaries(&self, state: &mut State) -> Result<()> {
        let listed = self.storage.list(Folder::Tmp)?;
        let others = state.lease.others()?;
        if !others.is_empty() {
            return Ok(());
        }
        for file in listed.iter().filter(|file| is_temporary(&file.name)) {
            match self.storage.delete(&Key::new(Folder::Tmp, &file.name)?) {
                Ok(()) | Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn is_temporary(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|stem| stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gradient_storage::{MemoryStorage, Storage};

    use super::*;
    use crate::lease::{LeaseKeeper, SILENCE_MAX};

    #[test]
    fn what_a_writer_left_that_died_elsewhere_goes_with_the_first_commit_after_its_silence() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let repo = Repository::init(storage.clone(), "gpt", "").expect("a new repository").0;
        LeaseKeeper::elsewhere(&storage, [1; 16]).begin();
        let left =
            [Key::new(Folder::Tmp, "0123456789abcdef0123456789abcdef.tmp").expect("a key"), Key::trash_pack(&[7; 16])];
        for key in &left {
            storage.overwrite(key, b"half a pack").expect("left behind");
        }
        let num_left = || left.iter().filter(|key| storage.exists(key).expect("looked")).count();
        let mut state = repo.lock_for_writing().expect("writable");
        repo.upkeep(&mut state, false).expect("the first of this process");
        repo.upkeep(&mut state, true).expect("asked for");
        assert_eq!(num_left(), 2, "it may be alive");
        state.lease.later = SILENCE_MAX;
        repo.upkeep(&mut state, false).expect("not due for anything else");
        assert_eq!(num_left(), 0);
        assert!(storage.list(Folder::Leases).expect("listed").is_empty());
    }
}
