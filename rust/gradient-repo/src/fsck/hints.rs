//! What can be lost without harm: caches, leases, files that somebody left behind.

use gradient_storage::{Folder, Key, Storage, StorageError};

use super::{FsckReport, Severity};
use crate::error::Result;
use crate::lease;

pub(super) fn check(storage: &dyn Storage, report: &mut FsckReport) -> Result<()> {
    for (file, reason) in gradient_odb::damaged_caches(storage)? {
        report.add(Severity::Warning, file, format!("{reason}; it is rebuilt from the packs when it is needed"));
    }
    for listed in list(storage, Folder::Leases)? {
        let key = Key::new(Folder::Leases, &listed)?;
        match lease::check(storage, &key) {
            Ok(()) => {}
            Err(reason) => report.add(
                Severity::Warning,
                format!("leases/{listed}"),
                format!("{reason}; it is removed once nobody has written it for three minutes"),
            ),
        }
    }
    for (folder, what) in [
        (Folder::Tmp, "left by writers that stopped, or being written now"),
        (Folder::Trash, "condemned, and deleted once no transaction needs them"),
        (Folder::LostFound, "moved aside by repair"),
    ] {
        let names = list(storage, folder)?;
        if !names.is_empty() {
            report.add(Severity::Note, folder.name(), format!("{} files: {what}", names.len()));
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
