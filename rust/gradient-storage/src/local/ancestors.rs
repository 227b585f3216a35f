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
pub(super) fn create_ancestors(system: &impl System, dir: &Path) -> Result<(), StorageError> {
    let attempt = || retry(|| system.make_path(dir));
    let made = match attempt() {
        Err(Errno::NOENT) => match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                create_ancestors(system, parent)?;
                attempt()
            }
            Some(_) | None => Err(Errno::NOENT),
        },
        outcome => outcome,
    };
    match made {
        Ok(()) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_path(system, dir)
                .and_then(|()| sync_path(system, parent))
                .map_err(|errno| io_error("sync", &dir.display(), errno))
        }
        // What it is, is seen when it is opened.
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(io_error("create", &dir.display(), errno)),
    }
}

/// Syncs a folder by its path.
fn sync_path(system: &impl System, dir: &Path) -> Result<(), Errno> {
    let folder = retry(|| system.open_path(dir))?;
    sync_folder(system, &folder)
}
