//! Makes the repository folder and what is missing above it, durably.

use std::path::Path;

use rustix::io::Errno;

use super::beneath::io_error;
use super::system::{System, retry};
use crate::StorageError;

/// Waits until a folder's entries would survive a power cut, where the file system knows of such a thing.
pub(super) fn sync_folder<S: System>(system: &S, folder: &S::Handle) -> Result<(), Errno> {
    #[cfg(feature = "simulated")]
    if system.has_canary(crate::sim::Canary::SkipFolderSync) {
        return Ok(());
    }
    match retry(|| system.sync(folder)) {
        // How file systems say that their folders need no sync.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        outcome => outcome,
    }
}

/// Makes a folder and what is missing above it, each durable in its parent.
///
/// What is there already may be the work of a process that was killed before it synced it. Such a process left at most
/// the folder it made last in doubt, so the two folders above the first one that is there are synced too.
pub(super) fn create_ancestors(system: &impl System, dir: &Path) -> Result<(), StorageError> {
    let failed = |operation, errno| io_error(operation, &dir.display(), errno);
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut made = retry(|| system.make_path(dir));
    let mut is_parent_ours = false;
    if made == Err(Errno::NOENT)
        && let Some(parent) = parent
    {
        create_ancestors(system, parent)?;
        is_parent_ours = true;
        made = retry(|| system.make_path(dir));
    }
    match made {
        Ok(()) => sync_path(system, dir).map_err(|errno| failed("sync", errno))?,
        // What it is, is seen when it is opened.
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("create", errno)),
    }
    let parent = parent.unwrap_or(Path::new("."));
    if made.is_ok() {
        sync_path(system, parent).map_err(|errno| failed("sync", errno))?;
    } else {
        sync_if_allowed(system, parent).map_err(|errno| failed("sync", errno))?;
    }
    match parent.parent().filter(|above| !is_parent_ours && !above.as_os_str().is_empty()) {
        Some(above) => sync_if_allowed(system, above).map_err(|errno| failed("sync", errno)),
        None => Ok(()),
    }
}

/// Syncs a folder unless we may not even read it: then nobody that we stand in for has made anything in it.
fn sync_if_allowed(system: &impl System, dir: &Path) -> Result<(), Errno> {
    match sync_path(system, dir) {
        Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        outcome => outcome,
    }
}

/// Syncs a folder by its path.
fn sync_path(system: &impl System, dir: &Path) -> Result<(), Errno> {
    let folder = retry(|| system.open_path(dir))?;
    sync_folder(system, &folder)
}
