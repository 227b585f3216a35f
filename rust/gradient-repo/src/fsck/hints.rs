//! What can be lost without harm: caches, leases, files that somebody left behind.

use gradient_storage::{Folder, Key, Storage, StorageError};

use super::{FsckReport, Severity};
use crate::error::Result;
use crate::lease;
use crate::render::count;

/// Between two looks at a lease.
const AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(20);

pub(super) fn check(storage: &dyn Storage, report: &mut FsckReport) -> Result<()> {
    for (file, reason) in gradient_odb::damaged_caches(storage)? {
        report.add(Severity::Warning, file, format!("{reason}; it is rebuilt from the packs when it is needed"));
    }
    for listed in list(storage, Folder::Leases)? {
        let key = Key::new(Folder::Leases, &listed)?;
        // It may be half written: looked at twice, a moment apart.
        let checked = lease::check(storage, &key).or_else(|_| {
            std::thread::sleep(AGAIN_AFTER);
            lease::check(storage, &key)
        });
        if let Err(reason) = checked {
            let what = format!("{reason}; it is removed once nobody has written it for three minutes");
            report.add(Severity::Warning, format!("leases/{listed}"), what);
        }
    }
    for (folder, what) in [
        (Folder::Tmp, "left by writers that stopped, or being written now"),
        (Folder::Trash, "condemned, and deleted once no transaction needs them"),
        (Folder::LostFound, "moved aside by repair"),
    ] {
        let names = list(storage, folder)?;
        if !names.is_empty() {
            report.add(Severity::Note, folder.name(), format!("{}: {what}", count(names.len(), "file")));
        }
    }
    Ok(())
}

fn list(storage: &dyn Storage, folder: Folder) -> Result<Vec<String>> {
    match storage.list(folder) {
        Ok(listed) => Ok(listed.into_iter().map(|file| file.name).collect()),
        Err(StorageError::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
