//! What can be rebuilt from the packs and is kept because that would take time (`docs/format/caches.md`).

pub(crate) mod commits;
pub(crate) mod merged;

use gradient_storage::{Storage, StorageError};

use crate::OdbError;

/// Returns the caches that are there and can not be used, each with the reason. They are rebuilt by themselves.
///
/// # Errors
/// [`OdbError::Storage`].
pub fn damaged_caches(storage: &dyn Storage) -> Result<Vec<(String, &'static str)>, OdbError> {
    type Check = fn(&dyn Storage) -> Result<Option<&'static str>, StorageError>;
    let mut damaged = Vec::new();
    let caches: [(&str, Check); 2] = [
        ("index", |storage| Ok(merged::MergedIndex::read(storage)?.err())),
        ("commits", |storage| Ok(commits::CommitCache::read(storage)?.err())),
    ];
    for (name, check) in caches {
        let reason = match check(storage) {
            Ok(reason) => reason,
            Err(StorageError::NotFound { .. }) => None,
            Err(StorageError::Truncated { .. }) => Some("it became shorter while it was read"),
            Err(StorageError::NotAFile { .. }) => Some("it is no file"),
            Err(error) => return Err(error.into()),
        };
        damaged.extend(reason.map(|reason| (format!("cache/{name}"), reason)));
    }
    Ok(damaged)
}
