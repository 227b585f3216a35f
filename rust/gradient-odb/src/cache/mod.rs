//! What can be rebuilt from the packs and is kept because that would take time (`docs/format/caches.md`).

pub(crate) mod commits;
pub(crate) mod merged;

use gradient_storage::{Key, Storage, StorageError};

use crate::OdbError;

/// Returns the caches that are there and can not be used, each with the reason. They are rebuilt by themselves.
///
/// # Errors
/// [`OdbError::Storage`].
pub fn damaged_caches(storage: &dyn Storage) -> Result<Vec<(String, &'static str)>, OdbError> {
    type Load = fn(Vec<u8>) -> Option<&'static str>;
    let mut damaged = Vec::new();
    let caches: [(&str, u64, Load); 2] = [
        ("index", merged::INDEX_CACHE_BYTES_MAX, |bytes| merged::MergedIndex::load(bytes).err()),
        ("commits", commits::COMMITS_CACHE_BYTES_MAX, |bytes| commits::CommitCache::load(bytes).err()),
    ];
    for (name, len_max, load) in caches {
        let reason = match storage.read(&Key::cache(name)?, len_max) {
            Ok(bytes) => load(bytes),
            Err(StorageError::NotFound { .. }) => None,
            Err(StorageError::TooLarge { .. }) => Some("it is too large"),
            Err(StorageError::NotAFile { .. }) => Some("it is no file"),
            Err(error) => return Err(error.into()),
        };
        damaged.extend(reason.map(|reason| (format!("cache/{name}"), reason)));
    }
    Ok(damaged)
}
