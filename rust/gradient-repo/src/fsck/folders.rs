//! That the fixed folders are there.

use gradient_storage::{Folder, Storage};

use super::log::Roots;
use super::{FsckReport, Severity};
use crate::error::Result;

pub(super) fn check(storage: &dyn Storage, roots: &Roots, report: &mut FsckReport) -> Result<()> {
    for folder in storage.missing_folders()? {
        match folder {
            // A finding already, with the operations.
            Folder::Ops => {}
            Folder::Packs if !roots.named.is_empty() => {
                report.add(Severity::Error, folder.name(), "the folder is missing");
            }
            Folder::Packs
            | Folder::Leases
            | Folder::Tmp
            | Folder::Trash
            | Folder::LostFound
            | Folder::Cache
            | Folder::Root
            | Folder::Beside => {
                report.add(Severity::Note, folder.name(), "the folder is missing; the next writer makes it");
            }
        }
    }
    Ok(())
}
