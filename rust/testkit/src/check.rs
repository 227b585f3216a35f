//! What must hold of a disk after a fault (`reliability.md`, section 1).

use std::sync::Arc;

use gradient_object::CommitId;
use gradient_repo::{FsckLevel, FsckOptions, Progress, RefTable, RepoError, Severity, Target, fsck};
use gradient_storage::{Folder, StorageError};

use crate::disk::Disk;
use crate::model::{Made, Model, World};
use crate::process::{Action, Performed, Process, content, open_storage};

/// States that a disk may be found in.
pub type Allowed = [Arc<Model>];

/// Numbers of tensors that only a check commits.
const CHECKED_TENSOR: u64 = 1 << 40;

/// The refs of a disk; none while there is no repository.
///
/// # Errors
/// A text for people: it does not open.
pub fn refs_of(disk: &dyn Disk) -> Result<RefTable, String> {
    match Process::open(disk) {
        Ok(process) => process.repo.refs().map(|(table, _)| table).map_err(|error| error.to_string()),
        Err(error) if is_absent(&error) => Ok(RefTable::new()),
        Err(error) => Err(format!("it does not open: {error}")),
    }
}

fn is_absent(error: &RepoError) -> bool {
    matches!(error, RepoError::NotARepository { .. } | RepoError::Storage(StorageError::NotFound { .. }))
}

/// Checks a disk whose processes are dead.
///
/// # Errors
/// A text for people: what does not hold.
pub fn check(disk: &dyn Disk, allowed: &Allowed) -> Result<(), String> {
    check_live(disk, allowed).map(drop)
}

/// As [`check`]; returns the state that was found, and what the check itself committed.
///
/// # Errors
/// A text for people: what does not hold.
pub fn check_live(disk: &dyn Disk, allowed: &Allowed) -> Result<Model, String> {
    let unreadable = disk.bury();
    let mut process = open(disk, allowed)?;
    let mut model = found_of(&process, allowed)?;
    restores(&process, &model).map_err(|error| format!("before the next commit: {error}"))?;
    commit_next(&mut process, &mut model)?;
    maintain(disk, &process, &unreadable)?;
    drop(process);
    is_swept(disk)?;

    let storage = open_storage(disk).map_err(|error| format!("opened again: {error}"))?;
    let options = FsckOptions { level: FsckLevel::Full, ..FsckOptions::default() };
    let report = fsck(&storage, options, &Progress::new()).map_err(|error| format!("fsck: {error}"))?;
    let errors: Vec<_> = report.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    if !errors.is_empty() || !report.lost.is_empty() {
        return Err(format!("fsck: {errors:?}, lost: {:?}", report.lost));
    }
    let process = Process::open(disk).map_err(|error| format!("opened again: {error}"))?;
    restores(&process, &model).map_err(|error| format!("after the next commit: {error}"))?;
    let found = self::world(&process)?;
    if found != model.world {
        return Err(format!("after the next commit refs are {found:?} and should be {:?}", model.world));
    }
    Ok(model)
}

/// Which of the states is there.
///
/// # Errors
/// A text for people: none of them.
pub(crate) fn found_of(process: &Process, allowed: &Allowed) -> Result<Model, String> {
    let world = world(process)?;
    let model = allowed.iter().find(|model| model.world == world);
    let mut model = model.map(|model| (**model).clone()).ok_or_else(|| {
        let worlds: Vec<&World> = allowed.iter().map(|model| &model.world).collect();
        format!("refs are {world:?}; they may be {worlds:?}")
    })?;
    model.is_made = true;
    Ok(model)
}

/// Opens the repository; makes it if it may not have been made yet.
fn open(disk: &dyn Disk, allowed: &Allowed) -> Result<Process, String> {
    match Process::open(disk) {
        Ok(process) => Ok(process),
        Err(error) if is_absent(&error) && allowed.iter().any(|model| !model.is_made) => {
            Process::init(disk).map_err(|error| format!("made again: {error}"))
        }
        Err(error) => Err(format!("it does not open: {error}")),
    }
}

fn world(process: &Process) -> Result<World, String> {
    let notices = process.repo.notices().map_err(|error| error.to_string())?;
    if !notices.is_empty() {
        return Err(format!("it says: {notices:?}"));
    }
    let (table, head) = process.repo.refs().map_err(|error| format!("refs: {error}"))?;
    Ok(World { table, head })
}

/// Every commit of the model comes back bit by bit.
pub(crate) fn restores(process: &Process, model: &Model) -> Result<(), String> {
    for (id, made) in &model.commits {
        let found =
            process.restore(id).map_err(|error| format!("commit {} of step {}: {error}", id.short(), made.step))?;
        let expected: Vec<Vec<u8>> = made.tensors.iter().map(|number| content(*number)).collect();
        if found != expected {
            return Err(format!("commit {} of step {} holds other bytes", id.short(), made.step));
        }
    }
    Ok(())
}

/// The next commit succeeds at once: on the line of main, with a chunk that is new and one that should be there.
fn commit_next(process: &mut Process, model: &mut Model) -> Result<(), String> {
    let failed = |error: RepoError| format!("the next commit: {error}");
    let nobody = CommitId::from_bytes([0; 32]);
    let line = match model.world.table.get("main") {
        Some(Target::Branch(_)) => Action::Resume("main".to_owned()),
        Some(Target::Tag(_)) => Action::Line("checked".to_owned()),
        None => Action::Line("main".to_owned()),
    };
    process.perform(&line, nobody, 0).map_err(failed)?;
    let known = model.newest.and_then(|newest| model.commits.get(&newest)?.tensors.first().copied());
    let (branch, parent, step) = (process.branch.clone(), process.base, process.last.0 + 1_000_000);
    let tensors: Vec<u64> = known.into_iter().chain([CHECKED_TENSOR + step]).collect();
    let performed = process.perform(&Action::Commit(tensors.clone()), nobody, step).map_err(failed)?;
    let Performed::Commit(outcome) = performed else { return Err("the next commit made nothing".to_owned()) };
    if outcome.existing || !outcome.notices.is_empty() {
        return Err(format!("the next commit: {outcome:?}"));
    }
    let made = Made { parent, step, tensors };
    model.commit((&branch, true), outcome.commit, made).map_err(|refused| format!("the next commit: {refused:?}"))?;
    Ok(())
}

/// Upkeep, and what a lease that can not be read spares once time has shown that nobody keeps it.
fn maintain(disk: &dyn Disk, process: &Process, unreadable: &[String]) -> Result<(), String> {
    process.repo.maintain().map_err(|error| format!("upkeep: {error}"))?;
    if !unreadable.is_empty() {
        for name in unreadable {
            disk.remove(Folder::Leases, name);
        }
        process.repo.maintain().map_err(|error| format!("upkeep: {error}"))?;
    }
    Ok(())
}

/// Nothing is left behind that grows.
fn is_swept(disk: &dyn Disk) -> Result<(), String> {
    for folder in [Folder::Tmp, Folder::Trash, Folder::Leases] {
        let left = disk.files_in(folder);
        if let Some((name, _)) = left.first() {
            return Err(format!("{} files are left in {folder}, the first is {name}", left.len()));
        }
    }
    Ok(())
}
