//! What lies in a repository and is nothing of ours: never read, never removed, named here.

use gradient_odb::PackId;
use gradient_storage::{Folder, Storage, StorageError};

use super::{FsckReport, Severity};
use crate::error::Result;
use crate::oplog::is_operations_file;

/// So many names are shown of each folder.
const SHOWN_MAX: usize = 8;

pub(super) fn check(storage: &dyn Storage, report: &mut FsckReport) -> Result<()> {
    for folder in [Folder::Root].into_iter().chain(Folder::FIXED) {
        let names = match strangers(storage, folder) {
            Ok(names) => names,
            Err(StorageError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        // In `lost+found/` there is no grammar: what lies there is repair's or somebody's.
        let has_grammar = folder != Folder::LostFound;
        let (taken, names): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| has_grammar && is_ours(folder, name));
        for name in taken {
            let severity = match folder {
                Folder::Root | Folder::Ops | Folder::Packs => Severity::Error,
                Folder::Leases | Folder::Tmp | Folder::Trash | Folder::LostFound | Folder::Cache | Folder::Beside => {
                    Severity::Warning
                }
            };
            report.add(
                severity,
                path(folder, &name),
                "it is no regular file: a link, a folder or a device, never opened",
            );
        }
        if names.is_empty() {
            continue;
        }
        // Escaped: a name may hold what a terminal would obey.
        let mut shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("{name:?}")).collect();
        if names.len() > SHOWN_MAX {
            shown.push(format!("and {} more", names.len() - SHOWN_MAX));
        }
        let place = if folder == Folder::Root { "." } else { folder.name() };
        let what = format!("nothing of ours, left alone: {}", shown.join(", "));
        report.add(Severity::Note, place, what);
    }
    Ok(())
}

fn path(folder: Folder, name: &str) -> String {
    if folder == Folder::Root { name.to_owned() } else { format!("{}/{name}", folder.name()) }
}

/// What no reader of the folder takes for its own: by its name, or because it is no regular file.
fn strangers(storage: &dyn Storage, folder: Folder) -> std::result::Result<Vec<String>, StorageError> {
    let mut names = storage.strangers(folder)?;
    let listed = storage.list(folder)?.into_iter().map(|file| file.name);
    names.extend(listed.filter(|name| !is_ours(folder, name)));
    names.sort_unstable();
    Ok(names)
}

fn is_ours(folder: Folder, name: &str) -> bool {
    match folder {
        Folder::Root => ["format", "config.json"].contains(&name),
        Folder::Ops => is_operations_file(name),
        Folder::Packs | Folder::Trash => PackId::from_file_name(name).is_some(),
        Folder::Leases => is_random_name(name),
        Folder::Tmp => name.strip_suffix(".tmp").is_some_and(is_random_name),
        Folder::Cache => ["index", "commits"].contains(&name),
        Folder::LostFound | Folder::Beside => true,
    }
}

fn is_random_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
